//! A module that this one calls; layer 10: does the DPM reach this engine?

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use super::identity::{self, compare_clocks, grant_role};
use super::peer::{Doctor, Peer};
use super::report::{Layer, Row, Side, Visit};
use crate::admin::rejection::{Rejection, newest};
use crate::admin::roster::Client;
use crate::dpe::stored_engine_id;
use crate::engine::{EngineId, FailureKind};
use crate::grpc::{self, Target, call, cause};
use crate::identity::DeploymentName;
use crate::proto::convert::status_word;
use crate::proto::registry::{Engine, EngineStatus, GetEngineRequest};
use crate::telemetry::{Untrusted, UntrustedReason};
use crate::token::Reason;

/// Visits a module that this one calls: its DPM, or another one.
pub(super) async fn visit(doctor: &Doctor<'_>, peer: &Peer) -> Visit {
    let title = format!("{} at {}", peer.name, peer.target);
    Visit::to(title, async |visit| examine(visit, doctor, peer).await).await
}

async fn examine(visit: &mut Visit, doctor: &Doctor<'_>, peer: &Peer) -> Result<(), Row> {
    let (channel, roles) = identity::acquaint(visit, peer).await?;
    let registry = doctor.settings.options.client.connection("dpm");
    if registry.is_none_or(|dpm| Target::new(&dpm.host, dpm.port) != peer.target) {
        visit.add(Row::skip(Layer::Role, format!("roles there: [{roles}]")));
        visit.add(Row::skip(Layer::WayBack, "only a DPM dials back"));
        return Ok(());
    }
    let id = stored_engine_id(&doctor.settings.home.dir.join("storage"));
    let known = id.as_ref().ok().copied().flatten();
    let mut client = Client::new(channel);
    let asking = async { identity::role(peer, record(peer, &mut client, known).await) };
    let record = visit.look(asking).await?;
    let Some(id) = id.map_err(|error| fail(Side::Here, cause(&error)))? else {
        let detail = "the engine does not run and was never started";
        return Err(not_running(doctor, detail));
    };
    let Some(engine) = registered(record, peer)? else {
        return Err(not_held(doctor, peer).await);
    };
    let engine = checked(engine, peer, &mut client, id).await;
    // A port that is not its file's was set when it was started, or is forwarded.
    let port = engine.address.as_ref().map(|address| address.port);
    let is_unreached = matches!(failure_of(&engine), Some((FailureKind::NotReached, _)));
    if port == Some(doctor.settings.options.server.port.into())
        && is_unreached
        && !listens(doctor).await
    {
        let name = &peer.name;
        let detail = format!("the engine does not run; {name} has not noticed that yet");
        return Err(not_running(doctor, detail));
    }
    visit.add(seen(&engine, peer)?);
    Ok(())
}

fn fail(side: Side, detail: impl Into<String>) -> Row {
    Row::fail(Layer::WayBack, side, detail)
}

fn not_running(doctor: &Doctor<'_>, detail: impl Into<String>) -> Row {
    let home = doctor.options.home.display();
    fail(Side::Here, detail).help(format!("start it with: countersign dpe run --home {home}"))
}

/// An id that no engine makes: asking for it needs the role, and changes nothing.
const NO_ENGINE: &str = "00000000-0000-0000-0000-000000000000";

