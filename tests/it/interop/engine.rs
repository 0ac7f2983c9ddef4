//! An engine in Python at our DPM.

use countersign::engine::EngineId;
use countersign::testing;
use countersign::trust::OwnDeployment;
use serde_json::{Value, json};

use super::peer::GRPCIO;
use crate::support::world::{Keys, RunningDpm, free_port, fresh_id};

#[tokio::test(flavor = "multi_thread")]
async fn python_engine_registers_and_knows_who_answers() {
    if !GRPCIO.is_there() {
        return;
    }
    let (keys, id) = (Keys::new(), fresh_id());
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let engine = free_port().await;
    let port = engine.local_addr().unwrap().port();

    let mut answer = register(&dpm, &keys, id, port).await;

    assert_eq!(answer["token_expires_at"], answer["reported_expiry"]);
    let seen = answer["seen"].as_object_mut().unwrap();
    assert!(seen.remove("serverTime").is_some() && seen.remove("tokenExpiresAt").is_some());
    let (own_key_id, key_id) = (keys.dpm.key_id.as_str(), keys.dpe.key_id.as_str());
    let expected = json!({
        "identity": { "module": "dpe", "id": "dpe-dev", "roles": ["IMPERSONATION"] },
        "fingerprint": key_id,
        "calleeDeployment": "dpm-dev",
        "calleeFingerprint": own_key_id,
        "trustedKeys": [{
            "deployment": "dpe-dev", "fingerprint": key_id, "computedFingerprint": key_id,
        }],
    });
    assert_eq!(answer["seen"], expected);
    let expected = json!({
        "header": { "alg": "ES256", "typ": "countersign-proof+jwt", "kid": own_key_id },
        "covers_token": true, "nonce": answer["nonce"], "lives_for": 30,
        "method": "/countersign.identity.v1.IdentityService/WhoAmI",
    });
    assert_eq!(answer["proof"], expected);
    assert_eq!(answer["listed"], json!([id.to_string()]));
    let registered = &answer["registered"];
    assert_eq!(registered["id"], id.to_string());
    assert_eq!(
        registered["address"],
        json!({ "hostname": "127.0.0.1", "port": port })
    );
    assert_eq!(
        registered["constraints"],
        json!({ "capabilities": { "python": "3" } })
    );
    assert_eq!(registered["status"], "ENGINE_STATUS_NEW");
    assert_eq!(registered["fingerprint"], key_id);
    let record = dpm.registry.find(id).await.unwrap().unwrap();
    assert_eq!(&*record.owner.deployment, "dpe-dev");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_learns_why_it_is_refused() {
    if !GRPCIO.is_there() {
        return;
    }
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let engine = free_port().await;

    let port = engine.local_addr().unwrap().port();
    let answer = register(&dpm, &keys, fresh_id(), port).await;

    let thrice = |reason| json!(vec![["UNAUTHENTICATED", "countersign", reason]; 3]);
    let expected = json!({
        "none": thrice("TOKEN_MISSING"),
        "altered": thrice("SIGNATURE_INVALID"),
        "unpaired": thrice("KEY_UNKNOWN"),
    });
    assert_eq!(answer["refused"], expected);
}

/// Has the peer register engine `id`, which advertises `port`, as the DPE of `keys`.
async fn register(dpm: &RunningDpm, keys: &Keys, id: EngineId, port: u16) -> Value {
    let stranger = testing::own_deployment("dpe", "dpe-dev");
    let mut request = minting(&keys.dpe);
    let more = json!({
        "dpm": dpm.address.to_string(),
        "dpm_key": keys.dpm.key.verifying_key().to_spki_pem(),
        "engine_id": id.to_string(),
        "port": port,
        "stranger": minting(&stranger),
    });
    let more = more.as_object().unwrap().clone();
    request.as_object_mut().unwrap().extend(more);
    let asking = tokio::task::spawn_blocking(move || GRPCIO.ask("register", &[request]));
    asking.await.unwrap().remove(0)
}

fn minting(own: &OwnDeployment) -> Value {
    let key = json!({ "pem": own.key.to_pkcs8_pem().unwrap().expose() });
    super::minting(&key, &own.key_id, own.issuer(), &json!(["dpm-dev"]))
}
