//! Layer 9: does the peer give this module the role that it needs?

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};
use tower_layer::Layer as _;

use super::peer::Peer;
use super::report::{Fault, Found, Side};
use crate::engine::EngineId;
use crate::grpc::{Connection, code_name, reason_of};
use crate::proto::engine::CheckStatusRequest;
use crate::proto::engine::engine_service_client::EngineServiceClient;
use crate::proto::registry as wire;
use crate::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use crate::telemetry::Untrusted;
use crate::token::Reason;

/// What the registry holds of an engine.
pub(super) type Record = Option<wire::Engine>;

/// An id that no engine makes: asking for it needs the role, and changes nothing.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// Asks the registry for the engine `id`, which takes the role.
pub(super) async fn of_registry(
    peer: &Peer,
    connection: &Connection,
    id: Option<EngineId>,
    limit: Duration,
) -> Result<Found<Record>, Fault> {
    match registered(peer, connection, id, limit).await {
        Ok(record) => Ok(Found::new(record, given(peer))),
        Err(status) => Err(refused(peer, &status)),
    }
}

/// Asks the registry what it holds of the engine `id`.
pub(super) async fn registered(
    peer: &Peer,
    connection: &Connection,
    id: Option<EngineId>,
    limit: Duration,
) -> Result<Record, Status> {
    let channel = peer.identity.layer(connection.channel());
    let mut client = EngineRegistryServiceClient::new(channel);
    let engine_id = id.map_or_else(|| NOBODY.to_owned(), |id| id.to_string());
    let mut request = Request::new(wire::GetEngineRequest { engine_id });
    request.set_timeout(limit);
    match within(limit, client.get_engine(request)).await {
        Ok(answer) => Ok(answer.engine),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// Asks an engine for its status, as the dial-back does; returns the id that answered.
pub(super) async fn of_engine(
    peer: &Peer,
    connection: &Connection,
    limit: Duration,
) -> Result<Found<String>, Fault> {
    let channel = peer.identity.layer(connection.channel());
    let mut client = EngineServiceClient::new(channel).max_decoding_message_size(64 * 1024);
    let mut request = Request::new(CheckStatusRequest {});
    request.set_timeout(limit);
    match within(limit, client.check_status(request)).await {
        Ok(answer) => Ok(Found::new(answer.engine_id, given(peer))),
        Err(status) => Err(refused(peer, &status)),
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(limit, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_elapsed) => Err(Status::deadline_exceeded(format!(
            "no answer within {limit:?}"
        ))),
    }
}

fn given(peer: &Peer) -> String {
    format!("{} gives this module the role that it needs", peer.name)
}

fn refused(peer: &Peer, status: &Status) -> Fault {
    let own = peer.module.own();
    let code = code_name(status.code());
    match reason_of(status) {
        Some(Reason::RoleMissing) => {
            let role = peer.module.impersonation_role();
            let detail = format!(
                "{code} ROLE_MISSING: {} gives this module no role {role}",
                peer.name
            );
            let fault = Fault::new(Side::Peer, detail);
            let caller = own.issuer();
            fault.help(format!(
                "write into the file of {}: ataccama.one.platform.deployments.{caller}.security.roles[0]={role}",
                peer.name
            ))
        }
        Some(reason) => {
            let detail = format!("{code} {}", Untrusted(status.message()));
            let fault = Fault::new(Side::Between, detail);
            fault.help(format!("countersign explain {reason}"))
        }
        None if status.code() == Code::Unimplemented => {
            let detail = format!("{} is a module of another kind", peer.target);
            Fault::new(Side::Here, detail).help(peer.words.port.clone())
        }
        None => {
            let detail = format!("{code}: {}", Untrusted(status.message()));
            Fault::new(Side::Between, detail)
        }
    }
}
