//! A module that this one calls; layer 10: does the DPM reach this engine?

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use tower_layer::Layer as _;

use super::identity::{self, compare_clocks};
use super::peer::Peer;
use super::probe;
use super::remedy::Options;
use super::report::{Layer, Outcome, Row, Side, Visit};
use crate::admin::rejection::{Rejection, newest};
use crate::config::Settings;
use crate::dpe::stored_engine_id;
use crate::engine::{EngineId, FailureKind};
use crate::grpc::{self, Connection, call, cause};
use crate::identity::DeploymentName;
use crate::proto::convert::status_word;
use crate::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use crate::proto::registry::{Engine, EngineStatus, GetEngineRequest};
use crate::telemetry::{Untrusted, UntrustedReason};
use crate::token::Reason;

/// Visits a module that this one calls: its DPM, or another one.
pub(super) async fn visit(peer: &Peer, settings: &Settings, options: &Options) -> Visit {
    let mut visit = Visit::to(format!("{} at {}", peer.name, peer.target));
    // `None` says that a layer failed, which is noted.
    let _ = examine(&mut visit, peer, settings, options).await;
    visit.end()
}

async fn examine(
    visit: &mut Visit,
    peer: &Peer,
    settings: &Settings,
    options: &Options,
) -> Option<()> {
    let connection = probe::reach(visit, peer).await?;
    let roles = identity::acquaint(visit, peer, &connection).await?;
    let is_registry = settings.client.connections.iter().any(|known| {
        known.name == "dpm" && peer.target.host() == known.host && peer.target.port() == known.port
    });
    if !is_registry {
        let roles = format!("roles there: [{roles}]");
        visit.note(Ok(((), Row::skip(Layer::Role, roles))))?;
        return visit.note(Ok(((), Row::skip(Layer::WayBack, "only a DPM dials back"))));
    }
    let id = stored_engine_id(&settings.home.storage);
    let known = id.as_ref().ok().copied().flatten();
    let asking = async { identity::role(peer, record(peer, &connection, known).await) };
    let record = visit.look(asking).await?;
    let judged = match id {
        Err(error) => Err(fail(Side::Here, cause(&error))),
        Ok(None) => {
            let detail = "the engine does not run, and never has";
            Err(fail(Side::Here, detail).help(start(options)))
        }
        Ok(Some(id)) => judge(id, record, peer, &connection, settings, options).await,
    };
    visit.note(judged)
}

fn fail(side: Side, detail: impl Into<String>) -> Row {
    Row::fail(Layer::WayBack, side, detail)
}

fn start(options: &Options) -> String {
    let home = options.home.display();
    format!("start it with: countersign dpe run --home {home}")
}

/// An id that no engine makes: asking for it needs the role, and changes nothing.
const NO_ENGINE: &str = "00000000-0000-0000-0000-000000000000";

/// Asks the registry for its record of the engine `id`.
async fn record(
    peer: &Peer,
    connection: &Connection,
    id: Option<EngineId>,
) -> Result<Option<Engine>, Status> {
    let channel = peer.identity.layer(connection.channel());
    let mut client = EngineRegistryServiceClient::new(channel);
    let engine_id = id.map_or_else(|| NO_ENGINE.to_owned(), |id| id.to_string());
    let request = GetEngineRequest { engine_id };
    match call(peer.limit, request, |request| client.get_engine(request)).await {
        Ok(answer) => Ok(answer.engine),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// Reports the DPM's record of this engine, or why there is no record.
#[expect(
    clippy::too_many_arguments,
    reason = "each comes from a different place"
)]
async fn judge(
    id: EngineId,
    record: Option<Engine>,
    peer: &Peer,
    connection: &Connection,
    settings: &Settings,
    options: &Options,
) -> Outcome<()> {
    if let Some(engine) = &record {
        check_owner(engine, peer)?;
    }
    let registered = record.filter(|engine| engine.status() != EngineStatus::Inactive);
    let Some(engine) = registered else {
        return Err(if listens(settings, options.timeout).await {
            not_held(peer, settings)
        } else {
            let detail = match settings.server.port {
                0 => "the DPM does not hold the engine, which takes a free port: it may not run",
                _ => "the engine does not run",
            };
            fail(Side::Here, detail).help(start(options))
        });
    };
    let engine = checked(engine, peer, connection, id).await;
    // A port that is not its file's was set when it was started, or is forwarded.
    let port = engine.address.as_ref().map(|address| address.port);
    let is_unreached = matches!(failure_of(&engine), Some((FailureKind::NotReached, _)));
    if port == Some(settings.server.port.into())
        && is_unreached
        && !listens(settings, options.timeout).await
    {
        let name = &peer.name;
        let detail = format!("the engine does not run, and {name} does not know that yet");
        return Err(fail(Side::Here, detail).help(start(options)));
    }
    seen(&engine, peer)
}

