//! Why a DPM does not start.

use std::io;

/// Why a DPM does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The listener has no address.
    #[error("the listener's address is unknown")]
    Address(#[source] io::Error),
    /// The descriptors for reflection are broken.
    #[error("the reflection service cannot be made")]
    Reflection(#[from] tonic_reflection::server::Error),
}
