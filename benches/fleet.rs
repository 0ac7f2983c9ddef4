//! What engines cost a DPM: processor time and memory of the DPM's process alone.
//!
//! `cargo bench --bench fleet` starts the binary as a DPM. First engines register where nothing
//! listens, so that each is dialled once and no more: memory for each. Then heartbeats and `WhoAmI`
//! calls take turns: the DPM's processor time for each. Last, processes of their own run `-- N`
//! real engines (by default 5,000), which the DPM checks every second: how long until all are READY,
//! what a second of checks takes of a core, and memory for each connected engine. A process that may
//! open 20,000 files runs about 8,000.
#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a bench on its own files"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures with the machine's clock"
)]

use std::env;
use std::fs;
use std::future::pending;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign::Module;
use countersign::dpe::{Dpe, Options, StatusCheckerOptions};
use countersign::grpc::{AttachIdentity, Connection, Target};
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use countersign::proto::registry::{
    EngineAddress, HeartbeatRequest, ListEnginesRequest, RegisterEngineRequest,
};
use countersign::storage::Storage;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

const IN_FLIGHT: usize = 64;
const SILENT: usize = 100_000;
const CALLS: usize = 20_000;
const ROUNDS: usize = 5;
const PROCESSES: usize = 4;
const SETTLED: Duration = Duration::from_secs(60);

type Channel = AttachIdentity<Connection>;
type Registry = EngineRegistryServiceClient<Channel>;

const LIMITS: &str = "
ataccama.server.grpc.port=0
server.port=0
countersign.registry.url=memory:
countersign.registry.max-engines=1000000
countersign.registry.max-engines-per-deployment=1000000
countersign.registry.max-new-engines-per-second=1000000
";

/// A DPM process, which ends when it is dropped.
struct Dpm {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    port: u16,
}

impl Dpm {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .current_dir(folder)
            .args(["dpm", "run", "--home", "dpm"])
            .args(more.iter().flat_map(|set| ["--set", set]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = log.find(|line| line.as_ref().unwrap().contains(" startup "));
        let line = line.unwrap().unwrap();
        let (_, rest) = line.split_once(" address=127.0.0.1:").unwrap();
        let port = rest.split(' ').next().unwrap().parse().unwrap();
        Self { child, log, port }
    }

    /// Reads the log and forgets it, so that its writer never waits.
    fn drain(mut self) -> (Meter, Child) {
        let meter = Meter(self.child.id());
        std::thread::spawn(move || while let Some(Ok(_)) = self.log.next() {});
        (meter, self.child)
    }
}

/// What a process has used.
#[derive(Clone, Copy)]
struct Meter(u32);

impl Meter {
    /// Adds up the time of its threads on a processor.
    fn cpu(self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).unwrap();
        let times = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        times.sum::<u64>() as f64 / 1e9
    }

    /// Returns its memory in bytes.
    fn memory(self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024.0
    }
}

fn module(folder: &Path, port: u16) -> Module {
    let file = folder.join("dpe/etc/application.properties");
    let text = fs::read_to_string(&file).unwrap();
    let port = format!("ataccama.client.connection.dpm.grpc.port={port}");
    let lines = text.lines().filter(|line| !line.contains("dpm.grpc.port"));
    let text = lines.chain([&*port]).collect::<Vec<_>>().join("\n");
    fs::write(&file, text + "\n").unwrap();
    Module::load(folder.join("dpe")).unwrap()
}

/// Makes `calls` calls in turns of `IN_FLIGHT`.
async fn each<F>(module: &Module, calls: usize, call: fn(Channel) -> F) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    let left = Arc::new(AtomicUsize::new(calls));
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..8 {
        let channel = module.channel("dpm-dev").unwrap();
        for _ in 0..IN_FLIGHT / 8 {
            let (channel, left) = (channel.clone(), Arc::clone(&left));
            tasks.spawn(async move {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
                {
                    call(channel.clone()).await;
                }
            });
        }
    }
    tasks.join_all().await;
    begun.elapsed()
}

async fn register(channel: Channel) {
    register_as(Uuid::new_v4(), channel).await;
}

async fn register_as(id: Uuid, channel: Channel) {
    let request = RegisterEngineRequest {
        engine_id: id.to_string(),
        address: Some(nowhere()),
        heartbeat_interval: prost_types::Duration::try_from(Duration::from_secs(3600)).ok(),
        ..RegisterEngineRequest::default()
    };
    let mut client = Registry::new(channel);
    client.register_engine(request).await.unwrap();
}

fn nowhere() -> EngineAddress {
    EngineAddress {
        hostname: "127.0.0.1".to_owned(),
        port: 65_001,
    }
}

