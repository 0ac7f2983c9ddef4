mod explained;
mod header;
mod own_module;
mod remembered;

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64URL, Engine as _};
use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;
use crate::identity::{DeploymentName, ModuleType};
use crate::jose::{Compact, KeyId, SigningKey, checks};
use crate::token::walk::RULES;
use crate::token::{OWN_MODULE_TYPE, TokenIssuer};
use crate::trust::{Deployment, OwnDeployment, TrustedKey};

const NOW: u64 = 1_800_000_000;

/// A DPM that trusts `dpe-dev` with one active and one revoked key, and `other` with its own.
struct World {
    clock: Arc<ManualClock>,
    dpm: OwnDeployment,
    dpe: OwnDeployment,
    revoked: SigningKey,
    other: SigningKey,
    verifier: TokenVerifier,
}

fn own(module: &str, name: &str) -> OwnDeployment {
    let key = SigningKey::generate().unwrap();
    let key_id = KeyId::new(&key.fingerprint().to_string()).unwrap();
    let name = Some(DeploymentName::new(name).unwrap());
    OwnDeployment {
        module: ModuleType::new(module).unwrap(),
        name,
        key,
        key_id,
        accepted: Vec::new(),
    }
}

fn issuer_as(own: &OwnDeployment, clock: Arc<dyn Clock>) -> TokenIssuer {
    let trust = Arc::new(TrustStore::alone(own.clone()));
    TokenIssuer::new(trust, Policy::default(), clock)
}

fn trusted(key: &SigningKey, revoked: bool) -> TrustedKey {
    let key_id = KeyId::new(&key.fingerprint().to_string()).unwrap();
    let key = key.verifying_key().clone();
    TrustedKey {
        name: "key".to_owned(),
        key_id,
        key,
        revoked,
    }
}

fn deployment(name: &str, role: Option<&str>, keys: Vec<TrustedKey>) -> Deployment {
    Deployment {
        name: DeploymentName::new(name).unwrap(),
        module: ModuleType::new("dpe").unwrap(),
        environment: None,
        roles: role
            .map(|role| Role::new(role).unwrap())
            .into_iter()
            .collect(),
        keys,
        single_use_tokens: false,
        tls_pins: Vec::new(),
    }
}

impl World {
    fn new() -> Self {
        let (dpm, dpe) = (own("dpm", "dpm-dev"), own("dpe", "dpe-dev"));
        let (revoked, other) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let keys = KeySet::new(
            vec![
                deployment(
                    "dpe-dev",
                    Some("IMPERSONATION"),
                    vec![trusted(&dpe.key, false), trusted(&revoked, true)],
                ),
                deployment("other", None, vec![trusted(&other, false)]),
            ],
            dpm.clone(),
        );
        let clock = Arc::new(ManualClock::at_unix(NOW));
        let verifier = TokenVerifier::new(
            Arc::new(TrustStore::new(keys.unwrap())),
            Policy::default(),
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        Self {
            clock,
            dpm,
            dpe,
            revoked,
            other,
            verifier,
        }
    }

    fn kid(&self) -> String {
        self.dpe.fingerprint().to_string()
    }

    fn header(&self) -> Value {
        json!({"alg": "ES256", "typ": "JWT", "kid": self.kid()})
    }

    fn claims(&self) -> Value {
        json!({
            "iss": "dpe-dev", "sub": "dpe-dev", "aud": ["dpm-dev", self.dpm.fingerprint().to_string()],
            "iat": NOW, "exp": NOW + 300, "jti": "one",
        })
    }

    /// A token with `changes` to the good claims; `null` there means the claim is left out.
    fn with(&self, changes: &Value) -> String {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims
                    .as_object_mut()
                    .unwrap()
                    .insert(name.clone(), value.clone()),
            };
        }
        sign(&self.header(), claims.to_string().as_bytes(), &self.dpe.key)
    }

    fn reason(&self, token: &str) -> Result<(), Reason> {
        self.verifier
            .verify(token, Accept::Peers)
            .map(drop)
            .map_err(|refusal| refusal.reason)
    }
}

fn sign(header: &Value, payload: &[u8], key: &SigningKey) -> String {
    let header = BASE64URL.encode(header.to_string());
    let input = format!("{header}.{}", BASE64URL.encode(payload));
    let signature = BASE64URL.encode(key.sign(input.as_bytes()).unwrap());
    format!("{input}.{signature}")
}

