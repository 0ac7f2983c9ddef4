//! What can be wrong with a module's files, by topic.

pub mod addresses;
pub mod cross;
pub mod deployments;
pub mod file;
pub mod keys;
pub mod tls;
pub mod trusted_keys;
