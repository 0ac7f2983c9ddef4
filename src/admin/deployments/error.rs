//! Why the trusted deployments of a file were not changed.

use std::path::PathBuf;

use crate::admin::error::WriteError;
use crate::admin::overrides::{OfProfile, Overriding};
use crate::config::CheckError;
use crate::diagnostic::Findings;
use crate::identity::DeploymentName;
use crate::properties::ReadError;

/// Why the trusted deployments of a file were not changed. The file is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeploymentError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The texts cannot be checked.
    #[error("cannot check what would be written")]
    Check(#[from] CheckError),
    /// The new text has faults.
    #[error("the file would have faults")]
    Faults(Findings),
    /// The key is printed in a public guide.
    #[error("the key is printed in a public guide, and so is its private half")]
    Published,
    /// The key is the module's own.
    #[error("the key is this module's own; its peers are to trust it")]
    OwnKey,
    /// Another deployment has the key.
    #[error("the key belongs to the deployment `{0}`")]
    OtherOwner(DeploymentName),
    /// The file says something of the deployment, but not all.
    #[error("the deployment `{0}` is there, and has faults")]
    Incomplete(DeploymentName),
    /// The deployment is there with something else in it.
    #[error("the deployment `{name}` has the {what} `{found}`")]
    Other {
        /// The deployment.
        name: DeploymentName,
        /// What is different.
        what: &'static str,
        /// What is there.
        found: String,
    },
    /// The deployment is there with another key.
    #[error("the deployment `{0}` is trusted by another key")]
    OtherKey(DeploymentName),
    /// The deployment has another key of that name.
    #[error("the deployment `{name}` has another key called `{key}`")]
    KeyNameTaken {
        /// The deployment.
        name: DeploymentName,
        /// The key's name.
        key: String,
    },
    /// The key is there and revoked.
    #[error("the key `{key}` of `{name}` is revoked")]
    Revoked {
        /// The deployment.
        name: DeploymentName,
        /// The key's name.
        key: String,
    },
    /// Nothing in the file is about such a deployment.
    #[error("no deployment is called `{name}`")]
    NotThere {
        /// The name.
        name: DeploymentName,
        /// Those that are there.
        known: Vec<String>,
    },
    /// The main file is to be named.
    #[error(transparent)]
    OfProfile(#[from] OfProfile),
    /// The file of an active profile says something of the deployment.
    #[error("{by}, where this changes the main file alone")]
    InProfile {
        /// The main file.
        main: PathBuf,
        /// What stands above it.
        by: Overriding,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A fault of this program.
    #[error("the file would not be as it was planned")]
    Internal,
}
