//! Tokens as another implementation would write them, down to the byte.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use countersign::jose::SigningKey;

/// Header and claims with their values as JSON text, in their order.
#[derive(Clone)]
pub(crate) struct Draft {
    header: Members,
    claims: Members,
}

type Members = Vec<(String, String)>;

impl Draft {
    pub(crate) fn new(header: &[(&str, String)], claims: &[(&str, String)]) -> Self {
        let owned = |members: &[(&str, String)]| -> Members {
            let members = members.iter();
            members.map(|(n, v)| ((*n).into(), v.clone())).collect()
        };
        Self {
            header: owned(header),
            claims: owned(claims),
        }
    }

    /// Sets a member of the header to the JSON text `json`; a new one is put last.
    pub(crate) fn header(mut self, name: &str, json: impl Into<String>) -> Self {
        set(&mut self.header, name, json.into());
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.header.retain(|(member, _)| member != name);
        self
    }

    /// Sets a claim to the JSON text `json`; a new one is put last.
    pub(crate) fn claim(mut self, name: &str, json: impl Into<String>) -> Self {
        set(&mut self.claims, name, json.into());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.claims.retain(|(claim, _)| claim != name);
        self
    }

    /// Turns the order of the members round.
    pub(crate) fn reversed(mut self) -> Self {
        self.header.reverse();
        self.claims.reverse();
        self
    }

    pub(crate) fn header_text(&self) -> String {
        object(&self.header)
    }

    pub(crate) fn claims_text(&self) -> String {
        object(&self.claims)
    }

    /// Signs it as it is.
    pub(crate) fn sign(&self, key: &SigningKey) -> String {
        sign(self.header_text(), self.claims_text(), key)
    }

    /// Encodes header and claims: what a signature covers.
    pub(crate) fn input(&self) -> String {
        let (header, claims) = (self.header_text(), self.claims_text());
        format!("{}.{}", encode(header), encode(claims))
    }
}

fn set(members: &mut Members, name: &str, json: String) {
    match members.iter_mut().find(|(member, _)| member == name) {
        Some((_, value)) => *value = json,
        None => members.push((name.to_owned(), json)),
    }
}

fn object(members: &Members) -> String {
    let members = members.iter();
    let members: Vec<_> = members.map(|(n, v)| format!("{}:{v}", text(n))).collect();
    format!("{{{}}}", members.join(","))
}

/// Writes `value` as a JSON text.
pub(crate) fn text(value: &str) -> String {
    serde_json::to_string(value).unwrap()
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from_digit(digit.into(), 16).unwrap())
        .collect()
}

/// Signs `header` and `payload`, whatever they are.
pub(crate) fn sign(
    header: impl AsRef<[u8]>,
    payload: impl AsRef<[u8]>,
    key: &SigningKey,
) -> String {
    sign_parts(&encode(header), &encode(payload), key)
}

/// Signs two parts that are taken for encoded.
pub(crate) fn sign_parts(header: &str, payload: &str, key: &SigningKey) -> String {
    let input = format!("{header}.{payload}");
    let signature = key.sign(input.as_bytes()).unwrap();
    with_signature(&input, &signature)
}

/// Puts `signature` behind what it should cover.
pub(crate) fn with_signature(input: &str, signature: &[u8]) -> String {
    format!("{input}.{}", encode(signature))
}

/// Takes a token's three parts.
pub(crate) fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}
