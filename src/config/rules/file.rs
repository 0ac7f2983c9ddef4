//! What is wrong with a file as text, and as a whole: encoding, permissions, broken lines, blanks,
//! backslashes, settings that are lost in the value of another, documents that are not active, a
//! missing own key.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use super::keys;
use super::keys::REVOKED;
use crate::config::question::Question;
use crate::config::read::Reader;
use crate::config::schema::{self, DEPLOYMENTS, Known, Placed, Takes};
use crate::config::settings::{Home, ReadDeployment};
use crate::config::view::{Limited, View};
use crate::diagnostic::{Code, CommandLine, Finding, Origin, Severity, quote, redact};
use crate::jose::{KeyMaterial, PublicJwk};
use crate::properties::name::{Name, uniform};
use crate::properties::{
    self, Document, Encoding, Entry, FileText, MAX_VALUE, ReadError, Reading, Span, bind,
};
use crate::secret::Secret;

/// Hides the private values of a file, before anything of it is shown.
pub fn hide_secrets(view: &mut View, known: &[Known]) {
    let entries = view.entries().iter().zip(known);
    let secret = entries.filter(|(entry, known)| match known {
        Known::Setting(placed) if placed.setting.name.ends_with(".**") => {
            let key = entry.key().to_ascii_lowercase();
            let mut words = ["password", "secret", "token"].iter();
            words.any(|word| key.contains(word))
        }
        known => known.is_private(),
    });
    let spans: Vec<_> = secret.map(|(entry, _)| entry.value_span).collect();
    view.hide(spans);
}

/// Finds keys whose value goes on in the next lines, which become names of their own. Returns the
/// entries that are no settings: the broken ones and their stray lines.
pub fn broken_values(view: &mut View, known: &[Known], findings: &mut Limited) -> Vec<usize> {
    let (mut skipped, mut all) = (Vec::new(), Vec::new());
    for (at, known_here) in known.iter().enumerate() {
        let Known::Setting(placed) = known_here else {
            continue;
        };
        if let Some(entry) = view
            .entry(at)
            .filter(|entry| entry.value().len() > MAX_VALUE)
        {
            let name = placed.name();
            let message = format!("the value of `{name}` is longer than 64 KiB");
            let found = view.finding(Code::Cs0306, entry.key_span, message);
            findings.push(found.with_key(name).with_help("write a shorter value"));
            skipped.push(at);
            continue;
        }
        let stray = stray_lines(view.entries(), known, at, placed);
        if !stray.is_empty() {
            skipped.push(at);
            skipped.extend(stray.clone());
            all.push((at, placed, stray));
        }
    }
    let strays = all.iter().flat_map(|(.., stray)| stray.clone());
    let spans: Vec<_> = strays
        .filter_map(|at| Some(view.entry(at)?.line_span))
        .collect();
    view.hide(spans);
    for (at, placed, stray) in all {
        findings.extend(broken(view, at, placed, stray));
    }
    skipped
}

fn broken(view: &View, at: usize, placed: &Placed, stray: Range<usize>) -> Option<Finding> {
    let (entry, stray) = view.entry(at).zip(view.entries().get(stray))?;
    let name = placed.name();
    let message = format!("the value of `{name}` ends here; its other lines are ignored");
    let whole = joined(&view.document, entry, stray);
    let jwk = PublicJwk::parse(whole.expose()).ok();
    let is_private = placed.setting.is_private();
    let is_pem = entry.value().trim_start().starts_with("-----BEGIN");
    let help = match jwk.and_then(|jwk| Some(PublicJwk::write(&jwk.key, &jwk.kid?))) {
        Some(joined) => &*format!("write it on one line: `{name}={joined}`"),
        None if is_pem && is_private => keys::IMPORT,
        None if is_pem => "PEM is not read here: `countersign key import` converts it to a JWK",
        None if is_private => keys::ONE_LINE,
        None => "write the key on one line, as `jq -c . key.jwk` prints it",
    };
    let found = view.finding(Code::Cs0104, entry.value_span, message);
    let named = found.with_key(name).with_label("broken over several lines");
    Some(named.with_help(help))
}

