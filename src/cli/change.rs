//! What a command changes in files: shown, asked about, reported.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::confirm::ask_to_write;
use super::output::{Answer, Console, Exit, Failure, counted};
use crate::admin::{ChangeKind, EditedFile, WriteError};
use crate::diagnostic::Findings;

/// How to load a file again in a module that does not watch it.
pub(super) const BY_SIGNAL: &str = "have a module with `countersign.reload=false` look at once: `kill -HUP PID`; or start it \
     anew";

/// How a change is made.
#[derive(Args, Debug)]
pub(super) struct How {
    /// Show what would change, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Change files without asking
    #[arg(long)]
    pub(super) yes: bool,
}

impl How {
    /// Returns `true` if a plan is written, unless the answer is no.
    pub(super) fn writes(&self, is_empty: bool) -> bool {
        !self.dry_run && !is_empty
    }

    /// Shows what would change and asks, unless the arguments answer already.
    pub(super) fn confirm(&self, shown: &str, console: &Console) -> Result<(), Failure> {
        if self.dry_run || self.yes {
            return Ok(());
        }
        console.present(shown.trim_start_matches('\n').trim_end());
        ask_to_write(console)
    }

    /// Returns what stands after the changes.
    pub(super) fn ending(&self, is_empty: bool) -> &'static str {
        match (is_empty, self.dry_run) {
            (true, _) => "nothing to do\n",
            (false, true) => "\nnothing was written (--dry-run)\n",
            (false, false) => "",
        }
    }
}

/// Writes what would change, or changed, in each file.
pub(super) fn changes<'a>(files: impl IntoIterator<Item = &'a EditedFile>) -> String {
    let mut text = String::new();
    for file in files.into_iter().filter(|file| !file.is_empty()) {
        let state = match (file.is_there(), file.mode_change()) {
            (false, _) => "new, mode 0600".to_owned(),
            (true, None) => "changed".to_owned(),
            (true, Some((before, after))) => format!("changed, mode {before:04o} → {after:04o}"),
        };
        text += &changes_in(file, &state);
    }
    text
}

/// Writes what changes in one file, whose `state` stands beside its name.
pub(super) fn changes_in(file: &EditedFile, state: &str) -> String {
    let mut text = format!("\n{}  ({state})\n", file.path().display());
    for change in file.changes() {
        let (key, shown) = (&change.key, &change.shown);
        // Writing to a string cannot fail.
        let _ = match change.kind {
            ChangeKind::Added => writeln!(text, "  + {key}={shown}"),
            ChangeKind::Replaced => writeln!(text, "  ~ {key}={shown}"),
            ChangeKind::Removed => writeln!(text, "  - {key}"),
        };
    }
    text
}

/// Names the TLS files that are made: a certificate and its key.
pub(super) fn new_files<'a>(files: impl Iterator<Item = &'a Path>) -> String {
    let files = files.zip(["0644", "0600"]);
    let lines = files.map(|(file, mode)| format!("{}  (new, mode {mode})\n", file.display()));
    lines.collect::<Vec<_>>().concat()
}

/// Warns of variables of this environment that stand above what changes in `files`.
pub(super) fn warn_of_variables<'a>(
    files: impl IntoIterator<Item = &'a EditedFile>,
    console: &Console,
) {
    for file in files {
        for (variable, setting) in file.overridden_by() {
            let path = file.path().display();
            console.warn(&format!(
                "the variable `{variable}` of this environment stands above `{setting}` in \
                 `{path}`: a module that is started with it does not follow the file there"
            ));
        }
    }
}

/// Ends a command that has `done` something, after which its files must have no errors.
pub(super) fn ended(done: &str, whose: &str, findings: &Findings) -> Answer {
    match findings.errors() {
        0 => Ok(Exit::Done),
        errors => {
            let count = counted(errors, "error");
            let message = format!("{done}, but {count} would keep {whose} module from starting");
            Err(Failure::new(Exit::No, message))
        }
    }
}

/// Says why a file was not written.
pub(super) fn not_written(error: &WriteError) -> Failure {
    match error {
        WriteError::Exists(_) => Failure::of(Exit::WouldOverwrite, error)
            .with_help("`--force` replaces it; a private key that is replaced is lost"),
        WriteError::Busy(_) | WriteError::Changed(_) => {
            Failure::of(Exit::WouldOverwrite, error).with_help("run the command again")
        }
        _ => Failure::of(Exit::Unreadable, error),
    }
}

/// A changed file in JSON.
#[derive(Serialize)]
pub(super) struct File {
    file: String,
    changes: Vec<Change>,
}

#[derive(Serialize)]
struct Change {
    key: String,
    value: String,
    #[serde(rename = "change")]
    kind: &'static str,
}

impl File {
    /// Returns those of `files` that change.
    pub(super) fn all<'a>(files: impl IntoIterator<Item = &'a EditedFile>) -> Vec<Self> {
        let changed = files.into_iter().filter(|file| !file.is_empty());
        changed.map(Self::of).collect()
    }

    fn of(file: &EditedFile) -> Self {
        let changes = file.changes().iter().map(|change| Change {
            key: change.key.clone(),
            value: change.shown.clone(),
            kind: match change.kind {
                ChangeKind::Added => "added",
                ChangeKind::Replaced => "replaced",
                ChangeKind::Removed => "removed",
            },
        });
        Self {
            file: file.path().display().to_string(),
            changes: changes.collect(),
        }
    }
}
