//! What a command changes in files: shown, asked about, reported.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::iter;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{Answer, Console, Exit, counted};
use crate::admin::{Change, ChangeKind, EditedFile, Kind, Refused};
use crate::diagnostic::{CommandLine, Findings};

/// How to load a file again in a module that does not watch it.
pub(super) const BY_SIGNAL: &str =
    "a module that does not reload by itself reads its file at `kill -HUP PID` or a restart";

/// How a change is made.
#[derive(Args, Debug)]
pub(super) struct How {
    /// Show what would change, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(super) yes: bool,
}

impl How {
    /// Returns `true` if a plan is written, unless the answer is no.
    pub(super) fn writes(&self, change: &Change) -> bool {
        !self.dry_run && !change.is_empty()
    }

    /// Writes a change. Returns `true` if something was written.
    pub(super) fn write(&self, change: &Change) -> Result<bool, Refused> {
        if !self.dry_run {
            change.carry_out()?;
        }
        Ok(self.writes(change))
    }

    /// Shows a change, asks unless the arguments answer already, and writes it.
    ///
    /// Returns `true` if something was written.
    pub(super) fn apply(
        &self,
        change: &Change,
        shown: &str,
        console: &Console,
    ) -> Result<bool, Refused> {
        self.confirm(change, shown, console)?;
        self.write(change)
    }

    /// Shows a change and asks, if it modifies a file and the arguments do not answer already.
    pub(super) fn confirm(
        &self,
        change: &Change,
        shown: &str,
        console: &Console,
    ) -> Result<(), Refused> {
        warn_of(change, console);
        let mut files = change.files.iter();
        let modifies = files.any(|file| file.is_there() && !file.is_empty());
        if !modifies || self.dry_run || self.yes {
            return Ok(());
        }
        if !shown.is_empty() {
            console.present(shown.trim_start_matches('\n').trim_end());
        }
        let unasked = "would modify existing files, and there is no terminal to ask on";
        let help = "use `--yes` to apply or `--dry-run` to preview";
        let failure = Refused::new(Kind::Usage, unasked).with_help(help);
        ask("Write these changes? [y/N]", failure, console)
    }

    /// Returns what is in place after the changes.
    pub(super) fn ending(&self, change: &Change) -> &'static str {
        match (change.is_empty(), self.dry_run) {
            (true, _) => "nothing to do\n",
            (false, true) => "\nnothing was written (--dry-run)\n",
            (false, false) => "",
        }
    }
}

/// A command of a procedure over several hosts.
#[derive(Serialize)]
pub(super) struct Next {
    host: String,
    command: String,
}

impl Next {
    pub(super) fn new(host: impl Into<String>, command: &CommandLine) -> Self {
        Self {
            host: host.into(),
            command: command.to_string(),
        }
    }

    /// Writes the commands that are next, each on a line of its own.
    pub(super) fn lines(all: &[Self]) -> String {
        let heads = iter::once("next").chain(iter::repeat(""));
        let lines = all
            .iter()
            .zip(heads)
            .map(|(Self { host, command }, head)| format!("{head:<8}{host}: {command}\n"));
        lines.collect()
    }
}

/// Says what a person should know before a change is made.
pub(super) fn warn_of(change: &Change, console: &Console) {
    let mut tightened: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for file in &change.files {
        if let Some(modes) = file.mode_change() {
            let who = fs::metadata(&file.path).map(|about| {
                let owner = name_of(about.uid(), "/etc/passwd");
                let group = name_of(about.gid(), "/etc/group");
                format!(" (owner {owner}, group {group})")
            });
            let alike = tightened.entry((modes, who.unwrap_or_default()));
            alike.or_default().push(file.path.display());
        }
    }
    for (((before, after), who), paths) in tightened {
        let (first, more) = match paths.as_slice() {
            [] => continue,
            [only] => (only, String::new()),
            [first, others @ ..] => {
                let count = counted(others.len(), "other file");
                (first, format!(", and those of {count}"))
            }
        };
        console.warn(&format!(
            "permissions tightened from {before:04o} to {after:04o} for a private key: only the \
             owner and the group of `{first}` can read it then{who}{more}; if the module runs as \
             another user, give it to that one with `chown`"
        ));
    }
    for file in &change.files {
        let path = file.path.display();
        for (variable, setting) in file.overridden() {
            console.warn(&format!(
                "the variable `{variable}` of this shell overrides `{setting}` in `{path}`: a module \
                 that is started from here does not use what the file says"
            ));
        }
        if file.is_forgetful() {
            console.note(&format!(
                "`{path}` is in no module's home: only the file itself says which keys are revoked"
            ));
        }
    }
}

