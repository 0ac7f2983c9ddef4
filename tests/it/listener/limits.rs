//! Each bound of the connections, made small.

use std::time::Duration;

use countersign::grpc::{Connection, ConnectionLimits, Drained, HealthWatch};
use countersign::proto::engine::CheckStatusRequest;
use countersign::proto::engine::engine_service_client::EngineServiceClient;
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::proto::registry::RegisterEngineRequest;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower_layer::Layer as _;

use super::process::Homes;
use super::served::{HANGS, NAMES_PEER, Served, WHO_AM_I};
use super::wire::{
    ACK, DATA, EMPTY, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, HEALTH, PING,
    Raw, SETTINGS, WINDOW_UPDATE, call, field, frame, request,
};
use crate::support::world;

const SHORT: Duration = Duration::from_millis(200);

fn served(change: impl FnOnce(&mut ConnectionLimits)) -> Served {
    Served::start(|options| change(&mut options.connections))
}

/// Makes a call and awaits the reply's end.
fn heard(raw: &mut Raw, stream: u32) {
    raw.send(&call(stream));
    raw.until(|frame| frame.stream == stream && frame.flags & END_STREAM != 0);
}

/// Begins to read a reply without end.
fn watch(raw: &mut Raw) {
    let watch = request("/grpc.health.v1.Health/Watch");
    raw.send(&frame(HEADERS, END_HEADERS, 1, &watch));
    raw.send(&frame(DATA, END_STREAM, 1, EMPTY));
    raw.until(|frame| frame.kind == DATA);
}

#[test]
fn handler_learns_the_peer_of_its_call() {
    let served = served(|_| ());

    assert_eq!(served.call(NAMES_PEER).unwrap(), "127.0.0.1 0");
}

#[test]
fn connection_without_a_request_is_cut_at_the_deadline_and_no_other() {
    let served = served(|limits| limits.first_request = SHORT);
    let mut caller = Raw::http2(served.address, &[]);
    heard(&mut caller, 1);
    let mut mute = Raw::connect(served.address);
    let mut chatty = Raw::http2(served.address, &[]);
    chatty.send(&frame(PING, 0, 0, &[7; 8]));
    let mut half = Raw::http2(served.address, &[]);
    half.send(&frame(HEADERS, 0, 1, &request("/half")));

    for silent in [&mut mute, &mut chatty, &mut half] {
        silent.closed();
    }

    heard(&mut caller, 3);
}

#[test]
fn oldest_stranger_of_an_address_gives_way_once_it_had_its_chance() {
    let served = served(|limits| {
        limits.per_address = 2;
        limits.chance = Duration::ZERO;
    });
    let mut caller = known(&served, [127, 0, 0, 1]);
    let mut first = Raw::http2(served.address, &[]);
    heard(&mut first, 1);
    let mut second = Raw::http2(served.address, &[]);
    heard(&mut second, 1);

    let mut third = Raw::http2(served.address, &[]);

    first.closed();
    heard(&mut second, 3);
    heard(&mut third, 1);
    heard(&mut caller, 3);
}

#[test]
fn one_connection_too_many_is_closed_at_once() {
    let served = served(|limits| limits.total = 2);
    let mut first = known(&served, [127, 0, 0, 1]);
    let second = known(&served, [127, 0, 0, 2]);

    Raw::http2_from([127, 0, 0, 3], served.address).closed();

    drop(second);
    // Its place is free once the server has seen its end.
    let begun = Instant::now();
    while served.call("").is_err() {
        assert!(begun.elapsed() < world::PATIENCE);
    }
    heard(&mut first, 3);
}

#[test]
fn strangers_give_way_oldest_first_and_no_known_caller() {
    let served = served(|limits| {
        limits.total = 4;
        limits.chance = Duration::ZERO;
    });
    let mut caller = known(&served, [127, 0, 0, 1]);
    let mut stranger = Raw::http2(served.address, &[]);
    heard(&mut stranger, 1);
    let mut oldest = Raw::connect(served.address);
    let mut younger = Raw::connect(served.address);

    let first = known(&served, [127, 0, 0, 1]);
    stranger.closed();
    let second = known(&served, [127, 0, 0, 1]);
    oldest.closed();
    let third = known(&served, [127, 0, 0, 1]);
    younger.closed();
    Raw::http2(served.address, &[]).closed();

    heard(&mut caller, 3);
    for mut known in [first, second, third] {
        heard(&mut known, 3);
    }
}

