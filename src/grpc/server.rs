//! The callee's side: no call reaches a handler without a verified identity.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::uri::PathAndQuery;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::token::VerifiedToken;
use crate::token::proof::EngineClaim;

use super::body::{Answering, ByteBody, Guard, GuardedBody, Judge, caught, over_http};
use super::gate::Gate;
use super::metrics::{Call, Counted, Counters, Largest};
use super::proof::{PendingProof, Proofs};
use super::session::{Claiming, Limit, Session, Visits, Watch};
use super::{listener, metadata};

/// Puts [`VerifyIdentity`] before the services of a server.
///
/// Wrap the whole server with it, so that no method can be forgotten:
/// `Server::builder().layer(module.server_layer(rules))`. Works for unary and streaming methods:
/// the decision falls on the headers, before any body is read.
///
/// A stream, of requests or replies, ends with `TOKEN_EXPIRED`
/// [`GRACE`](super::CallToken::GRACE) after the token with which it was opened, and with
/// `KEY_REVOKED` at once when that key is revoked, or `ROLE_MISSING` when the method's rule no longer
/// admits its caller. A unary call ends by itself; its handler is not interrupted.
#[derive(Clone, Debug)]
pub struct VerifyIdentityLayer {
    pub(super) gate: Arc<Gate>,
    pub(super) proofs: Proofs,
    pub(super) counters: Option<Counters>,
    /// The largest message of a caller.
    pub(super) largest: Option<Largest>,
    pub(super) is_any_transport: bool,
    /// What calls that are open to everyone may do.
    pub(super) visits: Visits,
}

impl VerifyIdentityLayer {
    /// Also counts the calls by method, as go-grpc-prometheus does. What the layers before this one
    /// refuse does not count. A server of this crate counts them in any case.
    ///
    /// The descriptors of [`MethodRules::described`](super::MethodRules::described) say which
    /// methods stream; the others count with the type `unknown`.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.counters = Some(Counters::of_rules(&self.gate.metrics, &self.gate.rules));
        self
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
    type Future = Answering<S::Future, Replying>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let path = metadata::kept_path(request.uri());
        let counters = self.layer.counters.as_ref();
        let mut replying = Replying {
            gate: Arc::clone(&self.layer.gate),
            is_grpc: metadata::is_grpc(request.headers()),
            counted: counters.map(|counters| counters.started(path.as_str())),
            path: path.clone(),
            claiming: None,
            watched: None,
            proof: None,
        };
        let gate = Arc::clone(&replying.gate);
        let arrived = request.map(Body::new);
        let call = caught(&gate, path.as_str(), || self.admit(arrived, &mut replying));
        Answering::new(call.and_then(|admitted| admitted), replying)
    }
}

impl<S: Service<Request<Body>>> VerifyIdentity<S> {
    /// Calls the handler, unless the call is refused; notes what goes with the reply.
    fn admit(
        &mut self,
        request: Request<Body>,
        replying: &mut Replying,
    ) -> Result<S::Future, Status> {
        let (mut head, body) = request.into_parts();
        listener::arrived(&mut head.extensions);
        let VerifyIdentityLayer {
            gate,
            proofs,
            is_any_transport,
            largest,
            visits,
            ..
        } = &self.layer;
        let decided = gate.decide(&head, *is_any_transport);
        let unneeded = match &decided {
            Ok(None) => gate.verify_unneeded(&head),
            Ok(Some(_)) | Err(_) => None,
        };
        let issuer = match &decided {
            Ok(token) => token
                .as_ref()
                .or(unneeded.as_ref())
                .map(VerifiedToken::issuer),
            Err(refused) => refused.caller.as_deref(),
        };
        replying.proof = issuer.and_then(|issuer| PendingProof::of(proofs, &head, issuer));
        replying.watched = match &decided {
            Ok(Some(token)) => {
                let session = Arc::new(Session::new(gate, token, &head));
                replying.claiming = session.claim();
                Some(Limit::Session(session))
            }
            Ok(None) if gate.needs_no_token(&head) => None,
            // A refusal over gRPC has no body that could wait for its reader.
            Err(_) if replying.is_grpc => None,
            Ok(None) | Err(_) => {
                let begun = visits.begin(&head);
                let full = begun.inspect_err(|full| gate.crowded(None, full.message()))?;
                full.map(Limit::Visit)
            }
        };
        let token = decided.map_err(|refused| refused.status)?;
        let watch = replying.watched.clone().map(Watch::of);
        let guard = watch.map_or(Guard::None, Guard::Request);
        // Whatever it says that it is, a method reads it as messages.
        let is_bounded = replying.is_grpc || !gate.rules.is_route(replying.path.as_str());
        let counted = Counted::request(replying.counted.as_ref(), largest.filter(|_| is_bounded));
        if let Some(token) = token {
            head.extensions.insert(token.identity().clone());
            head.extensions.insert::<VerifiedToken>(token);
        }
        let body = GuardedBody::wrap(body, guard, counted);
        // A use is claimed before the handler's future is polled for the first time.
        Ok(self.inner.call(Request::from_parts(head, body)))
    }
}

