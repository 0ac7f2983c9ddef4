//! TLS for both ends of a channel: certificates from PEM files, trusted by an authority or by
//! fingerprint. Nothing here falls back to plaintext, and nothing is process-wide.

mod client;
pub(crate) mod failure;
mod files;
mod live;
mod pins;
mod server;
pub(crate) mod words;

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::{fmt, io};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::TLS13;

pub(crate) use client::Made;
pub use client::{ClientTls, ClientTlsOptions};
pub(crate) use failure::{ClientFailure, ServerFailure};
pub use files::OwnFiles;
pub(crate) use files::{CERTIFICATE, Shown, sections};
pub(crate) use live::{ChangedTlsFiles, TlsFiles};
pub(crate) use pins::certificate_fingerprint;
pub use server::{ClientAuth, ServerTls, ServerTlsOptions};

/// Both ends speak HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

/// What pins hold in.
static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

/// The cryptography, given to each configuration: a process-wide default may be another crate's.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

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

/// Why TLS cannot be set up from these files; each names the setting that names the file. In words
/// of this crate: the libraries print the names of their types.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read; with the system's error.
    #[error("{0} cannot be read")]
    Read(PemFile, #[source] io::Error),
    /// The private key in a file cannot be used; with the reason.
    #[error("the private key in {0} cannot be used: {1}")]
    PrivateKey(PemFile, &'static str),
    /// A file does not hold what it should; with the reason.
    #[error("{1}")]
    File(PemFile, String),
    /// The settings do not fit together; with the reason.
    #[error("{0}")]
    Settings(String),
}

crate::failure::debug_as_text!(TlsError);

impl TlsError {
    /// Says of `file` what it `is`.
    pub(super) fn of_file(file: &PemFile, is: &str) -> Self {
        Self::File(file.clone(), format!("{file} {is}"))
    }

    /// Says that a certificate in `file` cannot be used.
    pub(super) fn of_certificate(file: &PemFile, why: &str) -> Self {
        let text = format!("a certificate in {file} cannot be used: {why}");
        Self::File(file.clone(), text)
    }

    /// Says that clients must show a certificate by `settings`, but none would be accepted.
    pub(crate) fn no_client_accepted(settings: &str) -> Self {
        Self::Settings(format!(
            "`{settings}.mtls` requires client certificates, but would accept no certificate: set `{settings}.trust-cert-collection`, or pin the callers' with `countersign.deployments.<name>.tls-keys.<key>.fingerprint`"
        ))
    }

    /// Says that nothing in `settings` names the certificate of `callee`.
    pub(crate) fn nothing_trusted(callee: &str, settings: &str) -> Self {
        Self::Settings(format!(
            "no setting names the certificate to accept from {callee}: set `{settings}.trust-cert-collection`, or pin it with `countersign.deployments.<name>.tls-keys.<key>.fingerprint`"
        ))
    }

    /// Drops the library's error, which says nothing to an operator.
    pub(super) fn internal(_: impl Error) -> Self {
        Self::Settings("TLS cannot be set up: a fault of this program".to_owned())
    }

    /// Returns the file that is at fault, if one is.
    pub fn file(&self) -> Option<&PemFile> {
        match self {
            Self::Read(file, _) | Self::PrivateKey(file, _) | Self::File(file, _) => Some(file),
            Self::Settings(_) => None,
        }
    }
}
