//! One-way engines: they take no calls, and prove themselves over a stream that they hold.

use std::fs;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign::clock::SystemClock;
use countersign::dpe::{self, Dpe, StatusCheckerOptions};
use countersign::dpm::{EngineRegistryService, Monitor, MonitorOptions, Resolver};
use countersign::engine::{EngineAddress, EngineId, EngineStatus, Instance};
use countersign::grpc::{self, ServerOptions, Target, reason_of};
use countersign::proto::registry as wire;
use countersign::proto::registry::connect_engine_request::Message as Said;
use countersign::proto::registry::connect_engine_response::Message as Asked;
use countersign::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use countersign::proto::registry::engine_registry_service_server::EngineRegistryServiceServer;
use countersign::registry::store::MemoryStore;
use countersign::registry::{AddressPolicy, EngineRegistry, Limits};
use countersign::storage::Storage;
use countersign::testing::{own_deployment, trusted};
use countersign::token::Policy;
use countersign::token::proof::{EngineClaim, Exchange, ProofSigner};
use countersign::trust::{OwnDeployment, TrustStore};
use countersign::{MethodRules, Module, Reason, Rule};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Code, Request, Status, Streaming};

use crate::support::http::request;
use crate::support::logs::Logs;
use crate::support::relay::Relay;
use crate::support::world::{
    Keys, RunningDpe, RunningDpm, channel, free_port, fresh_id, module, now_trusts, soon,
};

const HOST: &str = "dpe.example.org";
const PATH: &str = "/countersign.registry.v1.EngineRegistryService/ConnectEngine";

fn fresh_instance() -> Instance {
    let mut random = [0; 16];
    getrandom::fill(&mut random).unwrap();
    Instance::from_random(random)
}

/// Registers the one-way engine of `claim`.
async fn register(
    dpm: &RunningDpm,
    module: &Module,
    claim: &EngineClaim,
) -> Result<wire::Engine, Status> {
    let registration = wire::RegisterEngineRequest {
        engine_id: claim.id.clone(),
        address: Some(wire::EngineAddress {
            hostname: claim.hostname.clone(),
            port: claim.port.into(),
        }),
        instance: claim.instance.clone().unwrap_or_default(),
        ..wire::RegisterEngineRequest::default()
    };
    let mut client = dpm.client(module).await;
    let answer = client.register_engine(registration).await?;
    Ok(answer.into_inner().engine.unwrap())
}

fn claim_of(id: EngineId) -> EngineClaim {
    EngineClaim {
        id: id.to_string(),
        hostname: HOST.to_owned(),
        port: 0,
        instance: Some(fresh_instance().to_string()),
    }
}

/// A stream of an engine, whose answers a test chooses.
struct Held {
    asks: Streaming<wire::ConnectEngineResponse>,
    answers: mpsc::Sender<wire::ConnectEngineRequest>,
    token: String,
}

impl Held {
    /// Opens a stream as the process of `claim`, with a token of `module`.
    async fn open(dpm: &RunningDpm, module: &Module, claim: &EngineClaim) -> Result<Self, Status> {
        let hello = wire::Hello {
            engine_id: claim.id.clone(),
            instance: claim.instance.clone().unwrap_or_default(),
        };
        Self::open_with(dpm, module, Some(say(Said::Hello(hello)))).await
    }

    /// Opens a stream whose first message is `first`; without one it says nothing.
    async fn open_with(
        dpm: &RunningDpm,
        module: &Module,
        first: Option<wire::ConnectEngineRequest>,
    ) -> Result<Self, Status> {
        let trust = module.trust().load();
        let token = module.issuer().issue(trust.deployment("dpm-dev").unwrap());
        let token = token.unwrap().expose().to_owned();
        let (answers, said) = mpsc::channel(8);
        if let Some(first) = first {
            answers.send(first).await.unwrap();
        }
        let mut opening = Request::new(ReceiverStream::new(said));
        let bearer = format!("Bearer {token}").parse().unwrap();
        opening.metadata_mut().insert("authorization", bearer);
        let mut client = EngineRegistryServiceClient::new(channel(dpm.address).await);
        let asks = client.connect_engine(opening).await?.into_inner();
        Ok(Self {
            asks,
            answers,
            token,
        })
    }

