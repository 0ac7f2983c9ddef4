//! Layer 5: do both sides have the same idea of TLS?

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::peer::Peer;
use super::report::{Fault, Found, Side};
use super::tcp::Reached;
use crate::grpc::ConnectError;
use crate::grpc::tls::{ClientFailure, TlsError};

/// A connection on which HTTP/2 can begin.
pub(super) enum Secured {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(super) async fn shake_hands(
    peer: &Peer,
    reached: Reached,
    limit: Duration,
) -> Result<Found<Secured>, Fault> {
    let Reached { stream, address } = reached;
    let is_loopback = address.ip().to_canonical().is_loopback();
    let Some(tls) = &peer.tls else {
        if !is_loopback && !peer.allow_plaintext {
            let refused = ConnectError::Plaintext(address).to_string();
            let fault = Fault::new(Side::Here, refused);
            return Err(fault.help("countersign pair … --tls"));
        }
        let detail = if is_loopback {
            "plaintext, loopback"
        } else {
            "plaintext, allowed by `countersign.client.allow-plaintext`"
        };
        return Ok(Found::skipped(Secured::Plain(stream), detail));
    };
    let shaken = timeout(limit, tls.connect(peer.target.host(), stream)).await;
    let stream = shaken
        .map_err(|_elapsed| {
            let detail = format!("{address} does not answer the TLS handshake within {limit:?}");
            Fault::new(Side::Peer, detail).help("does it speak TLS on this port?")
        })?
        .map_err(|failure| fault(peer, &failure))?;
    let version = stream.get_ref().1.protocol_version();
    let version = match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let how = if peer.is_pinned() {
        "the pinned certificate"
    } else {
        "a certificate by a trusted authority"
    };
    Ok(Found::new(
        Secured::Tls(Box::new(stream)),
        format!("{version}, {how}"),
    ))
}

/// Says what is wrong with TLS, and on which side.
pub(super) fn fault(peer: &Peer, failure: &ClientFailure) -> Fault {
    let side = match failure {
        ClientFailure::Setup(_)
        | ClientFailure::Name(_)
        | ClientFailure::TlsExpected
        | ClientFailure::CertificateRequired { .. } => Side::Here,
        ClientFailure::Expired
        | ClientFailure::NotYetValid
        | ClientFailure::NotHttp2
        | ClientFailure::Closed => Side::Peer,
        _ => Side::Between,
    };
    let mut fault = Fault::new(side, failure.to_string());
    if let Some(help) = failure.help() {
        fault = fault.help(help);
    }
    match failure {
        ClientFailure::NotTls { .. } | ClientFailure::TlsExpected => {
            fault.help(peer.words.check.clone())
        }
        ClientFailure::NotPinned { .. } | ClientFailure::CertificateRefused { .. } => {
            let fault = fault.help(peer.words.check.clone());
            fault.help(peer.words.both.pair(true))
        }
        _ => fault,
    }
}

/// Says that the own TLS files cannot be used.
pub(super) fn unusable(error: &TlsError) -> Fault {
    Fault::new(Side::Here, crate::grpc::cause(error))
}
