//! SIGTERM while a peer is connected.

use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::process::Homes;
use crate::support::world::channel;

const DEADLINE: &str = "countersign.server.shutdown-deadline=1s";

#[tokio::test(flavor = "multi_thread")]
async fn dpm_with_a_silent_connection_exits_within_the_deadline() {
    let homes = Homes::new();
    let mut dpm = homes.dpm(256, &[DEADLINE]);
    let _silent = dpm.silent(1);
    // The answer comes after the silent connection was taken.
    dpm.who_am_i(&homes).await.unwrap();

    dpm.terminate();

    let (code, took) = dpm.ends();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(1), "took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dpe_with_a_silent_connection_and_no_dpm_exits_within_the_deadline() {
    let homes = Homes::new();
    let no_dpm = "ataccama.client.connection.dpm.grpc.port=1";
    let mut dpe = homes.start("dpe", "exec", &[DEADLINE, no_dpm]);
    let _silent = dpe.silent(1);
    drop(channel(dpe.address).await);

    dpe.terminate();

    let (code, took) = dpe.ends();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(1), "took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_call_ends_with_the_deadline() {
    let homes = Homes::new();
    let mut dpm = homes.dpm(256, &[DEADLINE]);
    let mut client = HealthClient::new(channel(dpm.address).await);
    let watched = client.watch(HealthCheckRequest::default()).await;
    let _open = watched.unwrap();

    dpm.terminate();

    let (code, took) = dpm.ends();
    assert_eq!(code, Some(0));
    let between = Duration::from_millis(900)..Duration::from_secs(2);
    assert!(between.contains(&took), "took {took:?}");
    dpm.says("Stopped at the deadline with open connections");
}
