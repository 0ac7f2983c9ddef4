//! `doctor`: in each broken world the right layer, side and exit code; real processes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use countersign::clock::{Clock as _, SystemClock};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;

use super::free_port::free_port;
use super::modules::{ANY_PORT, Running, paired};
use super::support::{Folder, Run, command};

#[path = "doctor_fixes.rs"]
mod fixes;

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";
const LAYERS: [&str; 10] = [
    "config", "own key", "name", "tcp", "tls", "grpc", "clock", "token", "role", "way back",
];

/// A DPM that runs, and how a DPE gets there.
struct World {
    folder: Folder,
    dpm: Running,
    to_dpm: String,
}

impl World {
    fn of(folder: Folder, sets: &str) -> Self {
        let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT} {sets}"));
        let port = dpm.port();
        let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
        Self {
            folder,
            dpm,
            to_dpm,
        }
    }

    fn new() -> Self {
        Self::of(paired(), "")
    }

    fn doctor(&self, home: &str, more: &str) -> Run {
        let Self { folder, to_dpm, .. } = self;
        folder.run(&format!("doctor --home {home} {to_dpm} {more} -o json"))
    }
}

/// The layers that were looked at, the peer's after the own ones.
#[track_caller]
fn layers(run: &Run) -> Vec<Value> {
    let report = run.json();
    let own = report["own"].as_array().unwrap().iter();
    let peers = report["peers"].as_array().unwrap().iter();
    let visited = peers.flat_map(|peer| peer["layers"].as_array().unwrap());
    own.chain(visited).cloned().collect()
}

/// Checks that `layer` alone failed, that those after it were not reached, and the exit code;
/// returns what is said of it.
#[track_caller]
fn fails(run: Run, layer: &str, side: &str, code: i32) -> String {
    let run = run.exits(code);
    let rows = layers(&run);
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["layer"].as_str().unwrap())
        .collect();
    assert_eq!(names, LAYERS, "{run:#?}");
    let at = LAYERS.iter().position(|name| *name == layer).unwrap();
    for (number, row) in rows.iter().enumerate() {
        let state = row["state"].as_str().unwrap();
        let fits = match number.cmp(&at) {
            std::cmp::Ordering::Less => state == "ok" || state == "skip",
            std::cmp::Ordering::Equal => state == "fail",
            std::cmp::Ordering::Greater => state == "not reached",
        };
        assert!(fits, "{row}: {run:#?}");
    }
    assert_eq!(run.json()["exit"], code);
    let row = &rows[at];
    assert_eq!(row["side"], side, "{row}");
    assert!(!row["help"].as_array().unwrap().is_empty(), "{row}");
    row.to_string()
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

/// Listens, and treats every connection with `serve`.
pub(super) fn listener(serve: impl Fn(std::net::TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    port
}

fn to(port: u16) -> String {
    format!("doctor --home dpe -o json --set ataccama.client.connection.dpm.grpc.port={port}")
}

/// Takes the lines that hold `word` out of a file.
fn without(folder: &Folder, file: &str, word: &str) {
    let text = folder.read(file);
    let kept: Vec<_> = text.lines().filter(|line| !line.contains(word)).collect();
    assert_ne!(kept.len(), text.lines().count());
    folder.write(file, kept.join("\n") + "\n");
}

#[test]
fn a_healthy_pair_passes_every_layer_from_both_sides() {
    let mut world = World::new();
    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &dpe);
    dpe.until(" startup ");
    world.dpm.until("newStatus=READY");

    let as_engine = world.doctor("dpe", "").exits(0);
    let port = world.to_dpm.rsplit('=').next().unwrap().to_owned();
    let own = format!("--set ataccama.server.grpc.port={port}");
    let as_registry = world.doctor("dpm", &own).exits(0);
    let one = world
        .doctor("dpm", &format!("{own} --peer dpe-dev"))
        .exits(0);
    let none = world
        .doctor("dpm", &format!("{own} --peer unknown"))
        .exits(2);

    let states: Vec<_> = layers(&as_engine)
        .iter()
        .map(|row| row["state"].as_str().unwrap().to_owned())
        .collect();
    let mut expected = ["ok"; 10];
    expected[4] = "skip";
    assert_eq!(states, expected, "{as_engine:#?}");
    assert_eq!(as_engine.json()["healthy"], true);
    for run in [as_registry, one] {
        let peers = run.json()["peers"].clone();
        assert_eq!(peers.as_array().unwrap().len(), 2, "{peers:#}");
        let engine = peers[1]["layers"].as_array().unwrap();
        assert_eq!((engine.len(), &engine[7]["state"]), (8, &"ok".into()));
        says(&engine[7].to_string(), &["READY"]);
    }
    assert!(none.stderr.contains("`unknown`"), "{}", none.stderr);
}

