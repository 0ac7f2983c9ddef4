//! `EngineService`: the answer to the DPM's dial-back.

use tonic::{Request, Response, Status};

use crate::engine::{EngineAddress, EngineId};
use crate::proto::engine as wire;
use crate::proto::engine::engine_service_server::EngineService as Service;
use crate::token::proof::EngineClaim;

/// Serves `countersign.engine.v1.EngineService` for one engine.
///
/// The layer before it has verified the caller and its role, and signs the proof, where the caller
/// asks for one: give it the [`claim`](Self::claim).
#[derive(Clone, Debug)]
pub struct EngineService {
    claim: EngineClaim,
}

impl EngineService {
    /// Answers as the engine `id` at `address`, as it registers itself.
    pub fn new(id: EngineId, address: &EngineAddress) -> Self {
        Self {
            claim: EngineClaim {
                id: id.to_string(),
                hostname: address.hostname().to_owned(),
                port: address.port(),
            },
        }
    }

    /// Returns the engine that the proofs are to name, refusals' too.
    pub fn claim(&self) -> &EngineClaim {
        &self.claim
    }
}

#[tonic::async_trait]
impl Service for EngineService {
    async fn check_status(
        &self,
        _request: Request<wire::CheckStatusRequest>,
    ) -> Result<Response<wire::CheckStatusResponse>, Status> {
        let engine_id = self.claim.id.clone();
        Ok(Response::new(wire::CheckStatusResponse { engine_id }))
    }
}
