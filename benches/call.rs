//! What a whole call costs with identities, and without.
//!
//! `cargo bench --bench call` makes unary calls over a loopback connection, caller and callee in
//! one process and on one thread. It prints the CPU time of a call without layers, with a token,
//! and with a token and a proof of the callee; rounds of the three alternate. With `-- calls N` it
//! makes `N` calls with a token and nothing else: the difference of two runs under
//! `valgrind --tool=callgrind` gives the instructions of a call.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench on its own server"
)]

use std::fs;
use std::time::Duration;

use countersign::grpc::{Connection, ConnectionOptions, ProofMode, Target};
use countersign::testing::{own_deployment, trusted};
use countersign::{MethodRules, Module, Rule};
use tokio::net::TcpListener;
use tonic::codegen::{Body, Bytes, StdError};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_layer::Layer as _;

const ROUNDS: usize = 15;
const CALLS: u32 = 1000;

/// The modules of both sides; every reply of the second pair is proved.
struct World {
    callee: Module,
    caller: Module,
    proved: Module,
}

impl World {
    fn new() -> Self {
        let dpm = own_deployment("dpm", "dpm-dev");
        let dpe = own_deployment("dpe", "dpe-dev");
        let caller = || Module::builder(dpe.clone()).trust(trusted(&dpm));
        Self {
            callee: Module::builder(dpm.clone())
                .trust(trusted(&dpe))
                .build()
                .unwrap(),
            caller: caller().proof_mode(ProofMode::Off).build().unwrap(),
            proved: caller().proof_mode(ProofMode::EveryCall).build().unwrap(),
        }
    }

    /// Starts a server, and returns a channel to it.
    async fn channel(&self, has_layers: bool) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::new("127.0.0.1", listener.local_addr().unwrap().port());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let (reporter, health) = tonic_health::server::health_reporter();
        drop(reporter);
        if has_layers {
            let rules = MethodRules::deny_all()
                .allow("/grpc.health.v1.Health/*", Rule::any_identity())
                .unwrap();
            let layer = self.callee.server_layer(rules);
            let server = Server::builder().layer(layer).add_service(health);
            tokio::spawn(server.serve_with_incoming(incoming));
        } else {
            let server = Server::builder().add_service(health);
            tokio::spawn(server.serve_with_incoming(incoming));
        }
        let connection = Connection::open(&target, ConnectionOptions::default());
        connection.await.unwrap()
    }
}

async fn calls<T>(client: &mut HealthClient<T>, calls: u32)
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    for _ in 0..calls {
        let reply = client.check(HealthCheckRequest::default()).await;
        assert_eq!(reply.unwrap().into_inner().status, 1);
    }
}

/// Returns the CPU time of this thread so far.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

async fn measure(only: Option<u32>) {
    let world = World::new();
    let channel = world.channel(true).await;
    let with_token = world
        .caller
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let with_proof = world
        .proved
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut with_token = HealthClient::new(with_token.layer(channel.clone()));
    if let Some(only) = only {
        return calls(&mut with_token, only).await;
    }
    let mut with_proof = HealthClient::new(with_proof.layer(channel));
    let mut bare = HealthClient::new(world.channel(false).await);
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let begun = cpu();
        calls(&mut bare, CALLS).await;
        let bare = cpu();
        calls(&mut with_token, CALLS).await;
        let token = cpu();
        calls(&mut with_proof, CALLS).await;
        let ends = [bare, token, cpu()];
        for ((times, end), begun) in times.iter_mut().zip(ends).zip([begun, bare, token]) {
            times.push(end.saturating_sub(begun) / CALLS);
        }
    }
    let [bare, token, proof] = times.map(|mut times| {
        times.sort();
        times.get(ROUNDS / 2).unwrap().as_secs_f64() * 1e6
    });
    println!("call/bare             {bare:>7.1} µs of CPU time");
    println!(
        "call/token            {token:>7.1} µs, {:.2} times",
        token / bare
    );
    println!(
        "call/token and proof  {proof:>7.1} µs, {:.2} times",
        proof / bare
    );
}

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "calls");
    let only = arguments.nth(1).map(|number| number.parse().unwrap());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(measure(only));
}
