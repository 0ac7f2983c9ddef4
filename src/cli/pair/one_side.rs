//! Pairing, and taking another key, where only one of the two files is here.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Arguments, Of, ask, confirm, member, new_files, not_paired, settings_file};
use crate::admin::handover::{HandOver, HandOverError, MAX_BYTES, Purpose};
use crate::admin::pairing::{Member, OneSide, Options, plan_accept, plan_own};
use crate::cli::check::counted;
use crate::cli::output::{Console, Exit, Failure, Format};
use crate::cli::rotate::{File, changes};
use crate::cli::{Answer, input};
use crate::clock::{Clock as _, SystemClock};
use crate::diagnostic::Severity;
use crate::identity::{DeploymentName, Environment, Role};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Take what another machine handed over, of `pair --one-side` or `rotate prepare --one-side`
    #[command(after_help = "\
Example:
  $ countersign pair accept dpe=dpe.properties --block dpm.block --yes > dpe.block

Compare the words by voice, or have them compared: --words \"…\". --yes takes the block unseen.
It prints this side's own block in return, for `pair accept` over there.")]
    Accept(Accept),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Accept {
    /// The module whose file is here: type and properties file, which need not be there yet
    #[arg(value_name = "MODULE=FILE")]
    module: Of<PathBuf>,
    /// The block that the other machine printed; `-` is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    block: PathBuf,
    /// The words that the other side was told; others are refused
    #[arg(long, value_name = "WORDS")]
    words: Option<String>,
    /// What this module is called [default: what its file says, else <module>-<environment>]
    #[arg(long)]
    name: Option<DeploymentName>,
    /// The environment [default: that of the block]
    #[arg(long)]
    environment: Option<Environment>,
    /// The role each gives the other
    #[arg(long, default_value = "IMPERSONATION", value_parser = Role::new)]
    role: Role,
    /// What the key is called below `jwt-keys` [default: key]
    #[arg(long, value_name = "NAME")]
    key_name: Option<DeploymentName>,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Take the block without comparing words
    #[arg(long)]
    yes: bool,
}

/// Writes this side's part, and prints what the other machine needs.
pub(super) fn hand_over(arguments: &Arguments, console: &Console) -> Answer {
    let [only] = arguments.modules.as_slice() else {
        let message = "with `--one-side` one module is named, whose file is here";
        return Err(Failure::new(Exit::Usage, message));
    };
    let options = Options {
        environment: arguments.environment.clone(),
        role: arguments.role.clone(),
        key_name: None,
        tls: arguments.tls,
        now: SystemClock.now(),
    };
    let member = member(only, arguments)?;
    let plan = plan_own(&member, &options).map_err(|error| not_paired(&error, &[], console))?;
    if !plan.file().is_empty() {
        present(&plan, console);
        if plan.file().is_there() && !arguments.yes && !arguments.dry_run {
            ask(console)?;
        }
    }
    finish(&plan, arguments.dry_run, console)
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
        path: settings_file(&arguments.module)?,
        name: arguments.name.clone(),
        key: None,
    };
    let plan = plan_accept(&member, &options, &theirs);
    let plan = plan.map_err(|error| not_paired(&error, &[], console))?;
    if plan.file().is_empty() {
        console.present("nothing to do");
    } else {
        present(&plan, console);
    }
    finish(&plan, arguments.dry_run, console)
}

fn present(plan: &OneSide, console: &Console) {
    let changes = changes([plan.file()]);
    let made = new_files(&plan.tls_files());
    console.present(format!("{}\n{made}", changes.trim()).trim_end());
}

fn read(path: &Path) -> Result<HandOver, Failure> {
    let refused = |error: &HandOverError| {
        let what = format!("{} is no block to accept: {error}", input::name(path));
        Failure::new(Exit::No, what).with_help("have the other machine print it again")
    };
    let bytes = input::bytes(path, MAX_BYTES)?;
    let text = str::from_utf8(&bytes).map_err(|_error| refused(&HandOverError::NoBlock))?;
    HandOver::parse(text).map_err(|error| refused(&error))
}

/// Compares the words: as given, else by a person.
fn compare(theirs: &HandOver, arguments: &Accept, console: &Console) -> Result<(), Failure> {
    let what = match &theirs.purpose {
        Purpose::Pair { module, .. } => format!("the {module} `{}`", theirs.deployment),
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
            if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
                let message = "nobody is here to compare the words";
                return Err(Failure::new(Exit::Usage, message)
                    .with_help("`--words \"…\"` compares them, `--yes` takes the block unseen"));
            }
            let question = "Does the other side read out the same words? [y/N]";
            confirm(question, console)
        }
    }
}

/// Writes the file, and answers with this side's block.
fn finish(plan: &OneSide, is_dry: bool, console: &Console) -> Answer {
    if !is_dry {
        plan.carry_out()
            .map_err(|error| not_paired(&error, &[], console))?;
    }
    for finding in &plan.report.findings {
        if finding.severity() == Severity::Error {
            console.finding(finding);
        }
    }
    let block = plan.hand_over.as_ref().map(HandOver::block);
    let words = plan.hand_over.as_ref().map(HandOver::words);
    match console.format() {
        Format::Text => {
            if let Some(words) = &words {
                console.present(&format!("words   {words}"));
            }
            console.answer(block.unwrap_or_default())?;
        }
        Format::Json => console.json(&Report {
            written: !is_dry && !plan.file().is_empty(),
            block,
            words,
            files: File::all([plan.file()]),
        })?,
    }
    match plan.report.findings.errors() {
        0 => Ok(Exit::Done),
        errors => {
            let count = counted(errors, "error");
            let message = format!("written, but {count} would keep the module from starting");
            Err(Failure::new(Exit::No, message))
        }
    }
}

#[derive(Serialize)]
struct Report {
    written: bool,
    block: Option<String>,
    words: Option<String>,
    files: Vec<File>,
}
