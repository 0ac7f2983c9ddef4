//! The callee's side: no call reaches a handler without a verified identity.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;
use crate::token::proof::EngineClaim;
use crate::token::{Accept, Caller, Refusal, TokenVerifier, VerifiedToken};

use super::carrier::Plaintext;
use super::pending_proof::{PendingProof, Proofs};
use super::reply::{AnyBody, Call, Guard, ReplyBody, caught};
use super::session::{RequestBody, Session, Watch};
use super::status::refuse_in_full;
use super::{MethodRules, MetricsLayer, Rejections, listener, metadata, metrics, peer, refuse};

/// Whether a call needs a token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tokens {
    /// It does.
    #[default]
    Required,
    /// A call over loopback without a token is let through, without an identity; a token that is
    /// there must verify. `ataccama.authentication.grpc.internal.jwt.enable=false`.
    OptionalOnLoopback,
}

/// Puts [`VerifyIdentity`] before the services of a server.
///
/// Wrap the whole server with it, so that no method can be forgotten:
/// `Server::builder().layer(module.server_layer(rules))`. Works for unary and streaming methods:
/// the decision falls on the headers, before any body is read.
///
/// A stream, of requests or replies, ends with `TOKEN_EXPIRED`
/// [`STREAM_GRACE`](super::STREAM_GRACE) after the token with which it was opened, and with
/// `KEY_REVOKED` at once when that key is revoked. A unary call ends by itself; its handler is not
/// interrupted.
#[derive(Clone, Debug)]
pub struct VerifyIdentityLayer {
    pub(super) gate: Arc<Gate>,
    pub(super) proofs: Proofs,
    /// Counts the calls, where no layer before this one does.
    pub(super) counted: Option<MetricsLayer>,
    pub(super) is_any_transport: bool,
}

impl VerifyIdentityLayer {
    /// Also counts the calls by method.
    pub(super) fn counted(self) -> Self {
        let counted = MetricsLayer::new(&self.gate.metrics, &self.gate.rules, &[]);
        Self {
            counted: Some(counted),
            ..self
        }
    }

    /// Accepts calls whatever they came over, also where the server says nothing of it. Where the
    /// network between can be read, who reads it can use the tokens until they expire.
    #[must_use]
    pub fn dangerous_any_transport(mut self) -> Self {
        self.is_any_transport = true;
        self
    }

    /// Names `engine` in the proof of every reply to `CheckStatus`, a refusal's too. A handler
    /// names one for a reply of its own by putting an [`EngineClaim`] into its extensions.
    #[must_use]
    pub fn as_engine(mut self, engine: EngineClaim) -> Self {
        self.proofs.engine = Some(Arc::new(engine));
        self
    }
}

impl<S> Layer<S> for VerifyIdentityLayer {
    type Service = VerifyIdentity<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let layer = self.clone();
        VerifyIdentity { inner, layer }
    }
}

/// Verifies the caller, then calls `inner` with a [`ServiceIdentity`] among the extensions. Answers
/// INTERNAL if `inner` panics, before its reply or within it.
///
/// [`ServiceIdentity`]: crate::identity::ServiceIdentity
#[derive(Clone, Debug)]
pub struct VerifyIdentity<S> {
    inner: S,
    layer: VerifyIdentityLayer,
}

#[derive(Debug)]
pub(super) struct Gate {
    pub(super) verifier: TokenVerifier,
    pub(super) rules: MethodRules,
    pub(super) tokens: Tokens,
    pub(super) rejections: Arc<Rejections>,
    pub(super) plaintext: Plaintext,
    pub(super) metrics: Arc<Metrics>,
}

/// A call that is not admitted.
struct Refused {
    status: Status,
    /// The token's `iss`, if its signature verified: the audience of a proof of the refusal.
    caller: Option<String>,
}