    /// Returns the nonce of the next challenge, or how the stream ended.
    async fn challenge(&mut self) -> Result<Option<String>, Status> {
        let next = soon("a challenge", self.asks.message()).await?;
        Ok(next.map(|asked| match asked.message.unwrap() {
            Asked::Challenge(challenge) => challenge.nonce,
        }))
    }

    fn proof(&self, key: &OwnDeployment, claim: &EngineClaim, nonce: &str) -> String {
        proof(key, claim, nonce, &self.token, PATH)
    }

    async fn answer(&self, jws: String) {
        let proof = say(Said::Proof(wire::Proof { jws }));
        self.answers.send(proof).await.unwrap();
    }

    /// Answers every challenge; returns how the stream ended.
    async fn answer_all(&mut self, key: &OwnDeployment, claim: &EngineClaim) -> Result<(), Status> {
        while let Some(nonce) = self.challenge().await? {
            self.answer(self.proof(key, claim, &nonce)).await;
        }
        Ok(())
    }

    /// Returns why the stream ended, which answers nothing more.
    async fn refused(&mut self) -> Status {
        loop {
            match self.challenge().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it was closed without a reason"),
                Err(status) => return status,
            }
        }
    }
}

fn say(message: Said) -> wire::ConnectEngineRequest {
    wire::ConnectEngineRequest {
        message: Some(message),
    }
}

fn proof(key: &OwnDeployment, claim: &EngineClaim, nonce: &str, token: &str, path: &str) -> String {
    let exchange = Exchange {
        caller: key.issuer(),
        nonce: nonce.parse().unwrap(),
        token,
        path,
    };
    let trust = Arc::new(TrustStore::alone(key.clone()));
    let signer = ProofSigner::new(trust, Arc::new(SystemClock));
    signer.sign(&exchange, Some(claim)).unwrap()
}

/// Returns how many streams the DPM has taken so far.
async fn streams_of(dpm: &RunningDpm) -> u64 {
    let metrics = request(dpm.http, "GET", "/actuator/prometheus").await.body;
    let mut lines = metrics.lines().filter(|line| {
        line.starts_with("grpc_server_started_total") && line.contains("\"ConnectEngine\"")
    });
    let count = lines.next().and_then(|line| line.rsplit(' ').next());
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn one_way_engine_becomes_ready_over_its_stream_and_is_never_dialled() {
    let resolved = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&resolved);
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor.resolver = Resolver::new(move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
            Err(std::io::Error::other("not to be asked"))
        });
    });
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_one_way(keys.dpe_module(), dpm.address, home.path(), |options| {
        options.status_checker.check_connection_interval = Duration::from_secs(3600);
        options.hostname = HOST.to_owned();
    });

    let ready = dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    // By its checks alone: the next heartbeat is an hour away.
    let checked = dpm.engine_seen_after(dpe.id, ready.last_seen_at).await;

    assert_eq!(checked.status, EngineStatus::Ready);
    assert_eq!(ready.address, EngineAddress::one_way(HOST).unwrap());
    assert_eq!(dpe.address.port(), 0);
    assert_eq!(streams_of(&dpm).await, 1);
    dpe.stop().await;
    dpm.engine_is(ready.id, EngineStatus::Inactive).await;
    assert_eq!(resolved.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn one_way_engine_stays_ready_while_its_tokens_expire() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let home = tempfile::tempdir().unwrap();
    let (second, most) = (Duration::from_secs(1), Duration::from_secs(900));
    let short = Module::builder(keys.dpe.clone()).trust(trusted(&keys.dpm));
    let short = short.policy(Policy::new(second, second, most).unwrap());
    let short = short.build().unwrap();
    let dpe = RunningDpe::start_one_way(short, dpm.address, home.path(), |_| ());
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let before = dpm.written.borrow().len();

    // Each one is opened with a token of its own, which lives for a second.
    let renewed = async { while streams_of(&dpm).await < 6 {} };
    soon("the sixth stream", renewed).await;

    let written = dpm.written.borrow().clone();
    assert!(written.len() > before + 5, "{written:?}");
    let lost = written.iter().skip(before);
    assert_eq!(lost.filter(|s| **s != EngineStatus::Ready).count(), 0);
    dpe.stop().await;
}

