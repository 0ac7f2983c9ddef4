//! Where a TLS property may be set: the most specific setting first, then what it falls back to.

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

/// Where the server's TLS may be set.
pub const SERVER: &[&str] = &["ataccama.server.grpc.tls", "ataccama.server.tls"];
/// Where a client's TLS may be set.
pub const CLIENT: &[&str] = &[
    "ataccama.client.connection.<c>.grpc.tls",
    "ataccama.client.connection.<c>.tls",
    "ataccama.client.grpc.tls",
    "ataccama.client.tls",
];

impl<'a> TlsEnd<'a> {
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Server => SERVER,
            Self::Client(_) => CLIENT,
        }
    }

    /// Returns the map key of its settings: the name of the connection, if it is a client.
    pub(in crate::config) fn key(self) -> &'a str {
        match self {
            Self::Server => "",
            Self::Client(connection) => connection,
        }
    }

    /// Returns the settings that may hold `property`, as the table of settings has them, the most
    /// specific first.
    pub(in crate::config) fn settings(self, property: &str) -> impl Iterator<Item = String> {
        let prefixes = self.prefixes().iter();
        prefixes.map(move |prefix| format!("{prefix}.{property}"))
    }

    /// Returns the most specific setting for `property`, to be written if nothing is set.
    pub fn setting(self, property: &str) -> String {
        format!("{}.{property}", self.start())
    }

    /// Returns the common start of the most specific settings.
    pub(in crate::config) fn start(self) -> String {
        let first = self.prefixes().first().copied().unwrap_or_default();
        first.replace("<c>", self.key())
    }
}
