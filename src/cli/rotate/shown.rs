//! What a step changed and how far the rotation is, in words and in JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::{FileArguments, StepArguments};
use crate::admin::rotation::{Phase, Plan, Rotation, Step};
use crate::cli::change::{changes, files_in_json};
use crate::cli::output::{add, table};
use crate::clock::{Age, Clock as _, SystemClock};
use crate::diagnostic::CommandLine;
use crate::jose::{Fingerprint, SigningKey};
use crate::trust::Deployment;

/// Writes what a step changed, and what comes next.
pub(super) fn step(plan: &Plan, after: &Rotation, arguments: &StepArguments) -> String {
    let mut text = heading(after) + &changes(&plan.change.files);
    if plan.change.is_empty() {
        text += "\nnothing to do\n";
    } else if arguments.how.dry_run {
        return text + arguments.how.ending(&plan.change);
    }
    text + &next(after, next_command(after, |step| arguments.command(step)))
}

/// Writes the module's keys.
fn heading(rotation: &Rotation) -> String {
    let name = match rotation.name() {
        Some(name) => name.to_string(),
        None => rotation.owner.path.display().to_string(),
    };
    let mut keys = vec![[name, "signs with".to_owned(), aged(rotation.key())]];
    let damaged = rotation
        .damage()
        .map(|_| "damaged; only `abort` is possible".to_owned());
    let next = rotation.next().map(|(key, _)| aged(key)).or(damaged);
    keys.extend(next.map(|key| [String::new(), "next key".to_owned(), key]));
    let before = rotation.state().previous.iter();
    keys.extend(before.map(|key| [String::new(), "before".to_owned(), key.to_string()]));
    table(&keys)
}

/// Writes a key's fingerprint, and its age if it is known.
fn aged(key: &SigningKey) -> String {
    let fingerprint = key.fingerprint();
    match age(key) {
        Some(age) => format!("{fingerprint}  (age {age})"),
        None => fingerprint.to_string(),
    }
}

fn age(key: &SigningKey) -> Option<Age> {
    Age::between(key.made_at()?, SystemClock.now())
}

/// Returns the command that continues the rotation; `None` if none is under way.
fn next_command(rotation: &Rotation, command: impl FnOnce(&str) -> CommandLine) -> Option<String> {
    let is_open = rotation.must_abort() || rotation.phase() != Phase::Idle;
    is_open.then(|| command(rotation.next_step().as_str()).to_string())
}

/// Writes that command, and how long to wait before it.
fn next(rotation: &Rotation, command: Option<String>) -> String {
    let Some(command) = command else {
        return String::new();
    };
    match left(rotation).filter(|_| rotation.next_step() == Step::Finish) {
        None => format!("\nnext    {command}\n"),
        Some(wait) => format!("\nnext    {command}      in {} s\n", wait.as_secs()),
    }
}

/// Returns how long tokens of the old key may be in use, rounded up to a second.
pub(super) fn left(rotation: &Rotation) -> Option<Duration> {
    let after = rotation.finish_after()?.duration_since(SystemClock.now());
    let left = after.ok().filter(|left| !left.is_zero())?;
    let more = u64::from(left.subsec_nanos() > 0);
    Some(Duration::from_secs(left.as_secs().saturating_add(more)))
}

pub(super) fn status(rotation: &Rotation, files: &FileArguments) -> String {
    let mut text = heading(rotation);
    let phase = rotation.phase().as_str();
    let ago = activated_ago(rotation).map_or_else(String::new, |ago| format!(", {ago} s ago"));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "phase   {phase}{ago}");
    for peer in &rotation.peers {
        let path = peer.path.display();
        let Some(Deployment { name, keys, .. }) = rotation.deployment(peer) else {
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
    for name in rotation.left_out() {
        let _ = writeln!(text, "\n{name}  its file is not given");
    }
    text + &next(rotation, next_command(rotation, |step| files.command(step)))
}

fn activated_ago(rotation: &Rotation) -> Option<u64> {
    Age::between(rotation.state().activated_at?, SystemClock.now()).map(Age::seconds)
}

/// Says what a key is to the module.
fn role(rotation: &Rotation, key: Fingerprint) -> &'static str {
    let next = rotation.next().map(|(next, _)| next.fingerprint());
    if key == rotation.key().fingerprint() {
        "signs"
    } else if Some(key) == next {
        "next"
    } else if rotation.state().previous.contains(&key) {
        "before"
    } else {
        "another"
    }
}

/// Returns how far the rotation is, in JSON.
pub(super) fn in_json(rotation: &Rotation, files: &FileArguments) -> Value {
    let peers = rotation.peers.iter().map(|peer| {
        let deployment = rotation.deployment(peer);
        let known = deployment.into_iter().flat_map(|known| &known.keys);
        let keys = known.map(|key| {
            json!({
                "name": key.name,
                "fingerprint": key.key.fingerprint().to_string(),
                "revoked": key.revoked,
                "role": role(rotation, key.key.fingerprint()),
            })
        });
        json!({
            "file": peer.path.display().to_string(),
            "deployment": deployment.map(|known| known.name.to_string()),
            "keys": keys.collect::<Value>(),
        })
    });
    let keys = rotation.state().previous.iter();
    let previous: Vec<_> = keys.map(ToString::to_string).collect();
    let mut report = json!({
        "phase": rotation.phase().as_str(),
        "deployment": rotation.name().map(ToString::to_string),
        "fingerprint": rotation.key().fingerprint().to_string(),
        "age_seconds": age(rotation.key()).map(Age::seconds),
        "next_fingerprint": rotation.next().map(|(key, _)| key.fingerprint().to_string()),
        "previous_fingerprint": previous.last(),
        "previous_fingerprints": previous,
        "activated_seconds_ago": activated_ago(rotation),
        "finish_in_seconds": left(rotation).map(|left| left.as_secs()),
        "peers": peers.collect::<Value>(),
        "next_command": next_command(rotation, |step| files.command(step)),
    });
    if let Some(block) = rotation.hand_over().filter(|_| files.one_side) {
        add(&mut report, "block", block.block());
        add(&mut report, "words", block.words());
    }
    report
}

/// Returns what a step changed, in JSON.
pub(super) fn step_in_json(plan: &Plan, after: &Rotation, arguments: &StepArguments) -> Value {
    let mut json = in_json(after, &arguments.files);
    let written = arguments.how.writes(&plan.change);
    let next = next_command(after, |step| arguments.command(step));
    add(&mut json, "next_command", next);
    add(&mut json, "step", plan.step.as_str());
    add(&mut json, "written", written);
    if !plan.change.is_empty() {
        add(&mut json, "files", files_in_json(&plan.change.files));
    }
    json
}
