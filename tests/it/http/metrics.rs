//! `/actuator/prometheus`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use countersign::engine::EngineStatus;
use countersign::grpc::PROOF;
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::proto::registry::ListEnginesRequest;
use countersign::testing::{own_deployment, trusted};
use countersign::trust::KeySet;
use countersign::{MethodRules, Rule};
use http::StatusCode;
use tonic::body::Body;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tower_layer::Layer as _;

use crate::interop::peer::Peer;
use crate::support::echo::{Client as EchoClient, Echo, SAY};
use crate::support::http::{get, readiness_becomes};
use crate::support::middlebox::Middlebox;
use crate::support::raw::call_registry;
use crate::support::world::{
    Keys, RunningDpe, RunningDpm, channel, free_port, fresh_id, registration_of, soon,
};

/// A scrape: every series, as written, with its value.
#[derive(Debug)]
struct Scrape {
    series: BTreeMap<String, String>,
    text: String,
}

impl Scrape {
    async fn of(http: SocketAddr) -> Self {
        let text = get(http, "/actuator/prometheus").await.body;
        Self {
            series: parse(&text),
            text,
        }
    }

    fn names(&self) -> BTreeSet<&str> {
        self.series.keys().map(String::as_str).collect()
    }

    fn value(&self, series: &str) -> &str {
        let value = self.series.get(series);
        value.unwrap_or_else(|| panic!("{series} is not in\n{}", self.text))
    }

    /// The sum of the series of `family` that have all of `labels`.
    fn sum(&self, family: &str, labels: &[&str]) -> u64 {
        let of_family = |series: &&String| {
            let rest = series.strip_prefix(family);
            rest.is_some_and(|rest| rest.starts_with('{'))
        };
        let fits = |series: &&String| labels.iter().all(|label| series.contains(label));
        let names = self.series.keys().filter(of_family).filter(fits);
        names
            .map(|series| self.series[series].parse::<u64>().unwrap())
            .sum()
    }
}

