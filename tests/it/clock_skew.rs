//! Clocks that differ: measured from proofs, told before they matter, and in refusals because of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use countersign::clock::{Clock, ManualClock};
use countersign::grpc::{AttachIdentity, ProofMode, callee_time, reason_of};
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::testing::{self, Pair, trusted};
use countersign::{Module, Reason};
use tonic::Status;
use tonic::transport::Channel;
use tower_layer::Layer as _;

use crate::support::logs::Logs;
use crate::support::world::{RunningDpm, channel};

/// What the DPM's clock shows.
const NOW: u64 = 1_800_000_000;

/// A DPM, and a DPE whose clock is set by hand.
struct World {
    dpm: RunningDpm,
    dpe: Module,
    clock: Arc<ManualClock>,
    client: IdentityServiceClient<AttachIdentity<Channel>>,
}

impl World {
    async fn new(mode: ProofMode) -> Self {
        let Pair { dpm, dpe, .. } = testing::pair();
        let clock = Arc::new(ManualClock::at_unix(NOW));
        let dpe = Module::builder(dpe.own())
            .trust(trusted(&dpm.own()))
            .proof_mode(mode)
            .clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .build()
            .unwrap();
        // Nothing is counted before somebody asks for it.
        let _ = dpe.metrics();
        let dpm = RunningDpm::start(dpm).await;
        let identity = dpe.client_layer("dpm-dev").unwrap();
        let client = IdentityServiceClient::new(identity.layer(channel(dpm.address).await));
        Self {
            dpm,
            dpe,
            clock,
            client,
        }
    }

    /// Sets the DPE's clock so that the DPM's is `ahead` seconds ahead of it, and calls.
    async fn call(&mut self, ahead: i64) -> Result<(), Status> {
        let now = NOW.checked_add_signed(-ahead).unwrap();
        self.clock
            .set(SystemTime::UNIX_EPOCH + Duration::from_secs(now));
        self.client.who_am_i(WhoAmIRequest {}).await.map(drop)
    }

    /// What the DPE's metric shows.
    fn metric(&self) -> f64 {
        let text = self.dpe.metrics().render();
        let name = r#"countersign_peer_clock_skew_seconds{deployment="dpm-dev"} "#;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn skew_is_measured_at_each_proof_and_told_from_half_of_the_leeway_on() {
    let mut logs = Logs::start();
    let mut world = World::new(ProofMode::Handshake).await;

    world.call(0).await.unwrap();
    let in_step = world.metric();
    world.call(20).await.unwrap();
    let behind = world.metric();
    let told = logs.line(&["clockSkewed"]).await;
    world.call(0).await.unwrap();
    logs.line(&["clockInStep"]).await;
    world.call(-20).await.unwrap();
    let ahead = world.metric();

    for (measured, expected) in [(in_step, 0.0), (behind, 20.0), (ahead, -20.0)] {
        // A proof's time is in whole seconds.
        assert!(
            (measured - expected).abs() <= 1.0,
            "{measured}, not {expected}"
        );
    }
    assert!(told.contains("\"deployment\":\"dpm-dev\""), "{told}");
    assert!(told.contains("s ahead of this one; from 30 s on"), "{told}");
}

#[tokio::test]
async fn refusal_because_of_times_says_by_how_much_which_side_is_off() {
    let mut world = World::new(ProofMode::Off).await;

    // The DPE's clock is ahead: the DPM's is behind.
    let early = world.call(-600).await.unwrap_err();
    let late = world.call(600).await.unwrap_err();

    assert_eq!(reason_of(&early), Some(Reason::TokenNotYetValid));
    let words = "the caller's clock is at least 600 s ahead of this one";
    assert!(early.message().contains(words), "{early}");
    assert_eq!(reason_of(&late), Some(Reason::TokenExpired));
    // A token lives for 300 s.
    let words = "the caller's clock is at least 300 s behind this one";
    assert!(late.message().contains(words), "{late}");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    assert_eq!(
        (callee_time(&early), callee_time(&late)),
        (Some(time), Some(time))
    );
    drop(world.dpm);
}

#[tokio::test]
async fn proof_whose_times_alone_fail_tells_the_signed_skew() {
    let mut logs = Logs::start();
    let mut world = World::new(ProofMode::Handshake).await;

    let refused = world.call(600).await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::ProofInvalid));
    let words = "its clock is 600 s ahead of this one; check NTP on both hosts";
    assert!(refused.message().contains(words), "{refused}");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    assert_eq!(callee_time(&refused), Some(time));
    assert!((world.metric() - 600.0).abs() <= 1.0);
    logs.line(&["clockSkewed"]).await;
}

#[tokio::test]
async fn stranger_is_not_told_the_time() {
    let world = World::new(ProofMode::Off).await;
    let stranger = testing::pair();
    let layer = stranger.dpe.client_layer("dpm-dev").unwrap();
    let channel = channel(world.dpm.address).await;

    let refused = IdentityServiceClient::new(layer.layer(channel))
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::KeyUnknown));
    assert_eq!(callee_time(&refused), None);
}
