//! Tokens, keys and calls shared with other people's software.
//!
//! A peer that is not installed skips its tests, unless `COUNTERSIGN_REQUIRE_PEERS` is set.

use std::sync::Arc;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use countersign::Module;
use countersign::clock::ManualClock;
use countersign::jose::{KeyId, KeyMaterial, PrivateJwk, PublicJwk, SigningKey};
use countersign::testing;
use countersign::token::{Accept, Reason};
use countersign::trust::OwnDeployment;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::world;
use peer::{JOSE, OPENSSL, PYJWT, Peer};

#[path = "interop/differential.rs"]
mod differential;
#[path = "interop/engine.rs"]
mod engine;
#[path = "interop/jsonwebtoken_decode.rs"]
mod jsonwebtoken_decode;
#[path = "interop/peer.rs"]
pub(crate) mod peer;

#[test]
fn tokens_minted_by_pyjwt_are_accepted() {
    if PYJWT.is_there() {
        accepts_tokens_of(&PYJWT);
    }
}

#[test]
fn tokens_minted_by_jose_are_accepted() {
    if JOSE.is_there() {
        accepts_tokens_of(&JOSE);
    }
}

#[test]
fn openssl_keys_sign_for_pyjwt() {
    if PYJWT.is_there() && OPENSSL.is_there() {
        accepts_openssl_keys_of(&PYJWT);
    }
}

#[test]
fn openssl_keys_sign_for_jose() {
    if JOSE.is_there() && OPENSSL.is_there() {
        accepts_openssl_keys_of(&JOSE);
    }
}

#[test]
fn keys_made_by_pyca_sign_for_pyjwt() {
    if PYJWT.is_there() {
        accepts_a_key_made_by(&PYJWT);
    }
}

#[test]
fn keys_made_by_jose_sign_for_jose() {
    if JOSE.is_there() {
        accepts_a_key_made_by(&JOSE);
    }
}

#[test]
fn wrong_tokens_of_pyjwt_are_refused() {
    if PYJWT.is_there() {
        refuses_wrong_tokens_of(&PYJWT);
    }
}

#[test]
fn wrong_tokens_of_jose_are_refused() {
    if JOSE.is_there() {
        refuses_wrong_tokens_of(&JOSE);
    }
}

#[test]
fn our_tokens_are_verified_by_pyjwt() {
    if PYJWT.is_there() {
        has_our_tokens_verified_by(&PYJWT);
    }
}

#[test]
fn our_tokens_are_verified_by_jose() {
    if JOSE.is_there() {
        has_our_tokens_verified_by(&JOSE);
    }
}

#[test]
fn pyjwt_refuses_what_is_wrong_with_our_tokens() {
    if PYJWT.is_there() {
        let why = Refusals {
            altered: "InvalidSignatureError",
            audience: "InvalidAudienceError",
            issuer: "InvalidIssuerError",
            expired: "ExpiredSignatureError",
        };
        sees_wrong_tokens_refused_by(&PYJWT, &why);
    }
}

#[test]
fn jose_refuses_what_is_wrong_with_our_tokens() {
    if JOSE.is_there() {
        let why = Refusals {
            altered: "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
            audience: "ERR_JWT_CLAIM_VALIDATION_FAILED aud",
            issuer: "ERR_JWT_CLAIM_VALIDATION_FAILED iss",
            expired: "ERR_JWT_EXPIRED exp",
        };
        sees_wrong_tokens_refused_by(&JOSE, &why);
    }
}

#[test]
fn pyca_computes_our_fingerprint() {
    if PYJWT.is_there() {
        let key = SigningKey::generate().unwrap();

        let named = PYJWT.ask("name", &naming(&key));

        let fingerprint = key.fingerprint().to_string();
        assert_eq!(named, vec![json!({ "fingerprint": fingerprint }); 2]);
    }
}

#[test]
fn jose_computes_our_fingerprint_and_thumbprint() {
    if JOSE.is_there() {
        let key = SigningKey::generate().unwrap();

        let named = JOSE.ask("name", &naming(&key));

        let fingerprint = key.fingerprint().to_string();
        let thumbprint = key.verifying_key().thumbprint();
        let ours = json!({ "fingerprint": fingerprint, "thumbprint": thumbprint });
        assert_eq!(named, vec![ours; 2]);
    }
}

