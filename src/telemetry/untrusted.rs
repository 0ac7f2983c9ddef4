//! Text that a stranger wrote, made fit to be shown.

use std::fmt::{self, Write as _};

use crate::diagnostic::misleads;

/// Shows a stranger's text in a log line or message: at most 256 characters, on one line.
///
/// Control characters and those that reorder or hide text (bidi controls, line separators,
/// zero-width characters) are escaped as `\u{…}`; what was cut off is marked by `…`.
#[derive(Clone, Copy, Debug)]
pub struct Untrusted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Untrusted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, MAX, |_| 1, f)
    }
}

/// As [`Untrusted`], but with room for an explanation: at most 2048 characters.
///
/// For what a peer that was chosen on purpose says, such as why an engine is not READY.
#[derive(Clone, Copy, Debug)]
pub struct UntrustedReason<T>(pub T);

impl<T: fmt::Display> fmt::Display for UntrustedReason<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, MAX_REASON, |_| 1, f)
    }
}

/// As [`Untrusted`], but at most so many bytes long in a JSON line, escapes included: what a
/// stranger sends does not make a line longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brief<T>(pub(crate) T, pub(crate) usize);

impl<T: fmt::Display> fmt::Display for Brief<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, self.1, length_in_json, f)
    }
}

fn length_in_json(c: char) -> usize {
    match c {
        c if misleads(c) => c.escape_unicode().len() + 1,
        '"' | '\\' => 2,
        c => c.len_utf8(),
    }
}

/// The maximum length that is shown, in characters before escaping.
const MAX: usize = 256;
const MAX_REASON: usize = 2048;

fn show(
    text: &impl fmt::Display,
    most: usize,
    length: fn(char) -> usize,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut bounded = Bounded {
        out: f,
        left: Some(most),
        length,
    };
    match write!(bounded, "{text}") {
        Err(_) if bounded.left.is_none() => f.write_char('…'),
        written => written,
    }
}

struct Bounded<'a, W> {
    out: &'a mut W,
    /// None once the text was cut.
    left: Option<usize>,
    length: fn(char) -> usize,
}

impl<W: fmt::Write> fmt::Write for Bounded<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let length = (self.length)(c);
            self.left = self.left.and_then(|left| left.checked_sub(length));
            // An error stops the `Display` of a long value early.
            self.left.ok_or(fmt::Error)?;
            write_escaped(self.out, c)?;
        }
        Ok(())
    }
}

/// Writes `c`, escaped if it would not be visible on one line.
pub(super) fn write_escaped(out: &mut impl fmt::Write, c: char) -> fmt::Result {
    if misleads(c) {
        write!(out, "{}", c.escape_unicode())
    } else {
        out.write_char(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_shown_as_it_is() {
        assert_eq!(Untrusted("Größe: 大 \"x\"").to_string(), "Größe: 大 \"x\"");
    }

    #[test]
    fn control_and_bidi_characters_are_escaped() {
        let hostile = "a\r\n{\"x\":1}\u{1b}[31m\u{202e}b\u{2028}\0";

        let shown = Untrusted(hostile).to_string();

        assert_eq!(
            shown,
            r#"a\u{d}\u{a}{"x":1}\u{1b}[31m\u{202e}b\u{2028}\u{0}"#
        );
    }

    #[test]
    fn long_text_is_cut_at_256_characters_and_marked() {
        let exact = "é".repeat(256);

        assert_eq!(Untrusted(&exact).to_string(), exact);
        assert_eq!(
            Untrusted("é".repeat(1_000_000)).to_string(),
            format!("{exact}…")
        );
        let reason = UntrustedReason("\n".repeat(1_000_000)).to_string();
        assert_eq!(reason, format!("{}…", r"\u{a}".repeat(2048)));
    }
    #[test]
    fn brief_text_is_bounded_as_it_stands_in_json() {
        for hostile in ["\u{202e}", "\"", "\\", "é", "大", "\u{1f980}", "x\n"] {
            let shown = Brief(hostile.repeat(1_000), 96).to_string();

            let in_json = serde_json::to_string(&shown).unwrap();
            assert!(in_json.len() <= 96 + "…".len() + 2, "{in_json}");
            assert!(in_json.len() > 80, "{in_json}");
        }
        assert_eq!(Brief("12345", 5).to_string(), "12345");
    }
}
