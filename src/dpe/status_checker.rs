//! Keeps this engine registered with its DPM.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::iter;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tower_layer::Layer as _;

use super::refused::Refused;
use crate::engine::{
    EngineAddress, EngineConstraints, EngineId, EngineStatus, FailureKind, Instance,
};
use crate::grpc::{
    AttachIdentity, AttachIdentityLayer, ConnectError, Connection, ConnectionOptions, Module,
    Target, call_over, cause, failure_of, is_late, is_proved, up_to,
};
use crate::proto::convert::{engine_status, heartbeat_interval};
use crate::proto::registry as wire;
use crate::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use crate::telemetry::health::Setter;
use crate::telemetry::{Ledger, events};
use crate::token::Reason;

/// How an engine keeps registered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StatusCheckerOptions {
    /// Where the DPM listens.
    pub dpm: Target,
    /// Where DPMs of the same deployment listen too: the engine turns to the next one when its DPM
    /// cannot be reached or cannot serve. Default: nowhere.
    pub others: Vec<Target>,
    /// Between two heartbeats, and at most between two attempts to register. Default: 5 s.
    pub check_connection_interval: Duration,
    /// How long one call may take, connecting included. Default: 5 s.
    pub call_timeout: Duration,
    /// How to connect. Default: within 2 s, without TLS only on loopback.
    pub connection: ConnectionOptions,
    /// What an operator may do while the DPM is not there.
    pub start_hint: String,
    /// What an operator may do while another process has the engine's id.
    pub duplicate_hint: String,
}

impl StatusCheckerOptions {
    /// Takes the defaults, for a DPM at `dpm`.
    pub fn new(dpm: Target) -> Self {
        Self {
            dpm,
            others: Vec::new(),
            check_connection_interval: Duration::from_secs(5),
            call_timeout: Duration::from_secs(5),
            connection: ConnectionOptions::default(),
            start_hint: "start it with: countersign dpm run --home dpm".to_owned(),
            duplicate_hint: "a copy gets an id of its own with: countersign dpe new-id --home dpe"
                .to_owned(),
        }
    }
}

/// The engine as it registers itself.
#[derive(Clone, Debug)]
pub(super) struct Registrant {
    pub(super) id: EngineId,
    pub(super) address: EngineAddress,
    pub(super) constraints: EngineConstraints,
    pub(super) instance: Instance,
}

/// How the DPM saw this engine last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Registration {
    /// Not registered, or the DPM does not answer.
    Absent,
    /// Registered, with this status.
    Present(EngineStatus),
    /// Registered, with a status of this number that this version does not know.
    Other(i32),
}

impl Registration {
    /// Reads the status `number` of a registered engine.
    fn with(number: i32) -> Self {
        engine_status(number).map_or(Self::Other(number), Self::Present)
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("ABSENT"),
            Self::Present(status) => status.fmt(f),
            Self::Other(number) => write!(f, "UNKNOWN({number})"),
        }
    }
}

/// Registers the engine, sends heartbeats, and registers again if the DPM lost the registration.
///
/// A refusal that the DPM did not prove changes nothing: any proxy can send one. It makes the
/// engine register again, and that is proved, unless `countersign.proof.mode` is `off`; only when
/// that fails as well is the engine not registered. For the same reason it deregisters at the end
/// unless the DPM proved that there is nothing to deregister.
///
/// While it is not registered it tries with a growing pause: 100 ms, doubled up to the check
/// interval, or up to 500 ms where the DPM cannot be reached. When the connection is lost it calls
/// over another one at once, and a call that is late loses its connection. Where there are several
/// DPMs it turns to the next one when its DPM cannot be reached, is late, answers `UNAVAILABLE` or
/// does not prove its answer, and stays with the one that serves it. While another process
/// has the engine's id it tries once a minute. Of each event it logs the first, then one a minute:
/// registered, waiting and why, refused and why, not READY and why.
#[derive(Debug)]
pub struct StatusChecker {
    pub(super) engine: Registrant,
    pub(super) options: StatusCheckerOptions,
    pub(super) client: EngineRegistryServiceClient<AttachIdentity<Connection>>,
    connection: Connection,
    /// The DPM that saw the engine last.
    dpm: Target,
    identity: AttachIdentityLayer,
    pub(super) module: Module,
    pause: Duration,
    /// The DPM may have a registration, for example after a call without an answer.
    maybe_registered: bool,
    /// A heartbeat was refused, or found another process recorded. The next registration shows if the engine is still registered.
    in_doubt: bool,
    /// One line a minute of each kind, of which a DPM may choose the text.
    logged: Ledger<Logged>,
    /// A few lines a minute.
    registered: Ledger<()>,
    state: watch::Sender<Registration>,
    health: Setter,
}

