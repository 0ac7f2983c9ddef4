//! `countersign rotate`: another key for a module, while it and its peers run.

mod arguments;
mod finished;
mod shown;
mod whole;

use super::change::not_written;
use super::output::{Answer, Console, Exit, Failure, Format};
use super::runtime::runtime;
use crate::admin::Refused;
use crate::admin::rotation::live::{self, Answer as Said};
use crate::admin::rotation::{Rotation, Step};
use crate::clock::{Clock as _, SystemClock};
pub(super) use arguments::Command;
use arguments::{StepArguments, still_old, too_early};
use shown::{Report, left};

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    match command {
        Command::Prepare(arguments) => step(Step::Prepare, arguments, console),
        Command::Activate(arguments) => step(Step::Activate, arguments, console),
        Command::Finish(arguments) => step(Step::Finish, arguments, console),
        Command::Abort(arguments) => step(Step::Abort, arguments, console),
        Command::Run(arguments) => whole::run(arguments, console),
        Command::Status(files) => {
            let rotation = files.read(console)?;
            console.findings(rotation.damage().into_iter().flatten());
            let report = Report::status(&rotation, files);
            console.reply(shown::status(&rotation, files), &report)?;
            Ok(Exit::Done)
        }
    }
}

/// Takes one step.
fn step(step: Step, arguments: &StepArguments, console: &Console) -> Answer {
    let files = &arguments.files;
    let rotation = files.read(console)?;
    arguments.names_peers(&rotation)?;
    let planned = rotation.plan(step, SystemClock.now());
    let plan = planned.map_err(|error| files.not_taken(&error, console))?;
    if !plan.change.is_empty() {
        may_take(step, &rotation, arguments, console)?
            .map_err(|error| files.not_taken(&error, console))?;
        arguments.confirm(&plan, console)?;
    }
    if !arguments.how.dry_run {
        let done = plan.change.carry_out();
        done.map_err(|error| not_written(&error))?;
    }
    let after = files.read(console)?;
    let mut ended = Ok(());
    if step == Step::Finish {
        if !arguments.how.dry_run {
            ended = finished::in_force(&rotation, arguments);
        }
        finished::still_trusting(&rotation, ("old", rotation.previous()), files, console);
    }
    if step == Step::Abort {
        let next = rotation.next().map(|(key, _)| key.fingerprint());
        finished::still_trusting(&rotation, ("next", next), files, console);
    }
    let text = shown::step(&plan, &after, arguments);
    if let (Step::Prepare, true, Some(block)) = (step, files.one_side, after.hand_over())
        && console.format() == Format::Text
    {
        console.present(&text);
        console.present(&format!("words   {}", block.words()));
        console.answer(block.block())?;
        return Ok(Exit::Done);
    }
    console.reply(text, &Report::step(&plan, &after, arguments))?;
    ended.map(|()| Exit::Done)
}

/// Asks the peers, running modules and the time whether the step may be taken.
fn may_take(
    step: Step,
    rotation: &Rotation,
    arguments: &StepArguments,
    console: &Console,
) -> Result<Result<(), Refused>, Failure> {
    let kind = arguments.files.kind(rotation);
    let runtime = runtime()?;
    Ok(match step {
        Step::Prepare | Step::Abort => Ok(()),
        Step::Activate => {
            let evidence = runtime.block_on(live::evidence(rotation, &kind, &arguments.asking()));
            let mut first = Ok(());
            for evidence in &evidence {
                match evidence.verdict() {
                    Ok(how) => console.say(&format!("{}: {how}", evidence.deployment)),
                    Err(error) => first = first.and(Err(error)),
                }
            }
            first
        }
        Step::Finish => arguments.reaches_all(rotation).and_then(|()| {
            match left(rotation) {
                _ if arguments.now => return Ok(()),
                Some(left) => return Err(too_early(left)),
                None if arguments.offline => return Ok(()),
                None => {}
            }
            match runtime.block_on(live::own_in_force(rotation, &kind)) {
                Said::Refused(why) => Err(still_old(&why)),
                _ => Ok(()),
            }
        }),
    })
}
