//! Networks that forget, lose and delay, and modules that find each other again.

use std::io::ErrorKind;
use std::time::Duration;

use countersign::clock::{Clock as _, SystemClock};
use countersign::dpe::{self, Dpe, StatusCheckerOptions};
use countersign::dpm::MonitorOptions;
use countersign::engine::EngineStatus;
use countersign::grpc::{Connection, ConnectionOptions, Target};
use countersign::storage::Storage;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::support::middlebox::Middlebox;
use crate::support::relay::Relay;
use crate::support::world::{Keys, RunningDpe, RunningDpm, free_port, soon};

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

    async fn start_with(change: impl FnOnce(&mut MonitorOptions, &mut dpe::Options)) -> Self {
        Self::start_at(Duration::ZERO, change).await
    }

    /// Starts them at such a distance for dial-backs.
    async fn start_at(
        distance: Duration,
        change: impl FnOnce(&mut MonitorOptions, &mut dpe::Options),
    ) -> Self {
        let keys = Keys::new();
        let home = tempfile::tempdir().unwrap();
        let (calls, dial_backs) = (Relay::start().await, Relay::start().await);
        dial_backs.delay(distance);
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
async fn late_checks_keep_their_connection_and_the_engine_ready() {
    let world = World::start_with(|monitor, _| {
        monitor.check_connected_interval = Duration::from_millis(50);
        monitor.check_failures = 100;
    })
    .await;
    let before = Middlebox::before(world.dpe.address, |_, _| ()).await;
    let checks = || before.seen.lock().unwrap().len();
    let answered = async |count| {
        while checks() < count {
            tokio::task::yield_now().await;
        }
    };
    world.dial_backs.reroute(Some(before.address));
    soon("a check", answered(2)).await;
    let flows = world.dial_backs.flows();

    world.dial_backs.delay(Duration::from_millis(300));
    // Each is sent when the one before was late.
    soon("late checks", answered(checks() + 5)).await;
    world.dial_backs.delay(Duration::ZERO);

    let id = world.dpe.id;
    let seen = world.dpm.engine_seen_after(id, SystemClock.now()).await;
    assert_eq!(seen.status, EngineStatus::Ready);
    let written = world.dpm.written.borrow().clone();
    assert!(
        !written.contains(&EngineStatus::Disconnected),
        "{written:?}"
    );
    assert_eq!(world.dial_backs.flows(), flows);
    world.stop().await;
}

#[tokio::test]
async fn engine_at_a_round_trip_of_300_ms_becomes_ready_and_stays_it() {
    let world = World::start_at(Duration::from_millis(150), |monitor, _| {
        monitor.check_connected_interval = Duration::from_millis(50);
    })
    .await;
    let flows = world.dial_backs.flows();

    for _ in 0..5 {
        let (id, now) = (world.dpe.id, SystemClock.now());
        let engine = world.dpm.engine_seen_after(id, now).await;
        assert_eq!(engine.status, EngineStatus::Ready);
    }

    assert_eq!(world.dial_backs.flows(), flows);
    world.stop().await;
}

#[tokio::test]
async fn engine_whose_way_grows_longer_is_ready_again_over_another_connection() {
    let world = World::start_with(|monitor, _| {
        monitor.check_connected_interval = Duration::from_millis(50);
    })
    .await;
    let (id, flows) = (world.dpe.id, world.dial_backs.flows());

    world.dial_backs.delay(Duration::from_millis(300));
    let late = world.dpm.engine_is(id, EngineStatus::Disconnected).await;
    world.dpm.engine_is(id, EngineStatus::Ready).await;

    let reason = late.status_reason.as_deref().unwrap();
    let named = "within 200ms beyond the round trip";
    assert!(reason.contains(named), "{reason}");
    assert_eq!(world.dial_backs.flows(), flows + 1);
    world.stop().await;
}

/// The other end of a connection, frame by frame, in a test whose clock is paused.
struct Peer {
    stream: TcpStream,
    /// What was read and not looked at yet.
    read: Vec<u8>,
    _connection: Connection,
    busy: AbortHandle,
}

/// A frame of HTTP/2.
struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

const PING: u8 = 6;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

impl Peer {
    /// Has a module connect with `options`, and greets it.
    async fn of(options: ConnectionOptions) -> Self {
        let busy = busy();
        let listener = free_port().await;
        let target = Target::new("127.0.0.1", listener.local_addr().unwrap().port());
        let connection = Connection::open(&target, options).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let mut peer = Self {
            stream,
            read: Vec::new(),
            _connection: connection,
            busy,
        };
        peer.send(SETTINGS, 0, &[]).await;
        // The settings have arrived once they are acknowledged.
        loop {
            let frame = peer.frame().await.unwrap();
            if (frame.kind, frame.flags) == (SETTINGS, ACK) {
                return peer;
            }
        }
    }

    /// Sends a frame, and lets it arrive.
    async fn send(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).unwrap();
        let head = [0, 0, length, kind, flags, 0, 0, 0, 0];
        let frame = [&head, payload].concat();
        self.stream.write_all(&frame).await.unwrap();
        pass(Duration::ZERO).await;
    }

    /// Takes the next frame of what was read, if it is there whole.
    fn take(&mut self) -> Option<Frame> {
        let (head, rest) = self.read.split_first_chunk::<9>()?;
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            payload: rest.get(..length)?.to_vec(),
        };
        self.read.drain(..9 + length);
        Some(frame)
    }

    /// Awaits the next frame, or the end.
    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Passes the time, after which nothing has come and the connection is open.
    async fn is_silent_for(&mut self, time: Duration, when: &str) {
        pass(time).await;
        let read = self.stream.try_read_buf(&mut self.read);
        let nothing = read
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(nothing, "{when}: {read:?}: {:?}", self.read);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.busy.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn modules_ping_after_4_s_without_a_frame_and_wait_3_s_for_the_answer() {
    let engines = StatusCheckerOptions::new(Target::new("127.0.0.1", 8531)).connection;
    let registrys = MonitorOptions::default().connection;
    let (almost, little) = (Duration::from_millis(3_900), Duration::from_millis(200));
    for options in [engines, registrys] {
        let mut peer = Peer::of(options).await;
        for _ in 0..3 {
            peer.is_silent_for(almost, "before a PING").await;
            tokio::time::advance(little).await;

            let ping = peer.frame().await.unwrap();
            assert_eq!((ping.kind, ping.flags), (PING, 0));

            peer.send(PING, ACK, &ping.payload).await;
        }
        peer.is_silent_for(almost, "before the last PING").await;
        tokio::time::advance(little).await;
        assert_eq!(peer.frame().await.unwrap().kind, PING);

        peer.is_silent_for(Duration::from_millis(2_700), "before the end")
            .await;
        tokio::time::advance(little * 2).await;
        while let Some(frame) = peer.frame().await {
            assert_ne!(frame.kind, PING, "a second PING before the answer");
        }
    }
}

/// Keeps the runtime busy: an idle one would put a paused clock forward by itself.
fn busy() -> AbortHandle {
    let task = tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    task.abort_handle()
}

/// Passes the time, and lets everything happen that is due.
async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    for _ in 0..300 {
        tokio::task::yield_now().await;
    }
}

