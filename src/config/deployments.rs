//! The trusted deployments of one file, and everything that can be wrong with them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::thread;

use crate::diagnostic::{Code, Origin, quote};
use crate::identity::{DeploymentName, Environment, ModuleType, Role, Roles};
use crate::jose::{KeyId, VerifyingKey};
use crate::properties::Sourced;
use crate::properties::name::uniform;
use crate::trust::{Deployment, TrustedKey};

use super::check::Purpose;
use super::gather::DEPLOYMENTS;
use super::pins::{self, ReadPin};
use super::read::Reader;
use super::schema;
use super::trusted_key;
use super::view::{Part, finding};

/// A deployment as the file has it: what could be read of it, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct ReadDeployment {
    pub(super) name: String,
    pub(super) environment: Option<Sourced>,
    pub(super) keys: Vec<ReadKey>,
    pub(super) pins: Vec<ReadPin>,
    /// The deployment, where nothing required is missing.
    pub(super) deployment: Option<Deployment>,
}

/// A key as the file has it.
#[derive(Clone, Debug)]
pub(super) struct ReadKey {
    pub(super) name: String,
    pub(super) key: VerifyingKey,
    pub(super) key_id: KeyId,
    pub(super) revoked: bool,
    /// Where that is written; none where it is the default.
    pub(super) said: Option<Said>,
    pub(super) at: Sourced,
}

/// Where it is written whether a key is revoked.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) origin: Origin,
    /// Whether the word itself stands there, not a placeholder.
    pub(super) literally: bool,
}

/// Reads every deployment.
pub(super) fn read(
    reader: &mut Reader<'_>,
    impersonation: &Role,
    purpose: Purpose,
) -> Vec<ReadDeployment> {
    let names = reader.names(DEPLOYMENTS);
    colliding(reader, &schema::path(DEPLOYMENTS, &[]), &names);
    let read = |name: &String| {
        // Calls that arrive meanwhile go first.
        thread::yield_now();
        deployment(reader, name, impersonation, purpose)
    };
    names.iter().map(read).collect()
}

/// Reports names that are one to everything but the eye.
fn colliding(reader: &mut Reader<'_>, place: &[&str], names: &[String]) {
    let mut seen: HashMap<String, &String> = HashMap::new();
    for name in names {
        let first = match seen.entry(uniform(name)) {
            Entry::Vacant(vacant) => {
                vacant.insert(name);
                continue;
            }
            Entry::Occupied(first) => *first.get(),
        };
        let mut path = place.to_vec();
        path.push(name);
        let at = reader.first_below(&path);
        let message = format!(
            "{} and {} differ only in case or dashes: they are one name",
            quote(first),
            quote(name)
        );
        let found = finding(reader.view(), Code::Cs0304, &at, Part::Name, message);
        reader.findings.push(
            found
                .with_key(path.join("."))
                .with_help(format!("write {} everywhere, or rename one", quote(first))),
        );
    }
}

fn deployment(
    reader: &mut Reader<'_>,
    name: &str,
    impersonation: &Role,
    purpose: Purpose,
) -> ReadDeployment {
    let keys = [name.to_owned()];
    let checked = checked_name(reader, name);
    let module = module(reader, &keys);
    let environment = environment(reader, &keys);
    let roles = roles(reader, &keys, impersonation);
    let read = trusted_keys(reader, name, purpose);
    let single_use = single_use_tokens(reader, name);
    let pins = pins::read(reader, name);
    let deployment = checked.zip(module).map(|(name, module)| Deployment {
        name,
        module,
        environment: environment
            .as_ref()
            .map(|(environment, _)| environment.clone()),
        roles,
        keys: read.iter().map(trusted).collect(),
        single_use_tokens: single_use,
        tls_pins: pins.iter().map(|pin| pin.fingerprint).collect(),
    });
    ReadDeployment {
        name: name.to_owned(),
        environment: environment.map(|(_, at)| at),
        keys: read,
        pins,
        deployment,
    }
}

fn trusted(key: &ReadKey) -> TrustedKey {
    TrustedKey {
        name: key.name.clone(),
        key_id: key.key_id.clone(),
        key: key.key.clone(),
        revoked: key.revoked,
    }
}

fn place(name: &str) -> Vec<&str> {
    let mut path = schema::path(DEPLOYMENTS, &[]);
    path.push(name);
    path
}

/// Reports what is missing in a deployment, at the first line of it.
fn missing(reader: &mut Reader<'_>, path: &[&str], message: String, help: String) {
    let at = reader.first_below(path);
    let found = finding(reader.view(), Code::Cs0301, &at, Part::Name, message);
    reader
        .findings
        .push(found.with_key(path.join(".")).with_help(help));
}

