//! TLS of the server and of each connection, every property of its own from the most specific place
//! that has it; `countersign.deployments.<name>.tls-keys`; and what TLS needs to know before a module
//! runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;

use super::file::open_to_others;
use crate::config::read::Reader;
use crate::config::schema::TlsEnd;
use crate::config::settings::{ConnectionSettings, Home, Options, ReadDeployment, Side, Tls};
use crate::diagnostic::{Code, CommandLine, quote};
use crate::grpc::tls::{
    ClientAuth, ClientTlsOptions, OwnFiles, PemFile, ServerTlsOptions, TlsError,
};
use crate::jose::Fingerprint;
use crate::properties::name::uniform;
use crate::properties::{self, Sourced};

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
    let connections = options.client.connections.iter();
    let named = connections.filter_map(|one| Some((&*one.name, one.deployment.as_ref()?.as_str())));
    let chosen: HashMap<_, _> = named.collect();
    let (mut by_name, mut by_module) = (HashMap::new(), HashMap::new());
    for read in deployments {
        if let Some(known) = &read.deployment {
            by_name.insert(known.name.as_str(), vec![read]);
            let of_module: &mut Vec<_> = by_module.entry(known.module.as_str()).or_default();
            of_module.push(read);
        }
    }
    for (connection, side) in &options.tls.clients {
        let meant = match chosen.get(&**connection) {
            Some(name) => by_name.get(name),
            None => by_module.get(&**connection),
        };
        for read in meant.into_iter().flatten() {
            trusted(reader, side, connection, read);
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

/// Reports a file that cannot be used.
pub(super) fn unusable(reader: &mut Reader<'_>, error: Option<TlsError>) {
    let Some(error) = error else { return };
    let Some(file) = error.file() else { return };
    let at = place(reader, &file.setting);
    let help = match &error {
        TlsError::PrivateKey(file, _) => format!(
            "write it without a passphrase: `{}`, then `chmod 600 key.pem`, and set the path of that file",
            CommandLine::new("openssl pkey -out key.pem -in").arg(&file.path)
        ),
        _ => "set the path of a PEM file; a relative path starts at the module's home".to_owned(),
    };
    reader.report(Code::Cs0306, &at, crate::grpc::cause(&error), help);
}

/// Reports a private key that others may read or change.
pub(super) fn readable_by_others(reader: &mut Reader<'_>, file: &PemFile) {
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

const CERT_CHAIN: &str = "cert-chain";
const PRIVATE_KEY: &str = "private-key";
const TRUST: &str = "trust-cert-collection";

/// The connection whose TLS dialled-back engines get.
pub const DIAL_BACK: &str = "dpe";

/// Reads TLS of the server and of `connections`.
pub fn read(reader: &mut Reader<'_>, connections: &[ConnectionSettings]) -> Tls {
    let mut ends = Ends {
        folder: Home::new(reader.view.document.path()).dir,
        used: BTreeMap::new(),
        reader,
    };
    let server = ends.side(TlsEnd::Server, Ends::server);
    let mut clients = BTreeMap::new();
    let names = connections.iter().map(|connection| &*connection.name);
    for name in names.chain([DIAL_BACK]) {
        if !clients.contains_key(name) {
            let client = ends.side(TlsEnd::Client(name), Ends::client);
            clients.insert(name.to_owned(), client);
        }
    }
    ends.without_effect();
    Tls { server, clients }
}

/// Reads one end after the other.
struct Ends<'a, 'b> {
    reader: &'a mut Reader<'b>,
    /// Where the relative paths of PEM files start.
    folder: PathBuf,
    /// Settings that have an effect with TLS only, and whether an end that they are for uses it.
    used: BTreeMap<String, (&'b Sourced, bool)>,
}

impl<'b> Ends<'_, 'b> {
    fn server(&mut self, end: TlsEnd<'_>, at: &Sourced) -> Option<ServerTlsOptions> {
        let client_auth = self.client_auth(end).map(|(auth, _)| auth);
        let trust = self.file(end, TRUST);
        let Some(own) = self.own(end).ok()? else {
            self.no_certificate(end, at);
            return None;
        };
        Some(ServerTlsOptions {
            own,
            client_auth,
            trust,
            settings: end.start(),
        })
    }

    fn client(&mut self, end: TlsEnd<'_>, _: &Sourced) -> Option<ClientTlsOptions> {
        let auth = self.client_auth(end);
        let trust = self.file(end, TRUST);
        let files = self.own(end).ok()?;
        let settings = end.start();
        let own = match (files, auth) {
            (_, Some((ClientAuth::None, _))) => None,
            (None, Some((ClientAuth::Require, at))) => {
                let message = format!(
                    "a client certificate is to be shown, but `{settings}.cert-chain` and `.private-key` are missing"
                );
                let help = "name the two PEM files, or write `false`";
                self.reader.report(Code::Cs0306, at, message, help);
                return None;
            }
            (files, _) => files,
        };
        Some(ClientTlsOptions {
            own,
            trust,
            settings,
        })
    }

    /// Reads one end, and its `options` if TLS is on.
    fn side<'e, T>(
        &mut self,
        end: TlsEnd<'e>,
        options: fn(&mut Self, TlsEnd<'e>, &Sourced) -> Option<T>,
    ) -> Side<T> {
        let enabled = self.find(end, "enabled");
        // What is no word is an error, and nothing runs on a file with errors.
        let on = enabled
            .as_ref()
            .is_some_and(|(name, _)| self.reader.switch(name, &[end.key()]));
        for property in ["mtls", CERT_CHAIN, PRIVATE_KEY] {
            if let Some((_, at)) = self.find(end, property) {
                let setting = at.setting().unwrap_or_default();
                let (_, used) = self.used.entry(setting).or_insert((at, on));
                *used |= on;
            }
        }
        let cert_chain = self.find(end, CERT_CHAIN);
        let at = enabled.map(|(_, at)| at);
        let made = at.filter(|_| on).and_then(|at| options(self, end, at));
        Side {
            on,
            options: made,
            at: at.cloned(),
            cert_chain_at: cert_chain.map(|(_, at)| at.clone()),
        }
    }

    /// Notes settings that need TLS to have an effect, if their connection or server has no TLS.
    fn without_effect(&mut self) {
        for (setting, (at, used)) in std::mem::take(&mut self.used) {
            let asks_nothing = matches!(uniform(at.text().trim()).as_str(), "none" | "false");
            let (start, property) = setting.rsplit_once('.').unwrap_or(("", &setting));
            if used || (property == "mtls" && asks_nothing) {
                continue;
            }
            let end = if setting.starts_with("ataccama.server.") {
                "the listener speaks plaintext"
            } else {
                "the connection is plaintext"
            };
            let message = format!("`{setting}` has no effect without TLS: {end}");
            let help = format!("set `{start}.enabled=true`, or remove this");
            self.reader.report(Code::Cs0305, at, message, help);
        }
    }

    /// Finds the most specific setting that sets `property`, and not to nothing, with its value.
    fn find(&self, end: TlsEnd<'_>, property: &str) -> Option<(String, &'b Sourced)> {
        end.settings(property).find_map(|name| {
            let at = self.reader.raw(&name, &[end.key()])?;
            (!at.text().trim().is_empty()).then_some((name, at))
        })
    }

    fn client_auth(&mut self, end: TlsEnd<'_>) -> Option<(ClientAuth, &'b Sourced)> {
        use ClientAuth::{None as Off, Optional, Require};

        let (name, at) = self.find(end, "mtls")?;
        let values = [Off, Optional, Require, Require, Require, Off];
        let auth = self.reader.word(&name, &[end.key()], values)?;
        Some((auth, at))
    }

    /// Reads the own certificate and key; the error is reported already.
    fn own(&mut self, end: TlsEnd<'_>) -> Result<Option<OwnFiles>, Reported> {
        let [chain, key] = [CERT_CHAIN, PRIVATE_KEY].map(|property| self.find(end, property));
        let (at, missing) = match (chain, key) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let files = [CERT_CHAIN, PRIVATE_KEY].map(|property| self.file(end, property));
                let [chain, key] = files;
                let (cert_chain, private_key) = chain.zip(key).ok_or(Reported)?;
                return Ok(Some(OwnFiles::new(cert_chain, private_key)));
            }
            (Some((_, at)), None) => (at, PRIVATE_KEY),
            (None, Some((_, at))) => (at, CERT_CHAIN),
        };
        let message = format!("`{}` is missing beside this", end.setting(missing));
        let help = "a certificate and its private key go together";
        self.reader.report(Code::Cs0306, at, message, help);
        Err(Reported)
    }

    /// Reads a PEM file's path. `None` if it is not set or was reported.
    fn file(&mut self, end: TlsEnd<'_>, property: &str) -> Option<PemFile> {
        let (name, _) = self.find(end, property)?;
        let (named, at) = self.reader.parsed(&name, &[end.key()], path)?;
        Some(PemFile::new(self.folder.join(named), at.setting()?))
    }

    fn no_certificate(&mut self, end: TlsEnd<'_>, at: &Sourced) {
        let start = end.start();
        let message = format!("TLS is on, but `{start}.cert-chain` and `.private-key` are missing");
        let help = "name the two PEM files; `countersign pair --tls` makes a certificate and writes both settings";
        let found = self.reader.finding(Code::Cs0306, at, message);
        let setting = format!("{start}.cert-chain");
        self.reader.push(found.with_key(setting).with_help(help));
    }
}

/// A finding says why.
struct Reported;

/// Reads the path of a PEM file; the error goes on from the value.
pub(super) fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.starts_with("classpath:") {
        return Err(
            "is a place inside of a Java archive, which is not read; copy the PEM file out of it and name it with `file:`",
        );
    }
    let named = text.strip_prefix("file:").unwrap_or(text);
    match named.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => Ok(PathBuf::from(absolute)),
        Some(_) => Err("names a file on a different host; a local file is `file:/path`"),
        None if named.is_empty() => Err("names no file"),
        None => Ok(PathBuf::from(named)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_and_without_file_scheme_are_one() {
        for text in ["/a/b.pem", "file:/a/b.pem", "file:///a/b.pem"] {
            assert_eq!(path(text), Ok(PathBuf::from("/a/b.pem")), "{text}");
        }
        assert_eq!(path("file:etc/b.pem"), Ok(PathBuf::from("etc/b.pem")));
    }

    #[test]
    fn places_that_are_no_local_file_are_explained() {
        assert!(
            path("classpath:b.pem")
                .unwrap_err()
                .contains("Java archive")
        );
        assert!(
            path("file://host/b.pem")
                .unwrap_err()
                .contains("a different host")
        );
        assert_eq!(path("file:"), Err("names no file"));
    }
}
