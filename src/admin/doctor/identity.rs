//! Layers 7 to 9: do the clocks agree, does the peer know this module and is it the expected one, and
//! does it give this module the role that it needs?

use std::time::SystemTime;

use tokio::time::Instant;
use tonic::{Code, Status};
use tower_layer::Layer as _;

use super::peer::Peer;
use super::report::{Layer, Outcome, Row, Side, Visit};
use crate::grpc::{
    Connection, OwnKey, call, callee_time, code_name, is_proved, refusal_of, summary_and_detail,
};
use crate::proto::identity::identity_service_client::IdentityServiceClient;
use crate::proto::identity::{ServiceIdentity, WhoAmIRequest, WhoAmIResponse};
use crate::telemetry::Untrusted;
use crate::token::{Reason, Refusal};

/// Calls `WhoAmI`, which shows the clock and how the peer takes the token; returns the roles that the
/// peer gives this module.
pub(super) async fn acquaint(
    visit: &mut Visit,
    peer: &Peer,
    connection: &Connection,
) -> Option<String> {
    let start = Instant::now();
    let asked = ask(peer, connection).await;
    visit.note(clock(peer, &asked))?;
    visit.note_since(start, token(peer, asked.answer))
}

/// What `WhoAmI` came to.
#[derive(Debug)]
struct Asked {
    answer: Result<WhoAmIResponse, Status>,
    /// By how many seconds the peer's clock is ahead, if it said what time it is.
    peer_ahead: Option<f64>,
}

async fn ask(peer: &Peer, connection: &Connection) -> Asked {
    let clock = peer.module.clock();
    let channel = peer.identity.layer(connection.channel());
    let mut client = IdentityServiceClient::new(channel).max_decoding_message_size(64 * 1024);
    let sent = clock.now();
    let asking = call(peer.limit, WhoAmIRequest {}, |request| {
        client.who_am_i(request)
    });
    let answer = asking.await;
    let received = clock.now();
    let time = match &answer {
        Ok(answer) => answer
            .server_time
            .and_then(|time| SystemTime::try_from(time).ok()),
        Err(status) => callee_time(status),
    };
    Asked {
        peer_ahead: time.map(|time| f64::midpoint(seconds(time, sent), seconds(time, received))),
        answer,
    }
}

/// By how many seconds `time` is after `other`.
fn seconds(time: SystemTime, other: SystemTime) -> f64 {
    match time.duration_since(other) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// Less is not worth a number: the way there and back takes time, too.
const IN_STEP_SECONDS: f64 = 0.5;

fn clock(peer: &Peer, asked: &Asked) -> Outcome<()> {
    let limit = peer.module.policy().leeway().as_secs_f64();
    let refused = asked.answer.as_ref().err();
    let reason = refused.and_then(|status| Some(refusal_of(status)?.reason));
    let because = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let differs = |detail| {
        let row = Row::fail(Layer::Clock, Side::Between, detail);
        Err(compare_clocks(row, &peer.name))
    };
    let Some(ahead) = asked.peer_ahead else {
        if matches!(
            reason,
            Some(Reason::TokenExpired | Reason::TokenNotYetValid)
        ) {
            return differs(format!("the clocks differ{because}"));
        }
        let detail = "unknown: the peer reports its clock only to authenticated callers";
        return Ok(((), Row::skip(Layer::Clock, detail)));
    };
    let which = if ahead < 0.0 { "behind" } else { "ahead" };
    let seconds = ahead.abs();
    let mut detail = if seconds < IN_STEP_SECONDS {
        format!("in step within {IN_STEP_SECONDS} s (limit {limit} s)")
    } else {
        format!("peer is {seconds:.1} s {which} (limit {limit} s)")
    };
    // A refusal says what time it is only if the clocks may be why.
    if let Some(status) = refused.filter(|_| seconds >= limit) {
        let is_own = reason.is_some_and(Reason::is_raised_by_caller);
        let unproved = if is_own || is_proved(status) {
            ""
        } else {
            ", as it says itself (unproved)"
        };
        return differs(format!("{detail}{unproved}{because}"));
    }
    if refused.is_none() && seconds > limit / 2.0 {
        detail += ": over half of the limit, check NTP on both hosts";
    }
    Ok(((), Row::ok(Layer::Clock, detail)))
}

/// Adds how the clock here is compared with that of `name`.
pub(super) fn compare_clocks(row: Row, name: &str) -> Row {
    row.help(format!("compare `date -u` here and on the host of {name}"))
        .help("where it is wrong: timedatectl set-ntp true")
}

fn token(peer: &Peer, answer: Result<WhoAmIResponse, Status>) -> Outcome<String> {
    let status = match answer {
        Ok(answer) => return Ok(known(peer, &answer.identity.unwrap_or_default())),
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
            fail(Side::Here, detail).help(&peer.remedy.port)
        }
        None => fail(Side::Between, said(&status))
            .help("look for a proxy between the two, and into the peer's log"),
    })
}

fn fail(side: Side, detail: String) -> Row {
    Row::fail(Layer::Token, side, detail)
}

