//! The proof of who answered: what a caller asks of a reply, and what the callee adds to it.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::HeaderValue;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use tonic::Status;

use super::callee::{CallerToken, CallerTokens, Measured, Vouched, invalid};
use super::metadata;
use super::session::Polled;
use super::status::refuse_in_full;
use crate::secret::Secret;
#[cfg(feature = "registry")]
use crate::token::IssueError;
use crate::token::proof::{EngineClaim, Exchange, ExpectedProof, ProofSigner, ProofVerifier};
use crate::token::{Nonce, Reason, Refusal};

/// Which replies a callee must prove: `countersign.proof.mode`. Only the caller's policy; nothing
/// is negotiated, so that nothing between the two can weaken it.
///
/// The dial-back asks in every mode. A module asks itself for no proof: it would only show that it
/// has its own key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProofMode {
    /// None.
    Off,
    /// Those of `RegisterEngine` and `WhoAmI`, and the first of each connection: who has proved
    /// itself there is believed as long as the connection lasts and what is known of it here does
    /// not change. Calls that begin before the first proof has come ask for their own. Of a channel
    /// that is not this crate's the connections are not seen: the first call is proved, and the
    /// first after a failure of the channel. The default: a signature per call is felt, one per
    /// connection is not.
    #[default]
    Handshake,
    /// All.
    EveryCall,
}

const HANDSHAKE: [&str; 2] = [
    "/countersign.registry.v1.EngineRegistryService/RegisterEngine",
    "/countersign.identity.v1.IdentityService/WhoAmI",
];

/// Which calls of a layer ask for a proof, and how it is judged.
#[derive(Debug)]
pub(super) struct RequiredProof {
    pub(super) mode: ProofMode,
    pub(super) verifier: ProofVerifier,
    pub(super) engine: Option<EngineClaim>,
}

impl RequiredProof {
    /// Returns `true` if the reply to a call of `path` with `token` must be proved.
    pub(super) fn covers(&self, path: &str, token: &CallerToken, vouched: &Vouched) -> bool {
        match self.mode {
            ProofMode::Off => false,
            ProofMode::Handshake => {
                let callee = token.callee.as_ref();
                HANDSHAKE.contains(&path) || callee.is_some_and(|callee| !vouched.holds_for(callee))
            }
            ProofMode::EveryCall => true,
        }
    }
}

/// What was sent with a call, and what its reply must carry.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) tokens: Arc<CallerTokens>,
    pub(super) token: Arc<CallerToken>,
    /// Where a proof is noted.
    pub(super) vouched: Vouched,
    pub(super) expected: Option<Expected>,
}

/// The proof that the reply to one call must carry.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) required: Arc<RequiredProof>,
    pub(super) nonce: Nonce,
    pub(super) path: PathAndQuery,
    /// When the call was made.
    pub(super) sent: SystemTime,
}

impl Sent {
    /// Checks the one proof in `headers`; returns it if it is valid, and nothing if none was asked
    /// for.
    fn check(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
        let Some(Expected {
            required: asked,
            nonce,
            path,
            sent,
        }) = &self.expected
        else {
            return Ok(None);
        };
        let mut proofs = headers.get_all(metadata::PROOF).iter();
        let value = proofs.next().ok_or_else(missing)?;
        // Who was trusted when the call was made may not be so any more.
        let found = self.tokens.callee(&self.tokens.issuer.trust.current());
        let known = found.map_err(|error| invalid(error.to_string()))?;
        let (proof, callee) = match (value.to_str(), &known, proofs.next()) {
            (Ok(proof), Some(callee), None) => (proof, callee),
            (_, _, Some(_)) => return Err(invalid("the reply carries two proofs")),
            (Err(_), ..) => return Err(invalid("it is not text")),
            (_, None, _) => return Err(invalid("a module does not ask itself for a proof")),
        };
        let engine = asked.engine.as_ref();
        let verifier = &asked.verifier;
        let expected = ExpectedProof {
            exchange: Exchange {
                caller: self.token.token.issuer(),
                nonce: *nonce,
                token: self.token.token.expose(),
                path: path.as_str(),
            },
            callee,
            engine,
            sent: *sent,
        };
        let judged = verifier.verify(proof, &expected);
        let signed = match &judged {
            Ok((signed, _)) => Some(*signed),
            // Its times alone do not hold: that is the skew.
            Err(refusal) => refusal.callee_time(),
        };
        if let Some(signed) = signed {
            let measured = Measured {
                deployment: callee.name.as_str(),
                engine: engine.map(|engine| engine.id.as_str()),
                sent: *sent,
                received: verifier.clock().now(),
                signed,
            };
            self.tokens.skews.note(measured, verifier.leeway());
        }
        let (_, key) = judged?;
        self.vouched.set(Arc::clone(callee), key);
        Ok(Some(value.clone()))
    }
}