#[test]
fn refused_token_makes_no_peer_known() {
    let served = served(|limits| {
        limits.total = 1;
        limits.chance = Duration::ZERO;
    });
    let mut refused = Raw::http2(served.address, &[]);
    who_am_i(&mut refused, &served.bearer().replace("eyJ", "eyK"));

    known(&served, [127, 0, 0, 1]);

    refused.closed();
}

#[test]
fn refused_connection_says_why() {
    let served = served(|limits| limits.total = 1);
    let _known = known(&served, [127, 0, 0, 1]);

    let mut refused = Raw::http2(served.address, &[]);
    let word = refused.until(|frame| frame.kind == GOAWAY);

    assert_eq!(word.goaway(), Some(ENHANCE_YOUR_CALM));
    let text = String::from_utf8_lossy(&word.payload[8..]);
    assert_eq!(text, "countersign: 1 connections; try again");
    refused.closed();
    let status = served.call("").unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[test]
fn revoked_keys_connections_are_cut_and_others_get_in() {
    let served = served(|limits| limits.total = 2);
    let mut revoked = [
        known(&served, [127, 0, 0, 1]),
        known(&served, [127, 0, 0, 1]),
    ];
    Raw::http2(served.address, &[]).closed();

    served.revoke();

    for raw in &mut revoked {
        raw.closed();
    }
    heard(&mut Raw::http2(served.address, &[]), 1);
}

/// Opens a watch that sends without end.
async fn watched(channel: &Connection) -> Result<Streaming<HealthCheckResponse>, Status> {
    let mut health = HealthClient::new(channel.clone());
    let watched = health.watch(HealthCheckRequest::default()).await?;
    Ok(watched.into_inner())
}

/// Shows a token on the connection of `channel`.
async fn show_token(channel: &Connection, served: &Served) {
    let mut request = Request::new(WhoAmIRequest {});
    let bearer = served.bearer().parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let mut identity = IdentityServiceClient::new(channel.clone());
    identity.who_am_i(request).await.unwrap();
}

#[test]
fn fifth_call_of_a_stranger_is_refused_and_a_token_lifts_it() {
    let served = served(|_| ());
    Runtime::new().unwrap().block_on(async {
        let channel = world::channel(served.address).await;
        let mut open: Vec<_> = (0..4)
            .map(|_| tokio::spawn(hang(channel.clone())))
            .collect();
        let full = async {
            loop {
                if let Err(status) = check(&channel).await {
                    return status;
                }
            }
        };
        let fifth = world::soon("a refusal", full).await;
        check(&world::channel(served.address).await).await.unwrap();

        open.remove(0).abort();
        let again = async { while check(&channel).await.is_err() {} };
        world::soon("a call in the place of the one that ended", again).await;
        open.push(tokio::spawn(hang(channel.clone())));
        show_token(&channel, &served).await;
        let with_token = check(&channel).await;

        assert_eq!(fifth.code(), Code::ResourceExhausted);
        assert!(fifth.message().contains("at most 4 calls"), "{fifth}");
        with_token.unwrap();
    });
}

async fn check(channel: &Connection) -> Result<(), Status> {
    let mut health = HealthClient::new(channel.clone());
    let checked = health.check(HealthCheckRequest::default()).await;
    checked.map(drop)
}

/// Makes a call that is never answered, again until it is let in.
async fn hang(channel: Connection) {
    let mut client = EngineServiceClient::new(channel);
    loop {
        let mut request = Request::new(CheckStatusRequest {});
        let manner = HANGS.parse().unwrap();
        request.metadata_mut().insert("manner", manner);
        let _ = client.check_status(request).await;
    }
}

#[test]
fn strangers_watch_ends_in_time_with_unavailable() {
    let served = served(|limits| limits.visit = SHORT);
    let begun = Instant::now();
    let ended = Runtime::new().unwrap().block_on(async {
        let channel = world::channel(served.address).await;
        let mut watched = watched(&channel).await.unwrap();
        loop {
            if let Err(status) = world::soon("an end", watched.message()).await {
                return status;
            }
        }
    });

    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    assert!(ended.message().contains("without a token"), "{ended}");
    assert!(begun.elapsed() >= SHORT);
}

#[test]
fn stranger_that_grants_no_window_is_cut_after_its_time() {
    let served = served(|limits| limits.visit = SHORT);
    let mut raw = Raw::http2(served.address, &[0, 4, 0, 0, 0, 0]);
    raw.send(&frame(
        HEADERS,
        END_HEADERS,
        1,
        &request("/grpc.health.v1.Health/Watch"),
    ));
    raw.send(&frame(DATA, END_STREAM, 1, EMPTY));

    raw.closed();
}

#[test]
fn refusals_that_are_not_read_are_cut_after_their_time() {
    let served = served(|limits| limits.visit = SHORT);
    let mut raw = Raw::http2(served.address, &[0, 4, 0, 0, 0, 0]);
    for stream in [1, 3, 5, 7, 9] {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/x"),
            (":authority", "localhost"),
        ];
        let fields: Vec<u8> = fields.iter().flat_map(|(n, v)| field(n, v)).collect();
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
    }
    // Four wait for their reader; one has nothing to wait for.
    raw.until(|frame| frame.kind == HEADERS && frame.flags & END_STREAM != 0);

    raw.closed();
}

