//! 2.7: whose key it is: other deployments' and revoked ones.

use countersign::Reason::{IssuerMismatch, KeyRevoked, KeyUnknown, SignatureInvalid};
use countersign::jose::SigningKey;

use super::peers::Peers;
use super::row::{Row, accepted, refused};
use crate::support::draft::text;

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let mut rows = across_deployments(peers);
    rows.extend(revoked(peers));
    rows
}

/// Two trusted deployments, A the caller and B the other, and everything mixed.
fn across_deployments(peers: &Peers) -> Vec<Row> {
    let (a, b) = (&peers.caller, &peers.other);
    let mixed = |kid: &str, iss: &str, sub: &str, key: &SigningKey| {
        let draft = peers.draft().header("kid", text(kid));
        draft
            .claim("iss", text(iss))
            .claim("sub", text(sub))
            .sign(key)
    };
    let (kid_a, kid_b) = (a.key_id.as_str(), b.key_id.as_str());
    let (name_a, name_b) = (a.issuer(), b.issuer());
    vec![
        accepted("A's own", &mixed(kid_a, name_a, name_a, &a.key)),
        accepted("B's own", &mixed(kid_b, name_b, name_b, &b.key)),
        refused(
            "A with iss of B",
            &mixed(kid_a, name_b, name_a, &a.key),
            IssuerMismatch,
        ),
        refused(
            "A with sub of B",
            &mixed(kid_a, name_a, name_b, &a.key),
            IssuerMismatch,
        ),
        refused(
            "A as B",
            &mixed(kid_a, name_b, name_b, &a.key),
            IssuerMismatch,
        ),
        refused(
            "A as B's kid",
            &mixed(kid_a, kid_b, kid_b, &a.key),
            IssuerMismatch,
        ),
        refused(
            "B with iss of A",
            &mixed(kid_b, name_a, name_b, &b.key),
            IssuerMismatch,
        ),
        refused(
            "B, all but its sub",
            &mixed(kid_b, name_b, name_a, &b.key),
            IssuerMismatch,
        ),
        refused(
            "B signs under A's kid",
            &mixed(kid_a, name_a, name_a, &b.key),
            SignatureInvalid,
        ),
        refused(
            "A signs under B's kid",
            &mixed(kid_b, name_b, name_b, &a.key),
            SignatureInvalid,
        ),
        refused(
            "B signs as itself under A's kid",
            &mixed(kid_a, name_b, name_b, &b.key),
            SignatureInvalid,
        ),
        refused(
            "the callee's own token",
            &mixed(
                peers.own.key_id.as_str(),
                peers.own.issuer(),
                peers.own.issuer(),
                &peers.own.key,
            ),
            KeyUnknown,
        ),
    ]
}

/// Only a caller that signed properly learns that the key is revoked.
fn revoked(peers: &Peers) -> Vec<Row> {
    let kid = text(&peers.revoked.fingerprint().to_string());
    let under_revoked = peers.draft().header("kid", &kid);
    let as_other = under_revoked
        .clone()
        .claim("iss", text(peers.other.issuer()));
    let expired = under_revoked.clone().claim("exp", "1");
    let retired = peers.draft_of(&peers.retired);
    vec![
        refused(
            "revoked key, iss trusted",
            &under_revoked.sign(&peers.revoked),
            KeyRevoked,
        ),
        refused(
            "revoked key, another iss",
            &as_other.sign(&peers.revoked),
            KeyRevoked,
        ),
        refused(
            "revoked key, expired token",
            &expired.sign(&peers.revoked),
            KeyRevoked,
        ),
        refused(
            "revoked key, own name as kid",
            &under_revoked
                .clone()
                .claim("iss", &kid)
                .claim("sub", &kid)
                .sign(&peers.revoked),
            KeyRevoked,
        ),
        refused(
            "only key revoked",
            &retired.sign(&peers.retired.key),
            KeyRevoked,
        ),
        refused(
            "revoked signature, good kid",
            &peers.draft().sign(&peers.revoked),
            SignatureInvalid,
        ),
        refused(
            "good signature, revoked kid",
            &under_revoked.sign(&peers.caller.key),
            SignatureInvalid,
        ),
        refused(
            "stranger's signature, revoked kid",
            &under_revoked.sign(&peers.stranger.key),
            SignatureInvalid,
        ),
        // Bad in three ways: the first in the order of checks is reported, and nothing more.
        refused(
            "expired, for another, badly signed",
            &{
                let draft = peers.draft().claim("exp", "1").claim("aud", "\"x\"");
                draft.sign(&peers.stranger.key)
            },
            SignatureInvalid,
        ),
    ]
}
