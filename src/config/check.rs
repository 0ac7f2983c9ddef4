//! Everything that can be told from one file; the door of `check`, of a start and of a reload.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Findings, Origin, Severity};
use crate::identity::{DeploymentName, Role};
use crate::jose::{KeyId, SigningKey};
use crate::properties::name::Name;
use crate::properties::{Content, FileText, Layer, Layered, ReadError, Sourced, give_way};
use crate::token::Policy;
use crate::trust::Deployment;

use super::connections;
use super::cross_check;
use super::deployments::{self, ReadDeployment};
use super::gather::{self, Gathered, Names, Spellings};
use super::load::ModuleKind;
use super::options::{self, Options};
use super::own_key::{self, OwnKey};
use super::profiles::{self, Above};
use super::reach;
use super::read::{Inputs, Reader};
use super::rotation::{self, RotationSettings};
use super::schema::{self, Fallback, Known};
use super::swallowed;
use super::text_check;
use super::trusted_key;
use super::view::{Limited, View};
use super::whole_file;
use super::{own_check, pins};

/// What the findings are for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// To tell a person about a file, which may be a part of one.
    Check,
    /// To run on it.
    Run,
}

impl Purpose {
    pub(super) fn published_severity(self) -> Severity {
        self.strict()
    }

    /// A warning for a person, an error for a start.
    pub(super) fn strict(self) -> Severity {
        match self {
            Self::Check => Severity::Warning,
            Self::Run => Severity::Error,
        }
    }
}

/// What `check` found in one or more files.
#[derive(Debug)]
pub struct Report {
    /// The findings of all files, in order.
    pub findings: Findings,
    /// What each file says, as far as it could be read.
    pub files: Vec<Checked>,
    /// How many settings were read.
    pub settings: usize,
    /// Settings with foreign names, which were ignored.
    pub ignored: Vec<Ignored>,
}

/// What one file says, as far as it could be read.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The file, as the user named it.
    pub path: PathBuf,
    /// Its own key and the `kid` of its tokens.
    pub own: Option<(SigningKey, KeyId)>,
    /// How far the change of its own key is.
    pub rotation: RotationSettings,
    /// What the module calls itself.
    pub name: Option<DeploymentName>,
    /// Times of the tokens that it issues and accepts.
    pub policy: Policy,
    /// The deployments in which nothing required is missing.
    pub deployments: Vec<Deployment>,
}

/// A setting with a foreign name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ignored {
    /// Where it stands.
    pub origin: Origin,
    /// Its name, without anything that looks like a private key.
    pub name: String,
}

/// Checks `files`, each by itself and, where there are several, against each other.
///
/// Placeholders may name variables of `environment`; the settings it overrides are not looked at.
///
/// # Errors
///
/// When a file cannot be read; what is wrong inside of one is a finding, bytes that are no text
/// included.
pub fn check(files: &[PathBuf], environment: &[(String, String)]) -> Result<Report, CheckError> {
    let mut texts = Vec::new();
    let mut no_text = Findings::default();
    for file in files {
        match FileText::read(file) {
            Ok(text) => texts.push((file.clone(), text)),
            Err(error) => no_text.push(whole_file::no_text(error)?),
        }
    }
    let mut report = check_texts(&texts, environment, &[])?;
    report.findings.extend(no_text.iter().cloned());
    report.findings.sort();
    Ok(report)
}

