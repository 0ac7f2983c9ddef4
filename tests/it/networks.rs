//! Networks that forget, lose and delay, and modules that find each other again.

use std::time::Duration;

use countersign::clock::{Clock as _, SystemClock};
use countersign::dpm::MonitorOptions;
use countersign::engine::EngineStatus;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::relay::Relay;
use crate::support::world::{Keys, RunningDpe, RunningDpm, free_port};

const HEALED_WITHIN: Duration = Duration::from_secs(10);

/// A DPM and a DPE with the times of a product, and the network between them.
struct World {
    dpm: RunningDpm,
    dpe: RunningDpe,
    /// From the DPE to the DPM.
    calls: Relay,
    /// From the DPM to the DPE.
    dial_backs: Relay,
    _home: TempDir,
}

impl World {
    async fn start() -> Self {
        Self::start_with(|_, _| ()).await
    }

    async fn start_with(
        change: impl FnOnce(&mut MonitorOptions, &mut countersign::dpe::Options),
    ) -> Self {
        let keys = Keys::new();
        let home = tempfile::tempdir().unwrap();
        let (calls, dial_backs) = (Relay::start().await, Relay::start().await);
        let mut monitor = MonitorOptions::default();
        let dpe =
            RunningDpe::start_with(keys.dpe_module(), calls.address, home.path(), |options| {
                options.status_checker.check_connection_interval = Duration::from_secs(5);
                options.hostname = dial_backs.address.ip().to_string();
                options.port = Some(dial_backs.address.port());
                change(&mut monitor, options);
            });
        let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
            options.monitor = monitor;
        });
        dial_backs.reroute(Some(dpe.address));
        calls.reroute(Some(dpm.address));
        dpm.engine_is(dpe.id, EngineStatus::Ready).await;
        Self {
            dpm,
            dpe,
            calls,
            dial_backs,
            _home: home,
        }
    }

    async fn stop(self) {
        self.dpe.stop().await;
        self.dpm.stop().await;
    }
}

#[tokio::test]
async fn engine_calls_again_within_10_s_after_its_flow_was_forgotten() {
    let world = World::start().await;
    let (begun, flows) = (Instant::now(), world.calls.flows());

    world.calls.forget();

    world.calls.has_flows(flows + 1).await;
    world
        .dpm
        .engine_seen_after(world.dpe.id, SystemClock.now())
        .await;
    assert!(begun.elapsed() < HEALED_WITHIN, "{:?}", begun.elapsed());
    world.stop().await;
}

#[tokio::test]
async fn engine_is_ready_within_10_s_after_the_dial_back_flow_was_forgotten() {
    let world = World::start().await;
    let begun = Instant::now();

    world.dial_backs.forget();

    let id = world.dpe.id;
    world.dpm.engine_is(id, EngineStatus::Disconnected).await;
    world.dpm.engine_is(id, EngineStatus::Ready).await;
    assert!(begun.elapsed() < HEALED_WITHIN, "{:?}", begun.elapsed());
    world.stop().await;
}

#[tokio::test]
async fn engine_is_ready_within_10_s_after_a_partition_of_60_s_heals() {
    let world = World::start().await;
    world.calls.partition();
    world.dial_backs.partition();
    let id = world.dpe.id;
    world.dpm.engine_is(id, EngineStatus::Disconnected).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let begun = Instant::now();

    world.calls.heal();
    world.dial_backs.heal();

    world.dpm.engine_is(id, EngineStatus::Ready).await;
    assert!(begun.elapsed() < HEALED_WITHIN, "{:?}", begun.elapsed());
    world.stop().await;
}

#[tokio::test]
async fn partition_in_which_every_timer_has_fired_heals_alike() {
    let world = World::start_with(|monitor, engine| {
        monitor.check_disconnected_max = Duration::from_secs(1);
        engine.status_checker.call_timeout = Duration::from_millis(300);
    })
    .await;
    world.calls.partition();
    world.dial_backs.partition();
    let (calls, dial_backs) = (world.calls.flows(), world.dial_backs.flows());
    // Each attempt of the engine has waited for its time-out, and the last ones for the longest
    // pause; the DPM's connections have ended by unanswered PINGs.
    world.calls.has_flows(calls + 6).await;
    world.dial_backs.has_flows(dial_backs + 2).await;
    let begun = Instant::now();

    world.calls.heal();
    world.dial_backs.heal();

    world.dpm.engine_is(world.dpe.id, EngineStatus::Ready).await;
    assert!(begun.elapsed() < HEALED_WITHIN, "{:?}", begun.elapsed());
    world.stop().await;
}

#[tokio::test]
async fn engine_is_ready_within_1_s_after_a_dpm_restart() {
    let keys = Keys::new();
    let home = tempfile::tempdir().unwrap();
    let mut dpm = RunningDpm::start(keys.dpm_module()).await;
    let address = dpm.address;
    let dpe = RunningDpe::start_with(keys.dpe_module(), address, home.path(), |options| {
        options.status_checker.check_connection_interval = Duration::from_secs(60);
    });
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    for round in 0..10 {
        dpm.stop().await;
        let listener = TcpListener::bind(address).await.unwrap();
        dpm = RunningDpm::start_with(keys.dpm_module(), listener, |_| ());
        let begun = Instant::now();

        dpm.engine_is(dpe.id, EngineStatus::Ready).await;

        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "round {round}: {took:?}");
    }
    dpe.stop().await;
    dpm.stop().await;
}

#[tokio::test]
async fn lost_connection_is_replaced_at_once() {
    let world = World::start_with(|_, engine| {
        engine.status_checker.check_connection_interval = Duration::from_secs(60);
    })
    .await;
    let (begun, flows) = (Instant::now(), world.calls.flows());

    world.calls.reset();

    world.calls.has_flows(flows + 1).await;
    world
        .dpm
        .engine_seen_after(world.dpe.id, SystemClock.now())
        .await;
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    world.stop().await;
}

#[tokio::test]
async fn late_heartbeat_drops_its_connection() {
    let world = World::start_with(|_, engine| {
        engine.status_checker.check_connection_interval = Duration::from_millis(50);
        engine.status_checker.call_timeout = Duration::from_millis(300);
    })
    .await;
    let (begun, flows) = (Instant::now(), world.calls.flows());

    world.calls.forget();

    world.calls.has_flows(flows + 1).await;
    // An unanswered PING would take 7 s.
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    world.stop().await;
}

#[tokio::test]
async fn late_check_keeps_its_connection() {
    let world = World::start_with(|monitor, _| {
        monitor.check_connected_interval = Duration::from_millis(50);
    })
    .await;
    let (id, flows) = (world.dpe.id, world.dial_backs.flows());

    world.dial_backs.delay(Duration::from_millis(300));
    world.dpm.engine_is(id, EngineStatus::Disconnected).await;
    world.dial_backs.delay(Duration::ZERO);

    world.dpm.engine_is(id, EngineStatus::Ready).await;
    assert_eq!(world.dial_backs.flows(), flows);
    world.stop().await;
}
