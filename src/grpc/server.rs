//! The callee's side: nobody reaches a handler without a verified identity.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response};
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use crate::secret::Secret;
use crate::telemetry::events;
use crate::token::proof::{EngineClaim, Exchange, ProofSigner};
use crate::token::{Accept, Nonce, Reason, Refusal, TokenVerifier, VerifiedToken};

use super::{
    MethodRules, RefusedCall, RefusedCaller, Rejections, listener, metadata, peer, refuse,
};

/// Whether a call needs a token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
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
#[derive(Clone, Debug)]
pub struct VerifyIdentityLayer {
    gate: Arc<Gate>,
    proofs: Option<ProofSigner>,
}

impl VerifyIdentityLayer {
    /// Verifies with `verifier` and applies `rules`.
    pub fn new(verifier: Arc<TokenVerifier>, rules: MethodRules, tokens: Tokens) -> Self {
        Self {
            gate: Arc::new(Gate {
                verifier,
                rules,
                tokens,
                rejections: Rejections::default(),
            }),
            proofs: None,
        }
    }

    /// Answers a verified caller's nonce with a proof by `signer`.
    #[must_use]
    pub fn with_proofs(self, signer: ProofSigner) -> Self {
        Self {
            proofs: Some(signer),
            ..self
        }
    }
}

impl<S> Layer<S> for VerifyIdentityLayer {
    type Service = VerifyIdentity<S>;

    fn layer(&self, inner: S) -> Self::Service {
        VerifyIdentity {
            inner,
            gate: Arc::clone(&self.gate),
            proofs: self.proofs.clone(),
        }
    }
}

/// Verifies the caller, then calls `inner` with a [`ServiceIdentity`] among the extensions.
///
/// [`ServiceIdentity`]: crate::identity::ServiceIdentity
#[derive(Clone, Debug)]
pub struct VerifyIdentity<S> {
    inner: S,
    gate: Arc<Gate>,
    proofs: Option<ProofSigner>,
}

#[derive(Debug)]
struct Gate {
    verifier: Arc<TokenVerifier>,
    rules: MethodRules,
    tokens: Tokens,
    rejections: Rejections,
}

impl Gate {
    fn decide(
        &self,
        path: &str,
        headers: &HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<(), Status> {
        let rule = self.rules.find(path);
        if rule.is_some_and(super::Rule::admits_everyone) {
            return Ok(());
        }
        let peer = peer::address_in(extensions);
        let loopback = peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        let optional = self.tokens == Tokens::OptionalOnLoopback && loopback;
        if optional && rule.is_some() && !headers.contains_key(AUTHORIZATION) {
            return Ok(());
        }
        let own_module = loopback && rule.is_some_and(super::Rule::admits_own_module);
        let accept = if own_module {
            Accept::PeersAndOwnModule
        } else {
            Accept::Peers
        };
        let token = metadata::bearer(headers)
            .and_then(|token| self.verifier.verify(token, accept))
            .and_then(|token| self.bound(token, extensions))
            .map_err(|refusal| self.rejected(&refusal, path, peer))?;
        let Some(rule) = rule else {
            if self.rules.is_first_miss(path) {
                events::method_without_rule(path);
            }
            return Err(Status::unimplemented(""));
        };
        if !(own_module && token.deployment().is_none()) {
            rule.check(token.identity()).map_err(|refusal| {
                let key_id = Some(token.key_id().to_string());
                self.rejected(&Refusal { key_id, ..refusal }, path, peer)
            })?;
        }
        listener::verified(extensions);
        extensions.insert(token.identity().clone());
        extensions.insert::<VerifiedToken>(token);
        Ok(())
    }
}

impl Gate {
    /// Holds the token against the certificate of the connection that it came over, if any.
    fn bound(
        &self,
        token: VerifiedToken,
        extensions: &Extensions,
    ) -> Result<VerifiedToken, Refusal> {
        if let Some(certificate) = peer::certificate_in(extensions) {
            self.verifier.check_certificate(&token, certificate?)?;
        }
        Ok(token)
    }
}

impl Gate {
    /// Logs a refusal in full, unless one like it was logged a moment ago, and answers with what
    /// the caller may know: the detail only once its signature verified.
    fn rejected(&self, refusal: &Refusal, path: &str, peer: Option<SocketAddr>) -> Status {
        let Refusal { reason, detail, .. } = refusal;
        // A role is looked for only once the signature verified.
        let verified = refusal.deployment.is_some() || *reason == Reason::RoleMissing;
        self.rejections.tell(&RefusedCall {
            caller: if verified {
                RefusedCaller::Peer
            } else {
                RefusedCaller::Stranger
            },
            reason: *reason,
            key_id: refusal.key_id.as_deref(),
            peer,
            method: path,
            detail,
        });
        let detail = refusal.deployment.as_ref().map(|_| detail.as_str());
        refuse(*reason, detail)
    }
}

impl<S, B, R> Service<Request<B>> for VerifyIdentity<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = VerifyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        // With its query, if it has one: such a path is no method's, though routers take it for one.
        let path = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
        match self.gate.decide(path, &head.headers, &mut head.extensions) {
            Ok(()) => {
                let proof = self
                    .proofs
                    .as_ref()
                    .and_then(|signer| PendingProof::of(signer, &head));
                let future = self.inner.call(Request::from_parts(head, body));
                VerifyFuture {
                    state: State::Admitted { future, proof },
                }
            }
            Err(status) => VerifyFuture {
                state: State::Refused {
                    status: Some(status),
                },
            },
        }
    }
}

