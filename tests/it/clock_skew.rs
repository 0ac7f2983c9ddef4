//! Clocks that differ: measured from proofs, reported before they matter, and named in refusals
//! because of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use countersign::clock::{Clock, ManualClock};
use countersign::engine::EngineStatus;
use countersign::grpc::{AttachIdentity, Connection, ProofMode, reason_of, refusal_of};
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::testing::{self, Pair, trusted};
use countersign::{Module, Reason};
use tonic::Status;
use tower_layer::Layer as _;

use crate::support::http::get;
use crate::support::logs::Logs;
use crate::support::world::{RunningDpe, RunningDpm, channel, soon};

/// What the DPM's clock shows.
const NOW: u64 = 1_800_000_000;

/// A DPM, and a DPE whose clock is set by hand.
struct World {
    dpm: RunningDpm,
    dpe: Module,
    clock: Arc<ManualClock>,
    client: IdentityServiceClient<AttachIdentity<Connection>>,
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
        let dpm = RunningDpm::start(dpm).await;
        let identity = dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap();
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

    /// What the DPE's metric shows of the DPM's clock.
    fn metric(&self) -> f64 {
        skew(&self.dpe.metrics_text(), "dpm-dev")
    }

    /// What the DPM's metric shows of the DPE's clock.
    async fn metric_of_dpm(&self) -> f64 {
        let scraped = get(self.dpm.http, "/actuator/prometheus").await;
        skew(&scraped.body, "dpe-dev")
    }
}

/// Reads the skew of `deployment` from a module's metrics.
fn skew(text: &str, deployment: &str) -> f64 {
    let name = format!(r#"countersign_peer_clock_skew_seconds{{deployment="{deployment}"}} "#);
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn skew_is_measured_at_each_proof_and_reported_from_half_of_the_leeway_on() {
    let mut logs = Logs::start();
    let mut world = World::new(ProofMode::Handshake).await;

    world.call(0).await.unwrap();
    let in_step = world.metric();
    world.call(20).await.unwrap();
    let behind = world.metric();
    let line = logs.line(&["clockSkewed"]).await;
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
    assert!(line.contains("\"deployment\":\"dpm-dev\""), "{line}");
    assert!(line.contains("s ahead of this one. Above 30 s"), "{line}");
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
async fn proof_whose_times_alone_fail_shows_the_signed_skew() {
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
async fn refusal_because_of_times_shows_in_the_metrics_of_both_sides_until_a_call_is_accepted() {
    let mut world = World::new(ProofMode::Off).await;

    // What a token shows of its caller is the least: it lives for 300 s.
    for (ahead, of_callee, of_caller) in [(-600, -600.0, 600.0), (600, 600.0, -300.0)] {
        world.call(ahead).await.unwrap_err();

        let shown = (world.metric(), world.metric_of_dpm().await);
        let off = (shown.0 - of_callee).abs() + (shown.1 - of_caller).abs();
        assert!(off < 0.1, "{shown:?}, {ahead}");
    }
    world.call(0).await.unwrap();

    assert!(world.metric_of_dpm().await.is_nan(), "nothing is measured");
    assert!(world.metric().is_nan(), "nothing is measured");
}

#[tokio::test]
async fn token_that_was_meant_for_another_module_shows_no_clock() {
    let mut world = World::new(ProofMode::Off).await;
    world.call(0).await.unwrap();
    let other = testing::own_deployment("mmm", "mmm-dev");
    let late = Arc::new(ManualClock::at_unix(NOW - 600));
    let dpe = Module::builder(world.dpe.own())
        .trust(trusted(&other))
        .clock(late)
        .build()
        .unwrap();
    let layer = dpe
        .client_layer("mmm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = IdentityServiceClient::new(layer.layer(channel(world.dpm.address).await));

    let refused = client.who_am_i(WhoAmIRequest {}).await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::TokenExpired));
    assert!(world.metric_of_dpm().await.is_nan());
}

#[tokio::test]
async fn engine_whose_clock_is_wrong_shows_at_both_modules_until_it_is_right() {
    let Pair { dpm, dpe, .. } = testing::pair();
    let clock = Arc::new(ManualClock::at_unix(NOW + 600));
    let dpe = Module::builder(dpe.own())
        .trust(trusted(&dpm.own()))
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .build()
        .unwrap();
    let dpm = RunningDpm::start(dpm).await;
    let dpe = RunningDpe::start(dpe, dpm.address);
    let both_show = async |expected: f64| {
        let shown = async {
            loop {
                let of = async |http, name| {
                    let scraped = get(http, "/actuator/prometheus").await;
                    skew(&scraped.body, name)
                };
                let engine = of(dpm.http, "dpe-dev").await;
                let registry = of(dpe.http, "dpm-dev").await;
                if (engine - expected).abs() <= 1.0 && (registry + expected).abs() <= 1.0 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        soon("the skew at both", shown).await;
    };

    both_show(600.0).await;
    clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW));

    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    both_show(0.0).await;
}

#[tokio::test]
async fn stranger_does_not_learn_the_time() {
    let world = World::new(ProofMode::Off).await;
    let stranger = testing::pair();
    let layer = stranger
        .dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let channel = channel(world.dpm.address).await;

    let refused = IdentityServiceClient::new(layer.layer(channel))
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::KeyUnknown));
    assert_eq!(callee_time(&refused), None);
}

fn callee_time(refused: &Status) -> Option<SystemTime> {
    refusal_of(refused)?.callee_time()
}
