use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::identity::{DeploymentName, ModuleType, Roles};
use crate::jose::{KeyId, SigningKey, compact};
use crate::trust::{Deployment, OwnDeployment, TrustStore, TrustedKey};

struct World {
    clock: Arc<ManualClock>,
    dpe: OwnDeployment,
    signer: ProofSigner,
    verifier: ProofVerifier,
    callee: Deployment,
    nonce: Nonce,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let key = SigningKey::generate().unwrap();
        let key_id = KeyId::new(&key.fingerprint().to_string()).unwrap();
        let dpe = OwnDeployment {
            module: ModuleType::new("dpe").unwrap(),
            name: Some(DeploymentName::new("dpe-dev").unwrap()),
            key,
            key_id,
            accepted: Vec::new(),
        };
        let callee = Deployment {
            name: DeploymentName::new("dpe-dev").unwrap(),
            module: dpe.module.clone(),
            environment: None,
            roles: Roles::default(),
            keys: vec![TrustedKey {
                name: "key".to_owned(),
                key_id: dpe.key_id.clone(),
                key: dpe.key.verifying_key().clone(),
                revoked: false,
            }],
            single_use_tokens: false,
            tls_pins: Vec::new(),
        };
        let ticking = Arc::clone(&clock) as Arc<dyn Clock>;
        Self {
            signer: ProofSigner::new(
                Arc::new(TrustStore::alone(dpe.clone())),
                Arc::clone(&ticking),
            ),
            verifier: ProofVerifier::new(Policy::default(), ticking),
            clock,
            dpe,
            callee,
            nonce: Nonce::generate().unwrap(),
        }
    }

    fn exchange(&self) -> Exchange<'static> {
        Exchange {
            caller: "dpm-dev",
            nonce: self.nonce,
            token: "a.b.c",
            path: "/s/m",
        }
    }

    fn proof(&self, engine: Option<&EngineClaim>) -> String {
        self.signer.sign(&self.exchange(), engine).unwrap()
    }

    fn detail(&self, proof: &str, exchange: &Exchange<'_>, engine: Option<&EngineClaim>) -> String {
        let refused = self.verify(proof, exchange, engine, self.clock.now());
        let refusal = refused.unwrap_err();
        assert_eq!(refusal.reason, Reason::ProofInvalid);
        refusal.detail
    }

    fn verify(
        &self,
        proof: &str,
        exchange: &Exchange<'_>,
        engine: Option<&EngineClaim>,
        sent: SystemTime,
    ) -> Result<SystemTime, Refusal> {
        let expected = ExpectedProof {
            exchange: *exchange,
            callee: &self.callee,
            engine,
            sent,
        };
        let verified = self.verifier.verify(proof, &expected);
        verified.map(|(signed, _)| signed)
    }
}

fn engine(id: &str) -> EngineClaim {
    EngineClaim {
        id: id.to_owned(),
        hostname: "localhost".to_owned(),
        port: 8532,
        instance: None,
    }
}

#[test]
fn proof_of_this_very_call_holds() {
    let world = World::new();

    let proof = world.proof(Some(&engine("e1")));
    let now = world.clock.now();

    let verified = world.verify(&proof, &world.exchange(), None, now);
    assert!(verified.is_ok());
    let engine = engine("e1");
    let verified = world.verify(&proof, &world.exchange(), Some(&engine), now);
    assert!(verified.is_ok());
}

#[test]
fn proof_of_another_call_does_not_hold() {
    let world = World::new();
    let proof = world.proof(None);
    let exchange = world.exchange();
    let rows = [
        (
            Exchange {
                nonce: Nonce::generate().unwrap(),
                ..exchange
            },
            "nonce",
        ),
        (
            Exchange {
                token: "a.b.d",
                ..exchange
            },
            "th",
        ),
        (
            Exchange {
                path: "/s/n",
                ..exchange
            },
            "m",
        ),
        (
            Exchange {
                caller: "dpm-test",
                ..exchange
            },
            "aud",
        ),
    ];
    for (other, claim) in rows {
        let detail = world.detail(&proof, &other, None);
        assert_eq!(detail, format!("its `{claim}` is not this call's"));
    }
}

