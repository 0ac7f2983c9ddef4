//! A second opinion in Rust: `jsonwebtoken::decode`, as a service without countersign calls it.

use countersign::Module;
use countersign::clock::{Clock as _, SystemClock};
use countersign::jose::PublicJwk;
use countersign::jose::compact::{self, HeaderSpec};
use countersign::testing;
use countersign::token::{Accept, Reason};
use countersign::trust::OwnDeployment;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation};
use serde_json::{Value, json};

#[test]
fn jsonwebtoken_accepts_our_tokens() {
    let (ours, theirs) = pair();
    let token = ours.issuer().issue(&testing::trusted(&theirs)).unwrap();

    let decoded = decode(token.expose(), &ours.own(), &theirs).unwrap();

    assert_eq!(decoded.header.typ.as_deref(), Some("JWT"));
    assert_eq!(
        decoded.header.kid.as_deref(),
        Some(ours.own().key_id.as_str())
    );
    assert_eq!(decoded.claims["sub"], "dpm-dev");
    assert_eq!(
        decoded.claims["aud"],
        json!(["dpe-dev", theirs.fingerprint().to_string()])
    );
}

#[test]
fn jsonwebtoken_refuses_an_altered_token_of_ours() {
    let (ours, theirs) = pair();
    let token = ours.issuer().issue(&testing::trusted(&theirs)).unwrap();
    let altered = super::with_claim(token.expose(), "sub", &json!("root"));

    let refused = decode(&altered, &ours.own(), &theirs).unwrap_err();

    assert_eq!(*refused.kind(), ErrorKind::InvalidSignature);
}

#[test]
fn jsonwebtoken_accepts_whatever_we_accept() {
    let (ours, theirs) = pair();
    let (hash, kid) = (
        ours.own().fingerprint().to_string(),
        theirs.key_id.to_string(),
    );
    let now = now();
    let good = json!({
        "iss": "dpe-dev", "sub": "dpe-dev", "aud": hash, "iat": now, "exp": now + 300.0,
    });
    let accepted = [
        json!({}),
        json!({ "aud": "dpm-dev" }),
        json!({ "aud": ["another", hash] }),
        json!({ "iss": kid, "sub": kid }),
        json!({ "iat": now + 0.25, "exp": now + 299.75 }),
        json!({ "iat": now - 320.0, "exp": now - 20.0 }),
        json!({ "iat": now + 20.0, "nbf": now + 20.0 }),
        json!({ "exp": now + 900.0 }),
        json!({ "jti": "x".repeat(128), "roles": ["ADMIN"], "deep": { "iss": "root" } }),
    ];
    for changes in accepted {
        let token = sign(&with(&good, &changes), &theirs);

        let verified = ours.verifier().verify(&token, Accept::Peers);

        assert!(verified.is_ok(), "{changes}: {verified:?}");
        let decoded = decode(&token, &theirs, &ours.own());
        assert!(decoded.is_ok(), "{changes}: {decoded:?}");
    }
}

#[test]
fn both_refuse_a_token_for_the_same_reason() {
    let (ours, theirs) = pair();
    let now = now();
    let good = json!({
        "iss": "dpe-dev", "sub": "dpe-dev", "aud": "dpm-dev", "iat": now, "exp": now + 300.0,
    });
    let expired = json!({ "iat": now - 340.0, "exp": now - 40.0 });
    let early = json!({ "nbf": now + 60.0 });
    let refused = [
        (expired, Reason::TokenExpired, ErrorKind::ExpiredSignature),
        (
            early,
            Reason::TokenNotYetValid,
            ErrorKind::ImmatureSignature,
        ),
        (
            json!({ "iss": "root" }),
            Reason::IssuerMismatch,
            ErrorKind::InvalidIssuer,
        ),
        (
            json!({ "aud": "root" }),
            Reason::AudienceMismatch,
            ErrorKind::InvalidAudience,
        ),
        (
            json!({ "aud": [] }),
            Reason::AudienceMismatch,
            ErrorKind::InvalidAudience,
        ),
    ];
    for (changes, reason, kind) in refused {
        let token = sign(&with(&good, &changes), &theirs);

        let refusal = ours.verifier().verify(&token, Accept::Peers).unwrap_err();

        assert_eq!(refusal.reason, reason, "{changes}");
        let error = decode(&token, &theirs, &ours.own()).unwrap_err();
        assert_eq!(*error.kind(), kind, "{changes}");
    }
}

/// `dpm-dev`, and the `dpe-dev` that it trusts.
fn pair() -> (Module, OwnDeployment) {
    let theirs = testing::own_deployment("dpe", "dpe-dev");
    (super::module_that_trusts(&theirs), theirs)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the stranger that these tests compare with"
)]
fn decode(
    token: &str,
    issuer: &OwnDeployment,
    callee: &OwnDeployment,
) -> jsonwebtoken::errors::Result<TokenData<Value>> {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.leeway = 30;
    validation.validate_nbf = true;
    validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    validation.set_issuer(&[
        issuer.name.as_ref().unwrap().as_str(),
        issuer.key_id.as_str(),
    ]);
    let names = [
        callee.name.as_ref().unwrap().to_string(),
        callee.fingerprint().to_string(),
    ];
    validation.set_audience(&names);
    jsonwebtoken::decode(token, &decoding_key(issuer), &validation)
}

fn decoding_key(own: &OwnDeployment) -> DecodingKey {
    let jwk = PublicJwk::write(own.key.verifying_key(), &own.key_id);
    DecodingKey::from_jwk(&serde_json::from_str(&jwk).unwrap()).unwrap()
}

fn sign(claims: &Value, own: &OwnDeployment) -> String {
    let header = HeaderSpec {
        typ: "JWT",
        kid: &own.key_id,
    };
    compact::sign(&header, claims.to_string().as_bytes(), &own.key).unwrap()
}

fn with(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.clone();
    let changes = changes.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(changes);
    claims
}

/// Whole seconds since 1970.
fn now() -> f64 {
    let since = SystemClock
        .now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    since.as_secs_f64().floor()
}