/// Joins the lines of a value that goes on in the entries `stray`.
pub fn joined(document: &Document, entry: &Entry, stray: &[Entry]) -> Secret<String> {
    let mut text = document.written(entry.value_span).trim().to_owned();
    for line in stray {
        text.push_str(document.written(line.line_span).trim());
    }
    Secret::new(text)
}

/// Finds the entries after `at` that are lines of its value.
pub fn stray_lines(entries: &[Entry], known: &[Known], at: usize, placed: &Placed) -> Range<usize> {
    let start = at.saturating_add(1);
    // Not `skip`, which walks there.
    let rest = entries.get(start..).unwrap_or_default().iter();
    let count = rest
        .zip(known.get(start..).unwrap_or_default())
        .take_while(|(entry, known)| !matches!(known, Known::Setting(_)) && is_stray(entry))
        .count();
    let value = entries.get(at).map(Entry::value).unwrap_or_default();
    // Keys take long to read.
    let is_broken = count > 0
        && match placed.setting.takes {
            Takes::PublicKey => PublicJwk::parse(value).is_err(),
            Takes::PrivateKey => KeyMaterial::read(value.trim().as_bytes()).is_err(),
            _ => false,
        };
    if is_broken {
        start..start.saturating_add(count)
    } else {
        at..at
    }
}

/// Returns `true` if a line looks like a part of JSON or of base64 rather than a setting.
fn is_stray(entry: &Entry) -> bool {
    let key = entry.key();
    if key.contains('"') || key.starts_with(['{', '}', '\'']) || key.starts_with("-----") {
        return true;
    }
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_');
    let padding = entry.value().chars().all(|c| c == '=');
    !key.is_empty() && padding && key.chars().all(is_base64)
}

/// Reports every entry that has a setting of ours among its later lines, and hides the private
/// keys there.
pub fn lost_settings(view: &mut View, known: &[Known], findings: &mut Limited) {
    let entries = view.entries().iter();
    let lost: Vec<_> = entries.map(|entry| lost(&view.document, entry)).collect();
    view.hide(lost.iter().flatten().filter_map(|line| line.private));
    for ((entry, known), lost) in view.entries().iter().zip(known).zip(&lost) {
        match (known.used(), lost.first()) {
            (Some(placed), Some(_)) => findings.add(Code::Cs0104, || by_ours(view, entry, placed)),
            (None, Some(lost)) => findings.add(Code::Cs0104, || by_another(view, entry, lost)),
            (_, None) => {}
        }
    }
}

/// A line with a setting of ours that is read as part of a value.
struct Lost {
    name: Span,
    /// As it is read, unless it goes on in the next line.
    key: Option<String>,
    /// The rest of the line, if that is a private key.
    private: Option<Span>,
}

/// Finds the settings of ours among the lines of `entry` after its first.
fn lost(document: &Document, entry: &Entry) -> Vec<Lost> {
    let span = entry.line_span;
    let text = document.written(span);
    let mut lost = Vec::new();
    if !text.trim_end().contains(['\n', '\r']) {
        return lost;
    }
    let mut start = span.start;
    for line in text.split_inclusive(['\n', '\r']) {
        let end = start.saturating_add(line.len());
        // A line that begins with its backslash does not begin with its name.
        let is_later = start > entry.key_span.start;
        if let Some((key, length, is_private)) = starts_with_ours(line.trim()).filter(|_| is_later)
        {
            let begin = end.saturating_sub(line.trim_start().len());
            let name = Span::new(begin, begin.saturating_add(length));
            let value = Span::new(name.end, end);
            let private = is_private.then_some(value);
            let goes_on = document.written(value).trim_end() == "\\";
            let key = (!goes_on).then(|| redact(&key));
            lost.push(Lost { name, key, private });
        }
        start = end;
    }
    lost
}