fn known(peer: &Peer, identity: &ServiceIdentity) -> (String, Row) {
    let (module, id) = (Untrusted(&identity.module), Untrusted(&identity.id));
    let roles = Untrusted(identity.roles.join(", ")).to_string();
    let detail = format!(
        "{} knows this module as ServiceIdentity(module={module}, id={id}, roles=[{roles}])",
        peer.name
    );
    (roles, Row::ok(Layer::Token, detail))
}

/// Says that this module's own file does not let it call the peer.
fn revoked_here(peer: &Peer, keys: &[String]) -> Row {
    let (name, file) = (&peer.name, peer.remedy.own_file());
    let detail = format!("not called: every key of `{name}` is revoked in {file}");
    let setting = format!("ataccama.one.platform.deployments.{name}.security.jwt-keys");
    fail(Side::Here, detail)
        .helps(keys.iter().map(|key| {
            format!("revoked by mistake? write in {file}: {setting}.{key}.is-revoked=false")
        }))
        .help(format!("else {name} needs a new key that is trusted here:"))
        .help(peer.remedy.rotate_peer())
}

/// Says that a module which asked itself was refused: it asks itself for no proof, so nothing
/// shows which module answered.
fn not_itself(peer: &Peer, reason: Reason, status: &Status) -> Row {
    let (code, remedy) = (code_name(status.code()), &peer.remedy);
    let detail = format!(
        "{code} {reason}: {} does not take its token",
        unproved(peer)
    );
    fail(Side::Here, detail)
        .help(format!("countersign explain {reason}"))
        .help(format!(
            "either another module answers there: {}",
            remedy.port
        ))
        .help(&remedy.host)
        .help(format!(
            "or it runs with another key than {}:",
            remedy.own_file()
        ))
        .help("its log says at `startup` and `configReloaded` with which")
        .help(remedy.start())
}

fn refused(peer: &Peer, refusal: &Refusal, status: &Status) -> Row {
    let (reason, name, remedy) = (refusal.reason, &peer.name, &peer.remedy);
    let own = peer.module.own();
    let key = own.key_id.as_str();
    let head = format!("{} {reason}: ", code_name(status.code()));
    let explain = format!("countersign explain {reason}");
    match OwnKey::refused_for(reason) {
        Some(OwnKey::Revoked) => {
            let what = OwnKey::Revoked.describe(name, key);
            fail(Side::Peer, format!("{head}{what}{}", unsigned(status)))
                .help(explain)
                .help(format!(
                    "revoked by mistake? write into the file of {name}: `is-revoked=false` for that key"
                ))
                .help("where it is intended, this module needs a new key:")
                .help(remedy.rotate_own())
        }
        // No callee signs for a caller whose signature did not verify.
        Some(unknown) => {
            let what = unknown.describe(&unproved(peer), key);
            fail(Side::Between, head + &what)
                .help(explain)
                .help(format!(
                    "either another module answers there: {}",
                    remedy.port
                ))
                .help(&remedy.host)
                .help(format!("or {name} does not trust this key:"))
                .help(remedy.list())
                .help(remedy.check())
                .help(remedy.pair(false))
        }
        None => {
            // What this module itself finds wrong with a proof is not signed either.
            let unsigned = if reason.is_raised_by_caller() {
                ""
            } else {
                unsigned(status)
            };
            let what = summary_and_detail(refusal);
            fail(Side::Between, format!("{head}{what}{unsigned}"))
                .help(explain)
                .help(remedy.check())
                .help(remedy.pair(false))
        }
    }
}

fn unsigned(status: &Status) -> &'static str {
    if is_proved(status) {
        ""
    } else {
        " (unproved: the refusal is not signed)"
    }
}

/// Names a callee that cannot sign for the key that it refuses: nothing shows that it is the peer.
fn unproved(peer: &Peer) -> String {
    format!(
        "the server at {}, which did not prove to be {} (unproved),",
        peer.target, peer.name
    )
}

/// Says what came of a call that needs the role.
pub(super) fn role<T>(peer: &Peer, answer: Result<T, Status>) -> Outcome<T> {
    let name = &peer.name;
    let fail = |side, detail| Row::fail(Layer::Role, side, detail);
    let status = match answer {
        Ok(answer) => {
            let detail = format!("{name} gives this module the role that it needs");
            return Ok((answer, Row::ok(Layer::Role, detail)));
        }
        Err(status) => status,
    };
    let code = code_name(status.code());
    Err(match refusal_of(&status).map(|refusal| refusal.reason) {
        Some(Reason::RoleMissing) => {
            let role = peer.module.impersonation_role();
            let own = peer.module.own();
            let caller = own.issuer();
            let detail = format!("{code} ROLE_MISSING: {name} gives this module no role {role}");
            fail(Side::Peer, detail).help(format!(
                "write into the file of {name}: ataccama.one.platform.deployments.{caller}.security.roles[0]={role}"
            ))
        }
        Some(reason) => {
            fail(Side::Between, said(&status)).help(format!("countersign explain {reason}"))
        }
        None if status.code() == Code::Unimplemented => {
            let detail = format!("{} is a module of another kind", peer.target);
            fail(Side::Here, detail).help(&peer.remedy.port)
        }
        None => fail(Side::Between, said(&status)),
    })
}

/// Repeats what the callee says.
fn said(status: &Status) -> String {
    format!(
        "{}: {}",
        code_name(status.code()),
        Untrusted(status.message())
    )
}
