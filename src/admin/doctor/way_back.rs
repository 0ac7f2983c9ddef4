//! Layer 10: does the DPM reach this engine?

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use super::not_ready::{self, Ends};
use super::peer::Peer;
use super::report::{Fault, Found, Side};
use super::role::{self, Record};
use crate::admin::rejection::{Rejection, newest};
use crate::config::Settings;
use crate::dpe::{EngineIdFileError, stored_engine_id};
use crate::engine::EngineId;
use crate::grpc::Connection;
use crate::identity::DeploymentName;
use crate::proto::registry::{Engine, EngineStatus};
use crate::telemetry::{Untrusted, UntrustedReason};
use crate::token::Reason;

/// Returns the id that this engine registers with, where it ever ran.
pub(super) fn engine_id(settings: &Settings) -> Result<Option<EngineId>, EngineIdFileError> {
    stored_engine_id(&settings.home.storage)
}

/// Says what the DPM holds of this engine, or why it holds nothing.
pub(super) async fn judge(
    record: Record,
    peer: &Peer,
    connection: &Connection,
    settings: &Settings,
    options: &Options,
) -> Result<Found<()>, Fault> {
    let id =
        engine_id(settings).map_err(|error| Fault::new(Side::Here, crate::grpc::cause(&error)))?;
    let home = options.home.display();
    let start = format!("start it with: countersign dpe run --home {home}");
    let Some(id) = id else {
        let fault = Fault::new(Side::Here, "the engine does not run, and never has");
        return Err(fault.help(start));
    };
    if let Some(engine) = &record {
        check_owner(engine, peer)?;
    }
    let registered = record.filter(|engine| engine.status() != EngineStatus::Inactive);
    match registered {
        Some(engine) => {
            let engine = checked(engine, peer, connection, id, options.timeout).await;
            // Another port than its file's was set when it was started, or is forwarded.
            let port = engine.address.as_ref().map(|address| address.port);
            let is_own = port == Some(settings.server.port.into());
            if is_own
                && not_ready::is_unreached(&engine)
                && !listens(settings, options.timeout).await
            {
                let name = &peer.name;
                let detail = format!("the engine does not run, and {name} does not know that yet");
                return Err(Fault::new(Side::Here, detail).help(start));
            }
            seen(&engine, &Ends::of_callee(peer))
        }
        None if listens(settings, options.timeout).await => Err(not_held(peer, settings)),
        None => {
            let detail = match settings.server.port {
                0 => "the DPM does not hold the engine, which takes a free port: it may not run",
                _ => "the engine does not run",
            };
            Err(Fault::new(Side::Here, detail).help(start))
        }
    }
}

/// Says why the DPM does not hold an engine that runs, as that engine's log tells it.
fn not_held(peer: &Peer, settings: &Settings) -> Fault {
    let log = &settings.home.log;
    let events = ["registerRefused", "register", "waitingForDpm"];
    let newest = newest(log, &events).ok().flatten();
    let refused = newest.filter(Rejection::is_of_registration);
    let word = refused.as_ref().and_then(Rejection::reason);
    let why = refused.as_ref().and_then(|line| line.text("detail"));
    let why = word.map(Reason::as_str).into_iter().chain(why);
    let reason: String = why
        .map(|text| format!(": {}", UntrustedReason(text)))
        .collect();
    let detail = format!(
        "the engine runs, but {} does not hold it{reason}",
        peer.name
    );
    if word == Some(Reason::AddressNotAllowed) {
        let own = peer.module.own();
        let file = format!("the file of {}", peer.name);
        return not_ready::not_allowed(detail, own.issuer(), Side::Peer, &file);
    }
    let fault = Fault::new(Side::Here, detail);
    fault.help(format!("its log says why: {}", log.display()))
}

/// Makes sure that the engine is this module's: its id may have been copied with its folder.
fn check_owner(engine: &Engine, peer: &Peer) -> Result<(), Fault> {
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
    let fault = Fault::new(Side::Here, detail);
    Err(fault.help("countersign explain ENGINE_NOT_OWNED"))
}

/// Waits while an engine that has just registered is dialled back for the first time.
async fn checked(
    mut engine: Engine,
    peer: &Peer,
    connection: &Connection,
    id: EngineId,
    limit: Duration,
) -> Engine {
    let end = Instant::now() + limit;
    while engine.status() == EngineStatus::New
        && engine.status_reason.is_empty()
        && Instant::now() < end
    {
        sleep(Duration::from_millis(50)).await;
        match role::registered(peer, connection, Some(id), limit).await {
            Ok(Some(newer)) => engine = newer,
            _ => break,
        }
    }
    engine
}

/// Says how the DPM sees `engine`.
pub(super) fn seen(engine: &Engine, ends: &Ends<'_>) -> Result<Found<()>, Fault> {
    let status = engine.status().as_str_name();
    let status = status.strip_prefix("ENGINE_STATUS_").unwrap_or(status);
    let address = engine.address.clone().unwrap_or_default();
    let (dpm, host) = (&ends.dpm, Untrusted(&address.hostname));
    let way = format!("{dpm} → {host}:{}", address.port);
    if engine.status() == EngineStatus::Ready {
        return Ok(Found::new((), format!("{way}, {status}")));
    }
    let reason = match engine.status_reason.as_str() {
        "" => "it was not dialled back yet".to_owned(),
        reason => UntrustedReason(reason).to_string(),
    };
    let detail = format!("{way}, {status}: {reason}");
    Err(not_ready::fault(detail, engine, ends))
}

/// Tells whether something listens where this engine would.
async fn listens(settings: &Settings, limit: Duration) -> bool {
    let server = &settings.server;
    if server.port == 0 {
        return false;
    }
    let mut address = server.address;
    if address.is_unspecified() {
        address = std::net::Ipv4Addr::LOCALHOST.into();
    }
    let connecting = TcpStream::connect(SocketAddr::new(address, server.port));
    matches!(timeout(limit, connecting).await, Ok(Ok(_)))
}
