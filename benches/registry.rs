//! What a registration costs with each store, and what a list and a start cost.
//!
//! `cargo bench --bench registry` starts a DPM with its engines in memory and one with them in a
//! file, and registers engines at both in turns, 64 in flight and then one: calls a second, the
//! 99th percentile, and how the file compares with memory. Nothing listens where the engines are
//! said to be, so each is dialled once and refused. Then it prints how long a store of 100,000 and
//! of 1,000,000 engines takes to open, and how long a page of 1,000 of them takes.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a bench on its own registry"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures with the machine's clock"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign::dpm::{Dpm, Options};
use countersign::engine::{Engine, EngineId};
use countersign::grpc::{Connection, ConnectionOptions, ProofMode, Target};
use countersign::internals::decode_record;
use countersign::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use countersign::proto::registry::{EngineAddress as Address, RegisterEngineRequest};
use countersign::registry::store::{EngineStore, Expected, FileStore, MemoryStore};
use countersign::storage::Storage;
use countersign::testing::{own_deployment, trusted};
use countersign::{Module, Transport};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_layer::Layer as _;
use uuid::Uuid;

const ROUNDS: usize = 5;
const IN_FLIGHT: usize = 64;
const CALLS: usize = 10_000;
const CALLS_ALONE: usize = 500;

/// A DPM over one store, and who registers at it.
struct World {
    caller: Module,
    target: Target,
}

impl World {
    async fn new(home: &Path, store: Arc<dyn EngineStore>) -> Self {
        let dpm = own_deployment("dpm", "dpm-dev");
        let dpe = own_deployment("dpe", "dpe-dev");
        let module = Module::builder(dpm.clone()).trust(trusted(&dpe));
        let caller = Module::builder(dpe).trust(trusted(&dpm));
        let mut options = Options::default();
        options.limits.max_engines = 10_000_000;
        options.limits.max_engines_per_deployment = 10_000_000;
        options.limits.max_new_engines_per_second = 1_000_000;
        options.monitor.check_disconnected_interval = Duration::from_secs(3600);
        options.monitor.check_disconnected_max = Duration::from_secs(3600);
        let storage = Storage::lock(home).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let module = module.build().unwrap();
        let dpm = Dpm::new(module, storage, listener, store, options).unwrap();
        let target = Target::new("127.0.0.1", dpm.address().port());
        tokio::spawn(dpm.run(std::future::pending()));
        Self {
            caller: caller.proof_mode(ProofMode::EveryCall).build().unwrap(),
            target,
        }
    }

    /// Registers `calls` engines, `in_flight` at a time; returns how long each call took, sorted, and
    /// all of them.
    async fn register(&self, calls: usize, in_flight: usize) -> (Vec<Duration>, Duration) {
        let layer = self.caller.client_layer("dpm-dev", Transport::loopback());
        let layer = layer.unwrap();
        let left = Arc::new(AtomicUsize::new(calls));
        let mut registering = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..in_flight.min(8) {
            let connection = Connection::open(&self.target, ConnectionOptions::default());
            let connection = connection.await.unwrap();
            for _ in 0..in_flight.div_ceil(8) {
                let channel = layer.layer(connection.clone());
                let mut client = EngineRegistryServiceClient::new(channel);
                let left = Arc::clone(&left);
                registering.spawn(async move {
                    let mut times = Vec::new();
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                        .is_ok()
                    {
                        let begun = Instant::now();
                        client.register_engine(request()).await.unwrap();
                        times.push(begun.elapsed());
                    }
                    times
                });
            }
        }
        let mut times = registering.join_all().await.concat();
        let all = begun.elapsed();
        times.sort();
        (times, all)
    }
}

fn request() -> RegisterEngineRequest {
    RegisterEngineRequest {
        engine_id: Uuid::new_v4().to_string(),
        address: Some(Address {
            hostname: "127.0.0.1".to_owned(),
            port: 65_001,
        }),
        ..RegisterEngineRequest::default()
    }
}

