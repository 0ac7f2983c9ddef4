//! What is wrong with a file as text: encoding, permissions, broken lines, blanks, backslashes.

use std::ops::Range;

use crate::diagnostic::{Code, Finding, Severity};
use crate::jose::{KeyMaterial, PublicJwk};
use crate::properties::{Entry, Span};

use super::schema::{Known, Placed, Takes};
use super::view::{Limited, View};

/// Hides the private values of a file, before anything of it is shown.
pub(super) fn hide_secrets(view: &mut View, known: &[Known]) {
    let mut spans = Vec::new();
    for (entry, known) in view.entries().iter().zip(known) {
        let Known::Setting(placed) = known else {
            continue;
        };
        let password = placed.setting.name().ends_with(".**") && is_password(entry.key());
        if placed.setting.is_private() || password {
            spans.push(entry.value_span());
        }
    }
    for span in spans {
        view.hide(span);
    }
}

fn is_password(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "token"]
        .iter()
        .any(|word| key.contains(word))
}

/// Finds keys whose value goes on in the next lines, which become names of their own. Returns the
/// entries that are no settings: the broken ones and their stray lines.
pub(super) fn broken_values(
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
        if stray.is_empty() {
            continue;
        }
        let spans = whole_spans(view.entries(), &stray);
        let joined = joined(view, at, &spans);
        for span in spans {
            view.hide(span);
        }
        if let Some(entry) = view.entry(at) {
            findings.push(broken(view, entry, placed, joined.as_deref()));
        }
        skipped.push(at);
        skipped.extend(stray);
    }
    skipped
}

fn broken(view: &View, entry: &Entry, placed: &Placed, joined: Option<&str>) -> Finding {
    let name = placed.name();
    let message = format!("the value of `{name}` ends here, its other lines are lost");
    let is_pem = entry.value().trim_start().starts_with("-----BEGIN");
    let help = match joined {
        Some(joined) => format!("write it on one line: `{name}={joined}`"),
        None if is_pem && placed.setting.is_private() => {
            "PEM is not read here: `countersign key import FILE --out key.jwk` makes a JWK of it, then write what `base64 -w0 key.jwk` prints".to_owned()
        }
        None if is_pem => {
            "PEM is not read here: `countersign key import FILE` makes a JWK of it".to_owned()
        }
        None if placed.setting.is_private() => {
            "write the key on one line, as `base64 -w0 key.jwk` prints it".to_owned()
        }
        None => "write the key on one line, as `jq -c . key.jwk` prints it".to_owned(),
    };
    view.finding(Code::Cs0104, entry.value_span(), message)
        .with_key(name)
        .with_label("broken over several lines")
        .with_help(help)
}

/// Finds the entries after `at` that are lines of its value.
pub(super) fn stray_lines(
    entries: &[Entry],
    known: &[Known],
    at: usize,
    placed: &Placed,
) -> Range<usize> {
    let none = at..at;
    let Some(entry) = entries.get(at) else {
        return none;
    };
    let start = at.saturating_add(1);
    let rest = entries.iter().zip(known).skip(start);
    let count = rest
        .take_while(|(entry, known)| !matches!(known, Known::Setting(_)) && is_stray(entry))
        .count();
    let whole = match placed.setting.takes() {
        // Keys take long to read.
        _ if count == 0 => true,
        Takes::PublicKey => PublicJwk::parse(entry.value()).is_ok(),
        Takes::PrivateKey => KeyMaterial::read(entry.value().trim().as_bytes()).is_ok(),
        _ => true,
    };
    if whole {
        none
    } else {
        start..start.saturating_add(count)
    }
}

/// Tells whether a line looks like a part of JSON or of base64 rather than a setting.
fn is_stray(entry: &Entry) -> bool {
    let key = entry.key();
    if key.contains('"') || key.starts_with(['{', '}', '\'']) || key.starts_with("-----") {
        return true;
    }
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_');
    let padding = entry.value().chars().all(|c| c == '=');
    !key.is_empty() && padding && key.chars().all(is_base64)
}