fn missing() -> Refusal {
    let detail = "the reply has no `countersign-proof`";
    Refusal::new(Reason::ProofMissing, detail)
}

/// The reply's proof was valid. It is in the extensions of a response.
#[derive(Clone, Copy, Debug)]
pub struct Proved;

/// What is known about the module that answers.
#[derive(Debug)]
pub(super) enum Trust {
    /// Nothing, and nothing was asked.
    Unasked,
    /// The valid proof.
    Proved(HeaderValue),
    /// Nothing yet: the proof was not among the headers, and may still be in the trailers of a
    /// refusal without a message, which a proxy makes of a reply of trailers alone.
    Awaited { sent: Box<Sent>, refused: bool },
}

impl Trust {
    /// Judges the headers of the reply to a call.
    pub(super) fn of_headers<R>(
        sent: Box<Sent>,
        response: &mut Response<R>,
    ) -> Result<Self, Refusal> {
        match sent.check(response.headers()) {
            Ok(None) => {
                // Whatever finds a proof in the metadata may rely on it: one that was not judged
                // goes.
                response.headers_mut().remove(metadata::PROOF);
                Ok(Self::Unasked)
            }
            Ok(Some(proof)) => {
                response.extensions_mut().insert(Proved);
                Ok(Self::Proved(proof))
            }
            Err(refusal) if refusal.reason == Reason::ProofMissing => {
                match refuses(response.headers()) {
                    Some(false) => Err(refusal),
                    Some(true) => Ok(Self::Unasked),
                    None => Ok(Self::Awaited {
                        sent,
                        refused: response.status() != StatusCode::OK,
                    }),
                }
            }
            Err(refusal) => Err(refusal),
        }
    }

    pub(super) fn awaits_proof(&self) -> bool {
        matches!(self, Self::Awaited { .. })
    }

    /// Judges what the body of a reply gives next.
    pub(super) fn judge(&self, polled: Polled) -> Result<Polled, Status> {
        let judged = match polled {
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(mut trailers) => {
                    metadata::drop_foreign_details(&mut trailers);
                    let judged = self.judge_end(&mut trailers);
                    judged.map(|()| Some(Ok(Frame::trailers(trailers))))
                }
                Err(frame) => match frame.data_ref() {
                    Some(data) if self.awaits_proof() && !data.is_empty() => Err(missing()),
                    _ => Ok(Some(Ok(frame))),
                },
            },
            None => self.judge_end(&mut HeaderMap::new()).map(|()| None),
            error => Ok(error),
        };
        judged.map_err(|refusal| refuse_in_full(&refusal))
    }

    /// Decides at the end of a reply. Leaves a proof in the trailers of a refusal exactly where one
    /// held: what [`is_proved`](super::is_proved) reads.
    fn judge_end(&self, trailers: &mut HeaderMap) -> Result<(), Refusal> {
        let is_refusal = refuses(trailers);
        match self {
            Self::Awaited { sent, refused } => match sent.check(trailers) {
                Err(refusal)
                    if refusal.reason != Reason::ProofMissing
                        || !is_refusal.unwrap_or(*refused) =>
                {
                    return Err(refusal);
                }
                _ => {}
            },
            Self::Proved(proof) if is_refusal == Some(true) => {
                trailers.insert(metadata::PROOF, proof.clone());
            }
            Self::Proved(_) | Self::Unasked => {
                trailers.remove(metadata::PROOF);
            }
        }
        Ok(())
    }
}