#[test]
fn token_on_a_call_that_is_open_to_everyone_makes_its_connection_known() {
    let served = served(|_| ());
    Runtime::new().unwrap().block_on(async {
        let channel = world::channel(served.address).await;
        let mut request = Request::new(HealthCheckRequest::default());
        let bearer = served.bearer().parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let mut health = HealthClient::new(channel.clone());
        health.check(request).await.unwrap();

        let mut open = Vec::new();
        for _ in 0..6 {
            open.push(watched(&channel).await.unwrap());
        }
    });
}

#[test]
fn watch_on_a_connection_with_a_token_goes_on() {
    // The token is shown within this time, also on a busy machine.
    let visit = 10 * SHORT;
    let served = served(|limits| limits.visit = visit);
    Runtime::new().unwrap().block_on(async {
        let channel = world::channel(served.address).await;
        let mut watched = watched(&channel).await.unwrap();
        show_token(&channel, &served).await;
        let begun = Instant::now();
        while begun.elapsed() < 2 * visit {
            watched.message().await.unwrap().unwrap();
        }
    });
}

#[test]
fn open_health_watch_is_bounded_by_address() {
    let served = Served::start(|options| {
        options.connections.visit = SHORT;
        options.health_watch = HealthWatch::Open;
    });
    Runtime::new().unwrap().block_on(async {
        let mut open = Vec::new();
        for _ in 0..8 {
            let channel = world::channel(served.address).await;
            open.push((watched(&channel).await.unwrap(), channel));
        }
        let ninth = watched(&world::channel(served.address).await).await;
        let begun = Instant::now();
        while begun.elapsed() < 3 * SHORT {
            open[0].0.message().await.unwrap().unwrap();
        }
        assert_eq!(ninth.unwrap_err().code(), Code::ResourceExhausted);
    });
}

/// Opens a connection over which a token verified.
#[track_caller]
fn known(served: &Served, from: [u8; 4]) -> Raw {
    let mut raw = Raw::http2_from(from, served.address);
    who_am_i(&mut raw, &served.bearer());
    raw
}

/// Calls a method that takes a token.
#[track_caller]
fn who_am_i(raw: &mut Raw, bearer: &str) {
    let mut headers = request(WHO_AM_I);
    headers.extend(field("authorization", bearer));
    raw.send(&frame(HEADERS, END_HEADERS, 1, &headers));
    raw.send(&frame(DATA, END_STREAM, 1, EMPTY));
    raw.until(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0);
}

#[test]
fn peer_that_answers_no_ping_is_cut() {
    let served = served(|limits| {
        limits.keepalive_interval = SHORT;
        limits.keepalive_timeout = SHORT;
    });
    let mut gone = Raw::http2(served.address, &[]);
    heard(&mut gone, 1);

    gone.until(|frame| frame.kind == PING && frame.flags & ACK == 0);
    gone.closed();
}

