//! Two DPMs of one deployment on one etcd, as processes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use countersign::grpc::{AttachIdentity, EndpointChannel, reason_of};
use countersign::proto::registry as wire;
use countersign::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use countersign::{Module, Reason};
use tokio::time::Instant;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use super::examples::shell;
use super::free_port::free_port;
use super::library::append;
use super::modules::{ANY_PORT, Running};
use super::support::Folder;

type Registry = EngineRegistryServiceClient<AttachIdentity<EndpointChannel>>;

/// An etcd whose data outlast it, until it is dropped.
struct Etcd {
    child: Child,
    port: u16,
    peers: u16,
    data: tempfile::TempDir,
}

impl Etcd {
    /// Starts it; returns `None` if it is not installed and need not be.
    fn start() -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let (port, peers) = (free_port(), free_port());
        let child = Self::run(&data, port, peers)?;
        Some(Self {
            child,
            port,
            peers,
            data,
        })
    }

    fn run(data: &tempfile::TempDir, port: u16, peers: u16) -> Option<Child> {
        let [own, peers] = [port, peers].map(|port| format!("http://127.0.0.1:{port}"));
        let started = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &own])
            .args(["--advertise-client-urls", &own])
            .args(["--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let required = env::var_os("COUNTERSIGN_REQUIRE_PEERS").is_some();
        assert!(started.is_ok() || !required, "there is no `etcd`");
        started.ok()
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = Self::run(&self.data, self.port, self.peers).unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PAGE: &str = "docs/more-than-one-dpm.md";

/// Two DPMs with one deployment key, and a client of both.
///
/// They are made by the commands of the page about them.
struct World {
    folder: Folder,
    etcd: Etcd,
    dpms: [Running; 2],
    ports: [u16; 2],
    dpe: Module,
    runtime: tokio::runtime::Runtime,
}

/// Returns the commands of the page, for an etcd on `port`.
fn commands(port: u16) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(page).unwrap();
    let (_, block) = page.split_once("```sh no-run\n").unwrap();
    let (commands, _) = block.split_once("```").unwrap();
    commands.replace("2379", &port.to_string())
}

impl World {
    fn start() -> Option<Self> {
        Self::start_with("", "")
    }

    /// Adds `of_dpms` and `of_dpe` to their files.
    fn start_with(of_dpms: &str, of_dpe: &str) -> Option<Self> {
        let etcd = Etcd::start()?;
        let folder = Folder::new();
        let commands = commands(etcd.port);
        shell(&folder, &format!("set -e\n{commands}")).exits(0);
        for (home, lines) in [("dpm", of_dpms), ("dpm2", of_dpms), ("dpe", of_dpe)] {
            append(
                &folder,
                &format!("{home}/etc/application.properties"),
                lines,
            );
        }
        let mut dpms = ["dpm", "dpm2"]
            .map(|home| Running::start(&folder, &format!("dpm run --home {home} {ANY_PORT}")));
        let ports = dpms.each_mut().map(Running::port);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let home = folder.path("dpe");
        let dpe = runtime
            .block_on(async { Module::options(home).without_signals().open() })
            .unwrap();
        Some(Self {
            folder,
            etcd,
            dpms,
            ports,
            dpe,
            runtime,
        })
    }

    /// Starts the engine `n`, which registers at the DPM `at`.
    fn engine(&self, n: usize, at: usize) -> Running {
        let home = format!("engine{n}");
        if !self.folder.path(&home).exists() {
            let settings = self.folder.read("dpe/etc/application.properties");
            self.folder
                .write(&format!("{home}/etc/application.properties"), settings);
        }
        let port = self.ports[at];
        let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
        Running::start(
            &self.folder,
            &format!("dpe run --home {home} {ANY_PORT} {to_dpm}"),
        )
    }

    /// Starts the engine of the folder `home` as one that takes no calls, which turns from one of the DPMs
    /// `at` to the next.
    fn one_way<const N: usize>(&self, home: &str, at: [usize; N]) -> Running {
        if !self.folder.path(&format!("{home}/etc")).exists() {
            let settings = self.folder.read("dpe/etc/application.properties");
            self.folder
                .write(&format!("{home}/etc/application.properties"), settings);
        }
        let addresses = at
            .map(|at| format!("127.0.0.1:{}", self.ports[at]))
            .join(",");
        let settings = [
            "server.port=0",
            "countersign.dpe.one-way=true",
            &format!("countersign.client.connection.dpm.addresses={addresses}"),
        ];
        let set = settings.map(|setting| format!("--set {setting}")).join(" ");
        Running::start(&self.folder, &format!("dpe run --home {home} {set}"))
    }

    fn client(&self, at: usize) -> Registry {
        let _runtime = self.runtime.enter();
        let endpoint = format!("http://127.0.0.1:{}", self.ports[at]);
        let endpoint = Endpoint::from_shared(endpoint).unwrap();
        Registry::new(self.dpe.connect("dpm-dev", endpoint).unwrap())
    }

    fn list(&self, at: usize) -> wire::ListEnginesResponse {
        let mut client = self.client(at);
        let listing = client.list_engines(wire::ListEnginesRequest::default());
        self.runtime.block_on(listing).unwrap().into_inner()
    }

    /// Makes a token for the DPMs.
    fn token(&self) -> String {
        let trust = self.dpe.trust().current();
        let token = self
            .dpe
            .issuer()
            .issue(trust.deployment("dpm-dev").unwrap());
        token.unwrap().expose().to_owned()
    }

    /// Lists the engines at the DPM `at` with `token`; returns why it is refused.
    fn refusal(&self, at: usize, token: &str) -> Option<(Code, Option<Reason>)> {
        let endpoint = format!("http://127.0.0.1:{}", self.ports[at]);
        let mut request = Request::new(wire::ListEnginesRequest::default());
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        self.runtime.block_on(async {
            let mut client = EngineRegistryServiceClient::connect(endpoint)
                .await
                .unwrap();
            let refused = client.list_engines(request).await.err()?;
            Some((refused.code(), reason_of(&refused)))
        })
    }

    /// Calls the DPM `at` with a new token each until one is taken; the others are refused as `until`.
    fn taken(&self, at: usize, until: (Code, Reason)) {
        let began = Instant::now();
        while let Some(refused) = self.refusal(at, &self.token()) {
            assert_eq!(refused, (until.0, Some(until.1)));
            assert!(began.elapsed() < Duration::from_secs(60));
        }
    }

    /// Returns how many uses of tokens are claimed in etcd.
    fn claims(&self) -> usize {
        let member = [format!("127.0.0.1:{}", self.etcd.port)];
        self.runtime.block_on(async {
            let client = etcd_client::Client::connect(member, None).await.unwrap();
            let all = etcd_client::GetOptions::new()
                .with_prefix()
                .with_keys_only();
            let found = client.kv_client().get("/countersign/v1/", Some(all)).await;
            let found = found.unwrap();
            let keys = found.kvs().iter().map(|found| found.key_str().unwrap());
            keys.filter(|key| key.contains("/claims/")).count()
        })
    }

    /// Waits until the DPM `at` lists what `is_meant`.
    fn until(&self, at: usize, is_meant: impl Fn(&wire::ListEnginesResponse) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let listed = self.list(at);
            if is_meant(&listed) {
                return began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{listed:?}");
        }
    }

    fn register(&self, at: usize, id: &str) -> Result<wire::RegisterEngineResponse, Status> {
        let mut client = self.client(at);
        let request = wire::RegisterEngineRequest {
            engine_id: id.to_owned(),
            address: Some(wire::EngineAddress {
                hostname: "127.0.0.1".to_owned(),
                port: 65_001,
            }),
            ..wire::RegisterEngineRequest::default()
        };
        let registered = self.runtime.block_on(client.register_engine(request));
        Ok(registered?.into_inner())
    }
}

/// Returns `true` if `many` engines are listed, each with the status `status`, and proved.
fn all(listed: &wire::ListEnginesResponse, status: wire::EngineStatus, many: usize) -> bool {
    let mut engines = listed.engines.iter();
    listed.engines.len() == many
        && engines.all(|engine| engine.status() == status && !engine.suspect)
}

const READY: wire::EngineStatus = wire::EngineStatus::Ready;
const DISCONNECTED: wire::EngineStatus = wire::EngineStatus::Disconnected;

#[test]
fn engine_is_ready_at_the_other_dpm_within_a_second() {
    let Some(mut world) = World::start() else {
        return;
    };
    let _engine = world.engine(1, 0);
    world.dpms[0].until("newStatus=READY");

    let took = world.until(1, |listed| all(listed, READY, 1));

    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(!world.list(0).stale && !world.list(1).stale);
}

#[test]
fn share_of_a_killed_dpm_is_taken_over_and_its_engines_stay_ready() {
    let Some(mut world) = World::start() else {
        return;
    };
    let mut engines: Vec<_> = (0..4).map(|n| world.engine(n, 0)).collect();
    engines.iter_mut().for_each(Running::drain);
    world.until(1, |listed| all(listed, READY, 4));

    world.dpms[0].child.kill().unwrap();
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_secs(5) {
        let listed = world.list(1);
        assert!(
            listed.engines.iter().all(|engine| engine.status() == READY),
            "{listed:?}"
        );
    }
    // What it checked was suspect meanwhile, and is proved again.
    assert!(all(&world.list(1), READY, 4));
    for engine in &engines {
        engine.signal("-KILL");
    }

    let lost = world.until(1, |listed| all(listed, DISCONNECTED, 4));
    assert!(lost < Duration::from_secs(20), "{lost:?}");
}

#[test]
fn dpms_serve_what_they_know_while_etcd_is_away_and_recover() {
    let Some(mut world) = World::start() else {
        return;
    };
    let _engine = world.engine(1, 0);
    world.until(1, |listed| all(listed, READY, 1));

    world.etcd.stop();
    let id = "0031debd-6130-4b4a-8eaf-7a834555cf33";
    for at in [0, 1] {
        world.until(at, |listed| listed.stale && all(listed, READY, 1));
        let refused = world.register(at, id).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    }
    world.etcd.restart();

    for at in [0, 1] {
        world.until(at, |listed| !listed.stale && all(listed, READY, 1));
    }
    assert!(world.register(0, id).unwrap().durable);
    world.until(1, |listed| listed.engines.len() == 2);
}

#[test]
fn dpm_that_was_stopped_writes_nothing_that_it_knew_before() {
    let Some(world) = World::start() else {
        return;
    };
    let engines: Vec<_> = (0..4).map(|n| world.engine(n, n % 2)).collect();
    world.until(0, |listed| all(listed, READY, 4));

    world.dpms[0].signal("-STOP");
    for engine in &engines {
        engine.signal("-KILL");
    }
    world.until(1, |listed| all(listed, DISCONNECTED, 4));
    world.dpms[0].signal("-CONT");

    world.until(0, |listed| all(listed, DISCONNECTED, 4));
    assert!(all(&world.list(1), DISCONNECTED, 4));
}

#[test]
fn dpm_that_starts_while_etcd_is_away_recovers_when_it_is_back() {
    let Some(mut world) = World::start() else {
        return;
    };
    let _engine = world.engine(1, 1);
    world.until(0, |listed| all(listed, READY, 1));
    world.dpms[0].stop();
    world.etcd.stop();

    world.dpms[0] = Running::start(&world.folder, &format!("dpm run --home dpm {ANY_PORT}"));
    world.ports[0] = world.dpms[0].port();
    let empty = world.list(0);
    assert!(empty.stale && empty.engines.is_empty(), "{empty:?}");
    world.dpms[0].until("registryDegraded");
    world.etcd.restart();

    world.dpms[0].until("registryRecovered");
    world.until(0, |listed| !listed.stale && all(listed, READY, 1));
}

#[test]
fn token_is_taken_once_by_all_strict_dpms_and_by_none_while_etcd_is_away() {
    let strict = "countersign.token.replay=strict\ncountersign.token.leeway=0s\n";
    let caller = "countersign.deployments.dpm-dev.single-use-tokens=true\n";
    let Some(mut world) = World::start_with(strict, caller) else {
        return;
    };
    let replayed = (Code::Unauthenticated, Reason::TokenReplayed);
    let unknown = (Code::Unavailable, Reason::ReplayUnknown);
    // They have just started.
    for at in [0, 1] {
        world.taken(at, replayed);
    }
    let _engine = world.engine(1, 0);
    world.until(1, |listed| all(listed, READY, 1));
    let token = world.token();

    assert_eq!(world.refusal(0, &token), None);
    for at in [1, 0] {
        let refused = world.refusal(at, &token);
        assert_eq!(refused, Some((replayed.0, Some(replayed.1))));
    }
    assert!(world.claims() > 0);

    world.etcd.stop();
    for at in [0, 1] {
        let refused = world.refusal(at, &world.token());
        assert_eq!(refused, Some((unknown.0, Some(unknown.1))));
    }
    world.etcd.restart();

    for at in [0, 1] {
        world.taken(at, unknown);
        assert_eq!(
            world.refusal(at, &token),
            Some((replayed.0, Some(replayed.1)))
        );
        world.until(at, |listed| !listed.stale && all(listed, READY, 1));
    }
}

#[test]
fn nothing_is_claimed_where_tokens_are_taken_until_they_expire() {
    let Some(world) = World::start() else {
        return;
    };
    let token = world.token();

    for at in [0, 1, 0] {
        assert_eq!(world.refusal(at, &token), None);
    }

    assert_eq!(world.claims(), 0);
}

#[test]
fn one_way_engine_is_ready_at_both_dpms_and_fails_over_when_the_dpm_of_its_stream_is_killed() {
    let Some(mut world) = World::start() else {
        return;
    };
    // Each DPM checks some of the engines that it may dial; these are asked where their streams are.
    let homes = ["way1", "way2", "way3"];
    let mut engines = homes.map(|home| world.one_way(home, [0, 1]));
    for at in [0, 1] {
        world.until(at, |listed| all(listed, READY, 3));
    }

    world.dpms[0].child.kill().unwrap();
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_secs(6) {
        let listed = world.list(1);
        let mut engines = listed.engines.iter();
        assert!(engines.all(|engine| engine.status() == READY), "{listed:?}");
    }

    world.until(1, |listed| all(listed, READY, 3));
    let other = format!("127.0.0.1:{}", world.ports[1]);
    for engine in &mut engines {
        while !engine.until("Engine registered").contains(&other) {}
        engine.signal("-KILL");
    }
    world.until(1, |listed| all(listed, DISCONNECTED, 3));
}

#[test]
fn clone_of_a_one_way_engine_is_refused_at_the_other_dpm_and_the_engine_may_start_again_there() {
    let Some(world) = World::start() else {
        return;
    };
    let engine = world.one_way("way", [0]);
    world.until(1, |listed| all(listed, READY, 1));
    let recorded = world.list(1).engines[0].instance.clone();
    let id = world.folder.read("way/storage/engine-id");
    world.folder.write("clone/storage/engine-id", id);

    let mut clone = world.one_way("clone", [1]);

    clone.until("ENGINE_DUPLICATE");
    clone.signal("-KILL");
    for at in [0, 1] {
        let listed = world.list(at);
        assert!(all(&listed, READY, 1), "{listed:?}");
        assert_eq!(listed.engines[0].instance, recorded);
    }
    engine.signal("-KILL");
    drop(engine);
    let began = Instant::now();
    let _again = world.one_way("way", [1]);
    for at in [0, 1] {
        world.until(at, |listed| {
            all(listed, READY, 1) && listed.engines[0].instance != recorded
        });
    }
    // Not after the pause of an engine whose id another process has.
    assert!(began.elapsed() < Duration::from_secs(30));
}
