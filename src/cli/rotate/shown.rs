//! What a step changed and how far the rotation is, in words and in JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::{FileArguments, StepArguments, left};
use crate::admin::handover::HandOver;
use crate::admin::rotation::{Phase, Plan, Rotation, Standing};
use crate::admin::{ChangeKind, EditedFile};
use crate::cli::output::Console;
use crate::clock::{Age, Clock as _, SystemClock};
use crate::jose::{Fingerprint, SigningKey};
use crate::trust::TrustedKey;

/// Writes what would change, or changed, in each file.
pub(in crate::cli) fn changes<'a>(files: impl IntoIterator<Item = &'a EditedFile>) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for file in files.into_iter().filter(|file| !file.is_empty()) {
        let state = match (file.is_there(), file.mode_change()) {
            (false, _) => "new, mode 0600".to_owned(),
            (true, None) => "changed".to_owned(),
            (true, Some((before, after))) => format!("changed, mode {before:04o} → {after:04o}"),
        };
        let _ = writeln!(text, "\n{}  ({state})", file.path().display());
        for change in file.changes() {
            let (key, shown) = (&change.key, &change.shown);
            let _ = match change.kind {
                ChangeKind::Added => writeln!(text, "  + {key}={shown}"),
                ChangeKind::Replaced => writeln!(text, "  ~ {key}={shown}"),
                ChangeKind::Removed => writeln!(text, "  - {key}"),
            };
        }
    }
    text
}

/// Warns of variables of this environment that stand above what changes in `files`.
pub(in crate::cli) fn warn_of_variables<'a>(
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

pub(super) fn step(plan: &Plan, after: &Rotation, arguments: &StepArguments) -> String {
    let mut text = heading(after);
    text += &changes(plan.files());
    text.push('\n');
    if plan.is_empty() {
        text += "nothing to do\n";
    } else if arguments.dry_run {
        text += "nothing was written (--dry-run)\n";
        return text;
    }
    text + &next(after, &arguments.files)
}

/// Writes the module's keys.
fn heading(rotation: &Rotation) -> String {
    let name = rotation.name().map(ToString::to_string);
    let name = name.unwrap_or_else(|| rotation.path().display().to_string());
    let mut text = format!("{name}  signs with  {}\n", aged(rotation.key()));
    let blank = " ".repeat(name.chars().count());
    // Writing to a string cannot fail.
    if let Some((next, _)) = rotation.next() {
        let _ = writeln!(text, "{blank}  next key    {}", aged(next));
    }
    if rotation.damage().is_some() {
        let _ = writeln!(
            text,
            "{blank}  next key    damaged; it can only be forgotten"
        );
    }
    if let Some(previous) = rotation.previous() {
        let _ = writeln!(text, "{blank}  before      {previous}");
    }
    text
}

/// Writes a key's fingerprint, and its age where it is known.
fn aged(key: &SigningKey) -> String {
    let age = age(key).map(|age| format!("  (age {age})"));
    format!("{}{}", key.fingerprint(), age.unwrap_or_default())
}

fn age(key: &SigningKey) -> Option<Age> {
    Age::between(key.made_at()?, SystemClock.now())
}

/// Writes the command that goes on from here; none where nothing is under way.
fn next(rotation: &Rotation, files: &FileArguments) -> String {
    if rotation.must_abort() {
        return format!("next    {}\n", files.command("abort"));
    }
    match (rotation.phase(), left(rotation)) {
        (Phase::Idle, _) => String::new(),
        (Phase::Activated, Some(left)) => format!(
            "next    {}      in {} s\n",
            files.command("finish"),
            left.as_secs()
        ),
        (phase, _) => format!("next    {}\n", files.command(phase.next_step().as_str())),
    }
}

pub(super) fn status(rotation: &Rotation, files: &FileArguments) -> String {
    let mut text = heading(rotation);
    let mut phase = rotation.phase().as_str().to_owned();
    // Writing to a string cannot fail.
    if let Some(ago) = activated_ago(rotation) {
        let _ = write!(phase, ", {ago} s ago");
    }
    let _ = writeln!(text, "phase   {phase}");
    for standing in rotation.standings() {
        let path = standing.path.display();
        let name = standing.deployment.map(ToString::to_string);
        let Some(name) = name else {
            let _ = writeln!(text, "\n{path}  trusts none of its keys");
            continue;
        };
        let _ = writeln!(text, "\n{path}  calls it {name}");
        for key in standing.keys {
            let fingerprint = key.key.fingerprint();
            let state = if key.revoked { "revoked" } else { "trusted" };
            let what = role(rotation, fingerprint);
            let _ = writeln!(text, "  {state}  {fingerprint}  {}  {what}", key.name);
        }
    }
    for (deployment, _) in rotation.peers().iter().filter(|(_, file)| file.is_none()) {
        let _ = writeln!(text, "\n{}  its file is not named", deployment.name);
    }
    let next = next(rotation, files);
    if !next.is_empty() {
        text.push('\n');
    }
    text + &next
}

