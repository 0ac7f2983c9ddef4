//! What every module serves.

use std::net::SocketAddr;
use std::time::Duration;

use countersign::grpc::reason_of;
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use countersign::testing::own_deployment;
use countersign::{Module, Reason};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::{v1, v1alpha};
use tower_layer::Layer as _;

use crate::support::raw::call_method;
use crate::support::world::{Keys, RunningDpe, RunningDpm, channel, free_port, module, soon};

#[tokio::test]
async fn caller_sees_itself_as_the_callee_does() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-other");
    let dpm = RunningDpm::start(module(&keys.dpm, &[&keys.dpe, &other])).await;
    let dpe_module = keys.dpe_module();
    let identity = dpe_module
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = IdentityServiceClient::new(identity.layer(channel(dpm.address).await));

    let answer = client
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();

    let caller = answer.identity.unwrap();
    assert_eq!(
        (caller.module.as_str(), caller.id.as_str()),
        ("dpe", "dpe-dev")
    );
    assert_eq!(caller.roles, ["IMPERSONATION"]);
    assert_eq!(answer.fingerprint, keys.dpe.key_id.as_str());
    assert_eq!(answer.callee_deployment, "dpm-dev");
    assert_eq!(answer.callee_fingerprint, keys.dpm.key_id.as_str());
    // Of the keys that are trusted there it learns its own.
    let own_keys: Vec<_> = answer.trusted_keys.iter().collect();
    assert_eq!(own_keys.len(), 1, "{own_keys:?}");
    assert_eq!(own_keys[0].fingerprint, keys.dpe.key_id.as_str());
    let computed = keys.dpe.key.fingerprint().to_string();
    assert_eq!(own_keys[0].computed_fingerprint, computed);
}

#[tokio::test]
async fn stranger_learns_nothing_but_the_refusal() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let mut client = IdentityServiceClient::new(channel(dpm.address).await);

    let refused = client.who_am_i(WhoAmIRequest {}).await.unwrap_err();

    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(reason_of(&refused), Some(Reason::TokenMissing));
}

async fn health(address: SocketAddr, service: &str) -> ServingStatus {
    let service = service.to_owned();
    let mut client = HealthClient::new(channel(address).await);
    let answer = client.check(HealthCheckRequest { service }).await.unwrap();
    answer.into_inner().status()
}

#[tokio::test]
async fn dpm_is_healthy_to_everyone() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;

    for service in [
        "",
        "countersign.identity.v1.IdentityService",
        "countersign.registry.v1.EngineRegistryService",
    ] {
        assert_eq!(
            health(dpm.address, service).await,
            ServingStatus::Serving,
            "{service}"
        );
    }
}

#[tokio::test]
async fn dpe_is_healthy_once_it_is_registered() {
    let keys = Keys::new();
    let unused = free_port().await.local_addr().unwrap();
    let lonely = RunningDpe::start(keys.dpe_module(), unused);
    assert_eq!(health(lonely.address, "").await, ServingStatus::NotServing);
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);

    let service = "countersign.engine.v1.EngineService".to_owned();
    let mut client = HealthClient::new(channel(dpe.address).await);
    let watched = client.watch(HealthCheckRequest { service }).await;
    let mut watched = watched.unwrap().into_inner();
    let serving = async {
        while watched.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    };

    soon("SERVING", serving).await;
    assert_eq!(health(dpe.address, "").await, ServingStatus::Serving);
    drop((watched, client));
    dpe.stop().await;
    lonely.stop().await;
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;
    let channel = channel(dpm.address).await;

    let request = v1::ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = answers
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let names = format!("{answer:?}");
    assert!(
        names.contains("countersign.registry.v1.EngineRegistryService"),
        "{names}"
    );

    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
        ..Default::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = answers
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    assert!(format!("{answer:?}").contains("countersign.identity.v1.IdentityService"));
}

#[tokio::test]
async fn every_method_that_a_module_serves_has_a_rule() {
    let keys = Keys::new();
    let modules = [keys.dpm_module(), keys.dpe_module()];
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);

    for (caller, callee, address) in [
        (&modules[1], "dpm-dev", dpm.address),
        (&modules[0], "dpe-dev", dpe.address),
    ] {
        let methods = served_methods(address).await;
        assert!(methods.len() >= 6, "{methods:?}");
        for path in methods {
            let answer = call_method(caller, callee, address, &path).await;
            let code = answer.err().map(|status| status.code());
            assert_ne!(code, Some(Code::Unimplemented), "{callee} {path}");
        }
    }
    dpe.stop().await;
}

/// Asks the reflection service at `address` one question.
async fn ask(address: SocketAddr, question: MessageRequest) -> Result<MessageResponse, Status> {
    let mut client =
        v1::server_reflection_client::ServerReflectionClient::new(channel(address).await);
    let request = v1::ServerReflectionRequest {
        message_request: Some(question),
        ..Default::default()
    };
    let answers = client.server_reflection_info(tokio_stream::once(request));
    let answer = answers.await?.into_inner().message().await?;
    Ok(answer.unwrap().message_response.unwrap())
}

