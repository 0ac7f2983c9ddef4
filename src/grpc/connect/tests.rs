mod grpcio;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::grpc::cause;

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn refused(target: &Target, options: ConnectionOptions) -> String {
    cause(
        Connection::open(target, options)
            .await
            .unwrap_err()
            .as_ref(),
    )
}

#[tokio::test]
async fn closed_port_is_named_with_its_cause() {
    let (listener, address) = listener().await;
    drop(listener);

    let text = refused(
        &Target::new("127.0.0.1", address.port()),
        ConnectionOptions::default(),
    )
    .await;

    assert!(
        text.contains(&format!("cannot connect to {address}")),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn address_beyond_loopback_is_not_dialled_without_tls() {
    // 192.0.2.0/24 is set aside for documentation: nothing is there, and nothing is sent.
    let target = Target::new("192.0.2.1", 8531);

    let text = refused(&target, ConnectionOptions::default()).await;

    assert!(text.contains("192.0.2.1:8531 is not loopback"), "{text}");
    assert!(
        text.contains("countersign.client.allow-plaintext=true"),
        "{text}"
    );
}

#[tokio::test]
async fn name_that_does_not_resolve_is_named() {
    let target = Target::new("no-such-host.invalid", 8531);

    let text = refused(&target, ConnectionOptions::default()).await;

    assert!(
        text.contains("`no-such-host.invalid` does not resolve"),
        "{text}"
    );
}

#[tokio::test]
async fn connections_are_counted() {
    let (listener, address) = listener().await;
    let target = Target::new("127.0.0.1", address.port());

    let connection = Connection::open(&target, ConnectionOptions::default())
        .await
        .unwrap();

    assert_eq!(connection.opened(), 1);
    drop(listener);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_one_dial_share_its_failure() {
    // 192.0.2.0/24 is set aside for documentation: nothing there answers.
    let target = Target::new("192.0.2.1", 8531);
    let options = ConnectionOptions {
        allow_plaintext: true,
        ..ConnectionOptions::default()
    };
    let connection = Connection::lazy(&target, options).unwrap();
    let begun = tokio::time::Instant::now();

    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        calls.spawn(connection.clone().call(request()));
    }
    let answers = calls.join_all().await;

    assert!(begun.elapsed() < Duration::from_secs(3));
    for answer in answers {
        let failed = answer.unwrap_err();
        assert!(ConnectError::find_in(failed.as_ref()).is_some(), "{failed}");
    }
}

#[tokio::test]
async fn attempt_that_was_broken_off_is_followed_by_another() {
    let (_listener, address) = listener().await;
    let target = Target::new("127.0.0.1", address.port());
    let connection = Connection::lazy(&target, ConnectionOptions::default()).unwrap();
    let (dialler, outcome) = watch::channel(None);
    *connection.0.dialled.lock().unwrap() = Some(outcome);
    drop(dialler);

    ready(&connection).await;

    assert_eq!(connection.opened(), 1);
}

#[tokio::test]
async fn connection_is_to_the_first_target_that_accepts_and_stays_there_until_it_turns() {
    let (gone, closed) = listener().await;
    drop(gone);
    let (_listener, open) = listener().await;
    let targets = [closed, open].map(|at| Target::new("127.0.0.1", at.port()));
    let connection = Connection::lazy_to_any(&targets, ConnectionOptions::default()).unwrap();
    assert_eq!(connection.target(), targets[0]);

    ready(&connection).await;
    assert_eq!(connection.target(), targets[1]);
    let _back = TcpListener::bind(closed).await.unwrap();
    connection.cut();
    ready(&connection).await;
    assert_eq!(connection.target(), targets[1]);

    connection.turn();
    assert!(!connection.is_open());
    assert_eq!(connection.target(), targets[0]);
}

#[tokio::test]
async fn each_target_beyond_loopback_needs_tls() {
    // 192.0.2.0/24 is set aside for documentation: nothing is there, and nothing is sent.
    let targets = [1, 2].map(|port| Target::new("192.0.2.1", port));
    let connection = Connection::lazy_to_any(&targets, ConnectionOptions::default()).unwrap();

    let failed = connection.clone().call(request()).await.unwrap_err();

    let why = ConnectError::find_in(failed.as_ref()).unwrap();
    assert!(
        matches!(why, ConnectError::Plaintext(last) if last.port() == 2),
        "{why}"
    );
}

#[tokio::test]
async fn only_the_given_addresses_are_dialled() {
    let (listener, address) = listener().await;
    let elsewhere = Target::new("no-such-host.invalid", 1);

    let connection =
        Connection::to_addresses(&elsewhere, vec![address], ConnectionOptions::default())
            .await
            .unwrap();

    assert_eq!(connection.opened(), 1);
    drop(listener);
}

#[tokio::test]
async fn no_address_is_no_connection() {
    let target = Target::new("localhost", 1);

    let refused = Connection::to_addresses(&target, vec![], ConnectionOptions::default()).await;

    let text = cause(refused.unwrap_err().as_ref());
    assert!(text.contains("`localhost` has no address"), "{text}");
}

#[test]
fn target_prints_ipv6_in_brackets() {
    assert_eq!(Target::new("::1", 8531).to_string(), "[::1]:8531");
    assert_eq!(Target::new("localhost", 8531).to_string(), "localhost:8531");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_client_connection_has_a_user_timeout() {
    for (keep_alive, milliseconds) in [(KeepAlive::MODULES, 7_000), (KeepAlive::ANY_SERVER, 20_000)]
    {
        let (listener, address) = listener().await;
        let options = ConnectionOptions {
            keep_alive,
            ..ConnectionOptions::default()
        };
        let target = Target::new("127.0.0.1", address.port());
        let connector = Connector::new([&target], options, None).unwrap();

        let (stream, _) = connector.dial(&target).await.unwrap();

        let Either::Left(tcp) = &stream else {
            panic!("{stream:?}")
        };
        let limit = rustix::net::sockopt::tcp_user_timeout(tcp).unwrap();
        assert_eq!(limit, milliseconds);
        drop(listener);
    }
}

/// Connects to a server that says nothing.
async fn silent() -> (Connection, TcpStream, TcpListener) {
    let (listener, address) = listener().await;
    let target = Target::new("127.0.0.1", address.port());
    let connection = Connection::open(&target, ConnectionOptions::default());
    let connection = connection.await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (connection, server, listener)
}

fn request() -> Request<Body> {
    Request::post("/a.B/Get").body(Body::empty()).unwrap()
}

async fn ready(connection: &Connection) {
    connection.clone().connected().await.unwrap();
}

#[tokio::test]
async fn connection_that_is_cut_is_gone_with_its_calls_and_the_next_call_opens_another() {
    let (mut connection, mut server, listener) = silent().await;
    ready(&connection).await;
    let call = connection.call(request());
    let ended = connection.ended();
    let other = connection.clone();
    let cut = async { other.cut() };

    let (answer, (), ()) = tokio::join!(call, ended, cut);

    let text = cause(answer.unwrap_err().as_ref());
    assert!(!text.is_empty());
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    ready(&connection).await;
    listener.accept().await.unwrap();
    assert_eq!(connection.opened(), 2);
}

#[tokio::test]
async fn end_of_a_connection_is_noticed_without_a_call() {
    let (connection, server, _listener) = silent().await;

    drop(server);

    connection.ended().await;
}

#[tokio::test]
async fn late_answer_ends_a_connection_on_which_nothing_arrives() {
    let (mut connection, mut server, _listener) = silent().await;
    ready(&connection).await;
    let mut request = request();
    let limit = http::HeaderValue::from_static("50m");
    request.headers_mut().insert("grpc-timeout", limit);

    let late = connection.call(request).await.unwrap_err();

    assert!(late.is::<tonic::TimeoutExpired>(), "{late:?}");
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn late_answer_ends_no_connection_that_is_alive() {
    let (mut connection, mut server, _listener) = silent().await;
    ready(&connection).await;
    let mut request = request();
    let limit = http::HeaderValue::from_static("200m");
    request.headers_mut().insert("grpc-timeout", limit);
    // Empty SETTINGS.
    server
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap();

    let late = connection.call(request).await.unwrap_err();

    assert!(late.is::<tonic::TimeoutExpired>(), "{late:?}");
    ready(&connection).await;
    assert_eq!(connection.opened(), 1);
}

#[tokio::test]
async fn late_answer_cuts_the_connection_of_its_call_and_none_that_came_after() {
    let (connection, mut server, _listener) = silent().await;

    let late = crate::grpc::call_over(&connection, Duration::from_millis(50), (), |_| async {
        connection.cut();
        ready(&connection).await;
        std::future::pending::<Result<tonic::Response<()>, tonic::Status>>().await
    });
    late.await.unwrap_err();

    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    ready(&connection).await;
    assert_eq!(connection.opened(), 2);
}

#[tokio::test]
async fn server_that_complains_of_pings_gets_fewer() {
    const ENHANCE_YOUR_CALM: u8 = 0xb;
    const INTERNAL_ERROR: u8 = 0x2;
    for (reason, expected) in [(ENHANCE_YOUR_CALM, 1), (INTERNAL_ERROR, 0)] {
        let (connection, mut server, listener) = silent().await;
        server
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        // GOAWAY, last stream 0.
        server
            .write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, reason])
            .await
            .unwrap();
        server.shutdown().await.unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();

        connection.ended().await;

        // The next connection is made after the last one was judged.
        ready(&connection).await;
        listener.accept().await.unwrap();
        assert_eq!(
            connection.link().complaints.load(Ordering::Relaxed),
            expected
        );
    }
}
