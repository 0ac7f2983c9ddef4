//! The grammar of `java.util.Properties.load(Reader)`, with the place of every byte kept.

use zeroize::Zeroizing;

use self::separator::{Finder, Separator};
use self::unescape::{Placed, SyntaxFault, after, unescape};
use super::entry::{Entry, Escapes, Span};
use super::source::give_way;

pub(super) mod separator;
pub(super) mod unescape;

/// What a text holds, in its order, duplicates included.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) entries: Vec<Entry>,
    pub(crate) faults: Vec<SyntaxFault>,
    /// Lines of the form `#---`.
    pub(crate) separators: Vec<Separator>,
    /// The documents, separated by those lines.
    pub(crate) documents: Vec<Start>,
}

/// Where a document begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The number of its first entry.
    pub(crate) entry: usize,
    /// The first byte of its first line.
    pub(crate) text: usize,
}

/// Reads `text` from byte `base` on and adds what it holds to `parsed`.
///
/// Cuts it into logical lines as the JDK's `LineReader` does. Never fails: an escape that cannot be
/// read stays in its value as written.
pub(crate) fn parse(text: &str, base: usize, parsed: &mut Parsed) {
    let mut next = base;
    // Where the logical line begins, and what it holds so far if a backslash ended its lines.
    let mut begins = None;
    let mut line = Vec::new();
    let mut separators = Finder::default();
    let first = parsed.entries.len();
    while let Some((whole, content)) = natural_line(text, next) {
        next = whole.end;
        let written = text.get(content.start..content.end).unwrap_or_default();
        if line.is_empty() && (written.is_empty() || written.starts_with(['#', '!'])) {
            separators.pass(written, whole, content);
            begins = None;
            continue;
        }
        let start = *begins.get_or_insert(whole.start);
        let mut entry = if line.is_empty() && !written.contains('\\') {
            plain(written, content.start)
        } else {
            let characters = written.char_indices();
            line.extend(characters.map(|(at, c)| (content.start.saturating_add(at), c)));
            let backslashes = written.bytes().rev().take_while(|byte| *byte == b'\\');
            if backslashes.count() % 2 == 1 {
                line.pop();
                // Java takes a backslash alone at the end for an entry, but not before `\r\n`.
                let is_crlf = whole.end.saturating_sub(content.end) == 2;
                if next < text.len() || (line.is_empty() && is_crlf) {
                    continue;
                }
            }
            entry(&line, &mut parsed.faults)
        };
        entry.line_span = Span { start, end: next };
        // Spring drops an entry without a name.
        if !entry.key.is_empty() {
            separators.pass_entry();
        }
        parsed.entries.push(entry);
        give_way(parsed.entries.len());
        begins = None;
        line.clear();
    }
    parsed.documents.push(Start {
        entry: first,
        text: base,
    });
    for separator in separators.found {
        if separator.separates() {
            let entries = &parsed.entries;
            let text = separator.line_span.end;
            let entry = entries.partition_point(|entry| entry.line_span.start < text);
            parsed.documents.push(Start { entry, text });
        }
        parsed.separators.push(separator);
    }
}

/// Returns the line that begins at byte `start`, with its line end, and what stands between its
/// margin and its line end; `None` at the end of the text.
fn natural_line(text: &str, start: usize) -> Option<(Span, Span)> {
    let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
    let length = rest.bytes().position(|byte| matches!(byte, b'\n' | b'\r'));
    let (line, after) = rest.split_at_checked(length.unwrap_or(rest.len()))?;
    let margin = line
        .len()
        .saturating_sub(line.trim_start_matches(is_blank).len());
    let end = start.saturating_add(line.len());
    let line_end = if after.starts_with("\r\n") { 2 } else { 1 };
    let whole = Span::new(start, end.saturating_add(line_end.min(after.len())));
    let content = Span::new(start.saturating_add(margin), end);
    Some((whole, content))
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// Splits a line without backslashes that begins at byte `from`.
fn plain(line: &str, from: usize) -> Entry {
    let end_of_key = line.find(|c| is_blank(c) || matches!(c, '=' | ':'));
    let (key, rest) = line
        .split_at_checked(end_of_key.unwrap_or(line.len()))
        .unwrap_or((line, ""));
    let after = rest.trim_start_matches(is_blank);
    let value = match after.strip_prefix(['=', ':']) {
        Some(value) => value.trim_start_matches(is_blank),
        None => after,
    };
    let end = from.saturating_add(line.len());
    Entry {
        key: Zeroizing::new(key.to_owned()),
        value: Zeroizing::new(value.to_owned()),
        key_span: Span::new(from, from.saturating_add(key.len())),
        value_span: Span::new(end.saturating_sub(value.len()), end),
        line_span: Span::default(),
        steps: Vec::new(),
        escapes: Escapes::default(),
    }
}

/// Splits a logical line into key and value.
fn entry(line: &[Placed], faults: &mut Vec<SyntaxFault>) -> Entry {
    let mut escaped = false;
    let key_end = line
        .iter()
        .position(|(_, character)| {
            let ends = !escaped && (is_blank(*character) || matches!(character, '=' | ':'));
            escaped = *character == '\\' && !escaped;
            ends
        })
        .unwrap_or(line.len());
    let (key, rest) = line.split_at(key_end);
    let mut separator_seen = false;
    let lead = rest
        .iter()
        .take_while(|(_, character)| {
            let separates = matches!(character, '=' | ':') && !separator_seen;
            separator_seen |= separates;
            separates || is_blank(*character)
        })
        .count();
    let value = rest.get(lead..).unwrap_or_default();
    let end = line.last().map_or(0, after);
    let key_span = span(key, line.first().map_or(0, |(at, _)| *at));
    let key = unescape(key, faults);
    let value_span = span(value, end);
    let value = unescape(value, faults);
    Entry {
        key: key.text,
        value: value.text,
        key_span,
        value_span,
        line_span: Span::default(),
        steps: value.steps,
        escapes: value.escapes,
    }
}

fn span(part: &[Placed], empty_at: usize) -> Span {
    let start = part.first().map_or(empty_at, |(at, _)| *at);
    let end = part.last().map_or(empty_at, after);
    Span { start, end }
}
