//! What the registry's service accepts, from which callers, and what it answers.

use std::time::Duration;

use countersign::Module;
use countersign::Reason;
use countersign::engine::EngineStatus;
use countersign::grpc::reason_of;
use countersign::identity::Roles;
use countersign::proto::registry as wire;
use countersign::testing::{own_deployment, trusted};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::world::{
    Keys, RegistryClient, RunningDpe, RunningDpm, free_port, fresh_id, module, registration_of,
};

/// A DPM that trusts two DPEs, and a client of each.
async fn two_owners() -> (RunningDpm, RegistryClient, RegistryClient) {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let dpm = RunningDpm::start(module(&keys.dpm, &[&keys.dpe, &other])).await;
    let mine = dpm.client(&keys.dpe_module()).await;
    let others = dpm.client(&module(&other, &[&keys.dpm])).await;
    (dpm, mine, others)
}

fn is_not_owned<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> bool {
    let status = answer.unwrap_err();
    (status.code(), reason_of(&status)) == (Code::PermissionDenied, Some(Reason::EngineNotOwned))
}

#[tokio::test]
async fn engine_of_another_deployment_cannot_be_touched() {
    let (dpm, mut mine, mut others) = two_owners().await;
    let id = fresh_id();
    let address = free_port().await.local_addr().unwrap();
    mine.register_engine(registration_of(id, address))
        .await
        .unwrap();
    let engine_id = id.to_string();

    assert!(is_not_owned(
        others
            .register_engine(registration_of(id, dpm.address))
            .await
    ));
    let heartbeat = wire::HeartbeatRequest {
        engine_id: engine_id.clone(),
        ..Default::default()
    };
    assert!(is_not_owned(others.heartbeat(heartbeat).await));
    let leave = wire::DeregisterEngineRequest {
        engine_id,
        ..Default::default()
    };
    assert!(is_not_owned(others.deregister_engine(leave).await));

    let engine = dpm.registry.find(id).await.unwrap().unwrap();
    assert_eq!(&*engine.owner.deployment, "dpe-dev");
    assert_eq!(engine.address.port(), address.port());
}

#[tokio::test]
async fn engine_is_inactivated_and_forgotten_by_its_owner_or_the_dpm_itself_alone() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let dpm_module = module(&keys.dpm, &[&keys.dpe, &other]);
    let dpm = RunningDpm::start(dpm_module.clone()).await;
    let mut others = dpm.client(&module(&other, &[&keys.dpm])).await;
    let mut mine = dpm.client(&keys.dpe_module()).await;
    let itself = dpm.client_with(&dpm_module.own_module_layer()).await;
    let address = free_port().await.local_addr().unwrap();

    for mut allowed in [mine.clone(), itself] {
        let id = fresh_id();
        let engine_id = id.to_string();
        let registration = registration_of(id, address);
        mine.register_engine(registration).await.unwrap();
        let forget = wire::ForgetEngineRequest {
            engine_id: engine_id.clone(),
        };
        let inactivate = wire::InactivateEngineRequest { engine_id };

        assert!(is_not_owned(others.forget_engine(forget.clone()).await));
        assert!(is_not_owned(
            others.inactivate_engine(inactivate.clone()).await
        ));
        let live = allowed.forget_engine(forget.clone()).await.unwrap_err();
        assert_eq!(live.code(), Code::FailedPrecondition, "{live}");
        let answer = allowed.inactivate_engine(inactivate).await.unwrap();
        let engine = answer.into_inner().engine.unwrap();
        assert_eq!(engine.status(), wire::EngineStatus::Inactive);
        allowed.forget_engine(forget.clone()).await.unwrap();

        assert_eq!(dpm.registry.find(id).await.unwrap(), None);
        let gone = allowed.forget_engine(forget).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn only_the_owner_and_the_dpm_read_the_whole_reason() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let dpm_module = module(&keys.dpm, &[&keys.dpe, &other]);
    let dpm = RunningDpm::start(dpm_module.clone()).await;
    let mut mine = dpm.client(&keys.dpe_module()).await;
    let mut others = dpm.client(&module(&other, &[&keys.dpm])).await;
    let mut own = dpm.client_with(&dpm_module.own_module_layer()).await;
    let id = fresh_id();
    let address = free_port().await.local_addr().unwrap();
    mine.register_engine(registration_of(id, address))
        .await
        .unwrap();
    dpm.reason(id, "cannot be reached").await;

    let asked = async |client: &mut RegistryClient| {
        let engine_id = id.to_string();
        let answer = client
            .get_engine(wire::GetEngineRequest { engine_id })
            .await
            .unwrap();
        answer.into_inner().engine.unwrap().status_reason
    };

    assert!(asked(&mut mine).await.contains(&address.to_string()));
    assert!(asked(&mut own).await.contains(&address.to_string()));
    assert_eq!(asked(&mut others).await, "the engine cannot be reached");
}

/// Texts that are no host.
const NO_HOSTS: &[&str] = &[
    "",
    "-a",
    "http://a",
    "%00",
    "${jndi:ldap://a}",
    "$(x)",
    "\u{1f980}",
    "a\u{202e}b",
    "fe80::1%eth0",
    "[::1]",
    "017700000001",
    "a..b",
    "a b",
    "a\nb",
    "a\0",
    "a/b",
    "a@b",
    "a:80",
    "2852039166",
    "0x7f.1",
    "127.1",
];

