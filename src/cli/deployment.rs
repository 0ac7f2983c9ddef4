//! `countersign deployment`: the deployments that one file trusts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::change::{How, changes, files_in_json};
use super::input::{self, ModuleArgument};
use super::key::note_kid;
use super::output::{Answer, Console, counted, example, table};
use crate::admin::deployments::prune::Pruning;
use crate::admin::deployments::{self, Peer, Removed};
use crate::admin::{Change, Kind, Refused, SettingsFile};
use crate::diagnostic::{CommandLine, Severity, redact_word};
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, KeyMaterial, VerifyingKey};
use crate::trust::{Deployment, TrustedKey};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Trust a module by its public key, in any form
    ///
    /// An existing deployment keeps its settings. A second key of it needs a `--key-name`.
    #[command(after_help = include_str!("help/deployment_add.txt"))]
    Add(Add),
    /// List the trusted modules
    #[command(after_help = include_str!("help/deployment_list.txt"))]
    List(ModuleArgument),
    /// Show one trusted module
    #[command(after_help = example("deployment show --home dpm dpe-dev"))]
    Show(One),
    /// Remove keys that are revoked, once the module's home remembers them
    ///
    /// A copy of an old file cannot bring them back then. Each deployment keeps its last key.
    #[command(after_help = example("deployment prune --home dpm --yes"))]
    Prune {
        #[command(flatten)]
        of: ModuleArgument,
        #[command(flatten)]
        how: How,
    },
    /// Stop trusting a module
    ///
    /// To revoke a single key: `countersign revoke`.
    #[command(after_help = example("deployment remove --home dpm dpe-two --yes"))]
    Remove {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        how: How,
    },
}

/// One deployment of a file.
#[derive(Args, Debug)]
pub(super) struct One {
    #[command(flatten)]
    of: ModuleArgument,
    /// The deployment
    name: DeploymentName,
}

#[derive(Args, Debug)]
pub(super) struct Add {
    #[command(flatten)]
    of: ModuleArgument,
    /// The deployment's name, in this file and in its own file
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

fn read(of: &ModuleArgument) -> Result<SettingsFile, Refused> {
    SettingsFile::read(&of.file())
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    match command {
        Command::Add(arguments) => add(arguments, console),
        Command::List(of) => list(&read(of)?, console),
        Command::Show(one) => show(&read(&one.of)?, &one.name, console),
        Command::Prune { of, how } => prune(&read(of)?, how, console),
        Command::Remove { one, how } => remove(&read(&one.of)?, &one.name, how, console),
    }
}

fn add(arguments: &Add, console: &Console) -> Answer {
    let file = read(&arguments.of)?;
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
        file: None,
    };
    let heading = format!("{name} ({module}) is trusted by the key {key_id}\n");
    let change = deployments::add(&file, &peer)?;
    carry_out(&change, &arguments.how, &heading, console)
}

fn public_key(path: &Path, console: &Console) -> Result<(VerifyingKey, KeyId), Refused> {
    let material = input::key(path)?;
    let KeyMaterial::Public(key, kid) = &material else {
        let message = format!(
            "{} holds a private key, which only its owner may have",
            input::name(path)
        );
        let command = if input::is_stdin(path) {
            CommandLine::new("countersign key export -")
        } else {
            CommandLine::new("countersign key export").arg(path)
        };
        return Err(Refused::new(Kind::Unreadable, message)
            .with_help("have its owner send the public half:")
            .with_commands([command.option("to", "public-jwk")]));
    };
    note_kid(&material, console);
    let key_id = kid.clone().unwrap_or_else(|| key.fingerprint().into());
    Ok((key.clone(), key_id))
}

fn remove(file: &SettingsFile, name: &DeploymentName, how: &How, console: &Console) -> Answer {
    match deployments::remove(file, name) {
        Ok((change, removed)) => {
            console.present(consequences(&removed).trim_end());
            carry_out(&change, how, "", console)
        }
        Err(error) if matches!(error.kind(), Kind::NotThere) => {
            let help = error.help.as_deref().unwrap_or_default();
            console.note(&format!("{error}; {help}"));
            console.reply("nothing to do\n", &json!({ "written": false, "files": [] }))
        }
        Err(error) => Err(error),
    }
}

fn prune(file: &SettingsFile, how: &How, console: &Console) -> Answer {
    warn_of_errors(file, console);
    let pruning = Pruning::plan(file)?;
    let change = &pruning.change;
    let mut text = String::new();
    for (what, keys, why) in [
        ("removed", &pruning.removed, ""),
        ("kept", &pruning.kept, "  its last key"),
    ] {
        for key in keys {
            let (name, of, fingerprint) = (&key.name, &key.deployment, &key.fingerprint);
            let _ = writeln!(text, "{what:<8} `{name}` of {of}: {fingerprint}{why}");
        }
    }
    text += &changes(&change.files);
    how.confirm(change, &text, console)?;
    if !how.dry_run {
        pruning.carry_out()?;
    }
    text += how.ending(change);
    let report = json!({
        "written": how.writes(change),
        "keys": pruning.removed,
        "kept": pruning.kept,
        "files": files_in_json(&change.files),
    });
    console.reply(text.trim_start_matches('\n'), &report)
}

