use std::net::SocketAddr;

use tokio::net::TcpListener;

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
        let connector = Connector::new(&Target::new("127.0.0.1", address.port()), options);

        let (stream, _) = connector.dial().await.unwrap();

        let limit = rustix::net::sockopt::tcp_user_timeout(&stream).unwrap();
        assert_eq!(limit, milliseconds);
        drop(listener);
    }
}
