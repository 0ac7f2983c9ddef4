//! Pairing, and accepting a new key, where only one of the two files is here.

use std::path::Path;

use serde_json::json;

use super::arguments::{Accept, Arguments};
use crate::admin::handover::{HandOver, MAX_BYTES, Purpose};
use crate::admin::pairing::{self, Options, Plan};
use crate::cli::change::{How, ask, changes, ended, files_in_json};
use crate::cli::input;
use crate::cli::output::{Answer, Console, Kind, Refused};
use crate::diagnostic::Severity;

/// Writes this side's part, and prints what the other machine needs.
pub(super) fn hand_over(arguments: &Arguments, console: &Console) -> Answer {
    let [only] = arguments.modules.as_slice() else {
        let message = "with `--one-side`, name one module: the one whose file is here";
        return Err(Refused::new(Kind::Usage, message));
    };
    let options = Options {
        key_name: None,
        ..arguments.common.options(arguments.tls)
    };
    let plan = pairing::plan(&[arguments.member(only)?], None, &options)?;
    let how = &arguments.common.how;
    present(&plan, console);
    how.confirm(&plan.change, "", console)?;
    finish(&plan, how, console)
}

/// Accepts what the other machine handed over.
pub(super) fn accept(arguments: &Accept, console: &Console) -> Answer {
    let theirs = read(&arguments.block)?;
    compare(&theirs, arguments, console)?;
    let member = arguments.module.member(arguments.name.clone())?;
    let plan = pairing::plan(&[member], Some(&theirs), &arguments.common.options(false))?;
    present(&plan, console);
    finish(&plan, &arguments.common.how, console)
}

fn present(plan: &Plan, console: &Console) {
    console.present(match changes(plan.change.all()).trim() {
        "" => "nothing to do",
        text => text,
    });
}

fn read(path: &Path) -> Result<HandOver, Refused> {
    let bytes = input::bytes(path, MAX_BYTES)?;
    HandOver::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| {
        let what = format!("{} is not a block to accept: {error}", input::name(path));
        Refused::new(Kind::Conflict, what).with_help("have the other machine print it again")
    })
}

/// Compares the words: as given, else by a person.
fn compare(theirs: &HandOver, arguments: &Accept, console: &Console) -> Result<(), Refused> {
    let what = match &theirs.purpose {
        Purpose::Pair(of) => format!("the {} `{}`", of.module, theirs.deployment),
        Purpose::Rotate { .. } => format!("another key of `{}`", theirs.deployment),
    };
    let words = theirs.words();
    match &arguments.words {
        Some(heard) if theirs.has_words(heard) => Ok(()),
        Some(_) => {
            let message = format!("refused: the words of this block are different: {words}");
            Err(Refused::new(Kind::Conflict, message)
                .with_help("it is not the block that the other side made; have it sent again"))
        }
        None => {
            let key = &theirs.key_id;
            console.present(&format!("block   {what}, {key}\nwords   {words}"));
            let how = &arguments.common.how;
            if how.yes || how.dry_run {
                return Ok(());
            }
            let unasked = Refused::new(Kind::Usage, "there is no terminal to compare the words on")
                .with_help("`--words \"…\"` compares them, `--yes` accepts the block without comparing them");
            let question = "Does the other side read out the same words? [y/N]";
            ask(question, unasked, console)
        }
    }
}

/// Writes the file, and answers with this side's block.
fn finish(plan: &Plan, how: &How, console: &Console) -> Answer {
    let change = &plan.change;
    let written = how.write(change)?;
    let findings = &change.findings;
    console.findings(findings.iter().filter(|f| f.severity == Severity::Error));
    let side = plan.sides.first();
    let block = side.map(|side| side.hand_over.block());
    let words = side.map(|side| side.hand_over.words());
    if let Some(words) = &words {
        console.present(&format!("words   {words}"));
    }
    let report = json!({
        "written": written,
        "block": block,
        "words": words,
        "files": files_in_json(&change.files),
    });
    console.reply(block.unwrap_or_default(), &report)?;
    ended("written", "the", findings)
}