/// Passes the time until `reached`; returns how long it took.
async fn passed_until(what: &str, reached: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        pass(Duration::from_millis(50)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn heartbeat_that_is_not_answered_for_3_s_drops_its_connection() {
    let busy = busy();
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor = MonitorOptions::default();
    });
    let between = Middlebox::before(dpm.address, |_, _| ()).await;
    let calls = Relay::to(between.address).await;
    let heartbeats = || {
        let seen = between.seen.lock().unwrap();
        let paths = seen.iter().map(|head| head.uri.path());
        paths.filter(|path| path.ends_with("/Heartbeat")).count()
    };
    let home = tempfile::tempdir().unwrap();
    let target = Target::new("127.0.0.1", calls.address.port());
    let mut options = dpe::Options::new(StatusCheckerOptions::new(target));
    options.status_checker.check_connection_interval = Duration::from_secs(1);
    let storage = Storage::lock(home.path()).unwrap();
    let engine = Dpe::new(keys.dpe_module(), storage, free_port().await, options).unwrap();
    let engine = tokio::spawn(engine.run(std::future::pending()));
    passed_until("two heartbeats", || heartbeats() >= 2).await;
    let sent = heartbeats();
    passed_until("another heartbeat", || heartbeats() > sent).await;
    let flows = calls.flows();

    calls.forget();
    let took = passed_until("another flow", || calls.flows() > flows).await;

    // The first that is lost is sent after 1 s. An unanswered PING would take 7 s.
    let about = Duration::from_millis(3_800)..Duration::from_millis(4_600);
    assert!(about.contains(&took), "{took:?}");
    engine.abort();
    busy.abort();
    dpm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn partition_of_an_hour_heals_within_10_s_with_the_times_of_a_product() {
    let busy = busy();
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor = MonitorOptions::default();
    });
    let (calls, dial_backs) = (Relay::to(dpm.address).await, Relay::start().await);
    let home = tempfile::tempdir().unwrap();
    let target = Target::new("127.0.0.1", calls.address.port());
    let mut options = dpe::Options::new(StatusCheckerOptions::new(target));
    options.hostname = dial_backs.address.ip().to_string();
    options.port = Some(dial_backs.address.port());
    let storage = Storage::lock(home.path()).unwrap();
    let engine = Dpe::new(keys.dpe_module(), storage, free_port().await, options).unwrap();
    let id = engine.engine_id();
    dial_backs.reroute(Some(engine.address()));
    let engine = tokio::spawn(engine.run(std::future::pending()));
    let last = || dpm.written.borrow().last().copied();
    passed_until("READY", || last() == Some(EngineStatus::Ready)).await;

    calls.partition();
    dial_backs.partition();
    // The DPM's longest pause between two checks is 10 min.
    for _ in 0..600 {
        pass(Duration::from_secs(6)).await;
    }
    assert_eq!(last(), Some(EngineStatus::Disconnected));
    calls.heal();
    dial_backs.heal();

    let took = passed_until("READY again", || last() == Some(EngineStatus::Ready)).await;
    assert!(took < HEALED_WITHIN, "{took:?}");
    assert!(dpm.registry.find(id).await.unwrap().is_some());
    engine.abort();
    busy.abort();
    dpm.stop().await;
}