fn accepts_tokens_of(peer: &Peer) {
    let key = SigningKey::generate().unwrap();
    let jwk = PrivateJwk::write(&key, &key_id(&key));
    let jwk: Value = serde_json::from_str(jwk.expose()).unwrap();
    let forms = [
        json!({ "pem": key.to_pkcs8_pem().unwrap().expose() }),
        json!({ "pem": key.to_sec1_pem().unwrap().expose() }),
        json!({ "jwk": jwk }),
    ];

    let keys = forms.map(|form| (key.clone(), form));

    accepts_tokens_signed_with(peer, &keys);
}

fn accepts_openssl_keys_of(peer: &Peer) {
    let commands = [
        "ecparam -name prime256v1 -genkey -noout",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    ];

    let keys = commands.map(|command| {
        let pem = OPENSSL.print(command);
        (read(&pem), json!({ "pem": pem }))
    });

    accepts_tokens_signed_with(peer, &keys);
}

fn accepts_a_key_made_by(peer: &Peer) {
    let form = peer.ask("generate", &[json!({})])[0]["key"].take();

    let key = match form["pem"].as_str() {
        Some(pem) => read(pem),
        None => read(&form["jwk"].to_string()),
    };

    accepts_tokens_signed_with(peer, &[(key, form)]);
}

/// Has `peer` mint with each key, which it gets in the form beside it.
fn accepts_tokens_signed_with(peer: &Peer, keys: &[(SigningKey, Value)]) {
    let (mut cases, mut requests) = (Vec::new(), Vec::new());
    for (key, form) in keys {
        let theirs = own("dpe", "dpe-dev", key);
        let ours = module_that_trusts(&theirs);
        let hash = ours.own().fingerprint().to_string();
        for audience in [json!("dpm-dev"), json!(["dpm-dev", hash]), json!([hash])] {
            for issuer in ["dpe-dev", theirs.key_id.as_str()] {
                requests.push(minting(form, &theirs.key_id, issuer, &audience));
                cases.push((ours.clone(), theirs.key_id.clone(), issuer.to_owned()));
            }
        }
    }

    let tokens = mint(peer, &requests);

    assert_eq!(tokens.len(), cases.len());
    for (token, (ours, key_id, issuer)) in tokens.iter().zip(cases) {
        let verified = ours.verifier().verify(token, Accept::Peers).unwrap();
        assert_eq!(
            verified.identity().to_string(),
            "ServiceIdentity(module=dpe, id=dpe-dev, roles=[IMPERSONATION])"
        );
        assert_eq!(*verified.key_id(), key_id);
        assert_eq!(verified.issuer(), issuer);
    }
}

fn refuses_wrong_tokens_of(peer: &Peer) {
    let theirs = testing::own_deployment("dpe", "dpe-dev");
    let ours = module_that_trusts(&theirs);
    let paired = json!({ "pem": theirs.key.to_pkcs8_pem().unwrap().expose() });
    let stranger = SigningKey::generate().unwrap();
    let strange = json!({ "pem": stranger.to_pkcs8_pem().unwrap().expose() });
    let (kid, strange_kid) = (&theirs.key_id, &key_id(&stranger));
    let (right, wrong) = (json!("dpm-dev"), json!(["dpm", "dpe-dev"]));
    let cases = [
        (
            minting(&strange, strange_kid, "dpe-dev", &right),
            Reason::KeyUnknown,
        ),
        (
            minting(&strange, kid, "dpe-dev", &right),
            Reason::SignatureInvalid,
        ),
        (
            minting(&paired, kid, "dpm-dev", &right),
            Reason::IssuerMismatch,
        ),
        (
            minting(&paired, kid, "dpe-dev", &wrong),
            Reason::AudienceMismatch,
        ),
    ];
    let (requests, mut reasons): (Vec<_>, Vec<_>) = cases.into_iter().unzip();

    let mut tokens = mint(peer, &requests);
    let unsigned = peer.ask("mint_unsigned", &requests[..1])[0]["token"].take();
    tokens.push(unsigned.as_str().unwrap().to_owned());
    reasons.push(Reason::AlgorithmNotAllowed);

    assert_eq!(tokens.len(), reasons.len());
    for (token, reason) in tokens.iter().zip(reasons) {
        let refusal = ours.verifier().verify(token, Accept::Peers).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
    }
}

