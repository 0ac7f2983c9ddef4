//! Why a handshake failed: what is wrong, and which setting to look at.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

use super::pins::NotPinned;
use super::{TlsError, words};
use crate::telemetry::Untrusted;

/// Why one side has no TLS with the other, in a client's words.
///
/// A `String` is the prefix of this side's TLS settings, where nothing else is said of it.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.of_peer("server"))]
#[non_exhaustive]
pub enum ClientFailure {
    /// The own files cannot be used.
    Setup(#[from] TlsError),
    /// No certificate could be for this host: it is not a name.
    Name(String),
    /// What answered is not TLS.
    NotTls(String),
    /// What answered is TLS, on a connection without.
    TlsExpected,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The server's certificate is for other names.
    WrongName {
        /// The host that was dialled.
        host: String,
        /// The names in the certificate.
        presented: String,
    },
    /// No configured authority vouches for the certificate.
    UnknownAuthority(String),
    /// The key of the certificate is not the pinned one.
    NotPinned(NotPinned),
    /// The certificate is refused for a different reason.
    Certificate(&'static str),
    /// The other side does not speak HTTP/2.
    NotHttp2,
    /// No common TLS version or cipher.
    Version,
    /// One side requires a certificate and the other shows none.
    CertificateRequired(String),
    /// The other side does not accept the certificate shown; with what it says.
    CertificateRefused(String, &'static str),
    /// The other side closed the handshake for a different reason.
    Alert(&'static str),
    /// The connection ended during the handshake.
    Closed,
    /// TLS failed otherwise.
    Tls(&'static str),
    /// The connection failed.
    Io(io::ErrorKind),
}

impl ClientFailure {
    /// Says what is wrong with the `peer`: the server, or a caller.
    fn of_peer(&self, peer: &str) -> String {
        match self {
            Self::Setup(error) => error.to_string(),
            Self::Name(host) => format!("`{host}` is not a name for a certificate"),
            Self::NotTls(_) => "the peer does not speak TLS on this port".to_owned(),
            Self::TlsExpected => {
                "the peer speaks TLS on this port and this connection does not".to_owned()
            }
            Self::Expired => format!("the {peer}'s certificate has expired"),
            Self::NotYetValid => format!("the {peer}'s certificate is not valid yet"),
            Self::WrongName { host, presented } => {
                format!("the server's certificate is for {presented}, not for `{host}`")
            }
            Self::UnknownAuthority(settings) => format!(
                "the {peer}'s certificate is signed by an authority that is not in `{settings}.trust-cert-collection`"
            ),
            Self::NotPinned(NotPinned { fingerprint, whose }) => format!(
                "the {peer}'s certificate has the key `{fingerprint}`, which is not pinned for {whose}"
            ),
            Self::Certificate(why) => format!("the {peer}'s certificate is refused: {why}"),
            Self::NotHttp2 => {
                "the peer speaks TLS, but not HTTP/2 (ALPN `h2`) on this port: it is not a gRPC server".to_owned()
            }
            Self::Version => "the two sides have no TLS version in common".to_owned(),
            Self::CertificateRequired(_) => format!("the {peer} requires a client certificate"),
            Self::CertificateRefused(settings, why) => {
                format!("the {peer} refuses the certificate of `{settings}.cert-chain` ({why})")
            }
            Self::Alert(why) => format!("the {peer} broke off the TLS handshake ({why})"),
            Self::Closed => "the peer closed the connection during the TLS handshake".to_owned(),
            Self::Tls(why) => format!("TLS failed: {why}"),
            Self::Io(kind) => format!("the connection failed during the TLS handshake: {kind}"),
        }
    }

    /// Returns what to do about it, if more is known than what is wrong.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotTls(settings) => format!(
                "set `ataccama.server.grpc.tls.enabled=true` there, or `{settings}.enabled=false` here"
            ),
            Self::TlsExpected => {
                "set `ataccama.client.connection.<c>.grpc.tls.enabled=true` for it".to_owned()
            }
            Self::Expired => "renew the server's `ataccama.server.grpc.tls.cert-chain`".to_owned(),
            Self::NotYetValid => {
                "check both clocks, and the server's `ataccama.server.grpc.tls.cert-chain`".to_owned()
            }
            Self::WrongName { .. } => {
                "correct the connection's `host`, or the server's `ataccama.server.grpc.tls.cert-chain`"
                    .to_owned()
            }
            Self::NotPinned(_) => {
                "if it is the peer's new one, write it into `countersign.deployments.<name>.tls-keys.<key>.fingerprint`"
                    .to_owned()
            }
            Self::Certificate(_) => {
                "`countersign explain CS0308` shows how to make another; or pin it with `countersign.deployments.<name>.tls-keys.<key>.fingerprint`"
                    .to_owned()
            }
            Self::Version => "a pinned certificate needs TLS 1.3".to_owned(),
            Self::CertificateRequired(settings) => {
                format!("set `{settings}.cert-chain` and `{settings}.private-key`")
            }
            Self::CertificateRefused(..) => {
                "add it to the server's `trust-cert-collection` or `tls-keys`".to_owned()
            }
            Self::Closed => "check that the server uses TLS on this port".to_owned(),
            _ => return None,
        })
    }

    /// Returns what is wrong, then what to do about it.
    pub fn in_full(&self) -> String {
        match self.help() {
            Some(help) => format!("{self}; {help}"),
            None => self.to_string(),
        }
    }

    /// Like [`in_full`](Self::in_full), but without anything that the server sent: for a reader who
    /// may have chosen where to connect, and must not learn what is there.
    pub fn in_own_words(&self) -> String {
        match self {
            Self::WrongName { host, .. } => {
                format!("the server's certificate is not for `{host}`")
            }
            Self::NotPinned(NotPinned { whose, .. }) => {
                format!("the server's certificate has a key that is not pinned for {whose}")
            }
            Self::Tls(_) => "TLS failed".to_owned(),
            other => other.in_full(),
        }
    }

    pub(super) fn of(error: &io::Error, settings: &str) -> Self {
        Self::of_tls(error, settings).unwrap_or_else(|| match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Closed,
            kind => Self::Io(kind),
        })
    }

