//! Everything that one module's files say: for a check, a start and a reload.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use crate::diagnostic::{Code, Finding, Findings, Origin};
use crate::identity::Role;
use crate::properties::name::Name;
use crate::properties::{Content, FileText, Layer, Layered, Sourced, give_way};

use super::gather::{self, Gathered, Spellings};
use super::options::{self, Options};
use super::parts::{Ignored, OwnKey, ReadDeployment, ReadKey};
use super::profiles::{self, Above};
use super::question::{ModuleKind, Question};
use super::read::Reader;
use super::rotation::{self, RotationSettings};
use super::rules::{addresses, deployments, file, keys, lost, tls, trusted_keys};
use super::schema::{self, Fallback, Known};
use super::view::{Limited, Part, View, finding};

/// Everything one file says.
#[derive(Debug)]
pub(super) struct Inspected {
    pub(super) view: View,
    layered: Layered,
    pub(super) own: Option<OwnKey>,
    pub(super) rotation: RotationSettings,
    pub(super) impersonation: Role,
    pub(super) deployments: Vec<ReadDeployment>,
    pub(super) options: Options,
    /// Every value that a reload does not change, by name.
    pub(super) cold: BTreeMap<String, String>,
    pub(super) findings: Findings,
    /// How many settings were read.
    pub(super) settings: usize,
    pub(super) ignored: Vec<Ignored>,
}

impl Inspected {
    /// Returns the value of the setting `name`, unless that is its default.
    pub(super) fn set(&self, name: &str) -> Option<&Sourced> {
        let value = self.layered.value(&schema::path(name, &[]));
        value.filter(|value| *value.origin() != Origin::Default)
    }

    /// Returns the path of the main file, for a message.
    pub(super) fn shown_path(&self) -> String {
        self.view.document().path().display().to_string()
    }

    /// Finds `own` among the trusted keys of this file.
    pub(super) fn trusted(&self, own: &OwnKey) -> Option<(&ReadDeployment, &ReadKey)> {
        let keys = self.deployments.iter();
        let mut keys = keys.flat_map(|d| d.keys.iter().map(move |key| (d, key)));
        keys.find(|(_, key)| key.trusted.key == *own.key.verifying_key())
    }

    /// Returns the name of the connection that leads to the module of `other`.
    pub(super) fn leads_to(&self, other: &Self) -> Option<String> {
        let (deployment, _) = self.trusted(other.own.as_ref()?)?;
        let module = &deployment.deployment.as_ref()?.module;
        let mut connections = self.options.client.connections.iter();
        let named = connections.find(|connection| connection.name == module.as_str())?;
        Some(named.name.clone())
    }

    /// Reports `message` about a value of this file; `help` says how to fix it.
    pub(super) fn report(
        &self,
        code: Code,
        at: &Sourced,
        message: String,
        help: impl Into<String>,
    ) -> Finding {
        finding(&self.view, code, at, Part::Value, message).with_help(help)
    }
}

/// Reads one file and everything that overrides it.
pub(super) fn inspect(question: &Question<'_>, files: &[(&Path, &FileText)]) -> Inspected {
    let mut view = View::new(files);
    let mut findings = Limited::default();
    let (layers, gathered, broken_key) = layers(&mut view, question, &mut findings);
    let layered = Layered::new(layers);
    let mut reader = Reader::new(&layered, &view, &gathered.ours, question);
    let own = keys::private(&mut reader, keys::OWN);
    let impersonation = reader.parsed(IMPERSONATION, &[], |text| {
        Role::new(text).map_err(|error| format!("is not a role: {error}"))
    });
    let impersonation = impersonation.map_or_else(Role::impersonation, |(role, _)| role);
    let options = options::read(&mut reader);
    let deployments = deployments::read(&mut reader, &impersonation);
    trusted_keys::ambiguous(&mut reader, own.as_ref(), &deployments);
    let rotation = rotation::read(&mut reader, own.as_ref(), &deployments);
    addresses::check(&mut reader, &options);
    tls::check(&mut reader, &options, &deployments);
    deployments::check(&mut reader, &options, &deployments);
    let Question {
        environment, sets, ..
    } = *question;
    profiles::check(&mut reader, Above { environment, sets });
    let unused = gathered.unused.iter().map(|(at, _)| *at);
    reader.rest(unused.chain(gathered.ignored.iter().copied()));
    let cold = cold(&layered, &reader);
    findings.extend(reader.findings.finish());
    if own.is_none() && layered.value(&schema::path(keys::OWN, &[])).is_none() && !broken_key {
        findings.push(file::no_key(&view, &gathered, question));
    }
    file::check(&view, &gathered, question, &mut findings);
    let ignored = file::ignored(&view, &gathered);
    findings.extend(gathered.findings.finish());
    Inspected {
        own,
        rotation,
        impersonation,
        deployments,
        options,
        cold,
        findings: findings.finish(),
        settings: gathered.ours.len(),
        ignored,
        layered,
        view,
    }
}

const IMPERSONATION: &str = "ataccama.authentication.internal.jwt.impersonation-role";

/// Lists what only a restart changes.
fn cold(layered: &Layered, reader: &Reader<'_>) -> BTreeMap<String, String> {
    let paths = layered.contents().map(|(path, _)| path);
    paths
        .filter(|path| !schema::is_hot(path))
        .map(|path| {
            let content = layered.content(path);
            let values = content.map(Content::values).unwrap_or_default();
            let texts = values.iter().map(|value| reader.resolve(value.text()));
            (path.join("."), texts.collect::<Vec<_>>().join(", "))
        })
        .collect()
}

/// Puts everything that is set into layers, and returns whether the own key is broken over lines.
fn layers(
    view: &mut View,
    question: &Question<'_>,
    findings: &mut Limited,
) -> (Vec<Layer>, Gathered, bool) {
    let entries = view.entries().iter().enumerate();
    let known: Vec<Known> = entries
        .inspect(|(at, _)| give_way(*at))
        .map(|(_, entry)| schema::find(&Name::parse(entry.key())))
        .collect();
    file::hide_secrets(view, &known);
    let skipped = file::broken_values(view, &known, findings);
    lost::check(view, &known, findings);
    let private = |at: &usize| matches!(known.get(*at), Some(Known::Setting(placed)) if placed.setting.is_private());
    let broken_key = skipped.iter().any(private);
    let spellings = Spellings::of(&known, &skipped, question.sets);
    let (files, gathered) = gather::files(view, known, &skipped, &spellings);
    let mut layers = vec![defaults(question.kind)];
    layers.extend(files);
    if question.is_run() {
        let (environment, ours) = (question.environment, &gathered.ours);
        layers.push(gather::environment(view, environment, ours, findings));
        layers.push(gather::options(view, question.sets, &spellings, findings));
    }
    (layers, gathered, broken_key)
}

fn defaults(kind: Option<&ModuleKind>) -> Layer {
    let mut layer = Layer::new();
    for setting in schema::settings().filter(|setting| !setting.name().contains('<')) {
        let text = match (setting.fallback(), kind) {
            (Fallback::Text(text), _)
            | (Fallback::PerModule(text, _), Some(ModuleKind::Dpm))
            | (Fallback::PerModule(_, text), Some(ModuleKind::Dpe)) => text,
            (Fallback::None | Fallback::PerModule(..), _) => continue,
        };
        let path = setting.name().split('.').map(Cow::Borrowed).collect();
        let value = Sourced::new(text, Origin::Default).of(&path);
        layer.push((path, Content::One(value)));
    }
    layer
}
