//! What can be wrong with a module's files, by topic.

pub(super) mod addresses;
pub(super) mod cross;
mod cross_tls;
pub(super) mod deployments;
pub(super) mod file;
pub(super) mod keys;
pub(super) mod lost;
pub(super) mod tls;
pub(super) mod trusted_keys;