#[test]
fn peer_that_does_not_read_its_reply_is_cut() {
    let served = served(|limits| {
        limits.keepalive_interval = SHORT;
        limits.keepalive_timeout = SHORT;
    });
    // A window that is never exhausted, so that only TCP holds the reply up.
    let mut slow = Raw::http2(served.address, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    slow.send(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]));
    watch(&mut slow);

    served.is_alone();

    heard(&mut Raw::http2(served.address, &[]), 1);
}

#[test]
fn old_connection_is_asked_to_end_and_cut_after_the_grace() {
    let served = served(|limits| {
        limits.age = SHORT;
        limits.age_grace = SHORT;
    });
    let begun = Instant::now();
    let mut old = Raw::http2(served.address, &[]);
    // A call that waits for its message.
    old.send(&frame(HEADERS, END_HEADERS, 1, &request(HEALTH)));
    old.send(&frame(DATA, 0, 1, &EMPTY[..1]));

    let asked = old.until(|frame| frame.kind == GOAWAY);
    assert_eq!(asked.goaway(), Some(0));
    old.closed();

    assert!(begun.elapsed() >= 2 * SHORT);
}

#[test]
fn bounds_are_announced() {
    let served = served(|_| ());
    let mut raw = Raw::http2(served.address, &[]);

    let settings = raw.until(|frame| frame.kind == SETTINGS).payload;

    let (settings, rest) = settings.as_chunks::<6>();
    assert!(rest.is_empty());
    // MAX_CONCURRENT_STREAMS and MAX_HEADER_LIST_SIZE.
    assert!(settings.contains(&[0, 3, 0, 0, 0, 100]));
    assert!(settings.contains(&[0, 6, 0, 0, 0x40, 0]));
}

#[test]
fn reply_that_does_not_begin_in_time_is_given_up() {
    let served = Served::start(|options| options.request_timeout = SHORT);

    let late = served.call(HANGS).unwrap_err();

    assert_eq!(
        (late.code(), late.message()),
        (Code::Cancelled, "Timeout expired")
    );
    assert_eq!(served.call("").unwrap(), "fine");
}

/// Opens every kind of connection that would never end by itself.
fn guests(served: &Served) -> Vec<Raw> {
    let mut hanging = Raw::http2(served.address, &[]);
    let mut hangs = request("/countersign.engine.v1.EngineService/CheckStatus");
    hangs.extend(field("manner", HANGS));
    hanging.send(&frame(HEADERS, END_HEADERS, 1, &hangs));
    hanging.send(&frame(DATA, END_STREAM, 1, EMPTY));
    // A reply without end to a peer that does not read it.
    let mut slow = Raw::http2(served.address, &[]);
    watch(&mut slow);
    let silent = Raw::connect(served.address);
    // The answer comes after those before it were taken.
    assert_eq!(served.call("").unwrap(), "fine");
    vec![hanging, slow, silent]
}

#[test]
fn nothing_runs_on_after_the_shutdown_deadline() {
    let served = Served::start(|options| options.shutdown_deadline = SHORT);
    let guests = guests(&served);

    assert_eq!(served.stop(), Drained::AtDeadline);

    for mut guest in guests {
        guest.closed();
    }
}

#[test]
fn nothing_runs_on_after_the_server_was_dropped() {
    let served = Served::start(|_| ());
    let guests = guests(&served);

    served.abandon();

    for mut guest in guests {
        guest.closed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn message_beyond_the_configured_size_is_refused() {
    let homes = Homes::new();
    let dpm = homes.dpm(256, &["ataccama.server.grpc.max-message-size=1KB"]);
    let module = countersign::Module::load(homes.path().join("dpe")).unwrap();
    let identity = module
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let channel = identity.layer(world::channel(dpm.address).await);
    let mut client = world::RegistryClient::new(channel);
    let mut register = async |length| {
        let engine_id = "x".repeat(length);
        let request = RegisterEngineRequest {
            engine_id,
            ..RegisterEngineRequest::default()
        };
        client.register_engine(request).await.unwrap_err()
    };

    // A field's name and length take three bytes.
    let fits = register(1024 - 3).await;
    let exceeds = register(1024 - 2).await;

    assert_eq!(fits.code(), Code::InvalidArgument, "{fits}");
    assert_eq!(exceeds.code(), Code::OutOfRange, "{exceeds}");
    assert!(exceeds.message().contains("1024 bytes"), "{exceeds}");
}