#[test]
fn peer_is_found_by_each_of_its_names_in_any_spelling() {
    let mut world = World::new();
    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let _dpe = Running::start(&world.folder, &dpe);
    world.dpm.until("newStatus=READY");
    let port = world.to_dpm.rsplit('=').next().unwrap().to_owned();
    let own = format!("--set ataccama.server.grpc.port={port}");
    let listed = format!("engines list --home dpm {own} -o json");
    let engine = world.folder.run(&listed).exits(0).json()["engines"][0].clone();
    let id = engine["id"].as_str().unwrap();
    let looked_at = |home: &str, name: &str| {
        let run = world.doctor(home, &format!("{own} --peer {name}")).exits(0);
        let peers = run.json()["peers"].clone();
        let titles = peers.as_array().unwrap().iter().map(|peer| &peer["peer"]);
        titles
            .map(|title| title.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };

    let dpm = format!("LOCALHOST:{port}");
    for name in ["dpm", "DPM", "dpm-dev", "DPM_Dev", "dpmdev", &dpm] {
        let titles = looked_at("dpe", name);
        assert!(titles[0].starts_with("dpm-dev at "), "{name}: {titles:?}");
        assert_eq!(titles.len(), 1, "{name}: {titles:?}");
    }
    for name in ["dpm", "DPM", "dpm-dev", "DPM_Dev"] {
        let titles = looked_at("dpm", name);
        assert!(
            titles[0].starts_with("dpm-dev itself "),
            "{name}: {titles:?}"
        );
        assert_eq!(titles.len(), 1, "{name}: {titles:?}");
    }
    let at = format!("LocalHost:{}", engine["port"]);
    let upper = id.to_uppercase();
    for name in [
        id,
        &upper,
        id.split('-').next().unwrap(),
        "dpe",
        "DPE",
        "dpe-dev",
        "DPE_Dev",
        &at,
    ] {
        let titles = looked_at("dpm", name);
        assert_eq!(titles.len(), 2, "{name}: {titles:?}");
        assert!(titles[1].contains(id), "{name}: {titles:?}");
    }
}

#[test]
fn a_healthy_pair_with_tls_passes_every_layer_from_both_sides() {
    let folder = Folder::new();
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --tls"))
        .exits(0);
    let mut world = World::of(folder, "");
    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let _dpe = Running::start(&world.folder, &dpe);
    world.dpm.until("newStatus=READY");
    let port = world.to_dpm.rsplit('=').next().unwrap().to_owned();

    let as_engine = world.doctor("dpe", "--peer dpm").exits(0);
    let own = format!("--set ataccama.server.grpc.port={port}");
    let as_registry = world.doctor("dpm", &own).exits(0);

    // The first peer of the DPM is itself.
    for (run, whose) in [
        (&as_engine, vec!["the pinned"]),
        (&as_registry, vec!["its own", "the pinned"]),
    ] {
        let rows = layers(run);
        let tls = rows.iter().filter(|row| row["layer"] == "tls");
        let shown: Vec<_> = tls.map(|row| row["detail"].as_str().unwrap()).collect();
        let expected = whose
            .iter()
            .map(|whose| format!("TLS 1.3, {whose} certificate, which does not expire"));
        assert_eq!(shown, expected.collect::<Vec<_>>(), "{run:#?}");
        assert_eq!(shown.len(), run.json()["peers"].as_array().unwrap().len());
    }
    assert_eq!(as_registry.json()["peers"].as_array().unwrap().len(), 2);
}

#[test]
fn doctor_names_the_certificate_that_was_shown_and_its_days() {
    let folder = Folder::new();
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --tls"))
        .exits(0);
    // With the same key, so that the pin holds.
    let key = KeyPair::from_pem(&folder.read("dpm/etc/dpm-dev-tls-key.pem")).unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let now = SystemClock.now().duration_since(UNIX_EPOCH).unwrap();
    params.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(23 * 86_400 + 3_600);
    let certificate = params.self_signed(&key).unwrap().pem();
    folder.write("dpm/etc/dpm-dev-tls.pem", certificate);
    let world = World::of(folder, "");

    let run = world.doctor("dpe", "--peer dpm");

    let rows = layers(&run);
    let tls = rows.iter().find(|row| row["layer"] == "tls").unwrap();
    let detail = "TLS 1.3, the pinned certificate, which expires in 23 days";
    assert_eq!(tls["detail"], detail, "{run:#?}");
    says(&tls["help"].to_string(), &["countersign explain CS0308"]);
}

#[test]
fn world_1_wrong_port_is_tcp() {
    let folder = paired();

    let run = folder.run(&to(free_port()));

    let failure = fails(run, "tcp", "peer", 5);
    says(
        &failure,
        &["connection refused", "countersign dpm run --home dpm"],
    );
    says(&failure, &["`ataccama.client.connection.dpm.grpc.port`"]);
}

#[test]
fn world_2_http_port_in_place_of_grpc_is_grpc() {
    let folder = paired();
    let answers = listener(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    });
    // Many web servers end a connection at HTTP/2's greeting without a word.
    let ends = listener(|mut stream| {
        let mut request = [0; 3];
        if stream.read_exact(&mut request).is_ok() && &request == b"GET" {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
        let _ = stream.shutdown(Shutdown::Both);
    });
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let startup = dpm.until(" startup ");
    let (_, http) = startup.split_once(" http=127.0.0.1:").unwrap();
    let http = http
        .split([' ', ','])
        .next()
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    for port in [answers, ends, http] {
        let failure = fails(folder.run(&to(port)), "grpc", "here", 5);

        says(&failure, &["HTTP/1.1", "8531"]);
    }
}

#[test]
fn world_3_name_that_does_not_resolve_is_name() {
    let folder = paired();

    let run = folder
        .run("doctor --home dpe -o json --set ataccama.client.connection.dpm.host=nothing.invalid");

    let failure = fails(run, "name", "here", 5);
    says(
        &failure,
        &["nothing.invalid", "`ataccama.client.connection.dpm.host`"],
    );
}

#[test]
fn world_4_tls_on_one_side_is_tls() {
    let folder = Folder::new();
    let pair = format!("pair dpm={DPM} dpe={DPE} --tls");
    folder.run(&pair).exits(0);
    without(&folder, DPM, "tls");
    let world = World::of(folder, "");
    let failure = fails(world.doctor("dpe", ""), "tls", "between", 5);
    says(&failure, &["does not speak TLS", "countersign check"]);

    let folder = Folder::new();
    folder.run(&pair).exits(0);
    without(&folder, DPE, "tls");
    let world = World::of(folder, "");
    let failure = fails(world.doctor("dpe", ""), "tls", "here", 5);
    says(
        &failure,
        &["speaks TLS on this port and this connection does not"],
    );
}

#[test]
fn world_5_wrong_pin_is_tls_on_either_side() {
    let folder = Folder::new();
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --tls"))
        .exits(0);
    let wrong = |name: &str| {
        format!(
            "--set countersign.deployments.{name}.tls-keys.key.fingerprint=vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI"
        )
    };
    let world = World::of(folder, "");
    let failure = fails(world.doctor("dpe", &wrong("dpm-dev")), "tls", "between", 5);
    says(&failure, &["not pinned for deployment `dpm-dev`", "--tls"]);
    let World { folder, dpm, .. } = world;
    drop(dpm);

    // Here the server refuses, once the client believes that the handshake is over.
    let world = World::of(folder, &wrong("dpe-dev"));
    let failure = fails(world.doctor("dpe", ""), "tls", "between", 5);
    says(&failure, &["the server refuses the certificate"]);
}

#[test]
fn world_6_unpaired_key_is_token() {
    let world = World::new();
    world
        .folder
        .run("pair dpm=other.properties dpe=stranger/etc/application.properties")
        .exits(0);

    let failure = fails(world.doctor("stranger", ""), "token", "between", 4);

    says(
        &failure,
        &["UNAUTHENTICATED KEY_UNKNOWN", "does not trust key"],
    );
    says(
        &failure,
        &["countersign pair dpm=dpm/etc/application.properties"],
    );
}

#[test]
fn peer_that_does_not_know_the_key_is_not_taken_for_the_dpm() {
    // The DPM of another pair, where this one's should be.
    let world = World::of(paired(), "");
    let folder = paired();
    let port = world.to_dpm.rsplit('=').next().unwrap();
    let doctor = format!("doctor --home dpe -o json {}", world.to_dpm);

    let failure = fails(folder.run(&doctor), "token", "between", 4);

    let unproved = format!("127.0.0.1:{port}, which did not prove to be dpm-dev");
    let failure = failure.replace("localhost", "127.0.0.1");
    says(
        &failure,
        &[&unproved, "KEY_UNKNOWN", "countersign pair dpm="],
    );
    says(
        &failure,
        &[
            "`ataccama.client.connection.dpm.grpc.port`",
            "`ataccama.client.connection.dpm.host`",
        ],
    );
}

#[test]
fn world_7_revoked_key_is_token() {
    let revoked =
        "--set ataccama.one.platform.deployments.dpe-dev.security.jwt-keys.key.is-revoked=true";
    let world = World::of(paired(), revoked);

    let failure = fails(world.doctor("dpe", ""), "token", "peer", 4);

    says(&failure, &["UNAUTHENTICATED KEY_REVOKED", "as revoked"]);
}

#[test]
fn dpm_whose_every_key_is_revoked_here_is_fixed_here() {
    let world = World::new();
    let text = world.folder.read(DPE);
    let revoked = text.replace("is-revoked=false", "is-revoked=true");
    world.folder.write(DPE, revoked);

    let failure = fails(world.doctor("dpe", ""), "token", "here", 4);

    says(
        &failure,
        &[
            "every key of `dpm-dev` is revoked in dpe/etc/application.properties",
            "countersign revoke --undo --home dpe --deployment dpm-dev --key key",
        ],
    );
}

#[test]
fn engine_that_revoked_every_key_of_its_dpm_says_so_in_its_log() {
    let world = World::new();
    let revoked =
        "--set ataccama.one.platform.deployments.dpm-dev.security.jwt-keys.key.is-revoked=true";
    let dpe = format!("dpe run --home dpe {ANY_PORT} {revoked} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &dpe);

    let line = dpe.until(" registerRefused ");

    says(
        &line,
        &[
            "not called: every key of deployment `dpm-dev` is revoked here",
            "only if one was revoked by mistake, `countersign revoke --undo` here",
        ],
    );
}

#[test]
fn world_8_missing_role_is_role() {
    let other = "--set ataccama.one.platform.deployments.dpe-dev.security.roles[0]=VIEWER";
    let world = World::of(paired(), other);

    let failure = fails(world.doctor("dpe", ""), "role", "peer", 4);

    says(&failure, &["PERMISSION_DENIED ROLE_MISSING"]);
    says(
        &failure,
        &["deployments.dpe-dev.security.roles[0]=IMPERSONATION"],
    );
}

/// Returns `true` if there is a `faketime`; without one the test fails where peers are required.
fn has_faketime() -> bool {
    let found = Command::new("faketime").arg("--version").output().is_ok();
    if !found {
        let required = std::env::var_os("COUNTERSIGN_REQUIRE_PEERS").is_some();
        assert!(!required, "no faketime");
        eprintln!("skipped: no faketime");
    }
    found
}

/// Runs the doctor with a clock of its own.
fn at(folder: &Path, offset: &str, arguments: &str) -> Run {
    let binary = command(folder);
    let output = Command::new("faketime")
        .args(["-f", offset])
        .arg(binary.get_program())
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .output()
        .unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn world_9_clock_that_is_ten_minutes_off_is_clock() {
    if !has_faketime() {
        return;
    }
    let world = World::new();
    let doctor = format!("doctor --home dpe {} -o json", world.to_dpm);
    for (offset, which) in [("+10m", "behind"), ("-10m", "ahead")] {
        let run = at(&world.folder.path(""), offset, &doctor);

        let failure = fails(run, "clock", "between", 1);

        let (_, seconds) = failure.split_once("peer is ").unwrap();
        let (seconds, rest) = seconds.split_once(' ').unwrap();
        let seconds: f64 = seconds.parse().unwrap();
        // The proof's time is in whole seconds.
        assert!((598.0..=602.0).contains(&seconds), "{failure}");
        assert!(rest.starts_with(&format!("s {which} ")), "{failure}");
    }
}

#[test]
fn world_10_blocked_way_back_is_way_back() {
    let world = World::new();
    // The listener is on 127.0.0.1 alone.
    let elsewhere = "--set ataccama.one.dpe.service.hostname=127.0.0.2";
    let dpe = format!("dpe run --home dpe {ANY_PORT} {elsewhere} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &dpe);
    dpe.until("Engine registered");

    let failure = fails(world.doctor("dpe", ""), "way back", "between", 1);

    says(
        &failure,
        &["dpm-dev → 127.0.0.2:", "the engine cannot be reached"],
    );
}

#[test]
fn address_that_the_dpm_does_not_allow_is_fixed_in_the_dpms_file() {
    let elsewhere = "--set countersign.deployments.dpe-dev.allowed-addresses=10.0.0.0/8";
    let world = World::of(paired(), elsewhere);
    let port = free_port();
    let own = format!("--set ataccama.server.grpc.port={port}");
    let dpe = format!(
        "dpe run --home dpe {own} --set server.port=0 {}",
        world.to_dpm
    );
    let mut dpe = Running::start(&world.folder, &dpe);
    dpe.until(" registerRefused ");

    let failure = fails(world.doctor("dpe", &own), "way back", "peer", 4);

    says(
        &failure,
        &[
            "the engine runs, but dpm-dev has not registered it: ADDRESS_NOT_ALLOWED",
            "file of dpm-dev",
            "`countersign.deployments.dpe-dev.allowed-addresses`",
        ],
    );
}

#[test]
fn engine_that_the_running_dpm_does_not_dial_is_not_dialled_by_its_doctor_either() {
    let mut world = World::new();
    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let _dpe = Running::start(&world.folder, &dpe);
    world.dpm.until("newStatus=READY");
    let rule = "countersign.deployments.dpe-dev.allowed-addresses";
    let text = world.folder.read(DPM) + &format!("{rule}=10.0.0.0/8\n");
    world.folder.write(DPM, text);
    world.dpm.until("engineCheckFailed");
    let port = world.to_dpm.rsplit('=').next().unwrap().to_owned();

    let own = format!("--set ataccama.server.grpc.port={port} --set {rule}=127.0.0.0/8");
    let run = world.doctor("dpm", &own).exits(4);

    let engine = &run.json()["peers"][1]["layers"];
    assert_eq!(
        (&engine[0]["layer"], &engine[0]["state"]),
        (&"name".into(), &"fail".into())
    );
    says(&engine[0].to_string(), &["ADDRESS_NOT_ALLOWED", rule]);
    assert_eq!(engine[1]["state"], "not reached");
}

#[test]
fn whatever_else_has_the_port_of_a_dpm_is_named_by_its_doctor() {
    let folder = paired();
    let own =
        |port: u16| format!("doctor --home dpm --set ataccama.server.grpc.port={port} -o json");
    let stranger = "pair dpm=other/etc/application.properties dpe=o/etc/application.properties";
    folder.run(stranger).exits(0);

    let free = folder.run(&own(free_port()));
    let web = listener(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    let web = folder.run(&own(web));
    let mut dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT}"));
    let dpe = folder.run(&own(dpe.port()));
    let mut other = Running::start(&folder, &format!("dpm run --home other {ANY_PORT}"));
    let other = folder.run(&own(other.port()));

    let failure = fails(free, "tcp", "here", 5);
    says(&failure, &["countersign dpm run --home dpm"]);
    let failure = fails(web, "grpc", "here", 5);
    says(
        &failure,
        &["`ataccama.server.grpc.port` in dpm/etc/application.properties"],
    );
    for run in [dpe, other] {
        let failure = fails(run, "token", "here", 4);
        says(
            &failure,
            &[
                "(unproved), does not accept its token",
                "either another module",
                "or it runs with another key",
                "`ataccama.server.grpc.port` in dpm/etc/application.properties",
            ],
        );
    }
}

#[test]
fn engine_that_does_not_run_is_way_back() {
    let mut world = World::new();

    let never = fails(world.doctor("dpe", ""), "way back", "here", 1);

    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &dpe);
    dpe.until("Engine registered");
    world.dpm.until("newStatus=READY");
    dpe.signal("-TERM");
    let _ = dpe.child.wait();
    let stopped = fails(world.doctor("dpe", ""), "way back", "here", 1);

    for failure in [never, stopped] {
        says(
            &failure,
            &["the engine does not run", "countersign dpe run --home dpe"],
        );
    }
}

#[test]
fn dpm_without_an_engine_of_a_dpe_that_it_trusts_says_so() {
    let mut world = World::new();
    let port = world.to_dpm.rsplit('=').next().unwrap().to_owned();
    let own = format!("--set ataccama.server.grpc.port={port}");

    let never = world.doctor("dpm", &own).exits(1);
    let asked = world
        .doctor("dpm", &format!("{own} --peer dpe-dev"))
        .exits(1);
    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &dpe);
    world.dpm.until("newStatus=READY");
    dpe.signal("-TERM");
    let _ = dpe.child.wait();
    let left = world.doctor("dpm", &own).exits(1);

    for run in [&never, &asked, &left] {
        says(&run.stdout, &["registered engines: 0; none of dpe-dev"]);
        assert_eq!(run.json()["healthy"], false);
    }
    says(&left.stdout, &["of dpe-dev is INACTIVE"]);
}

#[test]
fn engine_that_still_signs_with_a_revoked_key_is_named_with_it() {
    let mut world = World::new();
    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &dpe);
    world.dpm.until("newStatus=READY");
    let prepare = format!("rotate prepare --home {DPE} --peer-file {DPM} --yes");
    world.folder.run(&prepare).exits(0);
    // Until the engine knows its next key, a token that is addressed to that key is not for it.
    dpe.until("configReloaded");
    let revoke = "revoke --home dpm --deployment dpe-dev --key key --yes";
    world.folder.run(revoke).exits(0);
    let port = world.to_dpm.rsplit('=').next().unwrap().to_owned();

    let own = format!("--set ataccama.server.grpc.port={port}");
    let run = world.doctor("dpm", &own).exits(4);

    says(
        &run.stdout,
        &[
            "PROOF_INVALID",
            "`dpe-dev` still signs with `",
            "it needs a new key; only if it was revoked by mistake",
        ],
    );
}

#[test]
fn files_that_cannot_be_used_are_config_or_own_key() {
    let folder = paired();
    let whole = folder.read(DPE);
    folder.write(DPE, whole.replace("content={", "content="));
    let failure = fails(folder.run("doctor --home dpe -o json"), "config", "here", 3);
    says(
        &failure,
        &[
            "countersign explain CS0201",
            "countersign check dpe/etc/application.properties",
        ],
    );

    folder.write(DPE, whole.replace("generator.key=", "generator.key=x"));
    let failure = fails(
        folder.run("doctor --home dpe -o json"),
        "own key",
        "here",
        3,
    );
    says(&failure, &["generator.key"]);

    let failure = fails(
        folder.run("doctor --home nowhere -o json"),
        "config",
        "here",
        3,
    );
    says(&failure, &["nowhere"]);
}

#[test]
fn whatever_answers_is_named_within_the_timeout() {
    let folder = paired();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let failure = fails(
        folder.run(&format!("{} --timeout 300ms", to(port))),
        "grpc",
        "peer",
        5,
    );
    says(&failure, &["sends nothing within 300ms"]);

    let ssh = listener(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-\x1b[2Jx\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    let failure = fails(folder.run(&to(ssh)), "grpc", "here", 5);
    says(&failure, &["does not speak HTTP/2"]);

    let closes = listener(|stream| drop(stream.shutdown(Shutdown::Both)));
    let failure = fails(folder.run(&to(closes)), "grpc", "between", 5);
    says(&failure, &["without an answer"]);
}

#[test]
fn layers_are_printed_while_the_next_one_is_not_answered() {
    let folder = paired();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let doctor = to(port).replace("-o json", "--timeout 300s");
    let mut child = command(&folder.path(""))
        .args(doctor.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();

    let line = lines.find(|line| line.as_ref().unwrap().starts_with(" 4 tcp "));

    // Only now does it get an answer: the end of its connection.
    says(&line.unwrap().unwrap(), &["ok"]);
    drop(silent);
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    says(&rest[0], &[" 5 tls "]);
    says(&rest[1], &[" 6 grpc        FAIL"]);
    assert_eq!(rest.last().unwrap(), "exit 5");
    let mut stderr = String::new();
    let mut errors = child.stderr.take().unwrap();
    errors.read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "", "progress is for terminals");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn progress_is_shown_on_a_terminal_and_removed_at_the_end() {
    let folder = paired();
    let binary = command(&folder.path(""));
    let doctor = to(free_port()).replace("-o json", "");
    let typed = format!("{} {doctor}", binary.get_program().display());
    let shown = Command::new("script")
        .args(["-qec", &typed, "/dev/null"])
        .current_dir(folder.path(""))
        .stdin(Stdio::null())
        .output();
    let Ok(shown) = shown else {
        let required = std::env::var_os("COUNTERSIGN_REQUIRE_PEERS").is_some();
        assert!(!required, "no `script`");
        return;
    };

    let shown = String::from_utf8(shown.stdout).unwrap();
    let (before, after) = shown
        .rsplit_once("0 of 1 peers are examined")
        .unwrap_or_else(|| panic!("{shown:?}"));
    assert!(before.ends_with("\r\u{1b}[K"), "{shown:?}");
    assert!(after.starts_with("\r\u{1b}[K"), "{shown:?}");
    says(after, &["exit 5"]);
}

#[test]
fn engine_that_gives_its_dpm_no_role_is_named_from_the_dpm() {
    let mut world = World::new();
    let other = "--set ataccama.one.platform.deployments.dpm-dev.security.roles[0]=VIEWER";
    let dpe = format!("dpe run --home dpe {ANY_PORT} {other} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &dpe);
    dpe.until("Engine registered");
    world.dpm.until("engineCheckFailed");
    let port = world.to_dpm.rsplit('=').next().unwrap().to_owned();

    let own = format!("--set ataccama.server.grpc.port={port}");
    let run = world.doctor("dpm", &own).exits(4);

    let engine = &run.json()["peers"][1]["layers"];
    assert_eq!(
        (&engine[5]["state"], &engine[6]["state"], &engine[6]["side"]),
        (&"ok".into(), &"fail".into(), &"peer".into())
    );
    says(
        &engine[6].to_string(),
        &["deployments.dpm-dev.security.roles[0]=IMPERSONATION"],
    );
}

#[test]
fn engine_id_that_was_copied_is_way_back() {
    let mut world = World::new();
    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &dpe);
    dpe.until("Engine registered");
    world.dpm.until("newStatus=READY");
    // Another engine, whose home has a name of its own, with the first one's storage.
    let second = "engine-two/etc/application.properties";
    world
        .folder
        .run(&format!(
            "pair dpm={DPM} dpe={second} --name dpe=dpe-two --key-name two --yes"
        ))
        .exits(0);
    let id = world.folder.read("dpe/storage/engine-id");
    world.folder.write("engine-two/storage/engine-id", id);
    world.dpm.until("configReloaded");

    let failure = fails(world.doctor("engine-two", ""), "way back", "here", 1);

    says(&failure, &["ENGINE_NOT_OWNED", "belongs to dpe-dev"]);
}

#[test]
fn watching_ends_when_the_reader_of_its_pipe_leaves() {
    let folder = paired();
    let mut watching = command(&folder.path(""))
        .args(["doctor", "--home", "dpe", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("config"));

    drop(lines);

    assert!(watching.wait().unwrap().success());
}

#[test]
fn watching_reports_a_change_once_the_world_is_fixed() {
    let folder = paired();
    let port = free_port();
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    let doctor = format!("doctor --home dpe {to_dpm} --watch -o json");
    let mut watching = Running::start(&folder, &doctor);
    let mut lines = BufReader::new(watching.child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };

    let broken = next();
    let dpm =
        format!("dpm run --home dpm --set server.port=0 --set ataccama.server.grpc.port={port}");
    let dpm = Running::start(&folder, &dpm);
    let stopped = next();
    let dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
    let fixed = loop {
        let report = next();
        if report["healthy"] == true {
            break report;
        }
    };

    drop((watching, dpm, dpe));
    assert_eq!(stopped["exit"], 1);
    assert_eq!(
        (&broken["healthy"], &broken["exit"]),
        (&false.into(), &5.into())
    );
    assert_eq!(
        (&fixed["healthy"], &fixed["exit"]),
        (&true.into(), &0.into())
    );
}

#[test]
fn text_names_layer_side_and_command_and_ends_with_the_exit_code() {
    let folder = paired();
    let port = free_port();

    let run = folder
        .run(&format!(
            "doctor --home dpe --set ataccama.client.connection.dpm.grpc.port={port}"
        ))
        .exits(5);

    let expected = format!(" 4 tcp         FAIL  127.0.0.1:{port}: connection refused");
    assert!(run.stdout.contains(&expected), "{}", run.stdout);
    says(
        &run.stdout,
        &[
            "fix it at the peer:",
            "10 way back    -     not reached\nexit 5\n",
        ],
    );
}
