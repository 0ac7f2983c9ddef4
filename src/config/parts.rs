//! The keys, pins, deployments and TLS of a file, each with the place where it is written.

use std::collections::BTreeMap;

use crate::diagnostic::Origin;
use crate::grpc::tls::{ClientTlsOptions, OwnFiles, ServerTlsOptions};
use crate::jose::{Fingerprint, KeyId, SigningKey};
use crate::properties::Sourced;
use crate::trust::{Deployment, TrustedKey};

use super::schema::TlsEnd;

/// A setting with a foreign name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ignored {
    /// Where it is written.
    pub origin: Origin,
    /// Its name, without anything that looks like a private key.
    pub name: String,
}

/// The module's own key and where it is written.
#[derive(Clone, Debug)]
pub struct OwnKey {
    pub key: SigningKey,
    pub key_id: KeyId,
    pub at: Sourced,
}

/// A deployment as the file has it: what could be read of it, and where it is written.
#[derive(Clone, Debug)]
pub struct ReadDeployment {
    pub name: String,
    pub environment: Option<Sourced>,
    pub keys: Vec<ReadKey>,
    /// The TLS pins, each with its value.
    pub pins: Vec<(Fingerprint, Sourced)>,
    /// The deployment, unless something required is missing.
    pub deployment: Option<Deployment>,
}

/// A key as the file has it.
#[derive(Clone, Debug)]
pub struct ReadKey {
    pub trusted: TrustedKey,
    /// The value of its fingerprint.
    pub at: Sourced,
    /// The value that decides whether it is revoked, as written; `None` for the default.
    pub revoked_at: Option<Sourced>,
    /// Whether it is revoked only because the home remembers that.
    pub remembered: bool,
}

/// TLS as one file has it.
#[derive(Clone, Debug)]
pub struct Tls {
    pub server: Side<ServerTlsOptions>,
    /// By connection.
    pub clients: BTreeMap<String, Side<ClientTlsOptions>>,
}

impl Tls {
    /// Returns `true` if the connection `name` uses TLS.
    pub fn is_on(&self, name: &str) -> bool {
        self.clients.get(name).is_some_and(|side| side.on)
    }

    pub fn client(&self, name: &str) -> Option<ClientTlsOptions> {
        self.clients.get(name)?.options.clone()
    }

    /// Lists the module's own certificates: which end shows one, its files, and where they are
    /// named.
    pub fn own(&self) -> impl Iterator<Item = (TlsEnd<'_>, &OwnFiles, &Sourced)> {
        let named = self.server.options.iter().zip(&self.server.cert_chain_at);
        let server = named.map(|(options, at)| (TlsEnd::Server, &options.own, at));
        let clients = self.clients.iter().filter_map(|(name, side)| {
            let own = side.options.as_ref()?.own.as_ref()?;
            Some((TlsEnd::Client(name), own, side.cert_chain_at.as_ref()?))
        });
        server.chain(clients)
    }
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct Side<T> {
    pub on: bool,
    /// Where it is turned on or off, if anywhere.
    pub at: Option<Sourced>,
    /// Where the own certificate is named, if anywhere.
    pub cert_chain_at: Option<Sourced>,
    /// `None` if it is off or something is missing.
    pub options: Option<T>,
}
