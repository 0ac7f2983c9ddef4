//! `countersign check`: every mistake before a start.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::confirm::ask_to_write;
use super::output::{Answer, Console, Exit, Failure, counted};
use crate::admin::WriteError;
use crate::admin::fix::Fix;
use crate::config::{self, Repair, Report};
use crate::diagnostic::{Finding, Origin};
use crate::properties::ReadError;

#[expect(
    clippy::struct_excessive_bools,
    reason = "four switches of the command line"
)]
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign check dpm/etc/application.properties
  $ countersign check dpm/etc/application.properties dpe/etc/application.properties -o json
  $ countersign check --fix dpe/etc/application.properties --yes

One file is checked by itself; two or more are also held against each other. Exit code 1 where there
is an error. `countersign explain CODE` says more about a finding.

--fix repairs what is whole again afterwards and means the same: the quotes that are missing in a key, a
key that is broken over lines, blanks at the end of a value, a byte order mark. It shows each repair and
asks before it writes; the findings and the exit code are those of the repaired files.")]
pub(super) struct Arguments {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also list the settings with foreign names, which are ignored
    #[arg(long)]
    list_ignored: bool,
    /// Repair what can be repaired without a doubt
    #[arg(long)]
    fix: bool,
    /// With --fix: show the repairs, and write nothing
    #[arg(long, requires = "fix")]
    dry_run: bool,
    /// With --fix: change the files without asking
    #[arg(long, requires = "fix")]
    yes: bool,
}

#[derive(Serialize)]
struct Answered<'a> {
    findings: Vec<Shown<'a>>,
    errors: usize,
    warnings: usize,
    settings: usize,
    ignored: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored_names: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repairs: Option<&'a [Repair]>,
    /// Whether the repairs were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<bool>,
}

#[derive(Serialize)]
struct Shown<'a> {
    code: &'static str,
    severity: &'static str,
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    key: Option<&'a str>,
    message: &'a str,
    help: Option<String>,
}

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    let files = once_each(&arguments.files, console);
    let failed = |error: &ReadError| Failure::caused(Exit::Unreadable, "cannot check", error);
    let environment = config::environment();
    if arguments.fix {
        let planned = Fix::plan(&files, &environment).map_err(|error| failed(&error))?;
        return fix(&planned, arguments, console);
    }
    let report = config::check(&files, &environment).map_err(|error| failed(&error))?;
    let text = in_words(&report, arguments, console);
    console.reply(text, &answered(&report, arguments))?;
    Ok(Exit::yes(report.findings.errors() == 0))
}

/// Shows the repairs, writes them, and answers as for the repaired files.
fn fix(fix: &Fix, arguments: &Arguments, console: &Console) -> Answer {
    let report = fix.report();
    let any = !fix.repairs().is_empty();
    if any && !arguments.dry_run {
        if !arguments.yes {
            console.present(repairs_in_words(fix.repairs()).trim_end());
            ask_to_write(console)?;
        }
        fix.change().carry_out().map_err(|error| {
            let exit = match error {
                WriteError::Changed(_) | WriteError::Busy(_) => Exit::WouldOverwrite,
                _ => Exit::Unreadable,
            };
            Failure::caused(exit, "nothing was repaired", &error)
        })?;
    }
    let answer = Answered {
        repairs: Some(fix.repairs()),
        written: Some(any && !arguments.dry_run),
        ..answered(report, arguments)
    };
    let done = match (fix.repairs().len(), arguments.dry_run) {
        (0, _) => "nothing to repair\n\n".to_owned(),
        (count, true) => format!("{}, not written\n\n", counted(count, "repair")),
        (count, false) => format!("{} written\n\n", counted(count, "repair")),
    };
    let text = repairs_in_words(fix.repairs()) + &done;
    console.reply(text + &in_words(report, arguments, console), &answer)?;
    Ok(Exit::yes(report.findings.errors() == 0))
}

fn repairs_in_words(repairs: &[Repair]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for repair in repairs {
        let Repair {
            code,
            file,
            line,
            what,
            ..
        } = repair;
        let _ = writeln!(text, "{file}:{line}: {code}: {what}");
        for (sign, side) in [('-', &repair.before), ('+', &repair.after)] {
            for line in side.lines() {
                let _ = writeln!(text, "{sign} {line}");
            }
        }
    }
    text
}

/// Leaves out files that are named again, by whatever path: a file is not its own peer.
fn once_each(files: &[PathBuf], console: &Console) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    let mut once = Vec::new();
    for file in files {
        // One that is not there has its own error.
        let real = file.canonicalize().unwrap_or_else(|_| file.clone());
        if seen.contains(&real) {
            let name = file.display();
            console.warn(&format!("`{name}` is named twice; it is checked once"));
        } else {
            seen.push(real);
            once.push(file.clone());
        }
    }
    once
}

fn in_words(report: &Report, arguments: &Arguments, console: &Console) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for finding in &report.findings {
        text += &console.shown(finding);
        text += "\n\n";
    }
    if arguments.list_ignored {
        for ignored in &report.ignored {
            let _ = writeln!(text, "ignored {} ({})", ignored.name, ignored.origin);
        }
    }
    let (errors, warnings) = (report.findings.errors(), report.findings.warnings());
    let ignored = report.ignored.len();
    let hint = if ignored > 0 && !arguments.list_ignored {
        " (--list-ignored)"
    } else {
        ""
    };
    let _ = writeln!(
        text,
        "{}, {} · {} read, {ignored} with foreign names ignored{hint}",
        counted(errors, "error"),
        counted(warnings, "warning"),
        counted(report.settings, "setting"),
    );
    text
}

fn answered<'a>(report: &'a Report, arguments: &Arguments) -> Answered<'a> {
    let ignored = &report.ignored;
    Answered {
        findings: report.findings.iter().map(shown).collect(),
        errors: report.findings.errors(),
        warnings: report.findings.warnings(),
        settings: report.settings,
        ignored: ignored.len(),
        ignored_names: arguments
            .list_ignored
            .then(|| ignored.iter().map(|one| one.name.as_str()).collect()),
        repairs: None,
        written: None,
    }
}

fn shown(finding: &Finding) -> Shown<'_> {
    let place = match finding.origin() {
        Origin::File { path, line, column } => Some((path, *line, *column)),
        _ => None,
    };
    Shown {
        code: finding.code().as_str(),
        severity: finding.severity().as_str(),
        file: place.map(|(path, ..)| path.display().to_string()),
        line: place.map(|(_, line, _)| line),
        column: place.map(|(.., column)| column),
        key: finding.key(),
        message: finding.message(),
        help: finding.help().map(str::to_owned),
    }
}