#[tokio::test]
async fn of_two_proved_streams_the_older_is_closed_and_an_unproved_one_displaces_neither() {
    let keys = Keys::new();
    let (dpm, dpe) = (
        RunningDpm::start(keys.dpm_module()).await,
        keys.dpe_module(),
    );
    let claim = claim_of(fresh_id());
    let id = claim.id.parse().unwrap();
    register(&dpm, &dpe, &claim).await.unwrap();
    let mut older = Held::open(&dpm, &dpe, &claim).await.unwrap();
    let (key, named) = (keys.dpe.clone(), claim.clone());
    let older = tokio::spawn(async move { older.answer_all(&key, &named).await });
    dpm.engine_is(id, EngineStatus::Ready).await;

    // It is asked, says nothing, and is closed in a few seconds; the older one answers all along.
    let mut silent = Held::open(&dpm, &dpe, &claim).await.unwrap();
    assert!(silent.challenge().await.unwrap().is_some());
    let refused = silent.refused().await;
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(!older.is_finished());
    let mut newer = Held::open(&dpm, &dpe, &claim).await.unwrap();
    let (key, named) = (keys.dpe.clone(), claim.clone());
    let newer = tokio::spawn(async move { newer.answer_all(&key, &named).await });

    soon("the end of the older stream", older)
        .await
        .unwrap()
        .unwrap();
    let now = dpm.registry.find(id).await.unwrap().unwrap();
    assert_eq!(now.status, EngineStatus::Ready);
    dpm.engine_seen_after(id, now.last_seen_at).await;
    assert!(!newer.is_finished());
    let written = dpm.written.borrow().clone();
    assert!(!written.contains(&EngineStatus::Disconnected));
}

#[tokio::test]
async fn only_the_proof_of_this_stream_by_the_owners_key_is_believed() {
    let keys = Keys::new();
    let (dpm, dpe) = (
        RunningDpm::start(keys.dpm_module()).await,
        keys.dpe_module(),
    );
    let claim = claim_of(fresh_id());
    let id = claim.id.parse().unwrap();
    register(&dpm, &dpe, &claim).await.unwrap();
    let first = Held::open(&dpm, &dpe, &claim).await.unwrap();
    let (forger, other) = (own_deployment("dpe", "dpe-dev"), claim_of(fresh_id()));
    let elsewhere = EngineClaim {
        port: 8532,
        ..claim.clone()
    };
    let clone = EngineClaim {
        instance: Some(fresh_instance().to_string()),
        ..claim.clone()
    };
    let any = "AAAAAAAAAAAAAAAAAAAAAA";
    let check_status = "/countersign.engine.v1.EngineService/CheckStatus";
    let good = &keys.dpe;
    for (what, part) in [
        ("nonce", "its `nonce` is not this call's"),
        ("token", "its `th` is not this call's"),
        ("path", "its `m` is not this call's"),
        ("key", "is not an active key of `dpe-dev`"),
        ("engine", "answered, expected engine"),
        ("address", "answered, expected engine"),
        ("process", "answered, expected engine"),
        ("none", "it names no engine"),
        ("text", "invalid"),
    ] {
        let mut held = Held::open(&dpm, &dpe, &claim).await.unwrap();
        let nonce = held.challenge().await.unwrap().unwrap();
        let jws = match what {
            "nonce" => held.proof(good, &claim, any),
            "token" => first.proof(good, &claim, &nonce),
            "path" => proof(good, &claim, &nonce, &held.token, check_status),
            "key" => held.proof(&forger, &claim, &nonce),
            "engine" => held.proof(good, &other, &nonce),
            "address" => held.proof(good, &elsewhere, &nonce),
            "process" => held.proof(good, &clone, &nonce),
            "text" => "no proof".to_owned(),
            _ => without_engine(good, &nonce, &held.token),
        };
        held.answer(jws).await;

        let refused = held.refused().await;

        assert_eq!(refused.code(), Code::Unauthenticated, "{what}: {refused}");
        if what != "text" {
            assert!(refused.message().contains(part), "{what}: {refused}");
            dpm.reason(id, part).await;
        }
    }
    let now = dpm.registry.find(id).await.unwrap().unwrap();
    assert_eq!(now.status, EngineStatus::New);
    // The next good one is believed.
    let mut held = Held::open(&dpm, &dpe, &claim).await.unwrap();
    let key = keys.dpe.clone();
    tokio::spawn(async move { held.answer_all(&key, &claim).await });
    dpm.engine_is(id, EngineStatus::Ready).await;
}

