//! Why a set of deployments cannot be trusted as a whole.

use crate::identity::DeploymentName;

/// Why deployments do not make a [`KeySet`](super::KeySet): each of these would make a caller
/// ambiguous.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Two names that differ only in case or dashes.
    #[error("deployments `{first}` and `{second}` differ only in case or dashes")]
    SameName {
        /// The first name.
        first: DeploymentName,
        /// The name that repeats it.
        second: DeploymentName,
    },
    /// One key id in two places.
    #[error("key id `{key_id}` is in deployment `{first}` and again in `{second}`")]
    SameKeyId {
        /// The id in question.
        key_id: String,
        /// The first deployment.
        first: DeploymentName,
        /// The deployment that repeats it; may be the same.
        second: DeploymentName,
    },
    /// One public key in two places.
    #[error("one public key, `{fingerprint}`, is in deployment `{first}` and again in `{second}`")]
    SameKey {
        /// The computed fingerprint of the key.
        fingerprint: String,
        /// The first deployment.
        first: DeploymentName,
        /// The deployment that repeats it; may be the same.
        second: DeploymentName,
    },
    /// One TLS pin in two deployments.
    #[error("one TLS key, `{fingerprint}`, is pinned for deployment `{first}` and for `{second}`")]
    SamePin {
        /// The pin.
        fingerprint: String,
        /// The first deployment.
        first: DeploymentName,
        /// The deployment that repeats it.
        second: DeploymentName,
    },
    /// This module's own key among the trusted ones: its own tokens would come back as a peer's.
    #[error("deployment `{0}` has this module's own key")]
    OwnKey(DeploymentName),
}
