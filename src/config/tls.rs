//! TLS of the server and of each connection: every property of its own from the most specific
//! place that has it.

mod chain;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Severity};
use crate::grpc::tls::{ClientAuth, ClientTlsOptions, OwnFiles, PemFile, ServerTlsOptions};
use crate::properties::Sourced;
use crate::properties::name::{Name, uniform};

use super::own::Home;
use super::read::Reader;
use chain::{Chain, Found};

/// Most specific first.
const SERVER: &[&str] = &["ataccama.server.grpc.tls", "ataccama.server.tls"];
const CLIENT: &[&str] = &[
    "ataccama.client.connection.<c>.grpc.tls",
    "ataccama.client.connection.<c>.tls",
    "ataccama.client.grpc.tls",
    "ataccama.client.tls",
];

/// The connection whose TLS dialled-back engines get.
pub(super) const DIAL_BACK: &str = "dpe";

/// TLS as one file has it.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) server: Side<ServerTlsOptions>,
    /// By connection.
    pub(super) clients: BTreeMap<String, Side<ClientTlsOptions>>,
}

impl Tls {
    /// Tells whether the connection `name` uses TLS.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.clients.get(name).is_some_and(|side| side.on)
    }

    pub(super) fn client(&self, name: &str) -> Option<ClientTlsOptions> {
        self.clients.get(name)?.options.clone()
    }
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Side<T> {
    pub(super) on: bool,
    /// Where it is turned on or off, if anywhere.
    pub(super) at: Option<Sourced>,
    /// Where the own certificate is named, if anywhere.
    pub(super) cert_chain_at: Option<Sourced>,
    /// None where it is off or something is missing.
    pub(super) options: Option<T>,
}

/// Reads TLS of the server and of `connections`.
pub(super) fn read(reader: &mut Reader<'_>, connections: &[String]) -> Tls {
    let mut settings = Settings::new(reader);
    let server = settings.server();
    let mut clients = BTreeMap::new();
    for name in connections.iter().map(String::as_str).chain([DIAL_BACK]) {
        if !clients.contains_key(name) {
            clients.insert(name.to_owned(), settings.client(name));
        }
    }
    settings.without_effect();
    Tls { server, clients }
}

/// Reads each setting once, however many connections fall back to it.
struct Settings<'a, 'b> {
    reader: &'a mut Reader<'b>,
    folder: PathBuf,
    switches: BTreeMap<String, bool>,
    words: BTreeMap<String, Option<ClientAuth>>,
    files: BTreeMap<String, Option<PemFile>>,
    /// Settings of an end that uses TLS.
    in_effect: BTreeSet<String>,
    /// Settings of an end that does not.
    idle: BTreeMap<String, Found>,
}

impl<'a, 'b> Settings<'a, 'b> {
    fn new(reader: &'a mut Reader<'b>) -> Self {
        Self {
            folder: Home::new(reader.view().document().path()).dir,
            reader,
            switches: BTreeMap::new(),
            words: BTreeMap::new(),
            files: BTreeMap::new(),
            in_effect: BTreeSet::new(),
            idle: BTreeMap::new(),
        }
    }

    fn server(&mut self) -> Side<ServerTlsOptions> {
        let chain = Chain {
            prefixes: SERVER,
            connection: String::new(),
        };
        let mut side = self.side(&chain);
        if !side.on {
            return side;
        }
        let client_auth = self.client_auth(&chain);
        let trust = self.file(&chain, "trust-cert-collection");
        match self.own(&chain) {
            Ok(Some(own)) => {
                side.options = Some(ServerTlsOptions {
                    own,
                    client_auth: client_auth.and_then(|(auth, _)| auth),
                    trust,
                    settings: chain.start(),
                });
            }
            Ok(None) => self.no_certificate(&chain, side.at.as_ref()),
            Err(Reported) => {}
        }
        side
    }

