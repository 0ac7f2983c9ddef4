//! Which texts of a file are proved to be public, and may be shown of a key with a typo.

use crate::diagnostic::Public;
use crate::jose::{Fingerprint, KeyId, PublicJwk, VerifyingKey, repair};
use crate::properties::Entry;

/// Characters of a coordinate, and of a fingerprint.
const LENGTH: usize = 43;

/// So many texts of one value are looked at, and so many pairs of one file.
const MOST_TEXTS: usize = 8;
const MOST_PAIRS: usize = 4096;

/// Finds what is public in a whole file.
pub(super) fn of(entries: &[Entry]) -> Public {
    let mut public = Public::default();
    let mut pairs = MOST_PAIRS;
    for entry in entries {
        let value = entry.value().trim();
        if entry.key().ends_with("fingerprint") && value.parse::<Fingerprint>().is_ok() {
            public.insert(value);
        }
        add(&mut public, value, &mut pairs);
    }
    public
}

/// Finds what is public in one value.
pub(super) fn within(value: &str) -> Public {
    let mut public = Public::default();
    add(&mut public, value, &mut MOST_PAIRS.clone());
    public
}

/// Two texts that are a point of the curve are a public key, whatever stands around them; so are
/// the names of that key, and the `kid` beside it if the rest is in order.
fn add(public: &mut Public, value: &str, pairs: &mut usize) {
    if value.len() < LENGTH {
        return;
    }
    if let Ok(jwk) = PublicJwk::parse(value) {
        add_key(public, &jwk.key, jwk.kid.as_ref());
        return;
    }
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let runs = value.split(|c| !is_base64(c));
    let texts: Vec<_> = runs
        .filter(|run| run.len() == LENGTH)
        .take(MOST_TEXTS)
        .collect();
    for x in &texts {
        for y in texts.iter().filter(|y| *y != x) {
            *pairs = pairs.saturating_sub(1);
            if *pairs == 0 {
                return;
            }
            if let Some(key) = point(x, y) {
                let mended = repair(value).and_then(|mended| PublicJwk::parse(&mended).ok());
                let kid = mended.and_then(|jwk| jwk.kid);
                add_key(public, &key, kid.as_ref());
            }
        }
    }
}

fn point(x: &str, y: &str) -> Option<VerifyingKey> {
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#);
    PublicJwk::parse(&jwk).ok().map(|jwk| jwk.key)
}

fn add_key(public: &mut Public, key: &VerifyingKey, kid: Option<&KeyId>) {
    let fingerprint = key.fingerprint();
    public.extend([
        key.x(),
        key.y(),
        key.thumbprint(),
        fingerprint.to_string(),
        fingerprint.to_hex(),
        fingerprint.to_hex().to_uppercase(),
    ]);
    if let Some(kid) = kid {
        public.insert(kid.as_str());
    }
}
