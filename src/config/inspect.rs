//! Everything that one module's files say: for a check, a start and a reload.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::diagnostic::{Code, Finding, Findings, Origin};
use crate::properties::name::Name;
use crate::properties::{Layered, Sourced, give_way};
use crate::storage::revoked_keys::Remembered;

use super::gather::{Gathered, gather};
use super::options;
use super::question::Question;
use super::read::Reader;
use super::rules::{deployments, file, keys, tls};
use super::schema::{self, Known};
use super::settings::{Options, OwnKey, ReadDeployment, ReadKey};
use super::spring::Texts;
use super::view::{Limited, Part, View, add_public_parts};

/// Everything one file says.
#[derive(Debug)]
pub struct Inspected {
    pub view: View,
    layered: Layered,
    pub own: Option<OwnKey>,
    pub deployments: Vec<ReadDeployment>,
    pub options: Options,
    /// Every value that a reload does not change, by name.
    pub cold: BTreeMap<String, String>,
    pub findings: Findings,
    pub gathered: Gathered,
}

/// Shows the path of the main file.
impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.document.path().display().fmt(f)
    }
}

impl Inspected {
    /// Returns the value of the setting `name`, unless that is its default.
    pub fn set(&self, name: &str) -> Option<&Sourced> {
        let value = self.layered.value(&schema::path(name, &[]));
        value.filter(|value| *value.origin() != Origin::Default)
    }

    /// Returns `true` if the environment overrides a setting.
    pub fn is_overridden(&self) -> bool {
        let mut values = self
            .layered
            .contents()
            .flat_map(|(_, content)| content.values());
        values.any(|value| matches!(value.origin(), Origin::Environment(_)))
    }

    /// Returns the names of the settings below `places` that have another origin than a default.
    pub fn set_below(&self, places: &[&str]) -> Vec<String> {
        let set = self.layered.contents().filter(|(_, content)| {
            let mut values = content.values().iter();
            values.any(|value| *value.origin() != Origin::Default)
        });
        let names: BTreeSet<_> = set.map(|(path, _)| path.join(".")).collect();
        let below = names.into_iter().filter(|name| {
            let mut rests = places.iter().filter_map(|place| name.strip_prefix(place));
            rests.any(|rest| rest.starts_with('.'))
        });
        below.collect()
    }

    /// Finds `own` among the trusted keys of this file.
    pub fn trusted(&self, own: &OwnKey) -> Option<(&ReadDeployment, &ReadKey)> {
        let deployments = self.deployments.iter();
        let mut keys = deployments.flat_map(|d| d.keys.iter().map(move |key| (d, key)));
        keys.find(|(_, key)| key.trusted.key == *own.key.verifying_key())
    }

    /// Returns the name of the connection that leads to the module of `other`.
    pub fn leads_to(&self, other: &Self) -> Option<&str> {
        let (deployment, _) = self.trusted(other.own.as_ref()?)?;
        let module = &deployment.deployment.as_ref()?.module;
        let named = self.options.client.connection(module.as_str())?;
        Some(&named.name)
    }

    /// Reports `message` about a value of this file; `help` says how to fix it.
    pub fn report(
        &self,
        code: Code,
        at: &Sourced,
        message: String,
        help: impl Into<String>,
    ) -> Finding {
        let found = self.view.about(code, at, Part::Value, message);
        found.with_help(help)
    }
}

/// Reads the active documents of a file and of what it brings in, and everything that overrides
/// them.
pub fn inspect(question: &Question, remembered: &Remembered, texts: &Texts) -> Inspected {
    let mut view = View::new(Arc::clone(&texts.document));
    let mut findings = Limited::default();
    let entries = view.entries().iter().enumerate();
    let known: Vec<Known> = entries
        .inspect(|(at, _)| give_way(*at))
        .map(|(_, entry)| schema::find(&Name::parse(entry.key())))
        .collect();
    file::hide_secrets(&mut view, &known);
    let broken = file::broken_values(&mut view, &known, &mut findings);
    let skipped: HashSet<_> = broken.into_iter().collect();
    file::lost_settings(&mut view, &known, &mut findings);
    let placed = skipped.iter().filter_map(|at| known.get(*at)?.used());
    let broken: Vec<_> = placed.cloned().collect();
    let broken_key = broken.iter().any(|placed| placed.setting.is_private());
    let (layered, gathered) = gather(&view, texts, (known, &skipped), question, &mut findings);
    let mut reader = Reader {
        layered: &layered,
        view: &view,
        question,
        remembered,
        ours: &gathered.ours,
        broken: &broken,
        order: &texts.order,
        by_name: OnceCell::new(),
        findings,
    };
    let own = keys::private(&mut reader, keys::OWN_KEY);
    let mut set = options::read(&mut reader);
    let read = deployments::read(&mut reader, &set.impersonation_role);
    keys::ambiguous(&mut reader, own.as_ref(), &read);
    set.rotation = keys::rotation(&mut reader, own.as_ref(), &read);
    deployments::addresses(&mut reader, &set);
    tls::check(&mut reader, &set, &read);
    deployments::check(&mut reader, &set, &read);
    for fault in &texts.faults {
        reader.report(fault.code, &fault.at, &fault.message, fault.help);
    }
    file::inactive(&mut reader, &gathered.inactive, &read);
    reader.rest(&gathered.unread);
    let both = [&*gathered.ours, &*gathered.inactive];
    if own.is_none() && reader.raw(keys::OWN_KEY, &[]).is_none() && !broken_key {
        reader.push(file::no_key(&view, both, question));
    }
    file::check(&view, &texts.texts(), both, &mut reader.findings);
    let only_at_start = cold(&reader);
    let findings = shown(reader, own.as_ref(), &set);
    Inspected {
        own,
        deployments: read,
        options: set,
        cold: only_at_start,
        findings,
        gathered,
        layered,
        view,
    }
}

/// Returns the findings without what may be a private key; the names of the own keys are public.
fn shown(reader: Reader<'_>, own: Option<&OwnKey>, options: &Options) -> Findings {
    let next = options.rotation.next.as_ref().map(|(key, _)| key);
    let keys = own.map(|own| &own.key).into_iter().chain(next);
    let names = keys.flat_map(|key| {
        let public = key.verifying_key();
        let names = [public.fingerprint().to_string(), public.thumbprint()];
        names.into_iter().chain([public.x()])
    });
    let (view, question) = (reader.view, reader.question);
    let mut public = view.public().clone();
    public.extend(names);
    let given = question.environment.iter().chain(&question.sets);
    add_public_parts(&mut public, given.map(|(_, value)| &**value));
    view.without_scalars(reader.findings.finish(), &public)
}

/// Lists what only a restart changes.
fn cold(reader: &Reader<'_>) -> BTreeMap<String, String> {
    let paths = reader.layered.contents().map(|(path, _)| path);
    paths
        .filter(|path| !schema::is_hot(path))
        .map(|path| {
            let values = reader.layered.values(path).iter();
            let texts = values.map(|value| reader.resolve(value.text()));
            (path.join("."), texts.collect::<Vec<_>>().join(", "))
        })
        .collect()
}
