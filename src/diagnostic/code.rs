//! The closed list of codes. Their long explanations are in `explain/`, one file each.

use std::fmt;

use serde::{Serialize, Serializer};

use super::CommandLine;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Works, but probably not as intended.
    Warning,
    /// Refused by `run`.
    Error,
}

impl Severity {
    /// Returns `note`, `warning` or `error`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

struct Entry {
    text: &'static str,
    severity: Severity,
    title: &'static str,
    explanation: &'static str,
}

macro_rules! codes {
    ($($name:ident $text:literal $severity:ident $title:literal;)*) => {
        /// The kind of a finding. Codes are stable: scripts and searches rely on them.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            const fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry {
                        text: $text,
                        severity: Severity::$severity,
                        title: $title,
                        explanation: include_str!(concat!("explain/", $text, ".md")),
                    },)*
                }
            }
        }
    };
}

codes! {
    Cs0101 "CS0101" Error "text that cannot be read: a malformed escape or bytes that are not text";
    Cs0102 "CS0102" Warning "a byte order mark at the start of the file";
    Cs0103 "CS0103" Warning "a name given twice";
    Cs0104 "CS0104" Error "a value broken over several lines";
    Cs0105 "CS0105" Warning "a trailing blank or a comment inside a value";
    Cs0106 "CS0106" Error "an unknown name";
    Cs0107 "CS0107" Warning "a name that looks like a misspelt prefix of ours";
    Cs0108 "CS0108" Warning "files that others can read or replace";
    Cs0109 "CS0109" Error "a list index that leaves a gap, is negative or too large";
    Cs0110 "CS0110" Note "a backslash that was read as an escape";
    Cs0111 "CS0111" Error "a placeholder that cannot be resolved";
    Cs0112 "CS0112" Error "a source that Spring Boot would apply and countersign cannot";
    Cs0201 "CS0201" Error "`content` is not a valid public P-256 JWK";
    Cs0202 "CS0202" Error "`fingerprint` is not the fingerprint of `content`";
    Cs0203 "CS0203" Error "a private key in a peer's `content`";
    Cs0204 "CS0204" Error "the module's own key has no usable private part";
    Cs0205 "CS0205" Note "an unusual but consistent key";
    Cs0206 "CS0206" Error "the own key's setting has a value of the wrong kind";
    Cs0207 "CS0207" Error "the module trusts its own key";
    Cs0208 "CS0208" Error "one key or key id in two places";
    Cs0209 "CS0209" Warning "a published key";
    Cs0210 "CS0210" Error "a revoked key that is trusted again";
    Cs0301 "CS0301" Error "a required setting is missing or a name is not allowed";
    Cs0302 "CS0302" Warning "every key of a deployment is revoked";
    Cs0303 "CS0303" Warning "a deployment without the impersonation role";
    Cs0304 "CS0304" Error "two names that differ only in case or dashes";
    Cs0305 "CS0305" Note "a recognised setting that is not used";
    Cs0306 "CS0306" Error "a value of a wrong type or out of range";
    Cs0307 "CS0307" Error "an address that is not served, or plaintext beyond this machine";
    Cs0308 "CS0308" Error "a certificate that peers refuse, or soon will";
    Cs0309 "CS0309" Error "more active keys of a deployment than a token can name";
    Cs0401 "CS0401" Error "the other file does not trust this key";
    Cs0402 "CS0402" Error "the other file trusts this key as revoked";
    Cs0403 "CS0403" Warning "a name or environment that differs between the files";
    Cs0404 "CS0404" Error "both modules share one private key";
    Cs0405 "CS0405" Error "TLS settings that do not match";
    Cs0406 "CS0406" Warning "message sizes that do not fit";
}

impl Code {
    /// Finds a code by its text in any case, such as `cs0201`.
    pub fn find(text: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|code| code.as_str().eq_ignore_ascii_case(text))
    }

    /// Returns the code as printed, such as `CS0201`.
    pub const fn as_str(self) -> &'static str {
        self.entry().text
    }

    /// Returns the command that prints the explanation.
    pub(crate) fn explain(self) -> CommandLine {
        CommandLine::new("countersign explain").arg(self.as_str())
    }

    /// Returns the default severity of a finding with this code.
    pub const fn severity(self) -> Severity {
        self.entry().severity
    }

    /// Returns what the code means, in one line.
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// Returns what it means, why it matters, how to fix it, and an example.
    pub const fn explanation(self) -> &'static str {
        self.entry().explanation
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_with_why_fix_and_example() {
        for code in Code::ALL {
            let text = code.explanation();
            assert!(text.starts_with(code.as_str()), "{code}");
            for part in ["Why: ", "Fix: ", "Example:"] {
                assert!(text.contains(part), "{code} lacks {part:?}");
            }
        }
    }

    #[test]
    fn codes_are_read_as_they_are_printed() {
        for code in Code::ALL {
            assert_eq!(Code::find(&code.to_string()), Some(*code));
        }
        assert_eq!(Code::find("cs0201"), Some(Code::Cs0201));
        assert_eq!(Code::find("CS0999"), None);
    }
}
