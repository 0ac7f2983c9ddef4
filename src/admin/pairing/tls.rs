//! A certificate for each side, and each side's pin in the other's file.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use super::names::Patterns;
use super::{Member, Options};
use crate::admin::edited::Setting;
use crate::admin::error::{Kind, Refused, WriteError};
use crate::admin::write::{Privacy, Staged, folder_of};
use crate::config::Home;
use crate::grpc::tls::{OwnFiles, PemFile, certificate_fingerprint};
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;
use crate::properties::FileText;
use crate::properties::name::{Name, uniform};
use crate::secret::Secret;

const SERVER: [&str; 2] = ["ataccama.server.grpc.tls", "ataccama.server.tls"];
const CLIENT: [&str; 4] = [
    "ataccama.client.connection.<c>.grpc.tls",
    "ataccama.client.connection.<c>.tls",
    "ataccama.client.grpc.tls",
    "ataccama.client.tls",
];

/// What a file says about TLS.
#[derive(Debug, Default)]
pub(super) struct TlsView {
    /// By the form in which spellings agree: the name as written, and the value.
    settings: BTreeMap<String, (String, String)>,
    /// By deployment, in the form in which spellings agree.
    pins: BTreeMap<String, Pins>,
}

#[derive(Debug, Default)]
struct Pins {
    /// The deployment as written.
    deployment: String,
    /// By the key's name.
    fingerprints: BTreeMap<String, String>,
}

impl TlsView {
    pub(super) fn take(
        &mut self,
        patterns: &Patterns,
        name: &Name<'_>,
        written: &str,
        value: &str,
    ) {
        if let Some(found) = patterns.tls_pin.matches(name) {
            let [deployment, key] = found.keys.as_slice() else {
                return;
            };
            let pins = self.pins.entry(uniform(deployment)).or_default();
            pins.deployment.clone_from(deployment);
            pins.fingerprints.insert(uniform(key), value.to_owned());
            return;
        }
        let name = name.uniform();
        if name.contains(".tls.") && !value.is_empty() {
            let entry = (written.to_owned(), value.to_owned());
            self.settings.insert(name, entry);
        }
    }

    fn at(&self, setting: &str) -> Option<&(String, String)> {
        self.settings.get(&Name::parse(setting).uniform())
    }

    /// Finds a property at the most specific place that has it.
    fn find(&self, chain: &[String], property: &str) -> Option<&(String, String)> {
        let mut places = chain.iter();
        places.find_map(|prefix| self.at(&format!("{prefix}.{property}")))
    }

    /// Returns what turns TLS on, unless it is on.
    fn turned_on(&self, chain: &[String]) -> Option<Setting> {
        let switch = |prefix: &String| {
            let spellings = ["enabled", "on"];
            spellings.map(|word| self.at(&format!("{prefix}.{word}")))
        };
        let mut known = chain.iter().flat_map(switch).flatten();
        let is_on = |value: &str| ["true", "yes", "on", "1"].contains(&value);
        if known
            .next()
            .is_some_and(|(_, value)| is_on(&value.to_ascii_lowercase()))
        {
            return None;
        }
        let first = chain.first()?;
        let written = switch(first).into_iter().flatten().next();
        let key = written.map_or_else(|| format!("{first}.enabled"), |(key, _)| key.clone());
        Some(Setting::new(key, "true"))
    }

    /// Returns the pin of the peer `name` that the file at `path` must have, unless it has it.
    pub(super) fn pin(
        &self,
        name: &DeploymentName,
        fingerprint: Fingerprint,
        path: &Path,
        options: &Options,
    ) -> Result<Option<Setting>, Refused> {
        let none = Pins::default();
        let known = self.pins.get(&name.uniform()).unwrap_or(&none);
        let text = fingerprint.to_string();
        if known.fingerprints.values().any(|known| *known == text) {
            return Ok(None);
        }
        let wanted = options.key_name.as_deref();
        let key = match wanted {
            _ if known.fingerprints.is_empty() => wanted.unwrap_or("key"),
            Some(wanted) if !known.fingerprints.contains_key(&uniform(wanted)) => wanted,
            _ => {
                let path = path.display();
                let message =
                    format!("`{path}` pins another TLS key for `{name}`, not `{fingerprint}`");
                return Err(Refused::new(Kind::OtherKey, message).with_help(
                    "the certificate was renewed? pin the new one beside the old with \
                     `--key-name key2`",
                ));
            }
        };
        let deployment = if known.deployment.is_empty() {
            name.as_str()
        } else {
            &known.deployment
        };
        let setting = format!("countersign.deployments.{deployment}.tls-keys.{key}.fingerprint");
        Ok(Some(Setting::new(setting, text)))
    }
}

