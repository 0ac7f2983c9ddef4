//! `EngineRegistryService`: engines register, stay and leave.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::dialer::is_local;
use super::duplicate::Duplicates;
use super::monitor::Monitor;
use super::one_way::{Arriving, Replies};
use super::watch::Watches;
use crate::engine::{DialBackFailure, Engine, EngineAddress, EngineConstraints, EngineStatus};
use crate::grpc::{PeerInfo, Rejections, cause, exhausted_for, reason_of, refuse, verified_token};
use crate::proto::convert::{self, ConvertError, engine_id};
use crate::proto::registry as wire;
use crate::proto::registry::engine_registry_service_server::EngineRegistryService as Service;
use crate::registry::{Destination, EngineRegistry, Registrant, RegistryError};
use crate::telemetry::events;
use crate::telemetry::metrics::{EngineMetrics, Metrics};
use crate::token::{Reason, VerifiedToken};

/// Serves `countersign.registry.v1.EngineRegistryService` over a registry.
///
/// The layer before it has verified the caller and its role; who owns an engine is the registry's
/// to decide. Only its owner and the DPM itself get the full reason why an engine is not READY;
/// others get the summary.
#[derive(Clone, Debug)]
pub struct EngineRegistryService {
    registry: Arc<EngineRegistry>,
    monitor: Monitor,
    rejections: Arc<Rejections>,
    metrics: Arc<Metrics>,
    engines: EngineMetrics,
    duplicates: Arc<Duplicates>,
    pub(super) watches: Watches,
    /// The time between two heartbeats, if it is not each engine's own to set.
    pub(super) heartbeat_interval: Option<Duration>,
}

impl EngineRegistryService {
    /// Serves `registry`, whose engines `monitor` keeps.
    pub fn new(registry: Arc<EngineRegistry>, monitor: Monitor) -> Self {
        let module = &monitor.context.module;
        let metrics = Arc::clone(module.metrics());
        Self {
            registry,
            rejections: Arc::clone(&module.rejections),
            monitor,
            engines: metrics.of_engines(),
            metrics,
            duplicates: Arc::default(),
            watches: Watches::default(),
            heartbeat_interval: None,
        }
    }

    /// Says why a call was not done.
    fn status(&self, error: &RegistryError, caller: &Caller) -> Status {
        let text = error.to_string();
        match error {
            RegistryError::EngineNotOwned(_) => self.denied(Reason::EngineNotOwned, &text, caller),
            RegistryError::NotFound(_) => Status::not_found(text),
            RegistryError::Live(..) => Status::failed_precondition(text),
            RegistryError::RegistryFull(_) | RegistryError::DeploymentFull(_) => {
                Status::resource_exhausted(text)
            }
            RegistryError::TooFast(_) => exhausted_for(Duration::from_secs(1), text),
            RegistryError::Undecided(_) => Status::unavailable(text),
            RegistryError::Store(error) => {
                self.registry.log_failure(&cause(error));
                Status::new(Code::Unavailable, "the registry cannot be reached")
            }
        }
    }

    /// Refuses a verified caller, and says so in the log.
    fn denied(&self, reason: Reason, detail: &str, caller: &Caller) -> Status {
        let module = caller.token.identity().module().as_str();
        self.metrics.refused(reason.as_str(), Some(module));
        let call = events::RejectedCall {
            reason: reason.as_str(),
            fingerprint: Some(caller.token.key_id().as_str()),
            peer: caller.peer,
            method: caller.method,
            detail: &format!("{}: {detail}", caller.token.identity()),
            help: reason.help(),
        };
        let owner = Some(caller.token.owner());
        self.rejections.log(owner, reason.status(), &call);
        refuse(reason, Some(detail))
    }