/// Asks the registry for its record of the engine `id`.
async fn record(
    peer: &Peer,
    client: &mut Client,
    id: Option<EngineId>,
) -> Result<Option<Engine>, Status> {
    let engine_id = id.map_or_else(|| NO_ENGINE.to_owned(), |id| id.to_string());
    let request = GetEngineRequest { engine_id };
    match call(peer.limit(), request, |request| client.get_engine(request)).await {
        Ok(answer) => Ok(answer.engine),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// Returns the engine if it is registered.
///
/// Fails if it is not this module's: its id may have been copied with its folder.
fn registered(record: Option<Engine>, peer: &Peer) -> Result<Option<Engine>, Row> {
    // Without a name of its own, only the DPM knows what it calls this module.
    let own = peer.module.own();
    let named = own.name.as_ref().map(DeploymentName::as_str);
    if let Some(engine) = &record
        && named.is_some_and(|name| name != engine.deployment)
    {
        let detail = format!(
            "ENGINE_NOT_OWNED: at {} engine {} belongs to {}",
            peer.name,
            Untrusted(&engine.id),
            Untrusted(&engine.deployment)
        );
        return Err(fail(Side::Here, detail).help("countersign explain ENGINE_NOT_OWNED"));
    }
    Ok(record.filter(|engine| engine.status() != EngineStatus::Inactive))
}

/// Returns why the DPM has not registered the engine: it does not run, or its log has the reason.
async fn not_held(doctor: &Doctor<'_>, peer: &Peer) -> Row {
    let (settings, name) = (doctor.settings, &peer.name);
    if !listens(doctor).await {
        let detail = match settings.options.server.port {
            0 => "the engine is not registered at the DPM and uses a free port: it may not run",
            _ => "the engine does not run",
        };
        return not_running(doctor, detail);
    }
    let log = &settings.home.dir.join("log");
    let line = newest(log, &["registerRefused", "register", "waitingForDpm"]);
    let refused = line.ok().flatten().filter(Rejection::is_of_registration);
    let reason = refused.as_ref().and_then(Rejection::reason);
    let mut detail = format!("the engine runs, but {name} has not registered it");
    if let Some(reason) = reason {
        detail.extend([": ", reason.as_str()]);
    }
    if let Some(why) = refused.as_ref().and_then(|line| line.text("detail")) {
        detail.extend([": ", &UntrustedReason(why).to_string()]);
    }
    if reason == Some(Reason::AddressNotAllowed) {
        let (row, own) = (fail(Side::Peer, detail), peer.module.own());
        return not_allowed(row, own.issuer(), &format!("the file of {name}"));
    }
    fail(Side::Here, detail).help(format!("its log says why: {}", log.display()))
}

/// Waits while an engine that has just registered is dialled back for the first time.
async fn checked(mut engine: Engine, peer: &Peer, client: &mut Client, id: EngineId) -> Engine {
    let end = Instant::now() + peer.limit();
    while engine.status() == EngineStatus::New
        && engine.status_reason.is_empty()
        && Instant::now() < end
    {
        sleep(Duration::from_millis(50)).await;
        let Ok(Some(newer)) = record(peer, client, Some(id)).await else {
            break;
        };
        engine = newer;
    }
    engine
}

/// Returns `true` if something listens where this engine would.
async fn listens(doctor: &Doctor<'_>) -> bool {
    let server = &doctor.settings.options.server;
    let address = match server.address {
        any if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        address => address,
    };
    let connecting = TcpStream::connect(SocketAddr::new(address, server.port));
    server.port != 0 && matches!(timeout(doctor.options.timeout, connecting).await, Ok(Ok(_)))
}

/// Says how the DPM sees `engine`.
///
/// `peer` is the other one of the two, as the module that is examined sees it.
pub(super) fn seen(engine: &Engine, peer: &Peer) -> Result<Row, Row> {
    let status = status_word(engine.status);
    let address = engine.address.clone().unwrap_or_default();
    let (dpm, host) = (dpm_of(peer), Untrusted(&address.hostname));
    let way = format!("{dpm} → {host}:{}, {status}", address.port);
    if engine.status() == EngineStatus::Ready {
        return Ok(Row::ok(Layer::WayBack, way));
    }
    let reason = match engine.status_reason.as_str() {
        "" => "the DPM has not dialled back yet".to_owned(),
        reason => UntrustedReason(reason).to_string(),
    };
    Err(not_ready(engine, format!("{way}: {reason}"), peer))
}

fn is_dpm(peer: &Peer) -> bool {
    peer.module.own().module.as_str() == "dpm"
}

/// Returns the name of the DPM: this module or `peer`.
fn dpm_of(peer: &Peer) -> String {
    if is_dpm(peer) {
        peer.module.own().issuer().to_owned()
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
        .help("the engine advertises `ataccama.one.dpe.service.hostname` and `.port` in its file")
        .help("countersign explain ADDRESS_NOT_ALLOWED")
}

/// Says what to do about an `engine` that is not READY, as `detail` says.
///
/// That follows only from the DPM's own values: a peer may have chosen the text.
fn not_ready(engine: &Engine, detail: String, peer: &Peer) -> Row {
    let owner = engine.deployment.as_str();
    let here = (Side::Here, peer.remedy.own_file());
    let there = (Side::Peer, format!("the file of {}", peer.name));
    let ((registry, registry_file), (caller, caller_file)) = if is_dpm(peer) {
        (here, there)
    } else {
        (there, here)
    };
    let between = Side::Between;
    match failure_of(engine) {
        Some((FailureKind::NotDialled, Some(Reason::AddressNotAllowed))) => {
            not_allowed(fail(registry, detail), owner, &registry_file)
        }
        Some((FailureKind::NotDialled, Some(Reason::RoleMissing))) => {
            grant_role(fail(registry, detail).refused(), peer, &registry_file, owner)
        }
        Some((FailureKind::Refused, Some(Reason::RoleMissing))) => {
            grant_role(fail(caller, detail).refused(), peer, &caller_file, &dpm_of(peer))
        }
        Some((FailureKind::ClocksDiffer, _)) => compare_clocks(fail(between, detail), &peer.name),
        Some((_, Some(reason))) => fail(between, detail)
            .refused()
            .help(format!("countersign explain {reason}"))
            .help(peer.remedy.check()),
        Some((FailureKind::NotDialled, None)) => fail(registry, detail).help(peer.remedy.check()),
        Some((FailureKind::NotReached, None)) => fail(between, detail)
            .help("does the engine run? start it with: countersign dpe run --home <its home>")
            .help("the engine advertises `ataccama.one.dpe.service.hostname` and `.port`; the DPM's host must reach it there"),
        None
        | Some((
            FailureKind::TimedOut
            | FailureKind::ConnectionLost
            | FailureKind::NoEngine
            | FailureKind::OtherEngine
            | FailureKind::Refused
            | FailureKind::NotProved,
            None,
        )) => fail(between, detail).help(
            "run doctor again after the DPM has dialled it again; the DPM logs the result at `engineCheckFailed`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Remedy;
    use super::*;
    use crate::grpc::ConnectionOptions;
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
            connection: ConnectionOptions::default(),
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
            deployment: Some(DeploymentName::new(name).unwrap()),
            dial_back: None,
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
