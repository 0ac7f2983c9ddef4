//! `check`: what is wrong with files, each by itself and compared with the others.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::inspect::inspect;
use super::question::Question;
use super::rules::{cross, file, keys};
use super::schema::{self, Known, Takes};
use super::settings::{Home, Ignored, Options};
use super::spring;
use super::view::{Limited, View};
use crate::diagnostic::{Code, Findings, Severity};
use crate::jose::{KeyId, PublicJwk, SigningKey, repair};
use crate::properties::name::Name;
use crate::properties::{Document, Entry, FileText, ReadError, Span, replace};
use crate::secret::Secret;
use crate::storage::revoked_keys::Remembered;
use crate::trust::Deployment;

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
/// `environment` overrides settings, as for a module. Only the comparison of several files is
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
        with_environment: true,
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
    let bare = Question::check(&question.environment);
    let (mut inspected, mut others) = (Vec::new(), Vec::new());
    for (at, (path, _)) in texts.iter().enumerate() {
        let mut rest = read.iter().enumerate().filter(|(other, _)| *other != at);
        // What another file brings in is looked at with that one.
        let is_part = rest.any(|(_, other)| other.brings_in(path));
        if let Some(texts) = read.get(at).filter(|_| !is_part) {
            let known = remembered.get(path).unwrap_or(&none);
            let file = inspect(question, known, texts);
            let is_other = read.len() > 1 && file.is_overridden();
            others.push(is_other.then(|| inspect(&bare, known, texts)));
            inspected.push(file);
        }
    }
    let mut findings = Limited::default();
    let compared = others.iter().zip(&inspected);
    let compared: Vec<_> = compared
        .map(|(bare, file)| bare.as_ref().unwrap_or(file))
        .collect();
    cross::check(&compared, &mut findings);
    findings.extend(cross::certificates(&inspected, Severity::Error));
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

/// A text with its repairs.
#[derive(Debug)]
pub struct Fixed {
    /// The text, without a byte order mark.
    pub text: Secret<String>,
    /// What was repaired, in the order of the lines.
    pub repairs: Vec<Repair>,
}

/// One repair, as it may be shown: private keys are left out.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Repair {
    /// The finding that it removes.
    pub code: Code,
    /// The file, as the user named it.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The setting; empty if the finding is about the file.
    pub key: String,
    /// What was done, in words.
    pub what: &'static str,
    /// The line as it was.
    pub before: String,
    /// The line as it is.
    pub after: String,
}

/// Repairs the `active` documents of `text`, the content of `path`; `None` if there is nothing to
/// repair.
///
/// What is repaired: quotes that are missing in a key, a key that is broken over lines, blanks at
/// the end of a value, and a byte order mark.
///
/// A repaired key is a valid key of its kind; every other line stays byte for byte as it is.
pub fn fix(path: &Path, text: &FileText, active: &BTreeSet<usize>) -> Option<Fixed> {
    let mut view = View::new(Document::parse(path, text.text()).into());
    let names = view.entries().iter().map(|entry| Name::parse(entry.key()));
    let known: Vec<_> = names.map(|name| schema::find(&name)).collect();
    file::hide_secrets(&mut view, &known);
    let (document, entries) = (&view.document, view.entries());
    let mut repairs = Vec::new();
    if text.has_mark {
        repairs.push(Repair {
            code: Code::Cs0102,
            file: path.display().to_string(),
            line: 1,
            key: String::new(),
            what: "the byte order mark is removed",
            before: "«byte order mark»".to_owned(),
            after: String::new(),
        });
    }
    let mut replaced = Vec::new();
    for (at, (entry, found)) in entries.iter().zip(&known).enumerate() {
        let Known::Setting(placed) = found else {
            continue;
        };
        if !active.contains(&document.document_of_entry(at)) {
            continue;
        }
        let lines = file::stray_lines(entries, &known, at, placed);
        let stray = entries.get(lines).unwrap_or_default();
        let repaired = replacement(document, entry, placed.setting.takes, stray);
        let Some((span, new, (code, what))) = repaired else {
            continue;
        };
        let takes = placed.setting.takes;
        // A repaired key is public, but what stands beside it may not be.
        let is_public = matches!(takes, Takes::PublicKey) && is_whole(new.expose(), takes);
        let setting = &placed.setting;
        let is_hidden = setting.is_private() || setting.name.ends_with(".**");
        let [before, after] = [document.written(span), new.expose()].map(|value| {
            let shown = match () {
                () if is_public => with_dots(&view.shown_beside(value, new.expose())),
                () if is_hidden => format!("«private, {} chars»", value.len()),
                () => with_dots(&view.shown(&as_read(value))),
            };
            format!("{}={shown}", view.shown(entry.key()))
        });
        repairs.push(Repair {
            code,
            file: path.display().to_string(),
            line: document.line(entry.key_span.start),
            key: view.shown(entry.key()),
            what,
            before,
            after,
        });
        replaced.push((span, new.expose().clone().into()));
    }
    let text = Secret::new(replace(document.text(), replaced).to_string());
    (!repairs.is_empty()).then_some(Fixed { text, repairs })
}

