//! The HTTP port: what probes and scrapers get, and what they can do to it.

#[path = "http/hostile.rs"]
mod hostile;
#[path = "http/metrics.rs"]
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use countersign::Module;
use countersign::clock::{Clock, ManualClock};
use countersign::engine::EngineStatus;
use countersign::grpc::Drained;
use countersign::internals::{About, Access, Site, serve_site};
use countersign::testing::trusted;
use countersign::token::Replay;
use serde_json::json;
use tokio::net::TcpListener;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::http::{Reply, get, readiness_becomes, request, send};
use crate::support::world::{Keys, PATIENCE, RunningDpe, RunningDpm, channel, free_port, soon};

const PATHS: [&str; 6] = [
    "/actuator",
    "/actuator/health",
    "/actuator/health/liveness",
    "/actuator/health/readiness",
    "/actuator/info",
    "/actuator/prometheus",
];

#[tokio::test]
async fn every_path_answers_get_and_head_alike() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;

    for path in PATHS {
        let shown = get(dpm.http, path).await;
        let head = request(dpm.http, "HEAD", path).await;

        assert_eq!((shown.status, head.status), (200, 200), "{path}");
        let content = match path {
            "/actuator/prometheus" => "text/plain; version=0.0.4; charset=utf-8",
            _ => "application/json",
        };
        for reply in [&shown, &head] {
            assert_eq!(reply.header("content-type"), Some(content), "{path}");
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(reply.header("server"), None);
        }
        assert!(shown.body.len() > 10, "{path}");
        assert_eq!(head.body, "", "{path}");
    }
}

#[tokio::test]
async fn links_lead_to_every_other_path() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;

    let links = get(dpm.http, "/actuator").await.json();

    let mut found: Vec<_> = links["_links"]
        .as_object()
        .unwrap()
        .values()
        .map(|link| link["href"].as_str().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, PATHS);
}

#[tokio::test]
async fn other_methods_are_405_and_other_paths_404() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;

    for method in [
        "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "BREW",
    ] {
        let reply = request(dpm.http, method, "/actuator/health").await;

        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{method}");
        assert_eq!(reply.json()["status"], 405, "{method}");
    }
    for path in [
        "/",
        "/actuator/",
        "/actuator/env",
        "/actuator/health/readiness/",
        "//actuator/health",
        "/Actuator/health",
        "/actuator/%68ealth",
        "/actuator/../actuator/health",
        "/api/v1/engines",
    ] {
        let reply = get(dpm.http, path).await;

        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.json(), json!({ "status": 404, "error": "Not Found" }));
    }
    assert_eq!(get(dpm.http, "/actuator/health?x=1").await.status, 200);
}

#[tokio::test]
async fn health_is_reported_in_springs_words() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;

    let health = get(dpm.http, "/actuator/health").await.json();
    let live = get(dpm.http, "/actuator/health/liveness").await.json();
    let ready = get(dpm.http, "/actuator/health/readiness").await.json();

    let keys = json!({
        "status": "UP",
        "details": { "message": "trusted deployments: 1, their keys: 1, revoked: 0" },
    });
    let up = json!({ "status": "UP" });
    assert_eq!(
        health,
        json!({
            "status": "UP",
            "components": { "keys": keys, "livenessState": up, "readinessState": up },
            "groups": ["liveness", "readiness"],
        })
    );
    let components = json!({ "livenessState": up });
    assert_eq!(live, json!({ "status": "UP", "components": components }));
    let components = json!({ "keys": keys, "readinessState": up });
    assert_eq!(ready, json!({ "status": "UP", "components": components }));
}

#[tokio::test]
async fn engine_is_ready_while_it_is_registered() {
    let keys = Keys::new();
    let port = free_port().await;
    let address = port.local_addr().unwrap();
    drop(port);
    let dpe = RunningDpe::start(keys.dpe_module(), address);

    let waiting = readiness_becomes(dpe.http, 503).await;
    assert_eq!(waiting["status"], "OUT_OF_SERVICE");
    assert_eq!(waiting["components"]["engine"]["status"], "OUT_OF_SERVICE");
    assert_eq!(waiting["components"]["keys"]["status"], "UP");
    assert_eq!(get(dpe.http, "/actuator/health").await.status, 503);
    assert_eq!(get(dpe.http, "/actuator/health/liveness").await.status, 200);

    let dpm = RunningDpm::start_with(
        keys.dpm_module(),
        TcpListener::bind(address).await.unwrap(),
        |_| (),
    );
    let registered = readiness_becomes(dpe.http, 200).await;
    let said = &registered["components"]["engine"]["details"]["message"];
    let expected = format!("registered at the DPM {address}, ");
    assert!(said.as_str().unwrap().starts_with(&expected), "{said}");
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    dpm.stop().await;
    let lost = readiness_becomes(dpe.http, 503).await;
    let said = &lost["components"]["engine"]["details"]["message"];
    assert!(said.as_str().unwrap().contains("DPM"), "{said}");

    let _dpm = RunningDpm::start_with(
        keys.dpm_module(),
        TcpListener::bind(address).await.unwrap(),
        |_| (),
    );
    readiness_becomes(dpe.http, 200).await;
}

