//! `WhoAmI`: a caller sees itself as the callee does.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::proto::identity as wire;
use crate::proto::identity::identity_service_server::IdentityService as Service;

use super::verified_token;
use crate::clock::Clock;
use crate::token::VerifiedToken;
use crate::trust::{KeySet, TrustStore};

/// Serves `countersign.identity.v1.IdentityService` for a module.
#[derive(Clone, Debug)]
pub struct IdentityService {
    pub(super) trust: Arc<TrustStore>,
    pub(super) clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl Service for IdentityService {
    async fn who_am_i(
        &self,
        request: Request<wire::WhoAmIRequest>,
    ) -> Result<Response<wire::WhoAmIResponse>, Status> {
        let token = verified_token(&request)?;
        let identity = token.identity();
        let own = self.trust.own();
        let name = own.name.as_ref();
        Ok(Response::new(wire::WhoAmIResponse {
            identity: Some(wire::ServiceIdentity {
                module: identity.module().to_string(),
                id: identity.id().to_owned(),
                roles: identity.roles().iter().map(ToString::to_string).collect(),
            }),
            fingerprint: token.key_id().to_string(),
            callee_deployment: name.map(ToString::to_string).unwrap_or_default(),
            callee_fingerprint: own.key_id.to_string(),
            server_time: Some(self.clock.now().into()),
            token_expires_at: Some(token.expires_at().into()),
            trusted_keys: trusted_keys(&self.trust.current(), token),
        }))
    }
}

/// Lists the trusted keys: those of the caller's own deployment, or all for the module's own
/// operator.
fn trusted_keys(trust: &KeySet, token: &VerifiedToken) -> Vec<wire::TrustedKey> {
    let caller = token.deployment().map(|deployment| &deployment.name);
    let deployments = trust.deployments().iter();
    let shown = deployments.filter(|deployment| caller.is_none_or(|name| *name == deployment.name));
    let keys = shown.flat_map(|deployment| {
        deployment.keys.iter().map(|key| wire::TrustedKey {
            deployment: deployment.name.to_string(),
            fingerprint: key.key_id.to_string(),
            revoked: key.revoked,
            computed_fingerprint: key.key.fingerprint().to_string(),
        })
    });
    keys.collect()
}
