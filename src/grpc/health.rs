//! gRPC's health service, and reflection; what a module reports of its own health.

use std::mem::replace;
use std::net::SocketAddr;
use std::pin::Pin;

use prost::{DecodeError, Message as _};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio_stream::{Stream, StreamExt as _, once, pending};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService as Reported};
use tonic_reflection::server::{Builder, Error as ReflectionError};

use super::metrics::OWN_DESCRIPTORS;
use super::standard::{HEALTH, IDENTITY, REFLECTION, Standard};
use super::{MethodRules, Module, Rule, is_loopback};
use crate::telemetry::health::Setter;
use crate::trust::KeySet;

/// The largest message to a service that everyone may call, in bytes.
const SMALL: usize = 8 * 1024;

/// The health of a module and its services, as `grpc.health.v1` reports it.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<String>,
}

impl Health {
    /// Adds health to the `standard` services of a module that also serves those of `own` rules,
    /// and reflection where its `address` is of this machine alone. Nothing is healthy yet.
    pub(crate) fn add(
        standard: Standard,
        own: &MethodRules,
        address: SocketAddr,
    ) -> Result<(Standard, Self), ReflectionError> {
        let Standard {
            mut routes,
            mut rules,
        } = standard;
        let mut services = own.services();
        services.extend([String::new(), IDENTITY.to_owned()]);
        let reporter = HealthReporter::new();
        let service = HealthService(Reported::from_health_reporter(reporter.clone()));
        let health = HealthServer::new(service);
        routes = routes.add_service(health.max_decoding_message_size(SMALL));
        for method in ["Check", "Watch"] {
            rules = rules.with(HEALTH, method, Rule::everyone());
        }
        if is_loopback(address) {
            let v1 = descriptors(&services, own)?.build_v1()?;
            let v1alpha = descriptors(&services, own)?.build_v1alpha()?;
            routes = routes
                .add_service(v1.max_decoding_message_size(SMALL))
                .add_service(v1alpha.max_decoding_message_size(SMALL));
            for service in REFLECTION {
                rules = rules.with(service, "ServerReflectionInfo", Rule::everyone());
            }
        }
        Ok((Standard { routes, rules }, Self { reporter, services }))
    }

