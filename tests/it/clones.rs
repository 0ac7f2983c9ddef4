//! Two processes with one engine id: a copied home, a restart, a move.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use countersign::Reason;
use countersign::engine::{EngineId, EngineStatus, Instance};
use countersign::grpc::reason_of;
use countersign::proto::registry as wire;
use tonic::Code;

use crate::support::http::request;
use crate::support::impostor::Impostor;
use crate::support::logs::Logs;
use crate::support::relay::Relay;
use crate::support::world::{
    Keys, RegistryClient, RunningDpe, RunningDpm, free_port, fresh_id, registration_of, soon,
};

fn fresh_instance() -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random).unwrap();
    Instance::from_random(random).to_string()
}

/// Registers the engine `id` at `address` as the process `instance`.
async fn register(
    client: &mut RegistryClient,
    id: EngineId,
    address: SocketAddr,
    instance: &str,
) -> Result<wire::Engine, tonic::Status> {
    let registration = wire::RegisterEngineRequest {
        instance: instance.to_owned(),
        ..registration_of(id, address)
    };
    let answer = client.register_engine(registration).await?;
    Ok(answer.into_inner().engine.unwrap())
}

fn assert_duplicate(refused: &tonic::Status) {
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert_eq!(reason_of(refused), Some(Reason::EngineDuplicate));
}

#[tokio::test]
async fn copy_of_an_engines_home_is_refused_and_the_recorded_engine_stays_ready() {
    let mut logs = Logs::start();
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let homes = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let dpe = RunningDpe::start_with(keys.dpe_module(), dpm.address, homes[0].path(), |_| ());
    let recorded = dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let [original, copy] = homes.each_ref().map(|home| home.path().join("storage"));
    fs::create_dir(&copy).unwrap();
    fs::copy(original.join("engine-id"), copy.join("engine-id")).unwrap();

    let clone = RunningDpe::start_with(keys.dpe_module(), dpm.address, homes[1].path(), |_| ());

    let line = logs.line(&["engineDuplicate", "ENGINE_DUPLICATE"]).await;
    assert_eq!(clone.id, dpe.id);
    for address in [dpe.address, clone.address] {
        assert!(line.contains(&address.port().to_string()), "{line}");
    }
    let readiness = request(clone.http, "GET", "/actuator/health/readiness").await;
    assert_eq!(readiness.status, 503);
    // It takes its own registration back only.
    clone.stop().await;
    let now = dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    assert_eq!(now.instance, recorded.instance);
    assert_eq!(now.address, recorded.address);
    assert_eq!(now.registered_at, recorded.registered_at);
    dpe.stop().await;
}

#[tokio::test]
async fn copy_is_registered_once_nothing_answers_at_the_recorded_address() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let closed = free_port().await.local_addr().unwrap();
    let elsewhere = free_port().await.local_addr().unwrap();
    let id = fresh_id();
    let [first, second] = [(), ()].map(|()| fresh_instance());
    register(&mut client, id, closed, &first).await.unwrap();

    let engine = register(&mut client, id, elsewhere, &second).await.unwrap();

    assert_eq!(engine.instance, second);
    assert_eq!(engine.status(), wire::EngineStatus::New);
}

#[tokio::test]
async fn process_that_started_again_at_the_recorded_address_is_registered_at_once() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let (id, now) = (fresh_id(), fresh_instance());
    let key = Some(keys.dpe.clone());
    let (address, _engine, _asked) =
        Impostor::serve_process(&id.to_string(), key, Some(now.clone())).await;
    // What the registry recorded before the restart.
    register(&mut client, id, address, &fresh_instance())
        .await
        .unwrap();
    dpm.reason(id, "PROOF_INVALID").await;

    register(&mut client, id, address, &now).await.unwrap();

    let engine = dpm.engine_is(id, EngineStatus::Ready).await;
    assert_eq!(engine.instance, Some(now.parse().unwrap()));
}

