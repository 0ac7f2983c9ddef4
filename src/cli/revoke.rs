//! `countersign revoke`: a key is taken back at once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::change::{BY_SIGNAL, File, How, changes, not_written};
use super::confirm::ask_to_write;
use super::home::kind_of;
use super::input::seconds;
use super::output::{Answer, Console, Exit, Failure, chain};
use super::refused::refused;
use super::runtime::runtime;
use crate::admin::revocation::{self, InForce, Revocation, RevokedFile, Which};
use crate::admin::rotation::live::Answer as Said;
use crate::config::{Home, ModuleKind};
use crate::identity::DeploymentName;

#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    group(ArgGroup::new("which").required(true).args(["deployment", "fingerprint"]))
)]
pub(super) struct Arguments {
    /// A file, or a home, that trusts the key; may be repeated
    #[arg(long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The deployment whose keys are taken back
    #[arg(long, value_name = "NAME")]
    deployment: Option<DeploymentName>,
    /// Only the key that the file calls so
    #[arg(long, value_name = "NAME", requires = "deployment")]
    key: Option<String>,
    /// The key with this fingerprint, whoever it belongs to
    #[arg(long, value_name = "FINGERPRINT", allow_hyphen_values = true)]
    fingerprint: Option<String>,
    /// Wait until the running module of each file confirms it
    #[arg(long)]
    watch: bool,
    /// How long to wait for all of that, in seconds; a module is asked once in any case
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,
    #[command(flatten)]
    how: How,
}

const EXAMPLES: &str = "\
Examples:
  $ countersign revoke --file dpm --deployment dpe-dev --key key --yes
  $ countersign revoke --file dpm --deployment dpe-dev --dry-run

A running module follows its file within 2 s; `--watch` waits for that. One that runs with
`countersign.reload=false` follows it at SIGHUP (`kill -HUP PID`). A revoked key stays revoked.";

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    let which = match (&arguments.deployment, &arguments.fingerprint) {
        (Some(name), _) => Which::Deployment(name.clone(), arguments.key.clone()),
        (None, Some(fingerprint)) => Which::Fingerprint(fingerprint.clone()),
        (None, None) => return Err(Failure::new(Exit::Usage, "say which key is meant")),
    };
    let files = arguments.file.iter().map(|file| Home::new(file).file);
    let plan = revocation::plan(&files.collect::<Vec<_>>(), &which);
    let plan = plan.map_err(|error| refused("", &error, console))?;
    let how = &arguments.how;
    let change = plan.change();
    if !change.is_empty() {
        console.present(consequences(&plan).trim_end());
        if !how.dry_run && !how.yes {
            ask_to_write(console)?;
        }
    }
    let mut text = changes(change.files()).trim_start_matches('\n').to_owned();
    if change.is_empty() {
        text += "nothing to do\n";
    }
    text += how.ending(false);
    let mut report = Report {
        written: how.writes(change.is_empty()),
        in_force: None,
        keys: Key::all(&plan),
        files: File::all(change.files()),
    };
    let mut ended = Ok(Exit::Done);
    if !how.dry_run {
        change.carry_out().map_err(|error| not_written(&error))?;
        match in_force(plan.files(), arguments, console) {
            Ok(confirmed) => report.in_force = confirmed,
            Err(failure) => {
                report.in_force = Some(false);
                ended = Err(failure);
            }
        }
    }
    console.reply(text, &report)?;
    ended
}

/// Tells whether the files are in force: so confirmed, or likely; else why not.
fn in_force(
    files: &[RevokedFile],
    arguments: &Arguments,
    console: &Console,
) -> Result<Option<bool>, Failure> {
    let end = Instant::now() + arguments.timeout;
    let watched = arguments.watch.then_some(end);
    let mut confirmed = None;
    let mut refused = None;
    for file in files.iter().filter(|file| !file.keys.is_empty()) {
        match is_in_force(file, watched, console) {
            Ok(seen) => confirmed = seen.or(confirmed),
            Err(failure) => refused = refused.or(Some(failure)),
        }
    }
    refused.map_or(Ok(confirmed), Err)
}

