//! What every module serves beside its own services: identity, health, reflection.

use tonic::service::Routes;

use super::serve::ServerOptions;
use super::{MethodRules, Module, Rule};

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