fn whole_spans(entries: &[Entry], range: &Range<usize>) -> Vec<Span> {
    let entries = entries.get(range.clone()).unwrap_or_default().iter();
    entries
        .map(|entry| Span {
            start: entry.key_span().start,
            end: entry.value_span().end,
        })
        .collect()
}

/// Joins the lines of a public key, where that makes it whole.
fn joined(view: &View, at: usize, stray: &[Span]) -> Option<String> {
    let mut text = view.entry(at)?.value().trim().to_owned();
    for span in stray {
        text.push_str(view.document().written(*span).trim());
    }
    let jwk = PublicJwk::parse(&text).ok()?;
    let kid = jwk.kid?;
    Some(PublicJwk::write(&jwk.key, &kid))
}

/// Reports what is wrong with the text itself.
pub(super) fn file(view: &View, findings: &mut Limited) {
    findings.extend(view.document().findings());
    for file in view.files() {
        if file.is_latin1 {
            let message = "the file is not UTF-8 and is read as ISO-8859-1";
            findings.push(
                view.about_file(file.start, Code::Cs0101, message)
                    .with_severity(Severity::Note)
                    .with_help("save it as UTF-8, or write other characters as `\\uXXXX`"),
            );
        }
        if file.has_mark {
            let message =
                "the file starts with a byte order mark, which Java makes part of the first name";
            findings.push(
                view.about_file(file.start, Code::Cs0102, message)
                    .with_help("save it as UTF-8 without byte order mark"),
            );
        }
    }
    for span in view.document().separators() {
        let message = "`#---` starts a new document for Spring; here the whole file is one";
        let found = view.finding(Code::Cs0305, *span, message);
        findings.push(found.with_help("remove the line, or keep one file per profile"));
    }
}

/// Reports who else can read or write a file with a private key.
pub(super) fn permissions(view: &View, private: Span, findings: &mut Limited) {
    let mut files = view.files().iter().rev();
    let file = files.find(|file| file.start <= private.start);
    let Some(mode) = file.and_then(|file| file.mode) else {
        return;
    };
    let (severity, message) = if mode & 0o022 != 0 {
        (
            Severity::Error,
            "others may write this file, which holds a private key",
        )
    } else if mode & 0o004 != 0 {
        (
            Severity::Warning,
            "everybody on this machine can read this private key",
        )
    } else {
        return;
    };
    let path = view.document().path_at(private.start).display();
    findings.push(
        view.finding(
            Code::Cs0108,
            private,
            format!("{message} (mode {mode:04o})"),
        )
        .with_severity(severity)
        .with_help(format!("run `chmod 600 {path}`")),
    );
}

/// Reports blanks, comments and backslashes in the values of our settings.
pub(super) fn values(view: &View, ours: &[(usize, Placed)], findings: &mut Limited) {
    for (at, placed) in ours {
        let Some(entry) = view.entry(*at) else {
            continue;
        };
        if let Some(found) = blanks(view, entry, placed) {
            findings.push(found.with_key(placed.name()));
        }
        if entry.escapes().control {
            let name = placed.name();
            let message =
                format!("backslashes in the value of `{name}` were read as control characters");
            findings.push(
                view.finding(Code::Cs0110, entry.value_span(), message)
                    .with_key(name)
                    .with_help("double each backslash, or use `/` in a path"),
            );
        }
    }
}

fn blanks(view: &View, entry: &Entry, placed: &Placed) -> Option<Finding> {
    let value = entry.value();
    let kept = value.trim_end_matches([' ', '\t', '\u{c}']);
    let is_key = matches!(placed.setting.takes(), Takes::PublicKey | Takes::PrivateKey);
    let comment = [" #", "\t#"].iter().find_map(|mark| value.find(mark));
    let (offset, message, help) = match comment.filter(|_| !is_key) {
        Some(at) => (
            at.saturating_add(1),
            "this is no comment but part of the value",
            "put the comment on a line of its own",
        ),
        None if kept.len() < value.len() && !kept.is_empty() => (
            kept.len(),
            "the value ends in blanks, which Java keeps and countersign drops",
            "remove them",
        ),
        None => return None,
    };
    let span = Span {
        start: entry.place_in_text(offset),
        end: entry.value_span().end,
    };
    Some(view.finding(Code::Cs0105, span, message).with_help(help))
}
