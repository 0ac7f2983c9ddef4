//! `countersign.deployments.<name>.tls-keys`, and what TLS needs to know before a module runs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read as _};

use zeroize::Zeroizing;

use crate::config::options::Options;
use crate::config::parts::{ReadDeployment, ReadPin};
use crate::config::read::Reader;
use crate::diagnostic::{Code, Severity, quote};
use crate::grpc::tls::{ClientAuth, PemFile, TlsError};
use crate::properties::Sourced;

use super::file::open_to_others;

const FINGERPRINT: &str = "countersign.deployments.<name>.tls-keys.<key>.fingerprint";
const PAIR: &str = "`countersign pair --tls` pins both sides' certificates";

/// Reads the pins of `deployment`.
pub(super) fn pins(reader: &mut Reader<'_>, deployment: &str) -> Vec<ReadPin> {
    let names = reader.names_at(&["countersign", "deployments", deployment, "tls-keys"]);
    let pins = names.into_iter().filter_map(|key| {
        let keys = [deployment.to_owned(), key];
        let (fingerprint, at) = reader.parsed(FINGERPRINT, &keys, |text| {
            let why = "is not a fingerprint: the SHA-256 of a certificate's public key, 43 base64url characters";
            text.parse().map_err(|_error| why.to_owned())
        })?;
        Some(ReadPin { fingerprint, at })
    });
    pins.collect()
}

/// Reports files that cannot be used, pins that leave open who is who, and connections that would
/// trust no peer, or go without the TLS that a pin asks for.
pub(in crate::config) fn check(
    reader: &mut Reader<'_>,
    options: &Options,
    deployments: &[ReadDeployment],
) {
    files(reader, options);
    ambiguous(reader, options, deployments);
    clients_accepted(reader, options, deployments);
    for connection in options.tls.clients.keys() {
        let connections = &options.client.connections;
        let named = connections.iter().find(|named| named.name == *connection);
        let chosen = named.and_then(|named| named.deployment.as_ref());
        for read in deployments {
            let is_meant = read.deployment.as_ref().is_some_and(|known| match chosen {
                Some(chosen) => known.name == *chosen,
                None => known.module.as_str() == connection,
            });
            if is_meant {
                trusted(reader, options, connection, read);
            }
        }
    }
}

/// Reports files of certificates and keys that cannot be used, each setting once.
fn files(reader: &mut Reader<'_>, options: &Options) {
    let server = options.tls.server.options.as_ref();
    let clients = options.tls.clients.values();
    let clients: Vec<_> = clients.filter_map(|side| side.options.as_ref()).collect();
    let mut seen = BTreeSet::new();
    let own = server.map(|server| &server.own).into_iter();
    for files in own.chain(clients.iter().filter_map(|client| client.own.as_ref())) {
        let chain = &files.cert_chain;
        if !reader.question.assumed.contains(&chain.path) && seen.insert(&chain.setting) {
            if let Err(error) = files.check() {
                unusable(reader, &error);
            }
            readable_by_others(reader, &files.private_key);
        }
    }
    let trusted = clients.iter().filter_map(|client| client.trust.as_ref());
    for file in trusted.chain(server.and_then(|server| server.trust.as_ref())) {
        if seen.insert(&file.setting)
            && let Err(error) = file.check_trusted()
        {
            unusable(reader, &error);
        }
    }
}

/// Reports a file that cannot be used. In a check, whose file may be a copy from another machine,
/// one that does not exist is a warning.
fn unusable(reader: &mut Reader<'_>, error: &TlsError) {
    let Some(file) = error.file() else { return };
    let at = place(reader, &file.setting);
    if let TlsError::NoPrivateKey(file)
    | TlsError::Pem { file, .. }
    | TlsError::PrivateKey { file, .. } = error
        && is_encrypted(file)
    {
        let path = file.path.display();
        let message = format!("the private key in {file} is encrypted");
        let help = format!(
            "decrypt it: `openssl pkey -in {path} -out key.pem && chmod 600 key.pem`, and set the path of that file"
        );
        reader.report(Code::Cs0306, &at, message, help);
        return;
    }
    let severity = match error {
        TlsError::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
            reader.question.strict()
        }
        _ => Severity::Error,
    };
    let found = reader.finding(Code::Cs0306, &at, crate::grpc::cause(error));
    let help = "set the path of a PEM file; a relative path starts at the module's home";
    reader.push(found.with_severity(severity).with_help(help));
}

