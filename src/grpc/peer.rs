//! Who is calling, for a handler.

use tonic::{Request, Status};

use crate::identity::ServiceIdentity;
use crate::token::{Reason, VerifiedToken};

use super::refuse;

/// Returns the verified caller of `request`.
///
/// # Errors
///
/// `UNAUTHENTICATED` with `TOKEN_MISSING` when no [`VerifyIdentityLayer`](super::VerifyIdentityLayer)
/// stands before the handler, or its rule admits everyone: a handler that asks is never answered
/// with a guess.
pub fn caller<T>(request: &Request<T>) -> Result<&ServiceIdentity, Status> {
    let identity = request.extensions().get::<ServiceIdentity>();
    identity.ok_or_else(|| refuse(Reason::TokenMissing, None))
}

/// Returns the caller's verified token: its key, its issuer and when it expires.
///
/// # Errors
///
/// As [`caller`].
pub fn verified_token<T>(request: &Request<T>) -> Result<&VerifiedToken, Status> {
    let token = request.extensions().get::<VerifiedToken>();
    token.ok_or_else(|| refuse(Reason::TokenMissing, None))
}