fn percentile(times: &[Duration], of_100: usize) -> f64 {
    let at = times.len() * of_100 / 100;
    times.get(at).unwrap().as_secs_f64() * 1e3
}

async fn compare(folder: &Path) {
    let memory = Arc::new(MemoryStore::default());
    let file = FileStore::open(&folder.join("registry.redb")).unwrap();
    let worlds = [
        ("memory", World::new(&folder.join("memory"), memory).await),
        (
            "file",
            World::new(&folder.join("file"), Arc::new(file)).await,
        ),
    ];
    for (calls, in_flight) in [(CALLS, IN_FLIGHT), (CALLS_ALONE, 1)] {
        let mut rates = [const { Vec::new() }; 2];
        let mut late = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            for (at, (_, world)) in worlds.iter().enumerate() {
                let (times, all) = world.register(calls, in_flight).await;
                rates[at].push(times.len() as f64 / all.as_secs_f64());
                late[at].push([percentile(&times, 50), percentile(&times, 99)]);
            }
        }
        for (at, (name, _)) in worlds.iter().enumerate() {
            rates[at].sort_by(f64::total_cmp);
            late[at].sort_by(|a, b| a[1].total_cmp(&b[1]));
            let (rate, [p50, p99]) = (rates[at][ROUNDS / 2], late[at][ROUNDS / 2]);
            println!(
                "register/{name:<6} {in_flight:>2} in flight {rate:>8.0} a second, p50 {p50:>7.3} ms, p99 {p99:>7.3} ms"
            );
        }
        let ratio = rates[1][ROUNDS / 2] / rates[0][ROUNDS / 2];
        println!("register/file   {in_flight:>2} in flight {ratio:>8.2} of memory");
    }
}

/// Prints how long a file of `count` engines takes to open, and a page of it.
async fn open(folder: &Path, count: usize) {
    let path = folder.join(format!("{count}.redb"));
    let store = FileStore::open(&path).unwrap();
    let template = template();
    for _ in 0..count {
        let mut engine = template.clone();
        engine.id = EngineId::from_random(*Uuid::new_v4().as_bytes());
        store.replace(engine, Expected::Absent).await.unwrap();
    }
    // It gives up after 2 s, and a million engines are one commit.
    while !store.flush().await.unwrap() {}
    store.close().await.unwrap();
    drop(store);
    let mut times = Vec::new();
    let mut pages = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let store = FileStore::open(&path).unwrap();
        times.push(begun.elapsed());
        let begun = Instant::now();
        assert_eq!(store.page(None, 1000).await.unwrap().len(), 1000);
        pages.push(begun.elapsed());
        store.close().await.unwrap();
    }
    times.sort();
    pages.sort();
    let (time, page) = (times[ROUNDS / 2], pages[ROUNDS / 2]);
    println!(
        "open/{count:<10} {:>8.1} ms; a page of 1,000: {:.1} µs",
        time.as_secs_f64() * 1e3,
        page.as_secs_f64() * 1e6
    );
}

/// Returns an engine as a registry records it.
fn template() -> Engine {
    let engine = countersign::proto::registry::Engine {
        id: Uuid::new_v4().to_string(),
        address: request().address,
        status: 1,
        deployment: "dpe-dev".to_owned(),
        module: "dpe".to_owned(),
        environment: "dev".to_owned(),
        fingerprint: "kHSzWkPiZKfSKAgdIkCdXfAAKs7x23jszQLkTOzQTEM".to_owned(),
        registered_at: Some(prost_types::Timestamp::default()),
        ..countersign::proto::registry::Engine::default()
    };
    let mut bytes = vec![0x0a];
    bytes.extend(engine.encode_length_delimited_to_vec());
    decode_record(&bytes, None).unwrap()
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        compare(folder.path()).await;
        for count in [100_000, 1_000_000] {
            open(folder.path(), count).await;
        }
    });
}