    /// Refuses a second process of `recorded` at `address`.
    fn duplicate(&self, recorded: &Engine, address: &EngineAddress, caller: &Caller) -> Status {
        let reason = Reason::EngineDuplicate;
        let module = caller.token.identity().module().as_str();
        self.metrics.refused(reason.as_str(), Some(module));
        let [recorded, refused] = [&recorded.address, address].map(EngineAddress::authority);
        let detail = format!("recorded at {recorded}, this one advertises {refused}");
        refuse(reason, Some(&detail))
    }

    /// Refuses an address that is never dialled.
    async fn judge(&self, caller: &Caller, address: &EngineAddress) -> Result<(), Status> {
        let destination = Destination {
            deployment: caller.token.identity().id(),
            address,
            over_loopback: caller.is_here(),
        };
        self.monitor.judge(&destination).await.map_err(|refusal| {
            let detail = format!("{}: {refusal}", address.authority());
            self.denied(Reason::AddressNotAllowed, &detail, caller)
        })
    }

    async fn register(
        &self,
        request: Request<wire::RegisterEngineRequest>,
    ) -> Result<Response<wire::RegisterEngineResponse>, Status> {
        let caller = Caller::of(&request, "RegisterEngine")?;
        let request = request.into_inner();
        let id = engine_id(&request.engine_id)?;
        let address = request.address.ok_or(ConvertError::Missing("address"))?;
        let address = EngineAddress::try_from(&address)?;
        let constraints = EngineConstraints::try_from(request.constraints.unwrap_or_default())?;
        let mut registrant = caller.registrant(&request.instance)?;
        registrant.heartbeat_interval = self.interval(request.heartbeat_interval);
        // No caller has a name resolved for an engine that it does not own.
        let owner = self.registry.check_owner(&registrant, id).await;
        owner.map_err(|error| self.status(&error, &caller))?;
        if address.is_one_way() {
            // The stream is the process's own.
            registrant
                .instance
                .ok_or(ConvertError::Missing("instance"))?;
        } else {
            self.judge(&caller, &address).await?;
        }
        let mut turn = self.duplicates.turn(id).await;
        let lost = turn.lost_to(&registrant, &address, &self.monitor.context);
        if let Some(recorded) = lost.await.map_err(|error| self.status(&error, &caller))? {
            return Err(self.duplicate(&recorded, &address, &caller));
        }
        let engine = self
            .registry
            .register(&registrant, id, address, constraints)
            .await
            .map_err(|error| self.status(&error, &caller))?;
        drop(turn);
        if is_to_check(&engine) {
            self.monitor.check_now(engine.id);
        }
        let durable = self.flush(&caller).await?;
        Ok(Response::new(wire::RegisterEngineResponse {
            heartbeat_interval: named(&engine),
            engine: Some(caller.view(&engine)),
            durable,
        }))
    }

    /// Admits the stream of a one-way engine, which has to prove itself over it.
    async fn connect(
        &self,
        request: Request<Streaming<wire::ConnectEngineRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let caller = Caller::of(&request, "ConnectEngine")?;
        let (metadata, _, said) = request.into_parts();
        let owner = caller.token.owner();
        let mut arriving = Arriving::new(&self.monitor, owner, &metadata, said)?;
        let hello = arriving.hello().await?;
        let id = engine_id(&hello.engine_id)?;
        let registrant = caller.registrant(&hello.instance)?;
        let owner = self.registry.check_owner(&registrant, id).await;
        owner.map_err(|error| self.status(&error, &caller))?;
        let instance = registrant
            .instance
            .ok_or(ConvertError::Missing("instance"))?;
        let found = self.registry.find(id).await;
        let known = found.map_err(|error| self.status(&error, &caller))?;
        let of_process = known.filter(|engine| {
            engine.status != EngineStatus::Inactive && engine.instance == Some(instance)
        });
        let engine = of_process.ok_or_else(|| {
            Status::not_found(format!("this process of engine {id} is not registered"))
        })?;
        if !engine.address.is_one_way() {
            let at = engine.address.authority();
            let why = format!("engine {id} is registered at {at}, where it is dialled");
            return Err(Status::failed_precondition(why));
        }
        let (service, token) = (self.clone(), caller.token.clone());
        let replies = arriving.admit((engine, instance), &token, move |failure| {
            let reason = failure.reason.as_deref().and_then(|word| word.parse().ok());
            service.denied(
                reason.unwrap_or(Reason::ProofMissing),
                &failure.detail,
                &caller,
            );
        });
        Ok(Response::new(replies))
    }

