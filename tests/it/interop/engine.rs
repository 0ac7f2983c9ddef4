//! An engine in Python at our DPM.

use std::net::SocketAddr;
use std::sync::Arc;

use countersign::dpm::{Dpm, Options};
use countersign::engine::EngineId;
use countersign::grpc::{Drained, Module};
use countersign::registry::EngineRegistry;
use countersign::registry::store::MemoryStore;
use countersign::testing;
use countersign::trust::OwnDeployment;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::peer::GRPCIO;

const ENGINE_ID: &str = "0b5f2c1e-8f0a-4b7e-9a55-3d1c7e2f4a60";

#[tokio::test(flavor = "multi_thread")]
async fn python_engine_registers_and_knows_who_answers() {
    if !GRPCIO.is_there() {
        return;
    }
    let theirs = testing::own_deployment("dpe", "dpe-dev");
    let dpm = RunningDpm::start(super::module_that_trusts(&theirs)).await;
    let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = engine.local_addr().unwrap().port();

    let mut answer = register(&dpm, &theirs, port).await;

    assert_eq!(answer["token_expires_at"], answer["told_expiry"]);
    let seen = answer["seen"].as_object_mut().unwrap();
    assert!(seen.remove("serverTime").is_some() && seen.remove("tokenExpiresAt").is_some());
    let identity = json!({ "module": "dpe", "id": "dpe-dev", "roles": ["IMPERSONATION"] });
    let own = dpm.module.own();
    let expected = json!({
        "identity": identity, "fingerprint": theirs.key_id.as_str(),
        "calleeDeployment": "dpm-dev", "calleeFingerprint": own.key_id.as_str(),
    });
    assert_eq!(answer["seen"], expected);
    let kid = own.key_id.as_str();
    let expected = json!({
        "header": { "alg": "ES256", "typ": "countersign-proof+jwt", "kid": kid },
        "covers_token": true, "nonce": answer["nonce"], "lives_for": 30,
        "method": "/countersign.identity.v1.IdentityService/WhoAmI",
    });
    assert_eq!(answer["proof"], expected);
    assert_eq!(answer["listed"], json!([ENGINE_ID]));
    let registered = &answer["registered"];
    assert_eq!(registered["id"], ENGINE_ID);
    assert_eq!(
        registered["address"],
        json!({ "hostname": "127.0.0.1", "port": port })
    );
    assert_eq!(
        registered["constraints"],
        json!({ "capabilities": { "python": "3" } })
    );
    assert_eq!(registered["status"], "ENGINE_STATUS_NEW");
    assert_eq!(registered["fingerprint"], theirs.key_id.as_str());
    let id: EngineId = ENGINE_ID.parse().unwrap();
    let record = dpm.registry.find(id).await.unwrap().unwrap();
    assert_eq!(&*record.owner.deployment, "dpe-dev");
    assert_eq!(dpm.stop().await, Drained::InTime);
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_is_told_why_it_is_refused() {
    if !GRPCIO.is_there() {
        return;
    }
    let theirs = testing::own_deployment("dpe", "dpe-dev");
    let dpm = RunningDpm::start(super::module_that_trusts(&theirs)).await;
    let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();

    let answer = register(&dpm, &theirs, engine.local_addr().unwrap().port()).await;

    let thrice = |reason| json!(vec![["UNAUTHENTICATED", "countersign", reason]; 3]);
    let expected = json!({
        "none": thrice("TOKEN_MISSING"),
        "altered": thrice("SIGNATURE_INVALID"),
        "unpaired": thrice("KEY_UNKNOWN"),
    });
    assert_eq!(answer["refused"], expected);
    assert_eq!(dpm.stop().await, Drained::InTime);
}

/// Has the peer register an engine that advertises `port`, as `theirs`.
async fn register(dpm: &RunningDpm, theirs: &OwnDeployment, port: u16) -> Value {
    let stranger = testing::own_deployment("dpe", "dpe-dev");
    let mut request = minting(theirs);
    let more = json!({
        "dpm": dpm.address.to_string(),
        "dpm_key": dpm.module.own().key.verifying_key().to_spki_pem(),
        "engine_id": ENGINE_ID,
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

struct RunningDpm {
    module: Module,
    address: SocketAddr,
    registry: Arc<EngineRegistry>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Drained>,
    _storage: tempfile::TempDir,
}

impl RunningDpm {
    async fn start(module: Module) -> Self {
        let storage = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options::new(storage.path().to_owned());
        let store = Arc::new(MemoryStore::default());
        let dpm = Dpm::new(module.clone(), listener, store, options).unwrap();
        let (stop, stopped) = oneshot::channel();
        let (address, registry) = (dpm.address(), Arc::clone(dpm.registry()));
        let ended = tokio::spawn(async move {
            let shutdown = async { stopped.await.unwrap() };
            dpm.run(shutdown).await.unwrap()
        });
        Self {
            module,
            address,
            registry,
            stop,
            ended,
            _storage: storage,
        }
    }

    async fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap()
    }
}
