//! One dial-back: is this the engine that it says it is?

use std::error::Error as _;
use std::pin::pin;
use std::ptr;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};
use tower_layer::Layer as _;

use super::dialer::Dialer;
use super::failures::{
    FEW_DESCRIPTORS, has_no_descriptor, no_connection, no_tls, not_dialled, not_proved, refused,
};
use super::lanes::Place;
use super::options::MonitorOptions;
use super::pulse::Pulse;
use super::streams::{Stream, Streams};
use crate::engine::{DialBackFailure, Engine, EngineAddress, EngineStatus, FailureKind};
use crate::grpc::{
    AttachIdentityLayer, Connection, Module, call, code_name, is_late, refusal_of, up_to,
};
use crate::jose::Fingerprint;
use crate::proto::engine::CheckStatusRequest;
use crate::proto::engine::engine_service_client::EngineServiceClient;
use crate::registry::{AddressRules, CheckOutcome, EngineRegistry};
use crate::token::Reason;
use crate::token::proof::EngineClaim;
use crate::trust::{Deployment, KeySet, OwnDeployment};

/// What all checks share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) module: Module,
    pub(super) registry: Arc<EngineRegistry>,
    pub(super) dialer: Dialer,
    pub(super) options: MonitorOptions,
    /// How late this process runs its own tasks.
    pub(super) pulse: Arc<Pulse>,
    /// Checks under way over connections that are open.
    pub(super) checking: Semaphore,
    /// Says that an engine without a task is due before all others.
    pub(super) due_earlier: Notify,
    /// Where one-way engines are asked.
    pub(super) streams: Arc<Streams>,
}

/// So many times in a row what was not heard may count for nothing: a machine that is always late
/// still finds out.
pub(super) const MOST_VOIDS: u32 = 5;

/// Dials one engine back, over a connection that it keeps between checks.
#[derive(Debug)]
pub(super) struct Checker {
    context: Arc<Context>,
    link: Option<Link>,
    /// The stream over which a one-way engine was asked last.
    stream: Option<Stream>,
    /// How many checks in a row have failed, of the engine as it was registered then.
    pub(super) failures: u32,
    pub(super) registered_at: Option<SystemTime>,
    /// How many checks in a row this process was too late to judge.
    voids: u32,
    /// Whether the last check was not made, for want of file descriptors.
    is_postponed: bool,
    /// Its owner as it was when the engine proved itself last.
    pub(super) vouched: Option<Arc<Deployment>>,
}

/// A connection to an engine, and what was proved on it.
#[derive(Debug)]
struct Link {
    route: Route,
    identity: AttachIdentityLayer,
    connection: Connection,
    proved: Option<Proved>,
    /// The shortest time in which it answered. The way there and back is in it.
    round_trip: Option<Duration>,
    /// Whether the connection has TLS.
    has_tls: bool,
    /// What allows it to be kept.
    kept: Option<OwnedSemaphorePermit>,
}

/// What a connection was made for. If any of it changes, the engine is dialled again.
#[derive(Debug, Eq, PartialEq)]
struct Route {
    address: EngineAddress,
    deployment: Arc<str>,
    /// What the connection's certificate is compared with.
    tls_pins: Vec<Fingerprint>,
    /// What the connection's address is judged by.
    rules: AddressRules,
}

/// What an engine's proof was given for. If any of it changes, the engine has to prove itself
/// again.
#[derive(Clone, Debug)]
struct Proved {
    /// How many connections had been opened.
    opened: u64,
    /// Whose engine it is, and who asked.
    parties: (Arc<Deployment>, Weak<OwnDeployment>),
    /// Until when it holds.
    until: Instant,
}

