//! `WatchEngines`: a list and a watch from its revision have every change.

use std::collections::BTreeMap;

use countersign::engine::EngineStatus;
use countersign::grpc::{Drained, reason_of};
use countersign::identity::Roles;
use countersign::proto::registry as wire;
use countersign::proto::registry::watch_engines_response::Change;
use countersign::testing::{own_deployment, trusted};
use countersign::{Module, Reason};
use tonic::{Code, Status, Streaming};

use crate::support::world::{
    Keys, PATIENCE, RegistryClient, RunningDpe, RunningDpm, free_port, fresh_id, module,
    now_trusts, registration_of, soon,
};

type Changes = Streaming<wire::WatchEnginesResponse>;

async fn watch(client: &mut RegistryClient, from: &str) -> Result<Changes, Status> {
    let request = wire::WatchEnginesRequest {
        from_revision: from.to_owned(),
    };
    let opened = soon("a watch", client.watch_engines(request)).await;
    opened.map(tonic::Response::into_inner)
}

async fn next(changes: &mut Changes) -> Result<(Change, String), Status> {
    let next = soon("a change", changes.message()).await?.unwrap();
    Ok((next.change.unwrap(), next.revision))
}

/// Returns the engine that changes next.
async fn engine(changes: &mut Changes) -> wire::Engine {
    match next(changes).await.unwrap() {
        (Change::Engine(engine), _) => *engine,
        (removed @ Change::RemovedId(_), _) => panic!("{removed:?}"),
    }
}

async fn page(client: &mut RegistryClient, size: i32, token: &str) -> wire::ListEnginesResponse {
    let request = wire::ListEnginesRequest {
        page_size: size,
        page_token: token.to_owned(),
    };
    client.list_engines(request).await.unwrap().into_inner()
}

/// The revision of now.
async fn revision(client: &mut RegistryClient) -> String {
    page(client, 1, "").await.revision
}

/// As it is shown, but for when it was last seen.
fn shown(engine: wire::Engine) -> wire::Engine {
    wire::Engine {
        last_seen_at: None,
        ..engine
    }
}

#[tokio::test]
async fn list_and_a_watch_from_its_first_page_have_every_change() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = keys.dpe_module();
    let address = free_port().await.local_addr().unwrap();
    let mut client = dpm.client(&dpe).await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        let request = registration_of(fresh_id(), address);
        ids.push(request.engine_id.clone());
        client.register_engine(request).await.unwrap();
    }
    let mut other = dpm.client(&dpe).await;
    let busy = tokio::spawn(async move {
        for (n, id) in ids.into_iter().enumerate() {
            let engine_id = id.clone();
            let inactivate = wire::InactivateEngineRequest { engine_id };
            other.inactivate_engine(inactivate).await.unwrap();
            if n % 2 == 0 {
                let forget = wire::ForgetEngineRequest { engine_id: id };
                other.forget_engine(forget).await.unwrap();
            }
            let request = registration_of(fresh_id(), address);
            other.register_engine(request).await.unwrap();
        }
    });

    let mut seen = BTreeMap::new();
    let first = page(&mut client, 7, "").await;
    let from = first.revision.clone();
    let mut listed = first;
    loop {
        let engines = listed.engines.into_iter().map(shown);
        seen.extend(engines.map(|engine| (engine.id.clone(), engine)));
        if listed.next_page_token.is_empty() {
            break;
        }
        listed = page(&mut client, 7, &listed.next_page_token).await;
    }
    let mut changes = watch(&mut client, &from).await.unwrap();
    busy.await.unwrap();
    let mut last = from;
    let all = dpm.registry.list(None, 1000).await.unwrap();
    let recorded = async || -> BTreeMap<_, _> {
        let all = dpm.registry.list(None, 1000).await.unwrap();
        let all = all.iter().map(|engine| shown((&**engine).into()));
        all.map(|engine| (engine.id.clone(), engine)).collect()
    };
    assert_eq!(all.len(), 45);
    while seen != recorded().await {
        let (change, revision) = next(&mut changes).await.unwrap();
        assert_ne!(revision, last);
        last = revision;
        match change {
            Change::Engine(engine) => drop(seen.insert(engine.id.clone(), shown(*engine))),
            Change::RemovedId(id) => drop(seen.remove(&id)),
        }
    }
}

#[tokio::test]
async fn watch_without_a_revision_has_each_change_from_now_on_and_no_sign_of_life() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    let id = dpe.id;
    let ready = dpm.engine_is(id, EngineStatus::Ready).await;

    let mut changes = watch(&mut client, "").await.unwrap();
    dpm.engine_seen_after(id, ready.last_seen_at).await;
    dpe.stop().await;
    let request = wire::ForgetEngineRequest {
        engine_id: id.to_string(),
    };
    client.forget_engine(request).await.unwrap();

    let left = engine(&mut changes).await;
    assert_eq!(left.status(), wire::EngineStatus::Inactive);
    assert_eq!(left.status_reason, "deregistered by its owner");
    let (gone, _) = next(&mut changes).await.unwrap();
    assert_eq!(gone, Change::RemovedId(id.to_string()));
}

#[tokio::test]
async fn watch_that_was_lost_goes_on_from_its_last_revision() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let address = free_port().await.local_addr().unwrap();
    let mut client = dpm.client(&keys.dpe_module()).await;
    let start = revision(&mut client).await;
    let request = registration_of(fresh_id(), address);
    client.register_engine(request.clone()).await.unwrap();
    let inactivate = wire::InactivateEngineRequest {
        engine_id: request.engine_id,
    };
    client.inactivate_engine(inactivate).await.unwrap();

    let mut all = watch(&mut client, &start).await.unwrap();
    let mut uninterrupted = Vec::new();
    loop {
        let (change, revision) = next(&mut all).await.unwrap();
        uninterrupted.push(change.clone());
        if matches!(change, Change::Engine(engine) if engine.status() == wire::EngineStatus::Inactive)
        {
            break drop(revision);
        }
    }
    let (mut resumed, mut from) = (Vec::new(), start);
    for _ in 0..uninterrupted.len() {
        let mut one = watch(&mut client, &from).await.unwrap();
        let (change, revision) = next(&mut one).await.unwrap();
        resumed.push(change);
        from = revision;
    }

    assert_eq!(resumed, uninterrupted);
}

