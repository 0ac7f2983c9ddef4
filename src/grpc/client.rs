//! The caller's side: every call carries this module's identity, and the callee may have to prove
//! its own.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Request, Response, Uri};
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::token::Nonce;
use crate::token::proof::{EngineClaim, ProofVerifier};

use super::caller_tokens::{CallerToken, CallerTokens};
use super::metadata;
use super::metrics::{self, MetricsLayer};
use super::reply::{AnyBody, Call, Guard, ReplyBody};
use super::required_proof::{Expected, ProofMode, RequiredProof, Trust};
use super::status::refuse_in_full;

/// Attaches this module's identity to every call of a client, for one named callee.
///
/// Put it before a channel: `GreeterClient::new(module.client_layer("dpm-dev")?.layer(channel))`.
/// One token serves all calls until half of its life is over; then one call renews it while the
/// others go on with the old one. Which replies must carry the callee's proof is the module's
/// [`ProofMode`], or [`require_proof`](Self::require_proof).
///
/// An OK reply without a proof that was asked for becomes `PROOF_MISSING`, one whose proof does not
/// hold `PROOF_INVALID`, before its first message is handed over. A refusal without a proof is
/// passed on as it is, and is not [proved](super::is_proved): nothing should be concluded from it.
///
/// The module counts the calls by their result here (`grpc_client_…`).
#[derive(Clone, Debug)]
pub struct AttachIdentityLayer {
    pub(super) tokens: Arc<CallerTokens>,
    pub(super) proof: Option<Arc<RequiredProof>>,
    pub(super) calls: MetricsLayer,
}

/// When the token of a call ends. Found in the extensions of a response.
///
/// A callee ends a stream 10 s after the token with which it was opened expired; a client that
/// follows a stream opens the next one between these two times. A call made then carries a new
/// token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CallToken {
    /// From then on the next call carries a new token: half of the life of this one is over.
    pub renewed_at: std::time::SystemTime,
    /// When this one expires.
    pub expires_at: std::time::SystemTime,
}

impl AttachIdentityLayer {
    /// Returns why no call is made at all, if this module's own file is why.
    pub(crate) fn not_called(&self) -> Option<String> {
        self.tokens.not_issued().map(|error| error.to_string())
    }

    /// Requires the callee's proof on every call, and that the callee is `engine`, if one is given.
    #[must_use]
    pub fn require_proof(&self, verifier: ProofVerifier, engine: Option<EngineClaim>) -> Self {
        let proof = RequiredProof {
            mode: ProofMode::EveryCall,
            verifier,
            engine,
        };
        Self {
            proof: Some(Arc::new(proof)),
            ..self.clone()
        }
    }
}

impl<S> Layer<S> for AttachIdentityLayer {
    type Service = AttachIdentity<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let layer = self.clone();
        AttachIdentity { inner, layer }
    }
}

/// Attaches the identity, then calls the client's channel; counts the calls.
///
/// Its errors are the channel's. A call that is not made, or whose reply is not believed, is
/// answered with a status.
#[derive(Clone, Debug)]
pub struct AttachIdentity<S> {
    inner: S,
    layer: AttachIdentityLayer,
}

impl AttachIdentityLayer {
    fn attach(&self, uri: &Uri, headers: &mut HeaderMap) -> Result<Attached, Status> {
        let Self { tokens, proof, .. } = self;
        let token = tokens.get().map_err(|error| not_called(&error))?;
        headers.insert(AUTHORIZATION, token.value.clone());
        let mut attached = Attached {
            tokens: Arc::clone(tokens),
            token,
            expected: None,
        };
        let proof = proof.as_ref();
        if let Some(required) = proof.filter(|proof| proof.covers(metadata::path(uri))) {
            let nonce = Nonce::generate().map_err(|error| not_called(&error))?;
            let value = HeaderValue::try_from(nonce.to_string());
            headers.insert(metadata::NONCE, value.map_err(|error| not_called(&error))?);
            attached.expected = Some(Box::new(Expected {
                required: Arc::clone(required),
                token: Arc::clone(&attached.token),
                nonce,
                path: metadata::kept_path(uri),
                sent: required.verifier.clock().now(),
                skews: Arc::clone(&tokens.skews),
            }));
        }
        Ok(attached)
    }
}

/// What was sent with a call, and what the reply must contain.
#[derive(Debug)]
struct Attached {
    tokens: Arc<CallerTokens>,
    token: Arc<CallerToken>,
    expected: Option<Box<Expected>>,
}

fn not_called(error: &dyn Error) -> Status {
    Status::failed_precondition(format!("not called: {}", super::cause(error)))
}

impl<S, R> Service<Request<Body>> for AttachIdentity<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: 'static>,
    R: AnyBody,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = AttachFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (request, counted) = self.layer.calls.started(request);
        let (mut head, body) = request.into_parts();
        let (call, attached) = match self.layer.attach(&head.uri, &mut head.headers) {
            Ok(attached) => {
                let future = self.inner.call(Request::from_parts(head, body));
                (Call::Made { future }, Some(attached))
            }
            Err(status) => (Call::ended(status), None),
        };
        AttachFuture {
            call,
            counted: Some(counted),
            attached,
        }
    }
}

pin_project_lite::pin_project! {
    /// The answer of [`AttachIdentity`]: the callee's, or why it is not believed.
    #[derive(Debug)]
    pub struct AttachFuture<F> {
        #[pin]
        call: Call<F>,
        counted: Option<metrics::Call>,
        attached: Option<Attached>,
    }
}

impl<F, R, E> Future for AttachFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: AnyBody,
    E: 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let attached = this.attached;
        let judged = match ready!(this.call.poll_answer(cx)) {
            Ok(answer) => answer.map(|response| judge(attached.take(), response)),
            Err(status) => Ok(ReplyBody::instead(status)),
        };
        Poll::Ready(match this.counted.take() {
            Some(call) => call.answered(judged),
            None => judged.map(|response| response.map(Body::new)),
        })
    }
}

/// Judges the headers of a reply; its body is judged as it comes.
fn judge<R>(attached: Option<Attached>, mut response: Response<R>) -> Response<ReplyBody<R>> {
    metadata::drop_foreign_details(response.headers_mut());
    if let Some(Attached { tokens, token, .. }) = &attached {
        if let Some(callee) = &token.callee {
            let CallerTokens { skews, issuer, .. } = &**tokens;
            skews.note_answer(callee.name.as_str(), &response, &*issuer.clock);
        }
        response.extensions_mut().insert(CallToken {
            renewed_at: token.token.renewed_at(),
            expires_at: token.token.expires_at(),
        });
    }
    let expected = attached.and_then(|attached| attached.expected);
    match Trust::of_headers(expected, &mut response) {
        Ok(trust) => response.map(|inner| ReplyBody::new(inner, Guard::Caller(trust))),
        Err(refusal) => ReplyBody::instead(refuse_in_full(&refusal)),
    }
}
