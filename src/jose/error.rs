//! What can be wrong with keys, JWKs and compact signatures.

use super::json::JsonError;

/// Why a text cannot name a key.
#[derive(Clone, Copy, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyIdError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than 128 characters.
    #[error("it has {0} characters, at most 128 are allowed")]
    TooLong(usize),
    /// A control character.
    #[error("it holds the control character U+{:04X}", *.0 as u32)]
    Control(char),
}

/// A text that is not 43 characters of base64url.
#[derive(Clone, Copy, Eq, PartialEq, thiserror::Error)]
#[error("a fingerprint is 43 characters of base64url, the SHA-256 of a public key")]
pub struct FingerprintError;

/// Why a text is not a usable JWK: the problem and, if known, the byte of the text.
#[derive(Clone, Eq, PartialEq, thiserror::Error)]
#[error("{problem}")]
pub struct JwkError {
    problem: JwkProblem,
    offset: Option<usize>,
}

impl JwkError {
    pub(super) fn new(problem: JwkProblem, offset: Option<usize>) -> Self {
        Self { problem, offset }
    }

    /// Returns what is wrong.
    pub fn problem(&self) -> &JwkProblem {
        &self.problem
    }

    /// Returns the byte offset in the parsed text at which a person would point.
    pub fn offset(&self) -> Option<usize> {
        self.offset
    }

    /// Returns the JWK member at fault, such as `x`.
    pub fn member(&self) -> Option<&'static str> {
        self.problem.member()
    }
}

/// What is wrong with a JWK.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JwkProblem {
    /// Not a strict JSON object.
    #[error("it is not valid JSON: {0}")]
    Json(JsonError),
    /// PEM text where a JWK belongs.
    #[error("it is PEM, but a JWK in JSON is needed")]
    Pem,
    /// A JWK set.
    #[error("it is a key set (`keys`); write only the key that is in it")]
    KeySet,
    /// `kty`, `crv`, `alg` or `use` has a value that is not supported.
    #[error("`{member}` is {found}; only `{only}` is used")]
    Value {
        /// The member.
        member: &'static str,
        /// The text it has.
        found: String,
        /// The text it must have.
        only: &'static str,
    },
    /// `d` in a public key: the private key is no longer secret.
    #[error("`d` is present: this is a private key, but a public key is needed")]
    PrivatePart,
    /// A coordinate that lost its leading zero bytes.
    #[error(
        "`{member}` has {bytes} bytes, but must have 32; with its leading zeros it is `{padded}`"
    )]
    ShortCoordinate {
        /// The member.
        member: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The value with leading zero bytes put back.
        padded: String,
    },
    /// Any other fault, which no code distinguishes.
    #[error("{text}")]
    Other {
        /// The member at fault, if it is one.
        member: Option<&'static str>,
        /// What is wrong.
        text: String,
    },
}

impl JwkProblem {
    /// Reports `text` of `member`, or of the whole.
    pub(super) fn of(member: impl Into<Option<&'static str>>, text: impl Into<String>) -> Self {
        let (member, text) = (member.into(), text.into());
        Self::Other { member, text }
    }

    /// Returns the JWK member at fault.
    pub fn member(&self) -> Option<&'static str> {
        match self {
            Self::Value { member, .. } | Self::ShortCoordinate { member, .. } => Some(member),
            Self::KeySet => Some("keys"),
            Self::PrivatePart => Some("d"),
            Self::Json(_) | Self::Pem => None,
            Self::Other { member, .. } => *member,
        }
    }
}

/// Why bytes are no usable key, or why a key cannot do its work.
#[derive(Clone, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than 64 KiB; no more than what shows that need have been read.
    #[error("it has more than 65536 bytes")]
    TooLarge(usize),
    /// None of the forms that are read.
    #[error("it is neither a JWK, PEM, DER nor base64 of one of them")]
    Unrecognised,
    /// Base64 of something else than a key.
    #[error("it is base64, but not of a key")]
    Base64OfOther,
    /// A JWK encoded twice.
    #[error("it is a JWK encoded in base64 twice")]
    Base64Twice,
    /// The text of mkjwk's page with its headings.
    #[error("it holds more than one JSON text, such as a whole mkjwk page; keep the one key")]
    SeveralTexts,
    /// A set of keys with none, or with more than one.
    #[error(
        "it is a key set with {0} keys; save the one that you need, chosen by its `kid`, as a file \
         of its own: `jq '.keys[0]'` prints the first"
    )]
    KeySet(usize),
    /// A JWK with a fault.
    #[error(transparent)]
    Jwk(#[from] JwkError),
    /// PEM whose lines cannot be read.
    #[error("the PEM block `{0}` is damaged")]
    DamagedPem(&'static str),
    /// More than one key in one file.
    #[error("it contains {0} keys; keep only one")]
    SeveralKeys(usize),
    /// `openssl ecparam` without `-genkey`.
    #[error("it contains only curve parameters and no key")]
    ParametersOnly,
    /// A certificate, or a request for one.
    #[error("it is a {0}; the key itself is needed")]
    Certificate(&'static str),
    /// A certificate, or something else that is no key, in the same file.
    #[error("it contains a {0} beside the key; keep only the key")]
    Beside(&'static str),
    /// A key under a passphrase.
    #[error("it is encrypted with a passphrase; decrypt it first with `openssl pkey`")]
    Encrypted,
    /// Another kind of key, named.
    #[error("its kind is {0}; only P-256 is used")]
    OtherKind(&'static str),
    /// A curve that is described instead of named, be it P-256 or another.
    #[error(
        "it has explicit curve parameters; `openssl ec -param_enc named_curve` writes the curve's name instead"
    )]
    ExplicitParameters {
        /// Whether the key is a public one.
        public: bool,
    },
    /// PEM of something that is not a key.
    #[error("its PEM block {0} is not a supported key")]
    OtherLabel(String),
    /// DER or the content of a PEM block that is no P-256 key.
    #[error("its DER is not a valid P-256 key")]
    Der,
    /// The key could not be written in the form asked for.
    #[error("the key cannot be encoded")]
    Encode,
    /// No random numbers.
    #[error("the operating system gave no random numbers")]
    Random,
    /// A key that does not verify what it signed.
    #[error("the key failed its own test")]
    SelfTest,
    /// The signing library refused.
    #[error("the signature could not be made")]
    Sign,
}

crate::failure::debug_as_text!(KeyIdError, FingerprintError, JwkError, KeyError);

/// Why a text is no acceptable compact JWS.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// Longer than 8 KiB.
    #[error("it has {0} bytes, at most 8192 are allowed")]
    TooLarge(usize),
    /// Not three parts separated by dots.
    #[error("it has {0} parts, a token has 3")]
    Parts(usize),
    /// A part that is not canonical base64url without padding.
    #[error("its {0} is not canonical base64url")]
    Encoding(&'static str),
    /// The header is not a strict JSON object.
    #[error("its header is not valid JSON: {0}")]
    Header(JsonError),
    /// `alg` is anything but the string `ES256`.
    #[error("its `alg` is not ES256")]
    Algorithm,
    /// A header member that is not text.
    #[error("its header member `{0}` is not text")]
    NotText(&'static str),
    /// A header member that changes the meaning of the token.
    #[error("its header holds `{0}`, which is refused")]
    Refused(&'static str),
    /// No `kid`.
    #[error("its header has no `kid`")]
    KeyIdMissing,
}
