//! The bodies of a call, which this crate may have to end, and the answer that decides on them.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::telemetry::events;
use crate::token::Reason;

use super::Rejections;
use super::gate::Gate;
use super::metrics::{Call, Counted, Largest};
use super::proof::Trust;
use super::session::{Polled, Watch};
use super::status::{reason_of, trailers};

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// A body of which tonic can make its own.
pub trait ByteBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> ByteBody for B {}

pin_project_lite::pin_project! {
    /// A body of a call: counted, and ended once the call may not go on.
    ///
    /// The body of a request then fails. A reply ends with the reason in its trailers, such as
    /// `TOKEN_EXPIRED` or `KEY_REVOKED`, and no message is taken from the handler after that. On
    /// the caller's side, where a proof was asked for and the headers hold none, the first message
    /// of a reply is replaced by `PROOF_MISSING`; only a refusal may do without. The reply ends
    /// with `PROOF_INVALID` when the callee is no longer trusted.
    #[derive(Debug)]
    pub(super) struct GuardedBody {
        #[pin]
        inner: Option<Body>,
        guard: Guard,
        counted: Option<Counted>,
    }
}

/// What watches over a body.
#[derive(Debug)]
pub(super) enum Guard {
    /// Nothing.
    None,
    /// The limit of a call, over its request.
    Request(Watch),
    /// The handler of a method, which may panic, and what watches over the call.
    Handler(Arc<Gate>, PathAndQuery, Option<Watch>),
    /// The caller, who may have asked for a proof, and its trust in the callee.
    Caller(Trust, Watch),
}

impl GuardedBody {
    /// Guards and counts `inner`, where there is anything to come and to do.
    pub(super) fn wrap(inner: Body, guard: Guard, counted: Option<Counted>) -> Body {
        let has_ended = inner.is_end_stream() && !guard.awaits_end();
        if has_ended || (matches!(guard, Guard::None) && counted.is_none()) {
            return inner;
        }
        Body::new(Self {
            inner: Some(inner),
            guard,
            counted,
        })
    }

    /// Guards and counts a reply, whose messages may not exceed the `largest`.
    pub(super) fn reply(
        response: Response<Body>,
        guard: Guard,
        call: Option<Call>,
        largest: Option<Largest>,
    ) -> Response<Body> {
        let counted = call.map(|call| call.answered(&response, largest));
        response.map(|inner| Self::wrap(inner, guard, counted))
    }
}

