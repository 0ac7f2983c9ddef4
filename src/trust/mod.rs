//! The deployments that this module trusts, and its own identity.

mod deployment;
mod error;
mod key_set;
mod store;

pub use deployment::{Deployment, OwnDeployment, TrustedKey};
pub use error::TrustError;
pub use key_set::{Found, KeySet};
pub use store::TrustStore;
