#![cfg(test)]
//! A key changes under load, and no call fails: real modules, real files, `countersign rotate run`.
//! A program of its own, so that no other test takes the machine from it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::grpc::{Connection, ConnectionOptions, Target};
use countersign::jose::PublicJwk;
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::testing;
use countersign::{ModuleKind, Reloader, Settings};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tower_layer::Layer as _;

use free_port::free_port;

#[path = "cli/free_port.rs"]
mod free_port;

/// A second file of each module, which no rotation writes.
const PROFILE: &str = "application-load.properties";

const BINARY: &str = env!("CARGO_BIN_EXE_countersign");

/// Between two reloads.
const BETWEEN: Duration = Duration::from_millis(100);

/// How long calls are made at least.
const AT_LEAST: Duration = Duration::from_secs(20);

/// How many calls are made at least, which a machine that is too slow for it makes in a longer
/// time.
const CALLS: u64 = 20_000;

/// A machine that does not make them in this time makes them never.
const AT_MOST: Duration = Duration::from_secs(180);

/// How many calls of one caller may be under way.
const MOST_OPEN: usize = 32;

/// Two modules that run, each for the other's calls.
struct World {
    folder: TempDir,
    ports: [u16; 2],
    /// Each with how many reloads it logged, and how many that failed.
    running: Vec<(Child, Arc<[AtomicU64; 2]>)>,
    /// What the modules trust besides each other.
    third: String,
}

impl Drop for World {
    fn drop(&mut self) {
        for (child, _) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn file(folder: &Path, module: &str) -> PathBuf {
    folder.join(module).join("etc/application.properties")
}

impl World {
    /// Pairs two modules whose tokens live for 2 s and starts both.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = [free_port(), free_port()];
        for (module, port) in ["dpm", "dpe"].iter().zip(ports) {
            let file = file(folder.path(), module);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let text = format!(
                "ataccama.server.grpc.port={port}\n\
                 server.port=0\n\
                 ataccama.client.connection.dpm.grpc.port={}\n\
                 ataccama.authentication.internal.jwt.generator.token-expiration=2\n\
                 countersign.token.max-lifetime=4s\n\
                 countersign.token.leeway=1s\n\
                 spring.profiles.active=load\n",
                ports[0]
            );
            fs::write(file, text).unwrap();
        }
        let mut world = Self {
            folder,
            ports,
            running: Vec::new(),
            third: third(),
        };
        let files =
            ["dpm", "dpe"].map(|module| format!("{module}={module}/etc/application.properties"));
        world.succeeds(&["pair", &files[0], &files[1], "--yes"]);
        // `rotate` names the third deployment: its file is there however late the first change is.
        world.write_third("IMPERSONATION");
        for module in ["dpm", "dpe"] {
            let mut child = world
                .command(&[module, "run", "--home", module])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let started = lines.find(|line| line.as_ref().unwrap().contains(" startup "));
            assert!(started.is_some(), "{module} did not start");
            let reloads = Arc::new([const { AtomicU64::new(0) }; 2]);
            world.running.push((child, Arc::clone(&reloads)));
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    for (event, count) in [" configReloaded ", " configReloadFailed "]
                        .iter()
                        .zip(&*reloads)
                    {
                        count.fetch_add(line.contains(event).into(), Ordering::SeqCst);
                    }
                }
            });
        }
        world
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    fn succeeds(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:#?}");
    }

    /// Writes what a file of each module says of a third one.
    fn write_third(&self, roles: &str) {
        for module in ["dpm", "dpe"] {
            let file = file(self.folder.path(), module).with_file_name(PROFILE);
            let beside = file.with_extension("new");
            fs::write(&beside, self.third.replace("ROLES", roles)).unwrap();
            fs::rename(beside, file).unwrap();
        }
    }

    /// Changes what a file of each module says of a third one, and has both modules reload at once.
    fn change(&self, roles: &str) {
        self.write_third(roles);
        let ids = self.running.iter().map(|(child, _)| child.id().to_string());
        let sent = Command::new("kill").arg("-HUP").args(ids).status();
        assert!(sent.unwrap().success());
    }
}

/// Writes a deployment that the modules trust and that does not run.
fn third() -> String {
    let own = testing::own_deployment("mmm", "mmm-dev");
    let below = "ataccama.one.platform.deployments.mmm-dev";
    let content = PublicJwk::write(own.key.verifying_key(), &own.key_id);
    format!(
        "{below}.module=mmm\n{below}.security.roles=ROLES\n\
         {below}.security.jwt-keys.key.fingerprint={}\n\
         {below}.security.jwt-keys.key.content={content}\n",
        own.key_id
    )
}