impl Checker {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            link: None,
            stream: None,
            failures: 0,
            registered_at: None,
            voids: 0,
            is_postponed: false,
            vouched: None,
        }
    }

    /// Dials `engine` back, or asks it over its stream; returns how that ended, unless this process was itself too late to say.
    ///
    /// Asks for the proof on the way to READY, on every new connection and when the last proof is
    /// old. An answer without proof counts only on the connection that was proved. What needs a
    /// connection waits for its deployment's turn to dial, and for no other call.
    pub(super) async fn check(&mut self, engine: &Engine) -> Option<CheckOutcome> {
        let began = Instant::now();
        if self.registered_at.replace(engine.registered_at) != Some(engine.registered_at) {
            self.failures = 0;
        }
        let failure = match self.attempt(engine).await {
            Ok(outcome) => {
                (self.failures, self.voids) = (0, 0);
                return Some(outcome);
            }
            Err(failure) => failure,
        };
        let Context { options, pulse, .. } = &*self.context;
        let is_late = failure.kind == FailureKind::TimedOut;
        let is_slow = is_late || began.elapsed() >= options.connection.connect_timeout;
        let is_void = is_slow && failure.kind != FailureKind::NotDialled;
        if is_void && self.voids < MOST_VOIDS && pulse.was_late_since(began) {
            self.voids += 1;
            return None;
        }
        self.voids = 0;
        if std::mem::take(&mut self.is_postponed) {
            let is_ready = engine.status == EngineStatus::Ready;
            return (!is_ready).then_some(CheckOutcome::Failed(failure));
        }
        self.failures = self.failures.saturating_add(1);
        // Whatever answered, the next check begins with a connection and a proof of its own; that
        // nothing answered in time says little of the connection.
        if !is_late || self.failures.is_multiple_of(options.check_failures) {
            self.link = None;
            if let Some(stream) = self.stream.take() {
                stream.cut(None);
            }
        }
        Some(CheckOutcome::Failed(failure))
    }

    /// Returns `true` if a READY `engine` is lost by `failure`, the last check's: enough have failed
    /// in a row, or it is not the network's.
    pub(super) fn is_final(&self, failure: &DialBackFailure, engine: &Engine) -> bool {
        match failure.kind {
            _ if self.failures >= self.context.options.check_failures => true,
            FailureKind::NotDialled => true,
            // The network may be at fault.
            FailureKind::TimedOut | FailureKind::NotReached | FailureKind::ConnectionLost => false,
            _ => {
                let trust = self.context.module.trust().load();
                let owner = trust.deployment(&engine.owner.deployment);
                owner.map(Arc::as_ptr) != self.vouched.as_ref().map(Arc::as_ptr)
            }
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.is_some() || self.stream.is_some()
    }

    /// Completes when the connection to the engine, or its stream, has ended; never if it has none.
    pub(super) async fn ended(&self) {
        match (&self.link, &self.stream) {
            (Some(link), _) => link.connection.ended().await,
            (None, Some(stream)) => stream.ended().await,
            (None, None) => std::future::pending().await,
        }
    }

    async fn attempt(&mut self, engine: &Engine) -> Result<CheckOutcome, DialBackFailure> {
        let context = Arc::clone(&self.context);
        let trust = context.module.trust().load();
        let owner = check_owner(&trust, engine, &context.module)?;
        if engine.address.is_one_way() {
            self.link = None;
            let means = (&context.module, &context.options, &context.checking);
            let is_awaited = self.failures == 0;
            let asked = context.streams.ask(engine, &owner, means, is_awaited);
            let (stream, proved) = asked.await;
            self.stream = stream;
            proved?;
            self.vouched = Some(owner);
            return Ok(CheckOutcome::Proved);
        }
        self.stream = None;
        let parties = (Arc::clone(&owner), Arc::clone(trust.own()));
        let route = self.route(engine, &owner);
        let link = self.link.take();
        self.link = link.filter(|link| link.route == route && link.connection.is_open());
        if let Some(link) = &mut self.link
            && engine.status == EngineStatus::Ready
            && link.is_proved(&parties)
        {
            let _place = context.checking.acquire().await;
            let opened = link.connection.opened();
            let took = link.call(engine, &link.identity, &context).await?;
            link.answered_within(took);
            // Only the proved connection may vouch: a reconnect in between is proved below.
            if link.connection.opened() == opened {
                return Ok(CheckOutcome::Alive);
            }
        }
        if self.link.is_some() {
            let _place = context.checking.acquire().await;
            return self.prove(engine, parties).await;
        }
        let outcome = self.dial(engine, parties).await;
        if let Some(link) = &mut self.link {
            link.kept = Arc::clone(&context.dialer.kept).try_acquire_owned().ok();
            // Beyond what may be kept, each check has a connection of its own.
            self.link.take_if(|link| link.kept.is_none());
        }
        outcome
    }

    /// Dials `engine` in its deployment's turn, and has it prove itself.
    async fn dial(
        &mut self,
        engine: &Engine,
        parties: (Arc<Deployment>, Arc<OwnDeployment>),
    ) -> Result<CheckOutcome, DialBackFailure> {
        let context = Arc::clone(&self.context);
        let (lanes, deployment) = (&context.dialer.dialling, &engine.owner.deployment);
        let is_retry = engine.status != EngineStatus::Ready && self.failures > 0;
        let mut place = lanes.take(deployment, is_retry).await;
        let mut passing = self.pass(&context).await?;
        if !is_retry {
            {
                // Who answers is done by then. The rest dials on as retries do.
                let patience = context.options.checker_timeout + PATIENCE;
                let mut proving = pin!(self.prove(engine, parties.clone()));
                if let Ok(done) = timeout(patience, &mut proving).await {
                    return done;
                }
                if place.as_mut().is_some_and(Place::is_now_a_retrys) {
                    return proving.await;
                }
            }
            // What waits for its turn holds nothing that others need.
            drop((place, passing));
            place = lanes.take(deployment, true).await;
            passing = self.pass(&context).await?;
        }
        let done = self.prove(engine, parties).await;
        drop((place, passing));
        done
    }

    /// Waits until there is a file descriptor for one more connection.
    async fn pass<'a>(
        &mut self,
        context: &'a Context,
    ) -> Result<Option<SemaphorePermit<'a>>, DialBackFailure> {
        let connect_timeout = context.options.connection.connect_timeout;
        let passing = timeout(connect_timeout, context.dialer.passing.acquire()).await;
        let passed = passing.map_err(|_elapsed| {
            self.is_postponed = true;
            not_dialled(FEW_DESCRIPTORS)
        })?;
        Ok(passed.ok())
    }

    /// Has `engine` prove itself, over its connection or a new one.
    async fn prove(
        &mut self,
        engine: &Engine,
        parties: (Arc<Deployment>, Arc<OwnDeployment>),
    ) -> Result<CheckOutcome, DialBackFailure> {
        let context = Arc::clone(&self.context);
        let link = self.link(engine, &parties.0).await?;
        let opened = link.connection.opened();
        let claim = EngineClaim::new(engine.id, &engine.address, engine.instance);
        let verifier = context.module.proof_verifier();
        let proving = link.identity.require_proof(verifier, Some(claim));
        let took = link.call(engine, &proving, &context).await?;
        link.answered_within(took);
        let vouched = Arc::clone(&parties.0);
        let interval = context.options.proof_interval;
        link.proved = Some(Proved {
            opened,
            // A replaced private key is not kept in memory for the next check.
            parties: (parties.0, Arc::downgrade(&parties.1)),
            until: Instant::now() + interval.saturating_sub(up_to(interval / 10)),
        });
        self.vouched = Some(vouched);
        Ok(CheckOutcome::Proved)
    }

    fn route(&self, engine: &Engine, owner: &Deployment) -> Route {
        let deployment = Arc::clone(&engine.owner.deployment);
        Route {
            address: engine.address.clone(),
            tls_pins: owner.tls_pins.clone(),
            rules: self.context.dialer.policy.rules.rules_of(&deployment),
            deployment,
        }
    }

    /// Returns the link to `engine`, connecting if it has no link to its address.
    async fn link(
        &mut self,
        engine: &Engine,
        owner: &Deployment,
    ) -> Result<&mut Link, DialBackFailure> {
        // If the rules change from here on, it is checked again.
        let route = self.route(engine, owner);
        if let Some(link) = self.link.take().filter(|link| link.route == route) {
            return Ok(self.link.insert(link));
        }
        let Context { module, dialer, .. } = &*self.context;
        let layer = module.layer_for(&route.deployment);
        let identity = layer.map_err(|error| not_dialled(error.to_string()))?;
        let connection = dialer.dial(engine, &owner.name).await;
        if connection.as_ref().is_err_and(has_no_descriptor) {
            self.is_postponed = true;
            return Err(not_dialled(FEW_DESCRIPTORS));
        }
        Ok(self.link.insert(Link {
            route,
            identity,
            connection: connection.map_err(|error| no_connection(&error, engine))?,
            proved: None,
            round_trip: None,
            has_tls: dialer.connection.tls.is_some(),
            kept: None,
        }))
    }
}

