//! All steps of a rotation, and the waiting between them.

use std::time::Duration;

use tokio::time::Instant;

use super::arguments::{StepArguments, still_old};
use super::finished;
use super::shown::{self, Report, left};
use crate::admin::rotation::live::{self, Answer as Said, Evidence};
use crate::admin::rotation::{Plan, Rotation, Step};
use crate::admin::{Refused, WriteError};
use crate::cli::change::{not_written, warn_of_variables};
use crate::cli::output::{Answer, Console, Exit, Failure};
use crate::cli::runtime::runtime;
use crate::clock::{Clock as _, SystemClock};
use crate::config::ModuleKind;

/// Takes the steps that are left, and waits between them.
pub(super) fn run(arguments: &StepArguments, console: &Console) -> Answer {
    let files = &arguments.files;
    let first = files.read(console)?;
    arguments.names_peers(&first)?;
    if files.one_side {
        let step = files.command(first.phase().next_step().as_str());
        let why = "`rotate run` waits for peers whose files it changes; `--one-side` changes none";
        let help = format!("take the steps one by one: {step}");
        return Err(Failure::new(Exit::Usage, why).with_help(help));
    }
    let opening = first.plan(first.phase().next_step(), SystemClock.now());
    let opening = opening.map_err(|error| files.not_taken(&error, console))?;
    if arguments.how.dry_run {
        console.answer(shown::step(&opening, &first, arguments))?;
        return Ok(Exit::Done);
    }
    // Else the last step could not be taken.
    arguments
        .reaches_all(&first)
        .map_err(|error| files.not_taken(&error, console))?;
    arguments.confirm(&opening, console)?;
    if opening.step == Step::Prepare {
        // The key that was shown is the one that is written.
        match carry_out(&opening, arguments.timeout) {
            Err(WriteError::Changed(_)) if arguments.how.yes => {}
            done => {
                done.map_err(|error| not_written(&error))?;
                took(&opening, console);
            }
        }
    }
    go_on(opening.step, &files.kind(&first), arguments, console)
}

/// Takes the steps that are left; `asked` is the one that somebody was asked about.
fn go_on(asked: Step, kind: &ModuleKind, arguments: &StepArguments, console: &Console) -> Answer {
    let files = &arguments.files;
    let runtime = runtime()?;
    let mut tries = TRIES;
    loop {
        let rotation = files.read(console)?;
        let step = rotation.phase().next_step();
        runtime
            .block_on(wait_for(step, &rotation, (arguments, kind), console))
            .map_err(|error| files.not_taken(&error, console))?;
        // The files may have changed while it waited.
        let rotation = files.read(console)?;
        if step == Step::Finish {
            arguments
                .reaches_all(&rotation)
                .map_err(|error| files.not_taken(&error, console))?;
        }
        let plan = rotation.plan(step, SystemClock.now());
        let plan = plan.map_err(|error| files.not_taken(&error, console))?;
        if step != asked {
            warn_of_variables(plan.change.files(), console);
        }
        match carry_out(&plan, arguments.timeout) {
            // Somebody rotates the other side, say. Whoever finished this one ends it.
            Err(WriteError::Changed(_))
                if tries > 0 && files.read(console)?.phase() == rotation.phase() =>
            {
                tries = tries.saturating_sub(1);
                continue;
            }
            done => done.map_err(|error| not_written(&error))?,
        }
        if step != Step::Finish {
            took(&plan, console);
            continue;
        }
        let ended = finished::in_force(&rotation, arguments);
        if ended.is_ok() {
            took(&plan, console);
        }
        finished::still_trusting(&rotation, ("old", rotation.previous()), files, console);
        let after = files.read(console)?;
        let report = Report::step(&plan, &after, arguments);
        console.reply(shown::step(&plan, &after, arguments), &report)?;
        return ended.map(|()| Exit::Done);
    }
}

/// How often files may change under a plan.
const TRIES: u32 = 20;

/// Carries `plan` out once no other process writes there.
fn carry_out(plan: &Plan, timeout: Duration) -> Result<(), WriteError> {
    let start = Instant::now();
    loop {
        let done = plan.change.carry_out();
        if !matches!(done, Err(WriteError::Busy(_))) || start.elapsed() >= timeout {
            return done;
        }
        std::thread::sleep(PAUSES.0);
    }
}

/// Says what a step has done.
fn took(plan: &Plan, console: &Console) {
    let key = plan.key.map_or_else(String::new, |key| key.to_string());
    console.say(&match plan.step {
        Step::Prepare => format!("prepared   the named peers' files trust {key}"),
        Step::Activate => format!("activated  {key} signs"),
        Step::Finish | Step::Abort => format!("finished   the key before {key} is revoked"),
    });
}

/// Between two questions to running modules while something is waited for: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Waits until the step may be taken; for a running module that does not follow its file, no
/// longer than the time-out.
async fn wait_for(
    step: Step,
    rotation: &Rotation,
    (arguments, kind): (&StepArguments, &ModuleKind),
    console: &Console,
) -> Result<(), Refused> {
    let asking = arguments.asking();
    let start = Instant::now();
    let is_patient = || start.elapsed() < arguments.timeout;
    let (mut pause, longest) = PAUSES;
    // Each question may be a refusal in a log: not more of them than it takes to see a reload.
    let mut again = async || {
        let left = arguments.timeout.saturating_sub(start.elapsed());
        tokio::time::sleep(pause.min(left)).await;
        pause = pause.saturating_mul(2).min(longest);
    };
    if step == Step::Activate {
        loop {
            let evidence = live::evidence(rotation, kind, &asking).await;
            let may_come =
                |evidence: &Evidence| matches!(evidence.live, Said::Refused(_) | Said::Silent(_));
            let verdicts = evidence.iter().map(|one| (one, one.verdict()));
            let mut open = verdicts.filter_map(|(one, verdict)| Some((one, verdict.err()?)));
            match open.next() {
                None => return Ok(()),
                Some((one, _)) if may_come(one) && is_patient() => {}
                Some((_, error)) => return Err(error),
            }
            again().await;
        }
    }
    if step != Step::Finish || arguments.now {
        return Ok(());
    }
    if !arguments.offline {
        tokio::time::sleep(rotation.follows_in(SystemClock.now())).await;
    }
    while !arguments.offline
        && let Said::Refused(why) = live::own_in_force(rotation, kind).await
    {
        if !is_patient() {
            return Err(still_old(&why));
        }
        again().await;
    }
    let mut told = None;
    while let Some(left) = left(rotation) {
        let seconds = left.as_secs();
        // On change of the tens, and every second of the last five.
        if told.is_none() || seconds % 10 == 0 || seconds <= 5 {
            console.say(&format!(
                "waiting    {seconds} s until no token of the old key is left"
            ));
        }
        told = Some(seconds);
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
    Ok(())
}