/// The call that the reply's proof will name. Made only for a verified caller with a well-formed
/// nonce.
#[derive(Debug)]
struct PendingProof {
    signer: ProofSigner,
    caller: String,
    nonce: Nonce,
    token: Secret<String>,
    path: String,
}

impl PendingProof {
    fn of(signer: &ProofSigner, head: &Parts) -> Option<Self> {
        let verified = head.extensions.get::<VerifiedToken>()?;
        let mut nonces = head.headers.get_all(metadata::NONCE).iter();
        let nonce = nonces.next()?.to_str().ok()?.parse().ok()?;
        if nonces.next().is_some() {
            return None;
        }
        Some(Self {
            signer: signer.clone(),
            caller: verified.issuer().to_owned(),
            nonce,
            token: Secret::new(metadata::bearer(&head.headers).ok()?.to_owned()),
            path: head.uri.path().to_owned(),
        })
    }

    /// Adds the proof to the reply's first headers, which are the trailers where the reply has
    /// nothing else. A handler adds an [`EngineClaim`] to the reply's extensions to have it signed.
    fn countersign<R>(self, mut response: Response<R>) -> Response<R> {
        let exchange = Exchange {
            caller: &self.caller,
            nonce: self.nonce,
            token: self.token.expose(),
            path: &self.path,
        };
        let proof = self
            .signer
            .sign(&exchange, response.extensions().get::<EngineClaim>());
        // Without a proof the caller refuses the reply: nothing is lost but the call.
        if let Some(value) = proof
            .ok()
            .and_then(|proof| HeaderValue::try_from(proof).ok())
        {
            response.headers_mut().insert(metadata::PROOF, value);
        }
        response
    }
}

pin_project_lite::pin_project! {
    /// The answer of [`VerifyIdentity`]: the handler's, or the refusal.
    #[derive(Debug)]
    pub struct VerifyFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project_lite::pin_project! {
    #[derive(Debug)]
    #[project = StateProjection]
    enum State<F> {
        Admitted { #[pin] future: F, proof: Option<PendingProof> },
        Refused { status: Option<Status> },
    }
}

impl<F, R, E> Future for VerifyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Admitted { future, proof } => {
                let response = ready!(future.poll(cx));
                Poll::Ready(response.map(|response| match proof.take() {
                    Some(proof) => proof.countersign(response),
                    None => response,
                }))
            }
            StateProjection::Refused { status } => {
                let status = status
                    .take()
                    .unwrap_or_else(|| Status::internal("polled twice"));
                Poll::Ready(Ok(status.into_http()))
            }
        }
    }
}
