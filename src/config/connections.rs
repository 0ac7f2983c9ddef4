//! Connections to other modules: whether somebody trusted is at their other end.

use crate::diagnostic::{Code, Severity, quote};
use crate::properties::name::uniform;

use super::deployments::ReadDeployment;
use super::read::Reader;
use super::schema;
use super::tls;
use super::view::{Part, finding};

const DEPLOYMENT: &str = "countersign.client.connection.<c>.deployment";
const CONNECTIONS: [&str; 2] = [
    "ataccama.client.connection",
    "countersign.client.connection",
];

/// Reports connections of which it cannot be told who is meant; to use one would fail.
pub(super) fn check(reader: &mut Reader<'_>, deployments: &[ReadDeployment]) {
    let mut names: Vec<String> = Vec::new();
    for name in CONNECTIONS.iter().flat_map(|path| reader.names(path)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        if reader.is_set(DEPLOYMENT, std::slice::from_ref(&name)) {
            named(reader, &name, deployments);
        } else if name != tls::DIAL_BACK {
            // Engines are dialled back each as its owner's.
            of_module(reader, &name, deployments);
        }
    }
}

/// CS0106: the deployment that is named must be trusted.
fn named(reader: &mut Reader<'_>, connection: &str, deployments: &[ReadDeployment]) {
    let keys = [connection.to_owned()];
    let Some(value) = reader.text(DEPLOYMENT, &keys) else {
        return;
    };
    let meant = uniform(value.text());
    if deployments.iter().any(|d| uniform(&d.name) == meant) {
        return;
    }
    let trusted: Vec<_> = deployments.iter().map(|d| d.name.as_str()).collect();
    let trusted = if trusted.is_empty() {
        "none".to_owned()
    } else {
        trusted.join(", ")
    };
    let message = format!("there is no trusted deployment {}", quote(value.text()));
    let found = reader.finding(Code::Cs0106, &value, message);
    reader.findings.push(
        found
            .with_key(schema::path(DEPLOYMENT, &keys).join("."))
            .with_help(format!("trusted are: {trusted}")),
    );
}

/// CS0301: without a name there must be exactly one of the connection's module type.
fn of_module(reader: &mut Reader<'_>, connection: &str, deployments: &[ReadDeployment]) {
    // One that cannot be read is reported already, and may be the one that is meant.
    let read: Option<Vec<_>> = deployments.iter().map(|d| d.deployment.as_ref()).collect();
    let Some(read) = read else { return };
    let fits = read.iter().filter(|d| d.module.as_str() == connection);
    let fits: Vec<_> = fits.map(|d| format!("`{}`", d.name)).collect();
    let module = quote(connection);
    let setting = DEPLOYMENT.replace("<c>", connection);
    let (message, help) = match fits.as_slice() {
        [_] => return,
        [] => (
            format!("no trusted deployment has the module {module} of this connection"),
            format!("pair the two modules with `countersign pair`, or name one: `{setting}=`"),
        ),
        several => (
            format!(
                "{} have the module {module} of this connection",
                several.join(" and ")
            ),
            format!("name the one that is meant: `{setting}=`"),
        ),
    };
    let mut path = schema::path("ataccama.client.connection", &[]);
    path.push(connection);
    let at = reader.first_below(&path);
    let found = finding(reader.view(), Code::Cs0301, &at, Part::Name, message);
    reader.findings.push(
        found
            .with_severity(Severity::Warning)
            .with_key(path.join("."))
            .with_help(help),
    );
}
