//! 2.8: roles are what the callee's file says, whatever a token says.

use countersign::Reason::{RoleMissing, SignatureInvalid};

use super::peers::Peers;
use super::row::{Call, Outcome, Row, accepted, refused, row};
use crate::support::draft::text;

/// Claims in which other systems carry roles.
const CLAIMS: [&str; 14] = [
    "roles",
    "role",
    "scope",
    "scp",
    "groups",
    "authorities",
    "permissions",
    "entitlements",
    "security.roles[0]",
    "https://example.org/roles",
    "cognito:groups",
    "impersonate",
    "module",
    "azp",
];

/// Values of such a claim.
const SHAPES: [(&str, &str); 16] = [
    ("array", r#"["IMPERSONATION"]"#),
    ("text", r#""IMPERSONATION""#),
    ("empty array", "[]"),
    ("null", "null"),
    ("another role", r#"["OTHER"]"#),
    ("lower case", r#"["impersonation"]"#),
    ("space after", r#"["IMPERSONATION "]"#),
    ("prefix", r#"["IMPERSONATIO"]"#),
    ("suffix", r#"["IMPERSONATIONS"]"#),
    ("star", r#"["*"]"#),
    ("object", r#"{"IMPERSONATION":true}"#),
    ("number", "1"),
    ("nested", r#"[["IMPERSONATION"]]"#),
    ("list in a text", r#""OTHER,IMPERSONATION""#),
    ("NUL", r#"["IMPERSONATION\u0000"]"#),
    ("true", "true"),
];

const NESTED: [(&str, &str); 4] = [
    ("realm_access", r#"{"roles":["IMPERSONATION"]}"#),
    (
        "resource_access",
        r#"{"dpm-dev":{"roles":["IMPERSONATION"]}}"#,
    ),
    ("act", r#"{"sub":"dpe-dev","roles":["IMPERSONATION"]}"#),
    ("security", r#"{"roles":["IMPERSONATION"]}"#),
];

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let mut rows = claims(peers);
    rows.extend(around_the_token(peers));
    rows
}

/// Each claim and shape, of a deployment that has the role and of one that has not.
fn claims(peers: &Peers) -> Vec<Row> {
    let claims = CLAIMS.map(|claim| (format!("{claim}: a role"), claim, r#"["IMPERSONATION"]"#));
    let shapes = SHAPES.map(|(name, json)| (format!("roles: {name}"), "roles", json));
    let nested = NESTED.map(|(claim, json)| (format!("{claim}: nested"), claim, json));
    let mut rows = Vec::new();
    for (name, claim, json) in claims.into_iter().chain(shapes).chain(nested) {
        let granted = peers.token(|draft| draft.claim(claim, json));
        let reader = peers.draft_of(&peers.reader).claim(claim, json);
        let reader = reader.sign(&peers.reader.key);
        rows.push(accepted(format!("{name}, role in the file"), &granted));
        rows.push(refused(
            format!("{name}, no role in the file"),
            &reader,
            RoleMissing,
        ));
    }
    rows
}

fn around_the_token(peers: &Peers) -> Vec<Row> {
    let draft = peers.draft_of(&peers.reader);
    let token = draft.sign(&peers.reader.key);
    let in_header = draft.clone().header("roles", r#"["IMPERSONATION"]"#);
    let named = draft.clone().claim("name", text(peers.caller.issuer()));
    let lower = peers.draft_of(&peers.lower).sign(&peers.lower.key);
    let forged = draft.sign(&peers.stranger.key);
    let with = |name: &str| Call::bearer(&token).with(name, "IMPERSONATION");
    let denied = Outcome::Refused(RoleMissing);
    vec![
        refused("no role", &token, RoleMissing),
        refused(
            "role in the header",
            &in_header.sign(&peers.reader.key),
            RoleMissing,
        ),
        refused(
            "another's name in a claim",
            &named.sign(&peers.reader.key),
            RoleMissing,
        ),
        row("metadata x-roles", with("x-roles"), denied),
        row("metadata roles", with("roles"), denied),
        row("metadata role-bin", with("role-bin"), denied),
        row(
            "metadata x-forwarded-groups",
            with("x-forwarded-groups"),
            denied,
        ),
        row(
            "metadata countersign-roles",
            with("countersign-roles"),
            denied,
        ),
        // A caller that is not proven to be the reader does not learn that it lacks the role.
        refused("no role, badly signed", &forged, SignatureInvalid),
        // The contract compares the configured role without case.
        accepted("role in lower case in the file", &lower),
        accepted("control", &peers.good()),
    ]
}
