//! `countersign.deployments.<name>.tls-keys`, and what TLS needs to know before a module runs.

use std::fs::File;
use std::io::{self, Read as _};

use zeroize::Zeroizing;

use crate::diagnostic::{Code, Finding, Severity, quote};
use crate::grpc::tls::{ClientAuth, OwnFiles, PemFile, TlsError};
use crate::jose::Fingerprint;
use crate::properties::Sourced;

use super::check::Purpose;
use super::deployments::ReadDeployment;
use super::options::Options;
use super::read::Reader;
use super::schema;

const FINGERPRINT: &str = "countersign.deployments.<name>.tls-keys.<key>.fingerprint";

/// A pin as the file has it.
#[derive(Clone, Debug)]
pub(super) struct ReadPin {
    pub(super) fingerprint: Fingerprint,
    pub(super) at: Sourced,
    setting: String,
}

impl ReadPin {
    /// Returns the full name of its setting.
    pub(super) fn setting(&self) -> &str {
        &self.setting
    }
}

/// Reads the pins of `deployment`.
pub(super) fn read(reader: &mut Reader<'_>, deployment: &str) -> Vec<ReadPin> {
    let mut pins = Vec::new();
    let path = ["countersign", "deployments", deployment, "tls-keys"];
    for key in reader.names_at(&path) {
        let keys = [deployment.to_owned(), key];
        let Some(at) = reader.text(FINGERPRINT, &keys) else {
            continue;
        };
        match at.text().parse() {
            Ok(fingerprint) => pins.push(ReadPin {
                fingerprint,
                at,
                setting: schema::path(FINGERPRINT, &keys).join("."),
            }),
            Err(_) => reader.wrong(
                FINGERPRINT,
                &keys,
                &at,
                "is no fingerprint: the SHA-256 of a certificate's public key, 43 base64url characters",
            ),
        }
    }
    pins
}

/// Reports files that cannot be used, pins that leave open who is who, and connections that would
/// trust nobody, or go without the TLS that a pin asks for.
pub(super) fn check(
    reader: &mut Reader<'_>,
    options: &Options,
    deployments: &[ReadDeployment],
    about: &About<'_>,
) {
    files(reader, options, about);
    ambiguous(reader, options, deployments);
    clients_accepted(reader, options, deployments);
    for (connection, meant) in connections(options, deployments) {
        trusted(reader, options, &connection, &meant);
    }
}

/// What the file is looked at for.
pub(super) struct About<'a> {
    pub(super) purpose: Purpose,
    /// Files that will be there by the time it counts.
    pub(super) assumed: &'a [std::path::PathBuf],
}

/// Which deployments each connection is for.
fn connections<'d>(
    options: &Options,
    deployments: &'d [ReadDeployment],
) -> Vec<(String, Vec<&'d ReadDeployment>)> {
    let named = |name: &str| {
        let connections = &options.client.connections;
        let connection = connections
            .iter()
            .find(|connection| connection.name == name);
        connection.and_then(|connection| connection.deployment.clone())
    };
    let meant = |name: &String| {
        let chosen = named(name);
        let fits = |read: &&ReadDeployment| {
            read.deployment.as_ref().is_some_and(|known| match &chosen {
                Some(chosen) => known.name == *chosen,
                None => known.module.as_str() == name,
            })
        };
        (name.clone(), deployments.iter().filter(fits).collect())
    };
    options.tls.clients.keys().map(meant).collect()
}

fn files(reader: &mut Reader<'_>, options: &Options, about: &About<'_>) {
    let mut seen: Vec<String> = Vec::new();
    let mut own = |reader: &mut Reader<'_>, files: &OwnFiles| {
        let setting = &files.cert_chain.setting;
        if !seen.contains(setting) && !about.assumes(&files.cert_chain) {
            seen.push(setting.clone());
            if let Err(error) = files.check() {
                unusable(reader, &error, about.purpose);
            }
            readable_by_others(reader, &files.private_key);
        }
    };
    if let Some(server) = &options.tls.server.options {
        own(reader, &server.own);
    }
    let clients = options.tls.clients.values();
    let clients: Vec<_> = clients.filter_map(|side| side.options.as_ref()).collect();
    for files in clients.iter().filter_map(|client| client.own.as_ref()) {
        own(reader, files);
    }
    let server = options.tls.server.options.as_ref();
    let server = server.and_then(|server| server.trust.as_ref());
    let mut trusted: Vec<&PemFile> = clients.iter().filter_map(|c| c.trust.as_ref()).collect();
    trusted.extend(server);
    trusted.dedup_by(|one, other| one.setting == other.setting);
    for file in trusted {
        if let Err(error) = file.check_trusted() {
            unusable(reader, &error, about.purpose);
        }
    }
}

impl About<'_> {
    fn assumes(&self, file: &PemFile) -> bool {
        self.assumed.contains(&file.path)
    }
}