    /// Returns the time between two heartbeats of an engine whose own setting is `own`.
    fn interval(&self, own: Option<prost_types::Duration>) -> Option<Duration> {
        let named = self.heartbeat_interval.map(convert::within_bounds);
        named.or_else(|| convert::heartbeat_interval(own))
    }

    /// Waits until a crash would not take back what was done for `caller`; returns `false` if it may.
    async fn flush(&self, caller: &Caller) -> Result<bool, Status> {
        let flushed = self.registry.flush().await;
        flushed.map_err(|error| self.status(&error, caller))
    }
}

/// Returns `true` if an engine that calls is to be checked: it lives, and has not proved itself.
fn is_to_check(engine: &Engine) -> bool {
    engine.status != EngineStatus::Ready || engine.suspect
}

/// Returns the time between two heartbeats that `engine` is to keep.
fn named(engine: &Engine) -> Option<prost_types::Duration> {
    engine.heartbeat_interval?.try_into().ok()
}

/// Returns the outcome of a call of `RegisterEngine`, for the metrics.
fn outcome<T>(answer: &Result<T, Status>) -> &'static str {
    let Err(status) = answer else {
        return "registered";
    };
    match (reason_of(status), status.code()) {
        (Some(Reason::EngineNotOwned), _) => "not_owned",
        (Some(Reason::EngineDuplicate), _) => "duplicate",
        (Some(Reason::AddressNotAllowed), _) => "address_not_allowed",
        (_, Code::ResourceExhausted) => "limit_reached",
        (_, Code::InvalidArgument) => "invalid",
        _ => "failed",
    }
}

/// Who calls: a deployment, or the module's own operator.
struct Caller {
    token: VerifiedToken,
    peer: Option<SocketAddr>,
    /// The method that it calls.
    method: &'static str,
}

impl Caller {
    fn of<T>(request: &Request<T>, method: &'static str) -> Result<Self, Status> {
        let token = verified_token(request)?.clone();
        let known = request.extensions().get::<PeerInfo>();
        Ok(Self {
            token,
            // Over a server of tonic's own, it is not among the extensions.
            peer: known.map_or_else(|| request.remote_addr(), |peer| Some(peer.address)),
            method,
        })
    }

    /// Returns who calls, for the engine's process that the call names.
    fn registrant(&self, instance: &str) -> Result<Registrant, ConvertError> {
        let deployment = self.token.deployment();
        Ok(Registrant {
            identity: self.token.identity().clone(),
            environment: deployment.and_then(|deployment| deployment.environment.clone()),
            fingerprint: self.token.key_id().as_str().into(),
            over_loopback: self.is_here(),
            instance: convert::instance(instance)?,
            heartbeat_interval: None,
        })
    }

    /// Returns `true` if the call came from this machine, over loopback or from another of its
    /// addresses.
    fn is_here(&self) -> bool {
        let ip = self.peer.map(|peer| peer.ip().to_canonical());
        ip.is_some_and(|ip| ip.is_loopback() || is_local(ip).unwrap_or(false))
    }

    /// Returns who owns what the caller changes; `None` for this module itself, which may change all.
    fn owner(&self) -> Result<Option<Registrant>, ConvertError> {
        let deployment = self.token.deployment();
        deployment.map(|_| self.registrant("")).transpose()
    }

