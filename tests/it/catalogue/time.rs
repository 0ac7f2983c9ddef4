//! 2.6: `exp`, `iat` and `nbf`, with the callee's clock at [`NOW`].

use std::time::Duration;

use countersign::Reason::{
    self, TokenExpired, TokenLifetimeTooLong, TokenMalformed, TokenNotYetValid,
};
use tonic::Code;

use super::callee::Callee;
use super::peers::{NOW, Peers};
use super::row::{Call, Outcome, Row, accepted, refused};

const YEAR: u64 = 31_536_000;

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let mut rows = vec![accepted("control", &peers.good())];
    for claim in ["exp", "iat", "nbf"] {
        rows.extend(no_number(peers, claim));
    }
    rows.extend(changed(peers, "exp", &EXPIRES));
    rows.extend(changed(peers, "nbf", &NOT_BEFORE));
    rows.extend(changed(peers, "iat", &ISSUED));
    rows.extend(several(peers));
    rows.extend(good(peers));
    rows
}

/// Everything that is not a JSON number with a finite value.
fn no_number(peers: &Peers, claim: &str) -> Vec<Row> {
    let texts = [
        "null",
        "\"1800000300\"",
        "\"0\"",
        "\"99999999999\"", // CVE-2026-25537: a text that passes
        "\"2027-01-15T08:05:00Z\"",
        "\"never\"",
        "\"\"",
        "true",
        "false",
        "[1800000300]",
        "[]",
        "{}",
        "{\"v\":1800000300}",
        // None of these is JSON.
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "0x6b49d32c",
        "01800000300",
        "+1800000300",
        "1_800_000_300",
        "1800000300.",
        ".5",
        "1800000300n",
        "undefined",
    ];
    let mut rows: Vec<_> = texts
        .into_iter()
        .map(|json| {
            let token = peers.token(|draft| draft.claim(claim, json));
            refused(format!("{claim} is {json}"), &token, TokenMalformed)
        })
        .collect();
    if claim != "nbf" {
        let token = peers.token(|draft| draft.without(claim));
        rows.push(refused(format!("{claim} missing"), &token, TokenMalformed));
    }
    rows
}

type Values = [(&'static str, &'static str, Reason)];

const EXPIRES: [(&str, &str, Reason); 24] = [
    ("0", "0", TokenExpired),
    ("-0", "-0", TokenExpired),
    ("-1", "-1", TokenExpired),
    ("-2^63", "-9223372036854775808", TokenExpired),
    ("-1e300", "-1e300", TokenExpired),
    ("1e-300", "1e-300", TokenExpired),
    ("a year ago", "1768464000", TokenExpired),
    ("an hour ago", "1799996400", TokenExpired),
    ("before iat", "1799999999", TokenExpired),
    ("equal to iat", "1800000000", TokenExpired),
    ("1e308", "1e308", TokenLifetimeTooLong),
    ("2^63-1", "9223372036854775807", TokenLifetimeTooLong),
    ("2^63", "9223372036854775808", TokenLifetimeTooLong),
    ("2^63+1", "9223372036854775809", TokenLifetimeTooLong),
    ("2^64-1", "18446744073709551615", TokenLifetimeTooLong),
    ("2^64", "18446744073709551616", TokenLifetimeTooLong),
    ("2^64+1", "18446744073709551617", TokenLifetimeTooLong),
    ("2^53+1", "9007199254740993", TokenLifetimeTooLong),
    ("2^32", "4294967296", TokenLifetimeTooLong),
    ("milliseconds", "1800000300000", TokenLifetimeTooLong),
    ("microseconds", "1800000300000000", TokenLifetimeTooLong),
    ("in ten years", "2115360000", TokenLifetimeTooLong),
    ("maximum and 1 s", "1800000901", TokenLifetimeTooLong),
    (
        "maximum and a fraction",
        "1800000900.01",
        TokenLifetimeTooLong,
    ),
];

const NOT_BEFORE: [(&str, &str, Reason); 9] = [
    ("leeway and 1 s ahead", "1800000031", TokenNotYetValid),
    (
        "leeway and a fraction ahead",
        "1800000030.01",
        TokenNotYetValid,
    ),
    ("in an hour", "1800003600", TokenNotYetValid),
    ("in a year", "1831536000", TokenNotYetValid),
    ("after exp", "1800000301", TokenNotYetValid),
    ("1e308", "1e308", TokenNotYetValid),
    ("2^63", "9223372036854775808", TokenNotYetValid),
    ("2^64", "18446744073709551616", TokenNotYetValid),
    ("milliseconds", "1800000000000", TokenNotYetValid),
];

const ISSUED: [(&str, &str, Reason); 11] = [
    ("leeway and 1 s ahead", "1800000031", TokenNotYetValid),
    (
        "leeway and a fraction ahead",
        "1800000030.01",
        TokenNotYetValid,
    ),
    ("before exp, 299 s ahead", "1800000299", TokenNotYetValid),
    // No token lives from after its end: the contract has that as expired.
    ("in a year", "1831536000", TokenExpired),
    ("1e308", "1e308", TokenExpired),
    ("milliseconds", "1800000000000", TokenExpired),
    ("1970", "0", TokenLifetimeTooLong),
    ("-1", "-1", TokenLifetimeTooLong),
    ("-1e308", "-1e308", TokenLifetimeTooLong),
    ("-2^63", "-9223372036854775808", TokenLifetimeTooLong),
    ("901 s before exp", "1799999399", TokenLifetimeTooLong),
];

