//! Layer 8: does the peer know this module, and is it who it should be?

use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use tonic::{Code, Request, Status};
use tower_layer::Layer as _;

use super::peer::Peer;
use super::report::{Fault, Found, Side};
use crate::grpc::{
    Connection, OwnKey, callee_time, code_name, is_proved, refusal_of, summary_and_detail,
};
use crate::proto::identity as wire;
use crate::proto::identity::identity_service_client::IdentityServiceClient;
use crate::telemetry::Untrusted;
use crate::token::{Reason, Refusal};

/// What `WhoAmI` came to.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) answer: Result<wire::WhoAmIResponse, Status>,
    /// By how many seconds the peer's clock is ahead, where it told its time.
    pub(super) peer_ahead: Option<f64>,
}

/// How the peer knows this module.
#[derive(Debug)]
pub(super) struct Known {
    identity: wire::ServiceIdentity,
}

impl Known {
    /// Says which roles the peer gives this module.
    pub(super) fn roles(&self) -> String {
        let roles = self.identity.roles.join(", ");
        format!("roles there: [{}]", Untrusted(roles))
    }
}

pub(super) async fn ask(peer: &Peer, connection: &Connection, limit: Duration) -> Asked {
    let clock = peer.module.clock();
    let channel = peer.identity.layer(connection.channel());
    let mut client = IdentityServiceClient::new(channel).max_decoding_message_size(64 * 1024);
    let mut request = Request::new(wire::WhoAmIRequest {});
    request.set_timeout(limit);
    let sent = clock.now();
    let answer = timeout(limit, client.who_am_i(request)).await;
    let received = clock.now();
    let late = || Status::deadline_exceeded(format!("no answer within {limit:?}"));
    let answer = answer.unwrap_or_else(|_elapsed| Err(late()));
    let answer = answer.map(tonic::Response::into_inner);
    let time = match &answer {
        Ok(answer) => answer
            .server_time
            .and_then(|time| SystemTime::try_from(time).ok()),
        Err(status) => callee_time(status),
    };
    Asked {
        answer,
        peer_ahead: time.map(|time| f64::midpoint(seconds(time, sent), seconds(time, received))),
    }
}

/// By how many seconds `time` is after `other`.
fn seconds(time: SystemTime, other: SystemTime) -> f64 {
    match time.duration_since(other) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

pub(super) fn judge(peer: &Peer, asked: Asked) -> Result<Found<Known>, Fault> {
    let status = match asked.answer {
        Ok(answer) => return Ok(known(peer, answer)),
        Err(status) => status,
    };
    if let Some(keys) = peer.revoked_keys() {
        return Err(revoked_here(peer, &keys));
    }
    Err(match refusal_of(&status) {
        Some(refusal) if peer.side() == Side::Here => not_itself(peer, refusal.reason, &status),
        Some(refusal) => refused(peer, &refusal, &status),
        None if status.code() == Code::Unimplemented => {
            let detail = format!("{} serves gRPC, but no IdentityService", peer.target);
            let fault = Fault::new(Side::Here, detail);
            fault.help(peer.words.port.clone())
        }
        None => {
            let code = code_name(status.code());
            let detail = format!("{code}: {}", Untrusted(status.message()));
            let fault = Fault::new(Side::Between, detail);
            fault.help("look for a proxy between the two, and into the peer's log")
        }
    })
}

/// Says that this module's own file lets it call nobody there.
fn revoked_here(peer: &Peer, keys: &[String]) -> Fault {
    let (name, file) = (&peer.name, &peer.words.file);
    let detail = format!("not called: every key of `{name}` is revoked in {file}");
    let fault = Fault::new(Side::Here, detail);
    let setting = format!("ataccama.one.platform.deployments.{name}.security.jwt-keys");
    let fault = keys.iter().fold(fault, |fault, key| {
        fault.help(format!(
            "revoked by mistake? write in {file}: {setting}.{key}.is-revoked=false"
        ))
    });
    let fault = fault.help(format!("else {name} needs a new key that is trusted here:"));
    fault.help(peer.words.both.rotate_peer())
}

fn known(peer: &Peer, answer: wire::WhoAmIResponse) -> Found<Known> {
    let identity = answer.identity.unwrap_or_default();
    let (module, id) = (Untrusted(&identity.module), Untrusted(&identity.id));
    let roles = identity.roles.join(", ");
    let detail = format!(
        "{} knows this module as ServiceIdentity(module={module}, id={id}, roles=[{}])",
        peer.name,
        Untrusted(roles)
    );
    Found::new(Known { identity }, detail)
}

/// Says that a module which asked itself was refused: it asks itself for no proof, so nothing
/// shows who answered.
fn not_itself(peer: &Peer, reason: Reason, status: &Status) -> Fault {
    let code = code_name(status.code());
    let detail = format!("{code} {reason}: {} does not take its token", who(peer));
    let words = &peer.words;
    let fault = Fault::new(Side::Here, detail).help(format!("countersign explain {reason}"));
    let fault = fault.help(format!(
        "either another module answers there: {}",
        words.port
    ));
    let fault = fault.help(words.host.clone());
    let fault = fault.help(format!("or it runs with another key than {}:", words.file));
    let fault = fault.help("its log says at `startup` and `configReloaded` with which");
    fault.help(words.start.clone())
}

fn refused(peer: &Peer, refusal: &Refusal, status: &Status) -> Fault {
    let reason = refusal.reason;
    let (name, own) = (&peer.name, peer.module.own());
    let key = &own.key_id;
    let code = code_name(status.code());
    let own_key = OwnKey::refused_for(reason);
    let what = match own_key {
        Some(OwnKey::Revoked) => OwnKey::Revoked.describe(name, key.as_str()),
        Some(unknown) => unknown.describe(&who(peer), key.as_str()),
        None => summary_and_detail(refusal),
    };
    let side = match own_key {
        Some(OwnKey::Revoked) => Side::Peer,
        Some(OwnKey::Unknown | OwnKey::Differs) | None => Side::Between,
    };
    // No callee signs for a caller whose signature did not verify, and proofs are judged here.
    let signable = matches!(own_key, Some(OwnKey::Revoked) | None) && !reason.is_raised_by_caller();
    let unproved = if signable && !is_proved(status) {
        " (unproved: the refusal is not signed)"
    } else {
        ""
    };
    let fault = Fault::new(side, format!("{code} {reason}: {what}{unproved}"));
    let fault = fault.help(format!("countersign explain {reason}"));
    if own_key == Some(OwnKey::Revoked) {
        let fault = fault.help(format!(
            "revoked by mistake? write into the file of {name}: `is-revoked=false` for that key"
        ));
        let fault = fault.help("where it is intended, this module needs a new key:");
        return fault.help(peer.words.both.rotate_own());
    }
    let fault = if own_key.is_some() {
        let port = &peer.words.port;
        let fault = fault.help(format!("either another module answers there: {port}"));
        let fault = fault.help(peer.words.host.clone());
        let fault = fault.help(format!("or {name} does not trust this key:"));
        fault.help(peer.words.list.clone())
    } else {
        fault
    };
    let fault = fault.help(peer.words.check.clone());
    fault.help(peer.words.both.pair(false))
}

/// Calls whoever refused a key that it cannot sign for: nothing shows that it is the peer.
fn who(peer: &Peer) -> String {
    format!(
        "whoever answers at {} did not prove to be {} (unproved) and",
        peer.target, peer.name
    )
}