impl Link {
    fn is_proved(&self, (owner, own): &(Arc<Deployment>, Arc<OwnDeployment>)) -> bool {
        self.proved.as_ref().is_some_and(|proved| {
            proved.opened == self.connection.opened()
                && Arc::ptr_eq(&proved.parties.0, owner)
                && ptr::eq(proved.parties.1.as_ptr(), Arc::as_ptr(own))
                && Instant::now() < proved.until
        })
    }

    fn answered_within(&mut self, took: Duration) {
        self.round_trip = self.round_trip.map_or(took, |least| least.min(took)).into();
    }

    /// Asks the engine for its id; returns how long the answer took.
    ///
    /// The engine's own time counts beyond the round trip. Until a connection has answered once,
    /// that may take as long as connecting: a proxy on the way may have accepted it.
    ///
    /// A failure quotes nothing that the far side sent: its text reaches the caller who chose the
    /// address.
    async fn call(
        &self,
        engine: &Engine,
        identity: &AttachIdentityLayer,
        Context {
            module, options, ..
        }: &Context,
    ) -> Result<Duration, DialBackFailure> {
        let way = self
            .round_trip
            .unwrap_or(options.connection.connect_timeout);
        let limit = options.checker_timeout.saturating_add(way);
        let began = Instant::now();
        let channel = identity.layer(self.connection.clone());
        let mut client =
            EngineServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        self.connection.allow_reading(MAX_READ_BYTES);
        let asking = call(limit, CheckStatusRequest {}, |request| {
            client.check_status(request)
        });
        let authority = engine.address.authority();
        let status = match asking.await {
            Ok(answer) if answer.engine_id == engine.id.to_string() => return Ok(began.elapsed()),
            Ok(_) => {
                let detail = format!("{authority} has a different id");
                return Err(DialBackFailure::new(FailureKind::OtherEngine, detail));
            }
            Err(status) => status,
        };
        // TLS may have broken the connection for a reason of its own.
        let is_broken = status.source().is_some() && !is_late(&status);
        let fault = self.connection.fault().filter(|_| is_broken);
        Err(match (refusal_of(&status), fault) {
            _ if self.connection.has_read_all() => DialBackFailure::new(
                FailureKind::NoEngine,
                format!("{authority} sends more than {MAX_READ_BYTES} bytes instead of an answer"),
            ),
            (_, Some(fault)) => no_tls(&fault, engine),
            // No far side sends such a reason: it is this module's own verdict.
            (Some(refusal), None) if refusal.reason.is_raised_by_caller() => {
                not_proved(&refusal, engine, module)
            }
            (Some(refusal), None) => refused(refusal.reason, &status, engine, module),
            (None, None) => self.not_answered(&status, &authority, options.checker_timeout),
        })
    }

