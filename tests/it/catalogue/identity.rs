//! 2.7: who issued a token, and for which callee. Whose key it is stands in `owners`.

use countersign::Reason::{self, AudienceMismatch, IssuerMismatch, TokenMalformed};

use super::peers::Peers;
use super::row::{Row, accepted, refused};
use crate::support::draft::{Draft, text};

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let mut rows = Vec::new();
    let (caller, own) = (peers.caller.issuer(), peers.own.issuer());
    for (claim, value, reason) in [
        ("iss", caller, IssuerMismatch),
        ("sub", caller, IssuerMismatch),
        ("aud", own, AudienceMismatch),
    ] {
        rows.extend(no_text(peers, claim));
        rows.extend(near(peers, claim, value, reason));
        let array = peers.token(|draft| draft.claim("aud", format!("[{}]", text(own))));
        rows.push(accepted(format!("{claim}: control"), &array));
    }
    rows.extend(issuers(peers));
    rows.extend(audiences(peers));
    rows.extend(token_ids(peers));
    rows.extend(other_names(peers));
    rows
}

fn no_text(peers: &Peers, claim: &str) -> Vec<Row> {
    let kinds = ["null", "1", "1.5", "0", "true", "false", "{}", "{\"a\":1}"];
    let mut rows: Vec<_> = kinds
        .map(|json| {
            let token = peers.token(|draft| draft.claim(claim, json));
            refused(format!("{claim} is {json}"), &token, TokenMalformed)
        })
        .into();
    let missing = peers.token(|draft| draft.without(claim));
    rows.push(refused(
        format!("{claim} missing"),
        &missing,
        TokenMalformed,
    ));
    rows
}

/// Texts that are not `value`, however close.
fn near(peers: &Peers, claim: &str, value: &str, reason: Reason) -> Vec<Row> {
    let half = &value[..value.len() - 1];
    let texts = [
        ("empty", String::new()),
        ("upper case", value.to_uppercase()),
        ("space after", format!("{value} ")),
        ("space before", format!(" {value}")),
        ("NUL after", format!("{value}\0")),
        ("newline after", format!("{value}\n")),
        ("slash after", format!("{value}/")),
        ("a letter short", half.to_owned()),
        ("a letter long", format!("{value}x")),
        ("its module type", value[..3].to_owned()),
        ("something before", format!("x{value}")),
        ("homoglyph", value.replacen('e', "\u{435}", 1)),
        ("another dash", value.replacen('-', "\u{2010}", 1)),
        ("without its dash", value.replacen('-', "", 1)),
        ("zero-width space", format!("{value}\u{200b}")),
        (
            "zero-width joiner within",
            value.replacen('-', "-\u{200d}", 1),
        ),
        ("star", "*".to_owned()),
        ("pattern", ".*".to_owned()),
        ("its own pattern", format!("{}.*", &value[..3])),
        ("list with commas", format!("{value},x")),
        ("list with spaces", format!("x {value}")),
        ("URL", format!("https://{value}")),
        ("SPIFFE id", format!("spiffe://{value}")),
        ("500 times", value.repeat(500)),
        ("SQL", format!("{value}' OR '1'='1")),
        ("CR LF", format!("{value}\r\nx")),
        ("bidirectional override", format!("\u{202e}{value}")),
        ("placeholder", "${module}".to_owned()),
    ];
    let rows = texts.into_iter().map(|(name, value)| {
        let token = peers.token(|draft| draft.claim(claim, text(&value)));
        refused(format!("{claim}: {name}"), &token, reason)
    });
    rows.collect()
}

fn issuers(peers: &Peers) -> Vec<Row> {
    let draft = peers.draft();
    let name = text(peers.caller.issuer());
    let kid = text(peers.caller.key_id.as_str());
    let sign = |draft: Draft| draft.sign(&peers.caller.key);
    let both = |value: &str| sign(draft.clone().claim("iss", value).claim("sub", value));
    let mut rows = vec![
        // The contract: both the name, or both the fingerprint.
        accepted("iss and sub are the kid", &both(&kid)),
        refused(
            "iss the kid, sub the name",
            &sign(draft.clone().claim("iss", &kid)),
            IssuerMismatch,
        ),
        refused(
            "sub the kid, iss the name",
            &sign(draft.clone().claim("sub", &kid)),
            IssuerMismatch,
        ),
        refused(
            "both the stranger's name",
            &both("\"stranger\""),
            IssuerMismatch,
        ),
        refused("both empty", &both("\"\""), IssuerMismatch),
        refused(
            "both upper case",
            &both(&name.to_uppercase()),
            IssuerMismatch,
        ),
        refused(
            "both the callee",
            &both(&text(peers.own.issuer())),
            IssuerMismatch,
        ),
        refused(
            "both the revoked key's id",
            &both(&text(&peers.revoked.fingerprint().to_string())),
            IssuerMismatch,
        ),
        refused(
            "both the thumbprint",
            &both(&text(&peers.caller.key.verifying_key().thumbprint())),
            IssuerMismatch,
        ),
    ];
    for claim in ["iss", "sub"] {
        for (shape, json) in [
            ("array", format!("[{name}]")),
            ("array of two", format!("[{name},\"x\"]")),
            ("empty array", "[]".to_owned()),
            ("keyed object", format!("{{\"0\":{name}}}")),
        ] {
            let token = sign(draft.clone().claim(claim, json));
            rows.push(refused(format!("{claim}: {shape}"), &token, TokenMalformed));
        }
    }
    rows
}

