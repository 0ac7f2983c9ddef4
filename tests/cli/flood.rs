//! A flood of forged tokens at a DPM of its own process.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use countersign::Reason;
use countersign::grpc::reason_of;
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use super::modules::{ANY_PORT, Running, paired};

/// Forged tokens in all.
const FORGED: usize = 50_000;

/// Those sent before memory is looked at: buffers, connections and logs have their size by then.
const WARM_UP: usize = 5_000;

const CALLERS: usize = 32;

/// How much memory may grow, in bytes.
const SLACK: usize = 5 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_tokens_leave_memory_flat_and_valid_callers_served() {
    let folder = paired();
    // The one good token lasts longer than the flood, however slow the machine is.
    let engine = "dpe/etc/application.properties";
    let lifetime = "ataccama.authentication.internal.jwt.generator.token-expiration=900\n";
    folder.write(engine, folder.read(engine) + lifetime);
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let statm = format!("/proc/{}/statm", dpm.child.id());
    dpm.drain();
    let good = folder.run("token issue --home dpe --audience dpm-dev");
    let good = good.exits(0).stdout.trim().to_owned();
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let valid = tokio::spawn(serve_valid(
        endpoint.connect().await.unwrap(),
        good.clone(),
        Arc::clone(&over),
    ));
    flood(&endpoint, &good, 0..WARM_UP).await;
    let before = resident(&statm);
    flood(&endpoint, &good, WARM_UP..FORGED).await;
    let after = resident(&statm);
    over.store(true, Ordering::Relaxed);

    let served = valid.await.unwrap();
    assert!(served > 50, "{served} valid calls in all that time");
    assert!(after < before + SLACK, "{before} bytes became {after}");
}

/// Calls with a good token until the flood is over, and returns how often.
async fn serve_valid(channel: Channel, token: String, over: Arc<AtomicBool>) -> usize {
    let mut client = IdentityServiceClient::new(channel);
    let mut served = 0;
    while !over.load(Ordering::Relaxed) {
        let call = client.who_am_i(bearer(&token));
        let reply = tokio::time::timeout(Duration::from_secs(5), call).await;
        reply.expect("a valid call waits too long").unwrap();
        served += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served
}

async fn flood(endpoint: &Endpoint, good: &str, numbers: std::ops::Range<usize>) {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut client = IdentityServiceClient::new(endpoint.connect().await.unwrap());
        let (numbers, good) = (numbers.clone(), good.to_owned());
        callers.spawn(async move {
            for number in numbers.skip(caller).step_by(CALLERS) {
                let (token, reason) = forged(&good, number);
                let status = client.who_am_i(bearer(&token)).await.unwrap_err();
                assert_eq!(status.code(), Code::Unauthenticated);
                assert_eq!(reason_of(&status), Some(reason));
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
}

/// A token that is never the same: under an unknown kid, badly signed, or none at all.
fn forged(good: &str, number: usize) -> (String, Reason) {
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let (input, _) = good.rsplit_once('.').unwrap();
    let signature: Vec<u8> = (0..64)
        .map(|n| number.to_be_bytes()[n % 8] ^ 0x55)
        .collect();
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
    match number % 4 {
        0 => {
            let header = format!(r#"{{"alg":"ES256","kid":"unknown-{number}"}}"#);
            let token = format!("{}.e30.{signature}", encode(&header));
            (token, Reason::KeyUnknown)
        }
        1 => (format!("{input}.{signature}"), Reason::SignatureInvalid),
        2 => (format!("{input}.{number}="), Reason::TokenMalformed),
        _ => {
            let large = format!("{number}{}", "x".repeat(9000));
            (large, Reason::TokenMalformed)
        }
    }
}

fn bearer(token: &str) -> Request<WhoAmIRequest> {
    let mut request = Request::new(WhoAmIRequest {});
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// Bytes of a process that are in memory.
fn resident(statm: &str) -> usize {
    let pages = fs::read_to_string(statm).unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Connections of one wave of strangers, each from an address of its own.
const STRANGERS: u16 = 300;

/// Calls that each stranger begins, with headers of 14 kB in every tenth.
const BEGUN: u32 = 100;

/// The most memory that may be left, in KiB.
const LEFT: usize = 40 << 10;

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_is_given_back_after_a_flood_of_strangers() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    dpm.drain();
    let status = format!("/proc/{}/status", dpm.child.id());
    let calls = many_calls();

    for _wave in 0..3 {
        let mut open = JoinSet::new();
        for number in 0..STRANGERS {
            let calls = calls.clone();
            open.spawn(async move { stranger(number, port, &calls).await });
        }
        let open = open.join_all().await;
        let reached = open.iter().flatten().count();
        assert!(reached > 100, "{reached} strangers got through");
    }

    let most = anonymous(&status);
    // Five times the five seconds that are promised.
    let deadline = Instant::now() + Duration::from_secs(25);
    let mut looks = interval(Duration::from_millis(100));
    while anonymous(&status) > LEFT {
        let left = anonymous(&status);
        assert!(Instant::now() < deadline, "{most} KiB became {left} KiB");
        looks.tick().await;
    }
}

/// Connects from an address of its own, and begins its calls as far as the DPM reads them.
#[cfg(target_os = "linux")]
async fn stranger(number: u16, port: u16, calls: &[u8]) -> Option<TcpStream> {
    let [high, low] = number.to_be_bytes();
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::from(([127, 1, high, low], 0)))
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = socket.connect(address).await.ok()?;
    let written = stream.write_all(calls);
    let _ = tokio::time::timeout(Duration::from_secs(1), written).await;
    Some(stream)
}

/// The bytes of an HTTP/2 client that begins calls of `Health/Watch` and reads nothing.
#[cfg(target_os = "linux")]
fn many_calls() -> Vec<u8> {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const END_HEADERS: u8 = 4;
    const DATA: u8 = 0;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for call in 0..BEGUN {
        let mut block = vec![0x83, 0x86];
        block.extend(literal(b":path", b"/grpc.health.v1.Health/Watch"));
        block.extend(literal(b":authority", b"x"));
        block.extend(literal(b"content-type", b"application/grpc"));
        block.extend(literal(b"te", b"trailers"));
        if call % 10 == 0 {
            block.extend(literal(b"x-a", &[b'a'; 14_000]));
        }
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * call + 1, &block));
        let mut message = vec![0, 0, 0, 0x40, 0];
        message.resize(500, b'x');
        bytes.extend(frame(DATA, 0, 2 * call + 1, &message));
    }
    bytes
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
#[cfg(target_os = "linux")]
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header that is not indexed (RFC 7541, 6.2.2).
#[cfg(target_os = "linux")]
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut header = vec![0];
    for text in [name, value] {
        let Some(mut rest) = text.len().checked_sub(127) else {
            header.push(u8::try_from(text.len()).unwrap());
            header.extend(text);
            continue;
        };
        header.push(127);
        while rest >= 128 {
            header.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        header.push(u8::try_from(rest).unwrap());
        header.extend(text);
    }
    header
}

/// The anonymous memory of a process, in KiB.
#[cfg(target_os = "linux")]
fn anonymous(status: &str) -> usize {
    let text = fs::read_to_string(status).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