fn without_engine(key: &OwnDeployment, nonce: &str, token: &str) -> String {
    let exchange = Exchange {
        caller: key.issuer(),
        nonce: nonce.parse().unwrap(),
        token,
        path: PATH,
    };
    let trust = Arc::new(TrustStore::alone(key.clone()));
    let signer = ProofSigner::new(trust, Arc::new(SystemClock));
    signer.sign(&exchange, None).unwrap()
}

#[tokio::test]
async fn ready_engine_that_repeats_a_proof_or_sends_more_than_it_is_asked_for_is_lost() {
    let keys = Keys::new();
    for says_more in [false, true] {
        let (dpm, dpe) = (
            RunningDpm::start(keys.dpm_module()).await,
            keys.dpe_module(),
        );
        let claim = claim_of(fresh_id());
        let id = claim.id.parse().unwrap();
        register(&dpm, &dpe, &claim).await.unwrap();
        let mut held = Held::open(&dpm, &dpe, &claim).await.unwrap();
        let nonce = held.challenge().await.unwrap().unwrap();
        let jws = held.proof(&keys.dpe, &claim, &nonce);
        held.answer(jws.clone()).await;
        let nonce = held.challenge().await.unwrap().unwrap();
        let next = held.proof(&keys.dpe, &claim, &nonce);
        held.answer(next).await;
        dpm.engine_is(id, EngineStatus::Ready).await;
        if says_more {
            for _ in 0..3 {
                held.answer(jws.clone()).await;
            }
        } else {
            held.challenge().await.unwrap();
            held.answer(jws).await;
        }

        let lost = dpm.engine_is(id, EngineStatus::Disconnected).await;

        let why = lost.status_reason.as_deref().unwrap();
        assert!(why.contains("holds no stream to this DPM"), "{why}");
    }
}

#[tokio::test]
async fn stream_is_refused_to_others_than_the_registered_process_of_a_one_way_engine() {
    let keys = Keys::new();
    let other = own_deployment("dpe", "dpe-two");
    let stranger = own_deployment("dpe", "dpe-dev");
    let dpm = RunningDpm::start(module(&keys.dpm, &[&keys.dpe, &other])).await;
    let dpe = keys.dpe_module();
    let claim = claim_of(fresh_id());
    register(&dpm, &dpe, &claim).await.unwrap();
    let dialled = EngineClaim {
        hostname: "127.0.0.1".to_owned(),
        port: free_port().await.local_addr().unwrap().port(),
        ..claim_of(fresh_id())
    };
    register(&dpm, &dpe, &dialled).await.unwrap();
    let clone = EngineClaim {
        instance: Some(fresh_instance().to_string()),
        ..claim.clone()
    };
    let nameless = EngineClaim {
        instance: None,
        ..claim.clone()
    };
    let [others, strangers] = [&other, &stranger].map(|own| module(own, &[&keys.dpm]));

    for (caller, claim, code, reason) in [
        (
            &others,
            &claim,
            Code::PermissionDenied,
            Some(Reason::EngineNotOwned),
        ),
        (
            &strangers,
            &claim,
            Code::Unauthenticated,
            Some(Reason::KeyUnknown),
        ),
        (&dpe, &claim_of(fresh_id()), Code::NotFound, None),
        (&dpe, &clone, Code::NotFound, None),
        (&dpe, &nameless, Code::InvalidArgument, None),
        (&dpe, &dialled, Code::FailedPrecondition, None),
    ] {
        let refused = Held::open(&dpm, caller, claim).await.err().unwrap();

        assert_eq!(
            (refused.code(), reason_of(&refused)),
            (code, reason),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn stream_that_does_not_say_at_once_which_engine_it_is_is_refused() {
    let keys = Keys::new();
    let (dpm, dpe) = (
        RunningDpm::start(keys.dpm_module()).await,
        keys.dpe_module(),
    );
    let proof = say(Said::Proof(wire::Proof::default()));
    let nothing = wire::ConnectEngineRequest::default();

    for (first, code) in [
        (Some(proof), Code::InvalidArgument),
        (Some(nothing), Code::InvalidArgument),
        (None, Code::DeadlineExceeded),
    ] {
        let refused = Held::open_with(&dpm, &dpe, first).await.err().unwrap();

        assert_eq!(refused.code(), code, "{refused}");
    }
}

#[tokio::test]
async fn deployment_holds_two_streams_for_each_engine_that_it_may_have() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.limits.max_engines_per_deployment = 1;
    });
    let (dpe, claim) = (keys.dpe_module(), claim_of(fresh_id()));
    register(&dpm, &dpe, &claim).await.unwrap();
    let mut first = Held::open(&dpm, &dpe, &claim).await.unwrap();
    let _second = Held::open(&dpm, &dpe, &claim).await.unwrap();

    let third = Held::open(&dpm, &dpe, &claim).await.err().unwrap();

    assert_eq!(third.code(), Code::ResourceExhausted, "{third}");
    // One that ends makes room.
    first.answer("no proof".to_owned()).await;
    first.refused().await;
    let again = async { while Held::open(&dpm, &dpe, &claim).await.is_err() {} };
    soon("room for a stream", again).await;
}

