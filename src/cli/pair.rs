//! `countersign pair`: the guide's procedure for two modules, in one command.

mod arguments;
mod one_side;
mod refused;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::change::{changes_in, ended, new_files, not_written};
use super::output::{Answer, Console, counted};
use crate::admin::pairing::{self, Member, Plan, Side};
use crate::admin::{ChangeKind, EditedFile, SettingChange};
use crate::diagnostic::Severity;
pub(super) use arguments::Arguments;
use arguments::Command;
use refused::not_paired;

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    if let Some(Command::Accept(accept)) = &arguments.accept {
        return one_side::accept(accept, console);
    }
    if arguments.one_side {
        return one_side::hand_over(arguments, console);
    }
    let members = arguments.members()?;
    let plan = pairing::plan(&members, None, &arguments.options())
        .map_err(|error| not_paired(&error, &arguments.modules, console))?;
    if plan.touches_existing() {
        arguments.how.confirm(&text(&plan), console)?;
    }
    if !arguments.how.dry_run {
        let done = plan.change().carry_out();
        done.map_err(|error| not_written(&error))?;
    }
    for (side, file) in sides(&plan) {
        remark(side, file, console);
    }
    let report = Report {
        written: arguments.how.writes(plan.change().is_empty()),
        deployments: sides(&plan).map(Paired::of).collect(),
    };
    let ending = ending(&plan, &members, arguments);
    console.reply(text(&plan) + "\n" + &ending, &report)?;
    let findings = plan.change().findings();
    console.findings(findings.iter().filter(|f| f.severity() != Severity::Note));
    ended("paired", "a", findings)
}

/// Goes through the sides, each with its file.
fn sides(plan: &Plan) -> impl Iterator<Item = (&Side, &EditedFile)> {
    plan.sides().iter().zip(plan.change().files())
}

/// Warns of what the change means for this side's file and process.
fn remark(side: &Side, file: &EditedFile, console: &Console) {
    let path = file.path().display();
    if let Some((before, after)) = file.mode_change() {
        console.note(&format!(
            "`{path}` holds a private key: its mode goes from {before:04o} to {after:04o}"
        ));
    }
    let port = side.port;
    if file.is_there() && !file.changes().is_empty() && listens(port) {
        console.warn(&format!(
            "something listens on port {port}; if it is this module, it follows its file within 2 s, but for TLS, which needs a restart"
        ));
    }
}

fn listens(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

/// Writes what is done: the two names and keys, then the changes of each file.
fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let names = plan.sides().iter().map(|side| side.name().len());
    let width = names.max().unwrap_or_default();
    // Writing to a string cannot fail.
    for side in plan.sides() {
        let age = if side.is_key_new { "new" } else { "its" };
        let (name, fingerprint) = (side.name(), side.fingerprint());
        let _ = writeln!(text, "{name:<width$}  {age} key  {fingerprint}");
        if let Some(fingerprint) = side.tls_fingerprint() {
            let is_new = side.tls_files().next().is_some();
            let age = if is_new { "new" } else { "its" };
            let _ = writeln!(text, "{:<width$}  {age} TLS key {fingerprint}", "");
        }
    }
    for (side, file) in sides(plan).filter(|(_, file)| !file.changes().is_empty()) {
        let is_there = file.is_there();
        let state = if is_there {
            "changed"
        } else {
            "new, mode 0600"
        };
        text += &changes_in(file, state);
        text += &new_files(side.tls_files());
    }
    text
}

/// Writes what was checked, and what to run next.
fn ending(plan: &Plan, members: &[Member; 2], arguments: &Arguments) -> String {
    let how = &arguments.how;
    if plan.change().is_empty() || how.dry_run {
        return how.ending(plan.change().is_empty()).trim_start().to_owned();
    }
    let findings = plan.change().findings();
    let mut text = format!(
        "checked both files, each against the other: {}, {}\n",
        counted(findings.errors(), "error"),
        counted(findings.warnings(), "warning")
    );
    let [one, other] = members;
    if (one.module.as_str(), other.module.as_str()) == ("dpm", "dpe")
        && let (Some(dpm), Some(dpe)) = (home(&one.path), home(&other.path))
    {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "next    countersign dpm run --home {dpm}      then      countersign dpe run --home {dpe}"
        );
    }
    text
}

/// Returns the home whose file this is, if it has the usual place.
fn home(path: &Path) -> Option<String> {
    let home = path.to_str()?.strip_suffix("etc/application.properties")?;
    match home.strip_suffix('/') {
        Some(home) if !home.is_empty() => Some(home.to_owned()),
        Some(_) => None,
        None => home.is_empty().then(|| ".".to_owned()),
    }
}

/// The answer in JSON.
#[derive(Serialize)]
struct Report<'a> {
    written: bool,
    deployments: Vec<Paired<'a>>,
}

#[derive(Serialize)]
struct Paired<'a> {
    name: &'a str,
    fingerprint: String,
    new_key: bool,
    file: String,
    new_file: bool,
    changes: Vec<Change<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_fingerprint: Option<String>,
}

#[derive(Serialize)]
struct Change<'a> {
    key: &'a str,
    value: &'a str,
    replaces: bool,
}

impl<'a> Paired<'a> {
    fn of((side, file): (&'a Side, &'a EditedFile)) -> Self {
        Self {
            name: side.name(),
            fingerprint: side.fingerprint().to_string(),
            new_key: side.is_key_new,
            file: file.path().display().to_string(),
            new_file: !file.is_there(),
            changes: file.changes().iter().map(Change::of).collect(),
            tls_fingerprint: side.tls_fingerprint().map(|pin| pin.to_string()),
        }
    }
}

impl<'a> Change<'a> {
    fn of(change: &'a SettingChange) -> Self {
        Self {
            key: &change.key,
            value: &change.shown,
            replaces: change.kind != ChangeKind::Added,
        }
    }
}