impl StatusChecker {
    /// Makes a checker that calls as `identity`, which is `module`'s.
    ///
    /// # Errors
    ///
    /// If the DPM's address is invalid.
    pub(super) fn new(
        engine: Registrant,
        identity: &AttachIdentityLayer,
        module: &Module,
        options: StatusCheckerOptions,
    ) -> Result<Self, ConnectError> {
        let dpms = iter::once(&options.dpm).chain(&options.others);
        let connection = Connection::lazy_to_any(dpms, options.connection.clone())?;
        Ok(Self {
            engine,
            dpm: connection.target(),
            client: EngineRegistryServiceClient::new(identity.layer(connection.clone())),
            connection,
            identity: identity.clone(),
            health: module.health().required("engine"),
            module: module.clone(),
            pause: FIRST_PAUSE,
            maybe_registered: false,
            in_doubt: false,
            logged: Ledger::new(16, 1),
            registered: Ledger::new(1, 4),
            state: watch::Sender::new(Registration::Absent),
            options,
        })
    }

    /// Follows the registration.
    pub fn registration(&self) -> watch::Receiver<Registration> {
        self.state.subscribe()
    }

    /// Keeps the engine registered until `shutdown` completes, then deregisters it.
    ///
    /// Returns whether the DPM no longer has a registration of this engine.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = self.keep() => {}
            () = shutdown => {}
        }
        let gone = !self.maybe_registered || self.deregister().await.is_ok();
        self.state.send_replace(Registration::Absent);
        self.health.down("stopped");
        gone
    }

    async fn keep(&mut self) {
        let mut changes = self.module.trust().subscribe();
        loop {
            let pause = if self.is_registered() && !self.in_doubt {
                self.heartbeat().await
            } else {
                self.register().await
            };
            tokio::select! {
                () = sleep(pause) => {}
                // What was refused may be accepted now; a file that changes without end is no
                // reason to call without end.
                _ = changes.changed() => sleep(FIRST_PAUSE.min(pause)).await,
                // The engines of a DPM that restarts do not come back in the same moment.
                () = self.connection.ended(), if self.is_registered() => sleep(up_to(JITTER)).await,
            }
        }
    }

    fn is_registered(&self) -> bool {
        *self.state.borrow() != Registration::Absent
    }

    /// Registers; returns how long to wait before the next call.
    async fn register(&mut self) -> Duration {
        let engine = &self.engine;
        let request = wire::RegisterEngineRequest {
            engine_id: engine.id.to_string(),
            address: Some((&engine.address).into()),
            constraints: Some((&engine.constraints).into()),
            instance: engine.instance.to_string(),
            heartbeat_interval: self.options.check_connection_interval.try_into().ok(),
        };
        self.maybe_registered = true;
        let limit = self.options.call_timeout;
        let to = &self.connection;
        let asking = call_over(to, limit, request, |call| self.client.register_engine(call));
        let answered = asking.await;
        self.in_doubt = false;
        let answer = match answered {
            Ok(answer) => answer,
            Err(status) => {
                self.set_registration(Registration::Absent);
                return self.without(&status);
            }
        };
        self.log_registered();
        self.pause = FIRST_PAUSE;
        // The dial-back is on its way: the next heartbeat brings the reason why it is not READY.
        let engine = answer.engine.unwrap_or_default();
        self.set_registration(Registration::with(engine.status));
        self.interval(answer.heartbeat_interval)
    }

    fn log_registered(&mut self) {
        if let Some(suppressed) = self.registered.admit((), Instant::now()) {
            events::register(self.engine.id, self.connection.target(), suppressed);
        }
    }

    /// Returns the time to the next heartbeat, up to a tenth shorter than what the DPM named, or
    /// else the own setting is: engines that start together do not stay in step.
    fn interval(&self, answered: Option<prost_types::Duration>) -> Duration {
        let interval =
            heartbeat_interval(answered).unwrap_or(self.options.check_connection_interval);
        interval.saturating_sub(up_to(interval / 10))
    }

    /// Returns `true` if the DPM has recorded another process or address than this engine's. An
    /// older DPM does not say.
    fn is_displaced(&self, answer: &wire::HeartbeatResponse) -> bool {
        let (own, instance) = ((&self.engine.address).into(), self.engine.instance);
        answer.address.as_ref().is_some_and(|known| *known != own)
            || !answer.instance.is_empty() && answer.instance != instance.to_string()
    }

    /// Says that the engine lives; returns how long to wait before the next call.
    async fn heartbeat(&mut self) -> Duration {
        let request = wire::HeartbeatRequest {
            engine_id: self.engine.id.to_string(),
            instance: self.engine.instance.to_string(),
            heartbeat_interval: self.options.check_connection_interval.try_into().ok(),
        };
        let limit = self.options.call_timeout.min(HEARTBEAT_TIMEOUT);
        let to = &self.connection;
        match call_over(to, limit, request, |call| self.client.heartbeat(call)).await {
            Ok(answer) if self.is_displaced(&answer) => {
                self.in_doubt = true;
                Duration::ZERO
            }
            Ok(answer) => {
                let now = Registration::with(answer.status);
                // The DPMs share their records.
                if self.dpm != self.connection.target() {
                    self.log_registered();
                }
                self.set_registration(now);
                self.log_readiness(now, &answer);
                self.interval(answer.heartbeat_interval)
            }
            Err(status) => {
                // An answer that does not prove to be the DPM's.
                self.in_doubt = self.unreachable(&status).is_none() && !is_proved(&status);
                if !self.in_doubt {
                    self.set_registration(Registration::Absent);
                }
                if status.code() == Code::NotFound {
                    return Duration::ZERO;
                }
                self.without(&status)
            }
        }
    }

    /// Notifies the receivers of the registration and the module's health if it changed, or is
    /// another DPM's.
    fn set_registration(&mut self, now: Registration) {
        let dpm = self.connection.target();
        let is_elsewhere = std::mem::replace(&mut self.dpm, dpm.clone()) != dpm;
        let has_changed = self
            .state
            .send_if_modified(|state| std::mem::replace(state, now) != now);
        if !has_changed && !is_elsewhere {
            return;
        }
        match now {
            Registration::Present(_) | Registration::Other(_) => self
                .health
                .up(format!("registered at the DPM {dpm}, {now} there")),
            Registration::Absent => self.health.down(format!("not registered at the DPM {dpm}")),
        }
    }

    async fn deregister(&mut self) -> Result<(), Status> {
        let request = wire::DeregisterEngineRequest {
            engine_id: self.engine.id.to_string(),
            instance: self.engine.instance.to_string(),
        };
        let limit = self.options.call_timeout.min(DEREGISTER_TIMEOUT);
        let to = &self.connection;
        let answer = call_over(to, limit, request, |it| self.client.deregister_engine(it));
        answer.await.map(drop)
    }

    /// Says why the DPM cannot be reached; `None` if it answered.
    fn unreachable(&self, status: &Status) -> Option<String> {
        match connect_error(status) {
            Some(ConnectError::Connect(_, error)) => Some(match error.kind() {
                kind @ io::ErrorKind::ConnectionRefused => kind.to_string(),
                _ => error.to_string(),
            }),
            Some(error) => Some(cause(error)),
            None if status.source().is_some() && !is_late(status) => {
                Some(match self.connection.fault() {
                    Some(fault) => fault.in_full(),
                    None => "the connection was lost".to_owned(),
                })
            }
            None if status.code() == Code::DeadlineExceeded => Some("no answer in time".to_owned()),
            None => None,
        }
    }

    /// Reads why a call is refused: by the DPM, or here.
    fn refusal(&self, status: &Status) -> Refused {
        if let Some(here) = self.identity.not_called() {
            return Refused {
                kind: FailureKind::NotDialled,
                reason: None,
                detail: format!("not called: {here}"),
                help: TRUST_AGAIN,
            };
        }
        let mut refused = Refused::by(status, self.module.own().key_id.as_str());
        if status.code() == Code::InvalidArgument && self.engine.address.is_one_way() {
            refused.help = OLDER_DPM;
        }
        refused
    }

    /// Turns to the next DPM after a call that failed with `status`, unless this one is there and
    /// serves. Returns how long to wait before the next call.
    fn without(&mut self, status: &Status) -> Duration {
        let pause = self.not_registered(status);
        if status.code() == Code::Unavailable || !is_proved(status) {
            self.connection.turn();
        }
        pause
    }

    fn not_registered(&mut self, status: &Status) -> Duration {
        let interval = self.options.check_connection_interval;
        if let Some(cause) = self.unreachable(status) {
            let dpms = iter::once(&self.options.dpm).chain(&self.options.others);
            let dpm = dpms.map(Target::to_string).collect::<Vec<_>>().join(", ");
            let no_connection = connect_error(status);
            // Without a connection the call never reached the DPM.
            self.maybe_registered &= no_connection.is_none();
            self.health
                .down(format!("waiting for the DPM at {dpm}: {cause}"));
            let kind = Logged::Waiting(cause.clone());
            if let Some(suppressed) = self.logged.admit(kind, Instant::now()) {
                let help = match no_connection {
                    Some(ConnectError::Plaintext(_)) => "it is not dialled until this is fixed",
                    Some(ConnectError::Tls(..)) => "it is not called until this is fixed",
                    None if self.connection.fault().is_some() => {
                        "it is not called until this is fixed"
                    }
                    _ => &self.options.start_hint,
                };
                events::waiting_for_dpm(self.engine.id, &dpm, &cause, help, suppressed);
            }
            let half = self.growing(interval.min(LONGEST_UNREACHED)) / 2;
            half + up_to(half)
        } else {
            self.maybe_registered &= !is_proved(status);
            let dpm = self.connection.target();
            let refused = self.refusal(status);
            let Refused { reason, detail, .. } = &refused;
            let word = reason.map(Reason::as_str);
            if !self.in_doubt {
                let why = word.map_or_else(|| detail.clone(), |word| format!("{word}: {detail}"));
                self.health
                    .down(format!("the DPM {dpm} does not register it: {why}"));
            }
            let text = reason.is_none().then(|| detail.clone());
            let kind = Logged::Refused(refused.kind, *reason, text);
            let is_duplicate = *reason == Some(Reason::EngineDuplicate);
            if let Some(suppressed) = self.logged.admit(kind, Instant::now()) {
                let (id, address) = (self.engine.id, &self.engine.address);
                if is_duplicate {
                    let texts = (detail.as_str(), self.options.duplicate_hint.as_str());
                    events::engine_is_duplicate(id, address, &dpm, texts, suppressed);
                } else {
                    let (words, texts) = ((refused.kind, word), (detail.as_str(), refused.help));
                    events::register_refused(id, &dpm, words, texts, suppressed);
                }
            }
            if is_duplicate {
                return DUPLICATE_PAUSE;
            }
            self.growing(interval)
        }
    }

    /// Returns the pause before the next attempt; the one after that is longer, up to `most`.
    fn growing(&mut self, most: Duration) -> Duration {
        let pause = self.pause.min(most);
        self.pause = (pause * 2).min(most);
        pause
    }

    fn log_readiness(&mut self, now: Registration, answer: &wire::HeartbeatResponse) {
        if now == Registration::Present(EngineStatus::Ready) {
            return;
        }
        let failure = answer.dial_back_failure.as_ref();
        let known = failure.and_then(failure_of);
        // `status_reason` also names a kind that this version does not know.
        let detail = known
            .and(failure)
            .map_or(&answer.status_reason, |failure| &failure.detail);
        let text = match known {
            // The text of a refusal may hold numbers that change, as of seconds.
            Some((_, Some(reason))) => reason.as_str(),
            Some((_, None)) | None => detail,
        };
        let kind = Logged::NotReady(answer.status, known, text.to_owned());
        if let Some(suppressed) = self.logged.admit(kind, Instant::now()) {
            let words = known.map(|(kind, reason)| (kind, reason.map(Reason::as_str)));
            let (id, dpm) = (self.engine.id, self.connection.target());
            events::engine_not_ready(id, dpm, (&now.to_string(), detail), words, suppressed);
        }
    }
}

