//! Pairing, and taking another key, where only one of the two files is here.

use std::path::Path;

use serde::Serialize;

use super::arguments::{Accept, Arguments};
use super::refused::not_paired;
use crate::admin::handover::{HandOver, MAX_BYTES, Purpose};
use crate::admin::pairing::{Member, Options, Plan, plan};
use crate::cli::change::{File, changes, ended, new_files, not_written};
use crate::cli::confirm::{ask, ask_to_write};
use crate::cli::input;
use crate::cli::output::{Answer, Console, Exit, Failure, Format};
use crate::clock::{Clock as _, SystemClock};
use crate::diagnostic::Severity;

/// Writes this side's part, and prints what the other machine needs.
pub(super) fn hand_over(arguments: &Arguments, console: &Console) -> Answer {
    let [only] = arguments.modules.as_slice() else {
        let message = "with `--one-side` one module is named, whose file is here";
        return Err(Failure::new(Exit::Usage, message));
    };
    let member = arguments.member(only)?;
    let options = Options {
        key_name: None,
        ..arguments.options()
    };
    let plan = plan(&[member], None, &options).map_err(|error| not_paired(&error, &[], console))?;
    if !plan.change().is_empty() {
        present(&plan, console);
        if plan.touches_existing() && !arguments.how.yes && !arguments.how.dry_run {
            ask_to_write(console)?;
        }
    }
    finish(&plan, arguments.how.dry_run, console)
}

/// Takes what the other machine handed over.
pub(super) fn accept(arguments: &Accept, console: &Console) -> Answer {
    let theirs = read(&arguments.block)?;
    compare(&theirs, arguments, console)?;
    let options = Options {
        environment: arguments.environment.clone(),
        role: arguments.role.clone(),
        key_name: arguments.key_name.as_ref().map(ToString::to_string),
        tls: false,
        now: SystemClock.now(),
    };
    let member = Member {
        module: arguments.module.module.clone(),
        path: arguments.module.settings_file()?,
        name: arguments.name.clone(),
        key: None,
    };
    let plan = plan(&[member], Some(&theirs), &options);
    let plan = plan.map_err(|error| not_paired(&error, &[], console))?;
    if plan.change().is_empty() {
        console.present("nothing to do");
    } else {
        present(&plan, console);
    }
    finish(&plan, arguments.dry_run, console)
}

fn present(plan: &Plan, console: &Console) {
    let changes = changes(plan.change().files());
    let made = plan.sides().iter().map(|side| new_files(side.tls_files()));
    let made = made.collect::<String>();
    console.present(format!("{}\n{made}", changes.trim()).trim_end());
}

fn read(path: &Path) -> Result<HandOver, Failure> {
    let bytes = input::bytes(path, MAX_BYTES)?;
    HandOver::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| {
        let what = format!("{} is no block to accept: {error}", input::name(path));
        Failure::new(Exit::No, what).with_help("have the other machine print it again")
    })
}

/// Compares the words: as given, else by a person.
fn compare(theirs: &HandOver, arguments: &Accept, console: &Console) -> Result<(), Failure> {
    let what = match &theirs.purpose {
        Purpose::Pair(of) => format!("the {} `{}`", of.module, theirs.deployment),
        Purpose::Rotate { .. } => format!("another key of `{}`", theirs.deployment),
    };
    let words = theirs.words();
    match &arguments.words {
        Some(heard) if theirs.has_words(heard) => Ok(()),
        Some(_) => Err(Failure::new(
            Exit::No,
            format!("refused: the words of this block are others: {words}"),
        )
        .with_help("it is not the block that the other side made; have it sent again")),
        None => {
            console.present(&format!(
                "block   {what}, {}\nwords   {words}",
                theirs.key_id
            ));
            if arguments.yes || arguments.dry_run {
                return Ok(());
            }
            let unasked = Failure::new(Exit::Usage, "nobody is here to compare the words")
                .with_help("`--words \"…\"` compares them, `--yes` takes the block unseen");
            let question = "Does the other side read out the same words? [y/N]";
            ask(question, unasked, console)
        }
    }
}

/// Writes the file, and answers with this side's block.
fn finish(plan: &Plan, is_dry: bool, console: &Console) -> Answer {
    if !is_dry {
        let done = plan.change().carry_out();
        done.map_err(|error| not_written(&error))?;
    }
    let findings = plan.change().findings();
    console.findings(findings.iter().filter(|f| f.severity() == Severity::Error));
    let side = plan.sides().first();
    let block = side.map(|side| side.hand_over.block());
    let words = side.map(|side| side.hand_over.words());
    match console.format() {
        Format::Text => {
            if let Some(words) = &words {
                console.present(&format!("words   {words}"));
            }
            console.answer(block.unwrap_or_default())?;
        }
        Format::Json => console.json(&Report {
            written: !is_dry && !plan.change().is_empty(),
            block,
            words,
            files: File::all(plan.change().files()),
        })?,
    }
    ended("written", "the", findings)
}

#[derive(Serialize)]
struct Report {
    written: bool,
    block: Option<String>,
    words: Option<String>,
    files: Vec<File>,
}
