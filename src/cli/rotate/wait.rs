//! What a step of `rotate` waits for.

use std::time::Duration;

use super::interface::StepArguments;
use crate::admin::Change;
use crate::admin::greeting::{Doubt, Found};
use crate::admin::rotation::Rotation;
use crate::admin::rotation::live::{self, Asking};
use crate::cli::output::{Console, Kind, Refused};
use crate::cli::runtime::Patience;
use crate::config::ModuleKind;

/// Between two questions: at first, and at most. Each may be a refusal in a log: it asks no more
/// often than it takes to see a reload.
pub(super) const PAUSES: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_secs(5));

/// Waits until every peer accepts the next key; it says how each is known to, unless it is one
/// of the steps that are `all` taken.
pub(super) async fn accepted(
    rotation: &Rotation,
    asking: &Asking,
    (arguments, all): (&StepArguments, bool),
    console: &Console,
) -> Result<(), Refused> {
    let kind = arguments.files.kind(rotation);
    let time = if arguments.how.dry_run {
        Duration::ZERO
    } else {
        arguments.asked.timeout
    };
    let mut patience = Patience::new(time, PAUSES.0, PAUSES.1);
    loop {
        let mut evidence = live::evidence(rotation, &kind, asking).await;
        // What no time changes comes first.
        evidence.sort_by_key(|one| one.may_follow);
        let mut open = evidence.iter().filter(|one| one.verdict.is_err());
        if let Some(first) = open.next() {
            let (name, left) = (&first.deployment, patience.left().as_secs());
            let more = match open.count() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            console.progress(&format!(
                "waiting up to {left} s for {name}{more} to accept the new key"
            ));
            let goes_on = first.may_follow && patience.again().await;
            console.progress("");
            if goes_on {
                continue;
            }
        }
        for one in evidence {
            let how = one.verdict.map_err(|error| arguments.redirected(error))?;
            if !all {
                console.say(&format!("{}: {how}", one.deployment));
            }
        }
        return Ok(());
    }
}

/// Waits until the running module follows its file. If it does not in time, the error says what the
/// module `still` does, and what may `help`.
pub(super) async fn own_follows(
    rotation: &Rotation,
    kind: &ModuleKind,
    patience: &mut Patience,
    (still, help): (&str, &str),
) -> Result<(), Refused> {
    while let Err(Doubt {
        found: Found::Refused | Found::Tls,
        why,
        ..
    }) = live::own_in_force(rotation, kind).await
    {
        if !patience.again().await {
            let message = format!("the running module still {still}: {why}");
            return Err(Refused::new(Kind::Conflict, message).with_help(help));
        }
    }
    Ok(())
}

/// Carries `change` out once no other process writes there.
pub(super) async fn carry_out(change: &Change, timeout: Duration) -> Result<(), Refused> {
    let mut patience = Patience::new(timeout, PAUSES.0, PAUSES.0);
    loop {
        match change.carry_out() {
            Err(error) if matches!(error.kind(), Kind::Busy) && patience.again().await => {}
            done => return done,
        }
    }
}