#[tokio::test]
async fn one_way_engine_without_an_instance_is_not_registered() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let nameless = EngineClaim {
        instance: None,
        ..claim_of(fresh_id())
    };

    let refused = register(&dpm, &keys.dpe_module(), &nameless).await;

    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("`instance`"), "{refused}");
}

#[tokio::test]
async fn one_way_engine_comes_back_to_a_dpm_that_restarts() {
    let keys = Keys::new();
    let first = RunningDpm::start(keys.dpm_module()).await;
    let (address, home) = (first.address, tempfile::tempdir().unwrap());
    let dpe = RunningDpe::start_one_way(keys.dpe_module(), address, home.path(), |_| ());
    first.engine_is(dpe.id, EngineStatus::Ready).await;

    let drained = first.stop().await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let second = RunningDpm::start_with(keys.dpm_module(), listener, |_| ());

    // Its streams hold up no DPM that stops.
    assert_eq!(drained, grpc::Drained::InTime);
    second.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}

#[tokio::test]
async fn one_way_engine_that_is_killed_is_lost_and_comes_back_as_another_process() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_one_way(keys.dpe_module(), dpm.address, home.path(), |_| ());
    let (id, before) = (dpe.id, dpm.engine_is(dpe.id, EngineStatus::Ready).await);

    dpe.kill().await;
    dpm.engine_is(id, EngineStatus::Disconnected).await;
    // Its lease may be over first.
    dpm.reason(id, "the one-way engine on localhost").await;
    let back = RunningDpe::start_one_way(keys.dpe_module(), dpm.address, home.path(), |_| ());

    let now = dpm.engine_is(back.id, EngineStatus::Ready).await;
    assert_eq!(back.id, id);
    assert_ne!(now.instance, before.instance);
    back.stop().await;
}

#[tokio::test]
async fn one_way_engine_behind_a_partition_is_lost_and_comes_back_once_it_is_over() {
    let keys = Keys::new();
    let dpm = RunningDpm::start_with(keys.dpm_module(), free_port().await, |options| {
        options.monitor.checker_timeout = Duration::from_millis(100);
    });
    let (relay, home) = (Relay::to(dpm.address).await, tempfile::tempdir().unwrap());
    let dpe = RunningDpe::start_one_way(keys.dpe_module(), relay.address, home.path(), |options| {
        options.status_checker.call_timeout = Duration::from_millis(300);
    });
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    relay.partition();
    let lost = dpm.engine_is(dpe.id, EngineStatus::Disconnected).await;
    relay.heal();

    assert!(lost.dial_back_failure.is_some());
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
}

#[tokio::test]
async fn revocation_ends_the_stream_and_ready_at_once() {
    let keys = Keys::new();
    let (dpm_module, dpe) = (keys.dpm_module(), keys.dpe_module());
    let never = Duration::from_secs(3600);
    let dpm = RunningDpm::start_with(dpm_module.clone(), free_port().await, |options| {
        options.monitor.check_connected_interval = never;
    });
    let claim = claim_of(fresh_id());
    let id = claim.id.parse().unwrap();
    register(&dpm, &dpe, &claim).await.unwrap();
    let mut held = Held::open(&dpm, &dpe, &claim).await.unwrap();
    let (key, named) = (keys.dpe.clone(), claim.clone());
    let held = tokio::spawn(async move { held.answer_all(&key, &named).await });
    dpm.engine_is(id, EngineStatus::Ready).await;

    let mut revoked = trusted(&keys.dpe);
    revoked.keys[0].revoked = true;
    now_trusts(&dpm_module, vec![revoked]);

    let lost = dpm.engine_is(id, EngineStatus::Disconnected).await;
    let ended = soon("the end of the stream", held).await.unwrap();
    let refused = ended.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::KeyRevoked), "{refused}");
    let why = lost.status_reason.as_deref().unwrap();
    assert!(why.contains("every key of `dpe-dev` is revoked"), "{why}");
}

