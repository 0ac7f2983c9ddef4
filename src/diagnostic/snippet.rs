//! The source line that a finding shows.

use std::ops::Range;

use super::redact::{Public, hidden_in_line, misleads, pieces};

/// A source line with private keys left out, and the marked part of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snippet {
    /// The line number, counted from 1.
    pub line: u32,
    /// The line as it may be shown.
    pub text: String,
    /// The marked characters of `text`, counted from 0.
    pub marked: Range<usize>,
    /// Whether anything is hidden.
    pub hides: bool,
}

impl Snippet {
    /// Makes a snippet of line `line` (counted from 1) that marks the bytes `marked` of `text` and
    /// hides the bytes `secret`.
    ///
    /// Every other part that may belong to a private key is hidden too, unless it is known to be
    /// `public`. A long line is cut around the mark, control characters become `·`.
    pub fn new(
        line: u32,
        text: &str,
        marked: Range<usize>,
        secret: &[Range<usize>],
        public: &Public,
    ) -> Self {
        let mut hidden = secret.to_vec();
        hidden.extend(hidden_in_line(text, public));
        hidden.sort_by_key(|range| range.start);
        let (text, marked) = cut(&pieces(text, &hidden), &marked);
        Self {
            line,
            text,
            marked,
            hides: !hidden.is_empty(),
        }
    }
}

/// Widest snippet, in characters.
const WIDEST: usize = 400;

/// Joins the pieces, cut around the mark, and finds the mark in the result.
fn cut(pieces: &[(char, usize)], marked: &Range<usize>) -> (String, Range<usize>) {
    let first = pieces.partition_point(|(_, at)| *at < marked.start);
    let last = pieces
        .partition_point(|(_, at)| *at < marked.end)
        .max(first);
    let latest = pieces.len().saturating_sub(WIDEST);
    let from = first.saturating_sub(WIDEST / 4).min(latest);
    let to = pieces.len().min(from.saturating_add(WIDEST));
    let mut text = String::new();
    if from > 0 {
        text.push('…');
    }
    let lead = usize::from(from > 0);
    let shown = pieces.get(from..to).unwrap_or_default();
    let characters = shown.iter().map(|(character, _)| *character);
    text.extend(characters.map(|c| if misleads(c) { '·' } else { c }));
    if to < pieces.len() {
        text.push('…');
    }
    let [start, end] = [first, last].map(|at| at.min(to).saturating_sub(from).saturating_add(lead));
    (text, start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snippet_marks_the_same_characters_after_a_redaction() {
        let text = format!("key={} tail", "A".repeat(100));

        let snippet = Snippet::new(1, &text, 105..109, &[], &Public::default());

        assert_eq!(snippet.text, "key=«hidden, 100 chars» tail");
        assert_eq!(snippet.marked, 24..28);
    }

    #[test]
    fn snippet_hides_the_given_secret() {
        let key = 4..11;

        let snippet = Snippet::new(
            1,
            "key=c2hvcnQ",
            0..3,
            std::slice::from_ref(&key),
            &Public::default(),
        );

        assert_eq!(snippet.text, "key=«hidden, 7 chars»");
        assert_eq!(snippet.marked, 0..3);
    }

    #[test]
    fn long_line_is_cut_around_the_mark() {
        let text = "a b ".repeat(10_000);

        let snippet = Snippet::new(1, &text, 20_000..20_001, &[], &Public::default());

        assert!(snippet.text.chars().count() <= WIDEST + 2);
        let marked: String = snippet
            .text
            .chars()
            .skip(snippet.marked.start)
            .take(1)
            .collect();
        assert_eq!(marked, "a");
    }
}
