//! What is wrong with a file as text, and as a whole: encoding, permissions, broken lines, blanks,
//! backslashes, a missing own key.

use std::ops::Range;
use std::path::Path;

use crate::config::gather::{DEPLOYMENTS, Gathered};
use crate::config::parts::Ignored;
use crate::config::question::Question;
use crate::config::schema::{self, Known, Placed, Takes};
use crate::config::view::{Limited, View};
use crate::diagnostic::{Code, Finding, Origin, Severity, redact, redact_name};
use crate::jose::{KeyMaterial, PublicJwk};
use crate::properties::name::Name;
use crate::properties::{Document, Entry, ReadError, Span};
use crate::secret::Secret;

use super::keys;

/// Hides the private values of a file, before anything of it is shown.
pub(in crate::config) fn hide_secrets(view: &mut View, known: &[Known]) {
    let entries = view.entries().iter().zip(known);
    let secret = entries.filter(|(entry, known)| match known {
        Known::Setting(placed) if placed.setting.name().ends_with(".**") => {
            let key = entry.key().to_ascii_lowercase();
            let mut words = ["password", "secret", "token"].iter();
            words.any(|word| key.contains(word))
        }
        Known::Setting(placed) => placed.setting.is_private(),
        _ => false,
    });
    let spans: Vec<_> = secret.map(|(entry, _)| entry.value_span()).collect();
    for span in spans {
        view.hide(span);
    }
}

/// Finds keys whose value goes on in the next lines, which become names of their own. Returns the
/// entries that are no settings: the broken ones and their stray lines.
pub(in crate::config) fn broken_values(
    view: &mut View,
    known: &[Known],
    findings: &mut Limited,
) -> Vec<usize> {
    let mut skipped = Vec::new();
    for (at, known_here) in known.iter().enumerate() {
        let Known::Setting(placed) = known_here else {
            continue;
        };
        let stray = stray_lines(view.entries(), known, at, placed);
        let lines = view.entries().get(stray.clone()).unwrap_or_default();
        if lines.is_empty() {
            continue;
        }
        let spans: Vec<_> = lines.iter().map(Entry::line_span).collect();
        for span in spans {
            view.hide(span);
        }
        let lines = view.entries().get(stray.clone()).unwrap_or_default();
        if let Some(entry) = view.entry(at) {
            findings.push(broken(view, entry, placed, lines));
        }
        skipped.push(at);
        skipped.extend(stray);
    }
    skipped
}

fn broken(view: &View, entry: &Entry, placed: &Placed, stray: &[Entry]) -> Finding {
    let name = placed.name();
    let message = format!("the value of `{name}` ends here; its other lines are lost");
    let joined = joined(view.document(), entry, stray);
    let jwk = PublicJwk::parse(joined.expose()).ok();
    let is_private = placed.setting.is_private();
    let is_pem = entry.value().trim_start().starts_with("-----BEGIN");
    let help = match jwk.and_then(|jwk| Some(PublicJwk::write(&jwk.key, &jwk.kid?))) {
        Some(joined) => &*format!("write it on one line: `{name}={joined}`"),
        None if is_pem && is_private => {
            "PEM is not supported here: `countersign key import FILE --out key.jwk` converts it to a JWK, then write what `base64 -w0 key.jwk` prints"
        }
        None if is_pem => {
            "PEM is not supported here: `countersign key import FILE` converts it to a JWK"
        }
        None if is_private => "write the key on one line, as `base64 -w0 key.jwk` prints it",
        None => "write the key on one line, as `jq -c . key.jwk` prints it",
    };
    view.finding(Code::Cs0104, entry.value_span(), message)
        .with_key(name)
        .with_label("broken over several lines")
        .with_help(help)
}

/// Joins the lines of a value that goes on in the entries `stray`.
pub(in crate::config) fn joined(
    document: &Document,
    entry: &Entry,
    stray: &[Entry],
) -> Secret<String> {
    let mut text = document.written(entry.value_span()).trim().to_owned();
    for line in stray {
        text.push_str(document.written(line.line_span()).trim());
    }
    Secret::new(text)
}

