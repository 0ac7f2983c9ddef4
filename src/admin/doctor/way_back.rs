//! Layer 10: does the DPM reach this engine?

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use super::peer::Peer;
use super::report::{Fault, Found, Side};
use super::role::{self, Record};
use crate::admin::rejection::{Rejection, newest_of};
use crate::config::Settings;
use crate::dpe::{EngineIdFileError, stored_engine_id};
use crate::dpm::Refused;
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
            seen(&engine, &peer.name)
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
    let told = newest_of(log, &events).ok().flatten();
    let refused = told.filter(|line| line.text("eventId") == Some("registerRefused"));
    let word = refused.as_ref().and_then(Rejection::reason);
    let reason = refused.as_ref().and_then(|line| line.text("reason"));
    let reason = reason.map_or_else(String::new, |why| format!(": {}", UntrustedReason(why)));
    let detail = format!(
        "the engine runs, but {} does not hold it{reason}",
        peer.name
    );
    if word == Some(Reason::AddressNotAllowed) {
        let own = peer.module.own();
        return not_allowed(detail, own.issuer(), &peer.name);
    }
    let fault = Fault::new(Side::Here, detail);
    fault.help(format!("its log says why: {}", log.display()))
}

/// Tells whether the DPM may not dial `engine` where it is.
pub(super) fn is_not_allowed(engine: &Engine) -> bool {
    Refused::read(&engine.status_reason) == Some((Refused::Undialled, Reason::AddressNotAllowed))
}

/// Says that the DPM called `dpm` dials the engines of `owner` elsewhere alone.
pub(super) fn not_allowed(detail: String, owner: &str, dpm: &str) -> Fault {
    let fault = Fault::new(Side::Peer, detail).refused();
    let fault = fault.help(format!(
        "the file of {dpm} says where it may be dialled: `countersign.deployments.{owner}.allowed-addresses`"
    ));
    let fault = fault.help(
        "the engine advertises `ataccama.one.dpe.service.hostname` and `.port` of its own file",
    );
    fault.help("countersign explain ADDRESS_NOT_ALLOWED")
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

/// Says how the DPM called `dpm` sees `engine`.
pub(super) fn seen(engine: &Engine, dpm: &str) -> Result<Found<()>, Fault> {
    let status = engine.status().as_str_name();
    let status = status.strip_prefix("ENGINE_STATUS_").unwrap_or(status);
    let address = engine.address.clone().unwrap_or_default();
    let way = format!("{dpm} → {}:{}", Untrusted(&address.hostname), address.port);
    if engine.status() == EngineStatus::Ready {
        return Ok(Found::new((), format!("{way}, {status}")));
    }
    let reason = match engine.status_reason.as_str() {
        "" => "it was not dialled back yet".to_owned(),
        reason => UntrustedReason(reason).to_string(),
    };
    let detail = format!("{way}, {status}: {reason}");
    if is_not_allowed(engine) {
        return Err(not_allowed(detail, &engine.deployment, dpm));
    }
    let fault = Fault::new(Side::Between, detail);
    Err(fault.help(
        "the engine advertises `ataccama.one.dpe.service.hostname` and `.port`; the DPM's host must reach it there",
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::doctor::report::{Layer, Row};

    #[test]
    fn only_what_the_dpm_itself_says_of_an_address_is_mended_in_its_file() {
        for (reason, side) in [
            (
                "the engine is not dialled: ADDRESS_NOT_ALLOWED: x",
                Side::Peer,
            ),
            (
                "what answers at h:1 is not proved to be this engine: PROOF_INVALID: \
              ADDRESS_NOT_ALLOWED: x",
                Side::Between,
            ),
            (
                "the engine is not dialled: ROLE_MISSING: ADDRESS_NOT_ALLOWED: x",
                Side::Between,
            ),
        ] {
            let engine = Engine {
                status_reason: reason.to_owned(),
                ..Engine::default()
            };

            let row = Row::fail(Layer::WayBack, seen(&engine, "dpm-dev").unwrap_err());

            assert_eq!(row.side, Some(side), "{reason}");
        }
    }
}