/// Says why the DPM does not hold an engine that runs, as that engine's log has it.
fn not_held(peer: &Peer, settings: &Settings) -> Row {
    let (name, log) = (&peer.name, &settings.home.log);
    let events = ["registerRefused", "register", "waitingForDpm"];
    let newest = newest(log, &events).ok().flatten();
    let refused = newest.filter(Rejection::is_of_registration);
    let reason = refused.as_ref().and_then(Rejection::reason);
    let mut detail = format!("the engine runs, but {name} does not hold it");
    if let Some(reason) = reason {
        detail.extend([": ", reason.as_str()]);
    }
    if let Some(why) = refused.as_ref().and_then(|line| line.text("detail")) {
        detail.extend([": ", &UntrustedReason(why).to_string()]);
    }
    if reason == Some(Reason::AddressNotAllowed) {
        let file = format!("the file of {name}");
        let row = fail(Side::Peer, detail);
        return not_allowed(row, peer.module.own().issuer(), &file);
    }
    fail(Side::Here, detail).help(format!("its log says why: {}", log.display()))
}

/// Makes sure that the engine is this module's: its id may have been copied with its folder.
fn check_owner(engine: &Engine, peer: &Peer) -> Result<(), Row> {
    let own = peer.module.own();
    // Without a name of its own, only the DPM knows what it calls this module.
    let named = own.name.as_ref().map(DeploymentName::as_str);
    if named.is_none_or(|name| name == engine.deployment) {
        return Ok(());
    }
    let detail = format!(
        "ENGINE_NOT_OWNED: at {} engine {} belongs to {}",
        peer.name,
        Untrusted(&engine.id),
        Untrusted(&engine.deployment)
    );
    Err(fail(Side::Here, detail).help("countersign explain ENGINE_NOT_OWNED"))
}

/// Waits while an engine that has just registered is dialled back for the first time.
async fn checked(mut engine: Engine, peer: &Peer, connection: &Connection, id: EngineId) -> Engine {
    let end = Instant::now() + peer.limit;
    while engine.status() == EngineStatus::New
        && engine.status_reason.is_empty()
        && Instant::now() < end
    {
        sleep(Duration::from_millis(50)).await;
        match record(peer, connection, Some(id)).await {
            Ok(Some(newer)) => engine = newer,
            _ => break,
        }
    }
    engine
}

/// Returns `true` if something listens where this engine would.
async fn listens(settings: &Settings, limit: Duration) -> bool {
    let server = &settings.server;
    if server.port == 0 {
        return false;
    }
    let mut address = server.address;
    if address.is_unspecified() {
        address = Ipv4Addr::LOCALHOST.into();
    }
    let connecting = TcpStream::connect(SocketAddr::new(address, server.port));
    matches!(timeout(limit, connecting).await, Ok(Ok(_)))
}

