//! Counts calls and messages by method: those that arrive and those that are made.

use std::any::Any;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::Error as TransportError;
use tonic::{Code, Status};

use super::MethodRules;
use super::authorize::method_paths;
use super::session::Polled;
use super::status::number;
use crate::proto;
use crate::telemetry::metrics::{GrpcSide, MethodMetrics, Metrics};

type BoxError = Box<dyn Error + Send + Sync>;

/// Counts calls, as go-grpc-prometheus does.
///
/// A call whose caller left or whose time is over ends as `Canceled`. A method without a rule
/// counts as `other`, so that no caller can make up series.
#[derive(Clone, Debug)]
pub(super) struct Counters(Arc<Methods>);

#[derive(Debug)]
struct Methods {
    by_path: HashMap<String, Arc<MethodMetrics>>,
    other: Arc<MethodMetrics>,
}

impl Counters {
    /// Counts in `metrics` the methods of `rules`. The descriptors of this crate and those of the
    /// rules say which methods stream. Of a rule for a whole service, only the methods described
    /// have series of their own.
    pub(super) fn of_rules(metrics: &Metrics, rules: &MethodRules) -> Self {
        let own = method_paths(&OWN_DESCRIPTORS).unwrap_or_default();
        let described = own.iter().chain(rules.methods_described());
        let streaming = described.filter(|(path, _)| rules.find(path).is_some());
        let undescribed = rules.paths().map(|path| (path, "unknown"));
        // What comes later wins.
        let all = undescribed.chain(streaming.map(|(path, kind)| (path.as_str(), *kind)));
        Self::of(metrics, GrpcSide::Server, all)
    }

    /// Counts in `metrics` the calls that a module makes: the methods of this crate's own services,
    /// and all others as `other`.
    pub(super) fn of_calls(metrics: &Metrics) -> Self {
        let own = method_paths(&[proto::FILE_DESCRIPTOR_SET]).unwrap_or_default();
        let all = own.iter().map(|(path, kind)| (path.as_str(), *kind));
        Self::of(metrics, GrpcSide::Client, all)
    }

