//! Counts calls and messages by method: those that arrive and those that are made.

mod messages;

use std::any::Any;
use std::collections::HashMap;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::Error as TransportError;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;

use crate::proto;
use crate::telemetry::metrics::{GrpcMethod, GrpcSide, MethodMetrics, Metrics};

use self::messages::Messages;
use super::reply::{BoxError, ByteBody};
use super::status::number;
use super::{MethodRules, metadata};

/// Counts the calls of a server, as go-grpc-prometheus does; see [`Module::metrics_layer`].
///
/// Put it before every other layer: what those refuse counts, too. A call whose caller left or
/// whose time is over ends as `Canceled`. A method without a rule counts as `other`, so that no
/// caller can make up series.
///
/// [`Module::metrics_layer`]: super::Module::metrics_layer
#[derive(Clone, Debug)]
pub struct MetricsLayer {
    methods: Arc<Methods>,
}

#[derive(Debug)]
struct Methods {
    by_path: HashMap<String, Arc<MethodMetrics>>,
    other: Arc<MethodMetrics>,
}

impl MetricsLayer {
    /// Counts in `metrics` the methods of `rules`. The descriptors of this crate and `descriptors`
    /// say which methods stream: each is an encoded `FileDescriptorSet`; invalid ones are ignored.
    /// Of a rule for a whole service, only the methods described have series of their own.
    pub(super) fn new(metrics: &Metrics, rules: &MethodRules, descriptors: &[&[u8]]) -> Self {
        let mut by_path = HashMap::new();
        for set in OWN_DESCRIPTORS.iter().chain(descriptors) {
            let set = FileDescriptorSet::decode(*set).unwrap_or_default();
            for (path, method) in described(&set) {
                if rules.find(&path).is_some() {
                    by_path.insert(path, method);
                }
            }
        }
        for path in rules.paths() {
            if !by_path.contains_key(path)
                && let Some(method) = undescribed(path)
            {
                by_path.insert(path.to_owned(), method);
            }
        }
        Self::of(metrics, GrpcSide::Server, by_path)
    }

    /// Counts in `metrics` the calls that a module makes: the methods of this crate's own services,
    /// and all others as `other`.
    pub(super) fn of_calls(metrics: &Metrics) -> Self {
        let own = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap_or_default();
        Self::of(metrics, GrpcSide::Client, described(&own))
    }

    fn of(
        metrics: &Metrics,
        side: GrpcSide,
        methods: impl IntoIterator<Item = (String, GrpcMethod)>,
    ) -> Self {
        let by_path = methods
            .into_iter()
            .map(|(path, method)| (path, Arc::new(metrics.of_method(side, &method))))
            .collect();
        let other = Arc::new(metrics.of_method(side, &GrpcMethod::other()));
        Self {
            methods: Arc::new(Methods { by_path, other }),
        }
    }
}

/// The descriptors of this crate's own services.
#[cfg(not(feature = "actuator"))]
pub(super) const OWN_DESCRIPTORS: [&[u8]; 1] = [proto::FILE_DESCRIPTOR_SET];
/// The descriptors of this crate's own services, and of gRPC's health and reflection.
#[cfg(feature = "actuator")]
pub(super) const OWN_DESCRIPTORS: [&[u8]; 4] = [
    proto::FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

fn described(set: &FileDescriptorSet) -> Vec<(String, GrpcMethod)> {
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let service_name = match file.package() {
                "" => service.name().to_owned(),
                package => format!("{package}.{}", service.name()),
            };
            for method in &service.method {
                let labels = GrpcMethod {
                    kind: kind(method),
                    service: service_name.clone(),
                    method: method.name().to_owned(),
                };
                methods.push((format!("/{service_name}/{}", method.name()), labels));
            }
        }
    }
    methods
}

fn kind(method: &MethodDescriptorProto) -> &'static str {
    match (method.client_streaming(), method.server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

fn undescribed(path: &str) -> Option<GrpcMethod> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    Some(GrpcMethod {
        kind: "unknown",
        service: service.to_owned(),
        method: method.to_owned(),
    })
}

impl<S> Layer<S> for MetricsLayer {
    type Service = MetricsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let layer = self.clone();
        MetricsService { inner, layer }
    }
}

/// Calls `inner` and counts; see [`MetricsLayer`].
#[derive(Clone, Debug)]
pub struct MetricsService<S> {
    inner: S,
    layer: MetricsLayer,
}

impl<S, Q, R> Service<Request<Q>> for MetricsService<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: 'static>,
    Q: ByteBody,
    R: ByteBody,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let (counted, call) = self.layer.started(request);
        CountedFuture {
            future: self.inner.call(counted),
            call: Some(call),
        }
    }
}

