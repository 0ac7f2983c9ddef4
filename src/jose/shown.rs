//! Foreign text in messages.

use std::fmt;

/// A foreign text in a message: quoted and escaped, or only its length if it could be a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown(Box<str>);

/// Longest foreign text that a message repeats; a P-256 private part has 43 characters.
const MAX_SHOWN: usize = 32;

impl Shown {
    pub(super) fn new(text: &str) -> Self {
        let characters = text.chars().count();
        if characters > MAX_SHOWN {
            return Self(format!("a text of {characters} characters").into());
        }
        let mut shown = String::from("`");
        for c in text.chars() {
            if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() {
                shown.push(c);
            } else {
                shown.extend(c.escape_unicode());
            }
        }
        shown.push('`');
        Self(shown.into())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