/// Returns the name at the start of `line` and how long it is as written, if it is one of ours, and
/// whether its value is a private key.
fn starts_with_ours(line: &str) -> Option<(String, usize, bool)> {
    let document = Document::parse(Path::new(""), line);
    let entry = document.entries().first()?;
    let parsed = Name::parse(entry.key());
    let used = schema::exact(&parsed).filter(|placed| placed.setting.is_used());
    let has_value = used.is_some() && entry.key_span.end < line.len();
    let is_private = used.is_some_and(|placed| placed.setting.is_private());
    // Without a value it is one of ours only if nothing else can be meant.
    let is_ours = has_value || is_private || schema::is_strict(&parsed);
    let length = entry.key_span.end.saturating_sub(entry.key_span.start);
    is_ours.then(|| (entry.key().to_owned(), length, is_private))
}

/// Reports a name of ours that is read as the value of a word before it: `export name=value`.
pub fn behind_a_word(view: &View, entry: &Entry) -> Option<Finding> {
    let (key, value) = (entry.key_span, entry.value_span);
    let between = view.document.written(Span::new(key.end, value.start));
    if between.is_empty() || !between.trim().is_empty() {
        return None;
    }
    let written = view.document.written(value);
    let (name, length, is_private) = starts_with_ours(written)?;
    let span = Span::new(value.start, value.start.saturating_add(length));
    let message = format!(
        "the name ends at the blank, so this sets {}",
        quote(entry.key())
    );
    let found = view
        .finding(Code::Cs0107, span, message)
        .with_key(redact(&name))
        .with_help(format!("write {} at the start of its line", quote(&name)));
    if is_private {
        return Some(found.with_snippet(None));
    }
    Some(found)
}

fn by_ours(view: &View, entry: &Entry, placed: &Placed) -> Finding {
    let name = placed.name();
    let message = format!("a backslash at the end of its line made the next line part of `{name}`");
    view.finding(Code::Cs0104, entry.value_span, message)
        .with_key(name)
        .with_help("remove the backslash")
}

fn by_another(view: &View, entry: &Entry, lost: &Lost) -> Finding {
    let message = format!(
        "this setting has no effect: a backslash at the end of the line before makes it part of {}",
        quote(entry.key())
    );
    let mut found = view.finding(Code::Cs0104, lost.name, message);
    found.key.clone_from(&lost.key);
    found
        .with_label("not on its own line")
        .with_help("remove the backslash at the end of the line before, or double it")
}

/// Reports what is wrong with the files as text, and with the settings in them as they are written.
pub fn check(
    view: &View,
    files: &[(&Path, &FileText)],
    [ours, inactive]: [&[(usize, Placed)]; 2],
    findings: &mut Limited,
) {
    text(view, files, findings);
    if let Some((main, _)) = files.first().filter(|_| !ours.is_empty()) {
        folders(view, &Home::new(main).dir, findings);
    }
    let mut private_files = Vec::new();
    let active = ours.iter().map(|ours| (ours, true));
    for ((at, placed), is_active) in active.chain(inactive.iter().map(|ours| (ours, false))) {
        let Some(entry) = view.entry(*at) else {
            continue;
        };
        if is_active {
            value(view, entry, placed, findings);
        }
        let file = view.document.file_of_entry(*at);
        if placed.setting.is_private() && !private_files.contains(&file) {
            private_files.push(file);
            findings.extend(files.get(file).and_then(|(path, text)| {
                let what = match placed.setting.takes {
                    Takes::Password => "this password",
                    _ => "this private key",
                };
                let (severity, message) = open_to_others(text.mode?, what)?;
                let found = view.finding(Code::Cs0108, entry.key_span, message);
                let help = format!("run `{}`", CommandLine::new("chmod 600").arg(path));
                Some(found.with_severity(severity).with_help(help))
            }));
        }
    }
}