    fn client(&mut self, name: &str) -> Side<ClientTlsOptions> {
        let chain = Chain {
            prefixes: CLIENT,
            connection: name.to_owned(),
        };
        let mut side = self.side(&chain);
        if !side.on {
            return side;
        }
        let auth = self.client_auth(&chain);
        let trust = self.file(&chain, "trust-cert-collection");
        let Ok(own) = self.own(&chain) else {
            return side;
        };
        let own = match (own, auth) {
            (_, Some((Some(ClientAuth::None), _))) => None,
            (None, Some((Some(ClientAuth::Require), found))) => {
                self.no_client_certificate(&chain, &found);
                return side;
            }
            (own, _) => own,
        };
        side.options = Some(ClientTlsOptions {
            own,
            trust,
            settings: chain.start(),
        });
        side
    }

    fn side<T>(&mut self, chain: &Chain) -> Side<T> {
        let on = self.find(chain, "enabled");
        let cert_chain = self.find(chain, "cert-chain");
        let raw = |found: &Found| self.reader.raw(&found.pattern, &found.keys).cloned();
        let (at, cert_chain_at) = (on.as_ref().and_then(raw), cert_chain.as_ref().and_then(raw));
        let on = on.is_some_and(|found| self.switch(&found));
        for property in ["mtls", "cert-chain", "private-key"] {
            let Some(found) = self.find(chain, property) else {
                continue;
            };
            if on {
                self.in_effect.insert(found.setting);
            } else {
                self.idle.insert(found.setting.clone(), found);
            }
        }
        Side {
            at,
            cert_chain_at,
            on,
            options: None,
        }
    }

    /// Warns of what would have an effect only with TLS, where no end that it is for uses it.
    fn without_effect(&mut self) {
        let idle = std::mem::take(&mut self.idle);
        for (setting, found) in idle {
            let Some(at) = self.reader.raw(&found.pattern, &found.keys) else {
                continue;
            };
            let asks_nothing = matches!(uniform(at.text().trim()).as_str(), "none" | "false");
            let (start, property) = setting.rsplit_once('.').unwrap_or(("", &setting));
            let is_mtls = property == "mtls";
            if self.in_effect.contains(&setting) || (is_mtls && asks_nothing) {
                continue;
            }
            let end = if setting.starts_with("ataccama.server.") {
                "the listener speaks plaintext"
            } else {
                "the connection is plaintext"
            };
            let message = format!("`{setting}` has no effect without TLS: {end}");
            let help = format!("set `{start}.enabled=true`, or remove this");
            let finding = self.reader.finding(Code::Cs0305, at, message);
            self.reader.findings.push(
                finding
                    .with_severity(Severity::Warning)
                    .with_help(help)
                    .with_key(setting),
            );
        }
    }

    /// Finds the most specific place where `property` is set, and not to nothing.
    fn find(&self, chain: &Chain, property: &str) -> Option<Found> {
        chain.places(property).find(|found| {
            let raw = self.reader.raw(&found.pattern, &found.keys);
            raw.is_some_and(|value| !value.text().trim().is_empty())
        })
    }

    fn switch(&mut self, found: &Found) -> bool {
        if let Some(known) = self.switches.get(&found.setting) {
            return *known;
        }
        let on = self.reader.switch(&found.pattern, &found.keys);
        // What is no word is an error, and nothing runs on a file with errors.
        let on = on.unwrap_or(false);
        self.switches.insert(found.setting.clone(), on);
        on
    }

    fn client_auth(&mut self, chain: &Chain) -> Option<(Option<ClientAuth>, Found)> {
        let words = [
            ("none", ClientAuth::None),
            ("optional", ClientAuth::Optional),
            ("require", ClientAuth::Require),
            ("required", ClientAuth::Require),
            ("false", ClientAuth::None),
            ("true", ClientAuth::Require),
        ];
        let found = self.find(chain, "mtls")?;
        if let Some(known) = self.words.get(&found.setting) {
            return Some((*known, found));
        }
        let auth = self.reader.word(&found.pattern, &found.keys, &words);
        self.words.insert(found.setting.clone(), auth);
        Some((auth, found))
    }

    /// Reads the own certificate and key; the error is reported already.
    fn own(&mut self, chain: &Chain) -> Result<Option<OwnFiles>, Reported> {
        let set = ["cert-chain", "private-key"].map(|property| self.find(chain, property));
        match set {
            [None, None] => Ok(None),
            [Some(one), None] => Err(self.half(chain, &one, "private-key")),
            [None, Some(other)] => Err(self.half(chain, &other, "cert-chain")),
            [Some(_), Some(_)] => {
                let files = ["cert-chain", "private-key"].map(|p| self.file(chain, p));
                let [Some(cert_chain), Some(private_key)] = files else {
                    return Err(Reported);
                };
                Ok(Some(OwnFiles {
                    cert_chain,
                    private_key,
                }))
            }
        }
    }

