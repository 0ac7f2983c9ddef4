//! Tokens that verified before: using one again costs no signature check.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::jose::{Header, VerifyingKey};

use super::claims::Claims;

/// Remembers tokens that were accepted: some 8,000 of at most 2 KiB each.
///
/// What is remembered is what the bytes of a token say, and whose signature it has; neither can
/// change. Everything that can is judged at every use: whether the key is still trusted and not
/// revoked, the times, issuer, audience and certificate. So a revocation has nothing to flush here.
///
/// A token is found by its SHA-256 and is not itself kept. Only tokens that a trusted key signed
/// are added.
#[derive(Debug)]
pub struct VerifiedCache(pub(super) Cache<TokenDigest, Arc<Signed>>);

/// The SHA-256 of a whole token.
pub(super) type TokenDigest = [u8; 32];

/// The claims of a token, and the key that signed it.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) header: Header,
    pub(super) key: VerifyingKey,
    pub(super) claims: Claims,
}

/// Tokens live 15 minutes at most and are reused: one for each of as many callers. A power of two
/// is what it is on any number of processors.
const CAPACITY: usize = 8192;

/// The longest token that is remembered, in bytes. Our own have some 400.
const LONGEST: usize = 2048;

impl VerifiedCache {
    /// Returns the cache key of `token`; `None` if the token is too long.
    pub(super) fn digest(token: &str) -> Option<TokenDigest> {
        (token.len() <= LONGEST).then(|| Sha256::digest(token.as_bytes()).into())
    }
}

impl Default for VerifiedCache {
    fn default() -> Self {
        Self(Cache::new(CAPACITY))
    }
}
