//! The rules of a token that need no more than the token and its signer.

use crate::identity::DeploymentName;
use crate::jose::{Compact, CompactError, Header};
use crate::trust::{Found, OwnDeployment};

use super::claims::Claims;
use super::signer::Signer;
use super::{Reason, Refusal};

/// Adds whose token is refused, whose signature verified.
pub(super) fn owned(refusal: Refusal, header: &Header, signer: &Signer<'_>) -> Refusal {
    let deployment = signer.deployment();
    Refusal {
        key_id: Some(header.kid().to_owned()),
        deployment: deployment.map(|deployment| deployment.name.clone()),
        ..refusal
    }
}

/// Judges the `typ` of a peer's token.
pub(super) fn typ(found: Option<&str>) -> Result<(), Refusal> {
    match found {
        Some(typ) if !typ.eq_ignore_ascii_case("JWT") => {
            let detail = format!("`typ` is `{typ}`, expected `JWT` or none");
            Err(Refusal::new(Reason::TokenMalformed, detail))
        }
        _ => Ok(()),
    }
}

pub(super) fn malformed(error: &CompactError) -> Refusal {
    let reason = match error {
        CompactError::Algorithm => Reason::AlgorithmNotAllowed,
        _ => Reason::TokenMalformed,
    };
    Refusal::new(reason, error.to_string())
}

pub(super) fn signature(compact: &Compact<'_>, signer: &Signer<'_>) -> Result<(), Refusal> {
    let signature = compact.signature();
    if signature.len() != 64 {
        let detail = format!("the signature has {} bytes, not 64", signature.len());
        return Err(Refusal::new(Reason::SignatureInvalid, detail));
    }
    if signer
        .key()
        .verify(compact.signing_input().as_bytes(), signature)
    {
        return Ok(());
    }
    let detail = "it was altered, or signed with another key than its `kid` names";
    Err(Refusal::new(Reason::SignatureInvalid, detail))
}

pub(super) fn not_revoked(signer: &Signer<'_>) -> Result<(), Refusal> {
    match signer {
        Signer::Peer(Found { deployment, key }) if key.revoked => {
            let detail = format!("key `{}` of deployment `{}`", key.name, deployment.name);
            Err(Refusal::new(Reason::KeyRevoked, detail))
        }
        _ => Ok(()),
    }
}

pub(super) fn issuer(claims: &Claims, signer: &Signer<'_>) -> Result<(), Refusal> {
    let (name, key_id) = match signer {
        Signer::Peer(Found { deployment, key }) => (deployment.name.as_str(), &key.key_id),
        Signer::Own(own) => (own.issuer(), &own.key_id),
    };
    if [name, key_id.as_str()]
        .iter()
        .any(|own| claims.issuer == *own && claims.subject == *own)
    {
        return Ok(());
    }
    let detail = format!(
        "`iss` is `{}` and `sub` is `{}`, but the key belongs to `{name}`",
        claims.issuer, claims.subject
    );
    Err(Refusal::new(Reason::IssuerMismatch, detail))
}

pub(super) fn audience(claims: &Claims, own: &OwnDeployment) -> Result<(), Refusal> {
    if own.is_named_in(&claims.audience) {
        return Ok(());
    }
    let hashes = claims
        .audience
        .iter()
        .any(|value| has_form_of_a_hash(value));
    let name = own.name.as_ref().map(DeploymentName::as_str);
    if !hashes
        && claims
            .audience
            .iter()
            .any(|value| Some(value.as_str()) == name)
    {
        return Ok(());
    }
    let own = own.fingerprint();
    let expected = match (hashes, name) {
        (false, Some(name)) => format!("`{own}` or `{name}`"),
        _ => format!("`{own}`"),
    };
    let detail = format!(
        "`aud` is [{}], expected {expected}",
        claims.audience.join(", ")
    );
    Err(Refusal::new(Reason::AudienceMismatch, detail))
}

fn has_form_of_a_hash(value: &str) -> bool {
    let base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    value.len() == 43 && value.bytes().all(base64url)
}
