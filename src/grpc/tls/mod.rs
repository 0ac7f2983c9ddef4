//! TLS for both ends of a channel: certificates from PEM files, trusted by an authority or by
//! fingerprint. Nothing here falls back to plaintext, and nothing is process-wide.

mod certificate;
mod client;
mod error;
pub(crate) mod failure;
mod files;
mod live;
mod pins;
mod server;
pub(crate) mod words;

use std::sync::{Arc, LazyLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::TLS13;

pub(crate) use certificate::Shown;
pub use client::{ClientTls, ClientTlsOptions};
pub use error::{PemFile, TlsError};
pub(crate) use failure::ClientFailure;
pub(crate) use failure::ServerFailure;
pub use files::OwnFiles;
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