async fn silent(folder: &Path) {
    let dpm = Dpm::start(
        folder,
        &[
            "ataccama.one.dpm.registry.check-disconnected-interval=24h",
            "ataccama.one.dpm.registry.check-disconnected-interval-max=24h",
        ],
    );
    let module = module(folder, dpm.port);
    let (meter, mut child) = dpm.drain();
    each(&module, 1000, register).await;
    register_as(BEATING, module.channel("dpm-dev").unwrap()).await;
    sleep(Duration::from_secs(2)).await;
    let before = meter.memory();
    let took = each(&module, SILENT, register).await;
    sleep(Duration::from_secs(20)).await;
    let bytes = (meter.memory() - before) / SILENT as f64;
    println!(
        "fleet/silent     {SILENT} engines, {:.0} registrations a second, {bytes:.0} B each",
        SILENT as f64 / took.as_secs_f64()
    );
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let begun = meter.cpu();
        each(&module, CALLS, |channel| async {
            let request = WhoAmIRequest::default();
            let mut client = IdentityServiceClient::new(channel);
            client.who_am_i(request).await.unwrap();
        })
        .await;
        let middle = meter.cpu();
        each(&module, CALLS, |channel| async {
            let request = HeartbeatRequest {
                engine_id: BEATING.to_string(),
                ..HeartbeatRequest::default()
            };
            Registry::new(channel).heartbeat(request).await.unwrap();
        })
        .await;
        costs[0].push((middle - begun) * 1e6 / CALLS as f64);
        costs[1].push((meter.cpu() - middle) * 1e6 / CALLS as f64);
    }
    let [who, beat] = costs.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        *costs.get(ROUNDS / 2).unwrap()
    });
    println!("fleet/whoami     {who:.1} µs of the DPM's processor time a call");
    println!("fleet/heartbeat  {beat:.1} µs, {:.2} of WhoAmI", beat / who);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The engine whose heartbeats are measured; it is not READY.
const BEATING: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0001);

/// Runs `count` engines in this process until it is ended.
async fn engines(folder: &Path, port: u16, count: usize) {
    let module = Module::load(folder.join("dpe")).unwrap();
    let homes = tempfile::tempdir_in(folder).unwrap();
    for at in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let storage = Storage::lock(&homes.path().join(at.to_string())).unwrap();
        let mut checker = StatusCheckerOptions::new(Target::new("127.0.0.1", port));
        checker.check_connection_interval = Duration::from_secs(30);
        let dpe = Dpe::new(module.clone(), storage, listener, Options::new(checker)).unwrap();
        tokio::spawn(dpe.run(pending()));
    }
    pending::<()>().await;
}

async fn checked(folder: &Path, count: usize) {
    let dpm = Dpm::start(folder, &[]);
    let port = dpm.port;
    let module = module(folder, port);
    let (meter, mut child) = dpm.drain();
    let before = meter.memory();
    let begun = Instant::now();
    let mut fleet = Vec::new();
    for _ in 0..PROCESSES {
        let share = (count / PROCESSES).to_string();
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .arg("engines")
            .arg(folder)
            .arg(port.to_string())
            .arg(share);
        fleet.push(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
    }
    let mut client = Registry::new(module.channel("dpm-dev").unwrap());
    while ready(&mut client).await < count / PROCESSES * PROCESSES {
        sleep(Duration::from_millis(500)).await;
    }
    println!(
        "fleet/ready      {count} engines READY after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    sleep(SETTLED).await;
    let (begun, cpu) = (Instant::now(), meter.cpu());
    sleep(SETTLED).await;
    let share = (meter.cpu() - cpu) / begun.elapsed().as_secs_f64();
    println!(
        "fleet/checked    {share:.3} of a core, {:.1} µs an engine and second",
        share * 1e6 / count as f64
    );
    println!(
        "fleet/connected  {:.1} KB an engine; READY still: {}",
        (meter.memory() - before) / count as f64 / 1e3,
        ready(&mut client).await
    );
    for child in fleet.iter_mut().chain([&mut child]) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

async fn ready(client: &mut Registry) -> usize {
    let (mut count, mut page_token) = (0, String::new());
    loop {
        let request = ListEnginesRequest {
            page_size: 1000,
            page_token,
        };
        let page = client.list_engines(request).await.unwrap().into_inner();
        count += page
            .engines
            .iter()
            .filter(|engine| engine.status == 2)
            .count();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return count;
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let given: Vec<_> = env::args().skip(1).collect();
    if let [word, folder, port, count] = &*given
        && word == "engines"
    {
        let (port, count) = (port.parse().unwrap(), count.parse().unwrap());
        return runtime.block_on(engines(Path::new(folder), port, count));
    }
    let count = given
        .iter()
        .find_map(|word| word.parse().ok())
        .unwrap_or(5000);
    let folder = tempfile::tempdir().unwrap();
    let pair = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .current_dir(folder.path())
        .args([
            "pair",
            "dpm=dpm/etc/application.properties",
            "dpe=dpe/etc/application.properties",
            "--yes",
        ])
        .stdout(Stdio::null())
        .status();
    assert!(pair.unwrap().success());
    let file = folder.path().join("dpm/etc/application.properties");
    let text = fs::read_to_string(&file).unwrap() + LIMITS;
    fs::write(&file, text).unwrap();
    runtime.block_on(async {
        silent(folder.path()).await;
        checked(folder.path(), count).await;
    });
}
