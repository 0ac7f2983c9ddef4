//! `countersign rotate`: a new key for a module, while it and its peers run.

mod interface;
mod replace;
mod tls;
mod wait;

use std::path::Path;
use std::time::Duration;

use super::change::{BY_SIGNAL, inactive};
use super::output::{Answer, Console, Exit, Format, Kind, Refused};
use super::runtime::{Patience, runtime};
use crate::admin::rotation::live::{self, Asking, Holdout};
use crate::admin::rotation::{Plan, Rotation, Step};
use crate::clock::{Clock as _, SystemClock};
use crate::diagnostic::CommandLine;
use crate::jose::Fingerprint;
pub(super) use interface::Command;
use interface::{FileArguments, StepArguments, left};
use wait::{PAUSES, accepted, carry_out};

pub(super) fn run(command: Command, console: &Console) -> Answer {
    match command {
        Command::Prepare(arguments) => step(Step::Prepare, &arguments.into(), console),
        Command::Activate(arguments) => step(Step::Activate, &arguments.into(), console),
        Command::Finish(arguments) => step(Step::Finish, &arguments, console),
        Command::Abort(arguments) => step(Step::Abort, &arguments.into(), console),
        Command::Run(arguments) => all_steps(&arguments, console),
        Command::Replace(arguments) => replace::run(&arguments, console),
        Command::Tls(arguments) => tls::run(&arguments.into(), console),
        Command::Status(files) => {
            let rotation = files.read()?;
            if let Some(damage) = rotation.damage() {
                console.findings(damage.iter());
            }
            let report = interface::in_json(&rotation, &files);
            console.reply(interface::status(&rotation, &files), &report)?;
            Ok(Exit::Done)
        }
    }
}

/// Takes one step.
fn step(step: Step, arguments: &StepArguments, console: &Console) -> Answer {
    let (files, how) = (&arguments.files, &arguments.how);
    let rotation = files.read()?;
    let asking = arguments.asking(&rotation)?;
    let plan = arguments.plan(&rotation, step)?;
    let executor = runtime()?;
    if !plan.change.is_empty() {
        executor.block_on(may_take(
            step,
            &rotation,
            &asking,
            (arguments, false),
            console,
        ))?;
        arguments.confirm(&plan, console)?;
    }
    let mut ended = Ok(());
    if !how.dry_run {
        plan.change.carry_out()?;
        if step == Step::Finish {
            ended = executor.block_on(in_force(&rotation, &asking, arguments));
        }
    }
    conclude(&plan, &rotation, arguments, ended, console)
}

/// Answers with what the last step changed. `rotation` is as it was before.
fn conclude(
    plan: &Plan,
    rotation: &Rotation,
    arguments: &StepArguments,
    ended: Result<(), Refused>,
    console: &Console,
) -> Answer {
    let files = &arguments.files;
    still_trusting(plan.step, rotation, files, console);
    let after = files.read()?;
    let text = interface::step(plan, &after, arguments);
    if let (Step::Prepare, true, Some(block)) = (plan.step, files.one_side, after.hand_over())
        && console.format == Format::Text
    {
        console.present(&text);
        console.present(&format!("words   {}", block.words()));
        console.answer(block.block())?;
    } else {
        console.reply(text, &interface::step_in_json(plan, &after, arguments))?;
    }
    ended.map(|()| Exit::Done)
}

/// How often files may change under a plan.
const TRIES: u32 = 20;

/// Takes the steps that are left, and waits between them.
fn all_steps(arguments: &StepArguments, console: &Console) -> Answer {
    let files = &arguments.files;
    let first = files.read()?;
    let asking = arguments.asking(&first)?;
    if files.one_side {
        let step = first.next_step();
        let why = "`rotate run` waits for peers whose files it changes; `--one-side` changes none";
        return Err(Refused::new(Kind::Usage, why)
            .with_help("run the steps one by one:")
            .with_commands([arguments.command(step.as_str())]));
    }
    let opening = arguments.plan(&first, first.next_step())?;
    if arguments.how.dry_run {
        return conclude(&opening, &first, arguments, Ok(()), console);
    }
    // Otherwise the last step could not be taken.
    first.reaches_all(&asking.except)?;
    arguments.confirm(&opening, console)?;
    let executor = runtime()?;
    // The key that was shown is the one that is written.
    let mut shown = Some(opening).filter(|plan| plan.step == Step::Prepare);
    let mut tries = if arguments.how.yes { TRIES } else { 0 };
    loop {
        let before = files.read()?;
        let step = before.next_step();
        executor.block_on(may_take(step, &before, &asking, (arguments, true), console))?;
        // The files may have changed while it waited.
        let rotation = files.read()?;
        if step == Step::Finish {
            rotation.reaches_all(&asking.except)?;
        }
        let plan = match shown.take() {
            Some(plan) => plan,
            None => arguments.plan(&rotation, step)?,
        };
        match executor.block_on(carry_out(&plan.change, arguments.asked.timeout)) {
            // Another process may rotate the other side. One that takes this step ends this one.
            Err(error)
                if matches!(error.kind(), Kind::Changed)
                    && tries > 0
                    && files.read()?.phase() == rotation.phase() =>
            {
                tries = tries.saturating_sub(1);
                continue;
            }
            done => done?,
        }
        if step != Step::Finish {
            took(step, &files.read()?, console);
            continue;
        }
        let ended = executor.block_on(in_force(&rotation, &asking, arguments));
        if ended.is_ok() {
            took(step, &rotation, console);
        }
        return conclude(&plan, &rotation, arguments, ended, console);
    }
}

