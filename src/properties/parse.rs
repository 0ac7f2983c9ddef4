//! The grammar of `java.util.Properties.load(Reader)`, with the place of every byte kept.

use zeroize::Zeroizing;

use self::unescape::unescape;
use super::entry::{Entry, Escapes, Span};
use super::source::give_way;

mod unescape;

/// A place where the text does not follow the grammar.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SyntaxFault {
    /// `\u` without four hexadecimal digits. Java refuses the file.
    MalformedEscape(Span),
    /// `\ud800` to `\udfff` without its other half. Java keeps it; it is no text.
    LoneSurrogate(Span),
}

/// What a text holds, in its order, duplicates included.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) entries: Vec<Entry>,
    pub(crate) faults: Vec<SyntaxFault>,
    /// Lines of the form `#---`, which separate documents for Spring.
    pub(crate) separators: Vec<Span>,
}

impl Parsed {
    /// Adds what another text holds that stands from byte `base` on.
    pub(crate) fn append(&mut self, other: Self, base: usize) {
        let Self {
            mut entries,
            faults,
            separators,
        } = other;
        for entry in &mut entries {
            entry.shift(base);
        }
        self.entries.append(&mut entries);
        self.faults
            .extend(faults.into_iter().map(|fault| match fault {
                SyntaxFault::MalformedEscape(span) => {
                    SyntaxFault::MalformedEscape(span.shifted(base))
                }
                SyntaxFault::LoneSurrogate(span) => SyntaxFault::LoneSurrogate(span.shifted(base)),
            }));
        let separators = separators.into_iter();
        self.separators
            .extend(separators.map(|span| span.shifted(base)));
    }
}

/// Reads `text`. Never fails: an escape that cannot be read stays in its value as written.
pub(crate) fn parse(text: &str) -> Parsed {
    let mut lines = Lines {
        text,
        next: 0,
        separators: Vec::new(),
        begins: None,
    };
    let mut parsed = Parsed::default();
    let mut line = Vec::new();
    loop {
        while lines.next_plain(&mut parsed.entries) {
            give_way(parsed.entries.len());
        }
        if !lines.next_logical(&mut line) {
            break;
        }
        let mut entry = entry(&line, &mut parsed.faults);
        entry.line_span = lines.span();
        parsed.entries.push(entry);
    }
    parsed.separators = lines.separators;
    parsed
}

/// A character of a logical line and where it stands.
type Placed = (usize, char);

/// Cuts the text into logical lines, as the JDK's `LineReader` does.
struct Lines<'a> {
    text: &'a str,
    /// The byte to go on at.
    next: usize,
    separators: Vec<Span>,
    /// Where the logical line has its first character, which may be a backslash alone.
    begins: Option<usize>,
}

impl<'a> Lines<'a> {
    /// Takes the line that begins here, if it has no backslash and so nothing to decode, as almost
    /// all have; false at any other line.
    fn next_plain(&mut self, entries: &mut Vec<Entry>) -> bool {
        let rest = self.rest();
        let end = rest.bytes().position(|byte| matches!(byte, b'\n' | b'\r'));
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        if rest.is_empty() || line.contains('\\') {
            return false;
        }
        let length = line.len();
        let line = line.trim_start_matches(is_blank);
        let begins = self.next.saturating_add(length.saturating_sub(line.len()));
        self.next = self.next.saturating_add(length);
        if line.starts_with(['#', '!']) {
            self.comment(begins);
        }
        self.take();
        if !line.is_empty() && !line.starts_with(['#', '!']) {
            self.begins = Some(begins);
            entries.push(Entry {
                line_span: self.span(),
                ..plain(line, begins)
            });
        }
        true
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.next..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<Placed> {
        let at = self.next;
        let character = self.peek()?;
        self.next = at.saturating_add(character.len_utf8());
        Some((at, character))
    }

    /// Fills `line` with the next logical line, without its line ends; false at the end.
    fn next_logical(&mut self, line: &mut Vec<Placed>) -> bool {
        line.clear();
        self.begins = None;
        let mut escaped = false;
        let mut at_margin = true;
        let mut continued = false;
        while let Some((at, character)) = self.take() {
            if at_margin {
                let line_end = is_line_end(character) && !continued;
                if is_blank(character) || line_end {
                    continue;
                }
                at_margin = false;
                continued = false;
            }
            if line.is_empty() && matches!(character, '#' | '!') {
                self.skip_comment(at);
                self.begins = None;
                at_margin = true;
            } else if !is_line_end(character) {
                self.begins = self.begins.or(Some(at));
                line.push((at, character));
                escaped = character == '\\' && !escaped;
            } else if line.is_empty() {
                self.begins = None;
                at_margin = true;
            } else if escaped {
                line.pop();
                if line.is_empty() && self.peek().is_none() {
                    return true;
                }
                self.skip_second_half(character);
                escaped = false;
                at_margin = true;
                continued = true;
            } else {
                return true;
            }
        }
        if escaped {
            line.pop();
        }
        !line.is_empty() || escaped
    }

    fn skip_comment(&mut self, start: usize) {
        let rest = self.rest();
        let length = rest.find(is_line_end).unwrap_or(rest.len());
        self.next = self.next.saturating_add(length);
        self.comment(start);
        self.take();
    }

    /// Notes what a comment says that begins at `start` and ends here.
    fn comment(&mut self, start: usize) {
        let end = self.next;
        let comment = self.text.get(start..end).unwrap_or_default();
        if matches!(comment.trim_end(), "#---" | "!---") {
            self.separators.push(Span { start, end });
        }
    }

    /// Returns the lines that were read last, from their margin to the end of the last.
    fn span(&self) -> Span {
        let next = self.next;
        let before = self.text.get(..self.begins.unwrap_or(next));
        let start = before.map_or(next, |text| text.trim_end_matches(is_blank).len());
        let after = self.text.get(next..).unwrap_or_default();
        let read = self.text.get(start..next).unwrap_or_default();
        let second_half = usize::from(read.ends_with('\r') && after.starts_with('\n'));
        Span {
            start,
            end: next.saturating_add(second_half),
        }
    }

    fn skip_second_half(&mut self, first: char) {
        if first == '\r' && self.peek() == Some('\n') {
            self.take();
        }
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

fn is_line_end(character: char) -> bool {
    matches!(character, '\n' | '\r')
}

/// Splits a line without backslashes that begins at byte `from`.
fn plain(line: &str, from: usize) -> Entry {
    let separates = |c: char| matches!(c, '=' | ':');
    let key = line.find(|c| is_blank(c) || separates(c));
    let (key, rest) = line
        .split_at_checked(key.unwrap_or(line.len()))
        .unwrap_or((line, ""));
    let value = rest.trim_start_matches(is_blank);
    let value = value.strip_prefix(separates).unwrap_or(value);
    let value = value.trim_start_matches(is_blank);
    let end = from.saturating_add(line.len());
    Entry {
        key: Zeroizing::new(key.to_owned()),
        value: Zeroizing::new(value.to_owned()),
        key_span: Span {
            start: from,
            end: from.saturating_add(key.len()),
        },
        value_span: Span {
            start: end.saturating_sub(value.len()),
            end,
        },
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

fn after((at, character): &Placed) -> usize {
    at.saturating_add(character.len_utf8())
}

fn span(part: &[Placed], empty_at: usize) -> Span {
    let start = part.first().map_or(empty_at, |(at, _)| *at);
    let end = part.last().map_or(empty_at, after);
    Span { start, end }
}
