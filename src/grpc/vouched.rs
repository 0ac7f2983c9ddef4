//! What is known of a callee by an earlier proof.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tonic::Status;

use crate::jose::KeyId;
use crate::token::{Reason, Refusal};
use crate::trust::{Deployment, TrustedKey};

use super::caller_tokens::CallerTokens;
use super::status::refuse_in_full;

/// Who proved itself over a connection. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Vouched(Arc<ArcSwapOption<(Arc<Deployment>, KeyId)>>);

impl Vouched {
    /// Returns `true` if `callee` proved itself, and is known since as it was then.
    pub(super) fn holds_for(&self, callee: &Arc<Deployment>) -> bool {
        let voucher = self.0.load();
        let proved = voucher.as_ref();
        proved.is_some_and(|proved| Arc::ptr_eq(&proved.0, callee))
    }

    /// Notes that `deployment` proved itself with `key`.
    pub(super) fn set(&self, deployment: Arc<Deployment>, key: &TrustedKey) {
        let voucher = (deployment, key.key_id.clone());
        self.0.store(Some(Arc::new(voucher)));
    }

    /// Forgets the proof: the connection is another one.
    pub(super) fn clear(&self) {
        self.0.store(None);
    }

    /// Returns the callee of a call over this connection.
    pub(super) fn callee(&self, tokens: Arc<CallerTokens>) -> Callee {
        let voucher = self.0.load();
        let key = voucher.as_ref().map(|voucher| voucher.1.clone());
        Callee { tokens, key }
    }
}

/// The callee of a call whose reply is still coming.
#[derive(Clone, Debug)]
pub(super) struct Callee {
    tokens: Arc<CallerTokens>,
    /// The key with which it proved itself.
    key: Option<KeyId>,
}

impl Callee {
    fn still_trusted(&self) -> Result<(), Refusal> {
        let trust = self.tokens.issuer.trust.current();
        let callee = self
            .tokens
            .callee(&trust)
            .map_err(|error| invalid(error.to_string()))?;
        match (&self.key, callee) {
            (Some(key), Some(callee)) if !callee.active_keys().any(|now| now.key_id == *key) => {
                let name = &callee.name;
                Err(invalid(format!(
                    "`{key}` is no active key of `{name}` here"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Completes once it is no longer trusted.
    pub(super) async fn over(self) -> Status {
        let mut changes = self.tokens.issuer.trust.subscribe();
        loop {
            if let Err(refusal) = self.still_trusted() {
                return refuse_in_full(&refusal);
            }
            // The store outlives the call, which holds it.
            let _ = changes.changed().await;
        }
    }
}

fn invalid(why: String) -> Refusal {
    Refusal::new(Reason::ProofInvalid, why)
}
