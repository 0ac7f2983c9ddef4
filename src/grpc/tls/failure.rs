//! Why a handshake failed, in words: what is wrong, on which side, and which setting to look at.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

use super::TlsError;
use super::pins::NotPinned;
use crate::jose::Fingerprint;

/// Why a client has no TLS with a server. `settings` is the common start of the client's settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientFailure {
    /// The own files cannot be used.
    #[error(transparent)]
    Setup(#[from] TlsError),
    /// The host is no name that a certificate could be for.
    #[error("`{0}` is no name for a certificate")]
    Name(String),
    /// What answered is no TLS.
    #[error(
        "the peer does not speak TLS on this port; set `ataccama.server.grpc.tls.enabled=true` there, or `{settings}.enabled=false` here"
    )]
    NotTls {
        /// The client's settings.
        settings: String,
    },
    /// What answered is TLS, on a connection without.
    #[error(
        "the peer speaks TLS on this port and this connection does not; set `ataccama.client.connection.<c>.grpc.tls.enabled=true` for it"
    )]
    TlsExpected,
    /// The server's certificate has expired.
    #[error(
        "the server's certificate has expired; renew the server's `ataccama.server.grpc.tls.cert-chain`"
    )]
    Expired,
    /// The server's certificate is not valid yet.
    #[error(
        "the server's certificate is not valid yet; check both clocks, and the server's `ataccama.server.grpc.tls.cert-chain`"
    )]
    NotYetValid,
    /// The server's certificate is for other names.
    #[error(
        "the server's certificate is for {presented}, not for `{host}`; correct the connection's `host`, or the server's `ataccama.server.grpc.tls.cert-chain`"
    )]
    WrongName {
        /// The host that was dialled.
        host: String,
        /// The names in the certificate.
        presented: String,
    },
    /// No configured authority vouches for the server's certificate.
    #[error(
        "the server's certificate is by an authority that is not in `{settings}.trust-cert-collection`"
    )]
    UnknownAuthority {
        /// The client's settings.
        settings: String,
    },
    /// The key of the server's certificate is not the pinned one.
    #[error(
        "the server's certificate has the key `{fingerprint}`, which is not pinned for {whose}; if it is the peer's new one, write it into `countersign.deployments.<name>.tls-keys.<key>.fingerprint`"
    )]
    NotPinned {
        /// Whose pins do not hold it.
        whose: String,
        /// The key.
        fingerprint: Fingerprint,
    },
    /// The server's certificate is refused for another reason.
    #[error("the server's certificate is refused: {0}")]
    Certificate(CertificateError),
    /// The server does not speak HTTP/2.
    #[error("the peer speaks TLS, but not HTTP/2 (ALPN `h2`) on this port: it is no gRPC server")]
    NotHttp2,
    /// No common TLS version or cipher.
    #[error("the two sides have no TLS version in common; a pinned certificate needs TLS 1.3")]
    Version,
    /// The server wants a certificate and got none.
    #[error(
        "the server requires a client certificate; set `{settings}.cert-chain` and `{settings}.private-key`"
    )]
    CertificateRequired {
        /// The client's settings.
        settings: String,
    },
    /// The server does not accept the certificate shown.
    #[error(
        "the server refuses the certificate of `{settings}.cert-chain` ({alert:?}); the server's `trust-cert-collection` or `tls-keys` must name it"
    )]
    CertificateRefused {
        /// The client's settings.
        settings: String,
        /// The server's word.
        alert: AlertDescription,
    },
    /// The server broke off with another word.
    #[error("the server broke off the TLS handshake ({0:?})")]
    Alert(AlertDescription),
    /// The connection ended during the handshake.
    #[error(
        "the peer closed the connection during the TLS handshake; does it speak TLS on this port?"
    )]
    Closed,
    /// TLS failed otherwise.
    #[error("TLS failed: {0}")]
    Tls(Error),
    /// The connection failed.
    #[error("the connection failed during the TLS handshake: {0}")]
    Io(io::ErrorKind),
}

impl ClientFailure {
    /// Says the same without anything that the server sent: for whoever may have chosen where to
    /// connect, and must not learn what is there.
    pub fn in_own_words(&self) -> String {
        match self {
            Self::WrongName { host, .. } => {
                format!("the server's certificate is not for `{host}`")
            }
            Self::NotPinned { whose, .. } => {
                format!("the server's certificate has a key that is not pinned for {whose}")
            }
            Self::Certificate(_) => "the server's certificate is refused".to_owned(),
            Self::Tls(_) => "TLS failed".to_owned(),
            other => other.to_string(),
        }
    }

