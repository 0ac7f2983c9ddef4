//! `rotate tls`: another certificate in place of one that peers pin.

use serde_json::{Value, json};

use super::interface::StepArguments;
use super::wait::{self, PAUSES, carry_out};
use crate::admin::rotation::live::Asking;
use crate::admin::rotation::tls::{TlsPlan, TlsStep};
use crate::admin::rotation::{RELOAD, Rotation};
use crate::cli::change::{changes, files_in_json, followed};
use crate::cli::output::{Answer, Console, Refused, add};
use crate::cli::runtime::{Patience, runtime};

pub(super) fn run(arguments: &StepArguments, console: &Console) -> Answer {
    let (files, how) = (&arguments.files, &arguments.how);
    let executor = runtime()?;
    let (mut done, mut text) = (Vec::new(), String::new());
    loop {
        let rotation = files.read()?;
        let plan = TlsPlan::of(&rotation)?;
        let shown = changes(&plan.change.files);
        if done.is_empty() {
            let heading = format!(
                "the certificate {} is replaced: its files change once each peer pins the new one, \
                 then the peers remove the old pin\n",
                plan.old
            );
            how.confirm(&plan.change, &(heading + &shown), console)?;
        }
        text += &shown;
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
            console.say(match plan.step {
                TlsStep::Pin => "pinned    the named peers' files pin both certificates",
                TlsStep::Use | TlsStep::Unpin => "used      the files have the new certificate",
            });
            continue;
        }
        return conclude(&plan, &rotation, arguments, (text, &done), console);
    }
}

/// Answers with the steps that were `done`, and what comes next.
fn conclude(
    plan: &TlsPlan,
    rotation: &Rotation,
    arguments: &StepArguments,
    (mut text, done): (String, &[Value]),
    console: &Console,
) -> Answer {
    let (files, how) = (&arguments.files, &arguments.how);
    let mut report = json!({
        "old": plan.old.to_string(),
        "new": plan.new.to_string(),
        "written": !how.dry_run,
        "steps": done,
    });
    if how.dry_run {
        // The certificate is made again when it is written.
        text += "\nnothing was written (--dry-run)\n";
    } else if let Some(name) = rotation.name().filter(|_| files.one_side) {
        let (pin, command) = (plan.pin(name), arguments.command("tls"));
        let next = match plan.step {
            TlsStep::Unpin => format!("remove the line with the pin `{}`", plan.old),
            _ => format!("write {pin}\n        then here: {command}"),
        };
        text.extend(["\nnext    in the file of each peer: ", &next, "\n"]);
        add(&mut report, "pin", pin);
    }
    let left_out: Vec<_> = rotation.left_out().map(ToString::to_string).collect();
    if plan.step == TlsStep::Unpin && !files.one_side && !left_out.is_empty() {
        let (names, old) = (left_out.join(", "), plan.old);
        console.note(&format!(
            "{names} may still pin `{old}`: remove that pin there"
        ));
    }
    console.reply(text, &report)?;
    followed(rotation.without_reload().filter(|_| !how.dry_run))
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
                "see its log for `configReloadFailed`, or send it SIGHUP if its file says \
                 `countersign.reload=false`; then run this again",
            );
            wait::own_follows(rotation, &kind, &mut patience, still).await?;
        }
    }
    carry_out(&plan.change, arguments.asked.timeout).await?;
    plan.clean()
}
