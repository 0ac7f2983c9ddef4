//! What a reload changed, by name and fingerprint, how a change of a file is noticed, and when the
//! module's own certificates expire: in the metrics, and, from 30 days before, in the log.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::config::Settings;
use crate::config::schema::TlsEnd;
use crate::config::settings::Tls;
use crate::diagnostic::quote;
use crate::grpc::Module;
use crate::grpc::tls::Shown;
use crate::jose::{Fingerprint, KeyId};
use crate::registry::AddressRules;
use crate::telemetry::events;
use crate::trust::Deployment;

/// What is compared, by name. Two different values have different texts.
type Facts = Vec<(String, String)>;

/// Lists what differs in `after` from `before`: this module first, then its peers in the
/// files' order. Each line names what changed; none holds a private key.
pub fn between(before: &Settings, after: &Settings) -> Vec<String> {
    let mut changes = differing(&of_module(before), &of_module(after), "");
    let mut gone: HashMap<_, _> = before.deployments.iter().map(|d| (&d.name, d)).collect();
    for deployment in &after.deployments {
        let name = &deployment.name;
        match gone.remove(name) {
            Some(was) if was == deployment => {}
            Some(was) => {
                let [was, now] = [was, deployment].map(of_deployment);
                changes.extend(differing(&was, &now, &format!(" of {name}")));
            }
            None => {
                let all = of_deployment(deployment).into_iter();
                let facts: Vec<_> = all.map(|(what, value)| format!("{what} {value}")).collect();
                changes.push(format!("deployment {name} added: {}", facts.join(", ")));
            }
        }
    }
    let names = before.deployments.iter().map(|deployment| &deployment.name);
    let removed = names.filter(|name| gone.contains_key(name));
    changes.extend(removed.map(|name| format!("deployment {name} removed")));
    changes.extend(addresses(before, after));
    changes
}

fn differing(before: &Facts, after: &Facts, of: &str) -> Vec<String> {
    let mut changes = Vec::new();
    let mut gone: HashMap<_, _> = before.iter().map(|(what, was)| (what, was)).collect();
    for (what, now) in after {
        match gone.remove(what) {
            Some(was) if was == now => {}
            Some(was) => changes.push(format!("{what}{of} {was} → {now}")),
            None => changes.push(format!("{what}{of} added: {now}")),
        }
    }
    let removed = before.iter().filter(|(what, _)| gone.contains_key(what));
    changes.extend(removed.map(|(what, _)| format!("{what}{of} removed")));
    changes
}

fn of_module(settings: &Settings) -> Facts {
    let (own, next) = (&settings.own, settings.options.rotation.next.as_ref());
    let (key, name) = (own.fingerprint(), own.name.as_ref());
    let own_key = with_kid(key.to_string(), &own.key_id, &key);
    let reload = if settings.options.reload { "on" } else { "off" };
    set([
        ("own key", Some(own_key)),
        ("own name", name.map(ToString::to_string)),
        (
            "next key",
            next.map(|(key, _)| key.fingerprint().to_string()),
        ),
        ("automatic reload", Some(reload.to_owned())),
    ])
}

fn of_deployment(deployment: &Deployment) -> Facts {
    let environment = deployment.environment.as_ref();
    let all_pins = deployment.tls_pins.iter().map(ToString::to_string);
    let pins = all_pins.collect::<Vec<_>>().join(", ");
    let single_use = deployment.single_use_tokens.to_string();
    let mut facts = set([
        ("module", Some(deployment.module.to_string())),
        ("environment", environment.map(ToString::to_string)),
        ("roles", Some(deployment.roles.to_string())),
        ("single-use-tokens", Some(single_use)),
        ("tls-keys", Some(format!("[{pins}]"))),
    ]);
    facts.extend(deployment.keys.iter().map(|key| {
        let state = if key.revoked { "revoked" } else { "trusted" };
        let fingerprint = key.key.fingerprint();
        let what = format!("key {} {fingerprint}", quote(&key.name));
        (what, with_kid(state.to_owned(), &key.key_id, &fingerprint))
    }));
    facts
}

/// Adds the key id to `value` where it is not the fingerprint.
fn with_kid(value: String, key_id: &KeyId, fingerprint: &Fingerprint) -> String {
    if key_id.as_str() == fingerprint.to_string() {
        value
    } else {
        format!("{value}, kid {}", quote(key_id.as_str()))
    }
}

fn set<const N: usize>(facts: [(&str, Option<String>); N]) -> Facts {
    let all = facts.into_iter();
    all.filter_map(|(what, value)| Some((what.to_owned(), value?)))
        .collect()
}

fn addresses(before: &Settings, after: &Settings) -> Vec<String> {
    let [was, now] = [before, after].map(|of| &of.options.addresses);
    let none = AddressRules::default();
    let names: BTreeSet<_> = was.keys().chain(now.keys()).collect();
    let changed = names
        .into_iter()
        .filter(|name| was.get(*name).unwrap_or(&none) != now.get(*name).unwrap_or(&none));
    changed
        .map(|name| format!("addresses allowed for {name}"))
        .collect()
}

/// The metadata of a file that changes with its content; a link is followed: which file it is, its
/// size, and when it changed. A writer may set the first of the two times, but not the second.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp(Option<[i128; 7]>);

impl Stamp {
    pub fn of(path: &Path) -> Self {
        let about = fs::metadata(path).ok();
        Self(about.map(|about| {
            [
                about.dev().into(),
                about.ino().into(),
                about.len().into(),
                about.mtime().into(),
                about.mtime_nsec().into(),
                about.ctime().into(),
                about.ctime_nsec().into(),
            ]
        }))
    }
}

/// The certificates that the module shows.
#[derive(Debug)]
pub struct Expiry {
    /// Where they are: another place needs a restart.
    tls: Tls,
    /// What shows each, and the days that it had left when it was logged last.
    read: Vec<(String, Shown, i64)>,
}

impl Expiry {
    /// Reads the certificates that `tls` names, and shows in the metrics of `module` when they
    /// expire.
    pub fn of(tls: Tls, module: &Module) -> Self {
        let now = module.clock().now();
        let mut read = Vec::new();
        for (end, own, _) in tls.own() {
            let usage = match end {
                TlsEnd::Server => "server",
                TlsEnd::Client(connection) => connection,
            };
            if let Ok((shown, _)) = own.judge(now, end == TlsEnd::Server) {
                read.push((usage.to_owned(), shown, i64::MAX));
            }
        }
        #[cfg(feature = "actuator")]
        module.metrics().certificates(
            read.iter()
                .map(|(usage, shown, _)| (&**usage, shown.not_after)),
        );
        Self { tls, read }
    }

    /// Reads them again.
    pub fn again(&self, module: &Module) -> Self {
        Self::of(self.tls.clone(), module)
    }

    /// Logs each certificate that expires within 30 days or has expired, once a day.
    pub fn note(&mut self, module: &Module) {
        let now = module.clock().now();
        for (usage, shown, logged) in &mut self.read {
            let days = shown.days_left(now);
            if days < Shown::SOON && days != *logged {
                *logged = days;
                events::certificate_expires(usage, shown.fingerprint, shown.not_after, days);
            }
        }
    }
}