    /// Says what is wrong with an answer that is not a module's.
    fn not_answered(&self, status: &Status, authority: &str, limit: Duration) -> DialBackFailure {
        let code = code_name(status.code());
        let (kind, detail) = match status.code() {
            _ if is_late(status) => {
                let way = match self.round_trip {
                    Some(_) => "the round trip",
                    None => "the time to connect",
                };
                (
                    FailureKind::TimedOut,
                    format!(
                        "nothing from {authority} within {limit:?} beyond {way} (`{TIMEOUT_SETTING}`)"
                    ),
                )
            }
            Code::Unimplemented => (
                FailureKind::NoEngine,
                format!("{authority} serves gRPC, but no EngineService"),
            ),
            _ if status.source().is_some() => {
                let tls = if self.has_tls { "with" } else { "without" };
                (
                    FailureKind::ConnectionLost,
                    format!("{authority} ({code}); a gRPC engine {tls} TLS is expected there"),
                )
            }
            _ => (
                FailureKind::NoEngine,
                format!("{authority} says {code} (unproved)"),
            ),
        };
        DialBackFailure::new(kind, detail)
    }
}

/// Returns the engine's owner, if it could register the engine now and can prove itself at all.
pub(super) fn check_owner(
    trust: &KeySet,
    engine: &Engine,
    module: &Module,
) -> Result<Arc<Deployment>, DialBackFailure> {
    let owner = &engine.owner.deployment;
    let deployment = trust
        .deployment(owner)
        .ok_or_else(|| not_dialled(format!("`{owner}` is not trusted here")))?;
    if deployment.active_keys().next().is_none() {
        return Err(not_dialled(format!(
            "every key of `{owner}` is revoked here"
        )));
    }
    let key = &engine.owner.fingerprint;
    if deployment.has_revoked(key) {
        let revoked = not_dialled(format!("its key `{key}` is revoked here"));
        return Err(revoked.with_reason(Reason::KeyRevoked.as_str()));
    }
    let role = module.impersonation_role();
    if !deployment.roles.contains(role) {
        let lacks = not_dialled(format!("`{owner}` lacks the role {role} here"));
        return Err(lacks.with_reason(Reason::RoleMissing.as_str()));
    }
    Ok(Arc::clone(deployment))
}

/// How many checks over open connections are under way at once: more would only wait for each other
/// here, and be late for that.
pub(super) const MOST_CHECKS: usize = 256;
/// How much longer than an answer a first attempt may keep its place.
const PATIENCE: Duration = Duration::from_millis(300);
const TIMEOUT_SETTING: &str = "ataccama.one.dpm.registry.grpc-checker-timeout";
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Of everything that the far side sends from one check to the next, framing included.
const MAX_READ_BYTES: u64 = 1024 * 1024;