impl Gate {
    /// Decides from the connection and the headers only; `None` admits without an identity.
    fn decide(
        &self,
        head: &Parts,
        is_any_transport: bool,
    ) -> Result<Option<VerifiedToken>, Refused> {
        let path = metadata::path(&head.uri);
        let address = peer::address_in(&head.extensions);
        if !is_any_transport {
            self.plaintext.judge(&head.extensions).map_err(|refusal| {
                let status = refuse(refusal.reason, None);
                self.rejected(refusal, status, path, address)
            })?;
        }
        let rule = self.rules.find(path);
        if rule.is_some_and(|rule| rule.everyone) {
            return Ok(None);
        }
        let loopback = address.is_some_and(|at| at.ip().to_canonical().is_loopback());
        let optional = self.tokens == Tokens::OptionalOnLoopback && loopback;
        if optional && rule.is_some() && !metadata::has_token(&head.headers) {
            return Ok(None);
        }
        let own_module = loopback && rule.is_some_and(|rule| rule.own_module);
        let accept = if own_module {
            Accept::PeersAndOwnModule
        } else {
            Accept::Peers
        };
        let token = self.verify(head, accept).map_err(|refusal| {
            let status = match refusal.caller {
                Caller::Deployment(_) => refuse_in_full(&refusal),
                Caller::Unverified | Caller::OwnModule => refuse(refusal.reason, None),
            };
            self.rejected(refusal, status, path, address)
        })?;
        let Some(rule) = rule else {
            if self.rules.is_first_miss(path) {
                events::method_without_rule(path);
            }
            return Err(Refused {
                status: Status::unimplemented(""),
                caller: Some(token.issuer().to_owned()),
            });
        };
        if !(own_module && token.deployment().is_none()) {
            rule.check(token.identity()).map_err(|refusal| {
                let caller = token.deployment().map(|caller| caller.name.clone());
                let refusal = Refusal {
                    key_id: Some(token.key_id().to_string()),
                    caller: caller.map_or(Caller::OwnModule, Caller::Deployment),
                    issuer: Some(token.issuer().to_owned()),
                    ..refusal
                };
                let status = refuse(refusal.reason, None);
                self.rejected(refusal, status, path, address)
            })?;
        }
        listener::verified(&head.extensions);
        self.metrics.accepted(token.identity().module().as_str());
        Ok(Some(token))
    }

    fn verify(&self, head: &Parts, accept: Accept) -> Result<VerifiedToken, Refusal> {
        let token = metadata::bearer(&head.headers)?;
        let started = Instant::now();
        let certificate = peer::certificate_in(&head.extensions).transpose()?;
        let (verified, remembered) = self.verifier.verify_over(token, accept, certificate);
        self.metrics
            .verified_in(started.elapsed().as_secs_f64(), remembered);
        note_clock(&self.metrics, &verified);
        verified
    }

    /// Logs a refusal in full, unless one like it was logged a moment ago, and answers with
    /// `status`, which says what the caller may know.
    fn rejected(
        &self,
        refusal: Refusal,
        status: Status,
        path: &str,
        peer: Option<SocketAddr>,
    ) -> Refused {
        let trust = self.verifier.trust().current();
        let caller = refusal
            .deployment()
            .and_then(|name| trust.deployment(name.as_str()));
        let module = caller.map(|caller| caller.module.as_str());
        self.metrics.refused(refusal.reason.as_str(), module);
        let call = events::RejectedCall {
            reason: refusal.reason.as_str(),
            fingerprint: refusal.key_id.as_deref(),
            peer,
            method: path,
            detail: &refusal.detail,
            help: refusal.reason.help(),
        };
        self.rejections.log(refusal.deployment().is_some(), &call);
        Refused {
            status,
            caller: refusal.issuer,
        }
    }
}

/// Notes what a token shows of its caller's clock. One that was meant for a different module may
/// come from any module that received it, and shows nothing.
fn note_clock(metrics: &Metrics, verified: &Result<VerifiedToken, Refusal>) {
    match verified {
        Ok(token) => {
            if let Some(caller) = token.deployment() {
                metrics.clock_agrees(caller.name.as_str());
            }
        }
        Err(refusal) => {
            let caller = refusal.deployment().filter(|_| refusal.issuer.is_some());
            let clocks = refusal.clocks.as_ref();
            let ahead = clocks.and_then(|clocks| clocks.caller_ahead);
            if let Some((caller, ahead)) = caller.zip(ahead) {
                metrics.clock_estimated(caller.as_str(), ahead);
            }
        }
    }
}