    /// Returns `true` if the caller may read all of `engine`: its owner, or this module itself.
    fn sees_all_of(&self, engine: &Engine) -> bool {
        match self.token.deployment() {
            Some(deployment) => *engine.owner.deployment == *deployment.name.as_str(),
            None => true,
        }
    }

    fn view(&self, engine: &Engine) -> wire::Engine {
        let mut view = wire::Engine::from(engine);
        if let Some(failure) = &engine.dial_back_failure
            && !self.sees_all_of(engine)
        {
            failure.kind.summary().clone_into(&mut view.status_reason);
            view.dial_back_failure = Some((&DialBackFailure::new(failure.kind, "")).into());
        }
        view
    }
}

#[tonic::async_trait]
impl Service for EngineRegistryService {
    async fn register_engine(
        &self,
        request: Request<wire::RegisterEngineRequest>,
    ) -> Result<Response<wire::RegisterEngineResponse>, Status> {
        let answer = self.register(request).await;
        self.engines.registered(outcome(&answer));
        answer
    }

    async fn heartbeat(
        &self,
        request: Request<wire::HeartbeatRequest>,
    ) -> Result<Response<wire::HeartbeatResponse>, Status> {
        let caller = Caller::of(&request, "Heartbeat")?;
        let id = engine_id(&request.get_ref().engine_id)?;
        let mut registrant = caller.registrant(&request.get_ref().instance)?;
        registrant.heartbeat_interval = self.interval(request.get_ref().heartbeat_interval);
        let renewed = self.registry.heartbeat(&registrant, id).await;
        let engine = renewed.map_err(|error| self.status(&error, &caller))?;
        if is_to_check(&engine) {
            self.monitor.heard(engine.id);
        }
        let view = caller.view(&engine);
        Ok(Response::new(wire::HeartbeatResponse {
            status: view.status,
            status_reason: view.status_reason,
            dial_back_failure: view.dial_back_failure,
            address: view.address,
            instance: view.instance,
            heartbeat_interval: named(&engine),
        }))
    }

    type ConnectEngineStream = Replies;

    async fn connect_engine(
        &self,
        request: Request<Streaming<wire::ConnectEngineRequest>>,
    ) -> Result<Response<Replies>, Status> {
        self.connect(request).await
    }

    async fn deregister_engine(
        &self,
        request: Request<wire::DeregisterEngineRequest>,
    ) -> Result<Response<wire::DeregisterEngineResponse>, Status> {
        let caller = Caller::of(&request, "DeregisterEngine")?;
        let id = engine_id(&request.get_ref().engine_id)?;
        let registrant = caller.registrant(&request.get_ref().instance)?;
        let removed = self.registry.deregister(&registrant, id).await;
        let engine = removed.map_err(|error| self.status(&error, &caller))?;
        // Its task looks, sees that it left, and ends.
        self.monitor.check_now(engine.id);
        self.flush(&caller).await?;
        Ok(Response::new(wire::DeregisterEngineResponse {}))
    }

    async fn inactivate_engine(
        &self,
        request: Request<wire::InactivateEngineRequest>,
    ) -> Result<Response<wire::InactivateEngineResponse>, Status> {
        let caller = Caller::of(&request, "InactivateEngine")?;
        let id = engine_id(&request.get_ref().engine_id)?;
        let owner = caller.owner()?;
        let done = self.registry.inactivate(owner.as_ref(), id).await;
        let engine = done.map_err(|error| self.status(&error, &caller))?;
        self.monitor.check_now(id);
        self.flush(&caller).await?;
        let engine = Some(caller.view(&engine));
        Ok(Response::new(wire::InactivateEngineResponse { engine }))
    }