/// Says what stops working.
fn consequences(removed: &Removed) -> String {
    let mut text = format!("without {}:\n", removed.name);
    // Writing to a string cannot fail.
    for key in &removed.keys {
        let _ = writeln!(text, "  its calls are refused: KEY_UNKNOWN ({key})");
    }
    text += "  it is not called any more, and its engines cannot become READY\n";
    for connection in &removed.connections {
        let _ = writeln!(text, "  the connection `{connection}` leads nowhere");
    }
    text
}

fn carry_out(change: &Change, how: &How, heading: &str, console: &Console) -> Answer {
    let shown = changes(&change.files);
    let written = how.apply(change, &shown, console)?;
    let findings = change.findings.iter();
    console.findings(findings.filter(|found| found.severity == Severity::Warning));
    let text = format!("{heading}{shown}{}", how.ending(change));
    let report = json!({ "written": written, "files": files_in_json(&change.files) });
    console.reply(text.trim_start_matches('\n'), &report)
}

fn list(file: &SettingsFile, console: &Console) -> Answer {
    warn_of_errors(file, console);
    let deployments = file.checked.deployments.as_slice();
    let text = match deployments {
        [] => "no deployment is trusted; `countersign pair` or `deployment add`\n".to_owned(),
        deployments => in_columns(deployments),
    };
    let report: Value = deployments.iter().map(deployment_in_json).collect();
    console.reply(text, &json!({ "deployments": report }))
}

fn show(file: &SettingsFile, name: &DeploymentName, console: &Console) -> Answer {
    warn_of_errors(file, console);
    let found = file.find(name);
    let deployment = found.ok_or_else(|| deployments::not_there(file, name))?;
    let names = ["name", "module", "environment", "roles"].into_iter();
    let mut lines: Vec<_> = names.zip(cells(deployment)).collect();
    lines.extend(deployment.keys.iter().map(|key| ("key", described(key))));
    let pins = deployment.tls_pins.iter();
    lines.extend(pins.map(|pin| ("TLS key", pin.to_string())));
    if deployment.single_use_tokens {
        lines.push(("tokens", "each accepted once".to_owned()));
    }
    let rows = lines
        .iter()
        .map(|(name, value)| format!("{name:<12} {value}\n"));
    console.reply(rows.collect::<String>(), &deployment_in_json(deployment))
}

fn described(key: &TrustedKey) -> String {
    let mut text = format!("{}  {}", redact_word(&key.name), key.key_id);
    let hash = key.key.fingerprint().to_string();
    if hash != key.key_id.as_str() {
        let _ = write!(text, "  (SPKI hash {hash})");
    }
    if key.revoked {
        text.push_str("  revoked");
    }
    text
}

fn in_columns(deployments: &[Deployment]) -> String {
    let mut rows = vec![["NAME", "MODULE", "ENVIRONMENT", "ROLES", "KEYS"].map(str::to_owned)];
    rows.extend(deployments.iter().map(|deployment| {
        let active = deployment.active_keys().count();
        let keys = match deployment.keys.len().saturating_sub(active) {
            0 => active.to_string(),
            revoked => format!("{active}, {revoked} revoked"),
        };
        let [name, module, environment, roles] = cells(deployment);
        [name, module, environment, roles, keys]
    }));
    table(&rows)
}

fn roles_of(deployment: &Deployment) -> Vec<String> {
    let roles = deployment.roles.iter();
    roles.map(|role| redact_word(role.as_str())).collect()
}

/// Returns the name, the module, the environment and the roles of a deployment.
fn cells(deployment: &Deployment) -> [String; 4] {
    let roles = roles_of(deployment);
    let environment = deployment.environment.as_ref().map(Environment::as_str);
    let (name, module) = (deployment.name.as_str(), deployment.module.as_str());
    let cells = [
        name,
        module,
        environment.unwrap_or_default(),
        &roles.join(","),
    ];
    cells.map(|cell| if cell.is_empty() { "-" } else { cell }.to_owned())
}

fn deployment_in_json(deployment: &Deployment) -> Value {
    let keys = deployment.keys.iter().map(|key| {
        let name = redact_word(&key.name);
        json!({ "name": name, "fingerprint": key.key_id.as_str(), "revoked": key.revoked })
    });
    json!({
        "name": deployment.name.as_str(),
        "module": deployment.module.as_str(),
        "environment": deployment.environment.as_ref().map(Environment::as_str),
        "roles": roles_of(deployment),
        "keys": keys.collect::<Value>(),
    })
}

/// Warns that the file may have more deployments than are shown.
fn warn_of_errors(file: &SettingsFile, console: &Console) {
    let errors = file.findings.errors();
    if errors > 0 {
        let path = file.path.display();
        let count = counted(errors, "error");
        console.warn(&format!(
            "{count} in `{path}`: faulty entries are not shown; this command shows them:"
        ));
        let check = CommandLine::new("countersign check").arg(&file.path);
        console.present(&format!("  {check}"));
    }
}
