//! What a module's file says about the module itself and about the deployments it trusts.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::Patterns;
use super::tls::TlsView;
use crate::admin::error::{Kind, Refused};
use crate::identity::DeploymentName;
use crate::jose::{KeyId, KeyMaterial, PublicJwk, SigningKey, VerifyingKey, published};
use crate::properties::Document;
use crate::properties::name::{Match, Name, uniform};

/// The part of a file that pairing is about.
#[derive(Debug, Default)]
pub(in crate::admin) struct View {
    /// This module's own private key; none where the setting is absent or a stand-in.
    pub(in crate::admin) key: Option<(SigningKey, KeyId)>,
    pub(in crate::admin) name: Option<String>,
    pub(in crate::admin) port: Option<u16>,
    pub(super) tls: TlsView,
    /// By their names in the form in which spellings agree.
    pub(in crate::admin) deployments: BTreeMap<String, Trusted>,
}

/// A deployment as the file describes it.
#[derive(Debug, Default)]
pub(in crate::admin) struct Trusted {
    /// The name as written.
    pub(in crate::admin) name: String,
    pub(in crate::admin) module: Option<String>,
    pub(in crate::admin) environment: Option<String>,
    pub(in crate::admin) roles: Vec<String>,
    /// The first index that is free.
    pub(in crate::admin) next_role: usize,
    /// Whether the roles stand in one setting, separated by commas.
    pub(in crate::admin) roles_in_one: bool,
    /// By their names in the form in which spellings agree.
    pub(in crate::admin) keys: BTreeMap<String, TrustedKey>,
}

/// A key of a deployment, as the file describes it.
#[derive(Debug, Default)]
pub(in crate::admin) struct TrustedKey {
    pub(in crate::admin) name: String,
    pub(in crate::admin) fingerprint: Option<String>,
    pub(in crate::admin) content: Option<String>,
    pub(in crate::admin) is_revoked: Option<String>,
}

impl View {
    /// Reads `text`, the content of `path`.
    pub(in crate::admin) fn read(path: &Path, text: &str) -> Result<Self, Refused> {
        let document = Document::parse(path, text);
        let findings = document.findings();
        if findings.errors() > 0 {
            let message = "a file has faults that must be mended first";
            return Err(Refused::new(Kind::Unreadable, message).with_findings(findings));
        }
        let patterns = Patterns::new();
        let mut view = Self::default();
        for entry in document.entries() {
            let name = Name::parse(entry.key());
            let value = entry.value().trim();
            let exactly = |found: &Match| found.rest.is_empty();
            if patterns.own_key.matches(&name).is_some_and(|m| exactly(&m)) {
                view.key = own_key(path, value)?;
            } else if patterns
                .own_name
                .matches(&name)
                .is_some_and(|m| exactly(&m))
            {
                view.name = Some(value.to_owned()).filter(|name| !name.is_empty());
            } else if patterns
                .grpc_port
                .matches(&name)
                .is_some_and(|m| exactly(&m))
            {
                view.port = value.parse().ok();
            } else {
                view.tls.take(&patterns, &name, entry.key(), value);
                view.take_deployment(&patterns, &name, value);
            }
        }
        Ok(view)
    }

    /// Reads what `text` says of the deployments alone, whatever else may be wrong with it.
    pub(in crate::admin) fn of_deployments(path: &Path, text: &str) -> Self {
        let patterns = Patterns::new();
        let mut view = Self::default();
        for entry in Document::parse(path, text).entries() {
            view.take_deployment(&patterns, &Name::parse(entry.key()), entry.value().trim());
        }
        view
    }

