//! Why a procedure did not do what was asked.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::CheckError;
use crate::diagnostic::Findings;
use crate::grpc::tls::TlsError;
use crate::identity::{DeploymentName, NameError};
use crate::jose::{Fingerprint, KeyError};
use crate::properties::ReadError;

/// Why a file was not written. The file is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It is there already, and was not to be replaced.
    #[error("`{}` is there already", .0.display())]
    Exists(PathBuf),
    /// Another process is writing in the same folder.
    #[error("another countersign is writing in `{}`", .0.display())]
    Busy(PathBuf),
    /// It changed since it was read.
    #[error("`{}` was changed by somebody else meanwhile", .0.display())]
    Changed(PathBuf),
    /// A chain of symbolic links without an end.
    #[error("`{}` is a symbolic link that leads nowhere", .0.display())]
    Link(PathBuf),
    /// The system said no.
    #[error("cannot write `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The first of two files was replaced, the second could not be, and neither could the first
    /// be put back.
    #[error(
        "`{}` was written, the other file could not be, and the old text could not be put back",
        path.display()
    )]
    HalfDone {
        /// The file that now has its new text.
        path: PathBuf,
        /// Why it could not be put back.
        source: io::Error,
    },
}

impl WriteError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io {
            path,
            source: unnamed(error),
        }
    }
}

/// Takes the name of a temporary file, which means nothing to anybody, out of `error`.
fn unnamed(error: io::Error) -> io::Error {
    // The crate that makes them gives the cause in no other way.
    match error.to_string().split_once(" at path \"") {
        Some((cause, _)) => io::Error::new(error.kind(), cause),
        None => error,
    }
}

/// Why two modules were not paired. Both files are as they were before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// The new texts cannot be checked.
    #[error("cannot check what would be written")]
    Check(#[from] CheckError),
    /// A file cannot be read.
    #[error(transparent)]
    Read(ReadError),
    /// A file holds escapes that cannot be read.
    #[error("a file has faults that must be mended first")]
    Syntax(Findings),
    /// Both arguments name one file.
    #[error("both modules have the same file")]
    SameFile,
    /// Both sides would be called the same.
    #[error("both deployments would be called `{0}`")]
    SameName(DeploymentName),
    /// Both sides have the same private key.
    #[error("both modules have the same private key; each needs its own")]
    SharedKey,
    /// `generator.key` cannot be read.
    #[error("the module's own key in `{}` cannot be read", path.display())]
    OwnKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// `generator.key` holds a public key.
    #[error("the module's own key in `{}` is a public key", .0.display())]
    PublicOnly(PathBuf),
    /// `generator.key` refers to another setting.
    #[error("the module's own key in `{}` is a placeholder, which only the module resolves", .0.display())]
    Placeholder(PathBuf),
    /// A key that the public guide prints.
    #[error("the module's own key in `{}` is printed in a public guide and protects nothing", .0.display())]
    Published(PathBuf),
    /// A name in a file is none.
    #[error("`countersign.deployment.name` in `{}` is not a name", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NameError,
    },
    /// `--key` names another key than the file has.
    #[error("`{}` has a private key already, and it is another one", .0.display())]
    OtherKey(PathBuf),
    /// The file calls the module something else.
    #[error("`{}` says that it is called `{found}`, not `{wanted}`", path.display())]
    OtherName {
        /// The file.
        path: PathBuf,
        /// The name it has.
        found: String,
        /// The name it was to have.
        wanted: DeploymentName,
    },
    /// The other file has the deployment with something else in it.
    #[error("`{}` has `{name}` as a `{found}`, not a `{wanted}`", path.display())]
    OtherModule {
        /// The file.
        path: PathBuf,
        /// The deployment.
        name: DeploymentName,
        /// The module it has.
        found: String,
        /// The module it was to have.
        wanted: String,
    },
    /// The other file knows this key under another name.
    #[error("`{}` trusts this key as `{found}`, not as `{wanted}`", path.display())]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// The deployment that has the key.
        found: String,
        /// The deployment that was to have it.
        wanted: DeploymentName,
    },
    /// The other file trusts another key under this name.
    #[error("`{}` trusts another key as `{name}`", path.display())]
    NameTaken {
        /// The file.
        path: PathBuf,
        /// The deployment.
        name: DeploymentName,
    },
    /// The name for the key is taken by another key.
    #[error("`{}` has another key called `{key}` for `{name}`", path.display())]
    KeyNameTaken {
        /// The file.
        path: PathBuf,
        /// The deployment.
        name: DeploymentName,
        /// The name of the key.
        key: String,
    },
    /// The other file has revoked the key.
    #[error("`{}` has revoked the key of `{name}`", path.display())]
    Revoked {
        /// The file.
        path: PathBuf,
        /// The deployment.
        name: DeploymentName,
    },
    /// The file does not trust the key that hands over another.
    #[error("`{}` does not trust `{signs}` as a key of `{name}`", path.display())]
    OtherSigner {
        /// The file.
        path: PathBuf,
        /// The deployment.
        name: DeploymentName,
        /// The key that signs there.
        signs: Fingerprint,
    },
    /// The certificate that the file names cannot be used.
    #[error("the TLS certificate of `{}` cannot be used", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<TlsError>,
    },
    /// A TLS setting refers to another setting.
    #[error("`{setting}` in `{}` is a placeholder, which only the module resolves", path.display())]
    TlsPlaceholder {
        /// The file.
        path: PathBuf,
        /// The setting.
        setting: String,
    },
    /// One of certificate and key is there, the other is not.
    #[error("`{}` is there, and what belongs to it is not", .0.display())]
    HalfCertificate(PathBuf),
    /// The other file pins another certificate under this name.
    #[error("`{}` pins another TLS key for `{name}`, not `{fingerprint}`", path.display())]
    OtherPin {
        /// The file.
        path: PathBuf,
        /// The deployment.
        name: DeploymentName,
        /// The key of the deployment's certificate.
        fingerprint: Fingerprint,
    },
    /// No certificate could be made.
    #[error("cannot make a certificate")]
    NewCertificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No key could be made.
    #[error("cannot make a key")]
    NewKey(#[source] KeyError),
    /// What would be written does not hold together. A fault of this program.
    #[error("the new text of `{}` does not hold together", .0.display())]
    Internal(PathBuf),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
