//! What a call may travel over.

use std::net::SocketAddr;
use std::sync::Arc;

use countersign::grpc::{PeerInfo, reason_of};
use countersign::testing::{self, Pair};
use countersign::{Module, Reason, Transport};
use http::Extensions;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tower_layer::Layer as _;
use tower_service::Service as _;

use crate::layers::greeter::greeter_service_server::GreeterServiceServer;
use crate::layers::{Greeter, any_identity};

/// Calls `callee` with the token of the DPE, over a connection that `info` describes.
async fn called(pair: &Pair, callee: &Module, info: Extensions, lifted: bool) -> Option<Reason> {
    let routes = Routes::new(GreeterServiceServer::new(Greeter { engine: None }));
    let mut layer = callee.server_layer(any_identity());
    if lifted {
        layer = layer.dangerous_any_transport();
    }
    let token = pair
        .dpe
        .issuer()
        .issue(&testing::trusted(&callee.own()))
        .unwrap();
    let mut call = http::Request::builder()
        .method("POST")
        .uri("http://localhost/greeter.v1.GreeterService/Greet")
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {}", token.expose()))
        .header("x-forwarded-for", "127.0.0.1")
        .header("forwarded", "for=127.0.0.1;proto=https")
        .body(Body::new("\0\0\0\0\0".to_owned()))
        .unwrap();
    *call.extensions_mut() = info;
    let reply = layer.layer(routes).call(call).await.unwrap();
    let status = Status::from_header_map(reply.headers())?;
    reason_of(&status)
}

fn tcp(from: &str) -> Extensions {
    let address: SocketAddr = from.parse().unwrap();
    let mut info = Extensions::new();
    info.insert(TcpConnectInfo {
        local_addr: None,
        remote_addr: Some(address),
    });
    info
}

fn ours(from: &str, tls: bool) -> Extensions {
    let mut peer = PeerInfo::new(from.parse().unwrap());
    peer.tls = tls;
    let mut info = Extensions::new();
    info.insert(peer);
    info
}

fn socket() -> Extensions {
    let mut info = Extensions::new();
    info.insert(UdsConnectInfo {
        peer_addr: None,
        peer_cred: None,
    });
    info
}

#[tokio::test]
async fn connection_is_judged_by_what_the_servers_own_socket_shows() {
    let pair = testing::pair();
    let (near, far) = ("[::ffff:127.0.0.1]:1", "192.0.2.2:1");
    let builder = Module::builder(Arc::clone(&pair.dpm.own()))
        .clock(Arc::clone(pair.dpm.clock()))
        .trust(testing::trusted(&pair.dpe.own()));
    let allowing = builder.dangerous_plaintext().build().unwrap();
    let refused = Some(Reason::PlaintextNotAllowed);

    for (info, by_default, allowed) in [
        (tcp(near), None, None),
        (tcp(far), refused, None),
        (ours(near, false), None, None),
        (ours(far, false), refused, None),
        (ours(far, true), None, None),
        (socket(), None, None),
        (Extensions::new(), refused, refused),
    ] {
        let shown = format!("{info:?}");
        for (callee, expected) in [(&pair.dpm, by_default), (&allowing, allowed)] {
            let found = called(&pair, callee, info.clone(), false).await;
            assert_eq!(found, expected, "{shown}");
            assert_eq!(
                called(&pair, callee, info.clone(), true).await,
                None,
                "{shown}"
            );
        }
    }
}

#[test]
fn client_layer_is_refused_what_the_pins_contradict() {
    let own = testing::own_deployment("dpm", "dpm-dev");
    let mut pinned = testing::trusted(&testing::own_deployment("dpe", "pinned"));
    pinned.tls_pins = vec![pinned.keys[0].key.fingerprint()];
    let plain = testing::trusted(&testing::own_deployment("dpe", "plain"));
    let builder = Module::builder(own).trust(pinned).trust(plain);
    let module = builder.build().unwrap();

    for (deployment, over, is_made) in [
        ("plain", Transport::tls(), true),
        ("plain", Transport::loopback(), true),
        ("plain", Transport::dangerous_plaintext(), false),
        ("pinned", Transport::tls(), true),
        ("pinned", Transport::loopback(), false),
        ("pinned", Transport::dangerous_plaintext(), false),
        ("unknown", Transport::tls(), false),
    ] {
        let layer = module.client_layer(deployment, over);
        assert_eq!(layer.is_ok(), is_made, "{deployment} {over:?}: {layer:?}");
    }
}