#[tokio::test]
async fn second_process_at_the_same_address_is_refused_while_the_first_answers_there() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    let recorded = dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    for address in [dpe.address, dpm.address] {
        for _ in 0..3 {
            let other = fresh_instance();
            let refused = register(&mut client, dpe.id, address, &other).await;
            // The registry's own port is refused before.
            if address == dpe.address {
                assert_duplicate(&refused.unwrap_err());
            } else {
                assert_eq!(
                    reason_of(&refused.unwrap_err()),
                    Some(Reason::AddressNotAllowed)
                );
            }
        }
    }

    let now = dpm.registry.find(dpe.id).await.unwrap().unwrap();
    assert_eq!(
        (now.status, now.instance),
        (EngineStatus::Ready, recorded.instance)
    );
    dpe.stop().await;
}

#[tokio::test]
async fn older_engine_without_an_instance_is_known_by_its_address() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let id = fresh_id();
    let (address, engine) = Impostor::serve(&id.to_string(), Some(keys.dpe.clone())).await;
    let elsewhere = free_port().await.local_addr().unwrap();
    register(&mut client, id, address, "").await.unwrap();
    dpm.engine_is(id, EngineStatus::Ready).await;

    let again = register(&mut client, id, address, "").await.unwrap();
    assert_eq!(again.status(), wire::EngineStatus::Ready);
    for instance in ["", &fresh_instance()] {
        let copy = register(&mut client, id, elsewhere, instance).await;
        assert_duplicate(&copy.unwrap_err());
    }

    // It moves: the process at the old address ends first.
    engine.abort();
    assert!(engine.await.unwrap_err().is_cancelled());
    let moved = register(&mut client, id, elsewhere, "").await.unwrap();
    assert_eq!(moved.address.unwrap().port, i32::from(elsewhere.port()));
}

#[tokio::test]
async fn newer_engine_is_ready_where_no_instance_is_recorded() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let id = fresh_id();
    let key = Some(keys.dpe.clone());
    let (address, _engine, _asked) =
        Impostor::serve_process(&id.to_string(), key, Some(fresh_instance())).await;

    register(&mut client, id, address, "").await.unwrap();

    dpm.engine_is(id, EngineStatus::Ready).await;
}

#[tokio::test]
async fn engine_that_finds_another_process_recorded_registers_again() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let (proxy, home) = (Relay::start().await, tempfile::tempdir().unwrap());
    let dpe = RunningDpe::start_behind(keys.dpe_module(), dpm.address, home.path(), &proxy);
    proxy.reroute(Some(dpe.address));
    let first = dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let closed = free_port().await.local_addr().unwrap();
    proxy.reroute(Some(closed));

    // Nothing answers at the recorded address, so another process is registered.
    let other = fresh_instance();
    let engine = register(&mut client, dpe.id, closed, &other).await.unwrap();
    assert_eq!(engine.instance, other);
    proxy.reroute(Some(dpe.address));

    let back = dpm.engine(dpe.id, |engine| engine.instance == first.instance);
    assert_eq!(back.await.address, first.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}

#[tokio::test]
async fn engine_calls_as_often_as_the_dpm_says() {
    let keys = Keys::new();
    let never = Duration::from_secs(3600);
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.heartbeat_interval = Some(Duration::from_millis(10));
        options.monitor.check_connected_interval = never;
    });
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |options| {
        options.status_checker.check_connection_interval = never;
    });
    let ready = dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    let seen = dpm.engine_seen_after(dpe.id, ready.last_seen_at).await;

    assert_eq!(seen.status, EngineStatus::Ready);
    dpe.stop().await;
}

#[tokio::test]
async fn engine_that_lost_its_storage_replaces_its_old_record_at_its_address() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let lost = RunningDpe::start(keys.dpe_module(), dpm.address);
    let (old, port) = (lost.id, lost.address.port());
    dpm.engine_is(old, EngineStatus::Ready).await;
    lost.kill().await;
    dpm.engine_is(old, EngineStatus::Disconnected).await;
    let home = tempfile::tempdir().unwrap();

    let new = RunningDpe::start_at(port, keys.dpe_module(), dpm.address, home.path(), |_| ());

    dpm.engine_is(new.id, EngineStatus::Ready).await;
    let left = async {
        while dpm.registry.find(old).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the old record", left).await;
    new.stop().await;
}
