//! `countersign deployment`: the deployments that one file trusts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use super::change::{File, How, changes, not_written, warn_of_variables};
use super::input;
use super::output::{Answer, Console, Exit, Failure, Format, counted, table};
use super::refused::refused;
use crate::admin::deployments::{self, Peer, Removed};
use crate::admin::{Change, Kind, SettingsFile};
use crate::config::Home;
use crate::diagnostic::{Severity, quote};
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, KeyMaterial, VerifyingKey};
use crate::trust::{Deployment, TrustedKey};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Trust a module by its public key, whatever form that has
    #[command(after_help = ADD)]
    Add(Add),
    /// List the modules that are trusted
    #[command(after_help = LIST)]
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Show one of them
    #[command(after_help = SHOW)]
    Show {
        #[command(flatten)]
        of: Of,
        /// The deployment
        name: DeploymentName,
    },
    /// Trust a module no more
    #[command(after_help = REMOVE)]
    Remove {
        #[command(flatten)]
        of: Of,
        /// The deployment
        name: DeploymentName,
        #[command(flatten)]
        how: How,
    },
}

const ADD: &str = "\
Examples:
  $ countersign deployment add dpe-two --home dpm --module dpe --public-key dpe-two.jwk --yes
  $ countersign key export ec256.pem --to pem-spki | countersign deployment add dpe-three --home dpm --module dpe --public-key - --role READER --dry-run

A deployment that is there keeps what it has. A second key of it needs a `--key-name`.";
const LIST: &str = "\
Examples:
  $ countersign deployment list --home dpm
  $ countersign deployment list --home dpm -o json";
const SHOW: &str = "\
Example:
  $ countersign deployment show --home dpm dpe-dev";
const REMOVE: &str = "\
Example:
  $ countersign deployment remove --home dpm dpe-two --yes

To take back a key alone: `countersign revoke`.";

