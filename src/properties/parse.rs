//! The grammar of `java.util.Properties.load(Reader)`, with the place of every byte kept.

use std::fmt;

use std::sync::Arc;

use zeroize::Zeroizing;

use super::source::give_way;

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
        value: Arc::new(Zeroizing::new(value.to_owned())),
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
        value: Arc::new(value.text),
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

#[cfg(feature = "testing")]
thread_local! {
    static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts that something was looked at, for a law of the tests: reading takes so many steps.
pub fn look() {
    #[cfg(feature = "testing")]
    LOOKS.set(LOOKS.get().saturating_add(1));
}

/// Returns how often this thread looked at something.
#[cfg(feature = "testing")]
pub fn looks() -> usize {
    LOOKS.get()
}

/// A part of the text, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// Makes the part from the byte `start` up to the byte `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

/// One logical line: a key and its value, unescaped, and their places.
///
/// `Debug` shows the key's place only: a value may be a private key.
#[derive(Clone)]
pub struct Entry {
    pub(super) key: Zeroizing<String>,
    /// Shared with what is made of it.
    pub(crate) value: Arc<Zeroizing<String>>,
    /// Where the key is.
    pub key_span: Span,
    /// Where the value is; over all of its lines if it is continued.
    pub value_span: Span,
    /// All lines that the entry takes, the last one's end included.
    pub line_span: Span,
    /// `(offset in value, offset in text)` where the distance between the two changes.
    pub(super) steps: Vec<(usize, usize)>,
    /// What the backslashes of the value were.
    pub escapes: Escapes,
}

/// What the backslashes of a value were.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Escapes {
    /// `\t`, `\n`, `\r` or `\f`: a control character now stands there.
    pub control: bool,
    /// A line end after a backslash: the value goes on in the next line.
    pub continued: bool,
}

impl Entry {
    /// Returns the key, unescaped.
    pub fn key(&self) -> &str {
        look();
        &self.key
    }

    /// Returns the value, unescaped; trailing blanks belong to it.
    pub fn value(&self) -> &str {
        look();
        &self.value
    }

    /// Returns the position of byte `offset` of the value in the text.
    ///
    /// For a character that was written as an escape that is its backslash.
    pub fn place_in_text(&self, offset: usize) -> usize {
        let steps = self.steps.partition_point(|(value, _)| *value <= offset);
        let step = steps.checked_sub(1).and_then(|last| self.steps.get(last));
        let (value, text) = step.copied().unwrap_or((0, self.value_span.start));
        let place = text.saturating_add(offset.saturating_sub(value));
        place.min(self.value_span.end)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.key_span).finish()
    }
}

/// A place where the text does not follow the grammar, and what is wrong there.
pub type SyntaxFault = (Span, &'static str);

/// Java refuses the file.
const MALFORMED_ESCAPE: &str = "`\\u` is not followed by four hexadecimal digits";
/// Java keeps it; it is no text.
const LONE_SURROGATE: &str = "this is half of a surrogate pair, which is not a valid character";

/// A character of a logical line and where it stands.
pub(super) type Placed = (usize, char);

pub(super) fn after((at, character): &Placed) -> usize {
    at.saturating_add(character.len_utf8())
}

#[derive(Default)]
pub(super) struct Unescaped {
    pub(super) text: Zeroizing<String>,
    pub(super) steps: Vec<(usize, usize)>,
    pub(super) escapes: Escapes,
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

pub(super) fn unescape(part: &[Placed], faults: &mut Vec<SyntaxFault>) -> Unescaped {
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
        return (0, Err((span, MALFORMED_ESCAPE)));
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
    (4, Err((Span { end, ..escape }, LONE_SURROGATE)))
}

fn hex4(rest: &[Placed]) -> Option<u32> {
    rest.get(..4)?.iter().try_fold(0_u32, |unit, (_, digit)| {
        Some(unit.wrapping_mul(16).wrapping_add(digit.to_digit(16)?))
    })
}

/// A line `#---` or `!---`.
#[derive(Clone, Copy, Debug)]
pub struct Separator {
    /// Where it is, without its line end.
    pub span: Span,
    /// The whole line.
    pub(crate) line_span: Span,
    mark: char,
    /// What Spring Boot takes it for.
    pub reading: Reading,
}

/// What Spring Boot takes a line `#---` for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reading {
    /// The end of one document, and the start of the next.
    Separator,
    /// A comment: the line before or after it is a comment with the same mark.
    Comment,
    /// A separator to its manual, a comment to its code: the next document begins with a comment.
    Doubtful,
}

impl Separator {
    /// Returns `true` if a document begins after it.
    pub(crate) fn separates(&self) -> bool {
        self.reading != Reading::Comment
    }
}

/// Goes through the lines of one text.
#[derive(Default)]
pub(super) struct Finder {
    pub(super) found: Vec<Separator>,
    /// The mark of the line before, if that is a comment.
    mark: Option<char>,
    /// Whether a separator was found since the last entry, and whether it was the last line.
    open: Option<bool>,
    /// Whether there was any entry.
    any: bool,
}

impl Finder {
    /// Passes a comment or an empty line: `written`, which is `content` of the line `whole`.
    pub(super) fn pass(&mut self, written: &str, whole: Span, content: Span) {
        let is_next = self.open == Some(true);
        self.open = self.open.map(|_| false);
        let Some(mark) = written.chars().next() else {
            self.mark = None;
            return;
        };
        let before = self.mark.replace(mark);
        let form = written.trim_end_matches([' ', '\t', '\u{c}']);
        let has_form = matches!(form, "#---" | "!---") && whole.start == content.start;
        let is_separator = has_form && before != Some(mark);
        if let Some(last) = self.found.last_mut()
            && self.open.is_some()
            && self.any
            && !is_separator
        {
            last.reading = if is_next && last.mark == mark {
                Reading::Comment
            } else {
                Reading::Doubtful
            };
            self.open = None;
        }
        if has_form {
            let reading = if is_separator {
                Reading::Separator
            } else {
                Reading::Comment
            };
            self.found.push(Separator {
                span: content,
                line_span: whole,
                mark,
                reading,
            });
        }
        if is_separator {
            // To Spring it is no comment.
            self.mark = before;
            self.open = Some(true);
        }
    }

    /// Passes a setting.
    pub(super) fn pass_entry(&mut self) {
        self.mark = None;
        self.open = None;
        self.any = true;
    }
}
