//! What carries a call: TLS, this machine, or a network that can be read.

use std::net::SocketAddr;

use http::Extensions;
#[cfg(unix)]
use tonic::transport::server::UdsConnectInfo;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use super::PeerInfo;
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

/// What the channel goes over that a [`client_layer`](crate::Module::client_layer) is put around. The
/// layer cannot see it: the code that makes the channel says it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transport(Over);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    Tls,
    Loopback,
    Plaintext,
}

impl Transport {
    /// TLS, to a server whose certificate was verified. This is believed: over a channel without TLS
    /// the tokens can be read and used.
    pub fn tls() -> Self {
        Self(Over::Tls)
    }

    /// A loopback address or a Unix socket of this machine, without TLS. This is believed.
    pub fn loopback() -> Self {
        Self(Over::Loopback)
    }

    /// Plaintext beyond loopback, where the network is trusted:
    /// `countersign.client.allow-plaintext=true` has to say so, or
    /// [`ModuleBuilder::dangerous_plaintext`](super::ModuleBuilder::dangerous_plaintext).
    pub fn dangerous_plaintext() -> Self {
        Self(Over::Plaintext)
    }

    /// Returns what contradicts it: TLS that is to be used, or plaintext that is not allowed.
    pub(super) fn contradiction(self, has_tls: bool, plaintext: bool) -> Option<&'static str> {
        match self.0 {
            Over::Loopback | Over::Plaintext if has_tls => {
                Some("the file turns TLS on for the connection there, or pins its certificates")
            }
            Over::Plaintext if !plaintext => {
                Some("`countersign.client.allow-plaintext` is not `true`")
            }
            Over::Tls | Over::Loopback | Over::Plaintext => None,
        }
    }
}

/// What carried a call, as the server's own socket shows it.
#[derive(Debug)]
enum Seen {
    Tls,
    Local,
    Remote(SocketAddr),
    Nothing,
}

/// Looks among the extensions of a call; what a header says of it is never believed.
fn seen(extensions: &Extensions) -> Seen {
    if let Some(peer) = extensions.get::<PeerInfo>() {
        return if peer.tls {
            Seen::Tls
        } else {
            tcp(Some(peer.address))
        };
    }
    if extensions.get::<TlsConnectInfo<TcpConnectInfo>>().is_some() {
        return Seen::Tls;
    }
    if let Some(info) = extensions.get::<TcpConnectInfo>() {
        return tcp(info.remote_addr());
    }
    #[cfg(unix)]
    {
        if extensions.get::<TlsConnectInfo<UdsConnectInfo>>().is_some() {
            return Seen::Tls;
        }
        if extensions.get::<UdsConnectInfo>().is_some() {
            return Seen::Local;
        }
    }
    Seen::Nothing
}

fn tcp(address: Option<SocketAddr>) -> Seen {
    match address {
        Some(at) if at.ip().to_canonical().is_loopback() => Seen::Local,
        Some(at) => Seen::Remote(at),
        None => Seen::Nothing,
    }
}

impl Plaintext {
    /// Refuses a call that arrived in plaintext where it may not.
    pub(super) fn judge(self, extensions: &Extensions) -> Result<(), Refusal> {
        let why = match seen(extensions) {
            Seen::Local | Seen::Remote(_) if self.server_has_tls => {
                "the file turns TLS on, and the call arrived without".to_owned()
            }
            Seen::Remote(at) if !self.server => format!("the call came from {at} without TLS"),
            Seen::Tls | Seen::Local | Seen::Remote(_) => return Ok(()),
            Seen::Nothing => "the server does not say what the call came over; serve with `Module::serve`, a server of tonic's, or `dangerous_any_transport`".to_owned(),
        };
        Err(Refusal::new(Reason::PlaintextNotAllowed, why))
    }
}
