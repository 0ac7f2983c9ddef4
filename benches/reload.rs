//! What a reload costs, and which calls it keeps waiting.
//!
//! `cargo bench --bench reload` prints criterion's figure for loading a file with 1,000
//! deployments, which is one thread's work, then the CPU time of a whole reload and the 99th
//! percentile of calls with and without a reload every 100 ms.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench on its own files"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures with the machine's clock"
)]

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use countersign::Module;
use countersign::grpc::{Connection, ConnectionOptions, Target};
use countersign::jose::{PrivateJwk, PublicJwk};
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::testing::{own_deployment, trusted};
use countersign::trust::OwnDeployment;
use countersign::{MethodRules, Rule};
use countersign::{ModuleKind, ReloadHandle, Reloader, Settings};
use criterion::{Criterion, criterion_group};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep_until;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower_layer::Layer as _;

const DEPLOYMENTS: usize = 1000;
const CALLS: u32 = 4000;
const EVERY: Duration = Duration::from_millis(1);
const MOST_CPU: Duration = Duration::from_millis(50);
const MOST_RISE: Duration = Duration::from_millis(2);
const BETWEEN: Duration = Duration::from_millis(100);

/// A home with 1,000 deployments, the last of which is the caller's, in two versions.
struct World {
    folder: TempDir,
    versions: [String; 2],
    own: OwnDeployment,
    caller: OwnDeployment,
}

impl World {
    fn new() -> Self {
        let own = own_deployment("dpm", "dpm-dev");
        let caller = own_deployment("dpe", "dpe-dev");
        let jwk = PrivateJwk::write(&own.key, &own.key_id);
        let mut text = format!(
            "countersign.deployment.name=dpm-dev\nataccama.authentication.internal.jwt.generator.key={}\n",
            BASE64_STANDARD.encode(jwk.expose())
        );
        for n in 1..DEPLOYMENTS {
            deployment(&mut text, &own_deployment("dpe", &format!("dpe-{n}")));
        }
        deployment(&mut text, &caller);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        let other = text.replacen("is-revoked=false", "is-revoked=true", 1);
        let world = Self {
            folder,
            versions: [text, other],
            own,
            caller,
        };
        world.write(0);
        world
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("etc/application.properties")
    }

    /// Puts one of the two versions in place.
    fn write(&self, version: usize) {
        let beside = self.file().with_extension("new");
        fs::write(&beside, self.versions.get(version % 2).unwrap()).unwrap();
        private(&beside);
        fs::rename(beside, self.file()).unwrap();
    }

    fn load(&self) -> Settings {
        Settings::load(self.folder.path(), &ModuleKind::Dpm, [], &[]).unwrap()
    }
}

fn deployment(text: &mut String, own: &OwnDeployment) {
    let name = own.name.as_ref().unwrap();
    let below = format!("ataccama.one.platform.deployments.{name}");
    let key = format!("{below}.security.jwt-keys.key");
    let content = PublicJwk::write(own.key.verifying_key(), &own.key_id);
    writeln!(
        text,
        "{below}.module={}\n{below}.security.roles=IMPERSONATION\n{key}.fingerprint={}\n\
         {key}.content={content}\n{key}.is-revoked=false",
        own.module, own.key_id
    )
    .unwrap();
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn load(criterion: &mut Criterion) {
    let world = World::new();
    let mut group = criterion.benchmark_group("reload");
    group.sample_size(10);
    group.bench_function("load 1,000 deployments", |b| b.iter(|| world.load()));
    group.finish();
}

/// The CPU time of all threads of this process so far.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let nanos = tasks.map(|task| {
        let path = task.unwrap().path().join("schedstat");
        let text = fs::read_to_string(path).unwrap_or_default();
        let first = text.split(' ').next().unwrap_or_default();
        first.parse::<u64>().unwrap_or_default()
    });
    Duration::from_nanos(nanos.sum())
}

