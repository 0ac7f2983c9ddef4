//! The lines that separate the documents of a file for Spring Boot.

use crate::properties::entry::Span;

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
