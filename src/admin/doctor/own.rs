//! Config and own key: what can be examined without a network.

use std::path::Path;
use std::time::SystemTime;

use super::report::{Diagnosis, Layer, Row, Side};
use crate::clock::Age;
use crate::config::{LoadError, Settings};
use crate::diagnostic::{Severity, redact};
use crate::grpc::{ModuleError, cause};

const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

/// Makes the row of settings that can be used.
pub(super) fn config(settings: &Settings) -> Row {
    let file = settings.home.file.display();
    let problems = match settings.findings.warnings() {
        0 => "0 problems".to_owned(),
        1 => "1 warning".to_owned(),
        more => format!("{more} warnings"),
    };
    Row::ok(Layer::Config, format!("{file}, {problems}"))
}

/// Makes the row of the key that the module signs with.
pub(super) fn key(settings: &Settings, now: SystemTime) -> Row {
    let own = &settings.own;
    let mut key = own.key_id.to_string();
    if let Some(name) = &own.name {
        key.extend([" of ", name.as_str()]);
    }
    if let Some(age) = own.key.made_at().and_then(|made| Age::between(made, now)) {
        key.extend([" (age ", &age.to_string(), ")"]);
    }
    Row::ok(Layer::OwnKey, key)
}

/// Makes the row for settings that cannot start a module.
pub(super) fn no_module(error: &ModuleError) -> Row {
    Row::fail(Layer::OwnKey, Side::Here, cause(error))
}

/// Returns the diagnosis of a module whose settings cannot be used: `file` holds them.
pub fn unusable(error: &LoadError, file: &Path) -> Diagnosis {
    // A key that was given in place of the home is not shown.
    let name = redact(&file.display().to_string());
    let Some(findings) = error.findings() else {
        let help = if file.is_file() {
            format!("let this user read it: ls -l {name}")
        } else {
            "--home takes a module's folder, with `etc/application.properties` in it".to_owned()
        };
        let row = Row::fail(Layer::Config, Side::Here, redact(&cause(error)));
        return Diagnosis::of_own(vec![row.help(help)]);
    };
    let mut errors: Vec<_> = findings.iter().collect();
    errors.retain(|found| found.severity() == Severity::Error);
    let layer = if errors.iter().all(|found| found.key() == Some(OWN_KEY)) {
        Layer::OwnKey
    } else {
        errors.retain(|found| found.key() != Some(OWN_KEY));
        Layer::Config
    };
    let detail = match errors.as_slice() {
        [] => String::new(),
        [found] => found.to_string(),
        [first, more @ ..] => format!("{first} (and {} more)", more.len()),
    };
    let explain = errors.first().map(|found| found.code());
    let failed = Row::fail(layer, Side::Here, detail)
        .help(format!("countersign check {name}"))
        .helps(explain.map(|code| format!("countersign explain {code}")));
    let config = (layer == Layer::OwnKey).then(|| Row::ok(Layer::Config, name));
    Diagnosis::of_own(config.into_iter().chain([failed]).collect())
}
