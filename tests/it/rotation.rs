//! A key changes under load, and nobody notices: real modules, real files, `countersign rotate run`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::clock::{Clock as _, SystemClock};
use countersign::config::{ModuleKind, Reloader, Settings};
use countersign::grpc::{Connection, ConnectionOptions, Target};
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tower_layer::Layer as _;

const BINARY: &str = env!("CARGO_BIN_EXE_countersign");

/// How long calls are made at least.
const AT_LEAST: Duration = Duration::from_secs(20);

/// How many calls of one caller may be under way.
const MOST_OPEN: usize = 32;

/// Two modules that run, each for the other's calls.
struct World {
    folder: TempDir,
    ports: [u16; 2],
    running: Vec<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn file(folder: &Path, module: &str) -> PathBuf {
    folder.join(module).join("etc/application.properties")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
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
                 countersign.token.leeway=1s\n",
                ports[0]
            );
            fs::write(file, text).unwrap();
        }
        let mut world = Self {
            folder,
            ports,
            running: Vec::new(),
        };
        let files =
            ["dpm", "dpe"].map(|module| format!("{module}={module}/etc/application.properties"));
        world.succeeds(&["pair", &files[0], &files[1], "--yes"]);
        for module in ["dpm", "dpe"] {
            let mut child = world
                .command(&[module, "run", "--home", module])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let started = lines.find(|line| line.as_ref().unwrap().contains(" startup "));
            assert!(started.is_some(), "{module} did not start");
            std::thread::spawn(move || lines.count());
            world.running.push(child);
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

    /// Gives the files a new time, and each module a reason to read its own.
    fn touch(&self) {
        for module in ["dpm", "dpe"] {
            let file = File::open(file(self.folder.path(), module)).unwrap();
            file.set_modified(SystemClock.now()).unwrap();
        }
    }
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
    let following = tokio::spawn(Reloader::new(&settings, &module).run());
    let name = ["dpm-dev", "dpe-dev"][peer];
    let layer = module.client_layer(name).unwrap();
    let layer = layer.require_proof(module.proof_verifier(), None);
    let target = Target::new("127.0.0.1", world.ports[peer]);
    let connection = Connection::open(&target, ConnectionOptions::default())
        .await
        .unwrap();
    let client = IdentityServiceClient::new(layer.layer(connection.channel()));
    let mut ticks = interval(Duration::from_millis(2));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = JoinSet::new();
    while !stop.load(Ordering::SeqCst) {
        ticks.tick().await;
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
    let toucher = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(100));
            loop {
                ticks.tick().await;
                world.touch();
            }
        })
    };
    let start = Instant::now();

    for files in [
        ["--file", "dpe", "--peer-file", "dpm"],
        ["--file", "dpm", "--peer-file", "dpe"],
    ] {
        let world = Arc::clone(&world);
        let rotated = tokio::task::spawn_blocking(move || {
            let arguments = [&["rotate", "run", "--yes"], &files[..]].concat();
            world.succeeds(&arguments);
        });
        rotated.await.unwrap();
    }

    tokio::time::sleep_until(start + AT_LEAST).await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    toucher.abort();
    let made = calls.made.load(Ordering::SeqCst);
    let elapsed = start.elapsed();
    println!("{made} calls in {elapsed:?}");
    assert_eq!(*calls.refused.lock().unwrap(), BTreeMap::new(), "of {made}");
    // A thousand a second are asked for; a machine that is busy otherwise makes fewer.
    assert!(made > 2_000, "{made} calls are no load");
    for module in ["dpm", "dpe"] {
        let text = fs::read_to_string(file(world.folder.path(), module)).unwrap();
        assert_eq!(text.matches("is-revoked=true").count(), 1, "{module}");
    }
}
