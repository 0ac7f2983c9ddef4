//! Which addresses the DPM registers and dials, and that nothing at one of them can harm it.
//!
//! Nothing but loopback is dialled here: what lies elsewhere is refused before, and the rules
//! themselves are tested by tables beside the policy.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use countersign::Reason;
use countersign::dpm::{EngineRegistryService, Monitor, MonitorOptions, Resolver};
use countersign::engine::{Engine, EngineId, EngineStatus};
use countersign::grpc::{PeerInfo, reason_of};
use countersign::proto::registry as wire;
use countersign::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use countersign::proto::registry::engine_registry_service_server::EngineRegistryServiceServer;
use countersign::registry::store::MemoryStore;
use countersign::registry::{AddressPolicy, AddressRules, AllowedAddress, EngineRegistry, Limits};
use countersign::testing::own_deployment;
use countersign::{MethodRules, Rule};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::{Code, Status};
use tower_layer::Layer as _;
use tower_service::Service;

use crate::support::relay::Relay;
use crate::support::world::{
    Keys, RunningDpe, RunningDpm, free_port, fresh_id, module, registration_of, soon,
};

fn at(id: EngineId, hostname: &str, port: u16) -> wire::RegisterEngineRequest {
    wire::RegisterEngineRequest {
        engine_id: id.to_string(),
        address: Some(wire::EngineAddress {
            hostname: hostname.to_owned(),
            port: port.into(),
        }),
        ..wire::RegisterEngineRequest::default()
    }
}

fn assert_not_allowed(refused: &Status, rule: &str) {
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(reason_of(refused), Some(Reason::AddressNotAllowed));
    assert!(refused.message().contains(rule), "{refused}");
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A DPM whose names stand for what `resolve` says, which gets the number of earlier requests.
async fn dpm_that_resolves(
    keys: &Keys,
    resolve: impl Fn(usize) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
) -> RunningDpm {
    let asked = AtomicUsize::new(0);
    RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor.resolver =
            Resolver::new(move |_| resolve(asked.fetch_add(1, Ordering::SeqCst)));
    })
}

#[tokio::test]
async fn addresses_that_are_never_dialled_are_not_registered() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let own = dpm.address.port();

    for (host, port, rule) in [
        ("127.0.0.1", 22, "port 22 is below 1024"),
        ("127.0.0.1", 1023, "port 1023 is below 1024"),
        ("0.0.0.0", 9000, "unspecified"),
        ("::", 9000, "unspecified"),
        ("255.255.255.255", 9000, "broadcast"),
        ("224.0.0.1", 9000, "multicast"),
        ("ff02::1", 9000, "multicast"),
        ("169.254.1.1", 9000, "link-local"),
        ("fe80::1", 9000, "link-local"),
        ("169.254.169.254", 9000, "metadata"),
        ("::ffff:169.254.169.254", 9000, "metadata"),
        ("64:ff9b::169.254.169.254", 9000, "a way to 169.254.169.254"),
        ("2002:a9fe:a9fe::1", 9000, "a way to 169.254.169.254"),
        ("127.0.0.1", own, "where the registry itself listens"),
        ("::ffff:127.0.0.1", own, "where the registry itself listens"),
        ("localhost", own, "where the registry itself listens"),
    ] {
        let refused = client.register_engine(at(fresh_id(), host, port)).await;
        assert_not_allowed(&refused.unwrap_err(), rule);
    }

    assert!(dpm.registry.list(None, 10).await.unwrap().is_empty());
    let free = free_port().await.local_addr().unwrap();
    let id = fresh_id();
    client
        .register_engine(registration_of(id, free))
        .await
        .unwrap();
    // A move to such an address is refused as well, and changes nothing.
    let moved = client
        .register_engine(at(id, "169.254.169.254", 9000))
        .await;
    assert_not_allowed(&moved.unwrap_err(), "metadata");
    let engine = dpm.registry.find(id).await.unwrap().unwrap();
    assert_eq!(engine.address.port(), free.port());
}

/// Calls a service in this process, as over a connection from elsewhere.
#[derive(Clone)]
struct Over<S> {
    inner: S,
    peer: SocketAddr,
}

impl<S> Service<http::Request<Body>> for Over<S>
where
    S: Service<http::Request<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let peer = PeerInfo::new(self.peer);
        request.extensions_mut().insert(peer);
        self.inner.call(request)
    }
}