#[test]
fn issued_token_is_accepted_as_the_deployment_that_owns_the_key() {
    let world = World::new();
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let issuer = issuer_as(&world.dpe, clock);
    let dpm = deployment("dpm-dev", None, vec![trusted(&world.dpm.key, false)]);

    let token = issuer.issue(&dpm).unwrap();
    let verified = world
        .verifier
        .verify(token.expose(), Accept::Peers)
        .unwrap();

    assert_eq!(
        verified.identity().to_string(),
        "ServiceIdentity(module=dpe, id=dpe-dev, roles=[IMPERSONATION])"
    );
    assert_eq!(verified.key_id().as_str(), world.kid());
    assert_eq!(verified.expires_at(), token.expires_at());
}

#[test]
fn token_of_a_module_without_a_name_carries_its_key_id() {
    let world = World::new();
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let nameless = OwnDeployment {
        name: None,
        ..world.dpe.clone()
    };
    let issuer = issuer_as(&nameless, clock);
    let dpm = deployment("dpm-dev", None, vec![trusted(&world.dpm.key, false)]);

    let verified = world
        .verifier
        .verify(issuer.issue(&dpm).unwrap().expose(), Accept::Peers);

    assert_eq!(verified.unwrap().identity().id(), "dpe-dev");
}

/// Claims that keep the token good.
#[test]
fn claims_at_the_edge_of_the_rules_are_accepted() {
    let world = World::new();
    let own = world.dpm.fingerprint().to_string();
    for changes in [
        json!({}),
        json!({"jti": null}),
        json!({"aud": own}),
        json!({"aud": "dpm-dev"}),
        json!({"aud": ["a", "b", "c", "d", "e", "f", "g", own]}),
        json!({"iss": world.kid(), "sub": world.kid()}),
        json!({"exp": 1_800_000_299.5, "iat": 1_799_999_999.5}),
        json!({"iat": NOW - 320, "exp": NOW - 29}),
        json!({"iat": NOW + 30}),
        json!({"nbf": NOW + 30}),
        json!({"iat": NOW, "exp": NOW + 900}),
        json!({"roles": ["ADMIN"], "azp": "x", "\u{fc}": 1}),
    ] {
        assert_eq!(world.reason(&world.with(&changes)), Ok(()), "{changes}");
    }
}

#[test]
fn claims_of_the_wrong_form_are_malformed() {
    let world = World::new();
    let nine: Vec<_> = (0..9).map(|n| n.to_string()).collect();
    let mut rows = vec![
        json!({"aud": [1]}),
        json!({"aud": [["dpm-dev"]]}),
        json!({"aud": ["dpm-dev", 1]}),
        json!({"aud": nine}),
        json!({"aud": {"0": "dpm-dev"}}),
        json!({"nbf": "99999999999"}),
        json!({"nbf": true}),
        json!({"jti": 1}),
        json!({"jti": {}}),
        json!({"jti": "x".repeat(129)}),
    ];
    for name in ["iss", "sub", "aud", "iat", "exp"] {
        rows.push(json!({name: null}));
        rows.push(json!({name: true}));
        rows.push(json!({name: {}}));
    }
    for name in ["iss", "sub"] {
        rows.push(json!({name: 1}));
        rows.push(json!({name: ["dpe-dev"]}));
    }
    for name in ["iat", "exp"] {
        rows.push(json!({name: "1800000300"}));
        rows.push(json!({name: [NOW]}));
    }
    for changes in rows {
        let reason = world.reason(&world.with(&changes));
        assert_eq!(reason, Err(Reason::TokenMalformed), "{changes}");
    }
}

