//! How long an admitted call may go on: its token's time, and as long as its key is trusted.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::uri::PathAndQuery;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::clock::Clock;
use crate::telemetry::events;
use crate::token::{Reason, Refusal, TokenVerifier, VerifiedToken};
use crate::trust::TrustStore;

use super::status::refuse_in_full;
use super::{metadata, peer};

/// For how long a stream may outlive the token with which it was opened.
pub const STREAM_GRACE: Duration = Duration::from_secs(10);

/// One admitted call, as long as its streams are open.
#[derive(Debug)]
pub(super) struct Session {
    trust: Arc<TrustStore>,
    clock: Arc<dyn Clock>,
    token: VerifiedToken,
    due: SystemTime,
    path: PathAndQuery,
    peer: Option<SocketAddr>,
    /// Why it was ended, once it was.
    ended: OnceLock<Refusal>,
}

impl Session {
    pub(super) fn new(verifier: &TokenVerifier, token: &VerifiedToken, head: &Parts) -> Self {
        let now = verifier.clock().now();
        Self {
            trust: Arc::clone(verifier.trust()),
            clock: Arc::clone(verifier.clock()),
            // A call that was admitted within the leeway has its grace all the same.
            due: token.expires_at().max(now) + STREAM_GRACE,
            token: token.clone(),
            path: metadata::kept_path(&head.uri),
            peer: peer::address_in(&head.extensions),
            ended: OnceLock::new(),
        }
    }

    /// Returns the status that ended one of its streams; `None` if all are open or complete.
    pub(super) fn ended(&self) -> Option<Status> {
        self.ended.get().map(refuse_in_full)
    }

    /// Ends the call because of `refusal`, unless it was ended before, and logs it once; returns the
    /// status that ends its streams.
    pub(super) fn end(&self, refusal: Refusal) -> Status {
        refuse_in_full(self.ended.get_or_init(|| {
            let call = events::RejectedCall {
                reason: refusal.reason.as_str(),
                fingerprint: Some(self.token.key_id().as_str()),
                peer: self.peer,
                method: self.path.as_str(),
                detail: &refusal.detail,
                help: refusal.help(),
            };
            events::auth_rejected(&call, true, 0);
            refusal
        }))
    }
}

impl Watched for Arc<Session> {
    async fn over(self) -> Refusal {
        let mut changes = self.trust.subscribe();
        loop {
            let still_trusted = self.token.still_trusted(&self.trust.current());
            if let Err(refusal) = still_trusted.and_then(|()| self.in_time()) {
                return refusal;
            }
            let left = self.due.duration_since(self.clock.now());
            tokio::select! {
                // The clock may step where the timer does not.
                () = tokio::time::sleep(left.unwrap_or_default().min(MAX_UNCHECKED)) => {}
                // The store outlives the call, which holds it.
                _ = changes.changed() => {}
            }
        }
    }

    fn in_time(&self) -> Result<(), Refusal> {
        let Ok(late) = self.clock.now().duration_since(self.due) else {
            return Ok(());
        };
        let past = (late + STREAM_GRACE).as_secs();
        let grace = STREAM_GRACE.as_secs();
        let detail = format!(
            "the stream's token expired {past} s ago, {grace} s are granted; open the next stream before that"
        );
        Err(Refusal::new(Reason::TokenExpired, detail))
    }
}

/// What may end a call.
pub(super) trait Watched: Clone + Send + 'static {
    /// Completes once the call may not go on.
    fn over(self) -> impl Future<Output = Refusal> + Send;

    /// Checks what only the clock changes.
    fn in_time(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

const MAX_UNCHECKED: Duration = Duration::from_secs(60);

/// Watches a call while one of its bodies is open.
///
/// Nothing is armed before a body has made its reader wait or has passed a second message, so that
/// a unary call costs neither timer nor lock. One that waits holds one future; there is no task.
pub(super) struct Watch<S = Arc<Session>> {
    pub(super) session: S,
    over: Option<Pin<Box<dyn Future<Output = Refusal> + Send>>>,
    messages: bool,
}

impl<S: Watched> Watch<S> {
    pub(super) fn of(session: S) -> Self {
        Self {
            session,
            over: None,
            messages: false,
        }
    }

    /// Polls `body`, unless the session is over.
    pub(super) fn poll_body<B: Body>(
        &mut self,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Polled<B>, Refusal>> {
        if let Some(over) = &mut self.over {
            // A stream that never waits does not see its timer.
            self.session.in_time()?;
            if let Poll::Ready(refusal) = over.as_mut().poll(cx) {
                return Poll::Ready(Err(refusal));
            }
            return body.poll_frame(cx).map(Ok);
        }
        let answer = body.poll_frame(cx);
        let streams = match &answer {
            Poll::Pending => true,
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                std::mem::replace(&mut self.messages, true)
            }
            Poll::Ready(_) => false,
        };
        if streams {
            let over = Box::pin(self.session.clone().over());
            let over = self.over.insert(over);
            if answer.is_pending() {
                return over.as_mut().poll(cx).map(Err);
            }
        }
        answer.map(Ok)
    }
}

/// What a body answers.
pub(super) type Polled<B> = Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>;

impl<S: std::fmt::Debug> std::fmt::Debug for Watch<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watch").field(&self.session).finish()
    }
}

pin_project_lite::pin_project! {
    /// The body of a request, which fails once the session is over.
    #[derive(Debug)]
    pub(super) struct RequestBody {
        #[pin]
        inner: Option<tonic::body::Body>,
        watch: Watch,
    }
}

impl RequestBody {
    pub(super) fn new(inner: tonic::body::Body, session: Arc<Session>) -> Self {
        Self {
            inner: Some(inner),
            watch: Watch::of(session),
        }
    }
}

impl Body for RequestBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        match ready!(this.watch.poll_body(inner, cx)) {
            Ok(answer) => Poll::Ready(answer),
            Err(refusal) => {
                this.inner.set(None);
                Poll::Ready(Some(Err(this.watch.session.end(refusal))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