    fn of<'a>(
        metrics: &Metrics,
        side: GrpcSide,
        methods: impl Iterator<Item = (&'a str, &'static str)>,
    ) -> Self {
        let by_path: HashMap<_, _> = methods.collect();
        let labelled = by_path.into_iter().filter_map(|(path, kind)| {
            let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
            let counted = metrics.of_method(side, &[service, kind, method]);
            Some((path.to_owned(), Arc::new(counted)))
        });
        Self(Arc::new(Methods {
            by_path: labelled.collect(),
            other: Arc::new(metrics.of_method(side, &["other"; 3])),
        }))
    }

    /// Counts that a call of `path` begins.
    pub(super) fn started(&self, path: &str) -> Call {
        let Methods { by_path, other } = &*self.0;
        let method = by_path.get(path).unwrap_or(other);
        method.started();
        Call {
            method: Arc::clone(method),
            started: Instant::now(),
            code: None,
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
    pub(super) fn failed(mut self, error: &dyn Any) {
        if let Some(status) = error.downcast_ref::<Status>() {
            self.code = Some(status.code());
        } else if let Some(error) = error.downcast_ref::<TransportError>() {
            self.code = Some(code_of_error(error));
        } else if let Some(error) = error.downcast_ref::<BoxError>() {
            self.code = Some(code_of_error(&**error));
        }
    }

    /// Notes how the call was answered, and counts the messages of its reply.
    pub(super) fn answered(
        mut self,
        response: &Response<Body>,
        largest: Option<Largest>,
    ) -> Counted {
        if response.status() != StatusCode::OK {
            self.code = Some(code_of_http(response.status()));
        }
        self.note(response.headers());
        if response.body().is_end_stream() {
            // Without a status it is no answer.
            self.code = self.code.or(Some(Code::Unknown));
        }
        Counted {
            // A proxy's page is not made of messages.
            messages: Messages {
                largest: largest.filter(|_| response.status() == StatusCode::OK),
                ..Messages::default()
            },
            part: Part::Reply(self),
        }
    }
}

/// The messages of one body.
#[derive(Debug)]
pub(super) struct Counted {
    messages: Messages,
    part: Part,
}

/// What a body is of its call.
#[derive(Debug)]
enum Part {
    /// Of one that is not counted, if it has no method.
    Request(Option<Arc<MethodMetrics>>),
    /// The end of a reply is the call's.
    Reply(Call),
}

impl Counted {
    /// Counts the messages of a request for its `call`, and bounds them by `largest`; nothing
    /// where there is neither.
    pub(super) fn request(call: Option<&Call>, largest: Option<Largest>) -> Option<Self> {
        let method = call.map(|call| Arc::clone(&call.method));
        (method.is_some() || largest.is_some()).then(|| Self {
            messages: Messages {
                largest,
                ..Messages::default()
            },
            part: Part::Request(method),
        })
    }

    /// Counts the messages of what a body gives next.
    ///
    /// # Errors
    ///
    /// When one begins that is too large.
    pub(super) fn count(&mut self, polled: Polled) -> Result<Polled, Status> {
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
        {
            let messages = self.messages.count(data)?;
            match &self.part {
                Part::Request(Some(method)) => method.requests(messages),
                Part::Request(None) => {}
                Part::Reply(call) => call.method.replies(messages),
            }
        }
        Ok(polled)
    }

    /// Notes how the call ends, as far as what is passed on shows it.
    pub(super) fn note(&mut self, passed: &Polled) {
        let Part::Reply(call) = &mut self.part else {
            return;
        };
        match passed {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    call.note(trailers);
                }
            }
            Some(Err(error)) => call.code = Some(error.code()),
            // It broke no rule of HTTP/2, and is no answer.
            None => call.code = call.code.or(Some(Code::Unknown)),
        }
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

/// Finds messages in a body: each has a byte for its compression, four for its length, and so many.
#[derive(Debug, Default)]
struct Messages {
    largest: Option<Largest>,
    /// How many bytes of the prefix were read; all of them while a message is being read.
    read: u8,
    /// How much of the message is to come, as far as the prefix was read.
    left: usize,
}

/// The largest message, in bytes, and the setting that says so.
#[derive(Clone, Copy, Debug)]
pub(in crate::grpc) struct Largest(pub(in crate::grpc) usize, pub(in crate::grpc) &'static str);

const PREFIX_BYTES: u8 = 5;

impl Messages {
    /// Returns how many messages end within `bytes`.
    ///
    /// # Errors
    ///
    /// When one begins that is too large.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> Result<u64, Status> {
        let mut ended = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.read < PREFIX_BYTES {
                self.read += 1;
                // The first byte, of the compression, is shifted out.
                self.left = (self.left << 8 | usize::from(*first)) & 0xffff_ffff;
                bytes = rest;
                if let Some(Largest(most, setting)) = self.largest
                    && self.read == PREFIX_BYTES
                    && self.left > most
                {
                    let left = self.left;
                    let why = format!("a message of {left} bytes; `{setting}` allows {most} bytes");
                    return Err(Status::out_of_range(why));
                }
            } else {
                let length = self.left.min(bytes.len());
                self.left -= length;
                (_, bytes) = bytes.split_at(length);
            }
            if self.read == PREFIX_BYTES && self.left == 0 {
                ended += 1;
                self.read = 0;
            }
        }
        Ok(ended)
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

        let counters = Counters::of_rules(&metrics, &rules);

        let by_path = &counters.0.by_path;
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

    #[test]
    fn described_methods_are_counted_as_they_stream() {
        use prost::Message as _;
        use prost_types::{
            FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
        };

        let metrics = Metrics::new("greeter", []).unwrap();
        let method = MethodDescriptorProto {
            name: Some("Get".to_owned()),
            server_streaming: Some(true),
            ..Default::default()
        };
        let service = ServiceDescriptorProto {
            name: Some("B".to_owned()),
            method: vec![method],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            package: Some("a".to_owned()),
            service: vec![service],
            ..Default::default()
        };
        let set = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        let rules = MethodRules::described(&[&set]).unwrap();
        let rules = rules.allow("/a.B/*", super::super::Rule::any_identity());

        Counters::of_rules(&metrics, &rules.unwrap());

        let text = metrics.render();
        let get = r#"grpc_server_started_total{grpc_method="Get",grpc_service="a.B",grpc_type="server_stream"} 0"#;
        assert!(text.contains(get), "{text}");
    }

    fn messages(largest: usize) -> Messages {
        Messages {
            largest: Some(Largest(largest, "a.size")),
            ..Messages::default()
        }
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        // Three bytes, none, one.
        let body = [
            0, 0, 0, 0, 3, b'a', b'b', b'c', 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, b'd',
        ];
        for size in 1..=body.len() {
            let mut messages = messages(3);

            let parts = body.chunks(size).map(|part| messages.count(part).unwrap());
            let ended: u64 = parts.sum();

            assert_eq!(ended, 3, "in parts of {size}");
        }
    }

    #[test]
    fn message_that_is_cut_short_does_not_count() {
        let mut messages = messages(2);

        assert_eq!(messages.count(&[0, 0, 0, 0, 2, b'a']).unwrap(), 0);
    }

    #[test]
    fn message_above_the_largest_is_refused_before_it_came() {
        let mut messages = messages(3);

        assert_eq!(messages.count(&[0, 0, 0, 0]).unwrap(), 0);
        let refused = messages.count(&[4]).unwrap_err();

        assert_eq!(
            refused.message(),
            "a message of 4 bytes; `a.size` allows 3 bytes"
        );
    }
}
