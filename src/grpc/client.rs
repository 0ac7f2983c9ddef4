//! The caller's side: every call carries this module's identity, and the callee may have to prove
//! its own.

use std::any::Any;
use std::error::Error;
use std::iter::successors;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::HeaderValue;
use http::request::Parts;
use http::{Request, Response};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Status, TimeoutExpired};
use tower_layer::Layer;
use tower_service::Service;

use super::body::{Answering, ByteBody, Guard, GuardedBody, Judge};
use super::callee::{CallerTokens, Vouched};
use super::connect::Connection;
use super::metadata;
use super::metrics::{Call, Counted, Counters, Largest};
use super::proof::{Expected, ProofMode, RequiredProof, Sent, StreamToken, Trust};
use super::session::{Limit, STREAM_GRACE, Watch};
use super::status::refuse_in_full;
use crate::token::Nonce;
use crate::token::proof::{EngineClaim, ProofVerifier};

/// Attaches this module's identity to every call of a client, for one named callee.
///
/// Put it before a channel: `GreeterClient::new(module.client_layer(name, over)?.layer(channel))`.
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
    pub(super) calls: Counters,
    /// The largest message of a callee.
    pub(super) largest: Option<Largest>,
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

impl CallToken {
    /// How long a stream may outlive the token with which it was opened.
    pub const GRACE: Duration = STREAM_GRACE;
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
        AttachIdentity {
            inner,
            layer,
            vouched: Vouched::default(),
        }
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
    /// Who proved itself, of a channel that is not this crate's.
    vouched: Vouched,
}

impl AttachIdentityLayer {
    /// Attaches the identity, unless a layer of this kind around this one did and asks for a proof.
    fn attach(&self, head: &mut Parts, vouched: &Vouched) -> Result<Option<Box<Sent>>, Status> {
        let Self { tokens, proof, .. } = self;
        if head.extensions.get::<Asked>().is_some() {
            return Ok(None);
        }
        let token = tokens.get().map_err(|error| not_called(&error))?;
        let trust = &tokens.issuer.trust;
        metadata::attach(&mut head.headers, token.value.clone(), trust);
        let path = metadata::path(&head.uri);
        let expected = match proof {
            Some(required) if required.covers(path, &token, vouched) => {
                let nonce = Nonce::generate().map_err(|error| not_called(&error))?;
                let value = HeaderValue::try_from(nonce.to_string());
                head.headers
                    .insert(metadata::NONCE, value.map_err(|error| not_called(&error))?);
                head.extensions.insert(Asked);
                Some(Expected {
                    required: Arc::clone(required),
                    nonce,
                    path: metadata::kept_path(&head.uri),
                    sent: required.verifier.clock().now(),
                })
            }
            _ => None,
        };
        Ok(Some(Box::new(Sent {
            tokens: Arc::clone(tokens),
            token,
            vouched: vouched.clone(),
            expected,
        })))
    }
}

/// Another layer of this kind, around this one, asked for the proof of this call and judges it.
#[derive(Clone, Copy, Debug)]
struct Asked;

fn not_called(error: &dyn Error) -> Status {
    Status::failed_precondition(format!("not called: {}", super::cause(error)))
}

impl<S, R> Service<Request<Body>> for AttachIdentity<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: 'static> + 'static,
    R: ByteBody,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Future, Replied>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let counted = self.layer.calls.started(metadata::path(request.uri()));
        let (mut head, body) = request.into_parts();
        let own = (&self.inner as &dyn Any).downcast_ref::<Connection>();
        let line = own.and_then(Connection::line);
        let vouched = match (&line, own) {
            (Some(line), _) => line.vouched.clone(),
            // Nothing is proved yet over a connection that is still to be made.
            (None, Some(_)) => Vouched::default(),
            (None, None) => self.vouched.clone(),
        };
        match (line, own) {
            (Some(line), _) => drop(head.extensions.insert(line)),
            (None, Some(_)) => drop(head.extensions.insert(vouched.clone())),
            (None, None) => {}
        }
        let (call, sent) = match self.layer.attach(&mut head, &vouched) {
            Ok(sent) => {
                let messages = Counted::request(Some(&counted), None);
                let body = GuardedBody::wrap(body, Guard::None, messages);
                (Ok(self.inner.call(Request::from_parts(head, body))), sent)
            }
            Err(status) => (Err(status), None),
        };
        let largest = self.layer.largest;
        let replied = Replied {
            counted,
            sent,
            largest,
        };
        Answering::new(call, replied)
    }
}

/// What [`AttachIdentity`] makes of a call: the callee's reply, or why it is not believed.
#[derive(Debug)]
pub struct Replied {
    counted: Call,
    sent: Option<Box<Sent>>,
    largest: Option<Largest>,
}

