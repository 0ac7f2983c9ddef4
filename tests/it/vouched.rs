//! The callee proves itself once on each connection, and is believed as long as it is trusted.

use std::time::Duration;

use countersign::dpe::Registration;
use countersign::engine::EngineStatus;
use countersign::grpc::{AttachIdentity, Connection, NONCE, PROOF, reason_of};
use countersign::testing::{own_deployment, trusted};
use countersign::{Module, Reason, Rule};
use tonic::Status;
use tonic::transport::Endpoint;
use tower_layer::Layer as _;

use crate::support::echo::{Client, Echo, SAY};
use crate::support::middlebox::Middlebox;
use crate::support::relay::Relay;
use crate::support::world::{Keys, RunningDpe, RunningDpm, channel, now_trusts, soon};

/// A DPM's echo, a middlebox that sees who asks for a proof, and a network before it.
struct World {
    keys: Keys,
    middlebox: Middlebox,
    relay: Relay,
    dpe: Module,
}

impl World {
    async fn start() -> Self {
        Self::start_by(Rule::any_identity()).await
    }

    async fn start_by(rule: Rule) -> Self {
        let keys = Keys::new();
        let callee = Echo::serve_by(&keys.dpm_module(), rule).await;
        let middlebox = Middlebox::before(callee, |_, _| ()).await;
        Self {
            dpe: keys.dpe_module(),
            relay: Relay::to(middlebox.address).await,
            middlebox,
            keys,
        }
    }

    async fn channel(&self) -> AttachIdentity<Connection> {
        let layer = self
            .dpe
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap();
        layer.layer(channel(self.relay.address).await)
    }

    /// Returns of each call that arrived whether it asked for a proof.
    fn asked(&self) -> Vec<bool> {
        let seen = self.middlebox.seen.lock().unwrap();
        let calls = seen.iter().filter(|head| head.uri.path() == SAY);
        calls.map(|head| head.headers.contains_key(NONCE)).collect()
    }
}

#[tokio::test]
async fn every_new_connection_is_proved_once_in_handshake_mode() {
    let world = World::start().await;
    let mut client = Client::new(world.channel().await);
    for round in 1..=3 {
        let said = async { while client.say("x").await.is_err() {} };
        soon("an answer", said).await;
        client.say("x").await.unwrap();
        client.say("x").await.unwrap();

        assert_eq!(world.asked(), [true, false, false].repeat(round));
        world.relay.reset();
    }
}

#[tokio::test]
async fn calls_before_the_verdict_ask_for_their_own_proof() {
    let world = World::start().await;
    let channel = world.channel().await;
    let (mut one, mut two) = (Client::new(channel.clone()), Client::new(channel));

    let (first, second) = tokio::join!(one.say("x"), two.say("x"));

    first.and(second).unwrap();
    assert_eq!(world.asked(), [true, true]);
    one.say("x").await.unwrap();
    assert_eq!(world.asked(), [true, true, false]);
}

#[tokio::test]
async fn callee_of_whom_anything_changed_here_proves_itself_again() {
    let world = World::start().await;
    let mut client = Client::new(world.channel().await);
    client.say("x").await.unwrap();
    client.say("x").await.unwrap();

    let mut changed = trusted(&world.keys.dpm);
    changed.single_use_tokens = true;
    now_trusts(&world.dpe, vec![changed]);

    client.say("x").await.unwrap();
    client.say("x").await.unwrap();
    assert_eq!(world.asked(), [true, false, true, false]);
}

#[tokio::test]
async fn a_foreign_channel_is_proved_again_after_a_transport_error() {
    let world = World::start().await;
    let url = format!("http://{}", world.relay.address);
    let foreign = Endpoint::from_shared(url).unwrap().connect_lazy();
    let layer = world
        .dpe
        .client_layer("dpm-dev", countersign::Transport::loopback())
        .unwrap();
    let mut client = Client::new(layer.layer(foreign));
    client.say("x").await.unwrap();
    client.say("x").await.unwrap();
    world.relay.reroute(None);
    let lost = async { while client.say("x").await.is_ok() {} };
    soon("a transport error", lost).await;
    let before = world.asked().len();

    world.relay.reroute(Some(world.middlebox.address));

    client.say("x").await.unwrap();
    client.say("x").await.unwrap();
    assert_eq!(world.asked()[before..], [true, false]);
    assert_eq!(world.asked()[..2], [true, false]);
}