fn activated_ago(rotation: &Rotation) -> Option<u64> {
    Age::between(rotation.activated_at()?, SystemClock.now()).map(Age::seconds)
}

/// Says what a key is to the module.
fn role(rotation: &Rotation, key: Fingerprint) -> &'static str {
    let next = rotation.next().map(|(next, _)| next.fingerprint());
    if key == rotation.key().fingerprint() {
        "signs"
    } else if Some(key) == next {
        "next"
    } else if Some(key) == rotation.previous() {
        "before"
    } else {
        "another"
    }
}

/// The answer in JSON.
#[derive(Serialize)]
pub(super) struct Report {
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<bool>,
    deployment: Option<String>,
    fingerprint: String,
    age_seconds: Option<u64>,
    next_fingerprint: Option<String>,
    previous_fingerprint: Option<String>,
    activated_seconds_ago: Option<u64>,
    finish_in_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<File>,
    peers: Vec<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<String>,
    next_command: Option<String>,
}

#[derive(Serialize)]
pub(in crate::cli) struct File {
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

#[derive(Serialize)]
struct Peer {
    file: String,
    deployment: Option<String>,
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    name: String,
    fingerprint: String,
    revoked: bool,
    role: &'static str,
}

impl Report {
    pub(super) fn status(rotation: &Rotation, files: &FileArguments) -> Self {
        let hand_over = rotation.hand_over().filter(|_| files.one_side);
        let next = next(rotation, files);
        let next = next.trim_start_matches("next").split("      in ").next();
        let next = next.map(|next| next.trim().to_owned());
        Self {
            phase: rotation.phase().as_str(),
            step: None,
            written: None,
            deployment: rotation.name().map(ToString::to_string),
            fingerprint: rotation.key().fingerprint().to_string(),
            age_seconds: age(rotation.key()).map(Age::seconds),
            next_fingerprint: rotation
                .next()
                .map(|(key, _)| key.fingerprint().to_string()),
            previous_fingerprint: rotation.previous().map(|key| key.to_string()),
            activated_seconds_ago: activated_ago(rotation),
            finish_in_seconds: left(rotation).map(|left| left.as_secs()),
            files: Vec::new(),
            peers: rotation
                .standings()
                .iter()
                .map(|s| peer(rotation, s))
                .collect(),
            block: hand_over.as_ref().map(HandOver::block),
            words: hand_over.as_ref().map(HandOver::words),
            next_command: next.filter(|next| !next.is_empty()),
        }
    }

    pub(super) fn step(plan: &Plan, after: &Rotation, arguments: &StepArguments) -> Self {
        Self {
            step: Some(plan.step().as_str()),
            written: Some(!arguments.dry_run && !plan.is_empty()),
            files: File::all(plan.files()),
            ..Self::status(after, &arguments.files)
        }
    }
}

impl File {
    pub(in crate::cli) fn all<'a>(files: impl IntoIterator<Item = &'a EditedFile>) -> Vec<Self> {
        let changed = files.into_iter().filter(|file| !file.is_empty());
        let file = |file: &EditedFile| Self {
            file: file.path().display().to_string(),
            changes: file.changes().iter().map(Change::of).collect(),
        };
        changed.map(file).collect()
    }
}

impl Change {
    fn of(change: &crate::admin::SettingChange) -> Self {
        Self {
            key: change.key.clone(),
            value: change.shown.clone(),
            kind: match change.kind {
                ChangeKind::Added => "added",
                ChangeKind::Replaced => "replaced",
                ChangeKind::Removed => "removed",
            },
        }
    }
}

fn peer(rotation: &Rotation, standing: &Standing<'_>) -> Peer {
    let key = |key: &TrustedKey| Key {
        name: key.name.clone(),
        fingerprint: key.key.fingerprint().to_string(),
        revoked: key.revoked,
        role: role(rotation, key.key.fingerprint()),
    };
    Peer {
        file: standing.path.display().to_string(),
        deployment: standing.deployment.map(ToString::to_string),
        keys: standing.keys.iter().map(key).collect(),
    }
}