    async fn forget_engine(
        &self,
        request: Request<wire::ForgetEngineRequest>,
    ) -> Result<Response<wire::ForgetEngineResponse>, Status> {
        let caller = Caller::of(&request, "ForgetEngine")?;
        let id = engine_id(&request.get_ref().engine_id)?;
        let owner = caller.owner()?;
        let done = self.registry.forget(owner.as_ref(), id).await;
        done.map_err(|error| self.status(&error, &caller))?;
        self.monitor.check_now(id);
        self.flush(&caller).await?;
        Ok(Response::new(wire::ForgetEngineResponse {}))
    }

    async fn get_engine(
        &self,
        request: Request<wire::GetEngineRequest>,
    ) -> Result<Response<wire::GetEngineResponse>, Status> {
        let caller = Caller::of(&request, "GetEngine")?;
        let id = engine_id(&request.get_ref().engine_id)?;
        let found = self.registry.find(id).await;
        let engine = found
            .and_then(|engine| engine.ok_or(RegistryError::NotFound(id)))
            .map_err(|error| self.status(&error, &caller))?;
        let engine = Some(caller.view(&engine));
        Ok(Response::new(wire::GetEngineResponse { engine }))
    }

    async fn list_engines(
        &self,
        request: Request<wire::ListEnginesRequest>,
    ) -> Result<Response<wire::ListEnginesResponse>, Status> {
        let caller = Caller::of(&request, "ListEngines")?;
        let request = request.into_inner();
        let size = match usize::try_from(request.page_size) {
            Ok(0) => 100,
            Ok(size) => size.min(1000),
            Err(_) => return Err(Status::invalid_argument("`page_size` is negative")),
        };
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_no_id| {
                Status::invalid_argument("`page_token` is not from a previous page")
            })?),
        };
        // Read before the page: a watch from there has what the page does not.
        let changes = self.registry.store().changes();
        let mut page = wire::ListEnginesResponse {
            revision: changes.map_or_else(String::new, |changes| changes.revision(changes.now())),
            stale: self.registry.is_stale(),
            ..wire::ListEnginesResponse::default()
        };
        let listed = self.registry.list(after, size + 1).await;
        let mut bytes = 0;
        for engine in listed.map_err(|error| self.status(&error, &caller))? {
            let view = caller.view(&engine);
            bytes += view.encoded_len();
            let full = page.engines.len() >= size || bytes > MAX_PAGE_BYTES;
            if let Some(last) = page.engines.last().filter(|_| full) {
                page.next_page_token.clone_from(&last.id);
                break;
            }
            page.engines.push(view);
        }
        Ok(Response::new(page))
    }

    type WatchEnginesStream =
        Pin<Box<dyn Stream<Item = Result<wire::WatchEnginesResponse, Status>> + Send>>;

    async fn watch_engines(
        &self,
        request: Request<wire::WatchEnginesRequest>,
    ) -> Result<Response<Self::WatchEnginesStream>, Status> {
        let caller = Caller::of(&request, "WatchEngines")?;
        let Some(changes) = self.registry.store().changes() else {
            return Err(Status::unimplemented("no changes are noted here"));
        };
        let (from, who) = (request.into_inner().from_revision, caller.token.identity());
        let place = self.watches.place(who.id())?;
        let watching = place.watch(changes, &from, move |engine| caller.view(engine))?;
        Ok(Response::new(Box::pin(watching)))
    }
}

/// Below the 4 MB that a gRPC client takes by default.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

impl From<ConvertError> for Status {
    fn from(error: ConvertError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_registration_is_counted_as_what_it_is() {
        for (ended, result) in [
            (Ok(()), "registered"),
            (Err(refuse(Reason::EngineNotOwned, None)), "not_owned"),
            (Err(refuse(Reason::EngineDuplicate, None)), "duplicate"),
            (
                Err(refuse(Reason::AddressNotAllowed, None)),
                "address_not_allowed",
            ),
            (Err(Status::resource_exhausted("")), "limit_reached"),
            (Err(Status::invalid_argument("")), "invalid"),
            (Err(Status::unavailable("")), "failed"),
        ] {
            assert_eq!(outcome(&ended), result);
        }
    }
}
