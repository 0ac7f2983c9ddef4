//! What every module serves beside its own services: identity, health, reflection.

use std::sync::Arc;

use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::serve::ServerOptions;
use super::{MethodRules, Module, Rule, verified_token};
use crate::clock::Clock;
use crate::proto::identity as wire;
use crate::proto::identity::identity_service_server::{
    IdentityService as Service, IdentityServiceServer,
};
use crate::token::VerifiedToken;
use crate::trust::{KeySet, TrustStore};

pub(super) const IDENTITY: &str = "countersign.identity.v1.IdentityService";
pub(super) const HEALTH: &str = "grpc.health.v1.Health";
pub(super) const REFLECTION: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// The services that every module has, and the rules for them.
///
/// `IdentityService` for any verified identity and the module's own operator. With the feature
/// `actuator` also `grpc.health.v1` and, on loopback, `grpc.reflection` v1 and v1alpha for
/// everyone.
#[derive(Debug)]
pub(crate) struct Standard {
    /// The services, to which a module adds its own.
    pub(crate) routes: Routes,
    /// Their rules, to which a module adds its own.
    pub(crate) rules: MethodRules,
}

impl Standard {
    /// Makes those of `module` that there are without the feature `actuator`.
    pub(crate) fn new(module: &Module, options: &ServerOptions) -> Self {
        let identity = module.identity_service();
        let rule = Rule::any_identity().or_own_module();
        Self {
            routes: Routes::new(identity.max_decoding_message_size(options.max_message_bytes)),
            rules: MethodRules::deny_all().with(IDENTITY, "WhoAmI", rule),
        }
    }

    /// Returns `true` if an application has no rules for `service`: it is served with its own.
    pub(crate) fn is_reserved(service: &str) -> bool {
        let has_more = cfg!(feature = "actuator");
        service == IDENTITY || has_more && (service == HEALTH || REFLECTION.contains(&service))
    }
}

impl Module {
    /// Returns the service that shows callers how this module sees them.
    pub fn identity_service(&self) -> IdentityServiceServer<IdentityService> {
        IdentityServiceServer::new(IdentityService {
            trust: Arc::clone(&self.trust),
            clock: Arc::clone(self.clock()),
        })
    }
}

/// Serves `countersign.identity.v1.IdentityService` for a module.
#[derive(Clone, Debug)]
pub struct IdentityService {
    trust: Arc<TrustStore>,
    clock: Arc<dyn Clock>,
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