#[tokio::test]
async fn revision_that_is_not_known_is_out_of_range() {
    let keys = Keys::new();
    let [dpm, other] = [
        RunningDpm::start(keys.dpm_module()).await,
        RunningDpm::start(keys.dpm_module()).await,
    ];
    let mut client = dpm.client(&keys.dpe_module()).await;
    let mut elsewhere = other.client(&keys.dpe_module()).await;
    let own = revision(&mut client).await;
    let others = revision(&mut elsewhere).await;

    watch(&mut client, &own).await.unwrap();
    let odd = [
        "x".to_owned(),
        "x".repeat(100_000),
        format!("{own}9"),
        others,
    ];
    for unknown in odd {
        let refused = watch(&mut client, &unknown).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        let help = "list the engines, and watch from the revision of its first page";
        assert!(refused.message().contains(help), "{refused}");
    }
}

#[tokio::test]
async fn watcher_that_reads_too_slowly_is_dropped_and_lists_again() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.limits.max_new_engines_per_second = 1000;
    });
    let address = free_port().await.local_addr().unwrap();
    let mut client = dpm.client(&keys.dpe_module()).await;
    let mut slow = dpm.client(&keys.dpe_module()).await;
    let mut changes = watch(&mut slow, "").await.unwrap();

    let request = registration_of(fresh_id(), address);
    for n in 0..400 {
        // What an engine offers may be large, so there is room for few such changes.
        let offer = format!("{n}{}", "x".repeat(65_000));
        let constraints = wire::EngineConstraints {
            priorities: vec![offer],
            ..wire::EngineConstraints::default()
        };
        let request = wire::RegisterEngineRequest {
            constraints: Some(constraints),
            ..request.clone()
        };
        client.register_engine(request).await.unwrap();
    }

    let mut read = 0;
    let ended = loop {
        match next(&mut changes).await {
            Ok(_) => read += 1,
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended.code(), Code::OutOfRange, "{ended}");
    assert!(read < 400, "{read}");
    let again = revision(&mut slow).await;
    watch(&mut slow, &again).await.unwrap();
}

#[tokio::test]
async fn reason_of_another_deployments_engine_is_not_shown_in_full() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let dpm = RunningDpm::start(module(&keys.dpm, &[&keys.dpe, &other])).await;
    let mut owner = dpm.client(&keys.dpe_module()).await;
    let mut stranger = dpm.client(&module(&other, &[&keys.dpm])).await;
    let start = revision(&mut owner).await;
    let address = free_port().await.local_addr().unwrap();
    let request = registration_of(fresh_id(), address);
    owner.register_engine(request).await.unwrap();

    let failure = async |client: &mut RegistryClient| {
        let mut changes = watch(client, &start).await.unwrap();
        loop {
            let engine = engine(&mut changes).await;
            if let Some(failure) = engine.dial_back_failure {
                return (failure.detail, engine.status_reason);
            }
        }
    };
    let (full, _) = failure(&mut owner).await;
    let (detail, reason) = failure(&mut stranger).await;

    assert!(full.contains("refused"), "{full}");
    assert_eq!(detail, "");
    assert!(!reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn watches_of_a_deployment_are_bounded_and_one_that_ends_makes_room() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let dpm = RunningDpm::start(module(&keys.dpm, &[&keys.dpe, &other])).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(watch(&mut client, "").await.unwrap());
    }

    let refused = watch(&mut client, "").await.unwrap_err();

    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("at most 64"), "{refused}");
    let mut others = dpm.client(&module(&other, &[&keys.dpm])).await;
    watch(&mut others, "").await.unwrap();
    open.pop();
    // The registry learns of it a little later.
    soon("a place", async {
        while watch(&mut client, "").await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn watch_does_not_hold_a_registry_that_stops() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.server.shutdown_deadline = 2 * PATIENCE;
    });
    let mut client = dpm.client(&keys.dpe_module()).await;
    let mut changes = watch(&mut client, "").await.unwrap();

    assert_eq!(dpm.stop().await, Drained::InTime);

    let ended = next(&mut changes).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    assert!(ended.message().contains("watch again"), "{ended}");
}

#[tokio::test]
async fn watch_ends_with_the_key_of_its_caller() {
    let keys = Keys::new();
    let dpm_module: Module = keys.dpm_module();
    let dpm = RunningDpm::start(dpm_module.clone()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let mut changes = watch(&mut client, "").await.unwrap();

    now_trusts(&dpm_module, vec![]);

    let ended = next(&mut changes).await.unwrap_err();
    assert_eq!(reason_of(&ended), Some(Reason::KeyUnknown));
}

#[tokio::test]
async fn watch_ends_with_the_role_of_its_caller() {
    let keys = Keys::new();
    let dpm_module: Module = keys.dpm_module();
    let dpm = RunningDpm::start(dpm_module.clone()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let mut changes = watch(&mut client, "").await.unwrap();

    let mut without_role = trusted(&keys.dpe);
    without_role.roles = Roles::default();
    now_trusts(&dpm_module, vec![without_role]);

    let ended = next(&mut changes).await.unwrap_err();
    assert_eq!(reason_of(&ended), Some(Reason::RoleMissing));
}
