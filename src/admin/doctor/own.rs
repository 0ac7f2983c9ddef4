//! Config and own key: what can be told without a network.

use std::time::SystemTime;

use super::report::{Diagnosis, Fault, Layer, Row, Side, State};
use crate::clock::Age;
use crate::config::{LoadError, Settings};
use crate::diagnostic::{Finding, Severity, redact};
use crate::grpc::{ModuleError, cause};

const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

/// Returns the two rows of a module whose settings can be used.
pub fn own_module(settings: &Settings, now: SystemTime) -> Vec<Row> {
    let file = settings.home.file.display();
    let warnings = settings.findings.warnings();
    let problems = match warnings {
        0 => "0 problems".to_owned(),
        1 => "1 warning".to_owned(),
        more => format!("{more} warnings"),
    };
    let own = &settings.own;
    let name = own.name.as_ref();
    let name = name.map_or_else(String::new, |name| format!(" of {name}"));
    let made_at = own.key.made_at();
    let age = made_at.and_then(|then| Age::between(then, now));
    let age = age.map_or_else(String::new, |age| format!(" (age {age})"));
    vec![
        Row::new(Layer::Config, State::Ok, format!("{file}, {problems}")),
        Row::new(
            Layer::OwnKey,
            State::Ok,
            format!("{}{name}{age}", own.key_id),
        ),
    ]
}

/// Returns the diagnosis of a module whose settings cannot be used: `file` is theirs.
pub fn unusable(error: &LoadError, file: &std::path::Path) -> Diagnosis {
    // Whoever puts a key in place of the home does not see it again.
    let name = redact(&file.display().to_string());
    let Some(findings) = error.findings() else {
        let fault = Fault::new(Side::Here, redact(&cause(error)));
        let fault = fault.help(if file.is_file() {
            format!("let this user read it: ls -l {name}")
        } else {
            "--home takes a module's folder, with `etc/application.properties` in it".to_owned()
        });
        return Diagnosis::of_own(vec![Row::fail(Layer::Config, fault)]);
    };
    let errors = findings
        .iter()
        .filter(|found| found.severity() == Severity::Error);
    let (key, other): (Vec<_>, Vec<_>) = errors.partition(|found| found.key() == Some(OWN_KEY));
    let mut rows = Vec::new();
    if other.is_empty() {
        rows.push(Row::new(Layer::Config, State::Ok, name.clone()));
    }
    let (layer, shown) = match other.as_slice() {
        [] => (Layer::OwnKey, key),
        _ => (Layer::Config, other),
    };
    let fault = Fault::new(Side::Here, told(&shown)).help(format!("countersign check {name}"));
    let fault = match shown.first() {
        Some(first) => fault.help(format!("countersign explain {}", first.code())),
        None => fault,
    };
    rows.push(Row::fail(layer, fault));
    Diagnosis::of_own(rows)
}

fn told(findings: &[&Finding]) -> String {
    let more = match findings.len().saturating_sub(1) {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let first = findings
        .first()
        .map_or_else(String::new, ToString::to_string);
    format!("{first}{more}")
}

pub(super) fn no_module(error: &ModuleError) -> Row {
    Row::fail(Layer::OwnKey, Fault::new(Side::Here, cause(error)))
}