fn audiences(peers: &Peers) -> Vec<Row> {
    let (name, hash) = (
        text(peers.own.issuer()),
        text(&peers.own.fingerprint().to_string()),
    );
    let caller = text(peers.caller.issuer());
    let callers_hash = text(&peers.caller.fingerprint().to_string());
    let many = |n: usize, last: &str| {
        let others = (1..n).map(|n| format!("\"a{n}\""));
        let values: Vec<_> = others.chain([last.to_owned()]).collect();
        format!("[{}]", values.join(","))
    };
    let token = |json: String| peers.token(|draft| draft.claim("aud", json));
    let malformed = [
        ("array in an array", format!("[[{name}]]")),
        ("[null]", "[null]".to_owned()),
        ("[1]", "[1]".to_owned()),
        ("[1, us]", format!("[1,{hash}]")),
        ("[us, 1]", format!("[{hash},1]")),
        ("[us, null]", format!("[{hash},null]")),
        ("[object]", format!("[{{\"aud\":{hash}}}]")),
        ("keyed object", format!("{{\"0\":{hash}}}")),
        ("9 values", many(9, &hash)),
        ("400 values", many(400, &hash)),
    ];
    let other = [
        ("another module", caller.clone()),
        ("the caller itself", format!("[{caller},{callers_hash}]")),
        ("[]", "[]".to_owned()),
        ("without us", "[\"a\",\"b\"]".to_owned()),
        // With hashes in it, the name alone may be another module's of the same name.
        (
            "our name beside another hash",
            format!("[{name},{callers_hash}]"),
        ),
        (
            "both in one text",
            text(&format!(
                "{} {}",
                peers.own.issuer(),
                peers.own.fingerprint()
            )),
        ),
        ("our hash in lower case", hash.to_lowercase()),
        ("our hash, cut", format!("{}\"", &hash[..43])),
        (
            "our thumbprint",
            text(&peers.own.key.verifying_key().thumbprint()),
        ),
        ("[\"\"]", "[\"\"]".to_owned()),
    ];
    let good = [
        ("our name", name.clone()),
        ("our hash", hash.clone()),
        ("[our name]", format!("[{name}]")),
        ("[our hash]", format!("[{hash}]")),
        ("our name, another's name", format!("[\"a\",{name}]")),
        ("another hash and ours", format!("[{callers_hash},{hash}]")),
        ("us twice", format!("[{hash},{hash}]")),
        ("8 values", many(8, &hash)),
    ];
    let malformed =
        malformed.map(|(row, json)| refused(format!("aud: {row}"), &token(json), TokenMalformed));
    let other =
        other.map(|(row, json)| refused(format!("aud: {row}"), &token(json), AudienceMismatch));
    let good = good.map(|(row, json)| accepted(format!("aud: {row}"), &token(json)));
    malformed.into_iter().chain(other).chain(good).collect()
}

fn token_ids(peers: &Peers) -> Vec<Row> {
    let token = |json: &str| peers.token(|draft| draft.claim("jti", json));
    let kinds = ["null", "1", "true", "{}", "[]", "[\"a\"]"];
    let mut rows: Vec<_> = kinds
        .map(|json| refused(format!("jti is {json}"), &token(json), TokenMalformed))
        .into();
    let of = |characters: usize| text(&"é".repeat(characters));
    rows.extend([
        refused("jti of 129 characters", &token(&of(129)), TokenMalformed),
        refused("jti of 2000 characters", &token(&of(2000)), TokenMalformed),
        accepted("jti of 128 characters", &token(&of(128))),
        // The contract asks for a text of at most 128 characters, if there is one.
        accepted("jti empty", &token("\"\"")),
        accepted("jti missing", &peers.token(|draft| draft.without("jti"))),
    ]);
    rows
}

/// Claims that are not where they belong.
fn other_names(peers: &Peers) -> Vec<Row> {
    let mut rows = Vec::new();
    for (claim, value) in [
        ("iss", text(peers.caller.issuer())),
        ("sub", text(peers.caller.issuer())),
        ("aud", text(peers.own.issuer())),
        ("exp", "1800000300".to_owned()),
        ("iat", "1800000000".to_owned()),
    ] {
        let missing = || peers.draft().without(claim);
        let rows_of_claim = [
            (
                "in upper case",
                missing().claim(&claim.to_uppercase(), &value),
            ),
            (
                "with a space",
                missing().claim(&format!("{claim} "), &value),
            ),
            (
                "in an object",
                missing().claim("claims", format!("{{\"{claim}\":{value}}}")),
            ),
            ("in the header", missing().header(claim, &value)),
        ];
        rows.extend(rows_of_claim.map(|(name, draft)| {
            let token = draft.sign(&peers.caller.key);
            refused(format!("{claim} {name}"), &token, TokenMalformed)
        }));
    }
    rows
}