/// The file that is meant.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("of").required(true).args(["home", "file"])))]
pub(super) struct Of {
    /// The module's home, with `etc/application.properties`
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Its properties file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Add {
    #[command(flatten)]
    of: Of,
    /// What the deployment is called, here and in its own file
    name: DeploymentName,
    /// Its module type, such as `dpe`
    #[arg(long)]
    module: ModuleType,
    /// Its environment
    #[arg(long)]
    environment: Option<Environment>,
    /// Its public key, in any form; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// What the key is called below `jwt-keys` [default: key]
    #[arg(long, value_name = "NAME")]
    key_name: Option<DeploymentName>,
    /// A role it has here; may be repeated [default for a new one: IMPERSONATION]
    #[arg(long, value_parser = Role::new)]
    role: Vec<Role>,
    #[command(flatten)]
    how: How,
}

impl Of {
    fn read(&self, console: &Console) -> Result<SettingsFile, Failure> {
        let home = self.home.as_deref().map(|home| Home::new(home).file);
        let path = home.or_else(|| self.file.clone()).unwrap_or_default();
        SettingsFile::read(&path).map_err(|error| refused("", &error, console))
    }
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    match command {
        Command::Add(arguments) => add(arguments, console),
        Command::List { of } => list(&of.read(console)?, console),
        Command::Show { of, name } => show(&of.read(console)?, name, console),
        Command::Remove { of, name, how } => remove(&of.read(console)?, name, how, console),
    }
}

fn add(arguments: &Add, console: &Console) -> Answer {
    let file = arguments.of.read(console)?;
    let (key, key_id) = public_key(&arguments.public_key, console)?;
    let (name, module) = (&arguments.name, &arguments.module);
    let peer = Peer {
        name,
        module,
        environment: arguments.environment.as_ref(),
        key: &key,
        key_id: &key_id,
        key_name: arguments.key_name.as_ref().map(DeploymentName::as_str),
        roles: &arguments.role,
    };
    let change = deployments::add(&file, &peer);
    let change = change.map_err(|error| refused("", &error, console))?;
    let heading = format!("{name} ({module}) is trusted by the key {key_id}\n");
    carry_out(&change, &arguments.how, &heading, console)
}

fn public_key(path: &Path, console: &Console) -> Result<(VerifyingKey, KeyId), Failure> {
    match input::key(path)? {
        (KeyMaterial::Private(..), _) => {
            let file = input::name(path);
            let message = format!("{file} holds a private key, which is its owner's alone");
            Err(Failure::new(Exit::Unreadable, message).with_help(
                "have its owner send the public half: countersign key export FILE --to public-jwk",
            ))
        }
        (KeyMaterial::Public(key, kid), _) => {
            let hash = KeyId::from(key.fingerprint());
            let kid = kid.unwrap_or_else(|| hash.clone());
            if kid != hash {
                let kid = quote(kid.as_str());
                console.note(&format!(
                    "the key's `kid` is not its fingerprint {hash}: {kid}"
                ));
            }
            Ok((key, kid))
        }
    }
}

fn remove(file: &SettingsFile, name: &DeploymentName, how: &How, console: &Console) -> Answer {
    let (change, removed) = match deployments::remove(file, name) {
        Err(error) if matches!(error.kind(), Kind::NotThere) => {
            if console.format() == Format::Text {
                let known = error.help().unwrap_or_default();
                console.note(&format!("{error}; {known}"));
            }
            console.reply("nothing to do\n", &Report::default())?;
            return Ok(Exit::Done);
        }
        planned => planned.map_err(|error| refused("", &error, console))?,
    };
    console.present(consequences(&removed).trim_end());
    carry_out(&change, how, "", console)
}

/// Says what stops working.
fn consequences(removed: &Removed) -> String {
    let Removed {
        name,
        keys,
        connections,
    } = removed;
    let mut text = format!("without {name}:\n");
    // Writing to a string cannot fail.
    for key in keys {
        let _ = writeln!(text, "  its calls are refused: KEY_UNKNOWN ({key})");
    }
    let _ = writeln!(
        text,
        "  it is not called any more, and its engines cannot become READY"
    );
    for connection in connections {
        let _ = writeln!(
            text,
            "  the connection `{connection}` has nobody at its other end"
        );
    }
    text
}

fn carry_out(change: &Change, how: &How, heading: &str, console: &Console) -> Answer {
    let written = how.writes(change.is_empty());
    warn_of_variables(change.files(), console);
    let changes = changes(change.files());
    if written {
        how.confirm(&changes, console)?;
        change.carry_out().map_err(|error| not_written(&error))?;
    }
    let findings = change.findings().iter();
    console.findings(findings.filter(|found| found.severity() == Severity::Warning));
    let text = format!("{heading}{changes}{}", how.ending(change.is_empty()));
    let files = File::all(change.files());
    console.reply(text.trim_start_matches('\n'), &Report { written, files })?;
    Ok(Exit::Done)
}

fn list(file: &SettingsFile, console: &Console) -> Answer {
    incomplete(file, console);
    let trusted = file.deployments();
    let text = match trusted {
        [] => "no deployment is trusted; `countersign pair` or `deployment add`\n".to_owned(),
        trusted => in_columns(trusted),
    };
    let deployments = trusted.iter().map(Shown::of).collect();
    console.reply(text, &Listed { deployments })?;
    Ok(Exit::Done)
}

fn show(file: &SettingsFile, name: &DeploymentName, console: &Console) -> Answer {
    incomplete(file, console);
    let Some(deployment) = file.find(name) else {
        return Err(refused("", &deployments::not_there(file, name), console));
    };
    let shown = Shown::of(deployment);
    let mut lines = vec![
        ("name", shown.name.to_owned()),
        ("module", shown.module.to_owned()),
        ("environment", shown.environment.unwrap_or("-").to_owned()),
        ("roles", joined(&shown.roles)),
    ];
    lines.extend(deployment.keys.iter().map(|key| ("key", described(key))));
    let pins = deployment.tls_pins.iter();
    lines.extend(pins.map(|pin| ("TLS key", pin.to_string())));
    if deployment.single_use_tokens {
        lines.push(("tokens", "taken once each".to_owned()));
    }
    let rows = lines
        .iter()
        .map(|(name, value)| format!("{name:<12} {value}\n"));
    console.reply(rows.collect::<Vec<_>>().concat(), &shown)?;
    Ok(Exit::Done)
}

fn described(key: &TrustedKey) -> String {
    let mut text = format!("{}  {}", key.name, key.key_id);
    let hash = key.key.fingerprint().to_string();
    if hash != key.key_id.as_str() {
        let _ = write!(text, "  (SPKI hash {hash})");
    }
    if key.revoked {
        text.push_str("  revoked");
    }
    text
}

fn in_columns(trusted: &[Deployment]) -> String {
    let mut rows = vec![["NAME", "MODULE", "ENVIRONMENT", "ROLES", "KEYS"].map(str::to_owned)];
    rows.extend(trusted.iter().map(|deployment| {
        let shown = Shown::of(deployment);
        let active = deployment.active_keys().count();
        let keys = match shown.keys.len().saturating_sub(active) {
            0 => active.to_string(),
            revoked => format!("{active}, {revoked} revoked"),
        };
        [
            shown.name.to_owned(),
            shown.module.to_owned(),
            shown.environment.unwrap_or("-").to_owned(),
            joined(&shown.roles),
            keys,
        ]
    }));
    table(&rows)
}

fn joined(roles: &[&str]) -> String {
    match roles {
        [] => "-".to_owned(),
        roles => roles.join(","),
    }
}

/// Says that there may be more in the file than is shown.
fn incomplete(file: &SettingsFile, console: &Console) {
    let errors = file.findings().errors();
    if errors > 0 {
        let path = file.path().display();
        let count = counted(errors, "error");
        console.warn(&format!(
            "{count} in `{path}`: what is wrong is not shown here; see countersign check {path}"
        ));
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    deployments: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    module: &'a str,
    environment: Option<&'a str>,
    roles: Vec<&'a str>,
    keys: Vec<Key<'a>>,
}

#[derive(Serialize)]
struct Key<'a> {
    name: &'a str,
    fingerprint: &'a str,
    revoked: bool,
}

impl<'a> Shown<'a> {
    fn of(deployment: &'a Deployment) -> Self {
        let key = |key: &'a TrustedKey| Key {
            name: &key.name,
            fingerprint: key.key_id.as_str(),
            revoked: key.revoked,
        };
        let environment = deployment.environment.as_ref();
        Self {
            name: deployment.name.as_str(),
            module: deployment.module.as_str(),
            environment: environment.map(Environment::as_str),
            roles: deployment.roles.iter().map(Role::as_str).collect(),
            keys: deployment.keys.iter().map(key).collect(),
        }
    }
}

/// What a change did.
#[derive(Default, Serialize)]
struct Report {
    written: bool,
    files: Vec<File>,
}