#[test]
fn proof_names_the_process_that_is_expected_and_any_where_none_is() {
    let world = World::new();
    let process = |instance: Option<&str>| EngineClaim {
        instance: instance.map(str::to_owned),
        ..engine("e1")
    };
    for (expected, found, holds) in [
        (Some("a"), Some("a"), true),
        (Some("a"), Some("b"), false),
        // An older engine names none.
        (Some("a"), None, false),
        (None, Some("b"), true),
        (None, None, true),
    ] {
        let proof = world.proof(Some(&process(found)));
        let (now, expected) = (world.clock.now(), process(expected));

        let verified = world.verify(&proof, &world.exchange(), Some(&expected), now);

        assert_eq!(verified.is_ok(), holds, "{expected:?}, {found:?}");
    }
}

#[test]
fn claim_of_an_older_engine_and_one_with_more_than_is_known_are_read() {
    let old = r#"{"id":"e1","hostname":"localhost","port":8532}"#;
    let newer = r#"{"id":"e1","hostname":"localhost","port":8532,"later":[1]}"#;

    for text in [old, newer] {
        let claim: EngineClaim = serde_json::from_str(text).unwrap();
        assert_eq!(claim, engine("e1"));
    }
    assert_eq!(serde_json::to_string(&engine("e1")).unwrap(), old);
}

#[test]
fn proof_of_another_engine_of_the_same_deployment_does_not_hold() {
    let world = World::new();
    let proof = world.proof(Some(&engine("e1")));

    let detail = world.detail(&proof, &world.exchange(), Some(&engine("e2")));

    assert_eq!(
        detail,
        "engine e1 at localhost:8532 answered, expected engine e2 at localhost:8532"
    );
    let nameless = world.proof(None);
    assert_eq!(
        world.detail(&nameless, &world.exchange(), Some(&engine("e2"))),
        "it names no engine"
    );
}

#[test]
fn proof_by_an_unknown_or_revoked_key_does_not_hold() {
    let mut world = World::new();
    let proof = world.proof(None);
    let stranger = World::new().proof(None);
    assert!(
        world
            .detail(&stranger, &world.exchange(), None)
            .contains("not an active key of `dpe-dev`")
    );

    world.callee.keys[0].revoked = true;

    assert!(
        world
            .detail(&proof, &world.exchange(), None)
            .contains("`dpe-dev` still signs with `")
    );
}

#[test]
fn proof_with_another_clock_says_how_far_it_is_off() {
    let world = World::new();
    let proof = world.proof(None);

    world.clock.advance(Duration::from_secs(31));
    assert_eq!(
        world.detail(&proof, &world.exchange(), None),
        "its clock is 31 s behind this one; check NTP on both hosts"
    );
}

#[test]
fn reply_that_is_late_is_no_wrong_clock() {
    let world = World::new();
    let sent = world.clock.now();
    let proof = world.proof(None);

    world.clock.advance(Duration::from_secs(600));

    let exchange = world.exchange();
    let late = world.verify(&proof, &exchange, None, sent);
    assert_eq!(late.unwrap(), sent);
    // The proof of a callee whose clock is behind was signed before the call was sent.
    let behind = sent + Duration::from_secs(31);
    let refused = world.verify(&proof, &exchange, None, behind);
    let refusal = refused.unwrap_err();
    assert!(refusal.detail.starts_with("its clock is 31 s behind"));
    assert_eq!(refusal.callee_time(), Some(sent));
}

#[test]
fn token_is_no_proof_and_oversized_text_is_not_looked_at() {
    let world = World::new();
    let header = compact::HeaderSpec {
        typ: "JWT",
        kid: &world.dpe.key_id,
    };
    let token = compact::sign(&header, b"{}", &world.dpe.key).unwrap();

    let detail = world.detail(&token, &world.exchange(), None);
    assert_eq!(
        detail,
        "its `typ` is `JWT`, expected `countersign-proof+jwt`"
    );
    let long = "a".repeat(2049);
    assert_eq!(
        world.detail(&long, &world.exchange(), None),
        "it has 2049 bytes, at most 2048"
    );
}