    /// Reports `SERVING` for the module and each service, or `NOT_SERVING`.
    pub async fn report(&self, is_ready: bool) {
        let status = if is_ready {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// Describes what is served, and nothing else: `services`, as far as they have a descriptor, health
/// and reflection itself.
fn descriptors(services: &[String], own: &MethodRules) -> Result<Builder<'static>, DecodeError> {
    let named = services.iter().map(String::as_str);
    let of_module = named.filter(|name| !name.is_empty());
    let served: Vec<_> = of_module.chain(REFLECTION).chain([HEALTH]).collect();
    let mut described = Builder::configure().include_reflection_service(false);
    for encoded in OWN_DESCRIPTORS.into_iter().chain(own.descriptors()) {
        let mut set = FileDescriptorSet::decode(encoded)?;
        set.file.retain(|file| {
            file.service.is_empty() || served.iter().any(|name| defines(file, name))
        });
        described = described.register_file_descriptor_set(set);
    }
    Ok(served
        .iter()
        .fold(described, |all, name| all.with_service_name(*name)))
}

/// Returns `true` if `file` defines the service that has this full name.
fn defines(file: &FileDescriptorProto, name: &str) -> bool {
    let mut services = file.service.iter();
    services.any(|own| name.rsplit_once('.') == Some((file.package(), own.name())))
}

/// Answers as tonic's service does, except for [`watch`](health_server::Health::watch).
#[derive(Debug)]
pub(super) struct HealthService(pub(super) Reported);

#[tonic::async_trait]
impl health_server::Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.check(request).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Says what changes, and no status twice. For a service that is unknown the call stays open,
    /// as the [protocol] wants it.
    ///
    /// [protocol]: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let Ok(known) = self.0.watch(request).await else {
            let status = ServingStatus::ServiceUnknown.into();
            let unknown = once(Ok(HealthCheckResponse { status }));
            return Ok(Response::new(Box::pin(unknown.chain(pending()))));
        };
        let mut last = None;
        let changes = known.into_inner().filter(move |answer| {
            let now = answer.as_ref().ok().map(|answer| answer.status);
            replace(&mut last, now) != now
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

/// Keeps what a module says of its health: its keys, whether it may accept tokens yet, and
/// `SERVING` for the services of `grpc` while it is ready.
///
/// A module is not ready before [`begin`](Self::begin) has made one.
#[derive(Debug)]
pub struct Readiness {
    module: Module,
    grpc: Health,
    keys: Setter,
    replay: Option<Setter>,
}

impl Readiness {
    /// Begins to follow the health of `module`, and says how things are now.
    pub async fn begin(module: &Module, grpc: Health) -> Self {
        let waits = module.not_ready_for().is_some();
        let mut readiness = Self {
            keys: module.health().required("keys"),
            replay: waits.then(|| module.health().required("replay")),
            module: module.clone(),
            grpc,
        };
        readiness.report().await;
        readiness
    }

    /// Goes on to say how things are, until it is dropped.
    pub async fn run(mut self) {
        let mut trust = self.module.trust().subscribe();
        let mut health = self.module.health().subscribe();
        loop {
            trust.mark_unchanged();
            health.mark_unchanged();
            self.report().await;
            tokio::select! {
                // The module holds the senders.
                _ = health.changed() => {}
                _ = trust.changed() => {}
                () = self.module.ready(), if self.replay.is_some() => {}
            }
        }
    }

    async fn report(&mut self) {
        self.keys.up(describe(&self.module.trust().load()));
        match (&self.replay, self.module.not_ready_for()) {
            (None, _) => {}
            (Some(replay), Some(left)) => {
                let seconds = left.as_secs() + 1;
                replay.down(format!(
                    "each token is accepted once; tokens from before the start are refused for {seconds} s more"
                ));
            }
            (Some(replay), None) => {
                replay.up("each token is accepted once");
                self.replay = None;
            }
        }
        self.grpc.report(self.module.health().is_ready()).await;
    }
}

fn describe(trust: &KeySet) -> String {
    let deployments = trust.deployments();
    let active: usize = deployments.iter().map(|d| d.active_keys().count()).sum();
    let all: usize = deployments.iter().map(|d| d.keys.len()).sum();
    let revoked = all.saturating_sub(active);
    let trusted = deployments.len();
    format!("trusted deployments: {trusted}, their keys: {active}, revoked: {revoked}")
}

#[cfg(test)]
mod tests {
    use health_server::Health as _;
    use tonic::Code;
    use tonic_health::server::HealthReporter;

    use super::*;

    fn asking(service: &str) -> Request<HealthCheckRequest> {
        let service = service.to_owned();
        Request::new(HealthCheckRequest { service })
    }

    #[tokio::test]
    async fn unknown_service_is_not_found_by_check_and_followed_by_watch() {
        let service = HealthService(Reported::from_health_reporter(HealthReporter::new()));

        let checked = service.check(asking("a.C")).await.unwrap_err();
        let mut watched = service.watch(asking("a.C")).await.unwrap().into_inner();

        assert_eq!(checked.code(), Code::NotFound);
        let first = watched.next().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);
        let next = at_once(watched.next()).await;
        assert!(next.is_none(), "{next:?}");
    }

    #[tokio::test]
    async fn watch_says_how_things_are_and_then_changes_alone() {
        let reporter = HealthReporter::new();
        let service = HealthService(Reported::from_health_reporter(reporter.clone()));
        let report = async |status| reporter.set_service_status("a.B", status).await;
        report(tonic_health::ServingStatus::NotServing).await;
        let mut watched = service.watch(asking("a.B")).await.unwrap().into_inner();
        let first = watched.next().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::NotServing);

        report(tonic_health::ServingStatus::NotServing).await;
        assert!(at_once(watched.next()).await.is_none());
        report(tonic_health::ServingStatus::Serving).await;

        let next = watched.next().await.unwrap().unwrap();
        assert_eq!(next.status(), ServingStatus::Serving);
        let checked = service.check(asking("")).await.unwrap().into_inner();
        assert_eq!(checked.status(), ServingStatus::Serving);
    }

    /// What `future` completes with, if it does so at once.
    async fn at_once<F: Future>(future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
