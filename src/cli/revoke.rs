//! `countersign revoke`: revokes keys at once.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::json;
use tokio::time::timeout;

use super::change::{BY_SIGNAL, How, changes, files_in_json, inactive};
use super::input::{TIMEOUT, kind_of, seconds, unnamed};
use super::output::{Answer, Console, Exit, Refused};
use super::runtime::{Patience, runtime};
use crate::admin::revocation::{self, RevokedFile, Which};
use crate::config::{Home, ModuleKind};
use crate::identity::DeploymentName;
use crate::storage::revoked_keys::Standing;

#[derive(Args, Debug)]
#[command(
    after_help = include_str!("help/revoke.txt"),
    group(ArgGroup::new("which").required(true).args(["deployment", "fingerprint"]))
)]
pub(super) struct Arguments {
    /// A module that trusts the key: its home or its properties file; may be repeated
    /// [default: `$COUNTERSIGN_HOME`, else this folder]
    #[arg(
        long,
        visible_alias = "file",
        value_name = "DIR|FILE",
        required = unnamed().is_none(),
        default_values_os = unnamed().map(Path::as_os_str),
        hide_default_value = true
    )]
    home: Vec<PathBuf>,
    /// The deployment whose keys are revoked
    #[arg(long, value_name = "NAME")]
    deployment: Option<DeploymentName>,
    /// Only the key with this name in the file
    #[arg(long, value_name = "NAME", requires = "deployment")]
    key: Option<String>,
    /// The key with this fingerprint, of any deployment
    #[arg(long, value_name = "FINGERPRINT", allow_hyphen_values = true)]
    fingerprint: Option<String>,
    /// Take the revocation back: in the file, then in what its home remembers
    #[arg(long)]
    undo: bool,
    /// Wait until the running module of each file confirms the revocation, or that it is taken back
    #[arg(long)]
    watch: bool,
    /// How long `--watch` waits for all of them, in seconds; it asks each module at least once
    #[arg(long, value_name = "SECONDS", default_value = TIMEOUT, value_parser = seconds, requires = "watch")]
    timeout: Duration,
    #[command(flatten)]
    how: How,
}

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    let which = match &arguments.deployment {
        Some(name) => Which::Deployment(name.clone(), arguments.key.clone()),
        None => Which::Fingerprint(arguments.fingerprint.clone().unwrap_or_default()),
    };
    let files = arguments.home.iter().map(|home| Home::new(home).file);
    let standing = if arguments.undo {
        Standing::Undone
    } else {
        Standing::Revoked
    };
    let (change, revoked) = revocation::plan(&files.collect::<Vec<_>>(), &which, standing)?;
    let how = &arguments.how;
    let shown = changes(&change.files);
    if !change.is_empty() {
        console.present(consequences(&revoked).trim_end());
    }
    let written = how.apply(&change, &shown, console)?;
    let mut ended = Ok(None);
    if !how.dry_run {
        let (watch, time) = (arguments.watch, arguments.timeout);
        let mut patience = watch.then(|| Patience::new(time, PAUSE, PAUSE));
        let held = revoked.iter().filter(|file| !file.keys.is_empty());
        // The first failure counts; the other files are looked at all the same.
        ended = held
            .map(|file| is_in_force(file, patience.as_mut(), console))
            .fold(Ok(None), Result::and);
    }
    let report = json!({
        "written": written,
        "in_force": ended.as_ref().map_or(Some(false), |active| *active),
        "keys": revoked.iter().flat_map(|file| &file.keys).collect::<Vec<_>>(),
        "files": files_in_json(&change.files),
    });
    let text = shown + how.ending(&change);
    console.reply(text.trim_start_matches('\n'), &report)?;
    ended.map(|_| Exit::Done)
}

/// Returns whether the running module of `file` confirmed the revocation, if it was asked; fails
/// if it does not follow its file.
fn is_in_force(
    file: &RevokedFile,
    patience: Option<&mut Patience>,
    console: &Console,
) -> Result<Option<bool>, Refused> {
    let path = file.path.display();
    let kind = kind_of(&file.path);
    let reloads = file.in_force(&kind).map_err(|error| {
        console.findings(error.findings.iter());
        let mut failed = inactive(&error, "");
        (failed.help, failed.commands) = (error.help, error.commands);
        failed
    })?;
    let no_reload = format!("`{path}` says `countersign.reload=false`");
    let patience = match patience {
        Some(patience) => patience,
        None if reloads => return Ok(None),
        None => return Err(inactive(&no_reload, BY_SIGNAL)),
    };
    if !reloads {
        console.say(&format!("{no_reload}: {BY_SIGNAL}"));
    }
    let at = runtime()?
        .block_on(watch(file, &kind, patience))
        .map_err(|why| {
            let help = format!("see its log for `configReloadFailed`; {BY_SIGNAL}");
            inactive(&why, &help)
        })?;
    console.say(&format!("{path}: active, {at}"));
    Ok(Some(true))
}

/// Between two questions to the running module, and how long the last one may take at least.
const PAUSE: Duration = Duration::from_millis(100);
const LEAST: Duration = Duration::from_secs(1);

/// Waits until the running module refuses the keys; a last question may take a moment longer.
async fn watch(
    file: &RevokedFile,
    kind: &ModuleKind,
    patience: &mut Patience,
) -> Result<String, String> {
    loop {
        let limit = patience.left().max(LEAST);
        let why = match timeout(limit, file.confirmed(kind)).await {
            Ok(Ok(at)) => return Ok(at),
            Ok(Err(doubt)) => doubt.why,
            Err(_elapsed) => "the running module did not answer in time".to_owned(),
        };
        if !patience.again().await {
            return Err(why);
        }
    }
}

/// Writes what stops working, file by file.
pub(super) fn consequences(files: &[RevokedFile]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for file in files {
        for place in &file.inactive {
            let _ = writeln!(
                text,
                "{place}  also trusts it, in a document that is not active"
            );
        }
        let is_undone = file.standing == Standing::Undone;
        let keys = file.keys.iter();
        let open: Vec<_> = keys.filter(|key| is_undone || !key.was_revoked).collect();
        if open.is_empty() {
            continue;
        }
        let what = if is_undone {
            "trusts again"
        } else {
            "stops working"
        };
        let _ = writeln!(text, "{}  {what}:", file.path.display());
        for of_one in open.chunk_by(|one, other| one.deployment == other.deployment) {
            for key in of_one {
                let (name, of, fingerprint) = (&key.name, &key.deployment, &key.fingerprint);
                let _ = if is_undone {
                    writeln!(text, "  `{name}` of {of}: {fingerprint}")
                } else {
                    let what = "KEY_REVOKED for calls and replies that";
                    writeln!(text, "  {what} `{name}` of {of} signed: {fingerprint}")
                };
            }
            let Some(key) = of_one.first().filter(|_| !is_undone) else {
                continue;
            };
            let (deployment, left) = (&key.deployment, key.left.join(", "));
            let engines = if key.is_engine {
                "; its engines are DISCONNECTED"
            } else {
                ""
            };
            let _ = if left.is_empty() {
                writeln!(
                    text,
                    "  all of {deployment}: no other key of it is trusted here{engines}"
                )
            } else {
                writeln!(text, "  {deployment} goes on with {left}")
            };
        }
    }
    text
}
