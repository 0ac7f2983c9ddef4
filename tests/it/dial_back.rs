//! READY means that the owner's key answered for this very engine.

use std::sync::Mutex;
use std::time::Duration;

use countersign::engine::{EngineId, EngineStatus};
use countersign::grpc::{ConnectionOptions, PROOF};
use countersign::identity::Roles;
use countersign::jose::KeyId;
use countersign::testing::{own_deployment, trusted};
use countersign::{Module, Reason, grpc};
use http::HeaderValue;

use crate::support::impostor::Impostor;
use crate::support::logs::Logs;
use crate::support::middlebox::Middlebox;
use crate::support::relay::Relay;
use crate::support::world::{
    Keys, RunningDpe, RunningDpm, free_port, fresh_id, monitor, now_trusts, registration_of,
};

/// Returns the parts of the line that says why `id` is not READY.
fn not_ready(id: EngineId, why: &[&str]) -> Vec<String> {
    let line = ["engineCheckFailed", &id.to_string()].map(str::to_owned);
    line.into_iter()
        .chain(why.iter().map(|&part| part.to_owned()))
        .collect()
}

#[tokio::test]
async fn engine_becomes_ready_by_a_proved_dial_back() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);

    let engine = dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    assert_eq!(&*engine.owner.deployment, "dpe-dev");
    assert_eq!(&*engine.owner.fingerprint, keys.dpe.key_id.as_str());
    assert_eq!(engine.status_reason, None);
    assert_eq!(engine.address.port(), dpe.address.port());
    dpe.stop().await;
}

#[tokio::test]
async fn engine_that_knows_the_dpms_key_by_another_name_stays_new_and_says_so() {
    let keys = Keys::new();
    let mut renamed = keys.dpm.clone();
    renamed.key_id = KeyId::new("a-name-of-its-own").unwrap();
    let dpm_module = Module::builder(renamed)
        .trust(trusted(&keys.dpe))
        .build()
        .unwrap();
    let dpm = RunningDpm::start(dpm_module).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);

    let reason = dpm.reason(dpe.id, "KEY_UNKNOWN").await;

    for part in [
        "the engine refused our token: KEY_UNKNOWN",
        "`dpe-dev` does not trust key a-name-of-its-own",
        "in its home folder: countersign doctor --home .",
        "unproved",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    dpm.engine_is(dpe.id, EngineStatus::New).await;
    dpe.stop().await;
}

#[tokio::test]
async fn engine_that_gives_the_dpm_no_role_stays_new_and_says_so() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut without_role = trusted(&keys.dpm);
    without_role.roles = Roles::default();
    let dpe_module = Module::builder(keys.dpe.clone())
        .trust(without_role)
        .build()
        .unwrap();
    let dpe = RunningDpe::start(dpe_module, dpm.address);

    let reason = dpm.reason(dpe.id, "ROLE_MISSING").await;

    assert!(
        reason.contains("`dpe-dev` gives this module no impersonation role"),
        "{reason}"
    );
    let setting = "deployments.dpm-dev.security.roles[0]=IMPERSONATION";
    assert!(reason.contains(setting), "{reason}");
    dpm.engine_is(dpe.id, EngineStatus::New).await;
    dpe.stop().await;
}

#[tokio::test]
async fn address_of_another_engine_of_the_deployment_is_not_proved() {
    let mut logs = Logs::start();
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let other = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(other.id, EngineStatus::Ready).await;
    let id = fresh_id();

    let mut client = dpm.client(&keys.dpe_module()).await;
    client
        .register_engine(registration_of(id, other.address))
        .await
        .unwrap();
    let reason = dpm.reason(id, "PROOF_INVALID").await;

    assert!(
        reason.contains("did not prove to be this engine"),
        "{reason}"
    );
    assert!(
        reason.contains(&format!("engine {} at", other.id)),
        "{reason}"
    );
    dpm.engine_is(id, EngineStatus::New).await;
    let answered = format!("engine {} at ", other.id);
    logs.line(&not_ready(id, &["PROOF_INVALID", &answered]))
        .await;
    other.stop().await;
}

#[tokio::test]
async fn proof_by_another_key_is_not_believed() {
    let mut logs = Logs::start();
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let id = fresh_id();
    let forger = own_deployment("dpe", "dpe-dev");
    let (address, _task) = Impostor::serve(&id.to_string(), Some(forger.clone())).await;

    let mut client = dpm.client(&keys.dpe_module()).await;
    client
        .register_engine(registration_of(id, address))
        .await
        .unwrap();
    let reason = dpm.reason(id, "PROOF_INVALID").await;

    let signed_by = format!("signed by `{}`, which is not an active key", forger.key_id);
    assert!(reason.contains(&signed_by), "{reason}");
    assert!(reason.contains(keys.dpe.key_id.as_str()), "{reason}");
    dpm.engine_is(id, EngineStatus::New).await;
    let by = forger.key_id.as_str();
    logs.line(&not_ready(
        id,
        &["PROOF_INVALID", "not an active key of `dpe-dev`", by],
    ))
    .await;
}