/// Makes the answer with `status` to a request that is not gRPC, which reads the status of HTTP.
pub(super) fn over_http(status: &Status) -> Response<Body> {
    let code = match status.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        // As a path that is not served.
        Code::Unimplemented => StatusCode::NOT_FOUND,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let body = serde_json::json!({
        "status": code.as_u16(),
        "reason": reason_of(status).map(Reason::as_str),
        "message": status.message(),
    });
    let mut response = Response::new(match code {
        // A body could wait for its reader.
        StatusCode::TOO_MANY_REQUESTS => Body::empty(),
        _ => Body::new(body.to_string()),
    });
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if code == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

impl Guard {
    /// Polls `body`, unless it has to end with a status.
    fn poll(&mut self, body: Pin<&mut Body>, cx: &mut Context<'_>) -> Poll<Result<Polled, Status>> {
        match self {
            Self::None => body.poll_frame(cx).map(Ok),
            Self::Request(watch) => watch.poll_body(body, cx),
            Self::Caller(trust, watch) => {
                let polled = watch.poll_body(body, cx);
                polled.map(|polled| trust.judge(polled?))
            }
            Self::Handler(gate, path, watch) => caught(gate, path.as_str(), || match watch {
                None => body.poll_frame(cx).map(Ok),
                Some(watch) => watch.poll_reply(body, cx),
            })
            .unwrap_or_else(|status| Poll::Ready(Err(status))),
        }
    }

    /// Returns `true` if the end of the body has to be polled for, since it is judged.
    fn awaits_end(&self) -> bool {
        matches!(self, Self::Caller(trust, _) if trust.awaits_proof())
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let polled = ready!(this.guard.poll(inner, cx));
        let judged = match this.counted {
            Some(counted) => polled.and_then(|polled| counted.count(polled)),
            None => polled,
        };
        let passed = judged.unwrap_or_else(|status| {
            // Dropping the body cancels the call.
            this.inner.set(None);
            Some(match this.guard {
                Guard::Handler(..) | Guard::Caller(..) => Ok(Frame::trailers(trailers(&status))),
                Guard::None | Guard::Request(_) => Err(status),
            })
        });
        if let Some(counted) = this.counted {
            counted.note(&passed);
        }
        if !matches!(passed, Some(Ok(_))) {
            *this.counted = None;
        }
        Poll::Ready(passed)
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.inner.as_ref();
        inner.is_none_or(|inner| !self.guard.awaits_end() && inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(_) if self.guard.awaits_end() => SizeHint::default(),
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// What a layer makes of the answer to a call.
pub(super) trait Judge<R, E> {
    /// Waits until the call may begin.
    fn poll_begin(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    /// Does `work`, which polls the call.
    fn caught<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, Status> {
        Ok(work())
    }

    /// Judges the answer, or the status with which the call ended without one.
    fn judge(self, answer: Result<Result<Response<R>, E>, Status>) -> Result<Response<Body>, E>;
}

pin_project_lite::pin_project! {
    /// The answer to a call, as a layer judges it.
    #[derive(Debug)]
    pub struct Answering<F, J> {
        #[pin]
        call: Option<F>,
        // Why the call was not made.
        status: Option<Box<Status>>,
        judge: Option<J>,
    }
}

impl<F, J> Answering<F, J> {
    /// Answers a `call` that was made, or was ended before it was.
    pub(super) fn new(call: Result<F, Status>, judge: J) -> Self {
        let (call, status) = match call {
            Ok(call) => (Some(call), None),
            Err(status) => (None, Some(Box::new(status))),
        };
        Self {
            call,
            status,
            judge: Some(judge),
        }
    }
}

impl<F, J, R, E> Future for Answering<F, J>
where
    F: Future<Output = Result<Response<R>, E>>,
    J: Judge<R, E>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = match (this.call.as_mut().as_pin_mut(), this.judge.as_mut()) {
            (Some(call), Some(judge)) => {
                let begun = ready!(judge.poll_begin(cx));
                match begun.and_then(|()| judge.caught(|| call.poll(cx))) {
                    Ok(polled) => Ok(ready!(polled)),
                    Err(status) => Err(status),
                }
            }
            _ => Err(this.status.take().map_or_else(again, |status| *status)),
        };
        this.call.set(None);
        Poll::Ready(match this.judge.take() {
            Some(judge) => judge.judge(answer),
            None => Ok(again().into_http()),
        })
    }
}

/// Does `work` for a call of `path`. A panic is logged, and its status is the error. The payload of
/// a panic may hold anything, so only the panic hook's own line shows it.
///
/// A service that panicked is used again as a poisoned lock is: at its own risk. Each call has its
/// own clone of it.
pub(super) fn caught<T>(gate: &Gate, path: &str, work: impl FnOnce() -> T) -> Result<T, Status> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_panic| {
        if let Some(suppressed) = gate.rejections.admit(Rejections::OWN, Code::Internal, path) {
            events::handler_panicked(path, suppressed);
        }
        Status::internal("the call failed; see the callee's log")
    })
}

fn again() -> Status {
    Status::internal("polled twice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_of_what_is_not_grpc_has_the_status_of_http_that_says_the_same() {
        for (status, expected) in [
            (Status::unauthenticated(""), 401),
            (Status::permission_denied(""), 403),
            (Status::unimplemented(""), 404),
            (Status::resource_exhausted(""), 429),
            (Status::unavailable(""), 503),
            (Status::internal(""), 500),
        ] {
            assert_eq!(over_http(&status).status(), expected, "{status}");
        }
    }
}