/// Reads the text format strictly.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut series = BTreeMap::new();
    let (mut helped, mut typed) = (BTreeSet::new(), BTreeMap::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(helped.insert(name), "twice: {line}");
            assert!(words.ends_with('.'), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(typed.insert(name, kind).is_none(), "twice: {line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let family = name.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| family.strip_suffix(suffix))
            .find(|family| typed.get(family) == Some(&"histogram"))
            .unwrap_or(family);
        assert!(typed.contains_key(family), "no type before {line}");
        assert!(helped.contains(family), "no help before {line}");
        if let Some((_, labels)) = name.split_once('{') {
            let labels = labels.strip_suffix('}').unwrap();
            for label in labels.split("\",") {
                let (label, value) = label.split_once("=\"").unwrap();
                let plain = |c: char| c.is_ascii_lowercase() || c == '_';
                assert!(label.chars().all(plain), "{line}");
                assert!(!value.contains(['\\', '\n']), "{line}");
            }
        }
        value.parse::<f64>().unwrap();
        assert!(
            series.insert(name.to_owned(), value.to_owned()).is_none(),
            "twice: {line}"
        );
    }
    series
}

const PROMTOOL: Peer = Peer {
    needs: "`promtool` (Debian package prometheus)",
    program: "promtool",
    probe: &["--version"],
    script: "",
};

const FAMILIES: [&str; 24] = [
    "countersign_auth_requests_total",
    "countersign_auth_verify_duration_seconds",
    "countersign_build_info",
    "countersign_config_last_reload_successful",
    "countersign_engine_registrations_total",
    "countersign_engines",
    "countersign_log_lines_lost_total",
    "countersign_peer_clock_skew_seconds",
    "countersign_ready",
    "countersign_registry_durable",
    "countersign_signing_key_created_timestamp_seconds",
    "countersign_token_cache_lookups_total",
    "countersign_tokens_issued_total",
    "countersign_trusted_keys",
    "grpc_client_handled_total",
    "grpc_client_handling_seconds",
    "grpc_client_msg_received_total",
    "grpc_client_msg_sent_total",
    "grpc_client_started_total",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "grpc_server_started_total",
];

/// The methods that a DPM serves, without reflection.
const METHODS: [(&str, &str, &str); 11] = [
    ("unary", "countersign.identity.v1.IdentityService", "WhoAmI"),
    (
        "unary",
        "countersign.registry.v1.EngineRegistryService",
        "RegisterEngine",
    ),
    (
        "unary",
        "countersign.registry.v1.EngineRegistryService",
        "Heartbeat",
    ),
    (
        "bidi_stream",
        "countersign.registry.v1.EngineRegistryService",
        "ConnectEngine",
    ),
    (
        "unary",
        "countersign.registry.v1.EngineRegistryService",
        "DeregisterEngine",
    ),
    (
        "unary",
        "countersign.registry.v1.EngineRegistryService",
        "InactivateEngine",
    ),
    (
        "unary",
        "countersign.registry.v1.EngineRegistryService",
        "ForgetEngine",
    ),
    (
        "unary",
        "countersign.registry.v1.EngineRegistryService",
        "GetEngine",
    ),
    (
        "unary",
        "countersign.registry.v1.EngineRegistryService",
        "ListEngines",
    ),
    ("unary", "grpc.health.v1.Health", "Check"),
    ("server_stream", "grpc.health.v1.Health", "Watch"),
];

/// The methods of this crate's own services, which a module calls.
const CALLED: [&str; 11] = [
    "CheckStatus",
    "ConnectEngine",
    "DeregisterEngine",
    "ForgetEngine",
    "GetEngine",
    "Heartbeat",
    "InactivateEngine",
    "ListEngines",
    "RegisterEngine",
    "WatchEngines",
    "WhoAmI",
];

fn families(scrape: &Scrape) -> Vec<&str> {
    let lines = scrape.text.lines();
    let types = lines.filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().unwrap()).collect()
}

fn handled(method: &str, code: &str) -> String {
    let (kind, service, method) = METHODS.iter().find(|(_, _, m)| *m == method).unwrap();
    format!(
        r#"grpc_server_handled_total{{grpc_code="{code}",grpc_method="{method}",grpc_service="{service}",grpc_type="{kind}"}}"#
    )
}

fn method_of(series: &str) -> &str {
    let (_, rest) = series.split_once("grpc_method=\"").unwrap();
    rest.split('"').next().unwrap()
}

