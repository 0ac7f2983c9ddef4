//! PINGs at a server of grpcio's, which ends connections on which they come too often.

use std::path::Path;
use std::process::Stdio;

use http::uri::PathAndQuery;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::client::{Grpc, GrpcService};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use super::*;

/// A server of grpcio's; it ends with the test. `None` if there is no grpcio.
async fn grpcio(arguments: &[&str]) -> Option<(Target, Child)> {
    let probe = ["-c", "import grpc"];
    let found = Command::new("python3").args(probe).output().await;
    if !found.is_ok_and(|probe| probe.status.success()) {
        let required = std::env::var_os("COUNTERSIGN_REQUIRE_PEERS");
        assert!(required.is_none(), "there is no `python3` with grpcio");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/stream_peer.py");
    let mut server = Command::new("python3")
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port = lines.next_line().await.unwrap().unwrap();
    Some((Target::new("127.0.0.1", port.parse().unwrap()), server))
}

fn connection(target: &Target, keep_alive: KeepAlive) -> Connection {
    let options = ConnectionOptions {
        keep_alive,
        ..ConnectionOptions::default()
    };
    Connection::lazy(target, options).unwrap()
}

/// Opens a stream that does not end, and waits until it does.
async fn stream<C>(channel: &C)
where
    C: GrpcService<Body, Error: fmt::Debug, ResponseBody = Body> + Clone,
{
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    let path = PathAndQuery::from_static("/a.B/Endless");
    let request = tonic::Request::new(());
    let opened = client.server_streaming(request, path, codec).await;
    let mut messages = opened.unwrap().into_inner();
    while let Ok(Some(())) = messages.message().await {}
}

#[tokio::test]
async fn pings_become_rarer_until_grpcio_keeps_the_stream_open() {
    let Some((target, _server)) = grpcio(&["3000"]).await else {
        return;
    };
    let often = KeepAlive {
        every: Duration::from_millis(500),
        ..KeepAlive::ANY_SERVER
    };
    let connection = connection(&target, often);
    // Every 500 ms, 1 s and 2 s: too often.
    for complaints in 1..=3 {
        stream(&connection).await;
        connection.ended().await;
        while connection.link().complaints.load(Ordering::Relaxed) < complaints {
            tokio::task::yield_now().await;
        }
    }

    // Every 4 s: the third PING would be one too many.
    let open = timeout(Duration::from_secs(15), stream(&connection));

    open.await.unwrap_err();
    assert_eq!(connection.opened(), 4);
}

#[tokio::test]
async fn pings_of_an_endpoint_become_rarer_until_grpcio_keeps_the_stream_open() {
    let Some((target, _server)) = grpcio(&["3000"]).await else {
        return;
    };
    let often = KeepAlive {
        every: Duration::from_millis(500),
        ..KeepAlive::ANY_SERVER
    };
    let endpoint = Endpoint::from_shared(format!("http://{target}")).unwrap();
    let channel = channel_over(endpoint, false, often).unwrap();
    // Every 500 ms, 1 s and 2 s: too often. Two streams at once are one complaint.
    for complaints in 1..=3 {
        tokio::join!(stream(&channel), stream(&channel));
        let complained = async {
            while channel.complaints() < complaints {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), complained).await.unwrap();
    }

    // Every 4 s: the third PING would be one too many.
    let open = timeout(Duration::from_secs(15), stream(&channel));

    open.await.unwrap_err();
}

#[tokio::test]
async fn open_call_of_a_minute_survives_grpcios_own_rules() {
    let Some((target, _server)) = grpcio(&[]).await else {
        return;
    };
    let connection = connection(&target, KeepAlive::ANY_SERVER);

    let open = timeout(Duration::from_secs(70), stream(&connection));

    open.await.unwrap_err();
    assert_eq!(connection.opened(), 1);
}