#[tokio::test]
async fn method_for_everyone_may_be_the_first_that_is_called() {
    let world = World::start_by(Rule::everyone()).await;
    let mut client = Client::new(world.channel().await);

    client.say("x").await.unwrap();
    client.say("x").await.unwrap();

    assert_eq!(world.asked(), [true, false]);
}

#[tokio::test]
async fn an_impostor_on_the_dpms_port_is_noticed_at_once() {
    let keys = Keys::new();
    let dpm = RunningDpm::start(keys.dpm_module()).await;
    // It answers as the DPM does, and has no key.
    let impostor = Middlebox::before(dpm.address, |_, reply| {
        reply.headers_mut().remove(PROOF);
    })
    .await;
    let relay = Relay::to(dpm.address).await;
    let home = tempfile::tempdir().unwrap();
    let dpe = RunningDpe::start_with(keys.dpe_module(), relay.address, home.path(), |options| {
        options.status_checker.check_connection_interval = Duration::from_secs(60);
    });
    dpm.engine_is(dpe.id, EngineStatus::Ready).await;

    relay.reroute(Some(impostor.address));

    let mut registration = dpe.registration.clone();
    let absent = registration.wait_for(|now| *now == Registration::Absent);
    soon("that the DPM is missed", absent).await.unwrap();
    dpe.stop().await;
    dpm.stop().await;
}

/// Calls a DPM's echo, of whose keys the DPE learns by `change` while the reply is on its way.
async fn said_while(change: impl Fn(&Module, &Keys) + Send + Sync + 'static) -> Result<(), Status> {
    let keys = Keys::new();
    let dpe = keys.dpe_module();
    let callee = Echo::serve(&keys.dpm_module()).await;
    let (layer, own) = (
        dpe.client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap(),
        dpe.clone(),
    );
    let middlebox = Middlebox::before(callee, move |_, _| change(&own, &keys)).await;
    let mut client = Client::new(layer.layer(channel(middlebox.address).await));
    client.say("x").await.map(drop)
}

fn revoked(keys: &Keys) -> countersign::trust::Deployment {
    let mut revoked = trusted(&keys.dpm);
    revoked.keys[0].revoked = true;
    revoked
}

#[tokio::test]
async fn a_proof_is_judged_by_the_trust_at_its_arrival() {
    let removed = said_while(|dpe, _| now_trusts(dpe, vec![])).await;
    let revoked = said_while(|dpe, keys| now_trusts(dpe, vec![revoked(keys)])).await;
    let kept = said_while(|dpe, keys| now_trusts(dpe, vec![trusted(&keys.dpm)])).await;

    for refused in [removed.unwrap_err(), revoked.unwrap_err()] {
        assert_eq!(reason_of(&refused), Some(Reason::ProofInvalid), "{refused}");
    }
    kept.unwrap();
}

#[tokio::test]
async fn an_open_client_stream_ends_when_its_callee_is_no_longer_trusted() {
    for is_removed in [true, false] {
        let world = World::start().await;
        let mut client = Client::new(world.channel().await);
        let (send, mut replies) = client.chat().await.unwrap().into_inner();
        send.send("one".to_owned()).await.unwrap();
        assert_eq!(replies.message().await.unwrap().unwrap(), "one");

        now_trusts(
            &world.dpe,
            if is_removed {
                vec![]
            } else {
                vec![revoked(&world.keys)]
            },
        );

        let ended = soon("the stream's end", replies.message())
            .await
            .unwrap_err();
        assert_eq!(reason_of(&ended), Some(Reason::ProofInvalid), "{ended}");
    }
}

#[tokio::test]
async fn an_open_client_stream_goes_on_when_another_deployment_changes() {
    let world = World::start().await;
    let mut client = Client::new(world.channel().await);
    let (send, mut replies) = client.chat().await.unwrap().into_inner();
    let other = own_deployment("dpm", "dpm-two");

    now_trusts(&world.dpe, vec![trusted(&world.keys.dpm), trusted(&other)]);

    send.send("one".to_owned()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");
}