#[tokio::test]
async fn one_way_engine_of_a_dpm_that_takes_no_streams_says_that_it_is_older() {
    let mut logs = Logs::start();
    let keys = Keys::new();
    let dpm = keys.dpm_module();
    let (store, clock) = (Arc::new(MemoryStore::default()), Arc::clone(dpm.clock()));
    let registry = Arc::new(EngineRegistry::new(store, clock, Limits::default()));
    let (policy, options) = (AddressPolicy::default(), MonitorOptions::default());
    let monitor = Monitor::new(dpm.clone(), Arc::clone(&registry), policy, options);
    let service = EngineRegistryServiceServer::new(EngineRegistryService::new(registry, monitor));
    let methods = ["RegisterEngine", "Heartbeat", "DeregisterEngine"];
    let rules = methods
        .iter()
        .fold(MethodRules::deny_all(), |rules, method| {
            let path = PATH.replace("ConnectEngine", method);
            rules.allow(&path, Rule::any_identity()).unwrap()
        });
    let listener = free_port().await;
    let target = Target::new("127.0.0.1", listener.local_addr().unwrap().port());
    let (layer, routes) = (dpm.server_layer(rules), Routes::new(service));
    let options = ServerOptions::default();
    tokio::spawn(grpc::serve(listener, layer, routes, options, pending()));
    let home = tempfile::tempdir().unwrap();
    let storage = Storage::lock(&home.path().join("storage")).unwrap();
    let options = dpe::Options::new(StatusCheckerOptions::new(target));
    let dpe = Dpe::new(keys.dpe_module(), storage, None, options).unwrap();
    tokio::spawn(dpe.run(pending()));

    let line = logs.line(&["engineNotReady", "older than one-way"]).await;

    assert!(line.contains("countersign.dpe.one-way=false"), "{line}");
}

#[tokio::test]
async fn copy_of_a_one_way_engines_home_is_refused_and_the_recorded_engine_stays_ready() {
    let mut logs = Logs::start();
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let homes = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let start = |home: &tempfile::TempDir, host: &str| {
        RunningDpe::start_one_way(keys.dpe_module(), dpm.address, home.path(), |options| {
            host.clone_into(&mut options.hostname);
        })
    };
    let dpe = start(&homes[0], "a.example.org");
    let recorded = dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    let [original, copy] = homes.each_ref().map(|home| home.path().join("storage"));
    fs::create_dir(&copy).unwrap();
    fs::copy(original.join("engine-id"), copy.join("engine-id")).unwrap();

    let clone = start(&homes[1], "b.example.org");

    let line = logs.line(&["engineDuplicate", "ENGINE_DUPLICATE"]).await;
    assert_eq!(clone.id, dpe.id);
    for host in ["a.example.org", "b.example.org"] {
        assert!(line.contains(host), "{line}");
    }
    clone.stop().await;
    let now = dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    assert_eq!(now.instance, recorded.instance);
    assert_eq!(now.address, recorded.address);
    assert_eq!(now.registered_at, recorded.registered_at);
    dpe.stop().await;
}

#[tokio::test]
async fn one_way_engines_of_one_host_do_not_replace_each_other() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    let homes = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let start = |home: &tempfile::TempDir| {
        RunningDpe::start_one_way(keys.dpe_module(), dpm.address, home.path(), |_| ())
    };
    let lost = start(&homes[0]);
    let id = lost.id;
    dpm.engine_is(id, EngineStatus::Ready).await;
    lost.kill().await;
    dpm.engine_is(id, EngineStatus::Disconnected).await;

    let other = start(&homes[1]);
    dpm.engine_is(other.id, EngineStatus::Ready).await;
    other.stop().await;

    let kept = dpm.registry.find(id).await.unwrap().unwrap();
    assert_eq!(kept.status, EngineStatus::Disconnected);
}
