//! What minutes of mixed traffic leave behind.
//!
//! `cargo bench --bench traffic` lets eight callers call one module for five minutes, over
//! connections that they change now and then. A fifth of the calls is forged. It prints the
//! resident memory of the process each half minute, and fails if a verdict was wrong or memory grew
//! by more than 4 MiB after the first half minute. `-- seconds N` makes it shorter.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench on its own server"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures with the machine's clock"
)]

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use countersign::grpc::{Connection, ConnectionOptions, ProofMode, Target, reason_of};
use countersign::testing::{own_deployment, trusted};
use countersign::token::Reason;
use countersign::{MethodRules, Module, Rule, Transport};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_layer::Layer as _;

const CALLERS: u64 = 8;
/// A deployment for which the caller has tokens, too.
const OTHER: &str = "ledger-dev";
/// After so many calls a caller connects anew.
const CALLS_OF_A_CONNECTION: u64 = 500;
const HALF_MINUTE: Duration = Duration::from_secs(30);
const MOST_GROWTH: u64 = 4096;

/// A callee that listens, a caller that it trusts, and what stands for forgers.
struct World {
    callee: Module,
    caller: Module,
    /// Has another key under the caller's name.
    impostor: Module,
    target: Target,
}

impl World {
    async fn start() -> Self {
        let dpm = own_deployment("dpm", "dpm-dev");
        let ledger = own_deployment("ledger", OTHER);
        let dpe = own_deployment("dpe", "dpe-dev");
        let trusting = Module::builder(dpm.clone()).trust(trusted(&dpe));
        let callee = trusting.build().unwrap();
        let calling = Module::builder(dpe)
            .trust(trusted(&dpm))
            .trust(trusted(&ledger))
            .proof_mode(ProofMode::Handshake);
        let impostor = Module::builder(own_deployment("dpe", "dpe-dev")).trust(trusted(&dpm));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::new("127.0.0.1", listener.local_addr().unwrap().port());
        let (reporter, health) = tonic_health::server::health_reporter();
        drop(reporter);
        let rules = MethodRules::deny_all();
        let rules = rules.allow("/grpc.health.v1.Health/*", Rule::any_identity());
        let server = Server::builder()
            .layer(callee.server_layer(rules.unwrap()))
            .add_service(health);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(server.serve_with_incoming(incoming));
        Self {
            callee,
            caller: calling.build().unwrap(),
            impostor: impostor.build().unwrap(),
            target,
        }
    }

    /// Makes a forged token, and says why it has to be refused.
    fn forged(&self, n: u64) -> (String, Reason) {
        match n % 4 {
            0 => (token(&self.impostor, "dpm-dev"), Reason::KeyUnknown),
            1 => (token(&self.caller, OTHER), Reason::AudienceMismatch),
            2 => {
                let good = token(&self.caller, "dpm-dev");
                let (signed, signature) = good.rsplit_once('.').unwrap();
                let (most, last) = signature.split_at(signature.len() - 1);
                let other: String = most.chars().rev().collect();
                (format!("{signed}.{other}{last}"), Reason::SignatureInvalid)
            }
            _ => (format!("{n}.{n}.{n}"), Reason::TokenMalformed),
        }
    }

    /// Calls until `end`, and returns how many calls there were and how many verdicts were wrong.
    async fn calls(&self, caller: u64, end: Instant, total: &AtomicU64) -> u64 {
        let layer = self.caller.client_layer("dpm-dev", Transport::loopback());
        let layer = layer.unwrap();
        let mut wrong = 0;
        let mut n = caller;
        while Instant::now() < end {
            let connection = Connection::open(&self.target, ConnectionOptions::default());
            let connection = connection.await.unwrap();
            let mut bare = HealthClient::new(connection.clone());
            let mut client = HealthClient::new(layer.layer(connection));
            for call in 0..CALLS_OF_A_CONNECTION {
                n += 1;
                let is_right = match call % 10 {
                    0 | 5 => {
                        let (token, reason) = self.forged(n);
                        let status = bare.check(bearer(&token)).await.unwrap_err();
                        reason_of(&status) == Some(reason)
                    }
                    // A token that was not seen before.
                    1 => {
                        let fresh = token(&self.caller, "dpm-dev");
                        bare.check(bearer(&fresh)).await.is_ok()
                    }
                    2 => client.watch(HealthCheckRequest::default()).await.is_ok(),
                    _ => client.check(HealthCheckRequest::default()).await.is_ok(),
                };
                wrong += u64::from(!is_right);
                total.fetch_add(1, Ordering::Relaxed);
            }
        }
        wrong
    }
}

fn token(of: &Module, callee: &str) -> String {
    let trust = of.trust().current();
    let issued = of.issuer().issue(trust.deployment(callee).unwrap());
    issued.unwrap().expose().to_owned()
}

fn bearer(token: &str) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest::default());
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// Returns how much memory this process has resident, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let (_, resident) = status.split_once("VmRSS:").unwrap();
    resident.split_whitespace().next().unwrap().parse().unwrap()
}

async fn measure(length: Duration) -> ExitCode {
    let world = Arc::new(World::start().await);
    let total = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + length;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (world, total) = (Arc::clone(&world), Arc::clone(&total));
        callers.spawn(async move { world.calls(caller, end, &total).await });
    }
    let mut seen = Vec::new();
    while Instant::now() < end {
        tokio::time::sleep(HALF_MINUTE.min(length / 4)).await;
        seen.push(resident());
        let calls = total.load(Ordering::Relaxed);
        println!("{calls:>9} calls, {:>7} KiB", resident());
    }
    let wrong: u64 = callers.join_all().await.into_iter().sum();
    let trusted = world.callee.trust().current().deployments().len();
    let growth = resident().saturating_sub(*seen.first().unwrap());
    println!(
        "{} calls, a fifth forged, {trusted} deployment trusted: {wrong} wrong verdicts; memory grew by {growth} KiB (limit {MOST_GROWTH})",
        total.load(Ordering::Relaxed)
    );
    if wrong == 0 && growth <= MOST_GROWTH {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip_while(|argument| argument != "seconds");
    let seconds = arguments.nth(1).map(|seconds| seconds.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(Duration::from_secs(seconds.unwrap_or(300))))
}
