//! How long a call may go on: its token's time, and as long as its key is trusted and its caller may
//! call the method. What is open to everyone has a bound of its own, on connections that have shown
//! no verified token.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http_body::{Body as _, Frame};
use tokio::time::{Instant, sleep};
use tokio_util::sync::ReusableBoxFuture;
use tonic::Status;
use tonic::body::Body;

use super::callee::Callee;
use super::gate::Gate;
use super::status::refuse_in_full;
use super::{carrier, metadata, refuse};
use crate::admission::{Network, OpenCall, Standing};
use crate::telemetry::events;
use crate::token::{Reason, Refusal, VerifiedToken};
use crate::trust::KeySet;

/// For how long a stream may outlive the token with which it was opened.
pub(super) const STREAM_GRACE: Duration = Duration::from_secs(10);

/// How long a reply may be read, however late it comes.
const LATE: Duration = Duration::from_secs(60);

/// One admitted call, as long as its streams are open.
#[derive(Debug)]
pub(super) struct Session {
    gate: Arc<Gate>,
    token: VerifiedToken,
    due: SystemTime,
    path: PathAndQuery,
    peer: Option<SocketAddr>,
    /// Its connection, if our listener made it.
    standing: Option<Arc<Standing>>,
    /// Why it was ended, once it was.
    ended: OnceLock<Refusal>,
}

impl Session {
    pub(super) fn new(gate: &Arc<Gate>, token: &VerifiedToken, head: &Parts) -> Self {
        let now = gate.verifier.clock().now();
        Self {
            gate: Arc::clone(gate),
            // A call that was admitted within the leeway has its grace all the same.
            due: token.expires_at().max(now) + STREAM_GRACE,
            token: token.clone(),
            path: metadata::kept_path(&head.uri),
            peer: carrier::address_in(&head.extensions),
            standing: head.extensions.get().cloned(),
            ended: OnceLock::new(),
        }
    }

