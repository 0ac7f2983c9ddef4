//! The registry's file, under processes that are killed.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::thread;
use std::time::Duration;

use countersign::Module;
use countersign::proto::registry as wire;
use countersign::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::modules::{ANY_PORT, Running, paired, paired_with};
use super::support::Folder;

const DPM: &str = "dpm/etc/application.properties";

/// How often a process is ended.
fn rounds() -> usize {
    if env::var_os("COUNTERSIGN_LONG").is_some() {
        200
    } else {
        20
    }
}

fn engines(folder: &Folder, port: u16) -> Vec<serde_json::Value> {
    let list = format!("engines list --home dpm --set ataccama.server.grpc.port={port} -o json");
    let listed = folder.run(&list).exits(0).json();
    listed["engines"].as_array().unwrap().clone()
}

#[test]
fn engine_outlasts_a_restart_of_its_dpm_and_is_suspect_until_it_proves_itself() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    let engine = format!("dpe run --home dpe {ANY_PORT} {to_dpm}");
    let dpe = Running::start(&folder, &engine);
    dpm.until("newStatus=READY");
    let before = engines(&folder, port);
    dpm.stop();

    // It connects, and does not answer.
    dpe.signal("-STOP");
    let at_port = format!("--set ataccama.server.grpc.port={port} --set server.port=0");
    let patient = "--set ataccama.one.dpm.registry.grpc-checker-timeout=60s";
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {at_port} {patient}"));
    dpm.port();
    dpm.drain();
    let after = engines(&folder, port);
    let state = |engine: &serde_json::Value| (engine["status"].clone(), engine["suspect"].clone());

    assert_eq!(after[0]["id"], before[0]["id"]);
    assert_eq!(state(&before[0]), ("READY".into(), false.into()));
    assert_eq!(state(&after[0]), ("READY".into(), true.into()));
    assert_eq!(
        after[0]["status_reason"],
        "not checked since the registry started"
    );
    dpe.signal("-CONT");
    while state(&engines(&folder, port)[0]) != ("READY".into(), false.into()) {}
    assert_eq!(engines(&folder, port).len(), 1);
}

#[test]
fn engine_whose_key_was_revoked_meanwhile_starts_disconnected() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let to_dpm = format!(
        "--set ataccama.client.connection.dpm.grpc.port={}",
        dpm.port()
    );
    let dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
    dpm.until("newStatus=READY");
    dpm.stop();
    dpe.signal("-STOP");
    let revoke = "revoke --home dpm --deployment dpe-dev --yes";
    folder.run(revoke).exits(0);

    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));

    let [started, _] = dpm.until_each([" startup ", "newStatus=DISCONNECTED"]);
    let (_, port) = started.split_once(" address=127.0.0.1:").unwrap();
    let engine = engines(&folder, port.split(' ').next().unwrap().parse().unwrap());
    let expected = "every key of `dpe-dev` is revoked here";
    let reason = engine[0]["status_reason"].as_str().unwrap();
    assert!(reason.contains(expected), "{reason}");
}

#[test]
fn second_dpm_on_one_file_is_refused() {
    let url = |home: &str| format!("{home} --set countersign.registry.url=file:../shared.redb");
    let folder = paired();
    folder.run("pair dpm=other dpe=unused --yes").exits(0);
    let mut dpm = Running::start(
        &folder,
        &format!("dpm run --home {} {ANY_PORT}", url("dpm")),
    );
    dpm.port();

    let second = folder.run(&format!("dpm run --home {} {ANY_PORT}", url("other")));

    let second = second.exits(6);
    assert!(second.stderr.contains("shared.redb"), "{}", second.stderr);
    assert!(second.stderr.contains("in use"), "{}", second.stderr);
}

#[test]
fn damaged_file_is_set_aside_with_one_line_and_engines_register_again() {
    let folder = paired();
    fs::create_dir_all(folder.path("dpm/storage")).unwrap();
    fs::write(folder.path("dpm/storage/registry.redb"), "damaged").unwrap();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));

    let [started, line] = dpm.until_each([" startup ", " registrySetAside "]);
    let (_, port) = started.split_once(" address=127.0.0.1:").unwrap();
    let port = port.split(' ').next().unwrap();

    assert!(line.contains("registry.redb.set-aside"), "{line}");
    assert_eq!(
        folder.read("dpm/storage/registry.redb.set-aside"),
        "damaged"
    );
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    let _dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
    dpm.until("newStatus=READY");
}

/// Registers engines, many at a time, until the DPM is gone; returns those that it kept, as it said.
async fn register(dpe: Module, seen: watch::Sender<usize>) -> BTreeSet<String> {
    let channel = dpe.channel("dpm-dev").unwrap();
    let mut registering = JoinSet::new();
    for _ in 0..16 {
        let mut dpm = EngineRegistryServiceClient::new(channel.clone());
        let seen = seen.clone();
        registering.spawn(async move {
            let mut kept = BTreeSet::new();
            loop {
                let id = Uuid::new_v4().to_string();
                let request = wire::RegisterEngineRequest {
                    engine_id: id.clone(),
                    address: Some(wire::EngineAddress {
                        hostname: "127.0.0.1".to_owned(),
                        port: 65_001,
                    }),
                    ..wire::RegisterEngineRequest::default()
                };
                match dpm.register_engine(request).await {
                    Ok(answer) => {
                        assert!(answer.into_inner().durable);
                        kept.insert(id);
                        seen.send_modify(|seen| *seen += 1);
                    }
                    Err(_gone) => return kept,
                }
            }
        });
    }
    registering.join_all().await.into_iter().flatten().collect()
}

