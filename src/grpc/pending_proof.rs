//! The callee's half of the proof: what is known of a call until its reply is countersigned.

use std::sync::Arc;

use http::Response;
use http::header::HeaderValue;
use http::request::Parts;
use http::uri::PathAndQuery;

use crate::secret::Secret;
use crate::token::Nonce;
use crate::token::proof::{EngineClaim, Exchange, ProofSigner};

use super::metadata;

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
