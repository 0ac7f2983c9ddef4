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
    /// As `Activated`, but a peer has revoked the key that signs: the module needs another one.
    Refused,
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
            Self::Refused => "refused",
        }
    }

    /// Returns how far a rotation is, by what the files say: whether the owner's file has a next
    /// key, whether every peer's file trusts that, and, if its key signs since the last step,
    /// whether a peer's file has revoked the key.
    pub(super) fn of(has_next: bool, all_trust_next: bool, activated: Option<bool>) -> Self {
        match (activated, has_next, all_trust_next) {
            (Some(true), ..) => Self::Refused,
            (Some(false), ..) => Self::Activated,
            (None, false, _) => Self::Idle,
            (None, true, true) => Self::Prepared,
            (None, true, false) => Self::Preparing,
        }
    }

    /// Returns the step that goes on from here.
    pub fn next_step(self) -> Step {
        match self {
            Self::Idle | Self::Preparing | Self::Refused => Step::Prepare,
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
        use Phase::{Activated, Idle, Prepared, Preparing, Refused};

        let next = phase.next_step();
        match (self, phase) {
            (Self::Abort, Preparing | Prepared) => Ok(true),
            _ if self == next => Ok(true),
            (Self::Prepare, Prepared)
            | (Self::Activate, Activated)
            | (Self::Finish | Self::Abort, Idle) => Ok(false),
            (_, Idle) => Err(("there is no next key yet", next)),
            (_, Preparing) => Err(("not every peer's file trusts the next key", next)),
            (_, Prepared) => Err(("the next key does not sign yet", next)),
            (_, Activated) => Err((
                "the new key signs already, and peers may have seen it",
                next,
            )),
            (_, Refused) => Err(("a peer has revoked the key that signs", next)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Step {
        /// Returns the phase that the step ends in.
        pub(in crate::admin::rotation) fn ends_in(self) -> Phase {
            match self {
                Self::Prepare => Phase::Prepared,
                Self::Activate => Phase::Activated,
                Self::Finish | Self::Abort => Phase::Idle,
            }
        }
    }

    #[test]
    fn the_files_show_the_phase() {
        for (has_next, all_trust_next, activated, expected) in [
            (false, true, None, Phase::Idle),
            (false, false, None, Phase::Idle),
            (true, false, None, Phase::Preparing),
            (true, true, None, Phase::Prepared),
            (false, false, Some(false), Phase::Activated),
            (false, false, Some(true), Phase::Refused),
            // Put there by hand: what is under way is finished first.
            (true, true, Some(false), Phase::Activated),
        ] {
            let found = Phase::of(has_next, all_trust_next, activated);
            assert_eq!(found, expected, "{has_next} {all_trust_next} {activated:?}");
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
            Phase::Refused,
        ];
        let (prepare, activate, finish) =
            (Err(Step::Prepare), Err(Step::Activate), Err(Step::Finish));
        for (step, expected) in [
            (Step::Prepare, [open, open, done, finish, open]),
            (Step::Activate, [prepare, prepare, open, done, prepare]),
            (Step::Finish, [done, prepare, activate, open, prepare]),
            (Step::Abort, [done, open, open, finish, prepare]),
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
