//! The TLS certificate of a module: found or made, and pinned in the files of its peers.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use super::change::EditedFile;
use super::error::{Kind, Refused};
use super::setting::Setting;
use super::write::{Privacy, folder_of};
use crate::config::names::{PIN, PINS};
use crate::config::{AsWritten, Home, TlsEnd};
use crate::diagnostic::redact_name;
use crate::grpc::tls::{OwnFiles, PemFile, TlsError, certificate_fingerprint, words};
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;
use crate::properties::bind::switch;
use crate::properties::name::{Pattern, free_key_name, same};
use crate::properties::{Entry, FileText};

/// The properties that name the certificate and its key.
pub(super) const FILES: [&str; 2] = ["cert-chain", "private-key"];

/// Returns `true` if TLS is on at `end`.
pub(super) fn is_on(file: &AsWritten, end: TlsEnd<'_>) -> bool {
    let entry = file.tls(end, "enabled");
    entry.is_some_and(|entry| switch(entry.value()) == Ok(true))
}

/// Returns what turns TLS on at `end`, unless it is on.
fn turned_on(file: &AsWritten, end: TlsEnd<'_>) -> Option<Setting> {
    if is_on(file, end) {
        return None;
    }
    let setting = end.setting("enabled");
    let written = file.get(&setting, &[]).map(|entry| entry.key().to_owned());
    Some(Setting::new(written.unwrap_or(setting), "true"))
}

/// Returns the pin of the peer `name` that `file` at `path` must have, unless it has it. A new pin
/// is called `wanted`, by default `key`.
pub(super) fn pin(
    path: &Path,
    file: &AsWritten,
    name: &DeploymentName,
    fingerprint: Fingerprint,
    wanted: Option<&str>,
) -> Result<Option<Setting>, Refused> {
    let known = file.names(PINS, &[name.as_str()]);
    let text = fingerprint.to_string();
    let mut keys = known.iter();
    if keys.any(|key| file.text(PIN, &[name.as_str(), key]) == Some(&text)) {
        return Ok(None);
    }
    let key = match wanted {
        None if known.is_empty() => "key",
        Some(wanted) if !known.iter().any(|key| same(key, wanted)) => wanted,
        _ => {
            let what = format!("pins a different TLS key for `{name}`, not `{fingerprint}`");
            let message = format!("`{}` {what}", path.display());
            let free = free_key_name(|name| known.iter().any(|key| same(key, name)));
            let help = format!(
                "the certificate was renewed? pin the new one beside the old with \
                 `--key-name {free}`"
            );
            return Err(Refused::new(Kind::OtherKey(free), message).with_help(help));
        }
    };
    let mut deployments = file.names("countersign.deployments", &[]).into_iter();
    let found = deployments.find(|written| same(written, name.as_str()));
    let written = found.unwrap_or(name.as_str());
    let setting = Pattern::new(PIN).with_keys(&[written.to_owned(), key.to_owned()]);
    Ok(Some(Setting::new(setting, text)))
}

/// A side's certificate: the one that its file names, or a new one.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) fingerprint: Fingerprint,
    /// The values of `cert-chain` and `private-key`.
    values: [String; 2],
    /// What has to be written first, the certificate before its key; empty if both exist.
    pub(super) new: Vec<EditedFile>,
}

impl Certificate {
    /// Finds or makes the certificate of the module with the file at `path`, which is called
    /// `name`.
    pub(super) fn settle(
        path: &Path,
        name: &DeploymentName,
        file: &AsWritten,
    ) -> Result<Self, Refused> {
        let home = Home::new(path).dir;
        let named = FILES.map(|property| file.tls(TlsEnd::Server, property));
        if let [Some(cert_chain), Some(private_key)] = named {
            return Self::named(path, [cert_chain, private_key]);
        }
        let folder = folder_of(path);
        let paths = ["tls.pem", "tls-key.pem"].map(|end| folder.join(format!("{name}-{end}")));
        let values = paths.each_ref().map(|pem| {
            // From the module's home on, where it is below.
            let below = pem.strip_prefix(&home).unwrap_or(pem);
            format!("file:{}", below.display())
        });
        let (fingerprint, new) = at(path, name, paths)?;
        Ok(Self {
            fingerprint,
            values,
            new,
        })
    }

    fn named(file: &Path, entries: [&Entry; 2]) -> Result<Self, Refused> {
        Ok(Self {
            fingerprint: fingerprint(file, named(file, entries)?)?,
            values: entries.map(|entry| entry.value().trim().to_owned()),
            new: Vec::new(),
        })
    }

    /// Returns what the side's own `file` must say. It calls modules of the types `peers`, and trusts
    /// others without pins, if it `has_others`.
    pub(super) fn settings(
        &self,
        file: &AsWritten,
        peers: &BTreeSet<&str>,
        has_others: bool,
    ) -> Vec<Setting> {
        let mut settings = Vec::new();
        let clients = peers.iter().map(|peer| TlsEnd::Client(peer));
        for end in std::iter::once(TlsEnd::Server).chain(clients) {
            settings.extend(turned_on(file, end));
            for (property, value) in FILES.iter().zip(&self.values) {
                if file.tls(end, property).is_none() {
                    settings.push(Setting::new(end.setting(property), value));
                }
            }
        }
        // Without a peer no certificate would be accepted.
        let is_open = peers.is_empty() || has_others;
        if !is_open && file.tls(TlsEnd::Server, "mtls").is_none() {
            settings.push(Setting::new(TlsEnd::Server.setting("mtls"), "require"));
        }
        settings
    }
}

