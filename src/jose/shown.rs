//! Foreign text in messages.

/// Longest foreign text that a message repeats; a P-256 private part has 43 characters.
const MAX_SHOWN: usize = 32;

/// Quotes and escapes a foreign text for a message, or says only its length if it could be a key.
pub(super) fn shown(text: &str) -> String {
    let characters = text.chars().count();
    if characters > MAX_SHOWN {
        return format!("a text of {characters} characters");
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
    shown
}
