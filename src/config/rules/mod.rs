//! What can be wrong with a module's files, by topic.

pub mod cross;
pub mod deployments;
pub mod file;
pub mod keys;
pub mod tls;