impl MetricsLayer {
    /// Counts that a call begins, and the messages of its request.
    pub(super) fn started<Q: ByteBody>(&self, request: Request<Q>) -> (Request<Body>, Call) {
        let Methods { by_path, other } = &*self.methods;
        let method = by_path.get(metadata::path(request.uri())).unwrap_or(other);
        method.started();
        let counted = Counted::Request(Arc::clone(method));
        let call = Call {
            method: Arc::clone(method),
            started: Instant::now(),
            code: None,
        };
        let counted = request.map(|body| Body::new(CountedBody::new(body, counted)));
        (counted, call)
    }
}

/// A call that is going on; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Call {
    method: Arc<MethodMetrics>,
    started: Instant,
    code: Option<Code>,
}

impl Call {
    /// Notes the status, if `headers` have one.
    fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get(Status::GRPC_STATUS) {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }

    /// Notes the status that `error` stands for, as far as its type is known.
    fn note_error(&mut self, error: &dyn Any) {
        if let Some(status) = error.downcast_ref::<Status>() {
            self.code = Some(status.code());
        } else if let Some(error) = error.downcast_ref::<TransportError>() {
            self.code = Some(code_of_error(error));
        } else if let Some(error) = error.downcast_ref::<BoxError>() {
            self.code = Some(code_of_error(&**error));
        }
    }

    /// Notes how the call was answered, and counts the messages of its reply.
    pub(super) fn answered<R: ByteBody, E: 'static>(
        mut self,
        answer: Result<Response<R>, E>,
    ) -> Result<Response<Body>, E> {
        let response = answer.inspect_err(|error| self.note_error(error))?;
        if response.status() != StatusCode::OK {
            self.code = Some(code_of_http(response.status()));
        }
        self.note(response.headers());
        if response.body().is_end_stream() {
            // Without a status it is no answer.
            self.code = self.code.or(Some(Code::Unknown));
        }
        Ok(response.map(|body| Body::new(CountedBody::new(body, Counted::Reply(self)))))
    }
}

/// Returns the code of the status that tonic makes of an error without a reply.
fn code_of_error(error: &(dyn Error + 'static)) -> Code {
    match error.downcast_ref::<Status>() {
        Some(status) => status.code(),
        None => error.source().map_or(Code::Unavailable, code_of_error),
    }
}

/// The status of a reply that has none but HTTP's, as gRPC's `http-grpc-status-mapping` has it: a
/// proxy's.
fn code_of_http(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = number(self.code.unwrap_or(Code::Cancelled));
        self.method
            .handled(code, self.started.elapsed().as_secs_f64());
    }
}

pin_project_lite::pin_project! {
    /// The answer of [`MetricsService`].
    #[derive(Debug)]
    pub struct CountedFuture<F> {
        #[pin]
        future: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: ByteBody,
    E: 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.future.poll(cx));
        Poll::Ready(match this.call.take() {
            Some(call) => call.answered(answer),
            None => answer.map(|response| response.map(Body::new)),
        })
    }
}

pin_project_lite::pin_project! {
    /// A body whose messages are counted.
    #[derive(Debug)]
    struct CountedBody<B> {
        #[pin]
        inner: B,
        messages: Messages,
        counted: Counted,
    }
}

/// What a body is counted as.
#[derive(Debug)]
enum Counted {
    Nothing,
    Request(Arc<MethodMetrics>),
    /// The end of a reply is the call's.
    Reply(Call),
}

impl<B> CountedBody<B> {
    fn new(inner: B, counted: Counted) -> Self {
        let messages = Messages::default();
        Self {
            inner,
            messages,
            counted,
        }
    }
}

impl<B> http_body::Body for CountedBody<B>
where
    B: http_body::Body<Data = Bytes, Error: 'static>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        let data = match &frame {
            Some(Ok(frame)) => frame.data_ref(),
            _ => None,
        };
        let messages = data.map_or(0, |data| this.messages.count(data));
        match &mut *this.counted {
            Counted::Nothing => {}
            Counted::Request(method) => method.requests(messages),
            Counted::Reply(call) => {
                call.method.replies(messages);
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            call.note(trailers);
                        }
                    }
                    Some(Err(error)) => call.note_error(error),
                    // It broke no rule of HTTP/2, and is no answer.
                    None => call.code = call.code.or(Some(Code::Unknown)),
                }
            }
        }
        if !matches!(frame, Some(Ok(_))) {
            *this.counted = Counted::Nothing;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_the_rules_alone_are_distinguished() {
        let metrics = Metrics::new("dpm", []).unwrap();
        let rules = MethodRules::deny_all()
            .with("grpc.health.v1.Health", "*", super::super::Rule::everyone())
            .with("a.B", "Get", super::super::Rule::any_identity());

        let layer = MetricsLayer::new(&metrics, &rules, &[b"no descriptor"]);

        let by_path = &layer.methods.by_path;
        let mut paths: Vec<_> = by_path.keys().map(String::as_str).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "/a.B/Get",
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch"
            ]
        );
        let text = metrics.render();
        let watch = r#"grpc_server_started_total{grpc_method="Watch",grpc_service="grpc.health.v1.Health",grpc_type="server_stream"} 0"#;
        assert!(text.contains(watch), "{text}");
    }
}
