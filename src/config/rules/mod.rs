//! What can be wrong with a module's files, by topic.

pub mod addresses;
pub mod cross;
pub mod deployments;
pub mod etcd;
pub mod file;
pub mod keys;
mod one_way;
mod replicas;
pub mod tls;
