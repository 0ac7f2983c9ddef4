//! Where a TLS property may be set: the most specific setting first, then what it falls back to.

use super::super::schema;

/// One end of a connection, whose TLS is set by properties of its own.
///
/// Each property (`enabled`, `mtls`, `cert-chain`, `private-key`, `trust-cert-collection`) is taken
/// from the first of its places that sets it to something; `on` is another spelling of `enabled`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsEnd<'a> {
    /// The module's own server.
    Server,
    /// The client of the connection with this name: the module type of the peer, such as `dpm`.
    Client(&'a str),
}

const SERVER: &[&str] = &["ataccama.server.grpc.tls", "ataccama.server.tls"];
const CLIENT: &[&str] = &[
    "ataccama.client.connection.<c>.grpc.tls",
    "ataccama.client.connection.<c>.tls",
    "ataccama.client.grpc.tls",
    "ataccama.client.tls",
];

/// A setting that may hold a property.
#[derive(Clone, Debug)]
pub(in crate::config) struct Place {
    /// The name with `<c>`, as the table of settings has it.
    pub(in crate::config) pattern: String,
    pub(in crate::config) keys: Vec<String>,
    /// The name in full.
    pub(in crate::config) setting: String,
}

impl TlsEnd<'_> {
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Server => SERVER,
            Self::Client(_) => CLIENT,
        }
    }

    fn connection(self) -> String {
        match self {
            Self::Server => String::new(),
            Self::Client(connection) => connection.to_owned(),
        }
    }

    /// Returns the places of `property`, the most specific first.
    pub(in crate::config) fn places(self, property: &str) -> impl Iterator<Item = Place> {
        self.prefixes().iter().map(move |prefix| {
            let pattern = format!("{prefix}.{property}");
            let keys = vec![self.connection()];
            let setting = schema::path(&pattern, &keys).join(".");
            Place {
                pattern,
                keys,
                setting,
            }
        })
    }

    /// Returns the most specific setting for `property`, to be written where nothing is set.
    pub fn setting(self, property: &str) -> String {
        format!("{}.{property}", self.start())
    }

    /// Returns the common start of the most specific settings.
    pub(in crate::config) fn start(self) -> String {
        let first = self.prefixes().first().copied().unwrap_or_default();
        first.replace("<c>", &self.connection())
    }
}