    /// Claims the use of its token, if others take each token once, too: the call waits for that.
    /// Counts the call.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Claiming> {
        let Some(claim) = self.gate.verifier.claim(&self.token) else {
            self.count(None);
            return None;
        };
        let session = Arc::clone(self);
        Some(ReusableBoxFuture::new(async move {
            let claimed = claim.await;
            session.count(claimed.as_ref().err());
            claimed.map_err(|refusal| session.end(refusal))?;
            session
                .gate
                .place(session.standing.as_ref(), &session.token)
        }))
    }

    fn count(&self, refusal: Option<&Refusal>) {
        let module = self.token.identity().module().as_str();
        match refusal {
            None => self.gate.metrics.accepted(module),
            Some(refusal) => {
                let reason = refusal.reason.as_str();
                self.gate.metrics.refused(reason, Some(module));
            }
        }
    }

    /// Ends the call because of `refusal`, unless it was ended before; returns the status that ends
    /// its streams.
    pub(super) fn end(&self, refusal: Refusal) -> Status {
        as_status(self.ended.get_or_init(|| {
            let call = events::RejectedCall {
                reason: refusal.reason.as_str(),
                fingerprint: Some(self.token.key_id().as_str()),
                peer: self.peer,
                method: self.path.as_str(),
                detail: &refusal.detail,
                help: refusal.help(),
            };
            let owner = Some(self.token.owner());
            self.gate
                .rejections
                .log(owner, refusal.reason.status(), &call);
            refusal
        }))
    }

    /// Completes once the call may not go on.
    async fn over(self: Arc<Self>) -> Status {
        let trust = self.gate.verifier.trust();
        let mut changes = trust.subscribe();
        loop {
            let still_admitted = self.still_admitted(&trust.current());
            if let Err(refusal) = still_admitted.and_then(|()| self.in_time()) {
                return self.end(refusal);
            }
            let left = self.due.duration_since(self.gate.verifier.clock().now());
            tokio::select! {
                // The clock may step where the timer does not.
                () = sleep(left.unwrap_or_default().min(MAX_UNCHECKED)) => {}
                // The store outlives the call, which holds it.
                _ = changes.changed() => {}
            }
        }
    }

    /// Checks that the caller is trusted, and that the method's rule admits who it is now.
    fn still_admitted(&self, trust: &KeySet) -> Result<(), Refusal> {
        let identity = self.token.identity_in(trust)?;
        let rule = self.gate.rules.find(self.path.as_str());
        match rule.filter(|_| identity != *self.token.identity()) {
            Some(rule) => rule.check(&identity),
            None => Ok(()),
        }
    }

    /// Has the connection end where the caller takes nothing of a reply until the call is over. A
    /// reply that comes late has as long as a caller without a token.
    fn hold(&self) -> Option<OpenCall> {
        let standing = self.standing.as_ref()?;
        let left = self.due.duration_since(self.gate.verifier.clock().now());
        let lasts = (left.unwrap_or_default() + STREAM_GRACE).max(LATE);
        Some(standing.begin(Instant::now() + lasts, true).0)
    }

    fn in_time(&self) -> Result<(), Refusal> {
        let now = self.gate.verifier.clock().now();
        let Ok(late) = now.duration_since(self.due) else {
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

/// Claims the use of a token; ends with the status of a call that may not begin.
pub(super) type Claiming = ReusableBoxFuture<'static, Result<(), Status>>;

/// Ends a stream as a new call would be refused: a caller without the role reads no detail.
fn as_status(refusal: &Refusal) -> Status {
    match refusal.reason {
        Reason::RoleMissing => refuse(refusal.reason, None),
        _ => refuse_in_full(refusal),
    }
}

/// What may end a call.
#[derive(Clone, Debug)]
pub(super) enum Limit {
    /// The token of a call that was admitted.
    Session(Arc<Session>),
    /// A call that was admitted without one.
    Visit(Arc<Visit>),
    /// The callee, whose key has to stay trusted.
    Callee(Callee),
}

impl Limit {
    /// Returns the status that ended one of its streams; `None` if all are open or complete.
    pub(super) fn ended(&self) -> Option<Status> {
        match self {
            Self::Session(session) => session.ended.get().map(as_status),
            Self::Visit(_) | Self::Callee(_) => None,
        }
    }

    /// Completes once the call may not go on.
    async fn over(self) -> Status {
        match self {
            Self::Session(session) => session.over().await,
            Self::Visit(visit) => visit.over().await,
            Self::Callee(callee) => callee.over().await,
        }
    }

    /// Checks what only the clock changes.
    fn in_time(&self) -> Result<(), Status> {
        match self {
            Self::Session(session) => session.in_time().map_err(|refusal| session.end(refusal)),
            Self::Visit(visit) => visit.in_time(),
            Self::Callee(_) => Ok(()),
        }
    }
}

const MAX_UNCHECKED: Duration = Duration::from_secs(60);

/// Watches a call while one of its bodies is open.
///
/// Nothing is armed before a body has made its reader wait or has passed a second message, so that
/// a unary call costs neither timer nor lock. One that waits holds one future; there is no task.
pub(super) struct Watch {
    limit: Limit,
    over: Option<Pin<Box<dyn Future<Output = Status> + Send>>>,
    messages: bool,
    held: Option<OpenCall>,
}

impl Watch {
    pub(super) fn of(limit: Limit) -> Self {
        Self {
            limit,
            over: None,
            messages: false,
            held: None,
        }
    }

    /// Polls the body of a reply. What its reader leaves waiting is polled no more: the connection
    /// then ends with the call.
    pub(super) fn poll_reply(
        &mut self,
        body: Pin<&mut Body>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Polled, Status>> {
        let polled = self.poll_body(body, cx);
        if let (None, Limit::Session(session)) = (&self.held, &self.limit)
            && let Poll::Ready(Ok(Some(Ok(frame)))) = &polled
            && frame.is_data()
        {
            self.held = session.hold();
        }
        polled
    }

    /// Polls `body`, unless the call may not go on.
    pub(super) fn poll_body(
        &mut self,
        body: Pin<&mut Body>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Polled, Status>> {
        if let Some(over) = &mut self.over {
            // A stream that never waits does not see its timer.
            self.limit.in_time()?;
            if let Poll::Ready(status) = over.as_mut().poll(cx) {
                return Poll::Ready(Err(status));
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
            let over = Box::pin(self.limit.clone().over());
            let over = self.over.insert(over);
            if answer.is_pending() {
                return over.as_mut().poll(cx).map(Err);
            }
        }
        answer.map(Ok)
    }
}

/// What a body answers.
pub(super) type Polled = Option<Result<Frame<Bytes>, Status>>;

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watch").field(&self.limit).finish()
    }
}

/// How many such calls may be open on one connection.
const MOST: usize = 4;

/// How many watches of the health may stay open: in all, and from one network.
const MOST_WATCHES: usize = 256;
const MOST_WATCHES_OF_ONE: usize = 8;

/// By one part in so many of its time a call may run over, while its end cannot be sent.
pub(super) const SLACK: u32 = 12;

/// The bound of a watch that has no end: longer than any connection lives.
const NO_END: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// How long `grpc.health.v1.Health/Watch` may go on where the caller has shown no token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum HealthWatch {
    /// As long as any other call that is open to everyone.
    #[default]
    Bounded,
    /// Without end: 256 in all, 8 from one address.
    Open,
}

/// What such calls may do.
#[derive(Clone, Debug)]
pub(super) struct Visits {
    longest: Duration,
    watches: Option<Arc<Watches>>,
}

/// The watches that stay open, and where they come from.
type Watches = Mutex<Vec<(Network, Weak<()>)>>;

impl Visits {
    pub(super) fn new(longest: Duration, health_watch: HealthWatch) -> Self {
        let is_open = health_watch == HealthWatch::Open;
        Self {
            longest,
            watches: is_open.then(Arc::default),
        }
    }

    /// Begins a call, if there is something to bound: nothing where the connection has shown a
    /// token, or is not our listener's.
    pub(super) fn begin(&self, head: &Parts) -> Result<Option<Arc<Visit>>, Status> {
        let standing = head.extensions.get::<Arc<Standing>>();
        let Some(standing) = standing.filter(|standing| !standing.is_verified()) else {
            return Ok(None);
        };
        let (begun, watch) = (Instant::now(), self.watch(head)?);
        // Where it cannot say that it ended, the connection is cut a little later.
        let lasts = match watch {
            Some(_) => NO_END,
            None => self.longest + self.longest / SLACK,
        };
        let due = begun + lasts;
        let (call, visits) = standing.begin(due, false);
        let visit = Visit {
            call,
            longest: self.longest,
            begun,
            watch,
        };
        if visits > MOST {
            let most = "at most 4 calls at once on a connection without a verified token";
            return Err(Status::resource_exhausted(most));
        }
        Ok(Some(Arc::new(visit)))
    }

    /// Returns what holds the place of a watch that stays open, if the call is one.
    fn watch(&self, head: &Parts) -> Result<Option<Arc<()>>, Status> {
        let address = carrier::address_in(&head.extensions);
        let Some((watches, address)) = self.watches.as_ref().zip(address) else {
            return Ok(None);
        };
        if metadata::path(&head.uri) != WATCH {
            return Ok(None);
        }
        let network = Network::of(address.ip());
        let mut open = watches.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, watch)| watch.strong_count() > 0);
        let of_one = open.iter().filter(|(other, _)| *other == network).count();
        if open.len() >= MOST_WATCHES || of_one >= MOST_WATCHES_OF_ONE {
            let many = "too many watches without a verified token are open";
            return Err(Status::resource_exhausted(many));
        }
        let place = Arc::new(());
        open.push((network, Arc::downgrade(&place)));
        Ok(Some(place))
    }
}

/// One such call, as long as it is open.
#[derive(Debug)]
pub(super) struct Visit {
    call: OpenCall,
    longest: Duration,
    begun: Instant,
    /// Its place, if it is a watch that stays open.
    watch: Option<Arc<()>>,
}

impl Visit {
    pub(super) fn in_time(&self) -> Result<(), Status> {
        let is_late = self.watch.is_none() && self.begun.elapsed() >= self.longest;
        if !is_late || self.call.standing.is_verified() {
            return Ok(());
        }
        let seconds = self.longest.as_secs();
        Err(Status::unavailable(format!(
            "a call without a token ends after {seconds} s; send a call with a token on this connection, or call again"
        )))
    }

    /// Completes once the call may not go on.
    pub(super) async fn over(self: Arc<Self>) -> Status {
        loop {
            // Later, the token may no longer be trusted.
            sleep(self.longest).await;
            if let Err(status) = self.in_time() {
                return status;
            }
        }
    }
}
