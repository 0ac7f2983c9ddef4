//! The keys that were revoked in this process's life.

use std::collections::HashSet;

use crate::jose::Fingerprint;
use crate::trust::Deployment;

/// Remembers every key that was ever revoked, whatever its file says or leaves out later.
///
/// A file that was cut off, or restored from before the revocation, holds the key without its
/// `is-revoked=true`. Only `is-revoked=false`, written out, takes a revocation back.
#[derive(Clone, Debug, Default)]
pub(super) struct Revoked(HashSet<Fingerprint>);

/// A key that stays revoked although its file does not say so any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct StillRevoked {
    pub(super) deployment: String,
    pub(super) key: String,
    pub(super) fingerprint: Fingerprint,
}

impl Revoked {
    /// Notes what `deployments` revoke and take back, the latter for the keys `cleared`; revokes
    /// what they forget to.
    pub(super) fn apply(
        &mut self,
        deployments: &mut [Deployment],
        cleared: &HashSet<Fingerprint>,
    ) -> Vec<StillRevoked> {
        let mut kept = Vec::new();
        for deployment in deployments {
            for key in &mut deployment.keys {
                let fingerprint = key.key.fingerprint();
                if key.revoked {
                    self.0.insert(fingerprint);
                } else if cleared.contains(&fingerprint) {
                    self.0.remove(&fingerprint);
                } else if self.0.contains(&fingerprint) {
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
