//! What a command says where a procedure was refused.

use super::output::{Exit, Failure};
use crate::admin::{Kind, Refused};

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
            Kind::Exists => {
                let help = "`--force` replaces it; a private key that is replaced is lost";
                (Exit::WouldOverwrite, Some(help))
            }
            Kind::Busy | Kind::Changed => (Exit::WouldOverwrite, Some("run the command again")),
            Kind::NotWritten => (Exit::Unreadable, None),
        };
        let failure = Self::of(exit, &error).with_findings(error.findings());
        match help {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    }
}