/// Returns whether `grpc-status` refuses the call, if `headers` contain it.
fn refuses(headers: &HeaderMap) -> Option<bool> {
    headers.get(Status::GRPC_STATUS).map(|code| code != "0")
}

/// The call that the reply's proof will name. Made only for a caller whose signature verified and
/// whose nonce is well formed, whether the call is admitted or refused.
#[derive(Debug)]
pub(super) struct PendingProof {
    proofs: Proofs,
    caller: String,
    nonce: Nonce,
    token: Secret<String>,
    path: PathAndQuery,
}

/// The token with which this module opened a stream. Found in the extensions of a response.
#[derive(Clone, Debug)]
pub(crate) struct StreamToken(Arc<CallerTokens>, Arc<CallerToken>);

impl StreamToken {
    pub(super) fn of(sent: &Sent) -> Self {
        Self(Arc::clone(&sent.tokens), Arc::clone(&sent.token))
    }

    /// Proves that `engine` holds the stream which the token opened, with this module's current key,
    /// to a callee that asks with `nonce`.
    #[cfg(feature = "registry")]
    pub(crate) fn prove(&self, nonce: Nonce, engine: &EngineClaim) -> Result<String, IssueError> {
        let (tokens, token) = (&self.0, &self.1.token);
        let (trust, clock) = (&tokens.issuer.trust, &tokens.issuer.clock);
        let exchange = Exchange {
            caller: token.issuer(),
            nonce,
            token: token.expose(),
            path: CONNECT_ENGINE,
        };
        ProofSigner::new(Arc::clone(trust), Arc::clone(clock)).sign(&exchange, Some(engine))
    }
}

/// The method over whose stream a one-way engine proves itself.
#[cfg(feature = "registry")]
pub(crate) const CONNECT_ENGINE: &str =
    "/countersign.registry.v1.EngineRegistryService/ConnectEngine";

/// The proofs of one server: the signer, and the engine if the server is one.
#[derive(Clone, Debug)]
pub(super) struct Proofs {
    pub(super) signer: ProofSigner,
    pub(super) engine: Option<Arc<EngineClaim>>,
}

const CHECK_STATUS: &str = "/countersign.engine.v1.EngineService/CheckStatus";

impl PendingProof {
    /// Notes a call whose token's `iss` is `caller`; `None` if no proof was requested.
    pub(super) fn of(proofs: &Proofs, head: &Parts, caller: &str) -> Option<Self> {
        let mut nonces = head.headers.get_all(metadata::NONCE).iter();
        let nonce = nonces.next()?.to_str().ok()?.parse().ok()?;
        let token = metadata::bearer(&head.headers).ok()?.to_owned();
        (nonces.next().is_none() && caller.len() <= MAX_CALLER_BYTES).then(|| Self {
            proofs: proofs.clone(),
            caller: caller.to_owned(),
            nonce,
            token: Secret::new(token),
            path: metadata::kept_path(&head.uri),
        })
    }

    /// Adds the proof to the reply's first headers, which are the trailers where the reply has
    /// nothing else. A handler adds an [`EngineClaim`] to the reply's extensions to have it signed.
    pub(super) fn countersign<R>(self, mut response: Response<R>) -> Response<R> {
        let exchange = Exchange {
            caller: &self.caller,
            nonce: self.nonce,
            token: self.token.expose(),
            path: self.path.as_str(),
        };
        let Proofs { signer, engine } = &self.proofs;
        let engine = engine.as_deref().filter(|_| self.path == CHECK_STATUS);
        let named = response.extensions().get::<EngineClaim>();
        let proof = signer.sign(&exchange, named.or(engine));
        // Without a proof the caller refuses the reply: nothing is lost but the call.
        match proof
            .ok()
            .and_then(|proof| HeaderValue::try_from(proof).ok())
        {
            Some(value) => response.headers_mut().insert(metadata::PROOF, value),
            None => response.headers_mut().remove(metadata::PROOF),
        };
        response
    }
}

/// A name has 40 characters at most, a key id 128: no caller with a longer `iss` could verify the
/// proof, and a proof must not grow with it.
const MAX_CALLER_BYTES: usize = 512;
