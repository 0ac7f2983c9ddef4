//! Layers 7 to 9: do the clocks agree, does the peer know this module and is it the expected one,
//! and does it give this module the role that it needs?

use tonic::{Code, Status};
use tower_layer::Layer as _;

use super::peer::Peer;
use super::probe;
use super::report::{Layer, Outcome, Row, Side, Visit};
use crate::clock::seconds_after;
use crate::config::names::ROLES;
use crate::diagnostic::CommandLine;
use crate::grpc::{
    AttachIdentity, Connection, OwnKey, call, callee_time, code_name, is_proved, reason_of,
    refusal_of, summary_and_detail,
};
use crate::properties::name::Pattern;
use crate::proto::identity::identity_service_client::IdentityServiceClient;
use crate::proto::identity::{WhoAmIRequest, WhoAmIResponse};
use crate::telemetry::Untrusted;
use crate::token::{Reason, Refusal};
use crate::trust::Deployment;

/// Connects and calls `WhoAmI`, which shows the clock and how the peer takes the token; returns the
/// channel for more calls, and the roles that the peer gives this module.
pub(super) async fn acquaint(
    visit: &mut Visit,
    peer: &Peer<'_>,
) -> Result<(AttachIdentity<Connection>, String), Row> {
    let connection = probe::reach(visit, peer).await?;
    let clock = peer.doctor.module.clock();
    let channel = peer.identity.layer(connection);
    let mut client =
        IdentityServiceClient::new(channel.clone()).max_decoding_message_size(64 * 1024);
    let sent = clock.now();
    let (limit, question) = (peer.limit(), WhoAmIRequest {});
    let answer = call(limit, question, |request| client.who_am_i(request)).await;
    let received = clock.now();
    let time = match &answer {
        Ok(answer) => answer.server_time.and_then(|time| time.try_into().ok()),
        Err(status) => callee_time(status),
    };
    let ahead =
        time.map(|time| f64::midpoint(seconds_after(time, sent), seconds_after(time, received)));
    visit.add(clocks(peer, answer.as_ref().err(), ahead)?);
    Ok((channel, visit.found(token(peer, answer)?)))
}

/// Less is not worth a number: the way there and back takes time, too.
const IN_STEP_SECONDS: f64 = 0.5;

/// Judges the peer's clock, which is `ahead` by so many seconds if the peer reported its time.
fn clocks(peer: &Peer<'_>, refused: Option<&Status>, ahead: Option<f64>) -> Result<Row, Row> {
    let limit = peer.doctor.module.policy().leeway().as_secs_f64();
    let reason = refused.and_then(reason_of);
    let because = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let differ = match (ahead, reason) {
        (Some(ahead), _) => {
            let which = if ahead < 0.0 { "behind" } else { "ahead" };
            let apart = ahead.abs();
            let detail = if apart < IN_STEP_SECONDS {
                format!("in step within {IN_STEP_SECONDS} s (limit {limit} s)")
            } else {
                format!("peer is {apart:.1} s {which} (limit {limit} s)")
            };
            match refused {
                // A refusal says what time it is only if the clocks may be why.
                Some(status) if apart >= limit => {
                    detail + unless_proved(status, ", as it says itself (unproved)")
                }
                None if apart > limit / 2.0 => {
                    let half = ": over half of the limit, check NTP on both hosts";
                    return Ok(Row::ok(Layer::Clock, detail + half));
                }
                Some(_) | None => return Ok(Row::ok(Layer::Clock, detail)),
            }
        }
        (None, Some(Reason::TokenExpired | Reason::TokenNotYetValid)) => {
            "the clocks differ".to_owned()
        }
        (None, Some(_) | None) => {
            let detail = "unknown: the peer reports its clock only to authenticated callers";
            return Ok(Row::skip(Layer::Clock, detail));
        }
    };
    let row = Row::fail(Layer::Clock, Side::Between, differ + &because);
    Err(compare_clocks(row, &peer.name))
}

/// Adds how the clock here is compared with that of `name`.
pub(super) fn compare_clocks(row: Row, name: &str) -> Row {
    row.help(format!("compare `date -u` here and on the host of {name}"))
        .help("on the host with the wrong time: timedatectl set-ntp true")
}

