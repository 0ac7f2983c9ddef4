//! What is to be said of a file as a whole.

use std::path::Path;

use crate::diagnostic::{Code, Finding, Origin, Severity, redact, redact_name};
use crate::properties::name::Name;
use crate::properties::{Document, Entry, ReadError};

use super::check::{Ignored, Purpose};
use super::gather::{DEPLOYMENTS, Gathered};
use super::own_key;
use super::schema::{self, Known};
use super::text_check;
use super::view::{Limited, View};

/// Reports that a module without its own key cannot run. Where the file says nothing but whom to
/// trust, it may be a part of one that a person wants to have checked: a warning then.
pub(super) fn no_key(view: &View, gathered: &Gathered, purpose: Purpose) -> Finding {
    if gathered.ours.is_empty() {
        let kind = looks_like(view);
        let message = format!("there is no setting of ours in this file{kind}");
        let help = "name the module's `etc/application.properties`";
        return view.about_file(0, Code::Cs0301, message).with_help(help);
    }
    let message = format!(
        "this module has no key of its own: `{}` is missing",
        own_key::NAME
    );
    let mut ours = gathered.ours.iter();
    let is_part = ours.all(|(_, placed)| placed.name().starts_with(DEPLOYMENTS));
    let severity = if is_part {
        purpose.strict()
    } else {
        Severity::Error
    };
    view.about_file(0, Code::Cs0301, message)
        .with_severity(severity)
        .with_key(own_key::NAME)
        .with_help("`countersign pair` makes a key and writes it")
}

/// Reports a file whose bytes are no text, or returns why it cannot be read at all.
pub(super) fn no_text(error: ReadError) -> Result<Finding, ReadError> {
    let Some((line, column)) = error.fault().no_text() else {
        return Err(error);
    };
    let origin = Origin::File {
        path: error.path().into(),
        line,
        column,
    };
    let message = format!("the file is not read: {}", error.fault());
    Ok(Finding::new(Code::Cs0101, origin, message)
        .with_help("save it as UTF-8 text; Java reads a file of settings byte by byte"))
}

fn looks_like(view: &View) -> &'static str {
    let text = view.document().text();
    let start = text.trim_start();
    if start.starts_with('<') {
        "; it looks like HTML or XML"
    } else if start.starts_with(['{', '[']) {
        "; it looks like JSON"
    } else if start.starts_with("---") || text.lines().any(|line| line.trim_end() == "ataccama:") {
        "; it looks like YAML, which is not read"
    } else {
        ""
    }
}

/// Reports what is wrong with the file as text, and what of it is recognised and not used.
pub(super) fn about_text(
    view: &View,
    gathered: &Gathered,
    purpose: Purpose,
    findings: &mut Limited,
) {
    text_check::file(view, findings);
    text_check::values(view, &gathered.ours, findings);
    let mut told = Vec::new();
    let private = gathered.ours.iter();
    for (at, _) in private.filter(|(_, placed)| placed.setting.is_private()) {
        let file = view.document().file_of_entry(*at);
        if let Some(entry) = view.entry(*at).filter(|_| !told.contains(&file)) {
            text_check::permissions(view, entry.key_span(), findings);
            told.push(file);
        }
    }
    if purpose == Purpose::Run {
        return;
    }
    for (at, setting) in &gathered.unused {
        let Some(entry) = view.entry(*at) else {
            continue;
        };
        let message = format!("this setting is not used: {}", setting.what());
        let found = view.finding(Code::Cs0305, entry.key_span(), message);
        findings.push(found.with_key(redact(entry.key())));
    }
}

/// Tells whether a private key stands in `text`, the content of a settings file.
pub fn holds_private_key(text: &str) -> bool {
    let document = Document::parse(Path::new(""), text);
    let mut names = document.entries().iter().map(Entry::key);
    names.any(|name| {
        let known = schema::find(&Name::parse(name));
        matches!(known, Known::Setting(placed) if placed.setting.is_private())
    })
}

/// Lists the entries with foreign names.
pub(super) fn ignored(view: &View, gathered: &Gathered) -> Vec<Ignored> {
    let entries = gathered.ignored.iter().filter_map(|at| view.entry(*at));
    entries
        .map(|entry| Ignored {
            origin: view.document().origin(entry.key_span().start),
            name: redact_name(entry.key()),
        })
        .collect()
}
