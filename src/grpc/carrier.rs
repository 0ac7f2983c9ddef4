//! What carries a call: TLS, this machine, or a network that can be read.

use http::Extensions;
use tonic::transport::server::UdsConnectInfo;

use super::peer;
use crate::token::{Reason, Refusal};

/// Where a module may do without TLS, as its file says it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plaintext {
    /// `countersign.client.allow-plaintext`: its calls, also beyond loopback.
    pub(crate) calls: bool,
    /// `countersign.server.allow-plaintext`: its server, also beyond loopback.
    pub(crate) server: bool,
    /// Its server has TLS on, so no call arrives without.
    pub(crate) server_has_tls: bool,
}

/// What the channel goes over that a [`client_layer`](crate::Module::client_layer) is put around.
/// The layer cannot see it: the code that makes the channel says it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transport {
    has_tls: bool,
    is_here: bool,
}

impl Transport {
    /// TLS, to a server whose certificate was verified. This is believed: over a channel without
    /// TLS the tokens can be read and used.
    pub fn tls() -> Self {
        Self {
            has_tls: true,
            is_here: false,
        }
    }

    /// A loopback address or a Unix socket of this machine, without TLS. This is believed.
    pub fn loopback() -> Self {
        Self {
            has_tls: false,
            is_here: true,
        }
    }

    /// Plaintext beyond loopback, where the network is trusted:
    /// `countersign.client.allow-plaintext=true` has to say so, or
    /// [`ModuleBuilder::dangerous_plaintext`](super::ModuleBuilder::dangerous_plaintext).
    pub fn dangerous_plaintext() -> Self {
        Self {
            has_tls: false,
            is_here: false,
        }
    }

    /// Returns what contradicts it: TLS that is to be used, or plaintext that is not allowed.
    pub(super) fn contradiction(self, has_tls: bool, plaintext: bool) -> Option<&'static str> {
        if has_tls && !self.has_tls {
            return Some(
                "the file turns TLS on for the connection there, or pins its certificates",
            );
        }
        let is_allowed = self.has_tls || self.is_here || plaintext;
        (!is_allowed).then_some("`countersign.client.allow-plaintext` is not `true`")
    }
}

impl Plaintext {
    /// Refuses a call that arrived in plaintext where it may not, as the server's own socket shows
    /// it: what a header says of it is never believed.
    pub(super) fn judge(self, extensions: &Extensions) -> Result<(), Refusal> {
        let address = peer::address_in(extensions);
        let is_unix = extensions.get::<UdsConnectInfo>().is_some();
        let is_known = is_unix || address.is_some();
        let why = if peer::has_tls(extensions) {
            return Ok(());
        } else if is_known && self.server_has_tls {
            "the file turns TLS on, and the call arrived without".to_owned()
        } else if is_unix || address.is_some_and(|at| self.server || peer::is_loopback(at)) {
            return Ok(());
        } else if let Some(at) = address {
            format!("the call came from {at} without TLS")
        } else {
            "the server does not say what the call came over; serve with `Module::serve`, a server of tonic's, or `dangerous_any_transport`".to_owned()
        };
        Err(Refusal::new(Reason::PlaintextNotAllowed, why))
    }
}
