//! `check`: what is wrong with files, each by itself and compared with the others.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::diagnostic::{Findings, Severity};
use crate::jose::{KeyId, SigningKey};
use crate::properties::{FileText, ReadError};
use crate::storage::revoked_keys::Remembered;
use crate::trust::Deployment;

use super::inspect::inspect;
use super::parts::Ignored;
use super::question::Question;
use super::rules::{certificates, cross, file};
use super::settings::{Home, Options};
use super::spring;
use super::view::Limited;

/// What `check` found in one or more files.
#[derive(Debug, Default)]
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
    /// Its own key and the `kid` of its tokens.
    pub own: Option<(SigningKey, KeyId)>,
    /// Everything besides keys and deployments.
    pub options: Options,
    /// The deployments in which nothing required is missing.
    pub deployments: Vec<Deployment>,
}

/// Checks `files`, each by itself and, if there are several, compared with each other.
///
/// `environment` overrides settings of a single file, as for a module. Several files are read
/// without it, since each module has its own.
///
/// # Errors
///
/// If a file cannot be read. What is wrong inside of one is a finding, bytes that are no text
/// included.
pub fn check(files: &[PathBuf], environment: &[(String, String)]) -> Result<Report, ReadError> {
    let mut texts = Vec::new();
    let mut no_text = Vec::new();
    let memories = remembered(files)?;
    for path in files {
        match FileText::read(path) {
            Ok(text) => texts.push((path.clone(), text)),
            Err(error) => no_text.push(file::no_text(error)?),
        }
    }
    let question = Question {
        with_environment: files.len() == 1,
        texts,
        ..Question::check(environment)
    };
    let mut report = judged(&question, &memories)?;
    report.findings.0.extend(no_text);
    report.findings.sort();
    Ok(report)
}

/// Reads what the homes of `files` remember of revoked keys: before the files, so that a revocation
/// that is written meanwhile is not taken for one that a file has lost.
///
/// # Errors
///
/// When a memory cannot be read.
pub fn remembered(files: &[PathBuf]) -> Result<HashMap<PathBuf, Remembered>, ReadError> {
    let homes = files.iter().map(|path| (path, Home::new(path)));
    homes
        .map(|(path, home)| Ok((path.clone(), home.remembered()?)))
        .collect()
}

/// Checks texts as [`check`] does, before they are written to the files they are for, with what the
/// homes of some of them have `remembered`; `assumed` are other files that will be written with
/// them. What the environment overrides is not looked at.
///
/// # Errors
///
/// If one of them cannot be read.
pub fn check_texts(
    texts: &[(PathBuf, FileText)],
    remembered: &HashMap<PathBuf, Remembered>,
    environment: &[(String, String)],
    assumed: &[PathBuf],
) -> Result<Report, ReadError> {
    let question = Question {
        assumed: assumed.to_owned(),
        texts: texts.to_owned(),
        ..Question::check(environment)
    };
    judged(&question, remembered)
}

/// Checks the texts of `question`, with what their homes have `remembered`.
fn judged(
    question: &Question,
    remembered: &HashMap<PathBuf, Remembered>,
) -> Result<Report, ReadError> {
    let none = Remembered::default();
    let texts = &question.texts;
    let all = texts.iter().map(|(path, _)| spring::read(path, question));
    let read = all.collect::<Result<Vec<_>, _>>()?;
    let mut inspected = Vec::new();
    for (at, (path, _)) in texts.iter().enumerate() {
        let mut others = read.iter().enumerate().filter(|(other, _)| *other != at);
        // What another file brings in is looked at with that one.
        let is_part = others.any(|(_, other)| other.brings_in(path));
        if let Some(texts) = read.get(at).filter(|_| !is_part) {
            let known = remembered.get(path).unwrap_or(&none);
            inspected.push(inspect(question, known, texts));
        }
    }
    let mut findings = Limited::default();
    cross::check(&inspected, &mut findings);
    findings.extend(certificates::check(&inspected, Severity::Error));
    let mut report = Report::default();
    for file in inspected {
        let settings = file.gathered.ours.len();
        report.settings = report.settings.saturating_add(settings);
        report.ignored.extend(file.gathered.ignored);
        findings.extend(file.findings.0);
        let deployments = file.deployments.into_iter();
        report.files.push(Checked {
            own: file.own.map(|own| (own.key, own.key_id)),
            options: file.options,
            deployments: deployments.filter_map(|read| read.deployment).collect(),
        });
    }
    report.findings = findings.finish();
    Ok(report)
}
