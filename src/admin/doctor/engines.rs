//! A DPM's peers: itself, and the engines that it knows.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use tower_layer::Layer as _;

use super::not_ready::{self, Ends};
use super::peer::Peer;
use super::report::{Fault, Found, Layer, Side, Visit};
use super::roll::{Roll, dpes};
use super::{NoSuchPeer, Options, role, visit, way_back};
use crate::admin::roster;
use crate::config::Settings;
use crate::engine::EngineAddress;
use crate::grpc::{Connection, Module, Target, cause};
use crate::identity::DeploymentName;
use crate::proto::registry as wire;
use crate::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use crate::registry::{AddressPolicy, Destination};
use crate::telemetry::{Untrusted, UntrustedReason};

/// Visits the running DPM, then its engines, as the dial-back does.
pub(super) async fn visits(
    settings: &Settings,
    module: &Module,
    options: &Options,
) -> Result<Vec<Visit>, NoSuchPeer> {
    let peer = match Peer::itself(settings, module, options) {
        Ok(peer) => peer,
        Err(fault) => {
            let mut visit = Visit::to("this module itself");
            let _: Option<()> = visit.note(Layer::Name, Err(fault));
            return Ok(vec![visit.end()]);
        }
    };
    let mut own = Visit::to(format!("{} itself at {}", peer.name, peer.target));
    let roll = itself(&mut own, &peer, settings, options).await;
    let mut visits = vec![own.end()];
    let Some(roll) = roll else {
        return Ok(visits);
    };
    let wanted = options.peer.as_deref();
    for engine in roll.visited(wanted) {
        visits.push(of_engine(engine, settings, module, options).await);
    }
    match wanted {
        Some(name) if visits.len() == 1 && !dpes(settings).any(|known| known == name) => {
            Err(NoSuchPeer(name.to_owned()))
        }
        _ => Ok(visits),
    }
}

async fn itself(
    visit: &mut Visit,
    peer: &Peer,
    settings: &Settings,
    options: &Options,
) -> Option<Roll> {
    if settings.server.port == 0 {
        let fault = Fault::new(Side::Here, "this DPM takes a free port at each start");
        let fault = fault.help("name the one in its log: --set ataccama.server.grpc.port=PORT");
        return visit.note(Layer::Name, Err(fault));
    }
    let limit = options.timeout;
    let connection = visit::reach(visit, peer, limit).await?;
    visit::acquaint(visit, peer, &connection, limit).await?;
    visit.note(
        Layer::Role,
        Ok(Found::skipped((), "a module needs none to ask itself")),
    )?;
    let engines = match list(peer, &connection, limit).await {
        Ok(engines) => engines,
        Err(status) => {
            let message = Untrusted(status.message());
            let fault = Fault::new(
                Side::Here,
                format!("the engines cannot be listed: {message}"),
            );
            return visit.note(Layer::WayBack, Err(fault));
        }
    };
    let roll = Roll::of(engines, settings);
    // Those that are registered are looked at whatever is missing.
    let _: Option<()> = visit.note(Layer::WayBack, roll.judge(options.peer.as_deref()));
    Some(roll)
}

/// Lists all engines that the registry knows.
async fn list(
    peer: &Peer,
    connection: &Connection,
    limit: Duration,
) -> Result<Vec<wire::Engine>, Status> {
    let channel = peer.identity.layer(connection.channel());
    let mut client = EngineRegistryServiceClient::new(channel);
    let engines = timeout(limit, roster::list(&mut client)).await;
    engines.unwrap_or_else(|_late| Err(Status::deadline_exceeded("no answer in time")))
}

