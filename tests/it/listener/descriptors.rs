//! File descriptors run short.

use std::time::Duration;

use countersign::Module;
use countersign::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use countersign::trust::OwnDeployment;
use tokio::time::Instant;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_layer::Layer as _;

use super::process::{Homes, Process};
use crate::support::impostor::Impostor;
use crate::support::world::{channel, fresh_id, registration_of};

/// A valid call is answered within this time, whatever else is connected.
const PROMPT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn hundred_silent_connections_under_64_descriptors_keep_no_caller_out() {
    let homes = Homes::new();
    let dpm = homes.dpm(64, &[]);
    let _silent = dpm.silent(100);
    let begun = Instant::now();

    let caller = dpm.who_am_i(&homes).await.unwrap();

    let took = begun.elapsed();
    assert_eq!(caller, "dpe-dev");
    assert!(took < PROMPT, "took {took:?}");
    dpm.idles();
    let crowded = dpm.said();
    let crowded = crowded
        .iter()
        .filter(|line| line.contains("listenerCrowded"));
    assert_eq!(crowded.count(), 1);
    let calm = dpm.says(" listenerCalm ");
    assert!(calm.contains("closedConnections=69"), "{calm}");
}

#[tokio::test(flavor = "multi_thread")]
async fn storm_of_400_silent_connections_under_256_descriptors_keeps_no_caller_out() {
    let homes = Homes::new();
    let dpm = homes.dpm(256, &[]);
    let _silent = dpm.silent(400);
    let begun = Instant::now();

    let caller = dpm.who_am_i(&homes).await.unwrap();

    let took = begun.elapsed();
    assert_eq!(caller, "dpe-dev");
    assert!(took < PROMPT, "took {took:?}");
    dpm.idles();
    let crowded = dpm.says(" listenerCrowded ");
    assert!(
        crowded.contains("128 connections from one address"),
        "{crowded}"
    );
}

/// The limit is lowered behind the listener's back, so that accepting itself fails.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_give_way_where_accepting_fails() {
    let homes = Homes::new();
    let dpm = homes.dpm(256, &[]);
    let _heard = heard(&dpm).await;
    dpm.limit_descriptors(dpm.descriptors() + 10);
    let _silent = dpm.silent(100);
    let begun = Instant::now();

    let caller = dpm.who_am_i(&homes).await.unwrap();

    let took = begun.elapsed();
    assert_eq!(caller, "dpe-dev");
    assert!(took < PROMPT, "took {took:?}");
    dpm.idles();
    let crowded = dpm.says(" listenerCrowded ");
    assert!(crowded.contains("Too many open files"), "{crowded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepting_that_fails_with_no_connection_to_close_uses_no_processor_and_recovers() {
    let homes = Homes::new();
    let dpm = homes.dpm(256, &[]);
    let _heard = heard(&dpm).await;
    dpm.limit_descriptors(dpm.descriptors());
    let waiting = dpm.silent(1);
    dpm.says("Too many open files");

    dpm.idles();

    dpm.limit_descriptors(256);
    assert_eq!(dpm.who_am_i(&homes).await.unwrap(), "dpe-dev");
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn dpm_with_more_engines_than_descriptors_serves_callers_and_takes_a_revocation() {
    let homes = Homes::new();
    let dpm = homes.dpm(
        128,
        &["countersign.registry.max-new-engines-per-second=1000"],
    );
    let module = Module::load(homes.path().join("dpe")).unwrap();
    let identity = module
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let channel = identity.layer(channel(dpm.address).await);
    let mut client = EngineRegistryServiceClient::new(channel);
    for _ in 0..150 {
        let (id, key) = (fresh_id(), OwnDeployment::clone(&module.own()));
        let (address, _engine) = Impostor::serve(&id.to_string(), Some(key)).await;
        let registration = registration_of(id, address);
        client.register_engine(registration).await.unwrap();
    }
    for _ in 0..150 {
        let line = dpm.says(" newStatus=");
        assert!(line.contains("newStatus=READY"), "{line}");
    }

    let used = dpm.descriptors();
    for _ in 0..20 {
        assert_eq!(dpm.who_am_i(&homes).await.unwrap(), "dpe-dev");
    }
    let failed = dpm.said();
    homes.revoke("dpe-dev");
    dpm.says(" configReloaded ");
    let left = dpm.says(" newStatus=");

    assert!(used < 96, "{used}");
    assert!(left.contains("newStatus=DISCONNECTED"), "{left}");
    assert_eq!(failed, [""; 0]);
}

/// Opens a connection that has sent a request; the listener runs by then.
async fn heard(dpm: &Process) -> countersign::grpc::Connection {
    let channel = channel(dpm.address).await;
    let mut client = HealthClient::new(channel.clone());
    client.check(HealthCheckRequest::default()).await.unwrap();
    channel
}
