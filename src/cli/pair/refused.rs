//! Why two modules are not paired, and what to do about it.

use std::path::PathBuf;

use super::arguments::Of;
use crate::admin::{Kind, Refused};
use crate::cli::output::{Console, Failure};
use crate::cli::refused::refused;

pub(super) fn not_paired(error: &Refused, modules: &[Of<PathBuf>], console: &Console) -> Failure {
    let failure = refused("cannot pair: ", error, console);
    let Kind::Revoked { path, name } = error.kind() else {
        return failure;
    };
    let mut others = modules.iter().filter(|of| of.value != *path);
    let own = match (others.next(), others.next()) {
        (Some(own), None) => own.value.display().to_string(),
        _ => format!("<the file of {name}>"),
    };
    failure.with_help(format!(
        "revoked by mistake? write `is-revoked=false` there; else give it a new key: \
         countersign rotate run --file {own} --peer-file {} --now",
        path.display()
    ))
}
