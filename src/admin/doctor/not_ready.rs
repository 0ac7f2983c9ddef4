//! Layer 10, where the DPM holds an engine that is not READY: what mends that, and on which side.

use super::clock;
use super::peer::{Peer, Words};
use super::report::{Fault, Side};
use crate::engine::{DialBackFailure, FailureKind};
use crate::proto::convert::dial_back_failure;
use crate::proto::registry::Engine;
use crate::token::Reason;

/// The two ends of a dial-back, as the module that is examined sees them.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    /// What the DPM is called.
    pub(super) dpm: String,
    /// On which side the DPM is.
    dpm_side: Side,
    /// The role that either asks of the other.
    role: &'a str,
    words: &'a Words,
}

impl<'a> Ends<'a> {
    /// The ends as an engine sees them, whose DPM is `peer`.
    pub(super) fn of_callee(peer: &'a Peer) -> Self {
        Self {
            dpm: peer.name.clone(),
            dpm_side: Side::Peer,
            role: peer.module.impersonation_role().as_str(),
            words: &peer.words,
        }
    }

    /// The ends as a DPM sees them, whose engine is `peer`.
    pub(super) fn of_engine(peer: &'a Peer) -> Self {
        Self {
            dpm: peer.module.own().issuer().to_owned(),
            dpm_side: Side::Here,
            ..Self::of_callee(peer)
        }
    }

    /// Returns on which side the engine is.
    fn engine_side(&self) -> Side {
        match self.dpm_side {
            Side::Here => Side::Peer,
            _ => Side::Here,
        }
    }

    /// Names the file of the module `name` on `side`.
    fn file(&self, side: Side, name: &str) -> String {
        match side {
            Side::Here => self.words.file.clone(),
            _ => format!("the file of {name}"),
        }
    }
}

/// Returns why the last dial-back to `engine` failed: what failed, and the reason if one side refused.
pub(super) fn failure_of(engine: &Engine) -> Option<(FailureKind, Option<Reason>)> {
    let DialBackFailure { kind, reason, .. } =
        dial_back_failure(engine.dial_back_failure.as_ref()?)?;
    Some((kind, reason.and_then(|word| word.parse().ok())))
}

/// Returns `true` if the DPM may not dial `engine` where it is.
pub(super) fn is_not_allowed(engine: &Engine) -> bool {
    failure_of(engine) == Some((FailureKind::NotDialled, Some(Reason::AddressNotAllowed)))
}

/// Returns `true` if nothing answered where the DPM dialled `engine`.
pub(super) fn is_unreached(engine: &Engine) -> bool {
    failure_of(engine).is_some_and(|(kind, _)| kind == FailureKind::NotReached)
}

/// Says that the DPM, whose `file` is on `side`, dials the engines of `owner` elsewhere alone.
pub(super) fn not_allowed(detail: String, owner: &str, side: Side, file: &str) -> Fault {
    let fault = Fault::new(side, detail).refused();
    let fault = fault.help(format!(
        "{file} says where it may be dialled: `countersign.deployments.{owner}.allowed-addresses`"
    ));
    let fault = fault.help(
        "the engine advertises `ataccama.one.dpe.service.hostname` and `.port` of its own file",
    );
    fault.help("countersign explain ADDRESS_NOT_ALLOWED")
}

/// Says what mends that `engine` is not READY, which `detail` tells.
///
/// What to do follows the DPM's own words alone: a peer may have chosen the rest of them.
pub(super) fn fault(detail: String, engine: &Engine, ends: &Ends<'_>) -> Fault {
    let owner = &engine.deployment;
    match failure_of(engine) {
        Some((FailureKind::NotDialled, Some(Reason::AddressNotAllowed))) => {
            let file = ends.file(ends.dpm_side, &ends.dpm);
            not_allowed(detail, owner, ends.dpm_side, &file)
        }
        Some((FailureKind::NotDialled, Some(Reason::RoleMissing))) => {
            no_role(detail, ends, ends.dpm_side, [&ends.dpm, owner])
        }
        Some((FailureKind::Refused, Some(Reason::RoleMissing))) => {
            no_role(detail, ends, ends.engine_side(), [owner, &ends.dpm])
        }
        Some((FailureKind::ClocksDiffer, _)) => {
            let other = match ends.dpm_side {
                Side::Here => owner,
                _ => &ends.dpm,
            };
            clock::compare(Fault::new(Side::Between, detail), other)
        }
        Some((_, Some(reason))) => {
            let fault = Fault::new(Side::Between, detail).refused();
            let fault = fault.help(format!("countersign explain {reason}"));
            fault.help(ends.words.check.clone())
        }
        Some((FailureKind::NotDialled, None)) => {
            Fault::new(ends.dpm_side, detail).help(ends.words.check.clone())
        }
        Some((FailureKind::NotReached, None)) => {
            let fault = Fault::new(Side::Between, detail).help(
                "does the engine run? start it with: countersign dpe run --home <its home>",
            );
            fault.help(
                "the engine advertises `ataccama.one.dpe.service.hostname` and `.port`; the DPM's host must reach it there",
            )
        }
        _ => Fault::new(Side::Between, detail).help(
            "look at it again once the DPM has dialled it again; what it says then stands in its log, at `engineCheckFailed`",
        ),
    }
}

