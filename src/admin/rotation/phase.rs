//! How far a rotation is and what each step may do then: told by what the files say, and by nothing
//! else.

/// How a peer's file stands to a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// The key is not there.
    Absent,
    /// It is trusted.
    Trusted,
    /// It is there, and revoked.
    Revoked,
}

/// What the files say, as far as it matters here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Contents {
    /// Whether the owner's file has a next key.
    pub(super) has_next: bool,
    /// Whether the owner's file says since when its key signs.
    pub(super) is_activated: bool,
    /// How each peer's file stands to the next key.
    pub(super) next_at_peers: Vec<Trust>,
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// There is one key, and no other is on its way.
    Idle,
    /// There is a next key that not every peer trusts.
    Preparing,
    /// Every peer trusts the next key beside the one that signs.
    Prepared,
    /// The next key signs; the one before it is still trusted.
    Activated,
}

/// A step of a rotation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Make the next key and let the peers trust it.
    Prepare,
    /// Sign with it.
    Activate,
    /// Revoke the key before it.
    Finish,
    /// Forget the next key.
    Abort,
}

/// What a step does in a phase.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
    /// There is something to do.
    Do,
    /// It is done.
    Nothing,
    /// It is not the time for it.
    Refuse(OutOfTurn),
}

/// Why a step is not the next one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OutOfTurn {
    /// No next key is there.
    #[error("there is no next key yet")]
    NotPrepared,
    /// A peer would refuse the next key.
    #[error("not every peer's file trusts the next key")]
    NotTrusted,
    /// The next key does not sign yet.
    #[error("the next key does not sign yet")]
    NotActivated,
    /// The next key signs.
    #[error("the new key signs already, and peers may have seen it")]
    Activated,
}

impl Phase {
    /// Returns the phase's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Preparing => "preparing",
            Self::Prepared => "prepared",
            Self::Activated => "activated",
        }
    }

    /// Tells how far the rotation is.
    pub(super) fn of(contents: &Contents) -> Self {
        let trusted = |trust: &Trust| *trust == Trust::Trusted;
        if contents.is_activated {
            Self::Activated
        } else if !contents.has_next {
            Self::Idle
        } else if contents.next_at_peers.iter().all(trusted) {
            Self::Prepared
        } else {
            Self::Preparing
        }
    }

    /// Returns the step that goes on from here.
    pub fn next_step(self) -> Step {
        match self {
            Self::Idle | Self::Preparing => Step::Prepare,
            Self::Prepared => Step::Activate,
            Self::Activated => Step::Finish,
        }
    }
}

impl Step {
    /// Returns the step's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Finish => "finish",
            Self::Abort => "abort",
        }
    }

    /// Tells what the step does in `phase`.
    pub(super) fn in_phase(self, phase: Phase) -> Action {
        use Phase::{Activated, Idle, Prepared, Preparing};

        match (self, phase) {
            (Self::Prepare, Idle | Preparing)
            | (Self::Activate, Prepared)
            | (Self::Finish, Activated)
            | (Self::Abort, Preparing | Prepared) => Action::Do,
            (Self::Prepare, Prepared)
            | (Self::Activate, Activated)
            | (Self::Finish | Self::Abort, Idle) => Action::Nothing,
            (Self::Activate, Idle) => Action::Refuse(OutOfTurn::NotPrepared),
            (Self::Activate, Preparing) => Action::Refuse(OutOfTurn::NotTrusted),
            (Self::Finish, Preparing | Prepared) => Action::Refuse(OutOfTurn::NotActivated),
            (Self::Prepare | Self::Abort, Activated) => Action::Refuse(OutOfTurn::Activated),
        }
    }

    /// Returns the phase that the step ends in.
    pub(super) fn ends_in(self) -> Phase {
        match self {
            Self::Prepare => Phase::Prepared,
            Self::Activate => Phase::Activated,
            Self::Finish | Self::Abort => Phase::Idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Trust::{Absent, Revoked, Trusted};

    fn phase(has_next: bool, is_activated: bool, next_at_peers: &[Trust]) -> Phase {
        Phase::of(&Contents {
            has_next,
            is_activated,
            next_at_peers: next_at_peers.to_vec(),
        })
    }

    #[test]
    fn the_files_tell_the_phase() {
        for (has_next, is_activated, peers, expected) in [
            (false, false, &[][..], Phase::Idle),
            (false, false, &[Absent], Phase::Idle),
            (true, false, &[Absent], Phase::Preparing),
            (true, false, &[Trusted, Absent], Phase::Preparing),
            (true, false, &[Trusted, Revoked], Phase::Preparing),
            (true, false, &[Trusted, Trusted], Phase::Prepared),
            // No peer's file is here: each takes the key from a hand-over.
            (true, false, &[], Phase::Prepared),
            (false, true, &[Absent], Phase::Activated),
            // Put there by hand: what is under way is finished first.
            (true, true, &[Trusted], Phase::Activated),
        ] {
            let found = phase(has_next, is_activated, peers);
            assert_eq!(found, expected, "{has_next} {is_activated} {peers:?}");
        }
    }

    #[test]
    fn every_step_does_one_thing_in_every_phase() {
        use Action::{Do, Nothing, Refuse};
        use OutOfTurn::{Activated, NotActivated, NotPrepared, NotTrusted};

        let phases = [
            Phase::Idle,
            Phase::Preparing,
            Phase::Prepared,
            Phase::Activated,
        ];
        for (step, expected) in [
            (Step::Prepare, [Do, Do, Nothing, Refuse(Activated)]),
            (
                Step::Activate,
                [Refuse(NotPrepared), Refuse(NotTrusted), Do, Nothing],
            ),
            (
                Step::Finish,
                [Nothing, Refuse(NotActivated), Refuse(NotActivated), Do],
            ),
            (Step::Abort, [Nothing, Do, Do, Refuse(Activated)]),
        ] {
            assert_eq!(
                phases.map(|phase| step.in_phase(phase)),
                expected,
                "{step:?}"
            );
        }
    }

    #[test]
    fn following_the_next_step_ends_where_it_began() {
        let mut phase = Phase::Idle;
        let mut steps = Vec::new();
        loop {
            let step = phase.next_step();
            assert_eq!(step.in_phase(phase), Action::Do);
            phase = step.ends_in();
            assert_eq!(step.in_phase(phase), Action::Nothing);
            steps.push(step.as_str());
            if phase == Phase::Idle {
                break;
            }
        }
        assert_eq!(steps, ["prepare", "activate", "finish"]);
    }
}
