//! The layers of one peer, one after the other.

use std::time::Duration;

use super::http2::{self, Answer};
use super::identity::{self, Asked};
use super::peer::Peer;
use super::report::{Found, Layer, Visit};
use super::{Options, clock, health, name, role, tcp, tls, way_back};
use crate::config::Settings;
use crate::grpc::Connection;

/// Visits a module that this one calls: its DPM, or another one.
pub(super) async fn of_callee(peer: &Peer, settings: &Settings, options: &Options) -> Visit {
    let mut visit = Visit::to(peer.title());
    // None says that a layer failed, which is noted.
    let _ = callee(&mut visit, peer, settings, options).await;
    visit.end()
}

async fn callee(
    visit: &mut Visit,
    peer: &Peer,
    settings: &Settings,
    options: &Options,
) -> Option<()> {
    let limit = options.timeout;
    let connection = reach(visit, peer, limit).await?;
    let asked = acquaint(visit, peer, &connection, limit).await?;
    let is_registry = settings.client.connections.iter().any(|known| {
        known.name == "dpm" && peer.target.host() == known.host && peer.target.port() == known.port
    });
    if !is_registry {
        visit.note(Layer::Role, Ok(Found::skipped((), asked.roles())))?;
        let nothing = "only a DPM dials back";
        return visit.note(Layer::WayBack, Ok(Found::skipped((), nothing)));
    }
    let id = way_back::engine_id(settings);
    let id = id.as_ref().ok().copied().flatten();
    let looking = role::of_registry(peer, &connection, id, limit);
    let record = visit.look(Layer::Role, looking).await?;
    let judged = way_back::judge(record, peer, &connection, settings, options).await;
    visit.note(Layer::WayBack, judged)
}

/// Goes from the name to gRPC.
pub(super) async fn reach(visit: &mut Visit, peer: &Peer, limit: Duration) -> Option<Connection> {
    let resolving = name::resolve(peer, limit);
    let addresses = visit.look(Layer::Name, resolving).await?;
    let connecting = tcp::connect(peer, &addresses, limit);
    let reached = visit.look(Layer::Tcp, connecting).await?;
    let address = reached.address;
    let shaking = tls::shake_hands(peer, reached, limit);
    let stream = visit.look(Layer::Tls, shaking).await?;
    let start = tokio::time::Instant::now();
    match http2::greet(peer, stream, limit).await {
        Ok(()) => {}
        // In TLS 1.3 the server's refusal comes only now; and plaintext learns only now of TLS.
        Err(Answer::Tls(failure)) => {
            visit.rows.retain(|row| row.layer != Layer::Tls);
            return visit.note(Layer::Tls, Err(tls::fault(peer, &failure)));
        }
        Err(answer) => {
            let fault = health::not_http2(peer, &answer, address, limit).await;
            return visit.note(Layer::Grpc, Err(fault));
        }
    }
    let connection = visit.look(Layer::Grpc, health::check(peer, address, limit));
    let connection = connection.await?;
    if let Some(row) = visit.rows.last_mut() {
        row.took = Some(start.elapsed());
    }
    Some(connection)
}

/// Calls `WhoAmI`, which tells of the clock and of the token.
pub(super) async fn acquaint(
    visit: &mut Visit,
    peer: &Peer,
    connection: &Connection,
    limit: Duration,
) -> Option<identity::Known> {
    let start = tokio::time::Instant::now();
    let asked: Asked = identity::ask(peer, connection, limit).await;
    let took = start.elapsed();
    visit.note(Layer::Clock, clock::judge(peer, &asked))?;
    let known = visit.note(Layer::Token, identity::judge(peer, asked));
    if let Some(row) = visit.rows.last_mut() {
        row.took = Some(took);
    }
    known
}
