//! Why certificates and keys cannot be used.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A PEM file, and the setting that names it: every error says both.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PemFile {
    /// Where it is.
    pub path: PathBuf,
    /// The full name of the setting.
    pub setting: String,
}

impl PemFile {
    /// Returns the file at `path`, which `setting` names.
    pub fn new(path: impl Into<PathBuf>, setting: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            setting: setting.into(),
        }
    }
}

impl fmt::Display for PemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (`{}`)", self.path.display(), self.setting)
    }
}

/// Why, in words: the libraries print the names of their types.
type Cause = Box<dyn Error + Send + Sync>;

/// Why TLS cannot be set up from these files; each names the setting that names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read; with the system's error.
    #[error("{0} cannot be read")]
    Read(PemFile, #[source] io::Error),
    /// A file is larger than 1 MiB.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PemFile),
    /// A file is no PEM text; with what is wrong.
    #[error("{0} is not valid PEM")]
    Pem(PemFile, #[source] Cause),
    /// There is no certificate in it.
    #[error("{0} holds no PEM certificate (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate(PemFile),
    /// There is no private key in it.
    #[error("{0} holds no unencrypted PEM private key (`-----BEGIN PRIVATE KEY-----`)")]
    NoPrivateKey(PemFile),
    /// A certificate in a file cannot be used; with the reason.
    #[error("a certificate in {0} cannot be used")]
    Certificate(PemFile, #[source] Cause),
    /// The private key in a file cannot be used; with the reason.
    #[error("the private key in {0} cannot be used")]
    PrivateKey(PemFile, #[source] Cause),
    /// The private key belongs to a different certificate.
    #[error(
        "the private key in {private_key} does not belong to the first certificate in {cert_chain}"
    )]
    KeyMismatch {
        /// The certificates.
        cert_chain: PemFile,
        /// The key.
        private_key: PemFile,
    },
    /// Clients must show a certificate, but none would be accepted.
    #[error(
        "`{0}.mtls` requires client certificates, but would accept no certificate: set `{0}.trust-cert-collection`, or pin the callers' with `countersign.deployments.<name>.tls-keys.<key>.fingerprint`"
    )]
    NoClientAccepted(String),
    /// Nothing says which certificate the callee has.
    #[error(
        "no setting names the certificate to accept from {callee}: set `{settings}.trust-cert-collection`, or pin it with `countersign.deployments.<name>.tls-keys.<key>.fingerprint`"
    )]
    NothingTrusted {
        /// Who is called.
        callee: String,
        /// The common start of this connection's settings.
        settings: String,
    },
    /// The cryptography does not fit together; a fault of this program.
    #[error("TLS cannot be set up")]
    Internal(#[source] Cause),
}

impl TlsError {
    /// Drops the library's error, which says nothing to an operator.
    pub(super) fn internal(_: impl Into<Cause>) -> Self {
        Self::Internal("a fault of this program".into())
    }

    /// Returns the file that is at fault, if one is.
    pub fn file(&self) -> Option<&PemFile> {
        match self {
            Self::Read(file, _)
            | Self::TooLarge(file)
            | Self::Pem(file, _)
            | Self::NoCertificate(file)
            | Self::NoPrivateKey(file)
            | Self::Certificate(file, _)
            | Self::PrivateKey(file, _)
            | Self::KeyMismatch {
                private_key: file, ..
            } => Some(file),
            Self::NoClientAccepted(_) | Self::NothingTrusted { .. } | Self::Internal(_) => None,
        }
    }
}
