//! Counts calls and messages by method.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::proto;
use crate::telemetry::metrics::{GrpcMethod, MethodMetrics, Metrics};

use super::{MethodRules, metadata};

/// Counts the calls of a server, as go-grpc-prometheus does; see [`Module::metrics_layer`].
///
/// Put it before every other layer: what those refuse counts, too. A call that nobody answers any
/// more, since the caller left or the time was over, ends as `Canceled`. A method without a rule
/// counts as `other`, so that nobody can make up series.
///
/// [`Module::metrics_layer`]: super::Module::metrics_layer
#[derive(Clone, Debug, Default)]
pub struct MetricsLayer {
    /// None counts nothing.
    methods: Option<Arc<Methods>>,
}

#[derive(Debug)]
struct Methods {
    by_path: HashMap<String, Arc<MethodMetrics>>,
    other: Arc<MethodMetrics>,
}

impl MetricsLayer {
    /// Counts in `metrics` the methods of `rules`, of which `descriptors` and those of this crate
    /// tell whether they stream: each is an encoded `FileDescriptorSet`; one that is none is passed
    /// over. Of a rule for a whole service, only the methods described can be told apart.
    /// [`Default`] counts nothing.
    pub fn new(metrics: &Metrics, rules: &MethodRules, descriptors: &[&[u8]]) -> Self {
        let mut by_path = HashMap::new();
        for set in OWN_DESCRIPTORS.iter().chain(descriptors) {
            let set = FileDescriptorSet::decode(*set).unwrap_or_default();
            for (path, method) in described(&set) {
                if rules.find(&path).is_some() {
                    by_path.insert(path, Arc::new(metrics.of_method(&method)));
                }
            }
        }
        for path in rules.paths() {
            if !by_path.contains_key(path)
                && let Some(method) = undescribed(path)
            {
                by_path.insert(path.to_owned(), Arc::new(metrics.of_method(&method)));
            }
        }
        let other = Arc::new(metrics.of_method(&GrpcMethod::other()));
        Self {
            methods: Some(Arc::new(Methods { by_path, other })),
        }
    }
}

const OWN_DESCRIPTORS: [&[u8]; 4] = [
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
        MetricsService {
            inner,
            methods: self.methods.clone(),
        }
    }
}

/// Calls `inner`; see [`MetricsLayer`].
#[derive(Clone, Debug)]
pub struct MetricsService<S> {
    inner: S,
    methods: Option<Arc<Methods>>,
}

impl<S, R> Service<Request<Body>> for MetricsService<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
{
    type Response = Response<CountedReply<R>>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(methods) = &self.methods else {
            return CountedFuture {
                future: self.inner.call(request),
                call: None,
            };
        };
        let method = methods.by_path.get(metadata::path(request.uri()));
        let method = Arc::clone(method.unwrap_or(&methods.other));
        method.started();
        let request = request.map(|body| {
            Body::new(CountedRequest {
                inner: body,
                messages: Messages::default(),
                method: Arc::clone(&method),
            })
        });
        CountedFuture {
            future: self.inner.call(request),
            call: Some(Call {
                method,
                started: Instant::now(),
                code: None,
            }),
        }
    }
}

/// A call that is going on; it ends when this is dropped.
#[derive(Debug)]
struct Call {
    method: Arc<MethodMetrics>,
    started: Instant,
    code: Option<Code>,
}

impl Call {
    /// Notes the status, where `headers` have one.
    fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        let number = usize::try_from(i32::from(code)).unwrap_or(usize::MAX);
        let seconds = self.started.elapsed().as_secs_f64();
        self.method.handled(number, seconds);
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
{
    type Output = Result<Response<CountedReply<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx))?;
        let mut call = this.call.take();
        if let Some(call) = &mut call {
            call.note(response.headers());
        }
        Poll::Ready(Ok(response.map(|body| CountedReply {
            inner: body,
            messages: Messages::default(),
            call,
        })))
    }
}

pin_project_lite::pin_project! {
    /// The body of a reply, whose messages are counted and whose end is the call's.
    #[derive(Debug)]
    pub struct CountedReply<R> {
        #[pin]
        inner: R,
        messages: Messages,
        call: Option<Call>,
    }
}

impl<R: http_body::Body<Data = Bytes>> http_body::Body for CountedReply<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if let (Some(Ok(frame)), Some(call)) = (&frame, &mut *this.call) {
            if let Some(data) = frame.data_ref() {
                let messages = this.messages.count(data);
                if messages > 0 {
                    call.method.sent(messages);
                }
            } else if let Some(trailers) = frame.trailers_ref() {
                call.note(trailers);
            }
        }
        if !matches!(frame, Some(Ok(_))) {
            drop(this.call.take());
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

pin_project_lite::pin_project! {
    /// The body of a request, whose messages are counted.
    #[derive(Debug)]
    struct CountedRequest {
        #[pin]
        inner: Body,
        messages: Messages,
        method: Arc<MethodMetrics>,
    }
}

impl http_body::Body for CountedRequest {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let messages = this.messages.count(data);
            if messages > 0 {
                this.method.received(messages);
            }
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

/// Finds messages in a body: each has a byte for its compression, four for its length, and so many.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; 5],
    /// How much of the prefix is there; all of it while a message is being read.
    read: usize,
    /// How much of the message is to come.
    left: usize,
}

impl Messages {
    /// Returns how many messages end within `bytes`.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        while !bytes.is_empty() {
            if let Some(missing) = self.prefix.get_mut(self.read..).filter(|m| !m.is_empty()) {
                let length = missing.len().min(bytes.len());
                let (head, rest) = bytes.split_at(length);
                for (to, from) in missing.iter_mut().zip(head) {
                    *to = *from;
                }
                self.read += length;
                bytes = rest;
                if self.read < self.prefix.len() {
                    break;
                }
                let [_, a, b, c, d] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            }
            let length = self.left.min(bytes.len());
            let (_, rest) = bytes.split_at(length);
            self.left -= length;
            bytes = rest;
            if self.left == 0 {
                ended += 1;
                self.read = 0;
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        // Three bytes, none, one.
        let body = [
            0, 0, 0, 0, 3, b'a', b'b', b'c', 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, b'd',
        ];
        for size in 1..=body.len() {
            let mut messages = Messages::default();

            let ended: u64 = body.chunks(size).map(|part| messages.count(part)).sum();

            assert_eq!(ended, 3, "in parts of {size}");
        }
    }

    #[test]
    fn message_that_is_cut_short_does_not_count() {
        let mut messages = Messages::default();

        assert_eq!(messages.count(&[0, 0, 0, 0, 2, b'a']), 0);
    }

    #[test]
    fn methods_of_the_rules_alone_are_told_apart() {
        let metrics = Metrics::new([]);
        let rules = MethodRules::deny_all()
            .allow("/grpc.health.v1.Health/*", super::super::Rule::everyone())
            .allow("/a.B/Get", super::super::Rule::any_identity());

        let layer = MetricsLayer::new(&metrics, &rules, &[b"no descriptor"]);

        let by_path = &layer.methods.as_ref().unwrap().by_path;
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
        let watch = r#"grpc_server_started_total{grpc_type="server_stream",grpc_service="grpc.health.v1.Health",grpc_method="Watch"} 0"#;
        assert!(text.contains(watch), "{text}");
    }
}
