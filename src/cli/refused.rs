//! What a command says where a procedure was refused.

use super::change::not_written;
use super::output::{Console, Exit, Failure, chain};
use crate::admin::{Kind, Refused};

/// Shows the findings of `error`, and makes a failure of it; its message begins with `prefix`.
pub(super) fn refused(prefix: &str, error: &Refused, console: &Console) -> Failure {
    console.findings(error.findings());
    let exit = match error.kind() {
        Kind::Write(error) => return not_written(error),
        Kind::Usage => Exit::Usage,
        Kind::Taken | Kind::OtherKey | Kind::OtherOwner { .. } | Kind::Revoked { .. } => {
            Exit::WouldOverwrite
        }
        Kind::Conflict | Kind::NotThere | Kind::NextRevoked | Kind::CutOff | Kind::OutOfTurn(_) => {
            Exit::No
        }
        Kind::Unreadable => Exit::Unreadable,
        Kind::Internal => Exit::Bug,
    };
    let failure = Failure::new(exit, format!("{prefix}{}", chain(error)));
    match error.help() {
        Some(help) => failure.with_help(help),
        None => failure,
    }
}