/// Scrapes until `wanted` holds: a call is counted when its reply has ended at the server.
async fn scrape_until(http: SocketAddr, what: &str, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
    let asked = async {
        loop {
            let scrape = Scrape::of(http).await;
            if wanted(&scrape) {
                return scrape;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(what, asked).await
}

#[tokio::test]
async fn every_series_is_there_from_the_start() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;

    let scrape = Scrape::of(dpm.http).await;

    assert_eq!(families(&scrape), FAMILIES);
    for (kind, service, method) in METHODS {
        let labels =
            format!(r#"grpc_method="{method}",grpc_service="{service}",grpc_type="{kind}"}}"#);
        for family in ["started", "msg_received", "msg_sent"] {
            let series = format!("grpc_server_{family}_total{{{labels}");
            assert_eq!(scrape.value(&series), "0", "{series}");
        }
        let of_method = scrape
            .series
            .keys()
            .filter(|series| series.starts_with("grpc_server_handled_total{"))
            .filter(|series| series.ends_with(&labels));
        assert_eq!(of_method.count(), 17, "{method}");
    }
    let called = |series: &&&str| series.starts_with("grpc_client_started_total{");
    let names = scrape.names();
    let mut called: Vec<_> = names.iter().filter(called).map(|s| method_of(s)).collect();
    called.sort_unstable();
    assert_eq!(called, [&CALLED[..], &["other"]].concat());
    for method in called {
        let codes = names
            .iter()
            .filter(|series| series.starts_with("grpc_client_handled_total{"))
            .filter(|series| method_of(series) == method);
        assert_eq!(codes.count(), 17, "{method}");
    }
    for reason in countersign::Reason::ALL {
        for module in ["", "dpe", "dpm"] {
            let series = format!(
                r#"countersign_auth_requests_total{{module="{module}",reason="{reason}",result="refused"}}"#
            );
            // A caller's own words never come from a server.
            let expected = !reason.as_str().starts_with("PROOF_");
            assert_eq!(scrape.series.contains_key(&series), expected, "{series}");
        }
    }
    let skew = r#"countersign_peer_clock_skew_seconds{deployment="dpe-dev"}"#;
    assert_eq!(scrape.value(skew), "NaN", "nothing was measured yet");
    let version = env!("CARGO_PKG_VERSION");
    let build = format!(r#"countersign_build_info{{module="dpm",version="{version}"}}"#);
    assert_eq!(scrape.value(&build), "1");
    assert_eq!(scrape.value("countersign_ready"), "1");
    assert_eq!(
        scrape.value("countersign_config_last_reload_successful"),
        "1"
    );
    for status in EngineStatus::ALL {
        let series = format!(r#"countersign_engines{{status="{status}"}}"#);
        assert_eq!(scrape.value(&series), "0");
    }
}

#[tokio::test]
async fn calls_of_every_kind_make_no_new_series() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let before = Scrape::of(dpm.http).await;

    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let stranger = Keys::new();
    for method in ["ListEngines", "NoSuchMethod", "<script>"] {
        for module in [keys.dpe_module(), stranger.dpe_module()] {
            let _ = call_registry(&dpm, &module, &method.replace(['<', '>'], "%3C"), b"\xff").await;
        }
    }
    let after = scrape_until(dpm.http, "the refusals", |scrape| {
        scrape.sum("countersign_auth_requests_total", &["KEY_UNKNOWN"]) >= 3
    })
    .await;

    assert_eq!(before.names(), after.names());
    let ready = r#"countersign_engines{status="READY"}"#;
    assert_eq!(after.value(ready), "1");
    let registered = r#"countersign_engine_registrations_total{result="registered"}"#;
    assert_ne!(after.value(registered), "0");
    let issued = r#"countersign_tokens_issued_total{audience="dpe-dev"}"#;
    assert_ne!(after.value(issued), "0", "the dial-back carries a token");
    let other = after.sum("grpc_server_started_total", &[r#"grpc_method="other""#]);
    assert_eq!(other, 4, "methods that are not served are one series");
}

#[tokio::test]
async fn one_call_that_is_answered_and_two_that_are_refused_are_counted() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = keys.dpe_module();
    let channel = channel(dpm.address).await;
    let identity = dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut known = IdentityServiceClient::new(identity.layer(channel.clone()));
    let mut unknown = IdentityServiceClient::new(channel);

    known.who_am_i(WhoAmIRequest {}).await.unwrap();
    let refused = unknown.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let stranger = Keys::new().dpe_module();
    let refused = call_registry(&dpm, &stranger, "ListEngines", b"").await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);

    let scrape = scrape_until(dpm.http, "three calls", |scrape| {
        scrape.sum("grpc_server_handled_total", &[]) >= 3
    })
    .await;
    let (ok, refused) = ("OK", "Unauthenticated");
    assert_eq!(scrape.value(&handled("WhoAmI", ok)), "1");
    assert_eq!(scrape.value(&handled("WhoAmI", refused)), "1");
    assert_eq!(scrape.value(&handled("ListEngines", refused)), "1");
    assert_eq!(scrape.sum("grpc_server_started_total", &[]), 3);
    let who = &[r#"grpc_method="WhoAmI""#][..];
    assert_eq!(scrape.sum("grpc_server_msg_received_total", who), 1);
    assert_eq!(scrape.sum("grpc_server_msg_sent_total", who), 1);
    assert_eq!(scrape.sum("grpc_server_handling_seconds_count", who), 2);
    let sum = r#"grpc_server_handling_seconds_sum{grpc_method="WhoAmI",grpc_service="countersign.identity.v1.IdentityService",grpc_type="unary"}"#;
    let seconds: f64 = scrape.value(sum).parse().unwrap();
    assert!(seconds > 0.0 && seconds < 30.0, "{seconds}");

    let requests = |result: &str, reason: &str, module: &str| {
        scrape.value(&format!(
            r#"countersign_auth_requests_total{{module="{module}",reason="{reason}",result="{result}"}}"#
        ))
    };
    assert_eq!(requests("accepted", "", "dpe"), "1");
    assert_eq!(requests("refused", "TOKEN_MISSING", ""), "1");
    assert_eq!(requests("refused", "KEY_UNKNOWN", ""), "1");
    assert_eq!(scrape.sum("countersign_auth_requests_total", &[]), 3);
    // A call without a token has none to verify.
    let seconds = "countersign_auth_verify_duration_seconds_count";
    assert_eq!(scrape.sum(seconds, &[]), 2);
}

#[tokio::test]
async fn calls_that_a_module_makes_are_counted_by_what_came_of_them() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let labels = |service: &str, method: &str| {
        format!(
            r#"grpc_method="{method}",grpc_service="countersign.{service}",grpc_type="unary"}}"#
        )
    };
    let ended = |service, method, code| {
        let labels = labels(service, method);
        format!(r#"grpc_client_handled_total{{grpc_code="{code}",{labels}"#)
    };
    let (registry, engine) = (
        "registry.v1.EngineRegistryService",
        "engine.v1.EngineService",
    );

    let calls = scrape_until(dpe.http, "a heartbeat", |scrape| {
        scrape.value(&ended(registry, "Heartbeat", "OK")) != "0"
    })
    .await;
    assert_eq!(calls.value(&ended(registry, "RegisterEngine", "OK")), "1");
    for family in [
        "started_total",
        "msg_sent_total",
        "msg_received_total",
        "handling_seconds_count",
    ] {
        let labels = labels(registry, "RegisterEngine");
        let series = format!("grpc_client_{family}{{{labels}");
        assert_eq!(calls.value(&series), "1", "{family}");
    }
    let dial_back = Scrape::of(dpm.http).await;
    assert_ne!(dial_back.value(&ended(engine, "CheckStatus", "OK")), "0");

    dpm.stop().await;
    scrape_until(dpe.http, "a heartbeat that fails", |scrape| {
        scrape.value(&ended(registry, "RegisterEngine", "Unavailable")) != "0"
    })
    .await;
}

#[tokio::test]
async fn callee_that_is_not_believed_counts_as_the_refusal_that_its_caller_gets() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let without_proof = Middlebox::before(dpm.address, |_request, reply| {
        reply.headers_mut().remove(PROOF);
    });
    let without_proof = without_proof.await.address;
    let echo = Echo::serve(&keys.dpm_module()).await;
    let dpe = keys.dpe_module();
    let before = dpe.metrics_text();

    let layer = dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = IdentityServiceClient::new(layer.layer(channel(without_proof).await));
    client.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    let mut client = EchoClient::new(layer.layer(channel(echo).await));
    client.say("hello").await.unwrap();

    let after = dpe.metrics_text();
    let names = |text: &str| parse(text).into_keys().collect::<BTreeSet<_>>();
    assert_eq!(names(&before), names(&after));
    let who = r#"grpc_client_handled_total{grpc_code="Unauthenticated",grpc_method="WhoAmI",grpc_service="countersign.identity.v1.IdentityService",grpc_type="unary"} 1"#;
    assert!(after.contains(who), "{after}");
    let other = r#"grpc_client_handled_total{grpc_code="OK",grpc_method="other",grpc_service="other",grpc_type="other"} 1"#;
    assert!(
        after.contains(other),
        "a method of another service: {after}"
    );
}

#[tokio::test]
async fn answer_of_a_proxy_counts_as_the_status_that_the_caller_gets() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let proxy = Middlebox::before(dpm.address, |_request, reply| {
        *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        reply.headers_mut().remove(Status::GRPC_STATUS);
        *reply.body_mut() = Body::empty();
    });
    let proxy = proxy.await.address;
    let dpe = keys.dpe_module();
    let layer = dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = IdentityServiceClient::new(layer.layer(channel(proxy).await));

    let status = client.who_am_i(WhoAmIRequest {}).await.unwrap_err();

    assert_eq!(status.code(), Code::Unavailable);
    let counted = r#"grpc_client_handled_total{grpc_code="Unavailable",grpc_method="WhoAmI",grpc_service="countersign.identity.v1.IdentityService",grpc_type="unary"} 1"#;
    let text = dpe.metrics_text();
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn engine_of_another_owner_is_counted_with_its_callers_module() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let module = crate::support::world::module(&keys.dpm, &[&keys.dpe, &other]);
    let dpm = RunningDpm::start(module).await;
    let id = fresh_id();
    let mut owner = dpm.client(&keys.dpe_module()).await;
    owner
        .register_engine(registration_of(id, dpm.address))
        .await
        .unwrap_err();
    let free = free_port().await.local_addr().unwrap();
    owner
        .register_engine(registration_of(id, free))
        .await
        .unwrap();
    let thief = crate::support::world::module(&other, &[&keys.dpm]);
    let mut thief = dpm.client(&thief).await;
    thief
        .register_engine(registration_of(id, free))
        .await
        .unwrap_err();
    owner
        .list_engines(ListEnginesRequest::default())
        .await
        .unwrap();

    let scrape = scrape_until(dpm.http, "four calls", |scrape| {
        scrape.sum("grpc_server_handled_total", &[]) >= 4
    })
    .await;

    let result = |result: &str| {
        scrape.value(&format!(
            r#"countersign_engine_registrations_total{{result="{result}"}}"#
        ))
    };
    assert_eq!(result("registered"), "1");
    assert_eq!(result("not_owned"), "1");
    assert_eq!(result("address_not_allowed"), "1");
    let refused = r#"countersign_auth_requests_total{module="dpe",reason="ENGINE_NOT_OWNED",result="refused"}"#;
    assert_eq!(scrape.value(refused), "1");
    assert_eq!(
        scrape.value(&handled("RegisterEngine", "PermissionDenied")),
        "2"
    );
}

#[tokio::test]
async fn stream_is_one_call_with_many_messages_and_ends_when_its_caller_leaves() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut health = HealthClient::new(channel(dpm.address).await);
    let watched = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watched = watched.into_inner();
    watched.message().await.unwrap().unwrap();
    let watch = &[r#"grpc_method="Watch""#][..];

    let open = Scrape::of(dpm.http).await;
    assert_eq!(open.sum("grpc_server_started_total", watch), 1);
    assert_eq!(open.sum("grpc_server_msg_sent_total", watch), 1);
    assert_eq!(open.sum("grpc_server_handled_total", watch), 0);

    drop((watched, health));
    scrape_until(dpm.http, "the stream's end", |scrape| {
        scrape.value(&handled("Watch", "Canceled")) == "1"
    })
    .await;
}

#[tokio::test]
async fn server_of_ones_own_counts_where_its_layer_is_asked_to() {
    let keys = Keys::new();
    let callee = keys.dpm_module();
    let rules = MethodRules::deny_all()
        .allow(SAY, Rule::any_identity())
        .unwrap();
    let listener = free_port().await;
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .layer(callee.server_layer(rules).counted())
        .add_service(Echo)
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    let channel = channel(address).await;
    let identity = keys
        .dpe_module()
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();

    let mut known = EchoClient::new(identity.layer(channel.clone()));
    known.say("hello").await.unwrap();
    let mut stranger = EchoClient::new(channel);
    stranger.say("hello").await.unwrap_err();

    let labels = r#"grpc_method="Say",grpc_service="test.v1.Echo",grpc_type="unknown""#;
    let counted = async {
        loop {
            let text = callee.metrics_text();
            let handled = |code| {
                let series =
                    format!(r#"grpc_server_handled_total{{grpc_code="{code}",{labels}}} 1"#);
                text.contains(&series)
            };
            if handled("OK") && handled("Unauthenticated") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("two calls", counted).await;
}

#[tokio::test]
async fn changed_trust_shows_in_the_next_scrape_and_what_is_gone_is_not_in_it() {
    let keys = Keys::new();
    let module = keys.dpm_module();
    let dpm = RunningDpm::start(module.clone()).await;
    let trusted_keys = |deployment: &str, state: &str| {
        format!(r#"countersign_trusted_keys{{deployment="{deployment}",state="{state}"}}"#)
    };
    let before = Scrape::of(dpm.http).await;
    assert_eq!(before.value(&trusted_keys("dpe-dev", "active")), "1");

    let mut other = trusted(&own_deployment("mmm", "mmm-dev"));
    other.keys[0].revoked = true;
    let changed = KeySet::new(vec![other], keys.dpm.clone()).unwrap();
    module.trust().replace(changed);
    module.metrics().config_reload(false);

    let after = Scrape::of(dpm.http).await;
    assert_eq!(after.value(&trusted_keys("mmm-dev", "active")), "0");
    assert_eq!(after.value(&trusted_keys("mmm-dev", "revoked")), "1");
    let renamed = |series: &&str| series.replace("dpe-dev", "mmm-dev").replace("dpe", "mmm");
    let expected: BTreeSet<_> = before.names().iter().map(renamed).collect();
    let found: BTreeSet<_> = after.names().iter().map(|s| (*s).to_owned()).collect();
    assert_eq!(found, expected, "the old series go, the new ones are there");
    let reload = "countersign_config_last_reload_successful";
    assert_eq!((before.value(reload), after.value(reload)), ("1", "0"));
    let shown = async {
        loop {
            let ready = readiness_becomes(dpm.http, 200).await;
            let keys = &ready["components"]["keys"]["details"]["message"];
            if keys == "trusted deployments: 1, their keys: 0, revoked: 1" {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the keys of now", shown).await;
}

#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    if !PROMTOOL.is_there() {
        return;
    }
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    for http in [dpm.http, dpe.http] {
        let text = Scrape::of(http).await.text;
        let mut promtool = Command::new(PROMTOOL.program)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = promtool.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        let said = promtool.wait_with_output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        );
        assert_eq!(said, "");
    }
}

#[test]
fn promtool_accepts_the_alerts_and_each_is_about_a_metric_that_exists() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/prometheus/countersign.rules.yml"
    );
    let rules = std::fs::read_to_string(path).unwrap();
    let expressions = rules.lines().filter(|line| line.contains(" expr: "));
    let mut count = 0;
    for expression in expressions {
        // It has series only where a certificate is used.
        let known = FAMILIES.iter().any(|family| expression.contains(family));
        let expiry = "countersign_tls_certificate_expiry_timestamp_seconds";
        assert!(known || expression.contains(expiry), "{expression}");
        count += 1;
    }
    assert!(count >= 10, "{count}");
    if PROMTOOL.is_there() {
        let mut promtool = Command::new(PROMTOOL.program);
        let said = promtool.args(["check", "rules", path]).output().unwrap();
        assert!(said.status.success(), "{said:?}");
    }
}