/// Says how the DPM sees `engine`.
///
/// `peer` is the other one of the two, as the module that is examined sees it.
pub(super) fn seen(engine: &Engine, peer: &Peer) -> Outcome<()> {
    let status = status_word(engine.status);
    let address = engine.address.clone().unwrap_or_default();
    let (dpm, host) = (dpm_of(peer), Untrusted(&address.hostname));
    let way = format!("{dpm} → {host}:{}, {status}", address.port);
    if engine.status() == EngineStatus::Ready {
        return Ok(((), Row::ok(Layer::WayBack, way)));
    }
    let reason = match engine.status_reason.as_str() {
        "" => "it was not dialled back yet".to_owned(),
        reason => UntrustedReason(reason).to_string(),
    };
    Err(not_ready(engine, format!("{way}: {reason}"), peer))
}

/// Returns the name of the DPM: this module or `peer`.
fn dpm_of(peer: &Peer) -> String {
    let own = peer.module.own();
    if own.module.as_str() == "dpm" {
        own.issuer().to_owned()
    } else {
        peer.name.clone()
    }
}

/// Returns why the last dial-back to `engine` failed, as [`grpc::failure_of`](crate::grpc) does.
pub(super) fn failure_of(engine: &Engine) -> Option<(FailureKind, Option<Reason>)> {
    grpc::failure_of(engine.dial_back_failure.as_ref()?)
}

/// Says that a DPM, in whose `file` `row` is to be fixed, dials the engines of `owner` only elsewhere.
pub(super) fn not_allowed(row: Row, owner: &str, file: &str) -> Row {
    row.refused()
        .help(format!(
            "{file} says where it may be dialled: `countersign.deployments.{owner}.allowed-addresses`"
        ))
        .help("the engine advertises `ataccama.one.dpe.service.hostname` and `.port` of its own file")
        .help("countersign explain ADDRESS_NOT_ALLOWED")
}

/// Says what to do about an `engine` that is not READY, as `detail` says.
///
/// That follows from the DPM's own values alone: a peer may have chosen the text.
fn not_ready(engine: &Engine, detail: String, peer: &Peer) -> Row {
    let (owner, check) = (engine.deployment.as_str(), peer.remedy.check());
    let here = (Side::Here, peer.remedy.own_file());
    let there = (Side::Peer, format!("the file of {}", peer.name));
    let is_dpm = peer.module.own().module.as_str() == "dpm";
    let (at_dpm, at_engine) = if is_dpm { (here, there) } else { (there, here) };
    match failure_of(engine) {
        Some((FailureKind::NotDialled, Some(Reason::AddressNotAllowed))) => {
            not_allowed(fail(at_dpm.0, detail), owner, &at_dpm.1)
        }
        Some((FailureKind::NotDialled, Some(Reason::RoleMissing))) => {
            no_role(detail, at_dpm, owner, peer)
        }
        Some((FailureKind::Refused, Some(Reason::RoleMissing))) => {
            no_role(detail, at_engine, &dpm_of(peer), peer)
        }
        Some((FailureKind::ClocksDiffer, _)) => {
            compare_clocks(fail(Side::Between, detail), &peer.name)
        }
        Some((_, Some(reason))) => fail(Side::Between, detail)
            .refused()
            .help(format!("countersign explain {reason}"))
            .help(check),
        Some((FailureKind::NotDialled, None)) => fail(at_dpm.0, detail).help(check),
        Some((FailureKind::NotReached, None)) => fail(Side::Between, detail)
            .help("does the engine run? start it with: countersign dpe run --home <its home>")
            .help("the engine advertises `ataccama.one.dpe.service.hostname` and `.port`; the DPM's host must reach it there"),
        _ => fail(Side::Between, detail).help(
            "run doctor again after the DPM has dialled it again; the DPM logs the result at `engineCheckFailed`",
        ),
    }
}

