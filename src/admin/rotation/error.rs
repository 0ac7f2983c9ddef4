//! Why a step of a rotation was not taken.

use std::path::PathBuf;
use std::time::Duration;

use super::phase::OutOfTurn;
use crate::admin::error::WriteError;
use crate::admin::overrides::{OfProfile, Overriding};
use crate::config::CheckError;
use crate::diagnostic::Findings;
use crate::identity::DeploymentName;
use crate::jose::{Fingerprint, KeyError};
use crate::properties::ReadError;

/// Why a step was not taken. All files are as they were before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file has faults.
    #[error("`{}` has faults that must be mended first", path.display())]
    Faults {
        /// The file.
        path: PathBuf,
        /// What they are.
        findings: Findings,
    },
    /// The new texts cannot be checked.
    #[error("cannot check what would be written")]
    Check(#[from] CheckError),
    /// The owner's file has no key.
    #[error("`{}` has no `generator.key`; there is nothing to rotate", .0.display())]
    NoKey(PathBuf),
    /// The next key is to be handed over, and the owner's file does not say whose it is.
    #[error(
        "`{}` has no `countersign.deployment.name`, so no block can say whose the next key is",
        .0.display()
    )]
    NoName(PathBuf),
    /// One file is named twice.
    #[error("`{}` is named twice", .0.display())]
    SameFile(PathBuf),
    /// A peer's file knows neither the key that signs nor the next one.
    #[error("`{}` does not trust this module's key `{key}`", path.display())]
    Stranger {
        /// The peer's file.
        path: PathBuf,
        /// The key that signs.
        key: Fingerprint,
    },
    /// A peer's file has revoked the next key.
    #[error("`{}` has revoked the next key `{key}`", path.display())]
    NextRevoked {
        /// The peer's file.
        path: PathBuf,
        /// The next key.
        key: Fingerprint,
    },
    /// A peer's file does not trust the key that signs: without the old one, none would be left.
    #[error("`{}` does not trust the key that signs now, `{key}`", path.display())]
    CutOff {
        /// The peer's file.
        path: PathBuf,
        /// The key that signs.
        key: Fingerprint,
    },
    /// The step is not the next one.
    #[error(transparent)]
    OutOfTurn(#[from] OutOfTurn),
    /// Tokens of the old key may still be on their way.
    #[error("tokens that the old key signed may be accepted for {} s more", left.as_secs())]
    TooEarly {
        /// How long, rounded up to a second.
        left: Duration,
    },
    /// Nothing shows that a peer accepts the new key.
    #[error("`{deployment}` is not shown to accept the new key: {why}")]
    NotShown {
        /// The peer.
        deployment: DeploymentName,
        /// What was found.
        why: String,
        /// What mends it.
        help: String,
    },
    /// The main file is to be named.
    #[error(transparent)]
    OfProfile(#[from] OfProfile),
    /// The file of an active profile sets what a step reads or writes.
    #[error("{by}, where this changes the main file alone")]
    InProfile {
        /// The main file.
        main: PathBuf,
        /// What stands above it.
        by: Overriding,
    },
    /// A variable of the environment stands above the key that a step reads or writes.
    #[error(
        "the variable `{variable}` of this environment stands above `generator.key` in `{}`: a \
         module that is started with it signs with the variable's key, whatever the file says",
        path.display()
    )]
    InVariable {
        /// The owner's file.
        path: PathBuf,
        /// Its name.
        variable: String,
    },
    /// The file of a peer that may trust the old key is not named.
    #[error("`{0}` may still trust the old key, and its file is not named")]
    NotNamed(DeploymentName),
    /// The owner's running module still signs with the old key.
    #[error("the running module still signs with its old key: {0}")]
    StillOld(String),
    /// No key could be made.
    #[error("cannot make a key")]
    NewKey(#[source] KeyError),
    /// What would be written does not hold together.
    #[error("the new text of `{}` would have faults", path.display())]
    Unsound {
        /// The file.
        path: PathBuf,
        /// What they are.
        findings: Findings,
    },
    /// A fault of this program.
    #[error("the files would not be in the phase that the step ends in")]
    Internal,
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
