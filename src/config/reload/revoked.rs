//! The keys that were revoked in this process's life.

use std::collections::HashMap;

use crate::config::sources::Source;
use crate::diagnostic::Origin;
use crate::jose::Fingerprint;
use crate::properties::placeholder::has_placeholder;
use crate::trust::Deployment;

/// Remembers every key that was ever revoked, and where that was said, whatever the files say or
/// leave out later.
///
/// A file that was cut off, or restored from before the revocation, holds the key without its
/// `is-revoked=true`, and lets that of a lower file or a placeholder's default come through. Only
/// `is-revoked=false`, written out where the revocation was or above it, takes it back.
#[derive(Clone, Debug, Default)]
pub(super) struct Revoked(HashMap<Fingerprint, Option<Origin>>);

/// A key that stays revoked although its file does not say so any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct StillRevoked {
    pub(super) deployment: String,
    pub(super) key: String,
    pub(super) fingerprint: Fingerprint,
}

impl Revoked {
    /// Notes what `deployments` revoke and take back, as `source` says; revokes what they forget to.
    pub(super) fn apply(
        &mut self,
        deployments: &mut [Deployment],
        source: &Source,
    ) -> Vec<StillRevoked> {
        let mut kept = Vec::new();
        for deployment in deployments {
            for key in &mut deployment.keys {
                let fingerprint = key.key.fingerprint();
                let at = source.revoked_at.get(&fingerprint);
                if key.revoked {
                    let origin = at.map(|at| at.origin().clone());
                    self.0.insert(fingerprint, origin);
                } else if let Some(revoked) = self.0.get(&fingerprint) {
                    let revoked = revoked.as_ref().and_then(|origin| source.rank(origin));
                    let literal = at.filter(|at| !has_placeholder(at.text()));
                    let rank = literal.and_then(|at| source.rank(at.origin()));
                    if rank.is_some_and(|rank| rank >= revoked.unwrap_or(usize::MAX)) {
                        self.0.remove(&fingerprint);
                        continue;
                    }
                    key.revoked = true;
                    kept.push(StillRevoked {
                        deployment: deployment.name.to_string(),
                        key: key.name.clone(),
                        fingerprint,
                    });
                }
            }
        }
        kept
    }
}