/// Reports what is wrong with the text itself.
fn text(view: &View, files: &[(&Path, &FileText)], findings: &mut Limited) {
    for fault in view.document.faults() {
        findings.add(Code::Cs0101, || view.describe(fault));
    }
    for (start, (_, text)) in view.document.file_starts().zip(files) {
        if text.encoding == Encoding::Latin1 {
            let message = "the file is not UTF-8 and is read as ISO-8859-1";
            let found = view.about_file(start, Code::Cs0101, message);
            let help = "save it as UTF-8, or write other characters as `\\uXXXX`";
            findings.push(found.with_severity(Severity::Note).with_help(help));
        }
        if text.has_mark {
            let message =
                "the file starts with a byte order mark, which Java makes part of the first name";
            let found = view.about_file(start, Code::Cs0102, message);
            findings.push(found.with_help("save it as UTF-8 without a byte order mark"));
        }
    }
    for separator in view.document.separators() {
        let (code, message, help) = match separator.reading {
            Reading::Separator => continue,
            Reading::Comment => (
                Code::Cs0305,
                "this line starts no new document: a comment with the same mark is right beside it",
                "leave a blank line before it and none after it, or remove it",
            ),
            Reading::Doubtful => (
                Code::Cs0112,
                "this line starts a new document by Spring Boot's manual, but not by its code: a comment follows",
                "move the comment below the document's first setting, or above the line and a blank one",
            ),
        };
        let found = view.finding(code, separator.span, message);
        findings.push(found.with_help(help));
    }
}

/// Reports the folders of the module at `home` in which other users can replace files.
fn folders(view: &View, home: &Path, findings: &mut Limited) {
    let folders = [
        ("etc", Severity::Error),
        ("storage", Severity::Error),
        ("log", Severity::Warning),
    ];
    for (name, severity) in folders {
        let folder = home.join(name);
        let mode = fs::metadata(&folder).map_or(0, |about| properties::mode(&about));
        let (is_open, is_sticky) = (mode & 0o022 != 0, mode & 0o1000 != 0);
        if is_open && !is_sticky {
            let shown = folder.display();
            let message = format!(
                "other users can replace the files in `{shown}` (mode {:04o})",
                mode & 0o777
            );
            let found = view.about_file(0, Code::Cs0108, message);
            let help = format!("run `{}`", CommandLine::new("chmod go-w").arg(&folder));
            findings.push(found.with_severity(severity).with_help(help));
        }
    }
}

/// Returns what is wrong if others can read or write `what` in a file of this `mode`.
pub fn open_to_others(mode: u32, what: &str) -> Option<(Severity, String)> {
    let (severity, who) = match (mode & 0o022, mode & 0o004) {
        (0, 0) => return None,
        (0, _) => (Severity::Warning, "every user of this machine can read"),
        _ => (Severity::Error, "other users can write"),
    };
    Some((severity, format!("{who} {what} (mode {mode:04o})")))
}

/// Reports blanks, comments and backslashes in the value of a setting of ours.
fn value(view: &View, entry: &Entry, placed: &Placed, findings: &mut Limited) {
    let value = entry.value();
    let kept = value.trim_end_matches([' ', '\t', '\u{c}']);
    let is_key = matches!(placed.setting.takes, Takes::PublicKey | Takes::PrivateKey);
    let comment = [" #", "\t#"].iter().find_map(|mark| value.find(mark));
    let blanks = match comment.filter(|_| !is_key) {
        Some(at) => Some((
            at.saturating_add(1),
            "this is part of the value, not a comment",
            "put the comment on a separate line",
        )),
        None if kept.len() < value.len() && !kept.is_empty() => Some((
            kept.len(),
            "the value ends in blanks, which Java keeps and countersign removes",
            "remove them",
        )),
        None => None,
    };
    if let Some((offset, message, help)) = blanks {
        let span = Span::new(entry.place_in_text(offset), entry.value_span.end);
        let found = view.finding(Code::Cs0105, span, message);
        findings.push(found.with_key(placed.name()).with_help(help));
    }
    if entry.escapes.control {
        let name = placed.name();
        let message =
            format!("backslashes in the value of `{name}` were read as control characters");
        let found = view.finding(Code::Cs0110, entry.value_span, message);
        let help = "double each backslash, or use `/` in a path";
        findings.push(found.with_key(name).with_help(help));
    }
}

