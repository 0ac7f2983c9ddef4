//! Whether a token came over a connection of its own deployment.

use super::{Reason, Refusal, TokenVerifier, VerifiedToken};
use crate::jose::Fingerprint;

impl TokenVerifier {
    /// Checks that `token` may come over a connection whose client certificate has the key
    /// `certificate`.
    ///
    /// It may not where that key is pinned for another deployment, nor where the token's deployment
    /// has pins and this is none of them: a stolen token is of no use on a connection of one's own.
    /// A certificate that nobody pins, of a deployment without pins, says nothing about tokens.
    ///
    /// # Errors
    ///
    /// `ISSUER_MISMATCH`.
    pub fn check_certificate(
        &self,
        token: &VerifiedToken,
        certificate: Fingerprint,
    ) -> Result<(), Refusal> {
        let trust = self.trust.current();
        let owner = trust.pin_owner(certificate);
        let owner = owner.map(|owner| owner.name.as_str());
        let caller = token
            .deployment()
            .and_then(|known| trust.deployment(known.name.as_str()));
        let name = caller.map(|caller| caller.name.as_str());
        let has_pins = caller.is_some_and(|caller| !caller.tls_pins.is_empty());
        let fits = match owner {
            Some(owner) => name == Some(owner),
            None => !has_pins,
        };
        if fits {
            return Ok(());
        }
        let detail = format!(
            "the token is by `{}`, the connection's certificate by {}",
            name.unwrap_or("this module itself"),
            owner.map_or_else(
                || format!("nobody who is pinned (`{certificate}`)"),
                |owner| format!("`{owner}`"),
            ),
        );
        Err(Refusal {
            key_id: Some(token.key_id().to_string()),
            deployment: token.deployment().map(|known| known.name.clone()),
            ..Refusal::new(Reason::IssuerMismatch, detail)
        })
    }
}
