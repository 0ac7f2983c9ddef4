//! What an operator reads about each rule.

use super::*;

#[test]
fn explain_names_every_rule_that_fails() {
    let world = World::new();
    let role = Role::new("ADMIN").unwrap();
    let token = world
        .with(&json!({"aud": "elsewhere", "iss": "other", "exp": NOW - 100, "iat": NOW - 200}));

    let verdict = world.verifier.explain(&token, Some(&role));

    let failed = verdict
        .checks
        .iter()
        .filter_map(|c| c.refusal().map(|r| r.reason));
    let expected = [
        Reason::TokenExpired,
        Reason::IssuerMismatch,
        Reason::AudienceMismatch,
        Reason::RoleMissing,
    ];
    assert_eq!(failed.collect::<Vec<_>>(), expected);
    assert_eq!(verdict.refusal().unwrap().reason, Reason::TokenExpired);
    assert!(verdict.accepted.is_none());
}

#[test]
fn explain_goes_on_where_the_key_or_the_algorithm_is_unknown() {
    let world = World::new();
    let stranger = SigningKey::generate().unwrap();
    let kid = stranger.fingerprint().to_string();
    let claims = json!({"iss": "x", "sub": "x", "aud": "elsewhere", "iat": 1, "exp": 2});
    let payload = claims.to_string();
    let role = Role::new("IMPERSONATION").unwrap();
    let unknown = json!({"alg": "ES256", "kid": kid});
    let other = json!({"alg": "RS256", "kid": world.dpe.fingerprint().to_string(), "typ": "x"});
    let rows = [
        (
            unknown,
            vec![
                Reason::KeyUnknown,
                Reason::TokenExpired,
                Reason::AudienceMismatch,
            ],
        ),
        (
            other,
            vec![
                Reason::AlgorithmNotAllowed,
                Reason::TokenMalformed,
                Reason::TokenExpired,
                Reason::IssuerMismatch,
                Reason::AudienceMismatch,
            ],
        ),
    ];
    for (header, expected) in rows {
        let token = sign(&header, payload.as_bytes(), &stranger);

        let verdict = world.verifier.explain(&token, Some(&role));

        let failed = verdict.checks.iter().filter_map(Check::refusal);
        assert_eq!(
            failed.map(|refusal| refusal.reason).collect::<Vec<_>>(),
            expected
        );
        let names: Vec<_> = verdict.checks.iter().map(|check| check.name).collect();
        // Nothing is taken once here.
        let rules = RULES.into_iter().filter(|rule| *rule != "replay");
        assert_eq!(names, rules.collect::<Vec<_>>());
        assert!(verdict.accepted.is_none());
    }
    let nothing = world.verifier.explain("nonsense", Some(&role));
    assert_eq!(nothing.refusal().unwrap().reason, Reason::TokenMalformed);
    assert_eq!(nothing.checks.len(), 11);
}

#[test]
fn explain_and_verify_agree() {
    let world = World::new();
    for changes in [
        json!({}),
        json!({"iss": "x"}),
        json!({"aud": "x"}),
        json!({"exp": 1}),
        json!({"exp": "1"}),
        json!({"iat": NOW + 31, "exp": NOW + 40, "iss": "x"}),
    ] {
        let token = world.with(&changes);
        let verdict = world.verifier.explain(&token, None);
        assert_eq!(
            verdict.refusal().map(|r| r.reason),
            world.reason(&token).err(),
            "{changes}"
        );
        assert_eq!(verdict.accepted.is_some(), world.reason(&token).is_ok());
    }
}
