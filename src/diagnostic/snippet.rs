//! The one source line that a finding shows, and how text from a file is made safe to show.

use std::fmt::Write as _;
use std::ops::Range;

/// A source line with private keys left out, and the marked part of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snippet {
    line: u32,
    text: String,
    marked: Range<usize>,
}

impl Snippet {
    /// Makes a snippet of line `line` (counted from 1) that marks the characters `marked` (counted
    /// from 0) of `text`, without the characters `secret`.
    ///
    /// Whatever looks like a private key is left out too, wherever it stands. A long line is cut
    /// around the mark, control characters become `·`.
    pub fn new(line: u32, text: &str, marked: Range<usize>, secret: &[Range<usize>]) -> Self {
        let characters: Vec<char> = text.chars().map(visible).collect();
        let mut hidden: Vec<Range<usize>> = secret.to_vec();
        hidden.extend(suspicious(&characters));
        hidden.sort_by_key(|range| range.start);
        let pieces = pieces(&characters, &hidden);
        let (text, marked) = cut(&pieces, &marked);
        Self { line, text, marked }
    }

    /// Returns the line number, counted from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Returns the line as it may be shown.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns which characters of [`text`](Self::text) are meant, counted from 0.
    pub fn marked(&self) -> Range<usize> {
        self.marked.clone()
    }
}

/// Quotes `text` from a file or peer for a message: escaped, at most 80 characters, without
/// anything that looks like a private key.
pub fn quote(text: &str) -> String {
    let safe = redact(text);
    let mut characters = safe.chars();
    let mut quoted = String::from("`");
    for character in characters.by_ref().take(80) {
        if is_odd(character) {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('`');
    if characters.next().is_some() {
        quoted.push('…');
    }
    quoted
}

/// Leaves out of `text` whatever looks like a private key: the member `d`, and any run of 60 or
/// more base64 characters.
pub fn redact(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let hidden: Vec<_> = suspicious(&characters).collect();
    pieces(&characters, &hidden)
        .into_iter()
        .map(|(character, _)| character)
        .collect()
}

/// Longer than any name of ours, any fingerprint (43) and any coordinate (43).
const SUSPICIOUS_RUN: usize = 60;

/// Widest snippet, in characters.
const WIDEST: usize = 400;

fn is_odd(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn visible(character: char) -> char {
    if is_odd(character) { '·' } else { character }
}

/// Finds the parts of a line that may be a private key.
fn suspicious(characters: &[char]) -> impl Iterator<Item = Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, character) in characters.iter().enumerate() {
        if !is_base64(*character) {
            found.push(start..at);
            start = at.saturating_add(1);
        }
    }
    found.push(start..characters.len());
    found.retain(|run| run.len() >= SUSPICIOUS_RUN);
    found.extend(d_members(characters));
    found.sort_by_key(|range| range.start);
    found.into_iter()
}

fn is_base64(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '-' | '_')
}

/// Finds the values of members named `d`, also where quotes are missing or escaped.
fn d_members(characters: &[char]) -> Vec<Range<usize>> {
    let is_filler = |c: &char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\');
    let mut found = Vec::new();
    for (at, pair) in characters.windows(2).enumerate() {
        let [before, 'd'] = pair else { continue };
        if before.is_alphanumeric() || matches!(before, '-' | '_' | '.' | '+' | '/') {
            continue;
        }
        let rest = characters.get(at.saturating_add(2)..).unwrap_or_default();
        let gap = rest.iter().take_while(|c| is_filler(c)).count();
        if rest.get(gap) != Some(&':') {
            continue;
        }
        let value = rest.get(gap.saturating_add(1)..).unwrap_or_default();
        let quote = value.iter().take_while(|c| is_filler(c)).count();
        let length = value
            .iter()
            .skip(quote)
            .take_while(|c| is_base64(**c) || **c == '=')
            .count();
        let start = at
            .saturating_add(gap)
            .saturating_add(quote)
            .saturating_add(3);
        if length > 0 {
            found.push(start..start.saturating_add(length));
        }
    }
    found
}

