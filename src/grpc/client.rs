//! The caller's side: every call carries this module's identity, and the callee may have to prove
//! its own.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwapOption;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Request, Response};
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::Clock;
use crate::identity::DeploymentName;
use crate::token::proof::{EngineClaim, Exchange, ProofVerifier};
use crate::token::{IssueError, IssuedToken, Nonce, Reason, Refusal, TokenIssuer};
use crate::trust::{Deployment, KeySet, TrustStore};

use super::{metadata, refuse};

/// Attaches this module's identity to every call of a client, for one named callee.
///
/// Put it before a channel: `GreeterClient::new(module.client_layer("dpm-dev")?.layer(channel))`.
/// One token serves all calls until half of its life is over; then one call renews it while the
/// others go on with the old one.
#[derive(Clone, Debug)]
pub struct AttachIdentityLayer {
    tokens: Arc<CallerTokens>,
    proof: Option<Arc<RequiredProof>>,
}

/// The reply's proof held. Found in the extensions of a response.
#[derive(Clone, Copy, Debug)]
pub struct Proved;

#[derive(Debug)]
struct RequiredProof {
    verifier: ProofVerifier,
    engine: Option<EngineClaim>,
}

impl AttachIdentityLayer {
    pub(super) fn new(tokens: CallerTokens) -> Self {
        Self {
            tokens: Arc::new(tokens),
            proof: None,
        }
    }

    /// Requires the callee's proof on every call, and that it is `engine` where one is given.
    ///
    /// An OK reply without a proof becomes `PROOF_MISSING`, one that does not hold
    /// `PROOF_INVALID`, before its first message is handed over. A refusal without a proof is
    /// passed on as it is; it carries no [`Proved`].
    #[must_use]
    pub fn require_proof(&self, verifier: ProofVerifier, engine: Option<EngineClaim>) -> Self {
        let proof = Some(Arc::new(RequiredProof { verifier, engine }));
        Self {
            tokens: Arc::clone(&self.tokens),
            proof,
        }
    }
}

impl<S> Layer<S> for AttachIdentityLayer {
    type Service = AttachIdentity<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AttachIdentity {
            inner,
            tokens: Arc::clone(&self.tokens),
            proof: self.proof.clone(),
        }
    }
}

/// Whom the tokens of a layer are for.
#[derive(Clone, Debug)]
pub(super) enum Callee {
    Deployment(DeploymentName),
    OwnModule,
}

/// The token in use towards one callee, and how to get the next.
#[derive(Debug)]
pub(super) struct CallerTokens {
    pub(super) issuer: TokenIssuer,
    pub(super) caller: String,
    pub(super) trust: Arc<TrustStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) callee: Callee,
    pub(super) current: ArcSwapOption<CallerToken>,
    pub(super) renewing: Mutex<()>,
}

#[derive(Debug)]
pub(super) struct CallerToken {
    token: IssuedToken,
    value: HeaderValue,
    callee: Option<Arc<Deployment>>,
    trust: Arc<KeySet>,
}

#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("deployment `{0}` is not trusted here any more")]
    NotTrusted(DeploymentName),
    #[error("every key of deployment `{0}` is revoked here")]
    Revoked(DeploymentName),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("the token is no header value")]
    Value,
}

impl CallerTokens {
    fn get(&self) -> Result<Arc<CallerToken>, TokenError> {
        let now = self.clock.now();
        if let Some(current) = &*self.current.load() {
            let single_use = current
                .callee
                .as_ref()
                .is_some_and(|callee| callee.single_use_tokens);
            let same_trust = Arc::ptr_eq(&current.trust, &self.trust.current());
            if !single_use && same_trust && current.token.is_valid_at(now) {
                if !current.token.is_due_at(now) {
                    return Ok(Arc::clone(current));
                }
                let renewed = self
                    .renewing
                    .try_lock()
                    .ok()
                    .and_then(|_alone| self.renew().ok());
                return Ok(renewed.unwrap_or_else(|| Arc::clone(current)));
            }
        }
        let _alone = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        self.renew()
    }

    fn renew(&self) -> Result<Arc<CallerToken>, TokenError> {
        let trust = self.trust.load();
        let (token, callee) = match &self.callee {
            Callee::OwnModule => (self.issuer.issue_for_own_module()?, None),
            Callee::Deployment(name) => {
                let callee = trust.deployment(name.as_str());
                let callee = callee.ok_or_else(|| TokenError::NotTrusted(name.clone()))?;
                if callee.active_keys().next().is_none() {
                    return Err(TokenError::Revoked(name.clone()));
                }
                (self.issuer.issue(callee)?, Some(Arc::clone(callee)))
            }
        };
        let value = metadata::authorization(token.expose()).ok_or(TokenError::Value)?;
        let token = Arc::new(CallerToken {
            token,
            value,
            callee,
            trust,
        });
        self.current.store(Some(Arc::clone(&token)));
        Ok(token)
    }
}

