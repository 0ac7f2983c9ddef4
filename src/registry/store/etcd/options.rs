//! How etcd is reached.

use crate::secret::Secret;

/// Where etcd is, and how it knows this module.
#[derive(Clone, Debug, Default)]
pub(crate) struct EtcdOptions {
    /// `host:port` of each member.
    pub(crate) endpoints: Vec<String>,
    /// The user and its password.
    pub(crate) user: Option<(String, Secret<String>)>,
    /// TLS, if it is on.
    pub(crate) tls: Option<EtcdTls>,
    /// How many engines there may be.
    pub(crate) max_engines: usize,
}

/// TLS to etcd.
#[derive(Clone, Debug)]
pub(crate) struct EtcdTls {
    /// The certificates that are trusted, in PEM.
    pub(crate) trusted: Vec<u8>,
    /// The client's certificate chain and its key, in PEM.
    pub(crate) identity: Option<(Vec<u8>, Secret<Vec<u8>>)>,
}
