//! `countersign.deployments.<name>.tls-keys`, and what TLS needs to know before a module runs.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;

use crate::config::parts::{ReadDeployment, Side};
use crate::config::read::Reader;
use crate::config::settings::Options;
use crate::diagnostic::{Code, CommandLine, Severity, quote};
use crate::grpc::tls::{ClientAuth, ClientTlsOptions, PemFile, TlsError};
use crate::jose::Fingerprint;
use crate::properties::{self, Sourced};

use super::file::open_to_others;

/// The pins of a deployment.
pub const PINS: &str = "countersign.deployments.<name>.tls-keys";
/// One of them.
pub const PIN: &str = "countersign.deployments.<name>.tls-keys.<key>.fingerprint";
const PAIR: &str = "`countersign pair --tls` pins both sides' certificates";

/// Reads the pins of `deployment`.
pub fn pins(reader: &mut Reader<'_>, deployment: &str) -> Vec<(Fingerprint, Sourced)> {
    let names = reader.names(PINS, &[deployment]);
    let keys = names.into_iter().map(|key| [deployment, key]);
    keys.filter_map(|keys| reader.named(PIN, &keys, "a fingerprint", str::parse))
        .collect()
}

/// Reports files that cannot be used, pins that leave open who is who, and connections that would
/// trust no peer, or go without the TLS that a pin asks for.
pub fn check(reader: &mut Reader<'_>, options: &Options, deployments: &[ReadDeployment]) {
    files(reader, options);
    ambiguous(reader, options, deployments);
    clients_accepted(reader, options, deployments);
    for (connection, side) in &options.tls.clients {
        let named = options.client.connection(connection);
        let chosen = named.and_then(|named| named.deployment.as_ref());
        for read in deployments {
            let is_meant = read.deployment.as_ref().is_some_and(|known| match chosen {
                Some(chosen) => known.name == *chosen,
                None => known.module.as_str() == connection,
            });
            if is_meant {
                trusted(reader, side, connection, read);
            }
        }
    }
}

/// Reports files of certificates and keys that cannot be used, each setting once.
fn files(reader: &mut Reader<'_>, options: &Options) {
    let server = options.tls.server.options.iter();
    let of_server = server.map(|server| (Some(&server.own), server.trust.as_ref()));
    let sides = options.tls.clients.values();
    let of_clients = sides
        .filter_map(|side| side.options.as_ref())
        .map(|client| (client.own.as_ref(), client.trust.as_ref()));
    let mut seen = BTreeSet::new();
    for (own, trust) in of_server.chain(of_clients) {
        if let Some(files) = own
            && !reader.question.assumed.contains(&files.cert_chain.path)
            && seen.insert(&files.cert_chain.setting)
        {
            unusable(reader, files.check().err());
            readable_by_others(reader, &files.private_key);
        }
        if let Some(file) = trust.filter(|file| seen.insert(&file.setting)) {
            unusable(reader, file.check_trusted().err());
        }
    }
}

/// Reports a file that cannot be used. In a check, whose file may be a copy from another machine,
/// one that does not exist is a warning.
fn unusable(reader: &mut Reader<'_>, error: Option<TlsError>) {
    let Some(error) = error else { return };
    let Some(file) = error.file() else { return };
    let at = place(reader, &file.setting);
    let severity = match &error {
        TlsError::Read(_, error) if error.kind() == ErrorKind::NotFound => reader.question.strict(),
        _ => Severity::Error,
    };
    let found = reader.finding(Code::Cs0306, &at, crate::grpc::cause(&error));
    let help = match &error {
        TlsError::PrivateKey(file, _) => format!(
            "write it without a passphrase: `{}`, then `chmod 600 key.pem`, and set the path of that file",
            CommandLine::new("openssl pkey -out key.pem -in").arg(&file.path)
        ),
        _ => "set the path of a PEM file; a relative path starts at the module's home".to_owned(),
    };
    reader.push(found.with_severity(severity).with_help(help));
}

/// Reports a private key that others may read or change.
fn readable_by_others(reader: &mut Reader<'_>, file: &PemFile) {
    let path = file.path.display();
    let about = fs::metadata(&file.path).ok();
    let mode = about.map(|about| properties::mode(&about));
    let what = format!("the private key in `{path}`");
    if let Some((severity, message)) = mode.and_then(|mode| open_to_others(mode & 0o777, &what)) {
        let found = reader.finding(Code::Cs0108, &place(reader, &file.setting), message);
        let help = format!("run `{}`", CommandLine::new("chmod 600").arg(&file.path));
        reader.push(found.with_severity(severity).with_help(help));
    }
}

/// Finds the value of a setting by its full name.
fn place(reader: &Reader<'_>, setting: &str) -> Sourced {
    reader.place(&setting.split('.').collect::<Vec<_>>())
}

/// Reports pins of the module's own certificate, and those that several deployments have.
fn ambiguous(reader: &mut Reader<'_>, options: &Options, deployments: &[ReadDeployment]) {
    let server = options.tls.server.options.as_ref();
    let own = server.and_then(|server| server.own.fingerprint().ok());
    let mut first = HashMap::new();
    for read in deployments {
        for (pin, at) in &read.pins {
            let (name, other) = *first.entry(pin).or_insert((&read.name, at));
            if own == Some(*pin) {
                let message = "this is the key of the module's own certificate";
                let help = "pin the peer's certificate here; check if the two were swapped";
                reader.report(Code::Cs0207, at, message, help);
            } else if *name != read.name {
                let message = format!("this pin is also at {}", other.origin());
                let help = "keep one of the two; each deployment has its own certificate";
                reader.report(Code::Cs0208, at, message, help);
            }
        }
    }
}

/// Reports a server that requires client certificates and would accept none.
fn clients_accepted(reader: &mut Reader<'_>, options: &Options, deployments: &[ReadDeployment]) {
    let side = &options.tls.server;
    let Some((server, at)) = side.options.as_ref().zip(side.at.as_ref()) else {
        return;
    };
    let has_pins = deployments.iter().any(|read| !read.pins.is_empty());
    if server.client_auth == Some(ClientAuth::Require) && server.trust.is_none() && !has_pins {
        let start = &server.settings;
        let error = TlsError::no_client_accepted(start);
        let found = reader.finding(Code::Cs0306, at, error.to_string());
        let setting = format!("{start}.mtls");
        reader.push(found.with_key(setting).with_help(PAIR));
    }
}

/// Reports a connection with TLS that would accept no certificate of `deployment`, and one without
/// TLS although its certificate is pinned.
fn trusted(
    reader: &mut Reader<'_>,
    side: &Side<ClientTlsOptions>,
    connection: &str,
    deployment: &ReadDeployment,
) {
    let name = quote(&deployment.name);
    match (&side.options, &side.at, deployment.pins.first()) {
        (Some(client), Some(at), None) if client.trust.is_none() => {
            let settings = client.settings.clone();
            let key = format!("{settings}.trust-cert-collection");
            let callee = format!("deployment {name}");
            let error = TlsError::nothing_trusted(&callee, &settings);
            let found = reader.finding(Code::Cs0306, at, error.to_string());
            reader.push(found.with_key(key).with_help(PAIR));
        }
        (None, _, Some((_, at))) if !side.on => {
            let message = format!(
                "the certificate of {name} is pinned, but connection `{connection}` would call it without TLS"
            );
            let help = format!(
                "write `ataccama.client.connection.{connection}.grpc.tls.enabled=true`, or remove the pin"
            );
            reader.report(Code::Cs0405, at, message, help);
        }
        _ => {}
    }
}
