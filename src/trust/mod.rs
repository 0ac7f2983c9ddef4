//! The deployments that this module trusts, and its own identity.

mod deployment;
mod key_set;
mod store;

pub use deployment::{Deployment, OwnDeployment, TrustedKey};
pub use key_set::{Found, KeySet, TrustError};
pub use store::TrustStore;