/// A kind of event: the same again is not logged for a minute.
#[derive(Debug, Eq, Hash, PartialEq)]
enum Logged {
    Waiting(String),
    /// The text is that of a failure without a reason: that of a refusal may hold numbers that
    /// change.
    Refused(FailureKind, Option<Reason>, Option<String>),
    NotReady(i32, Option<(FailureKind, Option<Reason>)>, String),
}

const TRUST_AGAIN: &str =
    "the DPM needs a new key; only if one was revoked by mistake, `countersign revoke --undo` here";
pub(super) const OLDER_DPM: &str = "a DPM that is older than one-way engines needs an update, or has to dial this one: `countersign.dpe.one-way=false`";
/// Between two attempts while another process has the engine's id.
const DUPLICATE_PAUSE: Duration = Duration::from_secs(60);
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Between two attempts where the DPM cannot be reached.
pub(super) const LONGEST_UNREACHED: Duration = Duration::from_millis(500);
pub(super) const JITTER: Duration = Duration::from_millis(250);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns why there was no connection.
fn connect_error(status: &Status) -> Option<&ConnectError> {
    ConnectError::find_in(status.source()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::tz::TimeZone;
    use tokio::net::TcpListener;
    use tokio::sync::{mpsc, oneshot};
    use tokio::task::JoinHandle;
    use tracing::Dispatch;
    use tracing::instrument::WithSubscriber as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::clock::SystemClock;
    use crate::grpc::refuse;
    use crate::telemetry::{Format, LogLayer, capture, levels};
    use crate::testing;

    /// A checker at work, and the lines that it logs.
    struct World {
        lines: mpsc::UnboundedReceiver<String>,
        stop: oneshot::Sender<()>,
        checker: JoinHandle<bool>,
    }

    impl World {
        fn options(dpm: Target) -> StatusCheckerOptions {
            let mut options = StatusCheckerOptions::new(dpm);
            options.check_connection_interval = Duration::from_millis(1);
            options
        }

        fn checker(dpm: Target) -> StatusChecker {
            Self::checker_with(Self::options(dpm))
        }

        fn checker_with(options: StatusCheckerOptions) -> StatusChecker {
            let pair = testing::pair();
            let engine = Registrant {
                id: EngineId::from_random([7; 16]),
                address: EngineAddress::new("localhost", 8532).unwrap(),
                constraints: EngineConstraints::default(),
                instance: Instance::from_random([8; 16]),
            };
            let identity = pair.dpe.layer_for("dpm-dev").unwrap();
            StatusChecker::new(engine, &identity, &pair.dpe, options).unwrap()
        }

        fn log() -> (Dispatch, mpsc::UnboundedReceiver<String>) {
            // Wakes tracing for subscribers of several tests at once.
            let _others = capture::subscriber(Format::Json, Arc::new(SystemClock));
            let (line, lines) = mpsc::unbounded_channel();
            let layer = LogLayer::new(Arc::new(SystemClock), TimeZone::UTC).with_output(
                Format::Console,
                // The test may be over.
                move |text| drop(line.send(text.to_owned())),
            );
            let registry = tracing_subscriber::registry().with(levels()).with(layer);
            (Dispatch::new(registry), lines)
        }

        fn start(dpm: Target) -> Self {
            let (checker, (subscriber, lines)) = (Self::checker(dpm), Self::log());
            let (stop, stopped) = oneshot::channel::<()>();
            let stopped = async { stopped.await.unwrap_or(()) };
            let run = checker.run(stopped).with_subscriber(subscriber);
            Self {
                lines,
                stop,
                checker: tokio::spawn(run),
            }
        }

        /// Stops the checker; returns the lines that are left.
        async fn stop(mut self) -> Vec<String> {
            self.stop.send(()).unwrap();
            self.checker.await.unwrap();
            let mut left = Vec::new();
            while let Ok(line) = self.lines.try_recv() {
                left.push(line);
            }
            left
        }
    }

    #[tokio::test]
    async fn missing_dpm_is_one_line_that_says_how_to_start_it() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let mut world = World::start(Target::new("localhost", port));

        let line = world.lines.recv().await.unwrap();

        let expected = format!(
            "waiting for DPM at localhost:{port} (connection refused); start it with: countersign dpm run --home dpm"
        );
        assert!(line.contains("WARN  waitingForDpm"), "{line}");
        assert!(line.contains(&expected), "{line}");
        assert_eq!(world.stop().await, [""; 0]);
    }

    #[tokio::test]
    async fn many_attempts_that_end_alike_are_one_line() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut world = World::start(Target::new("127.0.0.1", port));

        for _ in 0..20 {
            drop(listener.accept().await.unwrap());
        }
        let line = world.lines.recv().await.unwrap();

        assert!(line.contains("(the connection was lost)"), "{line}");
        drop(listener);
        // The end of the listener may have been noticed: another cause, another line.
        let left = world.stop().await;
        assert!(left.len() <= 1, "{left:?}");
        assert!(left.iter().all(|line| line.contains("refused")), "{left:?}");
    }

    #[tokio::test]
    async fn dpe_whose_refusals_alternate_is_two_lines() {
        let mut checker = World::checker(Target::new("localhost", 1));
        let (subscriber, mut lines) = World::log();
        tracing::dispatcher::with_default(&subscriber, || {
            for _ in 0..100 {
                for reason in [Reason::KeyUnknown, Reason::KeyRevoked] {
                    checker.not_registered(&refuse(reason, None));
                }
            }
        });

        let logged: Vec<_> = iter::from_fn(|| lines.try_recv().ok()).collect();

        assert_eq!(logged.len(), 2, "{logged:?}");
    }

    #[tokio::test]
    async fn engine_registers_again_where_another_process_or_address_is_recorded() {
        let checker = World::checker(Target::new("localhost", 1));
        let own = wire::HeartbeatResponse {
            address: Some((&checker.engine.address).into()),
            instance: checker.engine.instance.to_string(),
            ..wire::HeartbeatResponse::default()
        };
        let moved = EngineAddress::new("localhost", 8533).unwrap();
        for (answer, is_displaced) in [
            (own.clone(), false),
            // An older DPM, and a record of an older engine.
            (wire::HeartbeatResponse::default(), false),
            (
                wire::HeartbeatResponse {
                    instance: String::new(),
                    ..own.clone()
                },
                false,
            ),
            (
                wire::HeartbeatResponse {
                    address: Some((&moved).into()),
                    ..own.clone()
                },
                true,
            ),
            (
                wire::HeartbeatResponse {
                    instance: Instance::from_random([9; 16]).to_string(),
                    ..own
                },
                true,
            ),
        ] {
            assert_eq!(checker.is_displaced(&answer), is_displaced, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn one_way_engine_that_an_older_dpm_refuses_says_what_to_do() {
        let mut checker = World::checker(Target::new("localhost", 1));
        checker.engine.address = EngineAddress::one_way("localhost").unwrap();
        let (subscriber, mut lines) = World::log();
        let refused = Status::invalid_argument("`address`: the port is 0");

        tracing::dispatcher::with_default(&subscriber, || checker.not_registered(&refused));

        let line = lines.try_recv().unwrap();
        assert!(line.contains("ERROR registerRefused"), "{line}");
        assert!(line.contains("older than one-way engines"), "{line}");
    }

    #[tokio::test]
    async fn unavailable_dpm_gives_way_to_the_next_in_a_ring_and_one_that_is_alone_stays() {
        for (others, expected) in [(vec![], [1, 1, 1]), (vec![2, 3], [2, 3, 1])] {
            let mut options = World::options(Target::new("localhost", 1));
            let others = others
                .into_iter()
                .map(|port| Target::new("localhost", port));
            options.others = others.collect();
            let mut checker = World::checker_with(options);

            let turned = expected.map(|_| {
                checker.without(&Status::unavailable(""));
                checker.connection.target().port()
            });

            assert_eq!(turned, expected);
        }
    }

    #[tokio::test]
    async fn dpm_names_the_time_between_heartbeats_within_bounds() {
        let checker = World::checker(Target::new("localhost", 1));
        let own = checker.options.check_connection_interval;
        let named = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        for (named, expected) in [
            (None, own),
            (named(7, 0), Duration::from_secs(7)),
            (named(0, 0), FIRST_PAUSE),
            (named(i64::MAX, 0), Duration::from_secs(3600)),
            (named(-1, 0), own),
            (named(i64::MIN, i32::MIN), own),
        ] {
            let interval = checker.interval(named);
            assert!(interval <= expected, "{named:?}: {interval:?}");
            assert!(interval >= expected * 9 / 10, "{named:?}: {interval:?}");
        }
    }

    #[tokio::test]
    async fn engine_whose_id_another_process_has_is_not_ready_and_tries_once_a_minute() {
        let mut checker = World::checker(Target::new("localhost", 1));
        let (subscriber, mut lines) = World::log();
        let detail = "recorded at a.example:8532, this one advertises localhost:8532";
        let refused = refuse(Reason::EngineDuplicate, Some(detail));

        let pauses = tracing::dispatcher::with_default(&subscriber, || {
            [(); 3].map(|()| checker.not_registered(&refused))
        });

        assert_eq!(pauses, [Duration::from_secs(60); 3]);
        let health = checker.module.health().current();
        let part = health.parts().iter().find(|part| part.name == "engine");
        let part = part.unwrap();
        assert!(!part.up);
        assert!(part.detail.contains("ENGINE_DUPLICATE"), "{}", part.detail);
        let line = lines.try_recv().unwrap();
        assert!(line.contains("ERROR engineDuplicate"), "{line}");
        assert!(line.contains(detail), "{line}");
        assert!(lines.try_recv().is_err());
    }

    #[test]
    fn refusal_names_reason_key_and_help() {
        let refused = Refused::by(&refuse(Reason::KeyUnknown, None), "1iCc");

        assert_eq!(refused.kind, FailureKind::Refused);
        assert_eq!(refused.reason, Some(Reason::KeyUnknown));
        assert_eq!(
            refused.detail,
            "the token names a key that is not trusted here (this engine's key is 1iCc)"
        );
        assert!(refused.help.contains("countersign pair"), "{refused:?}");
    }

    #[test]
    fn refused_address_is_reported_with_the_rule_and_what_to_set() {
        let refused = refuse(
            Reason::AddressNotAllowed,
            Some("127.0.0.1:8532: 127.0.0.1 is loopback\n"),
        );

        let refused = Refused::by(&refused, "1iCc");

        assert_eq!(refused.reason, Some(Reason::AddressNotAllowed));
        assert_eq!(
            refused.detail,
            r"the advertised address may not be dialled: 127.0.0.1:8532: 127.0.0.1 is loopback\u{a} (this engine's key is 1iCc)"
        );
        assert!(
            refused
                .help
                .contains("`ataccama.one.dpe.service.hostname` and `.port`"),
            "{refused:?}"
        );
    }

    #[test]
    fn clock_that_is_ahead_is_reported_by_how_much() {
        let detail = "`iat` is 600 s in the future, leeway 30 s; check NTP on both hosts";

        let refused = Refused::by(&refuse(Reason::TokenNotYetValid, Some(detail)), "1iCc");

        assert!(refused.detail.contains(detail), "{refused:?}");
    }

    #[test]
    fn reply_that_is_refused_here_is_of_another_kind_than_a_refused_call() {
        for (reason, kind) in [
            (Reason::KeyRevoked, FailureKind::Refused),
            (Reason::ProofMissing, FailureKind::NotProved),
            (Reason::ProofInvalid, FailureKind::NotProved),
        ] {
            let refused = Refused::by(&refuse(reason, None), "1iCc");

            assert_eq!(refused.kind, kind, "{reason}");
        }
    }

    #[test]
    fn a_status_of_a_newer_dpm_is_not_called_new() {
        assert_eq!(Registration::with(9).to_string(), "UNKNOWN(9)");
        assert_eq!(Registration::with(0).to_string(), "UNKNOWN(0)");
        assert_eq!(Registration::with(1).to_string(), "NEW");
    }

    #[test]
    fn other_answers_are_shown_escaped() {
        let refused = Refused::by(&Status::resource_exhausted("full\n\u{1b}[2J"), "1iCc");

        assert_eq!(refused.reason, None);
        assert_eq!(refused.detail, r"RESOURCE_EXHAUSTED: full\u{a}\u{1b}[2J");
    }
}