#[tokio::test]
async fn loopback_is_registered_over_loopback_alone() {
    let keys = Keys::new();
    let (dpm, engine) = (keys.dpm_module(), keys.dpe_module());
    let clock = Arc::clone(dpm.clock());
    let store = Arc::new(MemoryStore::default());
    let registry = Arc::new(EngineRegistry::new(store, clock, Limits::default()));
    let monitor = Monitor::new(
        dpm.clone(),
        Arc::clone(&registry),
        AddressPolicy::default(),
        MonitorOptions::default(),
    );
    let service = EngineRegistryServiceServer::new(EngineRegistryService::new(registry, monitor));
    let register = "/countersign.registry.v1.EngineRegistryService/RegisterEngine";
    let rules = MethodRules::deny_all()
        .allow(register, Rule::any_identity())
        .unwrap();
    let layer = dpm.server_layer(rules).dangerous_any_transport();
    let served = layer.layer(service);
    let closed = free_port().await.local_addr().unwrap().port();
    let call = async |peer: &str, host: &str| {
        let (inner, peer) = (served.clone(), peer.parse().unwrap());
        let identity = engine
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap();
        let mut client = EngineRegistryServiceClient::new(identity.layer(Over { inner, peer }));
        client.register_engine(at(fresh_id(), host, closed)).await
    };

    for host in [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::ffff:127.0.0.1",
        "localhost",
    ] {
        for peer in ["192.0.2.7:40000", "[2001:db8::7]:40000"] {
            let refused = call(peer, host).await.unwrap_err();
            assert_not_allowed(
                &refused,
                "is loopback, and the registration did not come over",
            );
        }
        for peer in ["127.0.0.1:40000", "[::1]:40000", "[::ffff:127.0.0.1]:40000"] {
            assert!(call(peer, host).await.is_ok(), "{peer} {host}");
        }
    }
    // A machine without a network has no other address.
    if let Some(own) = own_address() {
        let (peer, host) = (format!("{own}:40000"), own.to_string());
        let refused = call("198.51.100.7:40000", &host).await.unwrap_err();
        assert_not_allowed(&refused, "is the registry's own machine");
        for host in ["127.0.0.1", &host] {
            assert!(call(&peer, host).await.is_ok(), "{peer} {host}");
        }
        assert!(call("127.0.0.1:40000", &host).await.is_ok());
    }
}

/// Returns an address of this machine beside loopback: the one that it calls others from.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|own| !own.is_loopback())
}

#[tokio::test]
async fn engine_on_a_port_of_the_dpm_is_refused_that_of_http_included() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;

    for listener in [dpm.address, dpm.http] {
        let refused = client.register_engine(registration_of(fresh_id(), listener));
        let rule = format!("{listener} is where the registry itself listens");
        assert_not_allowed(&refused.await.unwrap_err(), &rule);
    }
}

#[tokio::test]
async fn name_with_one_forbidden_address_is_refused() {
    let keys = Keys::new();
    let dpm = dpm_that_resolves(&keys, |_| Ok(vec![ip("127.0.0.1"), ip("169.254.169.254")])).await;
    let mut client = dpm.client(&keys.dpe_module()).await;

    let refused = client
        .register_engine(at(fresh_id(), "dpe.example.org", 9000))
        .await;

    assert_not_allowed(
        &refused.unwrap_err(),
        "169.254.169.254 is the metadata address",
    );
}

#[tokio::test]
async fn name_that_is_rebound_before_the_dial_back_stays_new_and_says_so() {
    let keys = Keys::new();
    let dpm = dpm_that_resolves(&keys, |asked| {
        Ok(vec![ip(if asked == 0 {
            "127.0.0.1"
        } else {
            "169.254.169.254"
        })])
    })
    .await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let id = fresh_id();

    client
        .register_engine(at(id, "dpe.example.org", 9000))
        .await
        .unwrap();

    let reason = dpm.reason(id, "ADDRESS_NOT_ALLOWED").await;
    assert!(
        reason.contains("169.254.169.254 is the metadata"),
        "{reason}"
    );
    dpm.engine_is(id, EngineStatus::New).await;
}