impl<S, Q, R> Service<Request<Q>> for VerifyIdentity<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: 'static>,
    Q: AnyBody,
    R: AnyBody,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = VerifyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let path = metadata::kept_path(request.uri());
        let (arrived, counted) = match &self.layer.counted {
            Some(layer) => {
                let (counted, call) = layer.started(request);
                (counted, Some(call))
            }
            None => (request.map(Body::new), None),
        };
        let (call, session, proof) = caught(path.as_str(), || self.admit(arrived))
            .unwrap_or_else(|status| (Call::ended(status), None, None));
        VerifyFuture {
            call,
            counted,
            path,
            session,
            proof,
        }
    }
}

/// A call, and what goes with its reply.
type Admitted<F> = (Call<F>, Option<Arc<Session>>, Option<PendingProof>);

impl<S: Service<Request<Body>>> VerifyIdentity<S> {
    fn admit(&mut self, request: Request<Body>) -> Admitted<S::Future> {
        let (mut head, body) = request.into_parts();
        listener::arrived(&mut head.extensions);
        let VerifyIdentityLayer {
            gate,
            proofs,
            is_any_transport,
            ..
        } = &self.layer;
        let decided = gate.decide(&head, *is_any_transport);
        // A caller may ask for a proof where it needs no identity, too.
        let asks = matches!(decided, Ok(None)) && head.headers.contains_key(metadata::NONCE);
        let verified = asks.then(|| gate.verify(&head, Accept::Peers));
        let asking = verified.and_then(Result::ok);
        let issuer = match &decided {
            Ok(token) => token
                .as_ref()
                .or(asking.as_ref())
                .map(VerifiedToken::issuer),
            Err(refused) => refused.caller.as_deref(),
        };
        let proof = issuer.and_then(|issuer| PendingProof::of(proofs, &head, issuer));
        let token = match decided {
            Ok(token) => token,
            Err(refused) => return (Call::ended(refused.status), None, proof),
        };
        let session = token
            .as_ref()
            .map(|token| Arc::new(Session::new(&gate.verifier, token, &head)));
        let watched = match &session {
            Some(session) => Body::new(RequestBody::new(body, Arc::clone(session))),
            None => body,
        };
        if let Some(token) = token {
            head.extensions.insert(token.identity().clone());
            head.extensions.insert::<VerifiedToken>(token);
        }
        let future = self.inner.call(Request::from_parts(head, watched));
        (Call::Made { future }, session, proof)
    }
}

pin_project_lite::pin_project! {
    /// The answer of [`VerifyIdentity`]: the handler's, or the refusal.
    #[derive(Debug)]
    pub struct VerifyFuture<F> {
        #[pin]
        call: Call<F>,
        counted: Option<metrics::Call>,
        path: PathAndQuery,
        session: Option<Arc<Session>>,
        proof: Option<PendingProof>,
    }
}

impl<F, R, E> Future for VerifyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: AnyBody,
    E: 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let call = this.call.as_mut();
        let answer = match caught(this.path.as_str(), || call.poll_answer(cx)) {
            Ok(answer) => ready!(answer),
            Err(status) => {
                this.call.set(Call::Over);
                *this.proof = None;
                Err(status)
            }
        };
        let session = this.session.take();
        // A request that was ended is refused, whatever the handler made of its end.
        let ended = session.as_ref().and_then(|session| session.ended());
        let answer = match (answer, ended) {
            (Err(status), _) | (Ok(Ok(_)), Some(status)) => Ok(ReplyBody::instead(status)),
            (Ok(Err(error)), _) => Err(error),
            (Ok(Ok(response)), None) => Ok(response.map(|body| {
                let watch = session.map(Watch::of);
                ReplyBody::new(body, Guard::Handler(this.path.clone(), watch))
            })),
        };
        let proved = answer.map(|response| match this.proof.take() {
            Some(proof) => proof.countersign(response),
            None => response,
        });
        Poll::Ready(match this.counted.take() {
            Some(call) => call.answered(proved),
            None => proved.map(|response| response.map(Body::new)),
        })
    }
}
