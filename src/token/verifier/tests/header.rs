//! Tokens that are refused for their form, their header or their signature.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn header_outside_the_rules_is_refused_by_name() {
    let world = World::new();
    let kid = world.kid();
    let good = world.claims().to_string();
    let rows = [
        (
            json!({"alg": "none", "kid": kid}),
            Reason::AlgorithmNotAllowed,
        ),
        (
            json!({"alg": "HS256", "kid": kid}),
            Reason::AlgorithmNotAllowed,
        ),
        (
            json!({"alg": "es256", "kid": kid}),
            Reason::AlgorithmNotAllowed,
        ),
        (
            json!({"alg": "ES384", "kid": kid}),
            Reason::AlgorithmNotAllowed,
        ),
        (
            json!({"alg": null, "kid": kid}),
            Reason::AlgorithmNotAllowed,
        ),
        (json!({"alg": 256, "kid": kid}), Reason::AlgorithmNotAllowed),
        (json!({"kid": kid}), Reason::AlgorithmNotAllowed),
        (json!({"alg": "ES256"}), Reason::TokenMalformed),
        (json!({"alg": "ES256", "kid": 1}), Reason::TokenMalformed),
        (
            json!({"alg": "ES256", "kid": [kid]}),
            Reason::TokenMalformed,
        ),
        (
            json!({"alg": "ES256", "kid": kid, "crit": []}),
            Reason::TokenMalformed,
        ),
        (
            json!({"alg": "ES256", "kid": kid, "b64": true}),
            Reason::TokenMalformed,
        ),
        (
            json!({"alg": "ES256", "kid": kid, "zip": null}),
            Reason::TokenMalformed,
        ),
        (
            json!({"alg": "ES256", "kid": kid, "typ": 1}),
            Reason::TokenMalformed,
        ),
        (
            json!({"alg": "ES256", "kid": kid, "typ": "at+jwt"}),
            Reason::TokenMalformed,
        ),
        (
            json!({"alg": "ES256", "kid": kid, "typ": crate::token::proof::TYPE}),
            Reason::TokenMalformed,
        ),
        (
            json!({"alg": "ES256", "kid": kid, "typ": OWN_MODULE_TYPE}),
            Reason::TokenMalformed,
        ),
        (json!({"alg": "ES256", "kid": ""}), Reason::KeyUnknown),
        (
            json!({"alg": "ES256", "kid": kid.to_uppercase()}),
            Reason::KeyUnknown,
        ),
        (
            json!({"alg": "ES256", "kid": format!("{kid} ")}),
            Reason::KeyUnknown,
        ),
        (
            json!({"alg": "ES256", "kid": "../../etc/passwd"}),
            Reason::KeyUnknown,
        ),
        (
            json!({"alg": "ES256", "kid": "x".repeat(5000)}),
            Reason::KeyUnknown,
        ),
        (
            json!({"alg": "ES256", "kid": world.dpe.key.verifying_key().thumbprint()}),
            Reason::KeyUnknown,
        ),
        (
            json!({"alg": "ES256", "kid": world.dpm.fingerprint().to_string()}),
            Reason::KeyUnknown,
        ),
        (
            json!({"alg": "ES256", "kid": world.other.fingerprint().to_string()}),
            Reason::SignatureInvalid,
        ),
        (
            json!({"alg": "ES256", "kid": world.revoked.fingerprint().to_string()}),
            Reason::SignatureInvalid,
        ),
    ];
    for (header, reason) in rows {
        let token = sign(&header, good.as_bytes(), &world.dpe.key);
        assert_eq!(world.reason(&token), Err(reason), "{header}");
    }
    for header in [
        json!({"alg": "ES256", "kid": kid}),
        json!({"alg": "ES256", "typ": "jwt", "kid": kid, "jku": "http://127.0.0.1:1/", "jwk": {}}),
    ] {
        assert_eq!(
            world.reason(&sign(&header, good.as_bytes(), &world.dpe.key)),
            Ok(()),
            "{header}"
        );
    }
}

#[test]
fn every_altered_character_is_refused() {
    let world = World::new();
    let token = world.with(&json!({}));
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert!(world.reason(&altered).is_err(), "character {at}");
    }
}

#[test]
fn signature_of_another_length_does_not_verify() {
    let world = World::new();
    let token = world.with(&json!({}));
    let (input, signature) = token.rsplit_once('.').unwrap();
    let bytes = BASE64URL.decode(signature).unwrap();
    for other in [
        vec![],
        vec![0; 64],
        bytes[..63].to_vec(),
        [&bytes[..], &[0]].concat(),
        bytes.repeat(2),
    ] {
        let token = format!("{input}.{}", BASE64URL.encode(&other));
        assert_eq!(
            world.reason(&token),
            Err(Reason::SignatureInvalid),
            "{} bytes",
            other.len()
        );
    }
}

/// Tokens that are refused before any signature is looked at, and why.
fn costing_nothing(world: &World) -> Vec<(&'static str, String, Reason)> {
    let good = world.with(&json!({}));
    let (input, signature) = good.rsplit_once('.').unwrap();
    let headed = |header: Value| sign(&header, b"{}", &world.dpe.key);
    let stranger = SigningKey::generate().unwrap().fingerprint().to_string();
    vec![
        ("empty", String::new(), Reason::TokenMalformed),
        ("oversized", "a".repeat(8193), Reason::TokenMalformed),
        (
            "oversized, well formed",
            world.with(&json!({"x": "x".repeat(8000)})),
            Reason::TokenMalformed,
        ),
        ("two parts", input.to_owned(), Reason::TokenMalformed),
        ("padded", format!("{good}=="), Reason::TokenMalformed),
        (
            "no JSON",
            format!("e.e.{signature}"),
            Reason::TokenMalformed,
        ),
        (
            "alg none",
            headed(json!({"alg": "none", "kid": world.kid()})),
            Reason::AlgorithmNotAllowed,
        ),
        (
            "no kid",
            headed(json!({"alg": "ES256"})),
            Reason::TokenMalformed,
        ),
        (
            "crit",
            headed(json!({"alg": "ES256", "kid": world.kid(), "crit": []})),
            Reason::TokenMalformed,
        ),
        (
            "another typ",
            headed(json!({"alg": "ES256", "kid": world.kid(), "typ": "x"})),
            Reason::TokenMalformed,
        ),
        (
            "unknown kid",
            headed(json!({"alg": "ES256", "kid": stranger})),
            Reason::KeyUnknown,
        ),
        (
            "63 bytes",
            format!("{input}.{}", signature.get(..84).unwrap()),
            Reason::SignatureInvalid,
        ),
        (
            "no signature",
            format!("{input}."),
            Reason::SignatureInvalid,
        ),
    ]
}

/// A flood of untrusted tokens must cost the attacker more than the callee.
#[test]
fn only_a_well_formed_token_under_a_trusted_kid_costs_a_signature_check() {
    let world = World::new();
    for (name, token, reason) in costing_nothing(&world) {
        let (verdict, checks) = checks::during(|| world.reason(&token));
        assert_eq!((verdict, checks), (Err(reason), 0), "{name}");
    }

    let good = world.with(&json!({}));
    let (input, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{input}.{}", BASE64URL.encode([1; 64]));
    for (name, token) in [
        ("good", good.clone()),
        ("forged", forged),
        ("expired", world.with(&json!({"exp": 1}))),
    ] {
        let (_, checks) = checks::during(|| world.reason(&token));
        assert_eq!(checks, 1, "{name}");
    }
}