#[tokio::test]
async fn refused_engine_says_why_it_is_not_ready() {
    let keys = Keys::new();
    let stranger = Keys::new();
    let dpm = RunningDpm::start(stranger.dpm_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);

    let refusal = async {
        loop {
            let ready = readiness_becomes(dpe.http, 503).await;
            let said = ready["components"]["engine"]["details"]["message"].to_string();
            if said.contains("KEY_UNKNOWN") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the refusal's reason", refusal).await;
}

#[tokio::test]
async fn strict_module_is_not_ready_until_the_watermark_has_passed() {
    let keys = Keys::new();
    let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
    let module = Module::builder(keys.dpm.clone())
        .trust(trusted(&keys.dpe))
        .replay(Replay::Strict)
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .build()
        .unwrap();
    let dpm = RunningDpm::start(module).await;

    let early = readiness_becomes(dpm.http, 503).await;
    assert_eq!(early["components"]["replay"]["status"], "OUT_OF_SERVICE");

    clock.advance(Duration::from_secs(31));
    let late = readiness_becomes(dpm.http, 200).await;
    assert_eq!(late["components"]["replay"]["status"], "UP");
}

#[tokio::test]
async fn module_that_stops_says_so_before_its_calls_end() {
    let dpm = RunningDpm::start_with(Keys::new().dpm_module(), free_port().await, |options| {
        options.server.shutdown_deadline = PATIENCE;
    });
    let http = dpm.http;
    let mut health = HealthClient::new(channel(dpm.address).await);
    let watched = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watched = watched.into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    let stopping = tokio::spawn(dpm.stop());
    let readiness = readiness_becomes(http, 503).await;
    assert_eq!(
        readiness["components"]["readinessState"]["status"],
        "OUT_OF_SERVICE"
    );
    assert_eq!(get(http, "/actuator/health/liveness").await.status, 200);
    let next = soon("NOT_SERVING", watched.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);

    drop(watched);
    assert_eq!(stopping.await.unwrap(), Drained::InTime);
    let closed = tokio::net::TcpStream::connect(http).await;
    assert!(closed.is_err(), "the HTTP port outlived its module");
}

#[tokio::test]
async fn beyond_loopback_only_health_is_served() {
    let module = Keys::new().dpm_module();
    let engine = module.health().required("engine");
    let about = About {
        module: "dpm".to_owned(),
        deployment: "dpm-dev".to_owned(),
    };
    let metrics = || Box::pin(std::future::ready("up 1\n".to_owned())) as _;
    let site = Site::new(about, module.health().clone(), Arc::new(metrics));
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = ([127, 0, 0, 1], port).into();
    let served = tokio::spawn(serve_site(listener, site));

    engine.down("waiting for the DPM at inside.example:8531");
    let down = get(to, "/actuator/health").await;
    assert_eq!(down.status, 503);
    let groups = json!(["liveness", "readiness"]);
    assert_eq!(
        down.json(),
        json!({ "status": "OUT_OF_SERVICE", "groups": groups })
    );
    let ready = get(to, "/actuator/health/readiness").await;
    assert_eq!(ready.json(), json!({ "status": "OUT_OF_SERVICE" }));

    engine.up("registered");
    let live = get(to, "/actuator/health/liveness").await.json();
    assert_eq!(live, json!({ "status": "UP" }));
    for path in ["/actuator", "/actuator/info", "/actuator/prometheus"] {
        assert_eq!(get(to, path).await.status, 404, "{path}");
    }
    served.abort();
}

#[tokio::test]
async fn metrics_beyond_loopback_only_where_the_file_says_so() {
    let module = Keys::new().dpm_module();
    let about = About {
        module: "dpm".to_owned(),
        deployment: "dpm-dev".to_owned(),
    };
    let metrics = || Box::pin(std::future::ready("up 1\n".to_owned())) as _;
    let access = Access {
        allowed_hosts: vec!["metrics.example".to_owned()],
        metrics_beyond_loopback: true,
    };
    let site = Site::new(about, module.health().clone(), Arc::new(metrics)).with_access(access);
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let to = ([127, 0, 0, 1], listener.local_addr().unwrap().port()).into();
    let served = tokio::spawn(serve_site(listener, site));

    assert_eq!(get(to, "/actuator/prometheus").await.body, "up 1\n");
    assert_eq!(get(to, "/actuator/info").await.status, 404);
    for host in ["metrics.example:8031", "127.0.0.1"] {
        let request = format!("GET /actuator/prometheus HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = send(to, request).await;
        assert!(answer.ends_with("up 1\n"), "{answer}");
    }
    served.abort();
}

#[tokio::test]
async fn info_says_which_module_it_is() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;

    let info = get(dpm.http, "/actuator/info").await.json();

    assert_eq!(
        info,
        json!({
            "app": { "name": "countersign", "version": env!("CARGO_PKG_VERSION") },
            "module": "dpm",
            "deployment": "dpm-dev",
        })
    );
}

#[tokio::test]
async fn request_without_exactly_one_host_is_400() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;
    let path = "/actuator/health/liveness";

    for (version, hosts) in [
        ("1.0", ""),
        ("1.1", ""),
        ("1.1", "Host: localhost\r\nHost: localhost\r\n"),
        ("1.1", "Host:\r\n"),
    ] {
        let answer = send(
            dpm.http,
            format!("GET {path} HTTP/{version}\r\n{hosts}\r\n"),
        );
        let answer = answer.await;
        assert_eq!(Reply::parse(&answer).status, 400, "{hosts}: {answer}");
    }
    let old = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    assert_eq!(Reply::parse(&send(dpm.http, old).await).status, 200);
}

#[tokio::test]
async fn host_of_another_is_421_before_anything_else() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;

    for start in [
        "GET /actuator/health",
        "POST /actuator/health",
        "GET /nowhere",
        "GET http://evil.example/actuator/health",
    ] {
        let request = format!("{start} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        let reply = Reply::parse(&send(dpm.http, request).await);

        assert_eq!(reply.status, 421, "{start}");
        assert!(!reply.body.contains("evil"), "{reply:?}");
    }
}