#[tokio::test]
async fn reflection_shows_only_what_the_module_serves() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let dpe = RunningDpe::start(keys.dpe_module(), dpm.address);
    let (registry, engine) = (
        "countersign.registry.v1.EngineRegistryService",
        "countersign.engine.v1.EngineService",
    );

    for (address, own, others) in [
        (
            dpm.address,
            registry,
            [engine, "countersign.engine.v1.CheckStatusRequest"],
        ),
        (
            dpe.address,
            engine,
            [registry, "countersign.registry.v1.Engine"],
        ),
    ] {
        let listed = ask(address, MessageRequest::ListServices(String::new())).await;
        let MessageResponse::ListServicesResponse(listed) = listed.unwrap() else {
            panic!("not a list of services");
        };
        let mut names: Vec<_> = listed.service.iter().map(|s| s.name.as_str()).collect();
        names.sort_unstable();
        let mut expected = [
            own,
            "countersign.identity.v1.IdentityService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        let defining = |name: &str| MessageRequest::FileContainingSymbol(name.to_owned());
        for other in others {
            let asked = ask(address, defining(other)).await;
            assert_eq!(asked.unwrap_err().code(), Code::NotFound, "{other}");
        }
        // What is shown is complete: each file that a shown file needs is there.
        for name in names {
            let asked = ask(address, defining(name)).await;
            let MessageResponse::FileDescriptorResponse(files) = asked.unwrap() else {
                panic!("no file has {name}");
            };
            for file in files.file_descriptor_proto {
                let file = prost_types::FileDescriptorProto::decode(file.as_slice()).unwrap();
                for needed in file.dependency {
                    let asked = ask(address, MessageRequest::FileByFilename(needed)).await;
                    asked.unwrap();
                }
            }
        }
    }
    dpe.stop().await;
}

#[tokio::test]
async fn unknown_method_of_health_is_as_secret_as_any_other() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let path = "/grpc.health.v1.Health/Nope";

    let mut stranger = tonic::client::Grpc::new(channel(dpm.address).await);
    stranger.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let asked = stranger.unary(tonic::Request::new(()), path.parse().unwrap(), codec);
    let of_stranger = asked.await.unwrap_err();
    let of_peer = call_method(&keys.dpe_module(), "dpm-dev", dpm.address, path).await;

    assert_eq!(of_stranger.code(), Code::Unauthenticated);
    assert_eq!(of_peer.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn watch_of_an_unknown_service_says_so_and_stays_open() {
    let dpm = RunningDpm::start(Keys::new().dpm_module()).await;
    let service = "a.ServiceOfNoModule".to_owned();
    let mut client = HealthClient::new(channel(dpm.address).await);
    let asked = HealthCheckRequest { service };

    let checked = client.check(asked.clone()).await.unwrap_err();
    let mut watched = client.watch(asked).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    let next = tokio::time::timeout(Duration::from_millis(100), watched.message());

    assert_eq!(checked.code(), Code::NotFound);
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    assert!(next.await.is_err(), "it stays open");
}

/// Asks the reflection service at `address` for the path of every method that is served there.
async fn served_methods(address: SocketAddr) -> Vec<String> {
    let listed = ask(address, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(services) = listed.unwrap() else {
        panic!("not a list of services");
    };
    let mut paths = Vec::new();
    for service in services.service {
        let question = MessageRequest::FileContainingSymbol(service.name.clone());
        let asked = ask(address, question).await.unwrap();
        let MessageResponse::FileDescriptorResponse(files) = asked else {
            panic!("no file has {}", service.name);
        };
        for file in files.file_descriptor_proto {
            let file = prost_types::FileDescriptorProto::decode(file.as_slice()).unwrap();
            for found in &file.service {
                let name = format!("{}.{}", file.package(), found.name());
                if name == service.name {
                    let methods = found.method.iter();
                    paths.extend(methods.map(|method| format!("/{name}/{}", method.name())));
                }
            }
        }
    }
    paths
}

#[tokio::test]
async fn reflection_beyond_loopback_is_not_served() {
    let keys = Keys::new();
    let module = Module::builder(keys.dpm.clone()).dangerous_plaintext();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let dpm = RunningDpm::start_with(module.build().unwrap(), listener, |_| ());
    let here = SocketAddr::from(([127, 0, 0, 1], dpm.address.port()));
    let channel = channel(here).await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);

    let request = tokio_stream::once(v1::ServerReflectionRequest::default());
    let refused = client.server_reflection_info(request).await.unwrap_err();

    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn module_asks_itself_over_loopback() {
    let keys = Keys::new();
    let module: Module = keys.dpm_module();
    let dpm = RunningDpm::start(module.clone()).await;
    let mut client = dpm.client_with(&module.own_module_layer()).await;

    client
        .list_engines(countersign::proto::registry::ListEnginesRequest::default())
        .await
        .unwrap();
    let request =
        crate::support::world::registration_of(crate::support::world::fresh_id(), dpm.address);
    let refused = client.register_engine(request).await.unwrap_err();

    assert_eq!(refused.code(), Code::Unauthenticated);
}