#[tokio::test]
async fn name_that_is_rebound_later_is_judged_before_it_is_dialled_again() {
    let keys = Keys::new();
    // Once at the registration, once for the dial-back.
    let dpm = dpm_that_resolves(&keys, |asked| {
        Ok(vec![ip(if asked < 2 { "127.0.0.1" } else { "fe80::1" })])
    })
    .await;
    let proxy = Relay::start().await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |options| {
        options.hostname = "dpe.example.org".to_owned();
        options.port = Some(proxy.address.port());
        // One registration, and no other asks the resolver.
        options.status_checker.check_connection_interval = Duration::from_secs(3600);
    });
    proxy.reroute(Some(dpe.address));
    let id = dpe.id;
    dpm.engine_is(id, EngineStatus::Ready).await;

    proxy.reroute(None);

    let reason = dpm.reason(id, "ADDRESS_NOT_ALLOWED").await;
    assert!(reason.contains("fe80::1 is link-local"), "{reason}");
    dpm.engine_is(id, EngineStatus::Disconnected).await;
    dpe.stop().await;
}

#[tokio::test]
async fn name_that_does_not_resolve_yet_is_registered_and_dialled_once_it_does() {
    let keys = Keys::new();
    let dpm = dpm_that_resolves(&keys, |asked| match asked {
        0..4 => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(vec![ip("127.0.0.1")]),
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |options| {
        options.hostname = "dpe.example.org".to_owned();
    });

    let reason = dpm.reason(dpe.id, "does not resolve").await;

    assert!(reason.contains("`dpe.example.org`"), "{reason}");
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}

#[tokio::test]
async fn listed_addresses_and_low_ports_are_the_deployments_own() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let mut rules = AddressRules::default();
    rules.allowed = vec![AllowedAddress::parse("127.0.0.2/31").unwrap()];
    rules.allow_low_ports = true;
    let dpm_module = module(&keys.dpm, &[&keys.dpe, &other]);
    let dpm = RunningDpm::start_with(dpm_module, free_port().await, |options| {
        options.addresses = HashMap::from([("dpe-dev".to_owned(), rules)]).into();
    });
    let mut mine = dpm.client(&keys.dpe_module()).await;
    let mut others = dpm.client(&module(&other, &[&keys.dpm])).await;

    let elsewhere = mine
        .register_engine(at(fresh_id(), "127.0.0.1", 9000))
        .await;

    let setting = "`countersign.deployments.dpe-dev.allowed-addresses`";
    assert_not_allowed(&elsewhere.unwrap_err(), setting);
    for host in ["127.0.0.2", "127.0.0.3"] {
        // Port 1 (tcpmux): nothing listens there.
        mine.register_engine(at(fresh_id(), host, 1)).await.unwrap();
    }
    let low = others.register_engine(at(fresh_id(), "127.0.0.2", 1)).await;
    assert_not_allowed(
        &low.unwrap_err(),
        "`countersign.deployments.dpe-other.allow-low-ports`",
    );
    let free = free_port().await.local_addr().unwrap();
    others
        .register_engine(registration_of(fresh_id(), free))
        .await
        .unwrap();
}

/// Registers an engine at `address`, and a sound one; returns why the first is not READY once the
/// second is.
async fn beside_a_sound_engine(
    dpm: &RunningDpm,
    keys: &Keys,
    address: SocketAddr,
    part: &str,
) -> Arc<Engine> {
    let id = fresh_id();
    let mut client = dpm.client(&keys.dpe_module()).await;
    client
        .register_engine(registration_of(id, address))
        .await
        .unwrap();
    let sound = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(sound.id, EngineStatus::Ready).await;
    dpm.reason(id, part).await;
    sound.stop().await;
    dpm.engine_is(id, EngineStatus::New).await
}