    fn take_deployment(&mut self, patterns: &Patterns, name: &Name<'_>, value: &str) {
        let value = || Some(value.to_owned());
        if let Some(found) = patterns.module.matches(name) {
            self.deployment(&found).module = value();
        } else if let Some(found) = patterns.environment.matches(name) {
            self.deployment(&found).environment = value();
        } else if let Some(found) = patterns.roles.matches(name) {
            let deployment = self.deployment(&found);
            let roles = value().unwrap_or_default();
            match found.rest.first().map(|index| index.parse::<usize>()) {
                None => deployment.roles_in_one = true,
                Some(index) => {
                    let next = index.unwrap_or_default().saturating_add(1);
                    deployment.next_role = deployment.next_role.max(next);
                }
            }
            let roles = roles.split(',').map(|role| role.trim().to_owned());
            deployment
                .roles
                .extend(roles.filter(|role| !role.is_empty()));
        } else if let Some(found) = patterns.fingerprint.matches(name) {
            self.key(&found).fingerprint = value();
        } else if let Some(found) = patterns.content.matches(name) {
            self.key(&found).content = value();
        } else if let Some(found) = patterns.is_revoked.matches(name) {
            self.key(&found).is_revoked = value();
        }
    }

    /// Finds the deployment called `name`, in whatever spelling.
    pub(in crate::admin) fn find(&self, name: &DeploymentName) -> Option<&Trusted> {
        self.deployments.get(&uniform(name.as_str()))
    }

    /// Finds the deployment that has this key.
    pub(in crate::admin) fn owner_of(&self, key: &VerifyingKey) -> Option<&Trusted> {
        let mut deployments = self.deployments.values();
        deployments.find(|deployment| deployment.keys.values().any(|known| known.is(key)))
    }

    fn deployment(&mut self, found: &Match) -> &mut Trusted {
        let name = found.keys.first().cloned().unwrap_or_default();
        let entry = self.deployments.entry(uniform(&name));
        entry.or_insert_with(|| Trusted {
            name,
            ..Trusted::default()
        })
    }

    fn key(&mut self, found: &Match) -> &mut TrustedKey {
        let name = found.keys.get(1).cloned().unwrap_or_default();
        let entry = self.deployment(found).keys.entry(uniform(&name));
        entry.or_insert_with(|| TrustedKey {
            name,
            ..TrustedKey::default()
        })
    }
}

impl TrustedKey {
    /// Returns the key and its `kid`, if `content` holds a valid one.
    pub(in crate::admin) fn read(&self) -> Option<PublicJwk> {
        PublicJwk::parse(self.content.as_deref()?).ok()
    }

    /// Tells whether this is `key`: by its content, or by its fingerprint where there is no
    /// valid content.
    pub(in crate::admin) fn is(&self, key: &VerifyingKey) -> bool {
        match self.read() {
            Some(jwk) => jwk.key == *key,
            None => self.fingerprint.as_deref() == Some(&key.fingerprint().to_string()),
        }
    }

    /// Tells whether the file takes the key back: anything but a plain "no".
    pub(in crate::admin) fn is_revoked(&self) -> bool {
        let word = self.is_revoked.as_deref().unwrap_or("false");
        !["false", "no", "off", "0"]
            .iter()
            .any(|no| word.eq_ignore_ascii_case(no))
    }
}

/// Reads `generator.key`; none where it is empty or the guide's `<generated_key>`.
fn own_key(path: &Path, value: &str) -> Result<Option<(SigningKey, KeyId)>, Refused> {
    if value.is_empty() || value.starts_with('<') {
        return Ok(None);
    }
    if value.contains("${") {
        return Err(unusable(
            path,
            "is a placeholder, which only the module resolves",
        ));
    }
    let (material, _) = KeyMaterial::read(value.as_bytes())
        .map_err(|error| unusable(path, "cannot be read").caused_by(error))?;
    match material {
        KeyMaterial::Private(key, _) if published(key.fingerprint()) => Err(unusable(
            path,
            "is printed in a public guide and protects nothing",
        )),
        KeyMaterial::Private(key, kid) => {
            let kid = kid.unwrap_or_else(|| key.fingerprint().into());
            Ok(Some((key, kid)))
        }
        KeyMaterial::Public(..) => Err(unusable(path, "is a public key")),
    }
}

fn unusable(path: &Path, why: &str) -> Refused {
    let path = path.display();
    let message = format!("the module's own key in `{path}` {why}");
    Refused::new(Kind::Unreadable, message)
}