#[test]
fn no_acknowledged_registration_is_lost_by_a_dpm_that_is_killed_again_and_again() {
    let rounds = rounds();
    let port = super::free_port::free_port();
    let many = "countersign.registry.max-engines=1000000\n\
                countersign.registry.max-engines-per-deployment=1000000\n\
                countersign.registry.max-new-engines-per-second=1000000\n";
    let to_dpm = format!("ataccama.client.connection.dpm.grpc.port={port}\n");
    let dpe = "dpe/etc/application.properties";
    let folder = paired_with(&[(DPM, many), (dpe, &to_dpm)]);
    let at_port = format!("--set ataccama.server.grpc.port={port} --set server.port=0");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kept = runtime.block_on(async {
        let home = folder.path("dpe");
        let dpe = Module::options(home).without_signals().open().unwrap();
        let mut kept = BTreeSet::new();
        for round in 0..rounds {
            let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {at_port}"));
            dpm.port();
            dpm.drain();
            let (seen, mut so_far) = watch::channel(0);
            let mut registering = tokio::spawn(register(dpe.clone(), seen));
            tokio::select! {
                many = so_far.wait_for(|seen| *seen > round % 20) => drop(many.unwrap()),
                ended = &mut registering => panic!("it ended by itself: {ended:?}"),
            }
            drop(dpm);
            kept.extend(registering.await.unwrap());
        }
        kept
    });

    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {at_port}"));
    dpm.port();
    dpm.drain();
    let listed = engines(&folder, port);
    let listed: BTreeSet<_> = listed
        .iter()
        .map(|engine| engine["id"].as_str().unwrap())
        .collect();
    let lost = kept.iter().filter(|id| !listed.contains(id.as_str()));
    assert_eq!(lost.count(), 0);
    assert!(kept.len() >= rounds, "{}", kept.len());
}

#[test]
fn engine_that_is_restarted_again_and_again_is_one_engine_and_leaks_nothing() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    dpm.drain();
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    let of_dpm = format!("--home dpm --set ataccama.server.grpc.port={port}");
    let mut held = Vec::new();
    for round in 0..rounds() {
        let mut dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
        dpe.until(" register ");
        folder
            .run(&format!("engines wait dpe-dev {of_dpm}"))
            .exits(0);
        held.push(dpm.held());
        if round % 2 == 0 {
            dpe.stop();
        }
    }

    assert_eq!(engines(&folder, port).len(), 1);
    // The commands that the DPM answers come and go.
    let (descriptors, threads) = held.iter().copied().skip(5).max().unwrap();
    let (first, running) = held.iter().copied().take(5).max().unwrap();
    assert!(descriptors <= first + 4, "{held:?}");
    assert!(threads <= running + 4, "{held:?}");
}

#[test]
fn no_engine_that_answers_leaves_ready_through_a_stop_a_reload_a_rotation_or_the_end_of_another() {
    let folder = Folder::new();
    let short = "ataccama.authentication.internal.jwt.generator.token-expiration=1s\n\
                 countersign.token.max-lifetime=1s\ncountersign.token.leeway=0s\nserver.port=0\n";
    let port = super::free_port::free_port();
    folder.write(DPM, format!("ataccama.server.grpc.port={port}\n{short}"));
    let homes = ["dpe", "dpe-2", "dpe-3", "dpe-4"];
    for home in homes.iter().chain(&["new"]) {
        let own = super::free_port::free_port();
        let to_dpm = format!("ataccama.client.connection.dpm.grpc.port={port}\n");
        let own = format!("ataccama.server.grpc.port={own}\n{to_dpm}{short}");
        folder.write(&format!("{home}/etc/application.properties"), own);
    }
    let pair = "pair dpm=dpm dpe=dpe dpe=dpe-2 dpe=dpe-3 dpe=dpe-4 --yes";
    folder.run(pair).exits(0);
    let mut dpm = Running::start(&folder, "dpm run --home dpm");
    dpm.port();
    dpm.drain();
    let start = |home| Running::start(&folder, &format!("dpe run --home {home}"));
    let mut dpes = homes.map(start).into_iter();
    let are_ready = |names: &[&str]| {
        for name in names {
            let wait = format!("engines wait {name}-dev --home dpm");
            folder.run(&wait).exits(0);
        }
    };
    are_ready(&homes);

    dpm.signal("-STOP");
    // So long may the machine give the CPU to others.
    thread::sleep(Duration::from_secs(2));
    dpm.signal("-CONT");
    folder.run("pair dpm=dpm new:dpe=new --yes").exits(0);
    let peers = homes.map(|home| format!("--peer-file {home}")).join(" ");
    let rotate = format!("rotate run --home dpm {peers} --peer-file new --now --yes");
    folder.run(&rotate).exits(0);
    drop(dpes.next());
    are_ready(&homes[1..]);
    dpm.stop();

    let log = folder.read("dpm/log/spring-boot-logger.json.log");
    let lost = |line: &&str| line.contains(r#""newStatus":"DISCONNECTED""#);
    let lost: Vec<_> = log.lines().filter(lost).collect();
    // The one that ended, if its checks had failed three times by then.
    assert!(lost.len() <= 1, "{lost:#?}");
    assert!(
        lost.iter()
            .all(|line| line.contains(r#""deployment":"dpe-dev""#)),
        "{lost:#?}"
    );
}
