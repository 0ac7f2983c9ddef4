//! Who is calling, for a handler.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Extensions;
use http::header::FORWARDED;
use http::request::Parts;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo};
use tonic::{Request, Status};

use crate::identity::ServiceIdentity;
use crate::jose::Fingerprint;
use crate::token::{Reason, Refusal, VerifiedToken};

use super::refuse;
use super::tls::{certificate_fingerprint, words};

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