/// Reports that a module without its own key cannot run. For a check, a file that only names
/// deployments may be a part of one: a warning then.
pub fn no_key(
    view: &View,
    [ours, inactive]: [&[(usize, Placed)]; 2],
    question: &Question,
) -> Finding {
    if ours.is_empty() && inactive.is_empty() {
        let message = "no countersign or Ataccama identity settings found in this file";
        let help = "use the module's `etc/application.properties`";
        return view.about_file(0, Code::Cs0301, message).with_help(help);
    }
    let own = keys::OWN_KEY;
    let message = format!("this module has no key: `{own}` is missing");
    let mut names = ours.iter().map(|(_, placed)| placed.name());
    let is_part = inactive.is_empty() && names.all(|name| name.starts_with(DEPLOYMENTS));
    let mut others = inactive.iter();
    let hidden = others.find(|(_, placed)| placed.name() == own);
    let help = match hidden.and_then(|(at, _)| view.value(*at)) {
        Some(at) => format!("{} has one, in a document that is not active", at.origin()),
        None if ours
            .iter()
            .any(|(_, placed)| placed.name().starts_with(DEPLOYMENTS)) =>
        {
            let replace = keys::replacing(view.document.path(), &[]);
            format!(
                "`countersign pair` makes the first key and writes it; one that is lost is \
                 replaced: {replace}"
            )
        }
        None => "`countersign pair` makes a key and writes it".to_owned(),
    };
    let found = view.about_file(0, Code::Cs0301, message).with_key(own);
    found
        .error_if(!is_part || question.is_run())
        .with_help(help)
}

/// Reports a file whose bytes are no text, or returns why it cannot be read at all.
pub fn no_text(error: ReadError) -> Result<Finding, ReadError> {
    let Some((line, column)) = error.fault.no_text() else {
        return Err(error);
    };
    let path = error.path.into();
    let message = format!("the file is not read: {}", error.fault);
    let found = Finding::new(Code::Cs0101, Origin::File { path, line, column }, message);
    Ok(found.with_help("save it as UTF-8 text; Java reads a file of settings byte by byte"))
}

/// Returns `true` if `text`, the content of a settings file, contains a private key.
pub fn holds_private_key(text: &str) -> bool {
    let document = Document::parse(Path::new(""), text);
    let mut entries = document.entries().iter();
    entries.any(|entry| schema::find(&Name::parse(entry.key())).is_private())
}

const HELP: &str =
    "make one of its profiles active, or move the lines to a document that is always active";

/// Notes each document without an effect, and warns of revocations there that are not applied.
pub fn inactive(reader: &mut Reader<'_>, all: &[(usize, Placed)], deployments: &[ReadDeployment]) {
    let mut noted = HashSet::new();
    let named = deployments.iter().flat_map(|one| {
        let trusted = one.keys.iter().filter(|key| !key.trusted.revoked);
        trusted.map(move |key| [&one.name, &key.trusted.name].map(|name| uniform(name)))
    });
    let trusted: HashSet<_> = named.collect();
    for (at, placed) in all {
        let document = reader.view.document.document_of_entry(*at);
        let Some((entry, value)) = reader.view.entry(*at).zip(reader.view.value(*at)) else {
            continue;
        };
        if !reader.question.is_run() && noted.insert(document) {
            let message = "this document is not active, so its settings are not applied";
            let found = reader.view.finding(Code::Cs0305, entry.key_span, message);
            reader.push(found.with_help(HELP));
        }
        let [.., name, _, _, key, _] = &*placed.path else {
            continue;
        };
        let is_revocation =
            placed.setting.name == REVOKED && bind::switch(value.text()) == Ok(true);
        if is_revocation && trusted.contains(&[name, key].map(|name| uniform(name))) {
            let message = format!(
                "key {} of {} is trusted: the document that revokes it is not active",
                quote(key),
                quote(name)
            );
            let found = reader.view.finding(Code::Cs0305, entry.value_span, message);
            let warning = found
                .with_severity(Severity::Warning)
                .with_key(placed.name());
            reader.push(warning.with_help(HELP));
        }
    }
}