/// What [`VerifyIdentity`] makes of a call: the handler's reply, or the refusal.
#[derive(Debug)]
pub struct Replying {
    gate: Arc<Gate>,
    path: PathAndQuery,
    is_grpc: bool,
    counted: Option<Call>,
    /// The claim of the token's use, until it is answered.
    claiming: Option<Claiming>,
    watched: Option<Limit>,
    proof: Option<PendingProof>,
}

impl<R: ByteBody, E: 'static> Judge<R, E> for Replying {
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let Some(claiming) = &mut self.claiming else {
            return Poll::Ready(Ok(()));
        };
        let claimed = ready!(claiming.poll(cx));
        self.claiming = None;
        Poll::Ready(claimed)
    }

    fn caught<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, Status> {
        caught(&self.gate, self.path.as_str(), work).inspect_err(|_| self.proof = None)
    }

    fn judge(self, answer: Result<Result<Response<R>, E>, Status>) -> Result<Response<Body>, E> {
        let Self { gate, path, .. } = self;
        // A request that was ended is refused, whatever the handler made of its end.
        let ended = self.watched.as_ref().and_then(Limit::ended);
        let (response, guard) = match (answer, ended) {
            (Ok(Err(error)), _) => {
                if let Some(call) = self.counted {
                    call.failed(&error);
                }
                return Err(error);
            }
            (Ok(Ok(response)), None) => {
                let watch = self.watched.map(Watch::of);
                (response.map(Body::new), Guard::Handler(gate, path, watch))
            }
            (Err(status), _) | (Ok(Ok(_)), Some(status)) if self.is_grpc => {
                (status.into_http(), Guard::None)
            }
            (Err(status), _) | (Ok(Ok(_)), Some(status)) => {
                let watch = self.watched.map(Watch::of);
                (
                    over_http(&status),
                    watch.map_or(Guard::None, Guard::Request),
                )
            }
        };
        let proved = match self.proof {
            Some(proof) => proof.countersign(response),
            None => response,
        };
        Ok(GuardedBody::reply(proved, guard, self.counted, None))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{IpAddr, Ipv4Addr};
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use http::header::CONTENT_TYPE;
    use http_body::Body as _;
    use tokio::sync::mpsc;
    use tokio::time::Instant;
    use tonic::Code;
    use tower::service_fn;
    use tracing::dispatcher::with_default;

    use super::*;
    use crate::admission::{Bounds, Connections, Seat};
    use crate::clock::{Clock, SystemClock};
    use crate::grpc::{MethodRules, Module, Rule, reason_of};
    use crate::storage::Claim;
    use crate::telemetry::{Format, capture};
    use crate::testing::{self, Pair};
    use crate::token::{Accept, Reason, Refusal, Replay};
    use crate::trust::Deployment;

    /// Makes a call of the pair's `dpe` with a message of four bytes, which came over `seat`.
    fn request(pair: &Pair, path: &str, kind: &str, seat: Option<&Seat>) -> Request<Body> {
        let trust = pair.dpe.trust().current();
        let token = pair
            .dpe
            .issuer()
            .issue(trust.deployment("dpm-dev").unwrap());
        let mut request = Request::new(Body::new("\0\0\0\0\u{4}four".to_owned()));
        *request.uri_mut() = path.parse().unwrap();
        let value = metadata::authorization(token.unwrap().expose()).unwrap();
        request.headers_mut().insert("authorization", value);
        let kind = kind.parse().unwrap();
        request.headers_mut().insert(CONTENT_TYPE, kind);
        if let Some(seat) = seat {
            request.extensions_mut().insert(Arc::clone(&seat.standing));
        }
        request
    }

    fn layer(pair: &Pair) -> VerifyIdentityLayer {
        let rules = MethodRules::deny_all().with("a.B", "*", Rule::any_identity());
        let rules = rules.allow_http("/upload", Rule::any_identity()).unwrap();
        pair.dpm.server_layer(rules).dangerous_any_transport()
    }

    /// Answers with what the request's body gives first.
    async fn echo(request: Request<Body>) -> Result<Response<Body>, Status> {
        let mut body = pin!(request.into_body());
        let first = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
        first.unwrap()?;
        Ok(Response::new(Body::new("reply".to_owned())))
    }

    /// Has the pair's `dpm` take each token once, and returns the claims that it makes.
    fn sharing(pair: &mut Pair) -> mpsc::Receiver<Claim> {
        let trust = pair.dpm.trust().current();
        let caller = Deployment::clone(trust.deployment("dpe-dev").unwrap());
        let clock = Arc::clone(&pair.clock) as Arc<dyn Clock>;
        let strict = Module::builder(pair.dpm.own()).replay(Replay::Strict);
        pair.dpm = strict.trust(caller).clock(clock).build().unwrap();
        pair.clock.advance(pair.dpm.not_ready_for().unwrap());
        let (claims, claimed) = mpsc::channel(1);
        pair.dpm.replay.as_ref().unwrap().share(|_| claims);
        claimed
    }

    #[tokio::test]
    async fn handler_begins_once_the_use_of_its_token_is_claimed() {
        tokio::time::pause();
        let mut pair = testing::pair();
        let mut claims = sharing(&mut pair);
        let (connections, begun) = (connections(500), AtomicUsize::new(0));
        let mut service = layer(&pair).layer(service_fn(|call| {
            let begun = &begun;
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                echo(call).await
            }
        }));
        for (answer, expected) in [
            (Some(Ok(true)), None),
            (Some(Ok(false)), Some(Reason::TokenReplayed)),
            (
                Some(Err("etcd is away".into())),
                Some(Reason::ReplayUnknown),
            ),
            (None, Some(Reason::ReplayUnknown)),
        ] {
            let before = begun.load(Ordering::Relaxed);
            let seat = seat(&connections);
            let call = request(&pair, "/a.B/Get", "application/grpc", Some(&seat));
            let answering = async {
                let mut claim = claims.recv().await.unwrap();
                assert_eq!(begun.load(Ordering::Relaxed), before);
                match answer {
                    Some(answer) => claim.done.send(answer).unwrap(),
                    // It gives up by itself.
                    None => claim.done.closed().await,
                }
            };

            let (reply, ()) = tokio::join!(service.call(call), answering);

            let status = Status::from_header_map(reply.unwrap().headers());
            let reason = status.as_ref().and_then(reason_of);
            assert_eq!(reason, expected, "{status:?}");
            let is_known = seat.standing.is_verified();
            assert_eq!(is_known, expected.is_none(), "{expected:?}");
            let is_away = expected == Some(Reason::ReplayUnknown);
            let code = status.map(|status| status.code());
            assert_eq!(code == Some(Code::Unavailable), is_away, "{code:?}");
        }

        assert_eq!(begun.into_inner(), 1);
        let shown = pair.dpm.metrics.render();
        for line in [
            r#"{module="dpe",reason="",result="accepted"} 1"#,
            r#"{module="dpe",reason="TOKEN_REPLAYED",result="refused"} 1"#,
            r#"{module="dpe",reason="REPLAY_UNKNOWN",result="refused"} 2"#,
        ] {
            assert!(shown.contains(line), "{shown}");
        }
    }

    fn connections(per_owner: usize) -> Arc<Connections> {
        let age = Duration::from_secs(3600);
        Arc::new(Connections::new(Bounds {
            total: 768,
            per_address: 128,
            per_owner,
            chance: age,
            first_request: age,
            age,
        }))
    }

    fn seat(connections: &Arc<Connections>) -> Seat {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        connections.admit(here, Instant::now()).unwrap().0
    }

    #[tokio::test]
    async fn message_that_is_too_large_is_refused_whatever_its_content_type() {
        let pair = testing::pair();
        let mut layer = layer(&pair);
        layer.largest = Some(Largest(3, "a.size"));
        let mut service = layer.layer(service_fn(echo));
        for (path, kind, expected) in [
            ("/a.B/Get", "application/grpc", Some(Code::OutOfRange)),
            ("/a.B/Get", "application/grpc-web", Some(Code::OutOfRange)),
            ("/a.B/Get", "application/grpcish", Some(Code::OutOfRange)),
            ("/a.B/Get", "text/plain", Some(Code::OutOfRange)),
            ("/upload", "text/plain", None),
        ] {
            let answer = service.call(request(&pair, path, kind, None)).await;

            assert_eq!(answer.err().map(|s| s.code()), expected, "{path} {kind}");
        }
    }

    #[tokio::test]
    async fn verified_caller_that_reads_nothing_is_cut_when_its_token_is_over() {
        let pair = testing::pair();
        let mut service = layer(&pair).layer(service_fn(echo));
        let connections = connections(500);
        let mut seats = [seat(&connections), seat(&connections)];
        let mut replies = Vec::new();
        for seat in &seats {
            let call = request(&pair, "/a.B/Get", "application/grpc", Some(seat));
            let mut reply = Box::pin(service.call(call).await.unwrap().into_body());
            poll_fn(|cx| reply.as_mut().poll_frame(cx))
                .await
                .unwrap()
                .unwrap();
            replies.push(reply);
        }
        // Its reader took the other.
        replies.pop();

        // The token lives for 300 s.
        let cut = [315, 325].map(|seconds| {
            connections.cut_overdue(Instant::now() + Duration::from_secs(seconds));
            seats.each_mut().map(|seat| {
                let mut context = Context::from_waker(std::task::Waker::noop());
                seat.poll_cut(&mut context).is_ready()
            })
        });

        assert_eq!(cut, [[false, false], [true, false]]);
    }

    #[tokio::test]
    async fn reply_that_comes_after_its_token_was_over_may_be_read_for_a_minute() {
        let pair = testing::pair();
        let mut service = layer(&pair).layer(service_fn(|call| {
            // Longer than the token lives.
            pair.clock.advance(Duration::from_secs(400));
            echo(call)
        }));
        let connections = connections(500);
        let mut seat = seat(&connections);
        let call = request(&pair, "/a.B/Get", "application/grpc", Some(&seat));
        let mut reply = pin!(service.call(call).await.unwrap().into_body());
        let first = poll_fn(|cx| reply.as_mut().poll_frame(cx)).await.unwrap();
        assert!(first.unwrap().is_data());

        let cut = [55, 65].map(|seconds| {
            connections.cut_overdue(Instant::now() + Duration::from_secs(seconds));
            let mut context = Context::from_waker(std::task::Waker::noop());
            seat.poll_cut(&mut context).is_ready()
        });

        assert_eq!(cut, [false, true]);
    }

    #[tokio::test]
    async fn deployment_without_room_and_method_without_rule_are_one_line_a_minute_with_a_count() {
        tokio::time::pause();
        let pair = testing::pair();
        let mut service = layer(&pair).layer(service_fn(echo));
        let connections = connections(4);
        let seats: Vec<_> = (0..5).map(|_| seat(&connections)).collect();
        let (dispatch, lines) = capture::subscriber(Format::Console, Arc::new(SystemClock));
        let logged = tracing::dispatcher::set_default(&dispatch);
        for minute in 0..2 {
            for seat in &seats {
                let call = request(&pair, "/a.B/Get", "application/grpc", Some(seat));
                let _ = service.call(call).await.unwrap();
            }
            for path in ["/a.C/Get", "/a.C/Get"] {
                let call = request(&pair, path, "application/grpc", None);
                let _ = service.call(call).await.unwrap();
                let call = request(&pair, "/a.B/Get", "application/grpc", seats.last());
                let _ = service.call(call).await.unwrap();
            }
            tokio::time::advance(Duration::from_secs(61 + minute)).await;
        }
        drop(logged);

        let lines = lines.take();
        let [crowded, no_rule, crowded_again, no_rule_again] = lines.as_slice() else {
            panic!("{lines:#?}");
        };
        assert!(
            crowded.contains("`dpe-dev`: this deployment has 4 connections"),
            "{crowded}"
        );
        assert!(no_rule.contains("methodWithoutRule"), "{no_rule}");
        assert!(crowded_again.contains("suppressed=2"), "{crowded_again}");
        assert!(no_rule_again.contains("suppressed=1"), "{no_rule_again}");
    }

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