fn server_chain() -> Vec<String> {
    SERVER.iter().map(|prefix| (*prefix).to_owned()).collect()
}

fn client_chain(connection: &str) -> Vec<String> {
    CLIENT
        .iter()
        .map(|prefix| prefix.replace("<c>", connection))
        .collect()
}

/// A side's certificate: the one that its file names, or a new one.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) fingerprint: Fingerprint,
    /// The values of `cert-chain` and `private-key`.
    values: [String; 2],
    /// What has to be written first; nothing where the certificate is there.
    pub(super) new: Vec<NewFile>,
}

/// A file that is made with the plan.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) text: Secret<String>,
    pub(super) privacy: Privacy,
}

impl Certificate {
    /// Finds or makes the certificate of `member`, which is called `name`.
    pub(super) fn settle(
        member: &Member,
        name: &DeploymentName,
        view: &TlsView,
    ) -> Result<Self, Refused> {
        let home = Home::new(&member.path).dir;
        let chain = server_chain();
        let named = ["cert-chain", "private-key"].map(|property| view.find(&chain, property));
        if let [Some(cert_chain), Some(private_key)] = named {
            return Self::named(member, &home, [cert_chain, private_key]);
        }
        let folder = folder_of(&member.path);
        let files = ["tls.pem", "tls-key.pem"].map(|end| folder.join(format!("{name}-{end}")));
        let values = files.each_ref().map(|path| value(path, &home));
        let [cert_chain, private_key] = files;
        match (is_there(&cert_chain), is_there(&private_key)) {
            (false, false) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
                let key = key.map_err(not_made)?;
                let (certificate, fingerprint) = certify(name, &key)?;
                let key = Secret::new(key.serialize_pem());
                let new = vec![
                    NewFile {
                        path: cert_chain,
                        text: Secret::new(certificate),
                        privacy: Privacy::Public,
                    },
                    NewFile {
                        path: private_key,
                        text: key,
                        privacy: Privacy::Owner,
                    },
                ];
                Ok(Self {
                    fingerprint,
                    values,
                    new,
                })
            }
            (true, true) => Ok(Self {
                fingerprint: fingerprint(member, cert_chain, private_key)?,
                values,
                new: Vec::new(),
            }),
            (true, false) => Err(half(&cert_chain)),
            // The key is written first: an earlier run was killed before the certificate.
            (false, true) => {
                let key = FileText::read(&private_key)?;
                let key = KeyPair::from_pem(key.text());
                let key = key.map_err(|_error| half(&private_key))?;
                let (certificate, fingerprint) = certify(name, &key)?;
                let new = NewFile {
                    path: cert_chain,
                    text: Secret::new(certificate),
                    privacy: Privacy::Public,
                };
                Ok(Self {
                    fingerprint,
                    values,
                    new: vec![new],
                })
            }
        }
    }

    fn named(
        member: &Member,
        home: &Path,
        settings: [&(String, String); 2],
    ) -> Result<Self, Refused> {
        if let Some((setting, _)) = settings.iter().find(|(_, value)| value.contains("${")) {
            let path = member.path.display();
            let message =
                format!("`{setting}` in `{path}` is a placeholder, which only the module resolves");
            return Err(Refused::new(Kind::Unreadable, message));
        }
        let [cert_chain, private_key] = settings.map(|(_, value)| {
            let path = value.strip_prefix("file:").unwrap_or(value);
            home.join(path)
        });
        Ok(Self {
            fingerprint: fingerprint(member, cert_chain, private_key)?,
            values: settings.map(|(_, value)| value.clone()),
            new: Vec::new(),
        })
    }

    /// Returns what the side's own file must say, which calls a module of type `peer`, where that is
    /// known.
    pub(super) fn own_settings(&self, view: &TlsView, peer: Option<&str>) -> Vec<Setting> {
        let mut settings = Vec::new();
        for chain in [Some(server_chain()), peer.map(client_chain)]
            .into_iter()
            .flatten()
        {
            settings.extend(view.turned_on(&chain));
            let Some(first) = chain.first() else { continue };
            let properties = ["cert-chain", "private-key"];
            for (property, value) in properties.iter().zip(&self.values) {
                if view.find(&chain, property).is_none() {
                    settings.push(Setting::new(format!("{first}.{property}"), value));
                }
            }
        }
        let server = server_chain();
        // Nobody's certificate would be accepted before there is a peer.
        if peer.is_some()
            && view.find(&server, "mtls").is_none()
            && let Some(first) = server.first()
        {
            settings.push(Setting::new(format!("{first}.mtls"), "require"));
        }
        settings
    }

    /// Returns the files that are made with the plan.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.new.iter().map(|file| file.path.clone())
    }
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Writes a path as a setting's value: from the module's home on, where it is below.
fn value(path: &Path, home: &Path) -> String {
    let below = path.strip_prefix(home).unwrap_or(path);
    format!("file:{}", below.display())
}