/// Says what a step has done. The files are as in `rotation`: as they are after it, or, for
/// `finish`, which changes no key of the module, as they were before.
fn took(step: Step, rotation: &Rotation, console: &Console) {
    let signs = rotation.key().fingerprint();
    console.say(&match step {
        Step::Prepare => {
            let next = rotation.next().map_or(signs, |(key, _)| key.fingerprint());
            format!("prepared   the named peers' files trust {next}")
        }
        Step::Activate => format!("activated  {signs} signs"),
        Step::Finish => format!("finished   the key before {signs} is revoked"),
        Step::Abort => format!("aborted    {signs} signs; the next key is discarded"),
    });
}

/// Says how the peers without a file here are to revoke the keys that `step` gave up. `rotation` is
/// as it was before.
fn still_trusting(step: Step, rotation: &Rotation, files: &FileArguments, console: &Console) {
    let next = rotation.next().map(|(key, _)| key.fingerprint());
    let (what, keys) = match step {
        Step::Finish => ("old", rotation.state().previous.clone()),
        Step::Abort => ("next", Vec::from_iter(next)),
        Step::Prepare | Step::Activate => return,
    };
    let left_out: Vec<_> = rotation.left_out().map(ToString::to_string).collect();
    let names = left_out.join(", ");
    if keys.is_empty() || names.is_empty() && !files.one_side {
        return;
    }
    let who = if files.one_side {
        format!("the peers trust the {what} key until each revokes it")
    } else {
        format!("the {what} key may still be trusted by {names}")
    };
    console.note(&format!(
        "{who}; nothing here remembers that. At each of them, in its home folder:"
    ));
    for key in &keys {
        console.present(&format!("  {}", watched(Path::new("."), *key)));
    }
    if let Some(name) = rotation.name() {
        let show = CommandLine::new("countersign deployment show").arg(name.as_str());
        console.present(&format!("  {}", show.option("home", ".")));
    }
    console.say("It is done where `revoke` says `active` and `deployment show` says `revoked`.");
}

/// Asks the peers, running modules and the clock whether `step` may be taken.
///
/// Where it `waits`, it asks until it may: running modules no longer than the time-out.
async fn may_take(
    step: Step,
    rotation: &Rotation,
    asking: &Asking,
    (arguments, waits): (&StepArguments, bool),
    console: &Console,
) -> Result<(), Refused> {
    let kind = arguments.files.kind(rotation);
    let time = if waits {
        arguments.asked.timeout
    } else {
        Duration::ZERO
    };
    let mut patience = Patience::new(time, PAUSES.0, PAUSES.1);
    match step {
        Step::Prepare | Step::Abort => return Ok(()),
        Step::Activate => return accepted(rotation, asking, (arguments, waits), console).await,
        // With `--one-side` another operator revokes the old key.
        Step::Finish if !arguments.files.one_side => rotation.reaches_all(&asking.except)?,
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
    if !asking.offline {
        if waits {
            tokio::time::sleep(rotation.follows_in(SystemClock.now())).await;
        }
        let still = (
            "signs with its old key",
            "wait for its reload, or see its log for `configReloadFailed`; it does not follow the \
             file if a variable overrides `generator.key`: start it without that variable",
        );
        wait::own_follows(rotation, &kind, &mut patience, still).await?;
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

/// Returns the command that revokes `key` in `file` and waits for the running module.
fn watched(file: &Path, key: Fingerprint) -> CommandLine {
    let revoke = CommandLine::new("countersign revoke").option("home", file);
    let command = revoke.option("fingerprint", key.to_string());
    command.flag("watch").flag("yes")
}

/// Waits until the running peers follow their files, no longer than the time-out. `rotation` is as
/// it was before the last step.
async fn in_force(
    rotation: &Rotation,
    asking: &Asking,
    arguments: &StepArguments,
) -> Result<(), Refused> {
    let kind = arguments.files.kind(rotation);
    let mut patience = Patience::new(arguments.asked.timeout, PAUSES.0, PAUSES.0);
    while let Some(holdout) = live::holdout(rotation, &kind, asking).await {
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