    /// Explains `error` if it is an error of TLS.
    pub(super) fn of_tls(error: &io::Error, settings: &str) -> Option<Self> {
        Some(Self::of_rustls(
            error.get_ref()?.downcast_ref()?,
            settings.to_owned(),
        ))
    }

    fn of_rustls(error: &Error, settings: String) -> Self {
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls(settings),
            Error::InvalidCertificate(error) => Self::certificate(error, settings),
            Error::NoCertificatesPresented => Self::CertificateRequired(settings),
            Error::NoApplicationProtocol => Self::NotHttp2,
            Error::PeerIncompatible(_) => Self::Version,
            Error::AlertReceived(alert) => Self::alert(*alert, settings),
            other => Self::Tls(words::of(other)),
        }
    }

    fn certificate(error: &CertificateError, settings: String) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => Self::WrongName {
                host: expected.to_str().into_owned(),
                presented: names(presented),
            },
            CertificateError::UnknownIssuer => Self::UnknownAuthority(settings),
            CertificateError::Other(OtherError(other)) => match other.downcast_ref() {
                Some(found) => Self::NotPinned(NotPinned::clone(found)),
                None => Self::Certificate(words::of_certificate(error)),
            },
            other => Self::Certificate(words::of_certificate(other)),
        }
    }

    fn alert(alert: AlertDescription, settings: String) -> Self {
        match alert {
            AlertDescription::NoApplicationProtocol => Self::NotHttp2,
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => {
                Self::Version
            }
            AlertDescription::CertificateRequired => Self::CertificateRequired(settings),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => {
                Self::CertificateRefused(settings, words::of_alert(alert))
            }
            other => Self::Alert(words::of_alert(other)),
        }
    }
}

/// Why a server has no TLS with a client, for its log.
#[derive(Debug)]
pub struct ServerFailure(ClientFailure);

impl ServerFailure {
    /// Says what the error of a TLS accept means.
    pub fn of(error: &io::Error) -> Self {
        Self(ClientFailure::of(error, "ataccama.server.grpc.tls"))
    }
}

impl fmt::Display for ServerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match &self.0 {
            ClientFailure::NotTls(settings) => {
                format!("the caller does not speak TLS; this port has `{settings}.enabled=true`")
            }
            ClientFailure::CertificateRequired(settings) => format!(
                "the caller presents no certificate, but `{settings}.mtls` requires one"
            ),
            ClientFailure::NotPinned(NotPinned { fingerprint, .. }) => format!(
                "the caller's certificate has the key `{fingerprint}`, which no `countersign.deployments.<name>.tls-keys` names"
            ),
            ClientFailure::NotHttp2 => "the caller does not ask for HTTP/2 (ALPN `h2`)".to_owned(),
            ClientFailure::Version => {
                "the caller's TLS is too old; pinned certificates need TLS 1.3".to_owned()
            }
            other => other.of_peer("caller"),
        })
    }
}

/// Lists names that rustls has as `DnsName("a.example")`.
fn names(presented: &[String]) -> String {
    let shown: Vec<_> = presented
        .iter()
        .take(4)
        .map(|name| {
            let (_, quoted) = name.split_once('(').unwrap_or(("", name));
            let bare = quoted.trim_end_matches(')').trim_matches('"');
            format!("`{}`", Untrusted(bare))
        })
        .collect();
    if shown.is_empty() {
        "no name".to_owned()
    } else {
        shown.join(", ")
    }
}