    fn half(&mut self, chain: &Chain, found: &Found, missing: &str) -> Reported {
        let place = chain.places(missing).next();
        let missing = place.map(|place| place.setting).unwrap_or_default();
        if let Some(at) = self.reader.raw(&found.pattern, &found.keys) {
            let message = format!("`{missing}` is missing beside this");
            let finding = self.reader.finding(Code::Cs0306, at, message);
            self.reader.findings.push(
                finding
                    .with_key(found.setting.clone())
                    .with_help("a certificate and its private key go together"),
            );
        }
        Reported
    }

    /// Reads a PEM file's path. None where it is not set or was reported.
    fn file(&mut self, chain: &Chain, property: &str) -> Option<PemFile> {
        let found = self.find(chain, property)?;
        if let Some(known) = self.files.get(&found.setting) {
            return known.clone();
        }
        let value = self.reader.text(&found.pattern, &found.keys);
        let file = value.and_then(|value| match path(value.text()) {
            Ok(path) => Some(PemFile {
                path: self.folder.join(path),
                setting: found.setting.clone(),
            }),
            Err(why) => {
                self.reader.wrong(&found.pattern, &found.keys, &value, why);
                None
            }
        });
        self.files.insert(found.setting, file.clone());
        file
    }

    fn no_certificate(&mut self, chain: &Chain, at: Option<&Sourced>) {
        let Some(at) = at else { return };
        let start = chain.start();
        let message = format!("TLS is on, but `{start}.cert-chain` and `.private-key` are missing");
        let help = if self.has_key_store(chain) {
            "Java key stores are not read: `openssl pkcs12 -in store.p12 -nodes` writes the certificates and the key as PEM"
        } else {
            "name the two PEM files; `countersign pair --tls` makes a certificate and writes both settings"
        };
        let found = self.reader.finding(Code::Cs0306, at, message);
        let found = found.with_key(format!("{start}.cert-chain"));
        self.reader.findings.push(found.with_help(help));
    }

    fn no_client_certificate(&mut self, chain: &Chain, found: &Found) {
        let Some(at) = self.reader.raw(&found.pattern, &found.keys) else {
            return;
        };
        let start = chain.start();
        let message = format!(
            "a client certificate is to be shown, but `{start}.cert-chain` and `.private-key` are missing"
        );
        let finding = self.reader.finding(Code::Cs0306, at, message);
        self.reader.findings.push(
            finding
                .with_key(found.setting.clone())
                .with_help("name the two PEM files, or write `false`"),
        );
    }

    fn has_key_store(&self, chain: &Chain) -> bool {
        let names: Vec<_> = chain
            .places("key-store")
            .map(|place| Name::parse(&place.setting).uniform())
            .collect();
        let mut entries = self.reader.view().entries().iter();
        entries.any(|entry| names.contains(&Name::parse(entry.key()).uniform()))
    }
}

/// A finding says why.
struct Reported;

/// Reads the path of a PEM file; the error goes on from the value.
fn path(text: &str) -> Result<&Path, &'static str> {
    if text.starts_with("classpath:") {
        return Err(
            "is a place inside of a Java archive, which is not read; copy the PEM file out of it and name it with `file:`",
        );
    }
    let path = text.strip_prefix("file:").unwrap_or(text);
    let path = match path.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return Err("is a file on another host; a local one is `file:/path`"),
        None => path,
    };
    if path.is_empty() {
        return Err("names no file");
    }
    Ok(Path::new(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_and_without_file_scheme_are_one() {
        for text in ["/a/b.pem", "file:/a/b.pem", "file:///a/b.pem"] {
            assert_eq!(path(text), Ok(Path::new("/a/b.pem")), "{text}");
        }
        assert_eq!(path("file:etc/b.pem"), Ok(Path::new("etc/b.pem")));
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
                .contains("another host")
        );
        assert_eq!(path("file:"), Err("names no file"));
    }
}