#[test]
fn payload_that_is_no_clean_json_object_is_malformed() {
    let world = World::new();
    let good = world.claims().to_string();
    let aud = world.dpm.fingerprint().to_string();
    let twice = |extra: &str| good.replacen('{', &format!("{{{extra},"), 1);
    let rows: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"text".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        format!("{good} {good}").into_bytes(),
        format!("{good}\0").into_bytes(),
        format!("\u{feff}{good}").into_bytes(),
        good.replace('"', "'").into_bytes(),
        good.replacen('"', "", 1).into_bytes(),
        [good.as_bytes(), b"\xff"].concat(),
        twice(r#""exp":1800000900"#).into_bytes(),
        twice(r#""iss":"other""#).into_bytes(),
        twice(&format!(r#""aud":"{aud}""#)).into_bytes(),
        twice(r#""x":{"a":1,"a":2}"#).into_bytes(),
        twice(&format!(r#""x":{}{}"#, "[".repeat(2000), "]".repeat(2000))).into_bytes(),
        good.replace("1800000300", "1e400").into_bytes(),
        good.replace("1800000300", "NaN").into_bytes(),
        good.replace("1800000300", "0x6b49d200").into_bytes(),
        good.replace("1800000300", "01800000300").into_bytes(),
    ];
    for payload in rows {
        let token = sign(&world.header(), &payload, &world.dpe.key);
        let shown = String::from_utf8_lossy(&payload).into_owned();
        assert_eq!(world.reason(&token), Err(Reason::TokenMalformed), "{shown}");
    }
}

#[test]
fn times_outside_the_leeway_are_refused_by_name() {
    let world = World::new();
    let rows = [
        (
            json!({"iat": NOW - 400, "exp": NOW - 30}),
            Reason::TokenExpired,
        ),
        (json!({"iat": NOW, "exp": NOW}), Reason::TokenExpired),
        (json!({"exp": 0}), Reason::TokenExpired),
        (json!({"exp": -1}), Reason::TokenExpired),
        (json!({"exp": -1e300}), Reason::TokenExpired),
        (json!({"iat": NOW + 31}), Reason::TokenNotYetValid),
        (
            json!({"iat": NOW + 31, "exp": NOW + 331}),
            Reason::TokenNotYetValid,
        ),
        (json!({"nbf": NOW + 31}), Reason::TokenNotYetValid),
        (json!({"nbf": 1e308}), Reason::TokenNotYetValid),
        (json!({"exp": NOW + 901}), Reason::TokenLifetimeTooLong),
        (json!({"exp": NOW * 1000}), Reason::TokenLifetimeTooLong),
        (json!({"exp": 1e308}), Reason::TokenLifetimeTooLong),
        (json!({"exp": u64::MAX}), Reason::TokenLifetimeTooLong),
        (json!({"iat": 0}), Reason::TokenLifetimeTooLong),
    ];
    for (changes, reason) in rows {
        assert_eq!(
            world.reason(&world.with(&changes)),
            Err(reason),
            "{changes}"
        );
    }
}

#[test]
fn accepted_token_is_refused_once_it_expired() {
    let world = World::new();
    let token = world.with(&json!({}));
    assert_eq!(world.reason(&token), Ok(()));

    world.clock.advance(Duration::from_secs(329));
    assert_eq!(world.reason(&token), Ok(()));
    world.clock.advance(Duration::from_secs(1));

    assert_eq!(world.reason(&token), Err(Reason::TokenExpired));
}

#[test]
fn issuer_that_does_not_own_the_key_is_refused() {
    let world = World::new();
    let kid = world.kid();
    for (iss, sub) in [
        ("other", "other"),
        ("dpe-dev", "other"),
        ("other", "dpe-dev"),
        ("dpe-dev", kid.as_str()),
        (kid.as_str(), "dpe-dev"),
        ("", ""),
        ("DPE-DEV", "DPE-DEV"),
        (" dpe-dev", " dpe-dev"),
        ("dpe-dev\n", "dpe-dev\n"),
        ("dpe\u{2010}dev", "dpe\u{2010}dev"),
        ("*", "*"),
    ] {
        let token = world.with(&json!({"iss": iss, "sub": sub}));
        assert_eq!(
            world.reason(&token),
            Err(Reason::IssuerMismatch),
            "{iss:?} {sub:?}"
        );
    }
}

#[test]
fn audience_that_is_not_this_module_is_refused() {
    let world = World::new();
    let dpe = world.kid();
    for aud in [
        json!([]),
        json!(""),
        json!("dpm"),
        json!("DPM-DEV"),
        json!("dpm-dev/"),
        json!("https://dpm-dev"),
        json!("dpm-dev,other"),
        json!("*"),
        json!("dpe-dev"),
        json!(["dpe-dev", "other"]),
        json!(["dpm-dev", dpe]),
        json!(world.dpm.fingerprint().to_string().to_lowercase()),
    ] {
        let token = world.with(&json!({"aud": aud}));
        assert_eq!(world.reason(&token), Err(Reason::AudienceMismatch), "{aud}");
    }
}

#[test]
fn revoked_key_is_reported_only_to_its_holder() {
    let world = World::new();
    let header = json!({"alg": "ES256", "kid": world.revoked.fingerprint().to_string()});
    let claims = world.claims().to_string();

    let held = sign(&header, claims.as_bytes(), &world.revoked);
    let guessed = sign(&header, claims.as_bytes(), &world.other);

    assert_eq!(world.reason(&held), Err(Reason::KeyRevoked));
    assert_eq!(world.reason(&guessed), Err(Reason::SignatureInvalid));
}
