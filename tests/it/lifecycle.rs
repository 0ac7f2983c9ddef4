//! Engines and DPMs come, go and come back.

use std::sync::Arc;
use std::time::Duration;

use countersign::dpe::Registration;
use countersign::engine::EngineStatus;

use crate::support::relay::Relay;
use crate::support::world::{Keys, RunningDpe, RunningDpm, free_port, soon};

#[tokio::test]
async fn engine_that_starts_first_waits_for_the_dpm() {
    let keys = Keys::new();
    let early = free_port().await;
    let address = early.local_addr().unwrap();
    let dpe = RunningDpe::start(keys.dpe_module(), address);
    let (attempt, _) = soon("the engine's first call", early.accept())
        .await
        .unwrap();
    drop((attempt, early));
    assert_eq!(*dpe.registration.borrow(), Registration::Absent);

    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let dpm = RunningDpm::start_with(keys.dpm_module(), listener, |_| ());

    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}

#[tokio::test]
async fn restarted_dpm_gets_its_engines_back() {
    let keys = Keys::new();
    let first = RunningDpm::start(keys.dpm_module()).await;
    let address = first.address;
    let dpe = RunningDpe::start(keys.dpe_module(), address);
    first.engine_is(dpe.id, EngineStatus::Ready).await;

    first.stop().await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let second = RunningDpm::start_with(keys.dpm_module(), listener, |_| ());

    second.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}

#[tokio::test]
async fn every_start_of_an_engine_is_another_process_of_it() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let home = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();

    for _ in 0..3 {
        let dpe = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |_| ());
        let engine = dpm.engine_is(dpe.id, EngineStatus::Ready).await;
        assert!(!seen.contains(&engine.instance));
        seen.push(engine.instance);
        dpe.stop().await;
    }

    assert!(!seen.contains(&None));
}

#[tokio::test]
async fn lost_engine_is_disconnected_and_comes_back_ready_under_its_id() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |_| ());
    let (id, port) = (dpe.id, dpe.address.port());
    dpm.engine_is(id, EngineStatus::Ready).await;

    dpe.kill().await;
    let lost = dpm.engine_is(id, EngineStatus::Disconnected).await;
    assert!(lost.status_reason.is_some());

    let back = RunningDpe::start_at(port, keys.dpe_module(), dpm.address, home.path(), |_| ());
    assert_eq!(back.id, id);
    dpm.engine_is(id, EngineStatus::Ready).await;
    back.stop().await;
}

#[tokio::test]
async fn engine_at_a_new_port_replaces_its_old_address() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        // The old address will accept and say nothing.
        options.monitor.checker_timeout = Duration::from_millis(200);
    });
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |_| ());
    let id = dpe.id;
    dpm.engine_is(id, EngineStatus::Ready).await;
    // Taken, so that the next start gets another port.
    let taken = dpe.address;
    dpe.kill().await;
    let _taken = std::net::TcpListener::bind(taken).unwrap();

    let moved = RunningDpe::start_with(keys.dpe_module(), dpm.address, home.path(), |_| ());

    let port = moved.address.port();
    assert_ne!(port, taken.port());
    dpm.engine(id, |engine| {
        engine.status == EngineStatus::Ready && engine.address.port() == port
    })
    .await;
    assert_eq!(dpm.registry.list(None, 10).await.unwrap().len(), 1);
    moved.stop().await;
}

#[tokio::test]
async fn engine_sees_its_own_status() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut dpe = RunningDpe::start(keys.dpe_module(), dpm.address);

    let ready = Registration::Present(EngineStatus::Ready);
    let seen = dpe.registration.wait_for(|state| *state == ready);

    soon("READY at the engine", seen).await.unwrap();
    let registry = Arc::clone(&dpm.registry);
    let engine = registry.find(dpe.id).await.unwrap().unwrap();
    assert_eq!(engine.status, EngineStatus::Ready);
    dpe.stop().await;
}

#[tokio::test]
async fn engine_that_calls_is_checked_at_once_whatever_the_back_off() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor.check_disconnected_interval = Duration::from_secs(3600);
        options.monitor.check_disconnected_max = Duration::from_secs(3600);
    });
    let proxy = Relay::start().await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_behind(keys.dpe_module(), dpm.address, home.path(), &proxy);
    dpm.reason(dpe.id, "the connection was lost").await;

    proxy.reroute(Some(dpe.address));

    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}
