//! gRPC's health service.

use std::mem::replace;
use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _, once, pending};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};
use tonic_health::server::HealthService as Reported;

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

    /// Says what changes, and no status twice. For a service that is unknown the call stays open, as
    /// the [protocol] wants it.
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
