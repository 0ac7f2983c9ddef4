//! What a command says where a procedure was refused.

use super::output::{Exit, Failure};
use crate::admin::{Kind, Refused};

impl From<Refused> for Failure {
    fn from(error: Refused) -> Self {
        let exit = match error.kind() {
            Kind::Usage => Exit::Usage,
            Kind::Taken
            | Kind::OtherKey
            | Kind::OtherOwner { .. }
            | Kind::Revoked { .. }
            | Kind::Busy
            | Kind::Changed => Exit::WouldOverwrite,
            Kind::Conflict | Kind::NotThere | Kind::CutOff | Kind::OutOfTurn(_) => Exit::No,
            Kind::Unreadable | Kind::NotWritten => Exit::Unreadable,
            Kind::Internal => Exit::Bug,
        };
        let failure = Self::of(exit, &error).with_findings(&error.findings);
        match error.help {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    }
}
