//! How far a rotation is and what each step may do then. Only the files decide that.

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

    /// Returns how far a rotation is, by what the files say: whether the owner's has a next key,
    /// whether it says since when its key signs, and how each peer's stands to the next key.
    pub(super) fn of(has_next: bool, is_activated: bool, next_at_peers: &[Trust]) -> Self {
        let trusted = |trust: &Trust| *trust == Trust::Trusted;
        if is_activated {
            Self::Activated
        } else if !has_next {
            Self::Idle
        } else if next_at_peers.iter().all(trusted) {
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

    /// Returns whether the step has something to do in `phase`.
    ///
    /// # Errors
    ///
    /// When it is not the time for it.
    pub(super) fn in_phase(self, phase: Phase) -> Result<bool, OutOfTurn> {
        use Phase::{Activated, Idle, Prepared, Preparing};

        match (self, phase) {
            (Self::Prepare, Idle | Preparing)
            | (Self::Activate, Prepared)
            | (Self::Finish, Activated)
            | (Self::Abort, Preparing | Prepared) => Ok(true),
            (Self::Prepare, Prepared)
            | (Self::Activate, Activated)
            | (Self::Finish | Self::Abort, Idle) => Ok(false),
            (Self::Activate, Idle) => Err(OutOfTurn::NotPrepared),
            (Self::Activate, Preparing) => Err(OutOfTurn::NotTrusted),
            (Self::Finish, Preparing | Prepared) => Err(OutOfTurn::NotActivated),
            (Self::Prepare | Self::Abort, Activated) => Err(OutOfTurn::Activated),
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
            let found = Phase::of(has_next, is_activated, peers);
            assert_eq!(found, expected, "{has_next} {is_activated} {peers:?}");
        }
    }

    #[test]
    fn every_step_does_one_thing_in_every_phase() {
        use OutOfTurn::{Activated, NotActivated, NotPrepared, NotTrusted};

        let (open, done) = (Ok(true), Ok(false));

        let phases = [
            Phase::Idle,
            Phase::Preparing,
            Phase::Prepared,
            Phase::Activated,
        ];
        for (step, expected) in [
            (Step::Prepare, [open, open, done, Err(Activated)]),
            (
                Step::Activate,
                [Err(NotPrepared), Err(NotTrusted), open, done],
            ),
            (
                Step::Finish,
                [done, Err(NotActivated), Err(NotActivated), open],
            ),
            (Step::Abort, [done, open, open, Err(Activated)]),
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
            assert_eq!(step.in_phase(phase), Ok(true));
            phase = step.ends_in();
            assert_eq!(step.in_phase(phase), Ok(false));
            steps.push(step.as_str());
            if phase == Phase::Idle {
                break;
            }
        }
        assert_eq!(steps, ["prepare", "activate", "finish"]);
    }
}