/// Checks texts as [`check`] does, before they are written to the files they are for; `assumed`
/// are other files that will be written with them.
///
/// # Errors
///
/// None that a text gives reason for.
pub fn check_texts(
    texts: &[(PathBuf, FileText)],
    environment: &[(String, String)],
    assumed: &[PathBuf],
) -> Result<Report, CheckError> {
    let mut inspected = Vec::new();
    let above = Above {
        environment,
        sets: &[],
    };
    let profiles = texts
        .iter()
        .map(|(file, text)| profiles::files(file, text, above));
    let profiles: Vec<_> = profiles.collect();
    for ((file, text), of_it) in texts.iter().zip(&profiles) {
        if profiles
            .iter()
            .flatten()
            .any(|profile| is_same(profile, file))
        {
            // It is looked at with the file that it belongs to.
            continue;
        }
        let of_it = profiles::read(of_it)?;
        let mut files = vec![(file.as_path(), text)];
        files.extend(of_it.iter().map(|(file, text)| (file.as_path(), text)));
        let question = Question {
            home: None,
            kind: None,
            purpose: Purpose::Check,
            environment,
            sets: &[],
            assumed,
        };
        inspected.push(inspect(&question, &files));
    }
    let mut all = Limited::default();
    all.extend(cross_check::check(&inspected));
    let mut settings: usize = 0;
    let mut ignored = Vec::new();
    let mut files = Vec::new();
    for file in inspected {
        files.push(file.checked());
        settings = settings.saturating_add(file.settings);
        ignored.extend(file.ignored);
        all.extend(file.findings);
    }
    Ok(Report {
        findings: all.finish(),
        files,
        settings,
        ignored,
    })
}

fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one == other || whole(one) == whole(other)
}

/// Why files could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What to look at, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) home: Option<&'a Path>,
    pub(super) kind: Option<&'a ModuleKind>,
    pub(super) purpose: Purpose,
    pub(super) environment: &'a [(String, String)],
    pub(super) sets: &'a [(String, String)],
    /// Files that will be there by the time it counts.
    pub(super) assumed: &'a [PathBuf],
}

/// Everything one file says.
#[derive(Debug)]
pub(super) struct Inspected {
    pub(super) view: View,
    pub(super) own: Option<OwnKey>,
    pub(super) rotation: RotationSettings,
    pub(super) impersonation: Role,
    pub(super) deployments: Vec<ReadDeployment>,
    pub(super) options: Options,
    /// Where the server's and the client's largest message are set, where they are.
    pub(super) message_bytes_at: [Option<Sourced>; 2],
    /// Where each token is taken once, or not.
    pub(super) replay_at: Option<Sourced>,
    /// Where the life of tokens is set, where it is.
    pub(super) lifetime_at: Option<Sourced>,
    /// Every value that a reload does not change, by name.
    pub(super) cold: BTreeMap<String, String>,
    pub(super) findings: Findings,
    settings: usize,
    ignored: Vec<Ignored>,
}

impl Inspected {
    fn checked(&self) -> Checked {
        let own = self.own.as_ref();
        let deployments = self.deployments.iter();
        Checked {
            path: self.view.document().path().to_owned(),
            own: own.map(|own| (own.key.clone(), own.key_id.clone())),
            rotation: self.rotation.clone(),
            name: self.options.name.as_ref().map(|(name, _)| name.clone()),
            policy: self.options.policy,
            deployments: deployments
                .filter_map(|read| read.deployment.clone())
                .collect(),
        }
    }
}

/// Reads one file and everything that overrides it.
pub(super) fn inspect(question: &Question<'_>, files: &[(&Path, &FileText)]) -> Inspected {
    let mut view = View::new(files);
    let mut findings = Limited::default();
    let (layers, gathered, broken_key) = layers(&mut view, question, &mut findings);
    let layered = Layered::new(layers);
    let inputs = Inputs {
        view: Some(&view),
        environment: question.environment,
        home: question.home,
        ours: &gathered.ours,
    };
    let mut reader = Reader::new(&layered, &inputs);
    let own = own_key::read(&mut reader, question.purpose);
    let impersonation = impersonation(&mut reader);
    let options = options::read(&mut reader);
    let deployments = deployments::read(&mut reader, &impersonation, question.purpose);
    trusted_key::ambiguous(&mut reader, own.as_ref(), &deployments);
    let rotation = rotation::read(&mut reader, own.as_ref(), &deployments, question.purpose);
    reach::check(&mut reader, &options, question.purpose);
    let about = pins::About {
        purpose: question.purpose,
        assumed: question.assumed,
    };
    pins::check(&mut reader, &options, &deployments, &about);
    let replay_at = reader.raw("countersign.token.replay", &[]).cloned();
    connections::check(&mut reader, &deployments);
    own_check::check(&mut reader, &options, &deployments);
    let Question {
        environment, sets, ..
    } = *question;
    profiles::check(&mut reader, Above { environment, sets });
    let unused = gathered.unused.iter().map(|(at, _)| *at);
    reader.rest(unused.chain(gathered.ignored.iter().copied()));
    let lifetime_at = set_at(&mut reader, own_check::LIFETIME);
    let message_bytes_at = MESSAGE_BYTES.map(|name| set_at(&mut reader, name));
    let cold = cold(&layered, &reader);
    findings.extend(reader.findings.finish());
    if own.is_none() && layered.value(&schema::path(own_key::NAME, &[])).is_none() && !broken_key {
        findings.push(whole_file::no_key(&view, &gathered, question.purpose));
    }
    whole_file::about_text(&view, &gathered, question.purpose, &mut findings);
    let settings = gathered.ours.len();
    let ignored = whole_file::ignored(&view, &gathered);
    findings.extend(gathered.findings.finish());
    Inspected {
        own,
        rotation,
        impersonation,
        deployments,
        options,
        message_bytes_at,
        replay_at,
        lifetime_at,
        cold,
        findings: findings.finish(),
        settings,
        ignored,
        view,
    }
}