/// Reports a file that cannot be used. For a person, whose file may be a copy from another
/// machine, one that is not there is a warning.
fn unusable(reader: &mut Reader<'_>, error: &TlsError, purpose: Purpose) {
    let Some(file) = error.file() else { return };
    let missing =
        matches!(error, TlsError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound);
    let severity = if missing && purpose == Purpose::Check {
        Severity::Warning
    } else {
        Severity::Error
    };
    let at = place(reader, &file.setting);
    if let TlsError::NoPrivateKey(file)
    | TlsError::Pem { file, .. }
    | TlsError::PrivateKey { file, .. } = error
        && is_encrypted(file)
    {
        let found = reader.finding(
            Code::Cs0306,
            &at,
            format!("the private key in {file} is encrypted"),
        );
        let path = file.path.display();
        let help = format!(
            "decrypt it: `openssl pkey -in {path} -out key.pem && chmod 600 key.pem`, and name that file"
        );
        reader
            .findings
            .push(found.with_key(&file.setting).with_help(help));
        return;
    }
    let message = crate::grpc::cause(error);
    let found = reader.finding(Code::Cs0306, &at, message);
    let found = found.with_severity(severity).with_key(&file.setting);
    reader
        .findings
        .push(found.with_help("name a PEM file; a relative path starts at the module's home"));
}

/// Tells whether a PEM file holds a private key that a passphrase protects.
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
    let (severity, who) = match (mode & 0o022, mode & 0o004) {
        (0, 0) => return,
        (0, _) => (Severity::Warning, "everybody on this machine can read"),
        _ => (Severity::Error, "others may write"),
    };
    let path = file.path.display();
    let at = place(reader, &file.setting);
    let message = format!("{who} the private key in `{path}` (mode {mode:04o})");
    let found = reader.finding(Code::Cs0108, &at, message);
    let found = found.with_severity(severity).with_key(&file.setting);
    reader
        .findings
        .push(found.with_help(format!("run `chmod 600 {path}`")));
}

#[cfg(not(unix))]
fn readable_by_others(_: &mut Reader<'_>, _: &PemFile) {}

/// Finds the value of a setting by its full name.
fn place(reader: &Reader<'_>, setting: &str) -> Sourced {
    let path: Vec<_> = setting.split('.').collect();
    let here = reader.value_at(&path).cloned();
    here.unwrap_or_else(|| reader.first_below(&path))
}

fn ambiguous(reader: &mut Reader<'_>, options: &Options, deployments: &[ReadDeployment]) {
    let own = options.tls.server.options.as_ref();
    let own = own.and_then(|server| server.own.fingerprint().ok());
    let all = deployments.iter();
    let all: Vec<_> = all
        .flat_map(|d| d.pins.iter().map(move |pin| (d, pin)))
        .collect();
    for (n, (deployment, pin)) in all.iter().enumerate() {
        let earlier = all.iter().take(n);
        let mut earlier = earlier.filter(|(_, other)| other.fingerprint == pin.fingerprint);
        let found = if own == Some(pin.fingerprint) {
            let message = "this is the key of the module's own certificate";
            let found = reader.finding(Code::Cs0207, &pin.at, message);
            found.with_help("pin the peer's certificate here; were the two swapped?")
        } else if let Some((_, other)) = earlier.find(|(other, _)| other.name != deployment.name) {
            let message = format!("this pin also stands at {}", other.at.origin());
            let found = reader.finding(Code::Cs0208, &pin.at, message);
            found.with_help("keep one of the two; each deployment has its own certificate")
        } else {
            continue;
        };
        reader.findings.push(found.with_key(&pin.setting));
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
        reader
            .findings
            .push(found.with_help("`countersign pair --tls` pins both sides' certificates"));
    }
}

/// Reports a connection with TLS that would accept no certificate, and one without to somebody
/// whose certificate is pinned.
fn trusted(
    reader: &mut Reader<'_>,
    options: &Options,
    connection: &str,
    meant: &[&ReadDeployment],
) {
    let Some(side) = options.tls.clients.get(connection) else {
        return;
    };
    for deployment in meant {
        let found = match (&side.options, deployment.pins.first()) {
            (Some(client), None) if client.trust.is_none() => {
                let Some(at) = &side.at else { continue };
                nobody_trusted(reader, at, &client.settings, deployment)
            }
            (None, Some(pin)) if !side.on => plaintext(reader, connection, pin, deployment),
            _ => continue,
        };
        reader.findings.push(found);
    }
}

fn nobody_trusted(
    reader: &Reader<'_>,
    at: &Sourced,
    settings: &str,
    deployment: &ReadDeployment,
) -> Finding {
    let error = TlsError::NothingTrusted {
        callee: format!("deployment {}", quote(&deployment.name)),
        settings: settings.to_owned(),
    };
    let found = reader.finding(Code::Cs0306, at, error.to_string());
    found
        .with_key(format!("{settings}.trust-cert-collection"))
        .with_help("`countersign pair --tls` pins both sides' certificates")
}

fn plaintext(
    reader: &Reader<'_>,
    connection: &str,
    pin: &ReadPin,
    deployment: &ReadDeployment,
) -> Finding {
    let message = format!(
        "the certificate of {} is pinned, but connection `{connection}` would call it without TLS",
        quote(&deployment.name)
    );
    let setting = format!("ataccama.client.connection.{connection}.grpc.tls.enabled");
    let found = reader.finding(Code::Cs0405, &pin.at, message);
    found
        .with_key(&pin.setting)
        .with_help(format!("write `{setting}=true`, or remove the pin"))
}