/// Serves each connection with `answer`, after the caller's first bytes.
async fn hostile<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = free_port().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut first = [0; 24];
            if stream.read_exact(&mut first).await.is_ok() {
                tokio::spawn(answer(stream));
            }
        }
    });
    address
}

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn engine_that_hangs_delays_no_other() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor.checker_timeout = MonitorOptions::default().checker_timeout;
    });
    let silent = hostile(async |stream: TcpStream| {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;

    let engine = beside_a_sound_engine(&dpm, &keys, silent, "within 200ms").await;

    let reason = engine.status_reason.as_deref().unwrap();
    assert!(reason.contains("did not answer in time"), "{reason}");
    let setting = "`ataccama.one.dpm.registry.grpc-checker-timeout`";
    assert!(reason.contains(setting), "{reason}");
}

#[tokio::test]
async fn reply_of_a_gigabyte_is_not_read() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let endless = hostile(move |mut stream: TcpStream| {
        let seen = Arc::clone(&seen);
        async move {
            // Frames of an unknown type, which a peer has to ignore (RFC 9113, 4.1).
            let mut frame = vec![0; 9 + 16_384];
            frame[..9].copy_from_slice(&[0, 0x40, 0, 0xfa, 0, 0, 0, 0, 0]);
            let mut sent = 0;
            if stream.write_all(SETTINGS).await.is_err() {
                return;
            }
            while sent < 1 << 30 && stream.write_all(&frame).await.is_ok() {
                sent += frame.len();
                seen.fetch_max(sent, Ordering::SeqCst);
            }
        }
    })
    .await;

    beside_a_sound_engine(&dpm, &keys, endless, "sends more than 1048576 bytes").await;

    // What was sent and not read lay in the buffers of the two sockets.
    let most = most.load(Ordering::SeqCst);
    assert!(most < 64 << 20, "{most}");
}

#[tokio::test]
async fn engine_that_says_go_away_is_not_waited_for() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let leaving = hostile(async |mut stream: TcpStream| {
        let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let _ = stream.write_all(&[SETTINGS, &go_away].concat()).await;
        // Open for as long as the caller likes.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;

    beside_a_sound_engine(&dpm, &keys, leaving, "was lost before an answer").await;
}

#[tokio::test]
async fn engine_that_speaks_tls_on_a_plaintext_port_is_recognized() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let tls = hostile(async |mut stream: TcpStream| {
        // The alert `unexpected_message`, with which a TLS server answers HTTP/2.
        let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 10]).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;

    beside_a_sound_engine(&dpm, &keys, tls, "the peer speaks TLS on this port").await;
}

#[tokio::test]
async fn of_one_deployment_8_engines_are_dialled_at_once() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let dpm = RunningDpm::start(module(&keys.dpm, &[&keys.dpe, &other])).await;
    let open = Arc::new(AtomicUsize::new(0));
    let opened = Arc::clone(&open);
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let silent = hostile(move |stream: TcpStream| {
        opened.fetch_add(1, Ordering::SeqCst);
        arrived.send(()).unwrap();
        async {
            let _open = stream;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    for _ in 0..20 {
        client
            .register_engine(registration_of(fresh_id(), silent))
            .await
            .unwrap();
    }
    for _ in 0..8 {
        soon("a dial-back", arrivals.recv()).await.unwrap();
    }

    // Others are dialled meanwhile.
    let theirs = RunningDpe::start(module(&other, &[&keys.dpm]), dpm.address);
    dpm.engine_is(theirs.id, EngineStatus::Ready).await;

    assert_eq!(open.load(Ordering::SeqCst), 8);
    theirs.stop().await;
}

#[tokio::test]
async fn engine_that_answers_does_not_wait_for_those_of_its_deployment_that_hang() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor = MonitorOptions::default();
        options.limits.max_new_engines_per_second = 1000;
    });
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let silent = hostile(move |stream: TcpStream| {
        arrived.send(()).unwrap();
        async {
            let _open = stream;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    for _ in 0..300 {
        client
            .register_engine(registration_of(fresh_id(), silent))
            .await
            .unwrap();
    }
    soon("a dial-back", arrivals.recv()).await.unwrap();

    let sound = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(sound.id, EngineStatus::Ready).await;

    // All others came first.
    let dialled = 1 + arrivals.len();
    assert!(dialled < 100, "{dialled}");
    sound.stop().await;
}

#[tokio::test]
async fn registration_at_a_new_address_waits_for_no_check_of_the_old_one() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor.checker_timeout = Duration::from_secs(3600);
    });
    let silent: TcpListener = free_port().await;
    let old = silent.local_addr().unwrap();
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |options| {
        options.hostname = old.ip().to_string();
        options.port = Some(old.port());
    });
    let (_checked, _) = soon("the check", silent.accept()).await.unwrap();
    let id = dpe.id;
    dpe.kill().await;

    let moved = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |_| ());

    assert_eq!(moved.id, id);
    dpm.engine_is(id, EngineStatus::Ready).await;
    moved.stop().await;
}
