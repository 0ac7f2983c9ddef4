//! TLS of the server and of each connection: every property of its own from the most specific
//! place that has it.

mod end;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Severity};
use crate::grpc::tls::{ClientAuth, ClientTlsOptions, OwnFiles, PemFile, ServerTlsOptions};
use crate::properties::name::{Name, uniform};
use crate::properties::{Sourced, bind};

use super::read::Reader;
use super::settings::Home;
use end::Place;
pub use end::TlsEnd;

const CLIENT_AUTH: &[(&str, ClientAuth)] = &[
    ("none", ClientAuth::None),
    ("optional", ClientAuth::Optional),
    ("require", ClientAuth::Require),
    ("required", ClientAuth::Require),
    ("false", ClientAuth::None),
    ("true", ClientAuth::Require),
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
    /// Returns `true` if the connection `name` uses TLS.
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
    let mut ends = Ends {
        folder: Home::new(reader.view().document().path()).dir,
        used: BTreeMap::new(),
        reader,
    };
    let server = ends.server();
    let mut clients = BTreeMap::new();
    for name in connections.iter().map(String::as_str).chain([DIAL_BACK]) {
        if !clients.contains_key(name) {
            clients.insert(name.to_owned(), ends.client(name));
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

/// A property as it is set.
struct Found<'b> {
    place: Place,
    at: &'b Sourced,
}

impl<'b> Ends<'_, 'b> {
    fn server(&mut self) -> Side<ServerTlsOptions> {
        let end = TlsEnd::Server;
        let mut side = self.side(end);
        if !side.on {
            return side;
        }
        let client_auth = self.client_auth(end);
        let trust = self.file(end, "trust-cert-collection");
        match self.own(end) {
            Ok(Some(own)) => {
                side.options = Some(ServerTlsOptions {
                    own,
                    client_auth: client_auth.map(|(auth, _)| auth),
                    trust,
                    settings: end.start(),
                });
            }
            Ok(None) => self.no_certificate(end, side.at.as_ref()),
            Err(Reported) => {}
        }
        side
    }

    fn client(&mut self, name: &str) -> Side<ClientTlsOptions> {
        let end = TlsEnd::Client(name);
        let mut side = self.side(end);
        if !side.on {
            return side;
        }
        let auth = self.client_auth(end);
        let trust = self.file(end, "trust-cert-collection");
        let Ok(own) = self.own(end) else {
            return side;
        };
        let settings = end.start();
        let own = match (own, auth) {
            (_, Some((ClientAuth::None, _))) => None,
            (None, Some((ClientAuth::Require, at))) => {
                let message = format!(
                    "a client certificate is to be shown, but `{settings}.cert-chain` and `.private-key` are missing"
                );
                let help = "name the two PEM files, or write `false`";
                self.reader.report(Code::Cs0306, at, message, help);
                return side;
            }
            (own, _) => own,
        };
        side.options = Some(ClientTlsOptions {
            own,
            trust,
            settings,
        });
        side
    }

    fn side<T>(&mut self, end: TlsEnd<'_>) -> Side<T> {
        let enabled = self.find(end, "enabled");
        let at = enabled.as_ref().map(|found| found.at.clone());
        // What is no word is an error, and nothing runs on a file with errors.
        let on = enabled
            .is_some_and(|Found { place, .. }| self.reader.switch(&place.pattern, &place.keys));
        for property in ["mtls", "cert-chain", "private-key"] {
            if let Some(found) = self.find(end, property) {
                let (_, used) = self
                    .used
                    .entry(found.place.setting)
                    .or_insert((found.at, on));
                *used |= on;
            }
        }
        let cert_chain = self.find(end, "cert-chain");
        Side {
            at,
            cert_chain_at: cert_chain.map(|found| found.at.clone()),
            on,
            options: None,
        }
    }

    /// Warns of what would have an effect only with TLS, where no end that it is for uses it.
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
            let found = self.reader.finding(Code::Cs0305, at, message);
            let found = found.with_severity(Severity::Warning).with_help(help);
            self.reader.push(found);
        }
    }

    /// Finds the most specific place where `property` is set, and not to nothing.
    fn find(&self, end: TlsEnd<'_>, property: &str) -> Option<Found<'b>> {
        end.places(property).find_map(|place| {
            let at = self.reader.raw(&place.pattern, &place.keys)?;
            (!at.text().trim().is_empty()).then_some(Found { place, at })
        })
    }

    fn client_auth(&mut self, end: TlsEnd<'_>) -> Option<(ClientAuth, &'b Sourced)> {
        let Found { place, at } = self.find(end, "mtls")?;
        let (auth, _) = self.reader.parsed(&place.pattern, &place.keys, |text| {
            bind::choice(text, CLIENT_AUTH).map_err(|error| error.to_string())
        })?;
        Some((auth, at))
    }

    /// Reads the own certificate and key; the error is reported already.
    fn own(&mut self, end: TlsEnd<'_>) -> Result<Option<OwnFiles>, Reported> {
        let set = ["cert-chain", "private-key"].map(|property| self.find(end, property));
        let (found, missing) = match set {
            [None, None] => return Ok(None),
            [Some(_), Some(_)] => {
                let files = ["cert-chain", "private-key"].map(|p| self.file(end, p));
                let [Some(cert_chain), Some(private_key)] = files else {
                    return Err(Reported);
                };
                return Ok(Some(OwnFiles {
                    cert_chain,
                    private_key,
                }));
            }
            [Some(one), None] => (one, "private-key"),
            [None, Some(other)] => (other, "cert-chain"),
        };
        let message = format!("`{}` is missing beside this", end.setting(missing));
        let help = "a certificate and its private key go together";
        self.reader.report(Code::Cs0306, found.at, message, help);
        Err(Reported)
    }

    /// Reads a PEM file's path. None where it is not set or was reported.
    fn file(&mut self, end: TlsEnd<'_>, property: &str) -> Option<PemFile> {
        let Found { place, .. } = self.find(end, property)?;
        let (path, _) = self.reader.parsed(&place.pattern, &place.keys, |text| {
            let path = path(text).map_err(str::to_owned)?;
            Ok(self.folder.join(path))
        })?;
        Some(PemFile {
            path,
            setting: place.setting,
        })
    }

    fn no_certificate(&mut self, end: TlsEnd<'_>, at: Option<&Sourced>) {
        let Some(at) = at else { return };
        let start = end.start();
        let message = format!("TLS is on, but `{start}.cert-chain` and `.private-key` are missing");
        let help = if self.has_key_store(end) {
            "Java key stores are not read: `openssl pkcs12 -in store.p12 -nodes` writes the certificates and the key as PEM"
        } else {
            "name the two PEM files; `countersign pair --tls` makes a certificate and writes both settings"
        };
        let found = self.reader.finding(Code::Cs0306, at, message);
        let found = found.with_key(format!("{start}.cert-chain"));
        self.reader.push(found.with_help(help));
    }

    fn has_key_store(&self, end: TlsEnd<'_>) -> bool {
        let stores = end.places("key-store");
        let stores: Vec<_> = stores
            .map(|place| Name::parse(&place.setting).uniform())
            .collect();
        let mut entries = self.reader.view().entries().iter();
        entries.any(|entry| stores.contains(&Name::parse(entry.key()).uniform()))
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