/// What comes in the place of a part of the text, and the finding that this removes, in words.
type Replacement = (Span, Secret<String>, (Code, &'static str));

/// Repairs one value, which goes on in the lines `stray`.
fn replacement(
    document: &Document,
    entry: &Entry,
    takes: Takes,
    stray: &[Entry],
) -> Option<Replacement> {
    let span = entry.value_span;
    if let Some(last) = stray.last() {
        let text = file::joined(document, entry, stray);
        if text.expose().contains('\\') || !is_whole(text.expose(), takes) {
            return None;
        }
        let whole = Span::new(span.start, last.value_span.end);
        return Some((whole, text, (Code::Cs0104, "its lines are joined")));
    }
    let written = document.written(span);
    // Where something is escaped, what is written and what is meant are two things.
    if written == entry.value()
        && let Some(text) = quoted(written, takes)
    {
        let code = match takes {
            Takes::PrivateKey => Code::Cs0206,
            _ => Code::Cs0201,
        };
        return Some((span, text, (code, "the missing quotes are put back")));
    }
    let kept = written.trim_end_matches(BLANKS);
    let has_blanks = kept.len() < written.len() && !kept.is_empty() && !kept.ends_with('\\');
    let what = (Code::Cs0105, "the blanks at its end are removed");
    has_blanks.then(|| (span, Secret::new(kept.to_owned()), what))
}

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

/// Puts the missing quotes of a key back, if that makes it whole.
fn quoted(written: &str, takes: Takes) -> Option<Secret<String>> {
    let is_key = matches!(takes, Takes::PublicKey | Takes::PrivateKey);
    if !is_key || is_whole(written, takes) {
        return None;
    }
    let repaired = Secret::new(repair(written.trim_end())?);
    is_whole(repaired.expose(), takes).then_some(repaired)
}

/// Returns `true` if `text` is a key of the kind that a setting takes.
fn is_whole(text: &str, takes: Takes) -> bool {
    match takes {
        Takes::PublicKey => PublicJwk::parse(text).is_ok(),
        Takes::PrivateKey => keys::is_usable(text.trim()),
        _ => false,
    }
}

/// Returns `written` as it is read: a part of a key shows only there.
fn as_read(written: &str) -> String {
    let document = Document::parse(Path::new(""), &format!("k={written}"));
    let mut entries = document.entries().iter();
    entries
        .next()
        .map(|entry| entry.value().to_owned())
        .unwrap_or_default()
}

/// Shows each blank at the end of a line as `·`.
fn with_dots(value: &str) -> String {
    let lines = value.lines().map(|line| {
        let kept = line.trim_end_matches(BLANKS);
        let blanks = line.chars().count().saturating_sub(kept.chars().count());
        format!("{kept}{}", "·".repeat(blanks))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rules::keys::OWN_KEY;
    use crate::config::tests::own_line;

    #[test]
    fn fix_never_calls_a_refused_value_repaired() {
        let key = SigningKey::generate().unwrap();
        let pem = key.to_pkcs8_pem().unwrap().expose().clone();
        let one_line = own_line(&key);
        let (_, value) = one_line.trim().split_once('=').unwrap();
        let (first, rest) = value.split_at(40);
        let fixes = |value: &str| {
            let text = FileText::from_bytes(format!("{OWN_KEY}={value}\n").as_bytes()).unwrap();
            fix(Path::new("a"), &text, &BTreeSet::from([0])).is_some()
        };

        assert!(fixes(&format!("{first}\n{rest}")));
        assert!(!fixes(&pem));
        assert!(!fixes(&pem.replace('\n', "\\n").replacen("\\n", "\n", 1)));
        assert!(!fixes(&format!("[{first}\n{rest}]")));
    }
}
