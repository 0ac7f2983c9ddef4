//! Why two modules are not paired, and what to do about it.

use std::path::PathBuf;

use super::arguments::Of;
use crate::admin::PairError;
use crate::cli::change::not_written;
use crate::cli::output::{Console, Exit, Failure, chain};

pub(super) fn not_paired(error: &PairError, modules: &[Of<PathBuf>], console: &Console) -> Failure {
    if let PairError::Syntax(findings) = error {
        console.findings(findings);
    }
    let cannot = |exit| Failure::new(exit, format!("cannot pair: {}", chain(error)));
    match error {
        PairError::Write(error) => not_written(error),
        PairError::SameFile | PairError::SameName(_) => cannot(Exit::Usage),
        PairError::OtherKey(_) => cannot(Exit::WouldOverwrite)
            .with_help("a private key is never replaced; leave out `--key`, or remove it by hand"),
        PairError::OtherName { .. } | PairError::OtherModule { .. } => {
            cannot(Exit::WouldOverwrite).with_help("give the name that is there with `--name`")
        }
        PairError::OtherOwner { found, .. } => cannot(Exit::WouldOverwrite).with_help(format!(
            "write `countersign.deployment.name={found}` into its own file, or where that has none \
             use `--name <module>={found}`; or remove that deployment"
        )),
        PairError::NameTaken { .. } => cannot(Exit::WouldOverwrite).with_help(
            "another module? give this one a name of its own with `--name`. The same one with a \
             second key? say so with `--key-name key2`",
        ),
        PairError::OtherSigner { .. } => cannot(Exit::No)
            .with_help("pair the two first; a key is handed over by the module that is trusted"),
        PairError::KeyNameTaken { .. } => {
            cannot(Exit::WouldOverwrite).with_help("choose another `--key-name`")
        }
        PairError::Revoked { path, name } => {
            let mut others = modules.iter().filter(|of| of.value != *path);
            let own = match (others.next(), others.next()) {
                (Some(own), None) => own.value.display().to_string(),
                _ => format!("<the file of {name}>"),
            };
            cannot(Exit::WouldOverwrite).with_help(format!(
                "revoked by mistake? write `is-revoked=false` there; else give it a new key: \
                 countersign rotate run --file {own} --peer-file {} --now",
                path.display()
            ))
        }
        PairError::OtherPin { .. } => cannot(Exit::WouldOverwrite).with_help(
            "the certificate was renewed? pin the new one beside the old with `--key-name key2`",
        ),
        PairError::HalfCertificate(_) => {
            cannot(Exit::WouldOverwrite).with_help("remove it, or put the missing file beside it")
        }
        PairError::NewCertificate(_)
        | PairError::NewKey(_)
        | PairError::Internal(_)
        | PairError::Check(_) => cannot(Exit::Bug),
        _ => cannot(Exit::Unreadable),
    }
}