impl<R: ByteBody, E: 'static> Judge<R, E> for Replied {
    fn judge(self, answer: Result<Result<Response<R>, E>, Status>) -> Result<Response<Body>, E> {
        let Self { counted, sent, .. } = self;
        let (response, guard) = match (answer, sent) {
            (Err(status), _) => (status.into_http(), Guard::None),
            (Ok(Err(error)), sent) => {
                // A channel that is not this crate's may now be connected to another server.
                if let Some(sent) = sent {
                    sent.vouched.clear();
                }
                counted.failed(&error);
                return Err(error);
            }
            (Ok(Ok(response)), None) => (response.map(Body::new), Guard::None),
            (Ok(Ok(response)), Some(sent)) => believed(sent, response.map(Body::new)),
        };
        Ok(GuardedBody::reply(
            response,
            guard,
            Some(counted),
            self.largest,
        ))
    }
}

/// Judges the headers of a reply to what was `sent`; its body is judged as it comes.
fn believed(sent: Box<Sent>, mut response: Response<Body>) -> (Response<Body>, Guard) {
    let (tokens, vouched) = (Arc::clone(&sent.tokens), sent.vouched.clone());
    metadata::drop_foreign_details(response.headers_mut());
    if let Some(callee) = &sent.token.callee {
        let CallerTokens { skews, issuer, .. } = &*tokens;
        skews.note_answer(callee.name.as_str(), &response, &*issuer.clock);
    }
    response.extensions_mut().insert(CallToken {
        renewed_at: sent.token.token.renewed_at(),
        expires_at: sent.token.token.expires_at(),
    });
    response.extensions_mut().insert(StreamToken::of(&sent));
    match Trust::of_headers(sent, &mut response) {
        Ok(trust) => {
            let watch = Watch::of(Limit::Callee(vouched.callee(tokens)));
            (response, Guard::Caller(trust, watch))
        }
        Err(refusal) => (refuse_in_full(&refusal).into_http(), Guard::None),
    }
}

/// Calls `method` with `message` and sends the time limit to the callee, with some more: were there
/// two timers of the same length, chance would decide what a late answer is called.
///
/// A late answer is `DEADLINE_EXCEEDED`, and [`is_late`].
pub(crate) async fn call<M, R, F>(
    limit: Duration,
    message: M,
    method: impl FnOnce(tonic::Request<M>) -> F,
) -> Result<R, Status>
where
    F: Future<Output = Result<tonic::Response<R>, Status>>,
{
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit + MORE);
    match timeout(limit, method(request)).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(elapsed) => {
            let mut late = Status::deadline_exceeded(format!("no answer within {limit:?}"));
            late.set_source(Arc::new(elapsed));
            Err(late)
        }
    }
}

const MORE: Duration = Duration::from_millis(500);

/// [`call`]s over `connection`. A late answer ends the one that the call went over: the next call
/// opens another.
pub(crate) async fn call_over<M, R, F>(
    connection: &Connection,
    limit: Duration,
    message: M,
    method: impl FnOnce(tonic::Request<M>) -> F,
) -> Result<R, Status>
where
    F: Future<Output = Result<tonic::Response<R>, Status>>,
{
    let line = connection.line();
    let answer = call(limit, message, method).await;
    if answer.as_ref().is_err_and(is_late) {
        match line {
            Some(line) => line.life.cancel(),
            None => connection.cut(),
        }
    }
    answer
}

/// Returns `true` if this side gave up waiting, and `false` if the callee itself answered
/// `DEADLINE_EXCEEDED`.
pub(crate) fn is_late(status: &Status) -> bool {
    let mut sources = successors(status.source(), |&error| error.source());
    sources.any(|error| error.is::<Elapsed>() || error.is::<TimeoutExpired>())
}

/// Returns a random part of `most`: who waits so does not come together with all others.
pub(crate) fn up_to(most: Duration) -> Duration {
    let mut random = [u8::MAX];
    // Without randomness it is all of it.
    let _ = getrandom::fill(&mut random);
    let [part] = random;
    most * u32::from(part) / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn late_answer_is_late_whichever_timer_fires_first() {
        let limit = Duration::from_millis(200);
        for _ in 0..1_000 {
            // As tonic's channels and servers do it.
            let hangs = |request: tonic::Request<()>| async move {
                let header = request.metadata().get("grpc-timeout").unwrap();
                let micros = header.to_str().unwrap().trim_end_matches('u').parse();
                sleep(Duration::from_micros(micros.unwrap())).await;
                Err::<tonic::Response<()>, _>(Status::from_error(TimeoutExpired(()).into()))
            };

            let late = call(limit, (), hangs).await.unwrap_err();

            assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
            assert!(is_late(&late));
        }
        let channels_own = Status::from_error(TimeoutExpired(()).into());
        assert!(is_late(&channels_own), "{channels_own:?}");
        assert!(!is_late(&Status::deadline_exceeded("the callee's word")));
    }

    #[test]
    fn random_pause_is_within_its_limit() {
        let most = Duration::from_millis(250);
        let mut pauses: Vec<_> = (0..100).map(|_| up_to(most)).collect();

        assert!(pauses.iter().all(|pause| *pause <= most), "{pauses:?}");
        pauses.dedup();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
