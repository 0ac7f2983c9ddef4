//! Modules end when they are asked to.

use std::net::SocketAddr;
use std::time::Duration;

use countersign::engine::EngineStatus;
use countersign::grpc::Drained;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::world::{Keys, PATIENCE, RunningDpe, RunningDpm, channel, free_port, soon};

#[tokio::test]
async fn stopped_engine_deregisters() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    let id = dpe.id;
    dpm.engine_is(id, EngineStatus::Ready).await;

    assert_eq!(dpe.stop().await, Drained::InTime);

    let gone = dpm.registry.find(id).await.unwrap().unwrap();
    assert_eq!(gone.status, EngineStatus::Inactive);
    assert_eq!(
        gone.status_reason.as_deref(),
        Some("deregistered by its owner")
    );
    assert_eq!(&*gone.owner.deployment, "dpe-dev");
}

#[tokio::test]
async fn engine_without_a_dpm_ends_all_the_same() {
    let keys = Keys::new();
    let unused = free_port().await.local_addr().unwrap();
    let dpe = RunningDpe::start(keys.dpe_module(), unused);

    assert_eq!(dpe.stop().await, Drained::InTime);
}

#[tokio::test]
async fn silent_connection_holds_a_module_for_a_moment_alone() {
    let keys = Keys::new();
    let listener = free_port().await;
    let dpm = RunningDpm::start_with(keys.dpm_module(), listener, |options| {
        options.server.shutdown_deadline = 2 * PATIENCE;
    });
    let _silent = TcpStream::connect(dpm.address).await.unwrap();
    // The answer comes after the silent connection was taken.
    drop(open_call(dpm.address).await);

    assert_eq!(dpm.stop().await, Drained::InTime);
}

#[tokio::test]
async fn open_call_does_not_hold_a_module_beyond_the_deadline() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut call = open_call(dpm.address).await;
    let begun = Instant::now();

    let how = dpm.stop().await;

    assert_eq!(how, Drained::AtDeadline);
    assert!(begun.elapsed() >= Duration::from_millis(400));
    let last = soon("the last word", call.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    let cut = soon("the cut", call.message()).await.unwrap_err();
    assert_eq!(cut.code(), Code::Unknown, "{cut}");
}

#[tokio::test]
async fn engine_deregisters_while_its_connections_drain() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |options| {
        options.server.shutdown_deadline = 2 * PATIENCE;
    });
    let id = dpe.id;
    dpm.engine_is(id, EngineStatus::Ready).await;
    let call = open_call(dpe.address).await;

    let stopping = tokio::spawn(dpe.stop());

    dpm.engine_is(id, EngineStatus::Inactive).await;
    drop(call);
    assert_eq!(stopping.await.unwrap(), Drained::InTime);
}

/// Opens a call that never ends by itself.
async fn open_call(address: SocketAddr) -> Streaming<HealthCheckResponse> {
    let mut client = HealthClient::new(channel(address).await);
    let watched = client.watch(HealthCheckRequest::default()).await;
    let mut call = watched.unwrap().into_inner();
    let first = soon("the first word", call.message()).await.unwrap();
    assert!(first.is_some());
    call
}
