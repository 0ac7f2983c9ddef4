//! What a call may travel over.

use std::net::SocketAddr;
use std::sync::Arc;

use countersign::grpc::{PeerInfo, reason_of};
use countersign::identity::Role;
use countersign::testing::{self, Pair};
use countersign::{MethodRules, Module, Reason, Rule, Transport};
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

#[tokio::test]
async fn refused_plain_http_route_answers_401_403_or_404_with_the_reason() {
    let pair = testing::pair();
    let admin = Rule::role(Role::new("ADMIN").unwrap());
    let rules = MethodRules::deny_all()
        .allow_http("/report", admin)
        .unwrap();
    let layer = pair.dpm.server_layer(rules);
    let token = pair
        .dpe
        .issuer()
        .issue(&testing::trusted(&pair.dpm.own()))
        .unwrap();
    let bearer = format!("Bearer {}", token.expose());

    for (path, kind, authorization, status, reason) in [
        ("/report", "text/html", "", 401, Some("TOKEN_MISSING")),
        (
            "/report",
            "text/html",
            bearer.as_str(),
            403,
            Some("ROLE_MISSING"),
        ),
        ("/other", "", bearer.as_str(), 404, None),
        ("/report", "application/grpc-web+proto", "", 200, None),
        ("/report", "application/grpc+proto", "", 200, None),
    ] {
        let mut call = http::Request::get(format!("http://localhost{path}"));
        for (name, value) in [("content-type", kind), ("authorization", authorization)] {
            if !value.is_empty() {
                call = call.header(name, value);
            }
        }
        let mut call = call.body(Body::empty()).unwrap();
        *call.extensions_mut() = tcp("127.0.0.1:1");

        let reply = layer.layer(Routes::default()).call(call).await.unwrap();

        assert_eq!(reply.status(), status, "{path} {kind}");
        assert_eq!(reply.headers().contains_key("grpc-status"), status == 200);
        assert_eq!(
            reply.headers().contains_key("www-authenticate"),
            status == 401
        );
        let mut body = std::pin::pin!(reply.into_body());
        let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await;
        let text = frame.and_then(|frame| frame.unwrap().into_data().ok());
        let shown = text.map(|text| serde_json::from_slice::<serde_json::Value>(&text).unwrap());
        let found = shown.as_ref().and_then(|shown| shown["reason"].as_str());
        assert_eq!(found, reason, "{shown:?}");
    }
}
