//! The body of a reply, which this crate may have to end.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use crate::telemetry::events;
use crate::token::Reason;

use super::gate::Gate;
use super::required_proof::Trust;
use super::session::{Polled, Watch};
use super::status::{reason_of, trailers};
use super::vouched::Callee;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// A body of which tonic can make its own.
pub trait ByteBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> ByteBody for B {}

pin_project_lite::pin_project! {
    /// The body of a reply.
    ///
    /// On the callee's side it ends with the call's session: `TOKEN_EXPIRED` or `KEY_REVOKED` in
    /// the trailers, and no message is taken from the handler after that. On the caller's side,
    /// where a proof was asked for and the headers hold none, the first message is replaced by
    /// `PROOF_MISSING`; only a refusal may do without. It ends with `PROOF_INVALID` when the callee is
    /// no longer trusted.
    #[derive(Debug)]
    pub(super) struct ReplyBody<R> {
        #[pin]
        inner: Option<R>,
        guard: Guard,
        text: Option<Bytes>,
    }
}

pin_project_lite::pin_project! {
    /// A call that was made, or was ended before it was.
    #[derive(Debug)]
    #[project = CallProjection]
    pub(super) enum Call<F> {
        Made { #[pin] future: F },
        Ended { status: Box<Status> },
        Over,
    }
}

impl<F: Future> Call<F> {
    pub(super) fn ended(status: Status) -> Self {
        let status = Box::new(status);
        Self::Ended { status }
    }

    /// Polls for the answer, or the status with which the call was ended.
    pub(super) fn poll_answer(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<F::Output, Status>> {
        match self.project() {
            CallProjection::Made { future } => future.poll(cx).map(Ok),
            CallProjection::Ended { status } => Poll::Ready(Err(Status::clone(status))),
            CallProjection::Over => Poll::Ready(Err(Status::internal("polled twice"))),
        }
    }
}

/// What watches over a body.
#[derive(Debug)]
pub(super) enum Guard {
    /// Nothing.
    None,
    /// The handler of a method, which may panic.
    Handler(Handler),
    /// The caller, who may have asked for a proof, and its trust in the callee.
    Caller(Trust, Watch<Callee>),
}

/// The handler of a call, and what watches over the call.
#[derive(Debug)]
pub(super) struct Handler {
    pub(super) gate: Arc<Gate>,
    pub(super) path: PathAndQuery,
    pub(super) watch: Option<Watch>,
}

impl<R> ReplyBody<R> {
    pub(super) fn new(inner: R, guard: Guard) -> Self {
        Self {
            inner: Some(inner),
            guard,
            text: None,
        }
    }

    /// Makes the reply that replaces one that is withheld.
    pub(super) fn instead(status: Status) -> Response<Self> {
        status.into_http::<()>().map(|()| Self {
            inner: None,
            guard: Guard::None,
            text: None,
        })
    }

    /// Makes the same for a request that is not gRPC, which reads the status of HTTP.
    pub(super) fn instead_over_http(status: &Status) -> Response<Self> {
        let code = match status.code() {
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            // As a path that is not served.
            Code::Unimplemented => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = serde_json::json!({
            "status": code.as_u16(),
            "reason": reason_of(status).map(Reason::as_str),
            "message": status.message(),
        });
        let mut response = Response::new(Self {
            inner: None,
            guard: Guard::None,
            text: Some(body.to_string().into()),
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
}

impl Guard {
    /// Polls `body`, unless it has to end with a status.
    fn poll<B: Body>(
        &mut self,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Polled<B>, Status>> {
        match self {
            Self::None => body.poll_frame(cx).map(Ok),
            Self::Caller(trust, watch) => {
                let polled = watch.poll_body(body, cx);
                polled.map(|polled| trust.judge::<B>(polled?))
            }
            Self::Handler(Handler { gate, path, watch }) => {
                caught(gate, path.as_str(), || match watch {
                    None => body.poll_frame(cx).map(Ok),
                    Some(watch) => watch.poll_body(body, cx),
                })
                .unwrap_or_else(|status| Poll::Ready(Err(status)))
            }
        }
    }

    /// Returns `true` if the end of the body is not known before it was judged.
    fn awaits_end(&self) -> bool {
        matches!(self, Self::Caller(trust, _) if trust.awaits_proof())
    }
}

impl<R: Body<Data = Bytes>> Body for ReplyBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(this.text.take().map(|text| Ok(Frame::data(text))));
        };
        Poll::Ready(ready!(this.guard.poll(inner, cx)).unwrap_or_else(|status| {
            // Dropping the body cancels the call.
            this.inner.set(None);
            Some(Ok(Frame::trailers(trailers(&status))))
        }))
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.inner.as_ref();
        match inner {
            Some(inner) => !self.guard.awaits_end() && inner.is_end_stream(),
            None => self.text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(_) if self.guard.awaits_end() => SizeHint::default(),
            Some(inner) => inner.size_hint(),
            None => {
                let bytes = self.text.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(bytes.try_into().unwrap_or(u64::MAX))
            }
        }
    }
}

/// Does `work` for a call of `path`. A panic is logged, and its status is the error. The payload of
/// a panic may hold anything, so only the panic hook's own line shows it.
///
/// A service that panicked is used again as a poisoned lock is: at its own risk. Each call has its
/// own clone of it.
pub(super) fn caught<T>(gate: &Gate, path: &str, work: impl FnOnce() -> T) -> Result<T, Status> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_panic| {
        if let Some(suppressed) = gate.rejections.admit(true, ("panic", path)) {
            events::handler_panicked(path, suppressed);
        }
        Status::internal("the call failed; see the callee's log")
    })
}