/// Attaches the identity, then calls `inner`.
#[derive(Clone, Debug)]
pub struct AttachIdentity<S> {
    inner: S,
    tokens: Arc<CallerTokens>,
    proof: Option<Arc<RequiredProof>>,
}

impl<S> AttachIdentity<S> {
    fn attach(&self, path: &str, headers: &mut HeaderMap) -> Result<Option<Expected>, Status> {
        let token = self.tokens.get().map_err(|error| not_called(&error))?;
        headers.insert(AUTHORIZATION, token.value.clone());
        let Some(required) = &self.proof else {
            return Ok(None);
        };
        let nonce = Nonce::generate().map_err(|error| not_called(&error))?;
        let value = HeaderValue::try_from(nonce.to_string()).map_err(|error| not_called(&error))?;
        headers.insert(metadata::NONCE, value);
        let (required, caller) = (Arc::clone(required), self.tokens.caller.clone());
        Ok(Some(Expected {
            required,
            token,
            nonce,
            caller,
            path: path.to_owned(),
        }))
    }
}

fn not_called(error: &dyn std::error::Error) -> Status {
    Status::failed_precondition(format!("not called: {}", super::cause(error)))
}

impl<S, B, R> Service<Request<B>> for AttachIdentity<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = AttachFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let state = match self.attach(head.uri.path(), &mut head.headers) {
            Ok(expected) => {
                let future = self.inner.call(Request::from_parts(head, body));
                State::Called { future, expected }
            }
            Err(status) => State::NotCalled {
                status: Some(status),
            },
        };
        AttachFuture { state }
    }
}

/// The proof that a reply must carry.
#[derive(Debug)]
struct Expected {
    required: Arc<RequiredProof>,
    token: Arc<CallerToken>,
    nonce: Nonce,
    caller: String,
    path: String,
}

impl Expected {
    fn judge<R: Default>(&self, mut response: Response<R>) -> Response<R> {
        let refused = response
            .headers()
            .get(Status::GRPC_STATUS)
            .is_some_and(|code| code != "0");
        match self.check(response.headers()) {
            Ok(()) => {
                response.extensions_mut().insert(Proved);
                response
            }
            Err(refusal) if refused && refusal.reason == Reason::ProofMissing => response,
            Err(refusal) => refuse(refusal.reason, Some(&refusal.detail)).into_http(),
        }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut proofs = headers.get_all(metadata::PROOF).iter();
        let Some(proof) = proofs.next() else {
            let detail = "the reply carries no `countersign-proof`";
            return Err(Refusal::new(Reason::ProofMissing, detail));
        };
        let invalid = |detail: &str| Refusal::new(Reason::ProofInvalid, detail);
        if proofs.next().is_some() {
            return Err(invalid("the reply carries two proofs"));
        }
        let proof = proof
            .to_str()
            .ok()
            .ok_or_else(|| invalid("it is no text"))?;
        let callee = self.token.callee.as_ref();
        let callee = callee.ok_or_else(|| invalid("a module asks itself for no proof"))?;
        let exchange = Exchange {
            caller: &self.caller,
            nonce: self.nonce,
            token: self.token.token.expose(),
            path: &self.path,
        };
        let engine = self.required.engine.as_ref();
        self.required
            .verifier
            .verify(proof, &exchange, callee, engine)
    }
}

pin_project_lite::pin_project! {
    /// The answer of [`AttachIdentity`]: the callee's, or why it is not believed.
    #[derive(Debug)]
    pub struct AttachFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project_lite::pin_project! {
    #[derive(Debug)]
    #[project = StateProjection]
    enum State<F> {
        Called { #[pin] future: F, expected: Option<Expected> },
        NotCalled { status: Option<Status> },
    }
}

impl<F, R, E> Future for AttachFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Called { future, expected } => {
                let response = ready!(future.poll(cx));
                Poll::Ready(response.map(|response| match expected.take() {
                    Some(expected) => expected.judge(response),
                    None => response,
                }))
            }
            StateProjection::NotCalled { status } => {
                let status = status
                    .take()
                    .unwrap_or_else(|| Status::internal("polled twice"));
                Poll::Ready(Ok(status.into_http()))
            }
        }
    }
}
