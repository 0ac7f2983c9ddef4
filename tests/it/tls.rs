//! TLS: real handshakes over loopback, by authority and by fingerprint.

#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/handshakes.rs"]
mod handshakes;
#[path = "tls/openssl.rs"]
mod openssl;
#[path = "tls/pinned.rs"]
mod pinned;
#[path = "tls/reload.rs"]
mod reload;

use countersign::Module;
use countersign::grpc::tls::{ClientTlsOptions, ServerTlsOptions};
use countersign::grpc::{Connection, ConnectionOptions, ModuleBuilder, Target, cause};
use countersign::jose::Fingerprint;
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::testing::trusted;
use countersign::trust::{Deployment, OwnDeployment};
use tonic::Status;
use tower_layer::Layer as _;

use super::support::world::{RunningDpm, free_port, soon};

/// What a peer's file holds about `own`, with pins.
fn pinning(own: &OwnDeployment, pins: &[Fingerprint]) -> Deployment {
    let mut deployment = trusted(own);
    deployment.tls_pins = pins.to_vec();
    deployment
}

/// A module that is `own` and trusts `peers`.
fn module(own: &OwnDeployment, peers: impl IntoIterator<Item = Deployment>) -> Module {
    let builder = Module::builder(own.clone());
    let builder = peers.into_iter().fold(builder, ModuleBuilder::trust);
    builder.build().unwrap()
}

/// Starts a DPM whose server has TLS.
async fn dpm_with_tls(module: Module, tls: ServerTlsOptions) -> RunningDpm {
    let tls = module.server_tls(tls).unwrap();
    RunningDpm::start_with(module, free_port().await, |options| {
        options.server.tls = Some(tls);
    })
}

/// How `module` connects to `dpm-dev`.
fn options(module: &Module, tls: ClientTlsOptions) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    options.tls = Some(module.client_tls(tls).unwrap());
    let trust = module.trust().load();
    options.towards(&trust.deployment("dpm-dev").unwrap().name)
}

/// Connects to port `port` of `localhost`.
async fn connect(port: u16, options: ConnectionOptions) -> Result<Connection, String> {
    let target = Target::new("localhost", port);
    let opened = soon("a connection", Connection::open(&target, options)).await;
    opened.map_err(|error| cause(error.as_ref()))
}

/// Asks the DPM who is calling.
async fn who_am_i(connection: &Connection, module: &Module) -> Result<String, Status> {
    let identity = module
        .client_layer("dpm-dev", countersign::Transport::tls())
        .unwrap();
    let mut client = IdentityServiceClient::new(identity.layer(connection.clone()));
    let answer = soon("an answer", client.who_am_i(WhoAmIRequest {})).await?;
    Ok(answer.into_inner().identity.unwrap().id)
}