fn changed(peers: &Peers, claim: &str, values: &Values) -> Vec<Row> {
    let rows = values.iter().map(|(name, json, reason)| {
        let token = peers.token(|draft| draft.claim(claim, *json));
        refused(format!("{claim} {name}"), &token, *reason)
    });
    rows.collect()
}

/// Two claims changed.
fn several(peers: &Peers) -> Vec<Row> {
    let lived =
        |from: String, to: String| peers.token(|draft| draft.claim("iat", from).claim("exp", to));
    let at = |seconds: u64| seconds.to_string();
    let digits = "9".repeat(300);
    vec![
        refused(
            "exp of 300 digits",
            &peers.token(|d| d.claim("exp", &digits)),
            TokenLifetimeTooLong,
        ),
        refused(
            "expired just now",
            &lived(at(NOW - 300), at(NOW - 30)),
            TokenExpired,
        ),
        refused(
            "expired for the leeway and 3 s",
            &lived(at(NOW - 300), at(NOW - 33)),
            TokenExpired,
        ),
        refused(
            "expired, with fractions",
            &lived(at(NOW - 300), "1799999969.9".to_owned()),
            TokenExpired,
        ),
        refused(
            "expired a year ago",
            &lived(at(NOW - YEAR - 300), at(NOW - YEAR)),
            TokenExpired,
        ),
        refused(
            "issued in an hour",
            &lived(at(NOW + 3600), at(NOW + 3900)),
            TokenNotYetValid,
        ),
        refused(
            "issued in a year",
            &lived(at(NOW + YEAR), at(NOW + YEAR + 300)),
            TokenNotYetValid,
        ),
        refused(
            "issued in milliseconds",
            &lived(at(NOW * 1000), at(NOW * 1000 + 300)),
            TokenNotYetValid,
        ),
        refused("all zero", &lived(at(0), at(0)), TokenExpired),
        refused(
            "nbf after exp, both within the leeway",
            &peers.token(|draft| {
                draft
                    .claim("exp", at(NOW - 10))
                    .claim("iat", at(NOW - 300))
                    .claim("nbf", at(NOW + 10))
            }),
            TokenNotYetValid,
        ),
        refused(
            "both huge",
            &lived("1e308".into(), "1.1e308".into()),
            TokenNotYetValid,
        ),
        refused(
            "both minus huge",
            &lived("-1.1e308".into(), "-1e308".into()),
            TokenExpired,
        ),
        refused(
            "farthest apart",
            &lived("-1.7e308".into(), "1.7e308".into()),
            TokenLifetimeTooLong,
        ),
    ]
}

fn good(peers: &Peers) -> Vec<Row> {
    let with = |changes: &[(&str, &str)]| {
        peers.token(|draft| {
            changes
                .iter()
                .fold(draft, |draft, (c, json)| draft.claim(c, *json))
        })
    };
    vec![
        accepted(
            "expired within the leeway",
            &with(&[("iat", "1799999700"), ("exp", "1799999971")]),
        ),
        accepted(
            "issued ahead within the leeway",
            &with(&[("iat", "1800000030")]),
        ),
        accepted(
            "nbf ahead within the leeway",
            &with(&[("nbf", "1800000030")]),
        ),
        accepted("nbf now", &with(&[("nbf", "1800000000")])),
        accepted("nbf 0", &with(&[("nbf", "0")])),
        accepted("nbf far back", &with(&[("nbf", "-1e300")])),
        accepted(
            "fractions",
            &with(&[("iat", "1799999999.75"), ("exp", "1800000299.5")]),
        ),
        accepted("exponent", &with(&[("exp", "1.8000003e9")])),
        accepted("the longest life", &with(&[("exp", "1800000900")])),
    ]
}

#[tokio::test]
async fn accepted_token_is_refused_at_its_end_at_the_dpm() {
    refuses_at_the_end(Callee::dpm().await).await;
}

#[tokio::test]
async fn accepted_token_is_refused_at_its_end_at_the_dpe() {
    refuses_at_the_end(Callee::dpe().await).await;
}

/// A verdict is good for one call: no cache outlives the token.
async fn refuses_at_the_end(callee: Callee) {
    let call = Call::bearer(&callee.peers.good());
    for _ in 0..2 {
        assert_eq!(callee.call(call.clone()).await.code(), Code::Ok);
    }
    callee.peers.clock.advance(Duration::from_secs(329));
    assert_eq!(callee.call(call.clone()).await.code(), Code::Ok);

    callee.peers.clock.advance(Duration::from_secs(1));

    let status = callee.call(call).await;
    Outcome::Refused(TokenExpired).check(&status).unwrap();
}
