//! Why a handshake failed, in words: what is wrong, on which side, and which setting to look at.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

use super::TlsError;
use super::pins::NotPinned;
use crate::jose::Fingerprint;

/// Why a client has no TLS with a server. `settings` is the common start of the client's settings.
///
/// Prints what is wrong and, after a semicolon, what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientFailure {
    /// The own files cannot be used.
    Setup(TlsError),
    /// The host is not a name that a certificate could be for.
    Name(String),
    /// What answered is not TLS.
    NotTls {
        /// The client's settings.
        settings: String,
    },
    /// What answered is TLS, on a connection without.
    TlsExpected,
    /// The server's certificate has expired.
    Expired,
    /// The server's certificate is not valid yet.
    NotYetValid,
    /// The server's certificate is for other names.
    WrongName {
        /// The host that was dialled.
        host: String,
        /// The names in the certificate.
        presented: String,
    },
    /// No configured authority vouches for the server's certificate.
    UnknownAuthority {
        /// The client's settings.
        settings: String,
    },
    /// The key of the server's certificate is not the pinned one.
    NotPinned {
        /// Whose pins do not hold it.
        whose: String,
        /// The key.
        fingerprint: Fingerprint,
    },
    /// The server's certificate is refused for another reason.
    Certificate(CertificateError),
    /// The server does not speak HTTP/2.
    NotHttp2,
    /// No common TLS version or cipher.
    Version,
    /// The server wants a certificate and got none.
    CertificateRequired {
        /// The client's settings.
        settings: String,
    },
    /// The server does not accept the certificate shown.
    CertificateRefused {
        /// The client's settings.
        settings: String,
        /// The server's word.
        alert: AlertDescription,
    },
    /// The server broke off with another word.
    Alert(AlertDescription),
    /// The connection ended during the handshake.
    Closed,
    /// TLS failed otherwise.
    Tls(Error),
    /// The connection failed.
    Io(io::ErrorKind),
}

impl fmt::Display for ClientFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        match self.help() {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ClientFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Setup(error) => error.source(),
            _ => None,
        }
    }
}

impl From<TlsError> for ClientFailure {
    fn from(error: TlsError) -> Self {
        Self::Setup(error)
    }
}

impl ClientFailure {
    /// Returns what is wrong.
    pub fn what(&self) -> String {
        let what = match self {
            Self::Setup(error) => return error.to_string(),
            Self::Name(name) => return format!("`{name}` is not a name for a certificate"),
            Self::NotTls { .. } => "the peer does not speak TLS on this port",
            Self::TlsExpected => "the peer speaks TLS on this port and this connection does not",
            Self::Expired => "the server's certificate has expired",
            Self::NotYetValid => "the server's certificate is not valid yet",
            Self::WrongName { host, presented } => {
                return format!("the server's certificate is for {presented}, not for `{host}`");
            }
            Self::UnknownAuthority { settings } => {
                return format!(
                    "the server's certificate is by an authority that is not in `{settings}.trust-cert-collection`"
                );
            }
            Self::NotPinned { whose, fingerprint } => {
                return format!(
                    "the server's certificate has the key `{fingerprint}`, which is not pinned for {whose}"
                );
            }
            Self::Certificate(error) => {
                return format!("the server's certificate is refused: {error}");
            }
            Self::NotHttp2 => {
                "the peer speaks TLS, but not HTTP/2 (ALPN `h2`) on this port: it is not a gRPC server"
            }
            Self::Version => "the two sides have no TLS version in common",
            Self::CertificateRequired { .. } => "the server requires a client certificate",
            Self::CertificateRefused { settings, alert } => {
                return format!(
                    "the server refuses the certificate of `{settings}.cert-chain` ({alert:?})"
                );
            }
            Self::Alert(alert) => {
                return format!("the server broke off the TLS handshake ({alert:?})");
            }
            Self::Closed => "the peer closed the connection during the TLS handshake",
            Self::Tls(error) => return format!("TLS failed: {error}"),
            Self::Io(kind) => {
                return format!("the connection failed during the TLS handshake: {kind}");
            }
        };
        what.to_owned()
    }

    /// Returns what to do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::NotTls { settings } => {
                return Some(format!(
                    "set `ataccama.server.grpc.tls.enabled=true` there, or `{settings}.enabled=false` here"
                ));
            }
            Self::TlsExpected => {
                "set `ataccama.client.connection.<c>.grpc.tls.enabled=true` for it"
            }
            Self::Expired => "renew the server's `ataccama.server.grpc.tls.cert-chain`",
            Self::NotYetValid => {
                "check both clocks, and the server's `ataccama.server.grpc.tls.cert-chain`"
            }
            Self::WrongName { .. } => {
                "correct the connection's `host`, or the server's `ataccama.server.grpc.tls.cert-chain`"
            }
            Self::NotPinned { .. } => {
                "if it is the peer's new one, write it into `countersign.deployments.<name>.tls-keys.<key>.fingerprint`"
            }
            Self::Version => "a pinned certificate needs TLS 1.3",
            Self::CertificateRequired { settings } => {
                return Some(format!(
                    "set `{settings}.cert-chain` and `{settings}.private-key`"
                ));
            }
            Self::CertificateRefused { .. } => {
                "the server's `trust-cert-collection` or `tls-keys` must name it"
            }
            Self::Closed => "does it speak TLS on this port?",
            Self::Setup(_)
            | Self::Name(_)
            | Self::UnknownAuthority { .. }
            | Self::Certificate(_)
            | Self::NotHttp2
            | Self::Alert(_)
            | Self::Tls(_)
            | Self::Io(_) => return None,
        };
        Some(help.to_owned())
    }

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
