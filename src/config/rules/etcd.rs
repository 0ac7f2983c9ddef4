//! Where a DPM that shares its engines with others reaches etcd, and as which user.

use super::addresses::{MOST_ADDRESSES, target};
use super::tls::{path, readable_by_others, unusable};
use crate::config::read::Reader;
use crate::config::settings::{EtcdSettings, Home, is_loopback};
use crate::config::view::Part;
use crate::diagnostic::{Code, quote};
use crate::grpc::Target;
use crate::grpc::tls::{OwnFiles, PemFile};
use crate::properties::Sourced;
use crate::secret::Secret;

pub const URL: &str = "countersign.registry.url";
pub const SCHEME: &str = "etcd://";
const NAME: &str = "countersign.deployment.name";
const USER: &str = "countersign.registry.etcd.user";
const PASSWORD: &str = "countersign.registry.etcd.password";
const CERT_CHAIN: &str = "countersign.registry.etcd.cert-chain";
const PRIVATE_KEY: &str = "countersign.registry.etcd.private-key";
const TRUST: &str = "countersign.registry.etcd.trust-cert-collection";

/// Whether this build has a store in etcd.
const IS_BUILT: bool = cfg!(feature = "etcd");

/// Notes the settings of etcd of a registry that is elsewhere.
pub fn unused(reader: &mut Reader<'_>) {
    for name in [USER, PASSWORD, CERT_CHAIN, PRIVATE_KEY, TRUST] {
        if let Some(at) = reader.raw(name, &[]).filter(|_| reader.is_set(name, &[])) {
            let message = format!("`{name}` has no effect: the registry is not in etcd");
            let help = format!("write `{URL}={SCHEME}host:port`, or remove this");
            reader.report(Code::Cs0305, at, message, help);
        }
    }
}

/// Reads the registry's URL, which is `at`, and how etcd is called; `None` if the URL is malformed.
pub fn read(reader: &mut Reader<'_>, at: &Sourced) -> Option<EtcdSettings> {
    if !IS_BUILT {
        let message = format!("`{URL}` is in etcd, and this build has no store there");
        let help = "build countersign with the feature `etcd`, or write `file:` or `memory:`";
        reader.report(Code::Cs0306, at, message, help);
    }
    if !reader.is_set(NAME, &[]) {
        let message = format!("`{NAME}` is missing: the DPMs' engines are under that name in etcd");
        let help =
            format!("write `{NAME}=`, with the name that the engines' files have for this DPM");
        reader.report(Code::Cs0301, at, message, help);
    }
    let endpoints = listed(reader, at)?;
    for names in [[USER, PASSWORD], [CERT_CHAIN, PRIVATE_KEY]] {
        half(reader, names);
    }
    let [user, password] = [USER, PASSWORD].map(|name| filled(reader, name));
    let [chain, key, trust] = [CERT_CHAIN, PRIVATE_KEY, TRUST].map(|name| file(reader, name));
    let client = chain.zip(key).map(|(chain, key)| OwnFiles::new(chain, key));
    if let Some(own) = &client {
        unusable(reader, own.check().err());
        readable_by_others(reader, &own.private_key);
    }
    if let Some(trust) = &trust {
        unusable(reader, trust.check_trusted().err());
    }
    if let Some(shown) = reader
        .raw(CERT_CHAIN, &[])
        .filter(|_| !reader.is_set(TRUST, &[]))
    {
        let message = format!("a certificate is shown over TLS only, and `{TRUST}` is missing");
        reader.report(Code::Cs0306, shown, message, WRITE_TRUST);
    }
    beyond_loopback(reader, at, &endpoints);
    Some(EtcdSettings {
        endpoints,
        user: user.zip(password.map(Secret::new)),
        client,
        trust,
    })
}

/// Reports one of two settings that go together where the other is missing.
fn half(reader: &mut Reader<'_>, names: [&str; 2]) {
    let set = names.map(|name| reader.is_set(name, &[]));
    let (([given, missing], [true, false]) | ([missing, given], [false, true])) = (names, set)
    else {
        return;
    };
    if let Some(at) = reader.raw(given, &[]) {
        let message = format!("`{missing}` is missing beside this");
        reader.report(Code::Cs0306, at, message, "the two go together");
    }
}

/// Reads a text that is not empty.
fn filled(reader: &mut Reader<'_>, name: &str) -> Option<String> {
    let at = reader.text(name, &[])?;
    if at.text().is_empty() {
        let message = format!("`{name}` is empty");
        reader.report(
            Code::Cs0306,
            &at,
            message,
            "write a value, or remove the line",
        );
        return None;
    }
    Some(at.text().to_owned())
}

/// Reads a PEM file's path.
fn file(reader: &mut Reader<'_>, name: &str) -> Option<PemFile> {
    let (named, at) = reader.parsed(name, &[], path)?;
    let folder = Home::new(reader.view.document.path()).dir;
    Some(PemFile::new(folder.join(named), at.setting()?))
}

/// Reports an etcd on another machine that would be called without TLS, or without a user or a
/// certificate. A name may lead anywhere.
fn beyond_loopback(reader: &mut Reader<'_>, at: &Sourced, endpoints: &[Target]) {
    let mut away = endpoints.iter().filter(|one| !is_loopback(one.host()));
    let Some(endpoint) = away.next() else {
        return;
    };
    if !reader.is_set(TRUST, &[]) {
        let message = format!(
            "etcd at {} would be called without TLS",
            quote(&endpoint.to_string())
        );
        reader.report(Code::Cs0307, at, message, WRITE_TRUST);
    }
    if ![USER, CERT_CHAIN]
        .iter()
        .any(|name| reader.is_set(name, &[]))
    {
        let message = "etcd beyond this machine needs a user and a password, or a certificate";
        let help = "write `countersign.registry.etcd.user` and `.password`, or `.cert-chain` and `.private-key`";
        reader.report(Code::Cs0301, at, message, help);
    }
}

const WRITE_TRUST: &str = "write `countersign.registry.etcd.trust-cert-collection=`, the PEM file with what signs etcd's certificates";

/// Reads the endpoints of the URL `at`; the first one that cannot be read is reported.
fn listed(reader: &mut Reader<'_>, at: &Sourced) -> Option<Vec<Target>> {
    let list = at.text().strip_prefix(SCHEME)?;
    let mut endpoints = Vec::new();
    let mut offset = SCHEME.len();
    for written in list.split(',') {
        let read = match target(written.trim()) {
            Ok(known) if endpoints.contains(&known) => Err("is there twice".to_owned()),
            Ok(_) if endpoints.len() == MOST_ADDRESSES => {
                Err(format!("is one of more than {MOST_ADDRESSES} addresses"))
            }
            read => read,
        };
        match read {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(why) => {
                let place = if reader.stands_as_written(at) {
                    Part::Offset(offset)
                } else {
                    Part::Value
                };
                let message = format!("{} in `{URL}` {why}", quote(written));
                let found = reader.view.about(Code::Cs0306, at, place, message);
                let help = "write `etcd://host:port`, and more of them behind commas";
                reader.push(found.with_help(help));
                return None;
            }
        }
        offset = offset.saturating_add(written.len()).saturating_add(1);
    }
    Some(endpoints)
}
