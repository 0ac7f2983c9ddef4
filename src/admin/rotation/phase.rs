//! How far a rotation is and what each step may do then. Only the files decide that.

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

    /// Returns how far a rotation is, by what the files say: whether the owner's file has a next
    /// key, whether it says since when its key signs, and whether every peer's file trusts the next
    /// key.
    pub(super) fn of(has_next: bool, is_activated: bool, all_trust_next: bool) -> Self {
        match (is_activated, has_next, all_trust_next) {
            (true, ..) => Self::Activated,
            (false, false, _) => Self::Idle,
            (false, true, true) => Self::Prepared,
            (false, true, false) => Self::Preparing,
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
    /// When it is not possible in that phase: why, and the step that is.
    pub(super) fn in_phase(self, phase: Phase) -> Result<bool, (&'static str, Self)> {
        use Phase::{Activated, Idle, Prepared, Preparing};

        match (self, phase) {
            (Self::Prepare, Idle | Preparing)
            | (Self::Activate, Prepared)
            | (Self::Finish, Activated)
            | (Self::Abort, Preparing | Prepared) => Ok(true),
            (Self::Prepare, Prepared)
            | (Self::Activate, Activated)
            | (Self::Finish | Self::Abort, Idle) => Ok(false),
            (Self::Activate, Idle) => Err(("there is no next key yet", Self::Prepare)),
            (Self::Activate, Preparing) => {
                Err(("not every peer's file trusts the next key", Self::Prepare))
            }
            (Self::Finish, Preparing | Prepared) => {
                Err(("the next key does not sign yet", Self::Activate))
            }
            (Self::Prepare | Self::Abort, Activated) => {
                let why = "the new key signs already, and peers may have seen it";
                Err((why, Self::Finish))
            }
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

    #[test]
    fn the_files_show_the_phase() {
        for (has_next, is_activated, all_trust_next, expected) in [
            (false, false, true, Phase::Idle),
            (false, false, false, Phase::Idle),
            (true, false, false, Phase::Preparing),
            (true, false, true, Phase::Prepared),
            (false, true, false, Phase::Activated),
            // Put there by hand: what is under way is finished first.
            (true, true, true, Phase::Activated),
        ] {
            let found = Phase::of(has_next, is_activated, all_trust_next);
            assert_eq!(
                found, expected,
                "{has_next} {is_activated} {all_trust_next}"
            );
        }
    }

    #[test]
    fn every_step_does_one_thing_in_every_phase() {
        let (open, done) = (Ok(true), Ok(false));

        let phases = [
            Phase::Idle,
            Phase::Preparing,
            Phase::Prepared,
            Phase::Activated,
        ];
        for (step, expected) in [
            (Step::Prepare, [open, open, done, Err(Step::Finish)]),
            (
                Step::Activate,
                [Err(Step::Prepare), Err(Step::Prepare), open, done],
            ),
            (
                Step::Finish,
                [done, Err(Step::Activate), Err(Step::Activate), open],
            ),
            (Step::Abort, [done, open, open, Err(Step::Finish)]),
        ] {
            let found = phases.map(|phase| step.in_phase(phase).map_err(|(_, first)| first));
            assert_eq!(found, expected, "{step:?}");
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