/// Registrations with one fault each.
fn malformed(valid: &wire::RegisterEngineRequest) -> Vec<wire::RegisterEngineRequest> {
    let with_id = |id: &str| wire::RegisterEngineRequest {
        engine_id: id.to_owned(),
        ..valid.clone()
    };
    let with_address = |hostname: &str, port| wire::RegisterEngineRequest {
        address: Some(wire::EngineAddress {
            hostname: hostname.to_owned(),
            port,
        }),
        ..valid.clone()
    };
    let (long_id, long_host) = ("0".repeat(1_000_000), "a.".repeat(126) + "ab");
    let ids = [
        "",
        "x",
        "0031debd-6130-4b4a-8eaf-7a834555cf33\r\nx",
        &long_id,
        "0031debd61304b4a8eaf7a834555cf33",
        "0031debd-6130-4b4a-8eaf-7a834555cf3\n",
    ];
    let ports = [0, -1, 65_536, i32::MAX];
    let with_constraints = |constraints| wire::RegisterEngineRequest {
        constraints: Some(constraints),
        ..valid.clone()
    };
    let large = wire::EngineConstraints {
        priorities: vec!["x".repeat(64 * 1024 + 1)],
        ..Default::default()
    };
    let many = wire::EngineConstraints {
        capabilities: (0..10_000)
            .map(|n| (n.to_string(), String::new()))
            .collect(),
        ..Default::default()
    };
    let whole = [
        wire::RegisterEngineRequest::default(),
        wire::RegisterEngineRequest {
            address: None,
            ..valid.clone()
        },
        wire::RegisterEngineRequest {
            instance: "x".to_owned(),
            ..valid.clone()
        },
        with_constraints(large),
        with_constraints(many),
    ];
    whole
        .into_iter()
        .chain(ids.map(with_id))
        .chain(ports.map(|port| with_address("a", port)))
        .chain(NO_HOSTS.iter().map(|host| with_address(host, 1)))
        .chain([with_address(&long_host, 1)])
        .collect()
}

#[tokio::test]
async fn malformed_registrations_are_invalid_arguments() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let free = free_port().await.local_addr().unwrap();
    let valid = registration_of(fresh_id(), free);

    for row in malformed(&valid) {
        let refused = client.register_engine(row.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{:?}", row.address);
    }

    assert!(dpm.registry.list(None, 10).await.unwrap().is_empty());
    client.register_engine(valid).await.unwrap();
}

#[tokio::test]
async fn unknown_engine_is_not_found() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let engine_id = fresh_id().to_string();

    let heartbeat = wire::HeartbeatRequest {
        engine_id: engine_id.clone(),
        ..Default::default()
    };
    let get = wire::GetEngineRequest {
        engine_id: engine_id.clone(),
    };
    let leave = wire::DeregisterEngineRequest {
        engine_id,
        ..Default::default()
    };

    assert_eq!(
        client.heartbeat(heartbeat).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        client.get_engine(get).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        client.deregister_engine(leave).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn engines_are_listed_page_by_page() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = dpm.client(&keys.dpe_module()).await;
    let address = free_port().await.local_addr().unwrap();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = fresh_id();
        client
            .register_engine(registration_of(id, address))
            .await
            .unwrap();
        ids.push(id.to_string());
    }
    ids.sort();

    let mut seen = Vec::new();
    let mut page_token = String::new();
    let mut pages = 0;
    loop {
        let request = wire::ListEnginesRequest {
            page_size: 2,
            page_token,
        };
        let page = client.list_engines(request).await.unwrap().into_inner();
        seen.extend(page.engines.into_iter().map(|engine| engine.id));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }

    assert_eq!((seen, pages), (ids, 3));
    for (page_size, page_token) in [(-1, ""), (1, "x")] {
        let page_token = page_token.to_owned();
        let request = wire::ListEnginesRequest {
            page_size,
            page_token,
        };
        let refused = client.list_engines(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn caller_without_the_impersonation_role_is_denied() {
    let keys = Keys::new();
    let mut without_role = trusted(&keys.dpe);
    without_role.roles = Roles::default();
    let dpm_module = Module::builder(keys.dpm.clone())
        .trust(without_role)
        .build()
        .unwrap();
    let dpm = RunningDpm::start(dpm_module).await;
    let mut client = dpm.client(&keys.dpe_module()).await;

    let refused = client
        .register_engine(registration_of(fresh_id(), dpm.address))
        .await;

    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reason_of(&refused), Some(Reason::RoleMissing));
}

#[tokio::test]
async fn full_registry_is_exhausted() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.limits.max_engines_per_deployment = 1;
    });
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let mut client = dpm.client(&keys.dpe_module()).await;

    let refused = client
        .register_engine(registration_of(fresh_id(), dpe.address))
        .await;

    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    dpe.stop().await;
}

#[tokio::test]
async fn registration_that_comes_too_fast_is_refused_with_the_time_to_wait() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.limits.max_new_engines_per_second = 1;
    });
    let mut client = dpm.client(&keys.dpe_module()).await;
    let address = free_port().await.local_addr().unwrap();

    let refused = loop {
        let new = registration_of(fresh_id(), address);
        if let Err(refused) = client.register_engine(new).await {
            break refused;
        }
    };

    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let retry = refused.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
}
