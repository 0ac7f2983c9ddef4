//! The grammar of `java.util.Properties.load(Reader)`, with the place of every byte kept.

use std::iter::Peekable;
use std::str::CharIndices;

use zeroize::Zeroizing;

use super::entry::{Entry, Escapes, Span};

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
        characters: text.char_indices().peekable(),
        separators: Vec::new(),
        begins: None,
    };
    let mut parsed = Parsed::default();
    let mut line = Vec::new();
    while lines.next_logical(&mut line) {
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
    characters: Peekable<CharIndices<'a>>,
    separators: Vec<Span>,
    /// Where the logical line has its first character, which may be a backslash alone.
    begins: Option<usize>,
}

impl Lines<'_> {
    /// Fills `line` with the next logical line, without its line ends; false at the end.
    fn next_logical(&mut self, line: &mut Vec<Placed>) -> bool {
        line.clear();
        self.begins = None;
        let mut escaped = false;
        let mut at_margin = true;
        let mut continued = false;
        while let Some((at, character)) = self.characters.next() {
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
                if line.is_empty() && self.characters.peek().is_none() {
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
        let mut end = self.text.len();
        for (at, character) in self.characters.by_ref() {
            if is_line_end(character) {
                end = at;
                break;
            }
        }
        let comment = self.text.get(start..end).unwrap_or_default();
        if matches!(comment.trim_end(), "#---" | "!---") {
            self.separators.push(Span { start, end });
        }
    }

    /// Returns the lines that were read last, from their margin to the end of the last.
    fn span(&mut self) -> Span {
        let next = self
            .characters
            .peek()
            .map_or(self.text.len(), |(at, _)| *at);
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
        if first == '\r' {
            self.characters.next_if(|(_, character)| *character == '\n');
        }
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

fn is_line_end(character: char) -> bool {
    matches!(character, '\n' | '\r')
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

#[derive(Default)]
struct Unescaped {
    text: Zeroizing<String>,
    steps: Vec<(usize, usize)>,
    escapes: Escapes,
    /// Where the next unescaped character would stand without a step.
    expected: usize,
}

impl Unescaped {
    fn push(&mut self, character: char, at: usize, end: usize) {
        if at != self.expected || self.steps.is_empty() {
            self.steps.push((self.text.len(), at));
        }
        self.text.push(character);
        // An escape is longer than its character: the next one starts a step of its own.
        self.expected = if end.saturating_sub(at) == character.len_utf8() {
            end
        } else {
            usize::MAX
        };
    }
}

fn unescape(part: &[Placed], faults: &mut Vec<SyntaxFault>) -> Unescaped {
    let bytes = part.iter().map(|(_, c)| c.len_utf8()).sum();
    let mut out = Unescaped {
        text: Zeroizing::new(String::with_capacity(bytes)),
        ..Unescaped::default()
    };
    let mut rest = part;
    let mut end = part.first().map_or(0, |(at, _)| *at);
    while let [first, tail @ ..] = rest {
        out.escapes.continued |= first.0 != end;
        end = after(first);
        rest = tail;
        let (at, character) = *first;
        if character != '\\' {
            out.push(character, at, end);
            continue;
        }
        let [second, tail @ ..] = tail else { break };
        out.escapes.continued |= second.0 != end;
        end = after(second);
        rest = tail;
        match second.1 {
            'u' => {
                let (taken, read) = unicode(rest, Span { start: at, end });
                let (digits, tail) = rest.split_at(taken);
                end = digits.last().map_or(end, after);
                rest = tail;
                match read {
                    Ok(character) => out.push(character, at, end),
                    Err(fault) => {
                        faults.push(fault);
                        for placed in [first, second].into_iter().chain(digits) {
                            out.push(placed.1, placed.0, after(placed));
                        }
                    }
                }
            }
            letter => {
                let character = control(letter);
                out.escapes.control |= character != letter;
                out.push(character, at, end);
            }
        }
    }
    out
}

fn control(letter: char) -> char {
    match letter {
        't' => '\t',
        'n' => '\n',
        'r' => '\r',
        'f' => '\u{c}',
        other => other,
    }
}

/// Reads what follows `\u`, the second half of a surrogate pair included: how many characters that
/// takes, and what they are.
fn unicode(rest: &[Placed], escape: Span) -> (usize, Result<char, SyntaxFault>) {
    let Some(unit) = hex4(rest) else {
        let end = rest
            .iter()
            .take(4)
            .take_while(|(_, c)| c.is_ascii_hexdigit())
            .last()
            .map_or(escape.end, after);
        let span = Span { end, ..escape };
        return (0, Err(SyntaxFault::MalformedEscape(span)));
    };
    if let Some(character) = char::from_u32(unit) {
        return (4, Ok(character));
    }
    let second = match rest.get(4..) {
        Some([(_, '\\'), (_, 'u'), tail @ ..]) => hex4(tail),
        _ => None,
    };
    let pair = second.and_then(|low| {
        let units = [u16::try_from(unit).ok()?, u16::try_from(low).ok()?];
        char::decode_utf16(units).next()?.ok()
    });
    if let Some(character) = pair {
        return (10, Ok(character));
    }
    let end = rest.get(3).map_or(escape.end, after);
    (4, Err(SyntaxFault::LoneSurrogate(Span { end, ..escape })))
}

fn hex4(rest: &[Placed]) -> Option<u32> {
    rest.get(..4)?.iter().try_fold(0_u32, |unit, (_, digit)| {
        Some(unit.wrapping_mul(16).wrapping_add(digit.to_digit(16)?))
    })
}