/// Says that a file does not give the role to `deployment`.
fn no_role(detail: String, (side, file): (Side, String), deployment: &str, peer: &Peer) -> Row {
    let role = peer.module.impersonation_role();
    fail(side, detail).refused().help(format!(
        "write into {file}: ataccama.one.platform.deployments.{deployment}.security.roles[0]={role}"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::remedy::Remedy;
    use super::*;
    use crate::grpc::Target;
    use crate::identity::ModuleType;
    use crate::proto::registry as wire;
    use crate::testing;

    /// How the DPM, or else the engine, sees an engine whose dial-back failed.
    fn row(kind: FailureKind, reason: Option<Reason>, is_dpm: bool) -> Row {
        let pair = testing::pair();
        let (module, name) = if is_dpm {
            (pair.dpm, "dpe-dev")
        } else {
            (pair.dpe, "dpm-dev")
        };
        let words = |text: &str| text.to_owned();
        let peer = Peer {
            name: words(name),
            target: Target::new("localhost", 1),
            tls: None,
            allow_plaintext: false,
            identity: module.client_layer(name).unwrap(),
            module,
            remedy: Remedy {
                host: words("host"),
                port: words("port"),
                own: (ModuleType::new("dpe").unwrap(), "here.properties".into()),
                kind: words("dpm"),
                file: words("there.properties"),
                at_hand: None,
                run: words("dpm"),
                home: words("home"),
            },
            limit: Duration::ZERO,
            deployment: Some(DeploymentName::new(name).unwrap()),
        };
        let failure = wire::DialBackFailure {
            kind: wire::DialBackFailureKind::from(kind).into(),
            reason: reason.map_or_else(String::new, |reason| reason.to_string()),
            detail: words("ADDRESS_NOT_ALLOWED: x; its clock is 9 s"),
        };
        let engine = Engine {
            status_reason: format!("{}: ADDRESS_NOT_ALLOWED: x", kind.as_str()),
            dial_back_failure: Some(failure),
            deployment: words("dpe-dev"),
            ..Engine::default()
        };
        seen(&engine, &peer).unwrap_err()
    }

    #[test]
    fn only_what_the_dpm_itself_says_of_an_address_is_fixed_in_its_file() {
        for (kind, reason, is_meant) in [
            (FailureKind::NotDialled, Reason::AddressNotAllowed, true),
            (FailureKind::NotProved, Reason::ProofInvalid, false),
            (FailureKind::NotDialled, Reason::RoleMissing, false),
        ] {
            for (is_dpm, side) in [(false, Side::Peer), (true, Side::Here)] {
                let row = row(kind, Some(reason), is_dpm);

                let help = row.help.join("; ");
                assert_eq!(help.contains("allowed-addresses"), is_meant, "{help}");
                assert!(!is_meant || row.side == Some(side), "{reason}");
            }
        }
    }

    #[test]
    fn role_that_is_missing_is_written_where_it_is_missing() {
        let (here, there) = (FailureKind::NotDialled, FailureKind::Refused);
        for (kind, is_dpm, side, file, of) in [
            (here, true, Side::Here, "here.properties", "dpe-dev"),
            (here, false, Side::Peer, "the file of dpm-dev", "dpe-dev"),
            (there, false, Side::Here, "here.properties", "dpm-dev"),
            (there, true, Side::Peer, "the file of dpe-dev", "dpm-dev"),
        ] {
            let row = row(kind, Some(Reason::RoleMissing), is_dpm);

            let line = format!("ataccama.one.platform.deployments.{of}.security.roles[0]");
            let help = format!("write into {file}: {line}=IMPERSONATION");
            assert_eq!((row.side, row.help), (Some(side), vec![help]));
            assert!(row.refused);
        }
    }

    #[test]
    fn clocks_are_compared_only_where_the_dpm_measured_them() {
        for (kind, is_meant) in [
            (FailureKind::ClocksDiffer, true),
            (FailureKind::NotProved, false),
        ] {
            let help = row(kind, Some(Reason::ProofInvalid), false).help.join("; ");

            assert_eq!(help.contains("date -u"), is_meant, "{help}");
        }
    }

    #[test]
    fn engine_that_cannot_be_reached_is_to_be_started_or_to_advertise_another_address() {
        let help = row(FailureKind::NotReached, None, false).help.join("; ");

        assert!(help.contains("dpe run"), "{help}");
        assert!(help.contains("service.hostname"), "{help}");
    }
}
