//! `rotate tls`: another certificate in place of one that peers pin.

use serde_json::json;

use super::interface::StepArguments;
use super::wait::{self, PAUSES, carry_out};
use crate::admin::rotation::live::Asking;
use crate::admin::rotation::tls::{TlsPlan, TlsStep};
use crate::admin::rotation::{RELOAD, Rotation};
use crate::cli::change::{changes, files_in_json};
use crate::cli::output::{Answer, Console, Exit, Refused, add};
use crate::cli::runtime::{Patience, runtime};

pub(super) fn run(arguments: &StepArguments, console: &Console) -> Answer {
    let (files, how) = (&arguments.files, &arguments.how);
    let executor = runtime()?;
    let mut done = Vec::new();
    loop {
        let rotation = files.read()?;
        let plan = TlsPlan::of(&rotation)?;
        let shown = changes(&plan.change.files);
        if done.is_empty() {
            let heading = format!("certificate {} is replaced by {}\n", plan.old, plan.new);
            how.confirm(&plan.change, &(heading + &shown), console)?;
        }
        done.push(json!({
            "step": plan.step.as_str(),
            "files": files_in_json(&plan.change.files),
        }));
        if !how.dry_run {
            let follows = done.len() > 1;
            executor.block_on(take(&plan, &rotation, (arguments, follows), console))?;
        }
        let is_last = plan.step == TlsStep::Unpin || how.dry_run;
        let by_hand = files.one_side && plan.step == TlsStep::Pin;
        if !is_last && !by_hand {
            console.say(&format!("{:<8}{}", plan.step.as_str(), plan.new));
            continue;
        }
        let mut text = format!("old     {}\nnew     {}\n{shown}", plan.old, plan.new);
        text += how.ending(&plan.change);
        let mut report = json!({
            "old": plan.old.to_string(),
            "new": plan.new.to_string(),
            "written": !how.dry_run,
            "steps": done,
        });
        if let Some(name) = rotation.name().filter(|_| files.one_side) {
            let (pin, command) = (plan.pin(name), arguments.command("tls"));
            let next = match plan.step {
                TlsStep::Unpin => format!("at each peer, remove the pin {}", plan.old),
                _ => format!("at each peer, write: {pin}\n        then here: {command}"),
            };
            text.extend(["\nnext    ", &next, "\n"]);
            add(&mut report, "pin", pin);
        }
        console.reply(text, &report)?;
        return Ok(Exit::Done);
    }
}

/// Takes a step once the running modules are ready for it. It `follows` another one at once.
async fn take(
    plan: &TlsPlan,
    rotation: &Rotation,
    (arguments, follows): (&StepArguments, bool),
    console: &Console,
) -> Result<(), Refused> {
    let asking = Asking {
        sets: plan.sets.clone(),
        ..arguments.asking(rotation)?
    };
    // A module that does not follow its file yet would report the question as a refusal.
    if follows && !asking.offline {
        tokio::time::sleep(RELOAD).await;
    }
    match plan.step {
        TlsStep::Pin => {}
        TlsStep::Use => {
            wait::accepted(rotation, &asking, (arguments, true), console).await?;
        }
        TlsStep::Unpin if asking.offline => {}
        TlsStep::Unpin => {
            let kind = arguments.files.kind(rotation);
            let mut patience = Patience::new(arguments.asked.timeout, PAUSES.0, PAUSES.1);
            let still = (
                "uses its old certificate",
                "see its log for `configReloadFailed`, then run this again",
            );
            wait::own_follows(rotation, &kind, &mut patience, still).await?;
        }
    }
    carry_out(&plan.change, arguments.asked.timeout).await?;
    plan.clean()
}