/// Returns what `name` is set to, unless that is its default.
fn set_at(reader: &mut Reader<'_>, name: &str) -> Option<Sourced> {
    let value = reader.raw(name, &[]);
    value.filter(|v| *v.origin() != Origin::Default).cloned()
}

/// Lists what only a restart changes.
fn cold(layered: &Layered, reader: &Reader<'_>) -> BTreeMap<String, String> {
    let paths = layered.contents().map(|(path, _)| path);
    paths
        .filter(|path| !schema::is_hot(path))
        .map(|path| {
            let content = layered.content(path);
            let values = content.map(Content::values).unwrap_or_default();
            let texts = values.iter().map(|value| {
                let text = reader.resolve(value.text());
                text.unwrap_or_else(|| value.text().to_owned())
            });
            (path.join("."), texts.collect::<Vec<_>>().join(", "))
        })
        .collect()
}

/// Puts everything that is set into layers, and tells whether the own key is broken over lines.
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
    text_check::hide_secrets(view, &known);
    let skipped = text_check::broken_values(view, &known, findings);
    swallowed::check(view, &known, findings);
    let private = |at: &usize| matches!(known.get(*at), Some(Known::Setting(placed)) if placed.setting.is_private());
    let broken_key = skipped.iter().any(private);
    let spellings = Spellings::of(&known, &skipped, question.sets);
    let (files, gathered) = gather::files(view, known, &skipped, &spellings);
    let mut layers = vec![defaults(question.kind)];
    layers.extend(files);
    if question.purpose == Purpose::Run {
        let names = Names::new(&gathered.ours);
        layers.push(gather::environment(question.environment, &names, findings));
        layers.push(gather::options(question.sets, &spellings, findings));
    }
    (layers, gathered, broken_key)
}

/// The server's and the client's largest message.
const MESSAGE_BYTES: [&str; 2] = [
    "ataccama.server.grpc.max-message-size",
    "ataccama.client.grpc.properties.max-message-size",
];

fn defaults(kind: Option<&ModuleKind>) -> Layer {
    let mut layer = Layer::new();
    for setting in schema::settings().filter(|setting| !setting.name().contains('<')) {
        let text = match (setting.fallback(), kind) {
            (Fallback::Text(text), _)
            | (Fallback::PerModule(text, _), Some(ModuleKind::Dpm))
            | (Fallback::PerModule(_, text), Some(ModuleKind::Dpe)) => text,
            (Fallback::None | Fallback::PerModule(..), _) => continue,
        };
        let value = Sourced::new(text, Origin::Default);
        let path = setting.name().split('.').map(Cow::Borrowed).collect();
        layer.push((path, Content::One(value)));
    }
    layer
}

fn impersonation(reader: &mut Reader<'_>) -> Role {
    let name = "ataccama.authentication.internal.jwt.impersonation-role";
    let value = reader.text(name, &[]);
    let role = value.as_ref().map(|value| Role::new(value.text()));
    match (role, value) {
        (Some(Ok(role)), _) => return role,
        (Some(Err(error)), Some(value)) => {
            reader.wrong(name, &[], &value, &format!("is no role: {error}"));
        }
        _ => {}
    }
    Role::impersonation()
}