fn fingerprint(
    member: &Member,
    cert_chain: PathBuf,
    private_key: PathBuf,
) -> Result<Fingerprint, Refused> {
    let [server, _] = SERVER;
    let file = |path, property| PemFile {
        path,
        setting: format!("{server}.{property}"),
    };
    let files = OwnFiles {
        cert_chain: file(cert_chain, "cert-chain"),
        private_key: file(private_key, "private-key"),
    };
    files.check().map_err(|error| {
        let path = member.path.display();
        let message = format!("the TLS certificate of `{path}` cannot be used");
        Refused::new(Kind::Unreadable, message).caused_by(error)
    })
}

/// One of certificate and key is there, the other is not.
fn half(path: &Path) -> Refused {
    let path = path.display();
    let message = format!("`{path}` is there, and what belongs to it is not");
    Refused::new(Kind::Taken, message).with_help("remove it, or put the missing file beside it")
}

fn not_made(error: impl Into<Box<dyn Error + Send + Sync>>) -> Refused {
    Refused::new(Kind::Internal, "cannot make a certificate").caused_by(error)
}

/// Makes a certificate for `key` that vouches for itself.
///
/// It names the deployment and `localhost` for tools that ask for a name, and has no end of its own
/// ([RFC 5280, 4.1.2.5]): a pin ends when it is taken out.
///
/// [RFC 5280, 4.1.2.5]: https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5
fn certify(name: &DeploymentName, key: &KeyPair) -> Result<(String, Fingerprint), Refused> {
    let names = [name.as_str(), "localhost"].map(str::to_owned);
    let mut params = CertificateParams::new(names).map_err(not_made)?;
    params
        .distinguished_name
        .push(DnType::CommonName, name.as_str());
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.self_signed(key).map_err(not_made)?;
    let fingerprint = certificate_fingerprint(certificate.der());
    Ok((certificate.pem(), fingerprint.map_err(not_made)?))
}

/// Returns the files that are made with `certificate`, which comes first.
pub(super) fn made(certificate: Option<&Certificate>) -> &[NewFile] {
    certificate.map_or(&[], |certificate| &certificate.new)
}

/// Stages `files`, the last one first: a certificate comes after its key. None of them may have come
/// up since the plan was made.
pub(super) fn stage(files: &[NewFile]) -> Result<Vec<Staged>, WriteError> {
    if let Some(file) = files.iter().find(|file| is_there(&file.path)) {
        return Err(WriteError::Exists(file.path.clone()));
    }
    let files = files.iter().rev();
    files
        .map(|file| Staged::new(&file.path, file.text.expose().as_bytes(), file.privacy))
        .collect()
}