/// Reloads `rounds` times; returns the CPU time of one.
async fn reload(world: &World, handle: &ReloadHandle, rounds: u32) -> Duration {
    let mut status = handle.status();
    let before = cpu();
    for round in 1..=rounds {
        world.write(usize::try_from(round).unwrap());
        handle.reload();
        status.changed().await.unwrap();
        assert_eq!(status.borrow_and_update().failure, None);
    }
    cpu().saturating_sub(before) / rounds
}

/// Makes 1,000 calls a second, whether those before are answered or not; returns the 99th
/// percentile of their times, each from when it was due: whatever stops all of them counts for
/// each.
async fn p99(client: &Client) -> Duration {
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..CALLS {
        let due = begun + EVERY * n;
        sleep_until(due.into()).await;
        let mut client = client.clone();
        calls.spawn(async move {
            client.who_am_i(WhoAmIRequest {}).await.unwrap();
            due.elapsed()
        });
    }
    let mut times = calls.join_all().await;
    times.sort();
    *times.get(times.len() / 100 * 99).unwrap()
}

type Client = IdentityServiceClient<countersign::grpc::AttachIdentity<Connection>>;

async fn connect(world: &World, module: &Module) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let rules = MethodRules::deny_all()
        .allow(
            "/countersign.identity.v1.IdentityService/*",
            Rule::any_identity(),
        )
        .unwrap();
    let server = Server::builder()
        .layer(module.server_layer(rules))
        .add_service(module.identity_service())
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::spawn(server);
    let caller = Module::builder(world.caller.clone()).trust(trusted(&world.own));
    let caller = caller.build().unwrap();
    let target = Target::new("127.0.0.1", address.port());
    let connection = Connection::open(&target, ConnectionOptions::default());
    let channel = connection.await.unwrap();
    let layer = caller
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    IdentityServiceClient::new(layer.layer(channel))
}

async fn measure() -> ExitCode {
    let world = Arc::new(World::new());
    let settings = world.load();
    let module = settings.module().unwrap();
    let reloader = Reloader::new(&settings, &module);
    let handle = reloader.handle();
    tokio::spawn(reloader.run());
    let one = reload(&world, &handle, 20).await;
    println!(
        "a reload of {DEPLOYMENTS} deployments: {:.1} ms of CPU time (limit 50 ms)",
        millis(one)
    );

    let client = connect(&world, &module).await;
    p99(&client).await;
    let mut differences = Vec::new();
    for _ in 0..5 {
        let alone = p99(&client).await;
        let reloading = async {
            for version in 0.. {
                let world = Arc::clone(&world);
                spawn_blocking(move || world.write(version)).await.unwrap();
                handle.reload();
                tokio::time::sleep(BETWEEN).await;
            }
        };
        let mut status = handle.status();
        let applied = Cell::new(0);
        let counting = async {
            while status.changed().await.is_ok() {
                applied.set(applied.get() + 1);
            }
        };
        let meanwhile = tokio::select! {
            time = p99(&client) => time,
            () = reloading => Duration::MAX,
            () = counting => Duration::MAX,
        };
        println!(
            "p99 of 1,000 calls a second: {:.2} ms alone, {:.2} ms with {} reloads in {} s",
            millis(alone),
            millis(meanwhile),
            applied.get(),
            (EVERY * CALLS).as_secs()
        );
        differences.push(meanwhile.saturating_sub(alone));
    }
    differences.sort();
    let median = differences.get(2).unwrap();
    println!(
        "p99 rises by {:.2} ms (median of 5; limit 2 ms)",
        millis(*median)
    );
    if one < MOST_CPU && *median < MOST_RISE {
        ExitCode::SUCCESS
    } else {
        println!("that is beyond a limit");
        ExitCode::FAILURE
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

criterion_group!(benches, load);

fn main() -> ExitCode {
    benches();
    Criterion::default().configure_from_args().final_summary();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure())
}
