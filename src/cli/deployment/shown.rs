//! What is told of trusted deployments.

use std::fmt::Write as _;

use serde::Serialize;

use super::refused;
use crate::admin::deployments::{DeploymentError, Plan, TrustFile};
use crate::cli::Answer;
use crate::cli::check::counted;
use crate::cli::output::{Console, Exit, Format};
use crate::cli::rotate::File;
use crate::identity::{DeploymentName, Environment, Role};
use crate::trust::{Deployment, TrustedKey};

pub(super) fn list(file: &TrustFile, console: &Console) -> Answer {
    incomplete(file, console);
    let trusted = file.deployments();
    match console.format() {
        Format::Json => console.json(&Listed {
            deployments: trusted.iter().map(Shown::of).collect(),
        })?,
        Format::Text if trusted.is_empty() => {
            console.answer("no deployment is trusted; `countersign pair` or `deployment add`\n")?;
        }
        Format::Text => console.answer(table(trusted))?,
    }
    Ok(Exit::Done)
}

pub(super) fn show(file: &TrustFile, name: &DeploymentName, console: &Console) -> Answer {
    incomplete(file, console);
    let Some(deployment) = file.find(name) else {
        let names = file.deployments().iter().map(|d| d.name.to_string());
        let known = names.collect();
        let name = name.clone();
        let error = DeploymentError::NotThere { name, known };
        return Err(refused(&error, None));
    };
    let shown = Shown::of(deployment);
    if console.format() == Format::Json {
        console.json(&shown)?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("name", shown.name);
    line("module", shown.module);
    line("environment", shown.environment.unwrap_or("-"));
    line("roles", &joined(&shown.roles));
    for key in &deployment.keys {
        line("key", &described(key));
    }
    for pin in &deployment.tls_pins {
        line("TLS key", &pin.to_string());
    }
    if deployment.single_use_tokens {
        line("tokens", "taken once each");
    }
    console.answer(text)?;
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

fn table(trusted: &[Deployment]) -> String {
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
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn joined(roles: &[&str]) -> String {
    match roles {
        [] => "-".to_owned(),
        roles => roles.join(","),
    }
}

/// Says that there may be more in the file than is shown.
fn incomplete(file: &TrustFile, console: &Console) {
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
#[derive(Serialize)]
pub(super) struct Report {
    written: bool,
    files: Vec<File>,
}

impl Report {
    pub(super) fn of(plan: &Plan, written: bool) -> Self {
        Self {
            written,
            files: File::all(std::slice::from_ref(plan.edited())),
        }
    }

    pub(super) fn nothing() -> Self {
        Self {
            written: false,
            files: Vec::new(),
        }
    }
}
