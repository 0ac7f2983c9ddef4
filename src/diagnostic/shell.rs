//! Commands as a person pastes them into a shell.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use super::redact::{misleads, redact};

/// A command as a person pastes it into a POSIX shell. It is complete: no value of it is left open.
///
/// A value that may be a private key is hidden; the command then cannot be run.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct CommandLine(String);

impl CommandLine {
    /// Begins a command with its first words, such as `countersign rotate run`.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// Adds a word, such as a file. One that begins with a dash is not taken for an option.
    pub fn arg(self, word: impl AsRef<OsStr>) -> Self {
        let lead = if has_dash(word.as_ref()) { "./" } else { "" };
        self.word(lead, word.as_ref())
    }

    /// Adds `name=value` as one word.
    pub fn named(self, name: impl fmt::Display, value: impl AsRef<OsStr>) -> Self {
        self.word(&format!("{name}="), value.as_ref())
    }

    /// Adds an option with its value.
    pub fn option(self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        let between = if has_dash(value.as_ref()) { "=" } else { " " };
        let lead = format!("--{name}{between}");
        self.word(&lead, value.as_ref())
    }

    /// Adds an option without a value.
    pub fn flag(mut self, name: &'static str) -> Self {
        self.0.extend([" --", name]);
        self
    }

    /// Adds an option without a value, if `is_set`.
    pub fn flag_if(self, is_set: bool, name: &'static str) -> Self {
        if is_set { self.flag(name) } else { self }
    }

    /// Writes the output to the file `name`.
    pub fn into_file(mut self, name: &str) -> Self {
        self.0.extend([" > ", &quoted(OsStr::new(name))]);
        self
    }

    fn word(mut self, lead: &str, value: &OsStr) -> Self {
        self.0.extend([" ", lead, &quoted(value)]);
        self
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn has_dash(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

/// Returns the shell's text of one word. What a terminal cannot show is escaped as bash reads it.
fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let safe = redact(&text);
    // A file that exists has a name, however random it looks.
    let is_safe = safe == text || Path::new(word).exists();
    let bytes = if is_safe {
        word.as_encoded_bytes()
    } else {
        safe.as_bytes()
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if is_plain(text) => text.to_owned(),
        Ok(text) if !text.contains(misleads) => format!("'{}'", text.replace('\'', r"'\''")),
        Ok(_) | Err(_) => format!("$'{}'", bytes.escape_ascii()),
    }
}

/// Returns `true` if a shell takes `text` as it is, whatever stands before it in the word.
fn is_plain(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty()
        && !text.starts_with('=')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_@%+:,./=-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_stay_as_they_are_and_all_others_are_one_word_of_the_shell() {
        for (word, expected) in [
            (
                "dpe/etc/application.properties",
                "dpe/etc/application.properties",
            ),
            ("a b", "'a b'"),
            ("it's my $(dpm);x", r"'it'\''s my $(dpm);x'"),
            ("", "''"),
            ("~/dpe", "'~/dpe'"),
            ("{a,b}*?", "'{a,b}*?'"),
            ("grün", "'grün'"),
            ("a\nb\u{1b}[2J'c", r"$'a\nb\x1b[2J\'c'"),
            ("a\u{202e}b", r"$'a\xe2\x80\xaeb'"),
        ] {
            assert_eq!(quoted(OsStr::new(word)), expected);
        }
    }

    #[test]
    fn command_is_built_of_words_options_and_files() {
        let command = CommandLine::new("countersign pair accept")
            .named("dpm", "my dpm")
            .option("block", "-x")
            .option("file", "dpm")
            .flag("yes")
            .arg("-")
            .into_file("dpe.block");

        assert_eq!(
            command.to_string(),
            "countersign pair accept dpm='my dpm' --block=-x --file dpm --yes ./- > dpe.block"
        );
    }

    #[test]
    fn value_that_may_be_a_key_is_hidden() {
        let jwk = r#"{"kty":"EC","d":"AbC-_1AbC-_1"}"#;

        let command = CommandLine::new("countersign check").arg(jwk).to_string();

        assert!(!command.contains("AbC"), "{command}");
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        use std::os::unix::ffi::OsStrExt as _;

        assert_eq!(quoted(OsStr::from_bytes(b"a\xffb")), r"$'a\xffb'");
    }
}
