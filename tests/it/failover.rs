//! An engine with several DPMs that share one key.

use std::time::Duration;

use countersign::engine::EngineStatus;
use countersign::grpc::Target;
use countersign::testing::own_deployment;

use crate::support::relay::Relay;
use crate::support::world::{Keys, RunningDpe, RunningDpm, module};

#[tokio::test]
async fn engine_whose_dpm_hangs_turns_to_the_next_one_and_stays_there() {
    let keys = Keys::new();
    let first = RunningDpm::start(keys.dpm_module()).await;
    let second = RunningDpm::start(keys.dpm_module()).await;
    let network = Relay::to(first.address).await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_with(keys.dpe_module(), network.address, home.path(), |options| {
        let other = Target::new("127.0.0.1", second.address.port());
        options.status_checker.others = vec![other];
        options.status_checker.call_timeout = Duration::from_millis(500);
    });
    first.engine_is(dpe.id, EngineStatus::Ready).await;
    assert_eq!(second.registry.find(dpe.id).await.unwrap(), None);

    network.partition();

    let engine = second.engine_is(dpe.id, EngineStatus::Ready).await;
    network.heal();
    let flows = network.flows();
    second
        .engine_seen_after(dpe.id, engine.last_seen_at + Duration::from_millis(200))
        .await;
    assert_eq!(network.flows(), flows);
    let id = dpe.id;
    dpe.stop().await;
    second.engine_is(id, EngineStatus::Inactive).await;
}

#[tokio::test]
async fn engine_turns_away_from_a_server_that_does_not_prove_to_be_its_dpm() {
    let keys = Keys::new();
    let other = own_deployment("dpm", "dpm-dev");
    let stranger = RunningDpm::start(module(&other, &[&keys.dpe])).await;
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let home = tempfile::tempdir().unwrap();

    let dpe = RunningDpe::start_with(
        keys.dpe_module(),
        stranger.address,
        home.path(),
        |options| {
            let other = Target::new("127.0.0.1", dpm.address.port());
            options.status_checker.others = vec![other];
        },
    );

    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}