async fn of_engine(
    engine: &wire::Engine,
    settings: &Settings,
    module: &Module,
    options: &Options,
) -> Visit {
    let address = engine.address.clone().unwrap_or_default();
    let status = engine.status().as_str_name();
    let status = match status.strip_prefix("ENGINE_STATUS_").unwrap_or(status) {
        "READY" => String::new(),
        other => format!(", {other}"),
    };
    let mut visit = Visit::to(format!(
        "engine {} of {} at {}:{}{status}",
        Untrusted(&engine.id),
        Untrusted(&engine.deployment),
        Untrusted(&address.hostname),
        address.port
    ));
    if let Some(fault) = stranger(engine, settings, module) {
        for layer in Layer::ALL {
            if (Layer::Name..Layer::Token).contains(&layer) {
                let nothing =
                    Found::skipped((), "an engine of nobody who is trusted is not dialled");
                let _: Option<()> = visit.note(layer, Ok(nothing));
            }
        }
        let _: Option<()> = visit.note(Layer::Token, Err(fault));
        return visit.end();
    }
    match judged(engine, settings, module).await {
        // None says that a layer failed, which is noted.
        Ok(peer) => drop(dial(&mut visit, &peer, engine, options).await),
        Err(fault) => drop(visit.note::<()>(Layer::Name, Err(fault))),
    }
    visit.end()
}

/// Says that nobody is trusted under the name of the engine's deployment.
fn stranger(engine: &wire::Engine, settings: &Settings, module: &Module) -> Option<Fault> {
    let owner = DeploymentName::new(&engine.deployment).ok()?;
    if module.trust().load().deployment(owner.as_str()).is_some() {
        return None;
    }
    let (file, kind) = (settings.home.file.display(), &settings.own.module);
    let detail = format!("no trusted deployment is called `{owner}` in {file}");
    let fault = Fault::new(Side::Here, detail);
    let fault = fault.help(format!(
        "countersign pair {kind}={file} dpe=<the engine's file>"
    ));
    Some(fault.help(format!(
        "or, with its public key alone: countersign deployment add {owner} --file {file} --module dpe --public-key <its key>"
    )))
}

/// Takes the engine for a peer if it may be dialled.
async fn judged(
    engine: &wire::Engine,
    settings: &Settings,
    module: &Module,
) -> Result<Peer, Fault> {
    let here = |error: &dyn std::error::Error| Fault::new(Side::Here, cause(error));
    // The registry knows whence the engine registered, and has the last word.
    if not_ready::is_not_allowed(engine) {
        let reason = UntrustedReason(&engine.status_reason).to_string();
        let (owner, file) = (&engine.deployment, settings.home.file.display().to_string());
        return Err(not_ready::not_allowed(reason, owner, Side::Here, &file));
    }
    let address = engine.address.clone().unwrap_or_default();
    let address =
        EngineAddress::new(&address.hostname, address.port.into()).map_err(|error| here(&error))?;
    let owner = DeploymentName::new(&engine.deployment).map_err(|error| here(&error))?;
    let rules: HashMap<_, _> = settings
        .peers
        .iter()
        .map(|peer| (peer.name.clone(), peer.addresses.clone()))
        .collect();
    let own = SocketAddr::new(settings.server.address, settings.server.port);
    let policy = AddressPolicy::new(vec![own], rules);
    let host = (address.hostname(), address.port());
    let resolved = timeout(Duration::from_secs(2), tokio::net::lookup_host(host)).await;
    let resolved: Vec<_> = match resolved {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        // The name's own layer says so.
        _ => Vec::new(),
    };
    let destination = Destination {
        deployment: owner.as_str(),
        address: &address,
        // Only the registry knows, and it did not refuse.
        over_loopback: true,
    };
    let judged = policy.check(&destination, &resolved, |_| false);
    judged.map_err(|refusal| {
        let detail = format!("ADDRESS_NOT_ALLOWED: {refusal}");
        Fault::new(Side::Between, detail).help("countersign explain ADDRESS_NOT_ALLOWED")
    })?;
    let target = Target::new(address.hostname(), address.port());
    Peer::engine(&owner, target, settings, module)
}

async fn dial(
    visit: &mut Visit,
    peer: &Peer,
    engine: &wire::Engine,
    options: &Options,
) -> Option<()> {
    let limit = options.timeout;
    let connection = visit::reach(visit, peer, limit).await?;
    visit::acquaint(visit, peer, &connection, limit).await?;
    let asking = role::of_engine(peer, &connection, limit);
    let id = visit.look(Layer::Role, asking).await?;
    let seen = if id == engine.id {
        way_back::seen(engine, &Ends::of_engine(peer))
    } else {
        let detail = format!("engine {} answers there", Untrusted(&id));
        Err(Fault::new(Side::Peer, detail).help(peer.words.host.clone()))
    };
    visit.note(Layer::WayBack, seen)
}