/// Tells as much of one file, whose running module is asked until the end of `watched`.
fn is_in_force(
    file: &RevokedFile,
    watched: Option<Instant>,
    console: &Console,
) -> Result<Option<bool>, Failure> {
    let path = file.path.display();
    let kind = kind_of(&Home::new(&file.path).dir);
    let not = |why: &str| Failure::new(Exit::No, format!("written, NOT in force: {why}"));
    let in_force = file.in_force(&kind);
    let takes_no_reload = format!("`{path}` says `countersign.reload=false`");
    match (in_force, watched) {
        (takes @ (InForce::Loads | InForce::NoReload), Some(end)) => {
            if matches!(takes, InForce::NoReload) {
                console.say(&format!("{takes_no_reload}: {BY_SIGNAL}"));
            }
            let seen = runtime()?.block_on(watch(file, &kind, end));
            let at = seen.map_err(|why| {
                let help = format!("see its log for `configReloadFailed`; or {BY_SIGNAL}");
                not(&why).with_help(help)
            })?;
            console.say(&format!("{path}: in force, {at}"));
            Ok(Some(true))
        }
        (InForce::Loads, None) => Ok(None),
        (InForce::NoReload, None) => Err(not(&takes_no_reload).with_help(BY_SIGNAL)),
        (
            InForce::Overridden {
                deployment,
                key,
                by,
            },
            _,
        ) => {
            let by = by.as_ref();
            let place = by.map(|(path, line)| format!("{}:{line}", path.display()));
            let place = place.unwrap_or_else(|| "a variable of the environment".to_owned());
            let where_to = by.map_or_else(
                || "change it there".to_owned(),
                |(path, _)| format!("revoke it there too: `--file {}`", path.display()),
            );
            let why = format!("`{key}` of `{deployment}` is still trusted, by {place}");
            Err(not(&why).with_help(where_to))
        }
        (InForce::Refused(error), _) => {
            console.findings(error.findings().into_iter().flatten());
            let error = chain(&error);
            let why = format!("a module does not take `{path}` as it is: {error}");
            Err(not(&why).with_help("mend the file; the module follows it then"))
        }
    }
}

/// Between two questions to the running module, and how long the last one may take at least.
const PAUSE: Duration = Duration::from_millis(100);
const LEAST: Duration = Duration::from_secs(1);

/// Waits until `end`, or a moment longer, for the running module to refuse the keys.
async fn watch(file: &RevokedFile, kind: &ModuleKind, end: Instant) -> Result<String, String> {
    loop {
        let limit = end.saturating_duration_since(Instant::now()).max(LEAST);
        let why = match timeout(limit, file.confirmed(kind)).await {
            Ok(Said::Accepted(at)) => return Ok(at),
            Ok(
                Said::Refused(why)
                | Said::Silent(why)
                | Said::NotReached(why)
                | Said::NotAsked(why),
            ) => why,
            Err(_elapsed) => "the running module did not answer in time".to_owned(),
        };
        if Instant::now() >= end {
            return Err(why);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Writes what stops working, file by file.
fn consequences(plan: &Revocation) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for file in plan.files() {
        let keys = file.keys.iter();
        let open: Vec<_> = keys.filter(|key| !key.was_revoked).collect();
        if open.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{}  stops working:", file.path.display());
        for key in &open {
            let (deployment, name, fingerprint) = (&key.deployment, &key.name, &key.fingerprint);
            let _ = writeln!(
                text,
                "  KEY_REVOKED for calls and replies that `{name}` of {deployment} signed: {fingerprint}"
            );
        }
        let deployments: BTreeSet<_> = open
            .iter()
            .map(|key| (&key.deployment, key.is_engine, &key.left))
            .collect();
        for (deployment, is_engine, left) in deployments {
            let engines = if is_engine {
                "; its engines are DISCONNECTED"
            } else {
                ""
            };
            let _ = match left.as_slice() {
                [] => writeln!(
                    text,
                    "  all of {deployment}: no other key of it is trusted here{engines}"
                ),
                left => writeln!(text, "  {deployment} goes on with {}", left.join(", ")),
            };
        }
    }
    text
}

#[derive(Serialize)]
struct Report {
    written: bool,
    /// Whether it is; none where nobody was asked.
    in_force: Option<bool>,
    keys: Vec<Key>,
    files: Vec<File>,
}

#[derive(Serialize)]
struct Key {
    file: String,
    deployment: String,
    #[serde(rename = "key")]
    name: String,
    fingerprint: String,
    was_revoked: bool,
    left: Vec<String>,
}

impl Key {
    fn all(plan: &Revocation) -> Vec<Self> {
        let keys = plan.files().iter().flat_map(|file| {
            let path = file.path.display();
            file.keys.iter().map(move |key| Self {
                file: path.to_string(),
                deployment: key.deployment.clone(),
                name: key.name.clone(),
                fingerprint: key.fingerprint.clone(),
                was_revoked: key.was_revoked,
                left: key.left.clone(),
            })
        });
        keys.collect()
    }
}
