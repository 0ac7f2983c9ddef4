//! What carries a call: its far end, and TLS, this machine, or a network that can be read.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Extensions;
use http::header::FORWARDED;
use http::request::Parts;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo};
use tonic::{Request, Status};

use super::refuse;
use super::tls::{certificate_fingerprint, words};
use crate::identity::ServiceIdentity;
use crate::jose::Fingerprint;
use crate::token::{Reason, Refusal, VerifiedToken};

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
        let address = address_in(extensions);
        let is_unix = extensions.get::<UdsConnectInfo>().is_some();
        let is_known = is_unix || address.is_some();
        let why = if has_tls(extensions) {
            return Ok(());
        } else if is_known && self.server_has_tls {
            "the file turns TLS on, and the call arrived without".to_owned()
        } else if is_unix || address.is_some_and(|at| self.server || is_loopback(at)) {
            return Ok(());
        } else if let Some(at) = address {
            format!("the call came from {at} without TLS")
        } else {
            "the server does not say what the call came over; serve with `Module::serve`, a server of tonic's, or `dangerous_any_transport`".to_owned()
        };
        Err(Refusal::new(Reason::PlaintextNotAllowed, why))
    }
}

/// The far end of the connection that a call came over, among the call's extensions.
///
/// Put there by [`serve`](super::serve). It says nothing about who calls: that is
/// [`caller`]'s to say.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it has TLS.
    pub tls: bool,
    /// The client certificate that the TLS handshake verified, in DER; none without TLS, or where
    /// the client showed none.
    pub certificate: Option<Arc<[u8]>>,
}

impl PeerInfo {
    /// Returns a peer at `address` without TLS.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            tls: false,
            certificate: None,
        }
    }
}

/// Returns where a call came from: over [`serve`](super::serve), or over a server of tonic's own.
pub(super) fn address_in(extensions: &Extensions) -> Option<SocketAddr> {
    let ours = extensions.get::<PeerInfo>().map(|peer| peer.address);
    ours.or_else(|| extensions.get::<TcpConnectInfo>()?.remote_addr())
}

/// Returns `true` if a call came over loopback, and no proxy says that it passed the call on.
pub(super) fn is_here(head: &Parts) -> bool {
    let headers = &head.headers;
    let is_forwarded = headers.contains_key(FORWARDED) || headers.contains_key("x-forwarded-for");
    !is_forwarded && address_in(&head.extensions).is_some_and(is_loopback)
}

/// Returns `true` if `address` is one of this machine alone.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Returns `true` if a call came over TLS.
pub(super) fn has_tls(extensions: &Extensions) -> bool {
    match extensions.get::<PeerInfo>() {
        Some(peer) => peer.tls,
        None => {
            extensions.get::<TlsConnectInfo<TcpConnectInfo>>().is_some()
                || extensions.get::<TlsConnectInfo<UdsConnectInfo>>().is_some()
        }
    }
}

/// Returns the key of the client certificate of the connection that a call came over, if it has
/// one.
pub(super) fn certificate_in(extensions: &Extensions) -> Option<Result<Fingerprint, Refusal>> {
    let peer = extensions.get::<PeerInfo>();
    let ours = peer.and_then(|peer| peer.certificate.as_deref());
    let info = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let theirs = info.and_then(TlsConnectInfo::peer_certs);
    let first = theirs
        .as_ref()
        .and_then(|certificates| certificates.first());
    let certificate = ours.or_else(|| first.map(AsRef::as_ref))?;
    Some(certificate_fingerprint(certificate).map_err(|error| {
        let why = words::of(&error);
        let detail = format!("the connection's certificate cannot be read: {why}");
        Refusal::new(Reason::IssuerMismatch, detail)
    }))
}

/// Returns the verified caller of `request`.
///
/// # Errors
///
/// `UNAUTHENTICATED` with `TOKEN_MISSING` when no
/// [`VerifyIdentityLayer`](super::VerifyIdentityLayer) stands before the handler, or its rule
/// admits everyone: a handler that asks is never answered with a guess.
pub fn caller<T>(request: &Request<T>) -> Result<&ServiceIdentity, Status> {
    let identity = request.extensions().get::<ServiceIdentity>();
    identity.ok_or_else(|| refuse(Reason::TokenMissing, None))
}

/// Returns the caller's verified token: its key, its issuer and when it expires.
///
/// # Errors
///
/// As [`caller`].
pub fn verified_token<T>(request: &Request<T>) -> Result<&VerifiedToken, Status> {
    let token = request.extensions().get::<VerifiedToken>();
    token.ok_or_else(|| refuse(Reason::TokenMissing, None))
}