/// What became of the calls.
#[derive(Default)]
struct Calls {
    made: AtomicU64,
    refused: Mutex<BTreeMap<String, u64>>,
}

/// Calls its peer 500 times a second as the module `caller`, which follows its file as the process
/// does, and has every reply proved; until `stop`.
async fn call(world: &World, caller: &str, peer: usize, calls: Arc<Calls>, stop: Arc<AtomicBool>) {
    let kind = if caller == "dpm" {
        ModuleKind::Dpm
    } else {
        ModuleKind::Dpe
    };
    let home = world.folder.path().join(caller);
    let settings = Settings::load(&home, &kind, [], &[]).unwrap();
    let module = settings.module().unwrap();
    let reloader = Reloader::new(&settings, &module);
    let reload = reloader.handle();
    let following = tokio::spawn(reloader.run());
    let name = ["dpm-dev", "dpe-dev"][peer];
    let layer = module
        .client_layer(name, countersign::Transport::loopback())
        .unwrap();
    let layer = layer.require_proof(module.proof_verifier(), None);
    let target = Target::new("127.0.0.1", world.ports[peer]);
    let connection = Connection::open(&target, ConnectionOptions::default())
        .await
        .unwrap();
    let client = IdentityServiceClient::new(layer.layer(connection));
    let mut ticks = interval(Duration::from_millis(2));
    let mut asked_at = Instant::now();
    let mut open = JoinSet::new();
    while !stop.load(Ordering::SeqCst) {
        if ticks.tick().await.duration_since(asked_at) >= BETWEEN {
            reload.reload();
            asked_at += BETWEEN;
        }
        let (mut client, calls) = (client.clone(), Arc::clone(&calls));
        open.spawn(async move {
            let answer = client.who_am_i(WhoAmIRequest {}).await;
            calls.made.fetch_add(1, Ordering::SeqCst);
            if let Err(status) = answer {
                let mut refused = calls.refused.lock().unwrap();
                *refused.entry(status.message().to_owned()).or_default() += 1;
            }
        });
        // On a machine that is too slow a queue would only grow.
        while open.try_join_next().is_some() {}
        if open.len() >= MOST_OPEN {
            open.join_next().await;
        }
    }
    while open.join_next().await.is_some() {}
    following.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_refused_while_either_side_changes_its_key() {
    let world = Arc::new(World::start());
    let (calls, stop) = (Arc::new(Calls::default()), Arc::new(AtomicBool::new(false)));
    let mut callers = Vec::new();
    for (caller, peer) in [("dpe", 0), ("dpm", 1)] {
        let (world, calls, stop) = (Arc::clone(&world), Arc::clone(&calls), Arc::clone(&stop));
        callers.push(tokio::spawn(async move {
            call(&world, caller, peer, calls, stop).await;
        }));
    }
    let rotating = {
        let world = Arc::clone(&world);
        tokio::task::spawn_blocking(move || {
            for (own, peer) in [("dpe", "dpm"), ("dpm", "dpe")] {
                let files = ["--home", own, "--peer-file", peer, "--except", "mmm-dev"];
                world.succeeds(&[&["rotate", "run", "--yes"], &files[..]].concat());
            }
        })
    };
    let start = Instant::now();
    let made = || calls.made.load(Ordering::SeqCst);

    let mut ticks = interval(BETWEEN);
    let mut roles = ["IMPERSONATION", "IMPERSONATION,READER"].iter().cycle();
    while !rotating.is_finished() || start.elapsed() < AT_LEAST || made() < CALLS {
        ticks.tick().await;
        world.change(roles.next().unwrap());
        assert!(start.elapsed() < AT_MOST, "{} calls are no load", made());
    }
    rotating.await.unwrap();

    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    let (made, elapsed) = (made(), start.elapsed());
    let reloads = world.running.iter();
    let reloads =
        reloads.map(|(_, counts)| [&counts[0], &counts[1]].map(|n| n.load(Ordering::SeqCst)));
    let reloads: Vec<_> = reloads.collect();
    println!("{made} calls in {elapsed:?}, reloads and failed ones: {reloads:?}");
    // One every 100 ms was asked for; a machine that is too slow takes two for one.
    let often = |counts: &[u64; 2]| counts[0] >= 100 && counts[1] == 0;
    assert!(reloads.iter().all(often), "{reloads:?}");
    assert_eq!(*calls.refused.lock().unwrap(), BTreeMap::new(), "of {made}");
    for module in ["dpm", "dpe"] {
        let text = fs::read_to_string(file(world.folder.path(), module)).unwrap();
        assert_eq!(text.matches("is-revoked=true").count(), 1, "{module}");
    }
}