/// Returns `note`, unless it is known whose word a refusal is: this module's own, or the proved
/// peer's.
fn unless_proved(status: &Status, note: &'static str) -> &'static str {
    let is_own = reason_of(status).is_some_and(Reason::is_raised_by_caller);
    if is_own || is_proved(status) {
        ""
    } else {
        note
    }
}

fn token(peer: &Peer<'_>, answer: Result<WhoAmIResponse, Status>) -> Outcome<String> {
    let name = &peer.name;
    let known = answer.map(|answer| {
        let identity = answer.identity.unwrap_or_default();
        let (module, id) = (Untrusted(&identity.module), Untrusted(&identity.id));
        let roles = Untrusted(identity.roles.join(", ")).to_string();
        let detail = format!(
            "{name} knows this module as ServiceIdentity(module={module}, id={id}, roles=[{roles}])"
        );
        (roles, Row::ok(Layer::Token, detail))
    });
    known.map_err(|status| {
        let trusted = peer.trusted();
        let unusable = trusted.filter(|deployment| deployment.active_keys().next().is_none());
        match (unusable, refusal_of(&status)) {
            (Some(deployment), _) => revoked_here(peer, &deployment),
            (None, Some(refusal)) => refused(peer, &refusal, &status),
            (None, None) => not_refused(Layer::Token, peer, &status),
        }
    })
}

/// Says that this module's own file does not let it call the peer, all of whose keys it revokes.
fn revoked_here(peer: &Peer<'_>, deployment: &Deployment) -> Row {
    let (name, file) = (&peer.name, peer.remedy.own_file());
    let detail = format!("not called: every key of `{name}` is revoked in {file}");
    let home = &peer.doctor.options.home;
    let undo = CommandLine::new("countersign revoke --undo").option("file", home);
    let of = undo.option("deployment", deployment.name.as_str());
    Row::fail(Layer::Token, Side::Here, detail)
        .help(format!("{name} needs a new key that is trusted here:"))
        .helps(peer.remedy.rotate(false))
        .helps(deployment.keys.iter().map(|key| {
            let command = of.clone().option("key", &key.name);
            format!("only if `{}` was revoked by mistake: {command}", key.name)
        }))
}

/// Says on which side to act on a refusal of the token, or of the peer's proof.
fn refused(peer: &Peer<'_>, refusal: &Refusal, status: &Status) -> Row {
    let (reason, name, remedy) = (refusal.reason, &peer.name, &peer.remedy);
    let own = peer.doctor.module.own();
    let key = own.key_id.as_str();
    let unsigned = unless_proved(status, " (unproved: the refusal is not signed)");
    // A callee cannot sign for a key that it refuses: nothing shows which module it is.
    let at = &peer.target;
    let server = format!("the server at {at}, which did not prove to be {name} (unproved),");
    let own_key = OwnKey::refused_for(reason);
    let (side, what) = match (&peer.deployment, own_key) {
        (None, _) => (Side::Here, format!("{server} does not accept its token")),
        (_, Some(OwnKey::Revoked)) => (Side::Peer, OwnKey::Revoked.describe(name, key) + unsigned),
        (_, Some(unknown)) => (Side::Between, unknown.describe(&server, key)),
        (_, None) => (Side::Between, summary_and_detail(refusal) + unsigned),
    };
    let port = format!("either another module answers there: {}", remedy.port);
    let help = match (&peer.deployment, own_key) {
        (None, _) => vec![
            port,
            remedy.host.clone(),
            format!("or it runs with another key than {}:", remedy.own_file()),
            "its log shows the key at `startup` and `configReloaded`".to_owned(),
            remedy.start(),
        ],
        (_, Some(OwnKey::Revoked)) => {
            let undo = remedy.at_peer(|home| {
                let undo = CommandLine::new("countersign revoke --undo").option("file", home);
                undo.option("fingerprint", key)
            });
            let new = vec!["this module needs a new key:".to_owned()];
            let undone = vec![format!("only if it was revoked by mistake: {undo}")];
            [new, remedy.rotate(true), undone].concat()
        }
        (_, Some(_)) => {
            let list = CommandLine::new("countersign deployment list");
            let known = vec![
                port,
                remedy.host.clone(),
                format!("or {name} does not trust this key:"),
                remedy.at_peer(|home| list.option("home", home)),
            ];
            [known, remedy.check(), remedy.pair(false)].concat()
        }
        (_, None) => [remedy.check(), remedy.pair(false)].concat(),
    };
    let code = code_name(status.code());
    Row::fail(Layer::Token, side, format!("{code} {reason}: {what}"))
        .help(reason.explain())
        .helps(help)
}

/// Reports the result of a call that needs the role.
pub(super) fn role<T>(peer: &Peer<'_>, answer: Result<T, Status>) -> Outcome<T> {
    let (name, module) = (&peer.name, &peer.doctor.module);
    let detail = format!("{name} gives this module the role that it needs");
    let found = answer.map(|answer| (answer, Row::ok(Layer::Role, detail)));
    found.map_err(|status| match reason_of(&status) {
        Some(Reason::RoleMissing) => {
            let (code, role) = (code_name(status.code()), module.impersonation_role());
            let detail = format!("{code} ROLE_MISSING: {name} gives this module no role {role}");
            let row = Row::fail(Layer::Role, Side::Peer, detail);
            let file = format!("the file of {name}");
            grant_role(row, peer, &file, module.own().issuer())
        }
        Some(reason) => {
            Row::fail(Layer::Role, Side::Between, reply_text(&status)).help(reason.explain())
        }
        None => not_refused(Layer::Role, peer, &status),
    })
}

/// Adds the line that gives `deployment` the role in `file`.
pub(super) fn grant_role(row: Row, peer: &Peer<'_>, file: &str, deployment: &str) -> Row {
    let role = peer.doctor.module.impersonation_role();
    let roles = Pattern::new(ROLES).with_keys(&[deployment.to_owned()]);
    row.help(format!("write into {file}: {roles}[0]={role}"))
}

/// Makes the row of a call that failed without a refusal reason.
fn not_refused(layer: Layer, peer: &Peer<'_>, status: &Status) -> Row {
    if status.code() == Code::Unimplemented {
        let what = match layer {
            Layer::Token => "serves gRPC, but no IdentityService",
            _ => "is not the expected kind of module",
        };
        let detail = format!("{} {what}", peer.target);
        return Row::fail(layer, Side::Here, detail).help(&peer.remedy.port);
    }
    Row::fail(layer, Side::Between, reply_text(status))
        .help("look for a proxy between the two, and read the peer's log")
}

/// Returns the callee's status as text, with its message escaped.
fn reply_text(status: &Status) -> String {
    let (code, message) = (code_name(status.code()), Untrusted(status.message()));
    format!("{code}: {message}")
}
