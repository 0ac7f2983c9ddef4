//! `countersign check`: every mistake before a start.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::change::How;
use super::input::{if_unnamed, unnamed};
use super::output::{Answer, Console, Exit, Format, Kind, Refused, add, counted, finding_in_json};
use crate::admin::Fix;
use crate::config::{self, Home, Repair, Report};
use crate::diagnostic::{Severity, visible};

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("writing").args(["dry_run", "yes"]).multiple(true).requires("fix")))]
#[command(after_help = include_str!("help/check.txt"))]
pub(super) struct Arguments {
    /// The modules: their homes or their properties files
    /// [default: `$COUNTERSIGN_HOME`, else this folder]
    #[arg(value_name = "DIR|FILE", required_unless_present_any = if_unnamed("home"))]
    files: Vec<PathBuf>,
    #[arg(long, alias = "file", hide = true)]
    home: Vec<PathBuf>,
    /// Show the notes, too: what is worth knowing and needs no action
    #[arg(long)]
    notes: bool,
    /// Also list the ignored settings: those of other programs
    #[arg(long)]
    list_ignored: bool,
    /// Repair what has one safe repair
    #[arg(long)]
    fix: bool,
    #[command(flatten)]
    how: How,
}

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    let files = once_each(arguments, console);
    let environment = config::environment();
    let failed = Refused::caused(Kind::Unreadable, "cannot check");
    let mut text = String::new();
    let mut fixed = None;
    let report = if arguments.fix {
        let fix = Fix::plan(&files, &environment).map_err(failed)?;
        text = repairs_in_words(&fix.repairs);
        let is_written = arguments.how.apply(&fix.change, &text, console)?;
        text += &outcome_in_words(fix.repairs.len(), is_written);
        fixed = Some((fix.repairs, is_written));
        fix.report
    } else {
        config::check(&files, &environment).map_err(failed)?
    };
    let mut answer = json!({
        "findings": report.findings.iter().map(finding_in_json).collect::<Value>(),
        "errors": report.findings.errors(),
        "warnings": report.findings.warnings(),
        "settings": report.settings,
        "ignored": report.ignored.len(),
    });
    if arguments.list_ignored {
        let names = report.ignored.iter().map(|one| one.name.as_str());
        add(&mut answer, "ignored_names", names.collect::<Value>());
    }
    if let Some((repairs, is_written)) = fixed {
        add(&mut answer, "repairs", json!(repairs));
        add(&mut answer, "written", is_written);
    }
    let shown = visible(&text) + &in_words(&report, arguments, console);
    match console.format {
        // What is coloured is escaped already.
        Format::Text => console.answer(shown)?,
        Format::Json => console.json(&answer)?,
    };
    Ok(Exit::yes(report.findings.errors() == 0))
}

/// Says what became of the repairs.
fn outcome_in_words(repairs: usize, written: bool) -> String {
    let count = counted(repairs, "repair");
    match (repairs, written) {
        (0, _) => "nothing to repair\n\n".to_owned(),
        (_, true) => format!("{count} written\n\n"),
        (_, false) => format!("{count}, not written\n\n"),
    }
}

fn repairs_in_words(repairs: &[Repair]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for repair in repairs {
        let Repair {
            file, line, code, ..
        } = repair;
        let _ = writeln!(text, "{file}:{line}: {code}: {}", repair.what);
        for (sign, side) in [('-', &repair.before), ('+', &repair.after)] {
            for line in side.lines() {
                let _ = writeln!(text, "{sign} {line}");
            }
        }
    }
    text
}

/// Leaves out files that are named again, by whatever path: a file is not its own peer.
fn once_each(arguments: &Arguments, console: &Console) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let named = arguments.files.iter().chain(&arguments.home);
    let mut once: Vec<_> = named.map(|module| Home::new(module).file).collect();
    if once.is_empty() {
        once.extend(unnamed().map(|module| Home::new(module).file));
    }
    once.retain(|file| {
        // One that is not there has its own error.
        let is_new = seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone()));
        if !is_new {
            let name = file.display();
            console.warn(&format!("`{name}` is given twice; it is checked once"));
        }
        is_new
    });
    once
}

fn in_words(report: &Report, arguments: &Arguments, console: &Console) -> String {
    let found = report.findings.iter();
    let shown = found.filter(|found| arguments.notes || found.severity > Severity::Note);
    let mut text = console.shown(shown);
    let notes = report.findings.count(Severity::Note);
    if notes > 0 && !arguments.notes {
        let _ = writeln!(text, "{} (--notes)", counted(notes, "note"));
    }
    let mut hint = "";
    if arguments.list_ignored {
        for ignored in &report.ignored {
            // Writing to a string cannot fail.
            let place = format!("{} ({})", ignored.name, ignored.origin);
            let _ = writeln!(text, "ignored {}", visible(&place));
        }
    } else if !report.ignored.is_empty() {
        hint = " (--list-ignored)";
    }
    let _ = writeln!(
        text,
        "{}, {} · {} read, {} with foreign names ignored{hint}",
        counted(report.findings.errors(), "error"),
        counted(report.findings.warnings(), "warning"),
        counted(report.settings, "setting"),
        report.ignored.len(),
    );
    text
}