/// Returns `true` if a PEM file holds a private key that a passphrase protects.
fn is_encrypted(file: &PemFile) -> bool {
    /// A key is shorter, and TLS reads no larger file.
    const MOST: u64 = 1024 * 1024;
    let mut text = Zeroizing::new(Vec::new());
    let read = File::open(&file.path).and_then(|open| open.take(MOST).read_to_end(&mut text));
    let marks = [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        "Proc-Type: 4,ENCRYPTED",
    ];
    let text = String::from_utf8_lossy(&text);
    read.is_ok() && marks.iter().any(|mark| text.contains(mark))
}

/// Reports a private key that others may read or change.
#[cfg(unix)]
fn readable_by_others(reader: &mut Reader<'_>, file: &PemFile) {
    use std::os::unix::fs::PermissionsExt as _;

    let Ok(about) = std::fs::metadata(&file.path) else {
        return;
    };
    let mode = about.permissions().mode() & 0o777;
    if let Some((severity, who)) = open_to_others(mode) {
        let at = place(reader, &file.setting);
        let path = file.path.display();
        let message = format!("{who} the private key in `{path}` (mode {mode:04o})");
        let found = reader.finding(Code::Cs0108, &at, message);
        let help = format!("run `chmod 600 {path}`");
        reader.push(found.with_severity(severity).with_help(help));
    }
}

#[cfg(not(unix))]
fn readable_by_others(_: &mut Reader<'_>, _: &PemFile) {}

/// Finds the value of a setting by its full name.
fn place(reader: &Reader<'_>, setting: &str) -> Sourced {
    let path: Vec<_> = setting.split('.').collect();
    let here = reader.value_at(&path).cloned();
    here.unwrap_or_else(|| reader.first_below(&path))
}

/// Reports pins of the module's own certificate, and those that several deployments have.
fn ambiguous(reader: &mut Reader<'_>, options: &Options, deployments: &[ReadDeployment]) {
    let own = options.tls.server.options.as_ref();
    let own = own.and_then(|server| server.own.fingerprint().ok());
    let mut seen: Vec<(&str, &ReadPin)> = Vec::new();
    for read in deployments {
        for pin in &read.pins {
            let mut others = seen.iter().filter(|(name, _)| *name != read.name);
            let other = others.find(|(_, other)| other.fingerprint == pin.fingerprint);
            if own == Some(pin.fingerprint) {
                let message = "this is the key of the module's own certificate";
                let help = "pin the peer's certificate here; were the two swapped?";
                reader.report(Code::Cs0207, &pin.at, message, help);
            } else if let Some((_, other)) = other {
                let message = format!("this pin is also at {}", other.at.origin());
                let help = "keep one of the two; each deployment has its own certificate";
                reader.report(Code::Cs0208, &pin.at, message, help);
            }
            seen.push((&read.name, pin));
        }
    }
}

/// Reports a server that requires client certificates and would accept none.
fn clients_accepted(reader: &mut Reader<'_>, options: &Options, deployments: &[ReadDeployment]) {
    let side = &options.tls.server;
    let (Some(server), Some(at)) = (&side.options, &side.at) else {
        return;
    };
    let has_pins = deployments.iter().any(|read| !read.pins.is_empty());
    if server.client_auth == Some(ClientAuth::Require) && server.trust.is_none() && !has_pins {
        let start = &server.settings;
        let error = TlsError::NoClientAccepted(start.clone());
        let found = reader.finding(Code::Cs0306, at, error.to_string());
        let found = found.with_key(format!("{start}.mtls"));
        reader.push(found.with_help(PAIR));
    }
}

/// Reports a connection with TLS that would accept no certificate of `deployment`, and one without
/// TLS although its certificate is pinned.
fn trusted(
    reader: &mut Reader<'_>,
    options: &Options,
    connection: &str,
    deployment: &ReadDeployment,
) {
    let Some(side) = options.tls.clients.get(connection) else {
        return;
    };
    let name = quote(&deployment.name);
    match (&side.options, deployment.pins.first()) {
        (Some(client), None) if client.trust.is_none() => {
            let Some(at) = &side.at else { return };
            let settings = &client.settings;
            let error = TlsError::NothingTrusted {
                callee: format!("deployment {name}"),
                settings: settings.clone(),
            };
            let found = reader.finding(Code::Cs0306, at, error.to_string());
            let found = found.with_key(format!("{settings}.trust-cert-collection"));
            reader.push(found.with_help(PAIR));
        }
        (None, Some(pin)) if !side.on => {
            let message = format!(
                "the certificate of {name} is pinned, but connection `{connection}` would call it without TLS"
            );
            let help = format!(
                "write `ataccama.client.connection.{connection}.grpc.tls.enabled=true`, or remove the pin"
            );
            reader.report(Code::Cs0405, &pin.at, message, help);
        }
        _ => {}
    }
}
