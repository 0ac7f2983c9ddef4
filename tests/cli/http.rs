//! The HTTP port of real processes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::modules::{ANY_PORT, Running, paired};

/// Asks `port` for `path`; returns the status and the body.
pub(super) fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// Asks until there is an answer.
#[track_caller]
pub(super) fn poll<T>(what: &str, ask: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        if let Some(answer) = ask() {
            return answer;
        }
    }
    panic!("did not come in time: {what}");
}

/// Returns the body of the readiness probe once its status is `status`.
#[track_caller]
pub(super) fn readiness_becomes(port: u16, status: u16) -> String {
    poll("readiness", || {
        let (now, body) = get(port, "/actuator/health/readiness");
        (now == status).then_some(body)
    })
}

/// Returns the number after `name` in a startup line.
pub(super) fn port(line: &str, name: &str) -> u16 {
    let (_, rest) = line.split_once(name).unwrap();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

#[test]
fn engine_answers_its_probes_and_counts_its_calls() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let startup = dpm.until(" startup ");
    dpm.drain();
    let (grpc, http) = (
        port(&startup, " address=127.0.0.1:"),
        port(&startup, " http=127.0.0.1:"),
    );
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={grpc}");
    let mut dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
    let startup = dpe.until(" startup ");
    dpe.drain();
    let engine = port(&startup, " http=127.0.0.1:");

    let ready = readiness_becomes(engine, 200);
    let (status, metrics) = get(http, "/actuator/prometheus");
    let (_, calls) = get(engine, "/actuator/prometheus");
    dpm.child.kill().unwrap();
    let lost = readiness_becomes(engine, 503);

    assert_eq!(status, 200);
    assert!(
        metrics.contains("\ngrpc_server_handled_total{"),
        "{metrics}"
    );
    let registered = calls.lines().find(|line| {
        [r#"grpc_method="RegisterEngine""#, r#"grpc_code="OK""#]
            .iter()
            .all(|label| line.contains(label))
    });
    assert!(
        registered.is_some_and(|line| line.ends_with("} 1")),
        "{calls}"
    );
    assert!(lost.contains(r#""status":"OUT_OF_SERVICE""#), "{lost}");
    assert_eq!(get(engine, "/actuator/health/liveness").0, 200);
    assert!(
        ready.contains("registered at the DPM localhost:"),
        "{ready}"
    );
}

#[test]
fn file_with_faults_shows_in_readiness_and_metrics_until_it_is_fixed() {
    let folder = paired();
    let file = "dpm/etc/application.properties";
    let good = folder.read(file);
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let http = port(&dpm.until(" startup "), " http=127.0.0.1:");
    let reload = |status: &str, value: &str| {
        let series = format!("\ncountersign_config_last_reload_successful {value}\n");
        poll("the reload's state", || {
            let (code, ready) = get(http, "/actuator/health/readiness");
            let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
            let part = &ready["components"]["configReload"];
            let shown = get(http, "/actuator/prometheus").1.contains(&series);
            assert_eq!(code, 200, "a fault of the file keeps no peer from calling");
            (part["status"] == status && shown).then(|| part["details"]["message"].to_string())
        })
    };

    reload("UP", "1");
    folder.write(file, good.replace("content={", "content="));
    let said = reload("UNKNOWN", "0");
    folder.write(file, &good);
    reload("UP", "1");

    assert!(said.contains("CS0201"), "{said}");
}

#[test]
fn metrics_show_when_the_signing_key_was_made() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let http = port(&dpm.until(" startup "), " http=127.0.0.1:");
    let created = || {
        let text = get(http, "/actuator/prometheus").1;
        let name = "\ncountersign_signing_key_created_timestamp_seconds{kid=\"";
        let (_, rest) = text.split_once(name).unwrap();
        assert!(!rest.contains(name), "{text}");
        let (kid, rest) = rest.split_once("\"} ").unwrap();
        let seconds = rest.lines().next().unwrap().to_owned();
        (kid.to_owned(), seconds)
    };
    let (first, made_at) = created();
    for step in ["prepare", "activate"] {
        let step = format!("rotate {step} --home dpm --peer-file dpe --offline --yes");
        folder.run(&step).exits(0);
        // Two changes between two looks at the files are one reload.
        dpm.until("configReloaded");
    }

    let (second, made_again_at) = created();

    let made_at: u64 = made_at.parse().unwrap();
    let since = Duration::from_secs(made_at);
    let age = (SystemTime::UNIX_EPOCH + since).elapsed().unwrap();
    assert!(age < Duration::from_secs(600), "{age:?}");
    assert_ne!(first, second);
    assert!(made_again_at.parse::<u64>().unwrap() >= made_at);
}

#[test]
fn taken_http_port_is_exit_3_that_names_the_setting() {
    let folder = paired();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();

    for module in ["dpm", "dpe"] {
        let ports = format!("--set ataccama.server.grpc.port=0 --set server.port={port}");
        let run = folder
            .run(&format!("{module} run --home {module} {ports}"))
            .exits(3);

        let expected = format!("cannot listen on 127.0.0.1:{port} for HTTP");
        assert!(run.stderr.contains(&expected), "{}", run.stderr);
        assert!(run.stderr.contains("`server.port`"), "{}", run.stderr);
    }
}