/// Says that the file on `side`, that of the first of two deployments, gives the other no role.
fn no_role(detail: String, ends: &Ends<'_>, side: Side, [at, of]: [&str; 2]) -> Fault {
    let (file, role) = (ends.file(side, at), ends.role);
    let fault = Fault::new(side, detail).refused();
    fault.help(format!(
        "write into {file}: ataccama.one.platform.deployments.{of}.security.roles[0]={role}"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::both_files::BothFiles;
    use super::super::report::{Layer, Row};
    use super::*;
    use crate::identity::ModuleType;
    use crate::proto::registry as wire;

    fn row(kind: FailureKind, reason: Option<Reason>, dpm_side: Side) -> Row {
        let words = |text: &str| text.to_owned();
        let words = Words {
            host: words("host"),
            port: words("port"),
            start: words("start"),
            list: words("list"),
            check: words("check"),
            both: BothFiles {
                own: (ModuleType::new("dpe").unwrap(), "here.properties".into()),
                peer: ("dpm".to_owned(), "there.properties".to_owned()),
                at_hand: None,
            },
            file: words("here.properties"),
        };
        let failure = wire::DialBackFailure {
            kind: wire::DialBackFailureKind::from(kind).into(),
            reason: reason.map_or_else(String::new, |reason| reason.to_string()),
            detail: "ADDRESS_NOT_ALLOWED: x; its clock is 9 s".to_owned(),
        };
        let engine = Engine {
            dial_back_failure: Some(failure),
            deployment: "dpe-dev".to_owned(),
            ..Engine::default()
        };
        let ends = Ends {
            dpm: "dpm-dev".to_owned(),
            dpm_side,
            role: "IMPERSONATION",
            words: &words,
        };
        Row::fail(Layer::WayBack, fault(String::new(), &engine, &ends))
    }

    #[test]
    fn only_what_the_dpm_itself_says_of_an_address_is_mended_in_its_file() {
        for (kind, reason, is_meant) in [
            (FailureKind::NotDialled, Reason::AddressNotAllowed, true),
            (FailureKind::NotProved, Reason::ProofInvalid, false),
            (FailureKind::NotDialled, Reason::RoleMissing, false),
        ] {
            for side in [Side::Peer, Side::Here] {
                let row = row(kind, Some(reason), side);

                let told = row.help.join("; ");
                assert_eq!(told.contains("allowed-addresses"), is_meant, "{told}");
                assert!(!is_meant || row.side == Some(side), "{reason}");
            }
        }
    }

    #[test]
    fn role_that_is_missing_is_written_where_it_is_missing() {
        let (here, there) = (FailureKind::NotDialled, FailureKind::Refused);
        for (kind, dpm, side, file, of) in [
            (here, Side::Here, Side::Here, "here.properties", "dpe-dev"),
            (
                here,
                Side::Peer,
                Side::Peer,
                "the file of dpm-dev",
                "dpe-dev",
            ),
            (there, Side::Peer, Side::Here, "here.properties", "dpm-dev"),
            (
                there,
                Side::Here,
                Side::Peer,
                "the file of dpe-dev",
                "dpm-dev",
            ),
        ] {
            let row = row(kind, Some(Reason::RoleMissing), dpm);

            let line = format!("ataccama.one.platform.deployments.{of}.security.roles[0]");
            let help = format!("write into {file}: {line}=IMPERSONATION");
            assert_eq!((row.side, row.help), (Some(side), vec![help]));
            assert!(row.refused);
        }
    }

    #[test]
    fn clocks_are_compared_only_where_the_dpm_measured_them() {
        for (kind, is_meant) in [
            (FailureKind::ClocksDiffer, true),
            (FailureKind::NotProved, false),
        ] {
            let help = row(kind, Some(Reason::ProofInvalid), Side::Peer).help;

            assert_eq!(help.join("; ").contains("date -u"), is_meant, "{help:?}");
        }
    }

    #[test]
    fn engine_that_nobody_reaches_is_to_be_started_or_to_advertise_another_address() {
        let row = row(FailureKind::NotReached, None, Side::Peer);

        assert!(row.help.iter().any(|help| help.contains("dpe run")));
        assert!(
            row.help
                .iter()
                .any(|help| help.contains("service.hostname"))
        );
    }
}