/// Returns the files that `entries` of the settings `file` name: a certificate and its key.
pub(super) fn named(file: &Path, entries: [&Entry; 2]) -> Result<[PathBuf; 2], Refused> {
    if let Some(entry) = entries.iter().find(|entry| entry.value().contains("${")) {
        let (setting, path) = (redact_name(entry.key()), file.display());
        let message =
            format!("`{setting}` in `{path}` is a placeholder, which only the module resolves");
        return Err(Refused::new(Kind::Unreadable, message));
    }
    let home = Home::new(file).dir;
    Ok(entries.map(|entry| {
        let value = entry.value().trim();
        home.join(value.strip_prefix("file:").unwrap_or(value))
    }))
}

/// Returns the certificate that stands at the first path, with its key at the second, for the
/// deployment `name` with the settings file `of`; with what has to be written where it is new.
fn at(
    of: &Path,
    name: &DeploymentName,
    [cert_chain, private_key]: [PathBuf; 2],
) -> Result<(Fingerprint, Vec<EditedFile>), Refused> {
    let are_there = [&cert_chain, &private_key].map(|pem| pem.symlink_metadata().is_ok());
    let has_key = match are_there {
        [true, true] => return Ok((fingerprint(of, [cert_chain, private_key])?, Vec::new())),
        [true, false] => return Err(half(&cert_chain)),
        [false, has_key] => has_key,
    };
    // The key is written first: an earlier run was killed before the certificate.
    let key = if has_key {
        let pem = FileText::read(&private_key)?;
        KeyPair::from_pem(pem.text()).map_err(|_error| half(&private_key))?
    } else {
        new_key()?
    };
    let (fingerprint, pem) = certified(name, &key)?;
    let mut new = vec![EditedFile::created(cert_chain, pem, Privacy::Public)];
    if !has_key {
        let pem = key.serialize_pem();
        new.push(EditedFile::created(private_key, pem, Privacy::Owner));
    }
    Ok((fingerprint, new))
}

/// Makes a certificate for `name`; returns its fingerprint, and it and its key as PEM.
pub(super) fn issue(name: &DeploymentName) -> Result<(Fingerprint, String, String), Refused> {
    let key = new_key()?;
    let (fingerprint, pem) = certified(name, &key)?;
    Ok((fingerprint, pem, key.serialize_pem()))
}

fn new_key() -> Result<KeyPair, Refused> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(not_made)
}

fn certified(name: &DeploymentName, key: &KeyPair) -> Result<(Fingerprint, String), Refused> {
    let certificate = certify(name, key).map_err(not_made)?;
    let made = certificate_fingerprint(certificate.der());
    let fingerprint = made.map_err(|error| not_made(words::of(&error)))?;
    Ok((fingerprint, certificate.pem()))
}

/// Returns the key of the certificate in `chain`, of those in the file `key`, as PEM.
pub(super) fn key_in_use(of: &Path, [chain, key]: [&Path; 2]) -> Result<String, Refused> {
    let files = own([chain.to_owned(), key.to_owned()]);
    files.key_in_use().map_err(unusable(of))
}

/// Returns the fingerprint of the certificate in `chain`, after checking it and its `key`; the
/// settings file `of` is named in the error.
pub(super) fn fingerprint(of: &Path, files: [PathBuf; 2]) -> Result<Fingerprint, Refused> {
    own(files).check().map_err(unusable(of))
}

/// Returns the fingerprint of the certificate in `chain`, whose key need not be there.
pub(super) fn shown(of: &Path, chain: PathBuf) -> Result<Fingerprint, Refused> {
    own([chain, PathBuf::new()])
        .fingerprint()
        .map_err(unusable(of))
}

fn own([chain, key]: [PathBuf; 2]) -> OwnFiles {
    let [chain_setting, key_setting] = FILES.map(|property| TlsEnd::Server.setting(property));
    OwnFiles::new(
        PemFile::new(chain, chain_setting),
        PemFile::new(key, key_setting),
    )
}

fn unusable(of: &Path) -> impl FnOnce(TlsError) -> Refused + use<> {
    let what = format!("the TLS certificate of `{}` cannot be used", of.display());
    Refused::caused(Kind::Unreadable, what)
}

/// Only one of certificate and key exists.
fn half(path: &Path) -> Refused {
    let what = "exists, but the other half of the pair (certificate or key) is missing";
    let message = format!("`{}` {what}", path.display());
    Refused::new(Kind::Taken, message).with_help("remove it, or put the missing file beside it")
}

fn not_made(error: impl Into<Box<dyn Error + Send + Sync>>) -> Refused {
    Refused::caused(Kind::Internal, "cannot make a certificate")(error)
}

/// Makes a self-signed certificate for `key`.
///
/// It names the deployment and `localhost` for tools that ask for a name, and does not expire
/// ([RFC 5280, 4.1.2.5]): a pin ends when it is taken out.
///
/// [RFC 5280, 4.1.2.5]: https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5
fn certify(name: &DeploymentName, key: &KeyPair) -> Result<rcgen::Certificate, rcgen::Error> {
    let names = [name.as_str(), "localhost"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
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
    params.self_signed(key)
}