/// Replaces the hidden ranges; every character keeps its place in the original line.
fn pieces(characters: &[char], hidden: &[Range<usize>]) -> Vec<(char, usize)> {
    let mut shown = Vec::with_capacity(characters.len());
    let mut at = 0;
    for range in hidden {
        let start = range.start.max(at);
        let end = range.end.min(characters.len());
        if start >= end {
            continue;
        }
        let open = characters.get(at..start).unwrap_or_default();
        shown.extend(open.iter().copied().zip(at..));
        let mut label = String::new();
        // Writing to a string cannot fail.
        let _ = write!(label, "«private, {} chars»", end.saturating_sub(start));
        shown.extend(label.chars().map(|character| (character, start)));
        at = end;
    }
    let open = characters.get(at..).unwrap_or_default();
    shown.extend(open.iter().copied().zip(at..));
    shown
}

/// Joins the pieces, cut around the mark, and finds the mark in the result.
fn cut(pieces: &[(char, usize)], marked: &Range<usize>) -> (String, Range<usize>) {
    let first = pieces.partition_point(|(_, at)| *at < marked.start);
    let last = pieces
        .partition_point(|(_, at)| *at < marked.end)
        .max(first);
    let from = if pieces.len() <= WIDEST {
        0
    } else {
        first.saturating_sub(WIDEST / 4)
    };
    let to = pieces.len().min(from.saturating_add(WIDEST));
    let mut text = String::new();
    if from > 0 {
        text.push('…');
    }
    let lead = usize::from(from > 0);
    let shown = pieces.get(from..to).unwrap_or_default();
    text.extend(shown.iter().map(|(character, _)| character));
    if to < pieces.len() {
        text.push('…');
    }
    let place = |at: usize| at.min(to).saturating_sub(from).saturating_add(lead);
    (text, place(first)..place(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snippet_marks_the_same_characters_after_a_redaction() {
        let text = format!("key={} tail", "A".repeat(100));

        let snippet = Snippet::new(1, &text, 105..109, &[]);

        assert_eq!(snippet.text(), "key=«private, 100 chars» tail");
        assert_eq!(snippet.marked(), 25..29);
    }

    #[test]
    fn snippet_leaves_out_what_it_is_told_to() {
        let key = 4..11;

        let snippet = Snippet::new(1, "key=c2hvcnQ", 0..3, std::slice::from_ref(&key));

        assert_eq!(snippet.text(), "key=«private, 7 chars»");
        assert_eq!(snippet.marked(), 0..3);
    }

    #[test]
    fn member_d_is_left_out_however_it_is_quoted() {
        for (text, shown) in [
            (r#"{"d":"AbC-_1"}"#, r#"{"d":"«private, 6 chars»"}"#),
            (r#"{\"d\": \"AbC\"}"#, r#"{\"d\": \"«private, 3 chars»\"}"#),
            (
                r#"{kty":"EC",d":"AbC"}"#,
                r#"{kty":"EC",d":"«private, 3 chars»"}"#,
            ),
            (r#"{"kid":"AbC"}"#, r#"{"kid":"AbC"}"#),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn long_line_is_cut_around_the_mark() {
        let text = "a b ".repeat(10_000);

        let snippet = Snippet::new(1, &text, 20_000..20_001, &[]);

        assert!(snippet.text().chars().count() <= WIDEST + 2);
        let marked: String = snippet
            .text()
            .chars()
            .skip(snippet.marked().start)
            .take(1)
            .collect();
        assert_eq!(marked, "a");
    }

    #[test]
    fn quoted_text_is_short_and_has_no_control_characters() {
        assert_eq!(quote("a\u{1b}[2Jb"), "`a\\u{1b}[2Jb`");
        assert_eq!(quote(&"ab ".repeat(60)).chars().count(), 83);
    }
}