fn checked_name(reader: &mut Reader<'_>, name: &str) -> Option<DeploymentName> {
    match DeploymentName::new(name) {
        Ok(name) => Some(name),
        Err(error) => {
            let message = format!("{} is no deployment name: {error}", quote(name));
            let help = "use 1 to 40 letters, digits and dashes, the same name in every file";
            missing(reader, &place(name), message, help.to_owned());
            None
        }
    }
}

fn module(reader: &mut Reader<'_>, keys: &[String; 1]) -> Option<ModuleType> {
    let name = "ataccama.one.platform.deployments.<name>.module";
    let [deployment] = keys;
    let Some(value) = reader.text(name, keys) else {
        if !reader.is_set(name, keys) {
            let message = format!("deployment {} has no `module`", quote(deployment));
            let help =
                format!("add `{DEPLOYMENTS}.{deployment}.module=` and its type, such as `dpe`");
            missing(reader, &place(deployment), message, help);
        }
        return None;
    };
    match ModuleType::new(value.text()) {
        Ok(module) => Some(module),
        Err(error) => {
            let message = format!("{} is no module type: {error}", quote(value.text()));
            let found = reader.finding(Code::Cs0301, &value, message);
            reader.findings.push(
                found
                    .with_key(format!("{DEPLOYMENTS}.{deployment}.module"))
                    .with_help("write the type alone, such as `dpm` or `dpe`"),
            );
            None
        }
    }
}

fn environment(reader: &mut Reader<'_>, keys: &[String; 1]) -> Option<(Environment, Sourced)> {
    let name = "ataccama.one.platform.deployments.<name>.environment";
    let value = reader.text(name, keys)?;
    match Environment::new(value.text()) {
        Ok(environment) => Some((environment, value)),
        Err(error) => {
            reader.wrong(name, keys, &value, &format!("is no environment: {error}"));
            None
        }
    }
}

fn roles(reader: &mut Reader<'_>, keys: &[String; 1], impersonation: &Role) -> Roles {
    let name = "ataccama.one.platform.deployments.<name>.security.roles";
    let [deployment] = keys;
    let elements = reader.list(name, keys);
    let mut roles = Vec::new();
    for element in &elements {
        match Role::new(element.text()) {
            Ok(role) => roles.push(role),
            Err(error) => reader.wrong(name, keys, element, &format!("is no role: {error}")),
        }
    }
    let given = !elements.is_empty() && roles.len() < elements.len();
    let roles: Roles = roles.into_iter().collect();
    if given || roles.contains(impersonation) {
        return roles;
    }
    let message = match elements.first() {
        None => format!("deployment {} has no role", quote(deployment)),
        Some(_) => format!(
            "deployment {} lacks the role {impersonation}",
            quote(deployment)
        ),
    };
    let at = elements.first().cloned();
    let part = if at.is_some() {
        Part::Value
    } else {
        Part::Name
    };
    let at = at.unwrap_or_else(|| reader.first_below(&place(deployment)));
    let found = finding(reader.view(), Code::Cs0303, &at, part, message);
    let setting = schema::path(name, keys).join(".");
    reader.findings.push(
        found
            .with_help(format!("write `{setting}[0]={impersonation}`"))
            .with_key(setting),
    );
    roles
}

fn single_use_tokens(reader: &mut Reader<'_>, deployment: &str) -> bool {
    let setting = "countersign.deployments.<name>.single-use-tokens";
    let keys = [deployment.to_owned()];
    reader.switch(setting, &keys).unwrap_or(false)
}

fn trusted_keys(reader: &mut Reader<'_>, deployment: &str, purpose: Purpose) -> Vec<ReadKey> {
    let mut path = place(deployment);
    path.extend(["security", "jwt-keys"]);
    let names = reader.names_at(&path);
    if names.is_empty() {
        let message = format!("deployment {} has no key", quote(deployment));
        let help = "add the peer's `security.jwt-keys.key.fingerprint` and `.content`, or let `countersign pair` write them";
        missing(reader, &place(deployment), message, help.to_owned());
        return Vec::new();
    }
    colliding(reader, &path, &names);
    let mut keys = Vec::new();
    for name in &names {
        keys.extend(trusted_key::read(reader, deployment, name, purpose));
    }
    if keys.len() == names.len() && keys.iter().all(|key| key.revoked) {
        let at = keys.first().map(|key| key.at.clone());
        let at = at.unwrap_or_else(|| reader.first_below(&path));
        let message = format!("every key of deployment {} is revoked", quote(deployment));
        let found = reader.finding(Code::Cs0302, &at, message);
        reader.findings.push(
            found
                .with_key(path.join("."))
                .with_help("add the deployment's new key, or remove the deployment"),
        );
    }
    keys
}