#[tokio::test]
async fn proof_under_a_stolen_key_name_is_not_believed() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let id = fresh_id();
    let mut forger = own_deployment("dpe", "dpe-dev");
    forger.key_id = keys.dpe.key_id.clone();
    let (address, _task) = Impostor::serve(&id.to_string(), Some(forger)).await;

    let mut client = dpm.client(&keys.dpe_module()).await;
    client
        .register_engine(registration_of(id, address))
        .await
        .unwrap();
    let reason = dpm.reason(id, "PROOF_INVALID").await;

    assert!(reason.contains("does not verify"), "{reason}");
    dpm.engine_is(id, EngineStatus::New).await;
}

#[tokio::test]
async fn answer_without_a_proof_makes_no_engine_ready() {
    let mut logs = Logs::start();
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let id = fresh_id();
    let (address, _task) = Impostor::serve(&id.to_string(), None).await;

    let mut client = dpm.client(&keys.dpe_module()).await;
    client
        .register_engine(registration_of(id, address))
        .await
        .unwrap();

    dpm.reason(id, "PROOF_MISSING").await;
    dpm.engine_is(id, EngineStatus::New).await;
    logs.line(&not_ready(
        id,
        &["PROOF_MISSING", "has no `countersign-proof`"],
    ))
    .await;
}

#[tokio::test]
async fn replayed_proof_makes_no_engine_ready() {
    let mut logs = Logs::start();
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let proxy = Relay::start().await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_behind(keys.dpe_module(), dpm.address, home.path(), &proxy);
    // Keeps the engine's first proof, which would hold, and answers with it from then on.
    let first: Mutex<Option<HeaderValue>> = Mutex::default();
    let middlebox = Middlebox::before(dpe.address, move |_, reply| {
        let mut first = first.lock().unwrap();
        let fresh = reply.headers_mut().remove(PROOF);
        if let Some(first) = &*first {
            reply.headers_mut().insert(PROOF, first.clone());
        } else {
            *first = fresh;
        }
    })
    .await;
    proxy.reroute(Some(middlebox.address));

    let missing = ["PROOF_MISSING", "has no `countersign-proof`"];
    logs.line(&not_ready(dpe.id, &missing)).await;
    let replayed = ["PROOF_INVALID", "its `nonce` is not this call's"];
    logs.line(&not_ready(dpe.id, &replayed)).await;
    dpm.engine_is(dpe.id, EngineStatus::New).await;

    proxy.reroute(Some(dpe.address));
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}

#[tokio::test]
async fn verdict_of_a_caller_is_not_taken_from_the_far_side() {
    for reason in [Reason::ProofInvalid, Reason::ProofMissing] {
        let keys = Keys::new();
        let dpm = RunningDpm::start(keys.dpm_module()).await;
        let proxy = Relay::start().await;
        let home = tempfile::tempdir().unwrap();
        let dpe = RunningDpe::start_behind(keys.dpe_module(), dpm.address, home.path(), &proxy);
        let middlebox = Middlebox::before(dpe.address, move |_, reply| {
            *reply = grpc::refuse(reason, Some("words of the far side")).into_http();
        })
        .await;
        proxy.reroute(Some(middlebox.address));

        let shown = dpm.reason(dpe.id, "says UNAUTHENTICATED (unproved)").await;

        assert!(!shown.contains("words of the far side"), "{shown}");
        assert!(!shown.contains(reason.as_str()), "{shown}");
        dpe.stop().await;
    }
}

#[tokio::test]
async fn real_key_behind_another_address_is_proved_only_for_its_own() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let id = fresh_id();
    let (address, _task) = Impostor::serve(&id.to_string(), Some(keys.dpe.clone())).await;
    let proxy = Relay::start().await;
    proxy.reroute(Some(address));

    let mut client = dpm.client(&keys.dpe_module()).await;
    client
        .register_engine(registration_of(id, proxy.address))
        .await
        .unwrap();
    let reason = dpm.reason(id, "PROOF_INVALID").await;

    assert!(
        reason.contains(&format!("at {address} answered")),
        "{reason}"
    );
}