/// Returns the name that the system's list has for `id`, else `id` itself.
fn name_of(id: u32, list: &str) -> String {
    let text = fs::read_to_string(list).unwrap_or_default();
    let mut entries = text.lines().map(|line| line.split(':'));
    let found = entries.find_map(|mut entry| {
        let name = entry.next()?;
        (entry.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| id.to_string())
}

/// Writes what would change, or changed, in each file.
pub(super) fn changes<'a>(files: impl IntoIterator<Item = &'a EditedFile>) -> String {
    let mut text = String::new();
    for file in files {
        if file.is_empty() {
            for record in &file.records {
                let _ = write!(text, "\nremembered with {}:  {record}", file.path.display());
            }
            continue;
        }
        let state = match (file.is_there(), file.mode_change()) {
            (false, _) => format!("new, mode {:04o}", file.new_mode()),
            (true, None) => "changed".to_owned(),
            (true, Some((before, after))) => format!("changed, mode {before:04o} → {after:04o}"),
        };
        let way = if file.is_in_place() {
            "; written in place, as it is a mount point: a crash now can leave it cut off"
        } else {
            ""
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{}  ({state}{way})", file.path.display());
        for change in &file.changes {
            let (key, value) = (&change.key, &change.shown);
            let _ = match change.kind {
                ChangeKind::Added => writeln!(text, "  + {key}={value}"),
                ChangeKind::Replaced => writeln!(text, "  ~ {key}={value}"),
                ChangeKind::Removed => writeln!(text, "  - {key}"),
            };
        }
    }
    text
}

/// Returns those of `files` that change, in JSON.
pub(super) fn files_in_json<'a>(files: impl IntoIterator<Item = &'a EditedFile>) -> Value {
    let changed = files.into_iter().filter(|file| !file.is_empty());
    let files = changed.map(|file| {
        let path = file.path.display().to_string();
        json!({ "file": path, "changes": file.changes })
    });
    files.collect()
}

/// Says why running modules do not follow what was written.
pub(super) fn inactive(why: impl Display, help: &str) -> Refused {
    Refused::new(Kind::Conflict, format!("written, but NOT active: {why}")).with_help(help)
}

/// Ends a command after a change that the module of the file `unread`, if there is one, does not
/// follow by itself.
pub(super) fn followed(unread: Option<&Path>) -> Answer {
    let Some(path) = unread else {
        return Ok(Exit::Done);
    };
    let why = format!("`{}` says `countersign.reload=false`", path.display());
    Err(inactive(why, BY_SIGNAL))
}

/// Ends a command that has `done` something, after which its files must have no errors.
pub(super) fn ended(done: &str, whose: &str, findings: &Findings) -> Answer {
    match findings.errors() {
        0 => Ok(Exit::Done),
        errors => {
            let count = counted(errors, "error");
            let message = format!("{done}, but {count} would prevent the start of {whose} module");
            Err(Refused::new(Kind::Conflict, message))
        }
    }
}

/// Asks `question`, which `y` or `yes` confirms. Fails with `unasked` without a terminal.
pub(super) fn ask(question: &str, unasked: Refused, console: &Console) -> Result<(), Refused> {
    match answer(question, console).as_deref() {
        None => Err(unasked),
        Some("y" | "Y" | "yes") => Ok(()),
        Some(_) => Err(Refused::new(Kind::Conflict, "nothing was written")),
    }
}

/// Asks `question`; `None` without a terminal.
pub(super) fn answer(question: &str, console: &Console) -> Option<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    console.say(question);
    let mut answer = String::new();
    // What cannot be read is no answer.
    let _ = stdin.lock().read_line(&mut answer);
    Some(answer.trim().to_owned())
}
