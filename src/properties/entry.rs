//! One logical line of a text, and its place.

use std::fmt;

use zeroize::Zeroizing;

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
    pub(super) value: Zeroizing<String>,
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
        &self.key
    }

    /// Returns the value, unescaped; trailing blanks belong to it.
    pub fn value(&self) -> &str {
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