#[tokio::test]
async fn ready_engine_is_asked_for_a_new_proof_now_and_then_and_not_each_time() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor.proof_interval = Duration::from_millis(200);
    });
    let id = fresh_id();
    let own = Some(keys.dpe.clone());
    let (address, _task, mut asked) = Impostor::serve_reporting(&id.to_string(), own).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let registration = registration_of(id, address);
    client.register_engine(registration).await.unwrap();
    dpm.engine_is(id, EngineStatus::Ready).await;

    let (mut with, mut without) = (0, 0);
    while with < 3 || without < 3 {
        if asked.recv().await.unwrap() {
            with += 1;
        } else {
            without += 1;
        }
        assert!(
            with + without < 1000,
            "{with} with a proof, {without} without"
        );
    }
    dpm.engine_is(id, EngineStatus::Ready).await;
}

#[tokio::test]
async fn silent_reconnect_to_an_impostor_is_noticed() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let proxy = Relay::start().await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_behind(keys.dpe_module(), dpm.address, home.path(), &proxy);
    proxy.reroute(Some(dpe.address));
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let (impostor, _task) = Impostor::serve(&dpe.id.to_string(), None).await;

    proxy.reroute(Some(impostor));

    dpm.reason(dpe.id, "PROOF_MISSING").await;
    dpm.engine_is(dpe.id, EngineStatus::Disconnected).await;
    proxy.reroute(Some(dpe.address));
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}

#[tokio::test]
async fn ready_engine_that_stops_trusting_the_dpm_is_disconnected_with_the_reason() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe_module = keys.dpe_module();
    let dpe = RunningDpe::start(dpe_module.clone(), dpm.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let other = own_deployment("dpm", "dpm-dev");

    now_trusts(&dpe_module, vec![trusted(&other)]);

    dpm.reason(dpe.id, "KEY_UNKNOWN").await;
    now_trusts(&dpe_module, vec![trusted(&keys.dpm)]);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}

#[tokio::test]
async fn engine_whose_owner_is_revoked_here_leaves_ready() {
    let keys = Keys::new();
    let dpm_module = keys.dpm_module();
    let dpm = RunningDpm::start(dpm_module.clone()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    let mut revoked = trusted(&keys.dpe);
    revoked.keys[0].revoked = true;
    now_trusts(&dpm_module, vec![revoked]);

    dpm.reason(dpe.id, "every key of `dpe-dev` is revoked")
        .await;
    dpm.engine_is(dpe.id, EngineStatus::Disconnected).await;
    dpe.stop().await;
}

#[tokio::test]
async fn address_that_accepts_and_says_nothing_times_out() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor.checker_timeout = Duration::from_millis(50);
    });
    let silent = free_port().await;
    let id = fresh_id();

    let mut client = dpm.client(&keys.dpe_module()).await;
    let request = registration_of(id, silent.local_addr().unwrap());
    client.register_engine(request).await.unwrap();

    dpm.reason(id, "did not answer in time").await;
}

#[tokio::test]
async fn address_where_nothing_listens_is_named_with_the_cause() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let address = free_port().await.local_addr().unwrap();
    let id = fresh_id();

    let mut client = dpm.client(&keys.dpe_module()).await;
    client
        .register_engine(registration_of(id, address))
        .await
        .unwrap();
    let reason = dpm.reason(id, "cannot be reached").await;

    assert!(reason.contains(&address.to_string()), "{reason}");
    assert!(reason.contains("onnection refused"), "{reason}");
}

#[tokio::test]
async fn plaintext_beyond_loopback_is_not_dialled() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor = monitor();
        options.monitor.connection = ConnectionOptions::default();
    });
    let id = fresh_id();
    // A documentation address (RFC 5737): nothing answers there, and nothing is asked.
    let address = "192.0.2.1:8532".parse().unwrap();

    let mut client = dpm.client(&keys.dpe_module()).await;
    client
        .register_engine(registration_of(id, address))
        .await
        .unwrap();
    let reason = dpm.reason(id, "is not dialled").await;

    assert!(
        reason.contains("countersign.client.allow-plaintext"),
        "{reason}"
    );
}

#[tokio::test]
async fn wrong_key_of_the_dpm_is_refused_at_registration() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let old = own_deployment("dpm", "dpm-dev");
    let dpe_module = Module::builder(keys.dpe.clone())
        .trust(trusted(&old))
        .build()
        .unwrap();

    let mut client = dpm.client(&dpe_module).await;
    let refused = client
        .register_engine(registration_of(fresh_id(), dpm.address))
        .await;

    let reason = grpc::reason_of(&refused.unwrap_err());
    assert_eq!(reason, Some(Reason::AudienceMismatch));
}
