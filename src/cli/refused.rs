//! What a command says where a procedure was refused.

use super::output::{Exit, Failure};
use crate::admin::{Kind, Refused, WriteError};

impl From<Refused> for Failure {
    fn from(error: Refused) -> Self {
        let (exit, help) = match error.kind() {
            Kind::Usage => (Exit::Usage, error.help()),
            Kind::Taken | Kind::OtherKey | Kind::OtherOwner { .. } | Kind::Revoked { .. } => {
                (Exit::WouldOverwrite, error.help())
            }
            Kind::Conflict | Kind::NotThere | Kind::CutOff | Kind::OutOfTurn(_) => {
                (Exit::No, error.help())
            }
            Kind::Unreadable => (Exit::Unreadable, error.help()),
            Kind::Internal => (Exit::Bug, error.help()),
            Kind::Write(WriteError::Exists(_)) => {
                let help = "`--force` replaces it; a private key that is replaced is lost";
                (Exit::WouldOverwrite, Some(help))
            }
            Kind::Write(WriteError::Busy(_) | WriteError::Changed(_)) => {
                (Exit::WouldOverwrite, Some("run the command again"))
            }
            Kind::Write(_) => (Exit::Unreadable, None),
        };
        let failure = Self::of(exit, &error).with_findings(error.findings());
        match help {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Refused::from(error).into()
    }
}
