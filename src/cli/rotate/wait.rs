//! What a rotation waits for: peers, running modules and the time.

use std::path::Path;
use std::time::Duration;

use super::arguments::StepArguments;
use super::shown::left;
use crate::admin::greeting::{Doubt, Found};
use crate::admin::rotation::live::{self, Holdout};
use crate::admin::rotation::{Plan, Rotation, Step};
use crate::cli::change::{BY_SIGNAL, inactive};
use crate::cli::output::{Console, Kind, Refused};
use crate::cli::runtime::Patience;
use crate::clock::{Clock as _, SystemClock};
use crate::config::ModuleKind;
use crate::diagnostic::CommandLine;
use crate::jose::Fingerprint;

/// Between two questions: at first, and at most. Each may be a refusal in a log: it asks no more
/// often than it takes to see a reload.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Asks the peers, running modules and the clock whether `step` may be taken.
///
/// Where it `waits`, it asks until it may: running modules no longer than the time-out.
pub(super) async fn may_take(
    step: Step,
    rotation: &Rotation,
    (arguments, waits): (&StepArguments, bool),
    console: &Console,
) -> Result<(), Refused> {
    let kind = arguments.files.kind(rotation);
    let time = if waits {
        arguments.timeout
    } else {
        Duration::ZERO
    };
    let mut patience = Patience::new(time, PAUSES.0, PAUSES.1);
    match step {
        Step::Prepare | Step::Abort => return Ok(()),
        Step::Activate => loop {
            let evidence = live::evidence(rotation, &kind, &arguments.asking()).await;
            let mut open = None;
            for one in evidence {
                match one.verdict {
                    Ok(how) if !waits => console.say(&format!("{}: {how}", one.deployment)),
                    Ok(_) => {}
                    Err(error) => open = open.or(Some((one.may_follow, error))),
                }
            }
            match open {
                None => return Ok(()),
                Some((true, _)) if patience.again().await => {}
                Some((_, error)) => return Err(arguments.redirected(error)),
            }
        },
        // With `--one-side` another operator revokes the old key.
        Step::Finish if !arguments.files.one_side => rotation.reaches_all(&arguments.except)?,
        Step::Finish => {}
    }
    if arguments.now {
        return Ok(());
    }
    if !waits && let Some(left) = left(rotation) {
        let seconds = left.as_secs();
        let message =
            format!("tokens that the old key signed may be accepted for {seconds} s more");
        return Err(Refused::new(Kind::Conflict, message).with_help(
            "wait, or revoke the old key at once with `--now`: its callers are refused",
        ));
    }
    if !arguments.offline {
        if waits {
            tokio::time::sleep(rotation.follows_in(SystemClock.now())).await;
        }
        signs_with_the_new_key(rotation, &kind, &mut patience).await?;
    }
    while let Some(left) = left(rotation) {
        let seconds = left.as_secs();
        console.say(&format!(
            "waiting    {seconds} s until no token of the old key is left"
        ));
        tokio::time::sleep(left).await;
    }
    Ok(())
}

/// Waits until the running module signs with its new key.
async fn signs_with_the_new_key(
    rotation: &Rotation,
    kind: &ModuleKind,
    patience: &mut Patience,
) -> Result<(), Refused> {
    while let Err(Doubt {
        found: Found::Refused | Found::Tls,
        why,
    }) = live::own_in_force(rotation, kind).await
    {
        if !patience.again().await {
            let message = format!("the running module still signs with its old key: {why}");
            return Err(Refused::new(Kind::Conflict, message).with_help(
                "wait for its reload, or see its log for `configReloadFailed`; it does not follow \
                 the file if a variable overrides `generator.key`: start it without that variable",
            ));
        }
    }
    Ok(())
}

/// Carries `plan` out once no other process writes there.
pub(super) async fn carry_out(plan: &Plan, timeout: Duration) -> Result<(), Refused> {
    let mut patience = Patience::new(timeout, PAUSES.0, PAUSES.0);
    loop {
        match plan.change.carry_out() {
            Err(error) if matches!(error.kind(), Kind::Busy) && patience.again().await => {}
            done => return done,
        }
    }
}

/// Returns the command that revokes `key` in `file` and waits for the running module.
pub(super) fn watched(file: &Path, key: Fingerprint) -> CommandLine {
    let revoke = CommandLine::new("countersign revoke").option("file", file);
    let command = revoke.option("fingerprint", key.to_string());
    command.flag("watch").flag("yes")
}

/// Waits until the running peers follow their files, no longer than the time-out. `rotation` is as
/// it was before the last step.
pub(super) async fn in_force(
    rotation: &Rotation,
    arguments: &StepArguments,
) -> Result<(), Refused> {
    let kind = arguments.files.kind(rotation);
    let mut patience = Patience::new(arguments.timeout, PAUSES.0, PAUSES.0);
    while let Some(holdout) = live::holdout(rotation, &kind, &arguments.asking()).await {
        let Holdout { why, key, file, .. } = &holdout;
        if !holdout.may_follow || !patience.again().await {
            let help = format!(
                "see its log for `configReloadFailed`; {BY_SIGNAL}. It is done where this says \
                 `active`:"
            );
            return Err(inactive(why, &help).with_commands([watched(file, *key)]));
        }
    }
    Ok(())
}