/// Finds the entries after `at` that are lines of its value.
pub(in crate::config) fn stray_lines(
    entries: &[Entry],
    known: &[Known],
    at: usize,
    placed: &Placed,
) -> Range<usize> {
    let start = at.saturating_add(1);
    let rest = entries.iter().zip(known).skip(start);
    let count = rest
        .take_while(|(entry, known)| !matches!(known, Known::Setting(_)) && is_stray(entry))
        .count();
    let value = entries.get(at).map(Entry::value).unwrap_or_default();
    let whole = match placed.setting.takes() {
        // Keys take long to read.
        _ if count == 0 => true,
        Takes::PublicKey => PublicJwk::parse(value).is_ok(),
        Takes::PrivateKey => KeyMaterial::read(value.trim().as_bytes()).is_ok(),
        _ => true,
    };
    if whole {
        return at..at;
    }
    start..start.saturating_add(count)
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

/// Reports what is wrong with the files as text, and what in them is recognised and not used.
pub(in crate::config) fn check(
    view: &View,
    gathered: &Gathered,
    question: &Question<'_>,
    findings: &mut Limited,
) {
    text(view, findings);
    let mut private_files = Vec::new();
    for (at, placed) in &gathered.ours {
        let Some(entry) = view.entry(*at) else {
            continue;
        };
        value(view, entry, placed, findings);
        let file = view.document().file_of_entry(*at);
        if placed.setting.is_private() && !private_files.contains(&file) {
            private_files.push(file);
            permissions(view, file, entry.key_span(), findings);
        }
    }
    if question.is_run() {
        return;
    }
    for (at, setting) in &gathered.unused {
        if let Some(entry) = view.entry(*at) {
            let message = format!("this setting is not used: {}", setting.why_unused());
            let found = view.finding(Code::Cs0305, entry.key_span(), message);
            findings.push(found.with_key(redact(entry.key())));
        }
    }
}

/// Reports what is wrong with the text itself.
fn text(view: &View, findings: &mut Limited) {
    findings.extend(view.document().findings());
    for file in view.files() {
        if file.is_latin1 {
            let message = "the file is not UTF-8 and is read as ISO-8859-1";
            let found = view.about_file(file.start, Code::Cs0101, message);
            let help = "save it as UTF-8, or write other characters as `\\uXXXX`";
            findings.push(found.with_severity(Severity::Note).with_help(help));
        }
        if file.has_mark {
            let message =
                "the file starts with a byte order mark, which Java makes part of the first name";
            let found = view.about_file(file.start, Code::Cs0102, message);
            findings.push(found.with_help("save it as UTF-8 without a byte order mark"));
        }
    }
    for span in view.document().separators() {
        let message =
            "`#---` starts a new document for Spring; countersign reads the whole file as one";
        let found = view.finding(Code::Cs0305, *span, message);
        findings.push(found.with_help("remove the line, or keep one file per profile"));
    }
}

/// Reports who else can read or write a file with a private key.
fn permissions(view: &View, file: usize, private: Span, findings: &mut Limited) {
    let mode = view.files().get(file).and_then(|file| file.mode);
    if let Some((severity, who)) = mode.and_then(open_to_others) {
        let path = view.document().path_at(private.start).display();
        let mode = mode.unwrap_or_default();
        let message = format!("{who} this private key (mode {mode:04o})");
        let found = view.finding(Code::Cs0108, private, message);
        let help = format!("run `chmod 600 {path}`");
        findings.push(found.with_severity(severity).with_help(help));
    }
}

/// Returns who else can read or write a file of this `mode`.
pub(super) fn open_to_others(mode: u32) -> Option<(Severity, &'static str)> {
    match (mode & 0o022, mode & 0o004) {
        (0, 0) => None,
        (0, _) => Some((Severity::Warning, "every user of this machine can read")),
        _ => Some((Severity::Error, "other users can write")),
    }
}

/// Reports blanks, comments and backslashes in the value of a setting of ours.
fn value(view: &View, entry: &Entry, placed: &Placed, findings: &mut Limited) {
    let value = entry.value();
    let kept = value.trim_end_matches([' ', '\t', '\u{c}']);
    let is_key = matches!(placed.setting.takes(), Takes::PublicKey | Takes::PrivateKey);
    let comment = [" #", "\t#"].iter().find_map(|mark| value.find(mark));
    let blanks = match comment.filter(|_| !is_key) {
        Some(at) => Some((
            at.saturating_add(1),
            "this is part of the value, not a comment",
            "put the comment on a line of its own",
        )),
        None if kept.len() < value.len() && !kept.is_empty() => Some((
            kept.len(),
            "the value ends in blanks, which Java keeps and countersign removes",
            "remove them",
        )),
        None => None,
    };
    if let Some((offset, message, help)) = blanks {
        let span = Span {
            start: entry.place_in_text(offset),
            end: entry.value_span().end,
        };
        let found = view.finding(Code::Cs0105, span, message);
        findings.push(found.with_key(placed.name()).with_help(help));
    }
    if entry.escapes().control {
        let name = placed.name();
        let message =
            format!("backslashes in the value of `{name}` were read as control characters");
        let found = view.finding(Code::Cs0110, entry.value_span(), message);
        let help = "double each backslash, or use `/` in a path";
        findings.push(found.with_key(name).with_help(help));
    }
}

/// Reports that a module without its own key cannot run. A file that only names trusted deployments may
/// be a part of one that a person wants to have checked: a warning then.
pub(in crate::config) fn no_key(
    view: &View,
    gathered: &Gathered,
    question: &Question<'_>,
) -> Finding {
    if gathered.ours.is_empty() {
        let message = format!(
            "no countersign or Ataccama identity settings found in this file{}",
            looks_like(view)
        );
        let help = "use the module's `etc/application.properties`";
        return view.about_file(0, Code::Cs0301, message).with_help(help);
    }
    let message = format!(
        "this module has no key of its own: `{}` is missing",
        keys::OWN
    );
    let mut ours = gathered.ours.iter();
    let is_part = ours.all(|(_, placed)| placed.name().starts_with(DEPLOYMENTS));
    let severity = if is_part {
        question.strict()
    } else {
        Severity::Error
    };
    view.about_file(0, Code::Cs0301, message)
        .with_severity(severity)
        .with_key(keys::OWN)
        .with_help("`countersign pair` makes a key and writes it")
}

/// Reports a file whose bytes are no text, or returns why it cannot be read at all.
pub(in crate::config) fn no_text(error: ReadError) -> Result<Finding, ReadError> {
    let Some((line, column)) = error.fault().no_text() else {
        return Err(error);
    };
    let path = error.path().into();
    let message = format!("the file is not read: {}", error.fault());
    let found = Finding::new(Code::Cs0101, Origin::File { path, line, column }, message);
    Ok(found.with_help("save it as UTF-8 text; Java reads a file of settings byte by byte"))
}

fn looks_like(view: &View) -> &'static str {
    let text = view.document().text();
    let mut lines = text.lines();
    match text.trim_start().get(..1) {
        Some("<") => "; it looks like HTML or XML",
        Some("{" | "[") => "; it looks like JSON",
        _ if text.trim_start().starts_with("---") => "; it looks like YAML, which is not read",
        _ if lines.any(|line| line.trim_end() == "ataccama:") => {
            "; it looks like YAML, which is not read"
        }
        _ => "",
    }
}

/// Returns `true` if a private key stands in `text`, the content of a settings file.
pub fn holds_private_key(text: &str) -> bool {
    let document = Document::parse(Path::new(""), text);
    let mut names = document.entries().iter().map(Entry::key);
    names.any(|name| {
        let known = schema::find(&Name::parse(name));
        matches!(known, Known::Setting(placed) if placed.setting.is_private())
    })
}

/// Lists the entries with foreign names.
pub(in crate::config) fn ignored(view: &View, gathered: &Gathered) -> Vec<Ignored> {
    let entries = gathered.ignored.iter().filter_map(|at| view.entry(*at));
    entries
        .map(|entry| Ignored {
            origin: view.document().origin(entry.key_span().start),
            name: redact_name(entry.key()),
        })
        .collect()
}
