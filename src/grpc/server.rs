//! The callee's side: no call reaches a handler without a verified identity.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::uri::PathAndQuery;
use http::{Request, Response};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::token::proof::EngineClaim;
use crate::token::{Accept, VerifiedToken};

use super::gate::Gate;
use super::pending_proof::{PendingProof, Proofs};
use super::reply::{ByteBody, Call, Guard, Handler, ReplyBody, caught};
use super::session::{Limit, RequestBody, Session, Watch};
use super::visit::Visits;
use super::{MetricsLayer, listener, metadata, metrics};

/// Puts [`VerifyIdentity`] before the services of a server.
///
/// Wrap the whole server with it, so that no method can be forgotten:
/// `Server::builder().layer(module.server_layer(rules))`. Works for unary and streaming methods:
/// the decision falls on the headers, before any body is read.
///
/// A stream, of requests or replies, ends with `TOKEN_EXPIRED`
/// [`GRACE`](super::CallToken::GRACE) after the token with which it was opened, and with
/// `KEY_REVOKED` at once when that key is revoked. A unary call ends by itself; its handler is not
/// interrupted.
#[derive(Clone, Debug)]
pub struct VerifyIdentityLayer {
    pub(super) gate: Arc<Gate>,
    pub(super) proofs: Proofs,
    /// Counts the calls, where no layer before this one does.
    pub(super) counted: Option<MetricsLayer>,
    pub(super) is_any_transport: bool,
    /// What calls that are open to everyone may do.
    pub(super) visits: Visits,
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

impl<S, Q, R> Service<Request<Q>> for VerifyIdentity<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: 'static>,
    Q: ByteBody,
    R: ByteBody,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = VerifyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let path = metadata::kept_path(request.uri());
        let is_grpc = metadata::is_grpc(request.headers());
        let (arrived, counted) = match &self.layer.counted {
            Some(layer) => {
                let (counted, call) = layer.started(request);
                (counted, Some(call))
            }
            None => (request.map(Body::new), None),
        };
        let gate = Arc::clone(&self.layer.gate);
        let (call, watched, proof) = caught(&gate, path.as_str(), || self.admit(arrived))
            .unwrap_or_else(|status| (Call::ended(status), None, None));
        VerifyFuture {
            call,
            counted,
            gate,
            is_grpc,
            path,
            watched,
            proof,
        }
    }
}

/// A call, and what goes with its reply.
type Admitted<F> = (Call<F>, Option<Limit>, Option<PendingProof>);

impl<S: Service<Request<Body>>> VerifyIdentity<S> {
    fn admit(&mut self, request: Request<Body>) -> Admitted<S::Future> {
        let (mut head, body) = request.into_parts();
        listener::arrived(&mut head.extensions);
        let VerifyIdentityLayer {
            gate,
            proofs,
            is_any_transport,
            visits,
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
        let watched = match &token {
            Some(token) => Some(Limit::Session(Arc::new(Session::new(gate, token, &head)))),
            None if gate.needs_no_token(&head) => None,
            None => match visits.begin(&head) {
                Ok(visit) => visit.map(Limit::Visit),
                Err(status) => return (Call::ended(status), None, proof),
            },
        };
        let body = match &watched {
            Some(watched) => Body::new(RequestBody::new(body, watched.clone())),
            None => body,
        };
        if let Some(token) = token {
            head.extensions.insert(token.identity().clone());
            head.extensions.insert::<VerifiedToken>(token);
        }
        let future = self.inner.call(Request::from_parts(head, body));
        (Call::Made { future }, watched, proof)
    }
}

pin_project_lite::pin_project! {
    /// The answer of [`VerifyIdentity`]: the handler's, or the refusal.
    #[derive(Debug)]
    pub struct VerifyFuture<F> {
        #[pin]
        call: Call<F>,
        counted: Option<metrics::Call>,
        gate: Arc<Gate>,
        is_grpc: bool,
        path: PathAndQuery,
        watched: Option<Limit>,
        proof: Option<PendingProof>,
    }
}

impl<F, R, E> Future for VerifyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: ByteBody,
    E: 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let call = this.call.as_mut();
        let answer = match caught(this.gate, this.path.as_str(), || call.poll_answer(cx)) {
            Ok(answer) => ready!(answer),
            Err(status) => {
                this.call.set(Call::Over);
                *this.proof = None;
                Err(status)
            }
        };
        let watched = this.watched.take();
        // A request that was ended is refused, whatever the handler made of its end.
        let ended = watched.as_ref().and_then(Limit::ended);
        let answer = match (answer, ended) {
            (Err(status), _) | (Ok(Ok(_)), Some(status)) => Ok(if *this.is_grpc {
                ReplyBody::instead(status)
            } else {
                ReplyBody::instead_over_http(&status)
            }),
            (Ok(Err(error)), _) => Err(error),
            (Ok(Ok(response)), None) => Ok(response.map(|body| {
                let handler = Handler {
                    gate: Arc::clone(this.gate),
                    path: this.path.clone(),
                    watch: watched.map(Watch::of),
                };
                ReplyBody::new(body, Guard::Handler(handler))
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

#[cfg(test)]
mod tests {
    use tracing::dispatcher::with_default;

    use super::*;
    use crate::clock::SystemClock;
    use crate::grpc::MethodRules;
    use crate::telemetry::{Format, capture};
    use crate::testing;
    use crate::token::{Accept, Reason, Refusal};

    #[test]
    fn stream_ends_of_a_revoked_key_and_panics_of_a_handler_are_one_line_each() {
        let pair = testing::pair();
        let gate = pair.dpm.server_layer(MethodRules::deny_all()).gate;
        let trust = pair.dpe.trust().current();
        let callee = trust.deployment("dpm-dev").unwrap();
        let token = pair.dpe.issuer().issue(callee).unwrap();
        let verified = gate
            .verifier
            .verify_over(token.expose(), Accept::Peers, None);
        let token = verified.0.unwrap();
        let (head, ()) = Request::new(()).into_parts();
        let (dispatch, lines) = capture::subscriber(Format::Console, Arc::new(SystemClock));

        with_default(&dispatch, || {
            for _ in 0..100 {
                let session = Session::new(&gate, &token, &head);
                session.end(Refusal::new(Reason::KeyRevoked, "revoked"));
                caught(&gate, "/a.B/Get", || panic!("as planned")).unwrap_err();
            }
        });

        let lines = lines.take();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("KEY_REVOKED") && lines[1].contains("handlerPanicked"));
    }
}
