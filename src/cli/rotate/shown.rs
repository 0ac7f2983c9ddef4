//! What a step changed and how far the rotation is, in words and in JSON.

use std::fmt::{self, Display, Formatter, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::arguments::{FileArguments, StepArguments};
use crate::admin::handover::HandOver;
use crate::admin::rotation::{Phase, Plan, Rotation, Step};
use crate::cli::change::{File, changes};
use crate::clock::{Age, Clock as _, SystemClock};
use crate::jose::{Fingerprint, SigningKey};
use crate::trust::Deployment;

pub(super) fn step(plan: &Plan, after: &Rotation, arguments: &StepArguments) -> String {
    let mut text = heading(after);
    text += &changes(plan.change.files());
    text.push('\n');
    if plan.change.is_empty() {
        text += "nothing to do\n";
    } else if arguments.how.dry_run {
        text += "nothing was written (--dry-run)\n";
        return text;
    }
    if let Some(next) = Next::of(after, &arguments.files) {
        text += &next.to_string();
    }
    text
}

/// Writes the module's keys.
fn heading(rotation: &Rotation) -> String {
    let name = rotation.name().map(ToString::to_string);
    let name = name.unwrap_or_else(|| rotation.path().display().to_string());
    let next = rotation.next().map(|(key, _)| aged(key));
    let damaged = "damaged; it can only be forgotten".to_owned();
    let lines = [
        ("next key    ", next),
        ("next key    ", rotation.damage().map(|_| damaged)),
        (
            "before      ",
            rotation.previous().map(|key| key.to_string()),
        ),
    ];
    let mut text = format!("{name}  signs with  {}\n", aged(rotation.key()));
    let width = name.chars().count();
    for (what, key) in lines {
        if let Some(key) = key {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:width$}  {what}{key}", "");
        }
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

/// The command that goes on from here, and after how many seconds.
struct Next {
    command: String,
    wait: Option<u64>,
}

impl Next {
    /// Returns `None` if no rotation is under way.
    fn of(rotation: &Rotation, files: &FileArguments) -> Option<Self> {
        let (step, wait) = match rotation.phase() {
            _ if rotation.must_abort() => (Step::Abort, None),
            Phase::Idle => return None,
            phase @ Phase::Activated => (phase.next_step(), left(rotation)),
            phase => (phase.next_step(), None),
        };
        Some(Self {
            command: files.command(step.as_str()),
            wait: wait.map(|wait| wait.as_secs()),
        })
    }
}

impl Display for Next {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "next    {}", self.command)?;
        if let Some(wait) = self.wait {
            write!(f, "      in {wait} s")?;
        }
        writeln!(f)
    }
}

/// Returns how long tokens of the old key may be in use, rounded up to a second.
pub(super) fn left(rotation: &Rotation) -> Option<Duration> {
    let left = rotation.finish_after()?.duration_since(SystemClock.now());
    let left = left.ok().filter(|left| !left.is_zero())?;
    let more = u64::from(left.subsec_nanos() > 0);
    Some(Duration::from_secs(left.as_secs().saturating_add(more)))
}

pub(super) fn status(rotation: &Rotation, files: &FileArguments) -> String {
    let mut text = heading(rotation);
    let ago = activated_ago(rotation).map(|ago| format!(", {ago} s ago"));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "phase   {}{}",
        rotation.phase().as_str(),
        ago.unwrap_or_default()
    );
    for (path, deployment) in rotation.standings() {
        let path = path.display();
        let Some(Deployment { name, keys, .. }) = deployment else {
            let _ = writeln!(text, "\n{path}  trusts none of its keys");
            continue;
        };
        let _ = writeln!(text, "\n{path}  calls it {name}");
        for key in keys {
            let fingerprint = key.key.fingerprint();
            let state = if key.revoked { "revoked" } else { "trusted" };
            let what = role(rotation, fingerprint);
            let _ = writeln!(text, "  {state}  {fingerprint}  {}  {what}", key.name);
        }
    }
    for (deployment, _) in rotation.peers().iter().filter(|(_, file)| file.is_none()) {
        let _ = writeln!(text, "\n{}  its file is not named", deployment.name);
    }
    if let Some(next) = Next::of(rotation, files) {
        let _ = write!(text, "\n{next}");
    }
    text
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
        let next = rotation.next().map(|(key, _)| key.fingerprint());
        let peers = rotation.standings();
        let peers = peers.map(|(path, deployment)| Peer::of(rotation, path, deployment));
        Self {
            phase: rotation.phase().as_str(),
            step: None,
            written: None,
            deployment: rotation.name().map(ToString::to_string),
            fingerprint: rotation.key().fingerprint().to_string(),
            age_seconds: age(rotation.key()).map(Age::seconds),
            next_fingerprint: next.map(|key| key.to_string()),
            previous_fingerprint: rotation.previous().map(|key| key.to_string()),
            activated_seconds_ago: activated_ago(rotation),
            finish_in_seconds: left(rotation).map(|left| left.as_secs()),
            files: Vec::new(),
            peers: peers.collect(),
            block: hand_over.as_ref().map(HandOver::block),
            words: hand_over.as_ref().map(HandOver::words),
            next_command: Next::of(rotation, files).map(|next| next.command),
        }
    }

    pub(super) fn step(plan: &Plan, after: &Rotation, arguments: &StepArguments) -> Self {
        Self {
            step: Some(plan.step.as_str()),
            written: Some(arguments.how.writes(plan.change.is_empty())),
            files: File::all(plan.change.files()),
            ..Self::status(after, &arguments.files)
        }
    }
}

impl Peer {
    fn of(rotation: &Rotation, path: &Path, deployment: Option<&Deployment>) -> Self {
        let keys = deployment.into_iter().flat_map(|known| &known.keys);
        let keys = keys.map(|key| Key {
            name: key.name.clone(),
            fingerprint: key.key.fingerprint().to_string(),
            revoked: key.revoked,
            role: role(rotation, key.key.fingerprint()),
        });
        Self {
            file: path.display().to_string(),
            deployment: deployment.map(|known| known.name.to_string()),
            keys: keys.collect(),
        }
    }
}