    pub(super) fn of(error: &io::Error, settings: &str) -> Self {
        Self::of_tls(error, settings).unwrap_or(match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::Closed,
            kind => Self::Io(kind),
        })
    }

    /// Says what `error` means where it is TLS's.
    pub(super) fn of_tls(error: &io::Error, settings: &str) -> Option<Self> {
        let settings = || settings.to_owned();
        Some(match tls_error(error)? {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls {
                settings: settings(),
            },
            Error::InvalidCertificate(error) => Self::certificate(error, settings()),
            Error::NoApplicationProtocol => Self::NotHttp2,
            Error::PeerIncompatible(_) => Self::Version,
            Error::AlertReceived(alert) => Self::alert(*alert, settings()),
            other => Self::Tls(other.clone()),
        })
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
            CertificateError::UnknownIssuer => Self::UnknownAuthority { settings },
            CertificateError::Other(other) => match not_pinned(other) {
                Some(error) => Self::NotPinned {
                    whose: error.whose.clone(),
                    fingerprint: error.fingerprint,
                },
                None => Self::Certificate(CertificateError::Other(other.clone())),
            },
            other => Self::Certificate(other.clone()),
        }
    }

    fn alert(alert: AlertDescription, settings: String) -> Self {
        match alert {
            AlertDescription::NoApplicationProtocol => Self::NotHttp2,
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => {
                Self::Version
            }
            AlertDescription::CertificateRequired => Self::CertificateRequired { settings },
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => Self::CertificateRefused { settings, alert },
            other => Self::Alert(other),
        }
    }
}

/// Why a server has no TLS with a client, for its log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerFailure {
    /// What came is no TLS.
    #[error("the caller does not speak TLS; this port has `ataccama.server.grpc.tls.enabled=true`")]
    NotTls,
    /// The caller showed no certificate.
    #[error("the caller shows no certificate, and `ataccama.server.grpc.tls.mtls` requires one")]
    NoCertificate,
    /// The caller's certificate has expired.
    #[error("the caller's certificate has expired")]
    Expired,
    /// No configured authority vouches for the caller's certificate.
    #[error(
        "the caller's certificate is by an authority that is not in `ataccama.server.grpc.tls.trust-cert-collection`"
    )]
    UnknownAuthority,
    /// The key of the caller's certificate is not pinned.
    #[error(
        "the caller's certificate has the key `{0}`, which no `countersign.deployments.<name>.tls-keys` names"
    )]
    NotPinned(Fingerprint),
    /// The caller's certificate is refused for another reason.
    #[error("the caller's certificate is refused: {0}")]
    Certificate(String),
    /// The caller does not speak HTTP/2.
    #[error("the caller does not ask for HTTP/2 (ALPN `h2`)")]
    NotHttp2,
    /// No common TLS version or cipher.
    #[error("the caller's TLS is too old; with pinned certificates it is TLS 1.3 alone")]
    Version,
    /// The caller does not accept this server's certificate.
    #[error("the caller refuses the certificate of `ataccama.server.grpc.tls.cert-chain` ({0:?})")]
    CertificateRefused(AlertDescription),
    /// The caller went away.
    #[error("the caller closed the connection during the TLS handshake")]
    Closed,
    /// TLS failed otherwise.
    #[error("TLS failed: {0}")]
    Tls(String),
}

impl ServerFailure {
    /// Says what the error of a TLS accept means.
    pub fn of(error: &io::Error) -> Self {
        let Some(error) = tls_error(error) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => Self::Closed,
                kind => Self::Tls(kind.to_string()),
            };
        };
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::NoApplicationProtocol => Self::NotHttp2,
            Error::PeerIncompatible(_) => Self::Version,
            Error::InvalidCertificate(error) => match error {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::UnknownIssuer => Self::UnknownAuthority,
                CertificateError::Other(other) => match not_pinned(other) {
                    Some(error) => Self::NotPinned(error.fingerprint),
                    None => Self::Certificate(other.to_string()),
                },
                other => Self::Certificate(other.to_string()),
            },
            Error::AlertReceived(
                alert @ (AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA),
            ) => Self::CertificateRefused(*alert),
            other => Self::Tls(other.to_string()),
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn not_pinned(error: &OtherError) -> Option<&NotPinned> {
    error.0.downcast_ref()
}

fn names(presented: &[String]) -> String {
    let shown: Vec<_> = presented
        .iter()
        .take(4)
        .map(|name| format!("`{}`", crate::telemetry::Untrusted(name)))
        .collect();
    if shown.is_empty() {
        "no name".to_owned()
    } else {
        shown.join(", ")
    }
}