fn has_our_tokens_verified_by(peer: &Peer) {
    let theirs = testing::own_deployment("dpe", "dpe-dev");
    let ours = module_that_trusts(&theirs);
    let token = ours.issuer().issue(&testing::trusted(&theirs)).unwrap();
    let hash = theirs.fingerprint().to_string();
    let token = token.expose();
    let requests = public_forms(&ours.own().key).into_iter().flat_map(|key| {
        ["dpe-dev", &hash].map(|audience| verifying(&key, token, "dpm-dev", audience))
    });

    let verified = peer.ask("verify", &requests.collect::<Vec<_>>());

    assert_eq!(verified.len(), 4);
    for answer in verified {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": ours.own().key_id.as_str() });
        assert_eq!(answer["header"], header);
        let claims = &answer["claims"];
        assert_eq!(claims["iss"], "dpm-dev");
        assert_eq!(claims["sub"], "dpm-dev");
        assert_eq!(claims["aud"], json!(["dpe-dev", hash]));
        let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        assert_eq!(lifetime, 300);
        assert!(claims["jti"].as_str().unwrap().parse::<Uuid>().is_ok());
    }
}

/// In a peer's words, what is wrong with a token.
struct Refusals {
    altered: &'static str,
    audience: &'static str,
    issuer: &'static str,
    expired: &'static str,
}

fn sees_wrong_tokens_refused_by(peer: &Peer, why: &Refusals) {
    let theirs = testing::own_deployment("dpe", "dpe-dev");
    let callee = testing::trusted(&theirs);
    let ours = module_that_trusts(&theirs);
    let good = ours.issuer().issue(&callee).unwrap();
    let long_ago = Module::builder(ours.own())
        .clock(Arc::new(ManualClock::at_unix(1_700_000_000)))
        .build()
        .unwrap();
    let expired = long_ago.issuer().issue(&callee).unwrap();
    let altered = with_claim(good.expose(), "iss", &json!("root"));
    let cases = [
        (altered.as_str(), "root", "dpe-dev", why.altered),
        (good.expose(), "dpm-dev", "dpe-prod", why.audience),
        (good.expose(), "dpm-prod", "dpe-dev", why.issuer),
        (expired.expose(), "dpm-dev", "dpe-dev", why.expired),
    ];

    for key in public_forms(&ours.own().key) {
        let requests =
            cases.map(|(token, issuer, audience, _why)| verifying(&key, token, issuer, audience));

        let answers = peer.ask("verify", &requests);

        assert_eq!(answers, cases.map(|(.., why)| json!({ "refused": why })));
    }
}

/// A module `dpm-dev` on the machine's clock, which peers go by too.
fn module_that_trusts(theirs: &OwnDeployment) -> Module {
    world::module(&testing::own_deployment("dpm", "dpm-dev"), &[theirs])
}

fn own(module: &str, name: &str, key: &SigningKey) -> OwnDeployment {
    let mut own = testing::own_deployment(module, name);
    own.key = key.clone();
    own.key_id = key_id(key);
    own
}

fn key_id(key: &SigningKey) -> KeyId {
    KeyId::new(&key.fingerprint().to_string()).unwrap()
}

fn read(text: &str) -> SigningKey {
    match KeyMaterial::read(text.as_bytes()).unwrap().0 {
        KeyMaterial::Private(key, _kid) => key,
        other => panic!("not a private key: {other:?}"),
    }
}

/// The public half of `key` in each form that we write.
fn public_forms(key: &SigningKey) -> [Value; 2] {
    let (public, key_id) = (key.verifying_key(), key_id(key));
    let jwk: Value = serde_json::from_str(&PublicJwk::write(public, &key_id)).unwrap();
    [
        json!({ "pem": public.to_spki_pem() }),
        json!({ "jwk": jwk }),
    ]
}

/// What to ask of a peer's `name`.
fn naming(key: &SigningKey) -> [Value; 2] {
    public_forms(key).map(|key| json!({ "key": key }))
}

/// What to ask of a peer's `mint`.
fn minting(key: &Value, kid: &KeyId, issuer: &str, audience: &Value) -> Value {
    json!({ "key": key, "kid": kid.as_str(), "issuer": issuer, "audience": audience })
}

/// What to ask of a peer's `verify`.
fn verifying(key: &Value, token: &str, issuer: &str, audience: &str) -> Value {
    json!({ "key": key, "token": token, "issuer": issuer, "audience": audience })
}

fn mint(peer: &Peer, requests: &[Value]) -> Vec<String> {
    let answers = peer.ask("mint", requests).into_iter();
    let tokens = answers.map(|answer| answer["token"].as_str().unwrap().to_owned());
    tokens.collect()
}

/// Puts another claim into `token` and keeps its signature.
fn with_claim(token: &str, claim: &str, value: &Value) -> String {
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap();
    let mut claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_ne!(claims[claim], *value);
    claims[claim] = value.clone();
    let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("{header}.{payload}.{signature}")
}
