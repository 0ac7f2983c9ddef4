//! The settings that pairing reads and writes.

use crate::properties::name::Pattern;

pub(super) const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";
pub(super) const OWN_NAME: &str = "countersign.deployment.name";
pub(super) const GRPC_PORT: &str = "ataccama.server.grpc.port";
const TLS_PIN: &str = "countersign.deployments.<name>.tls-keys.<key>.fingerprint";
const MODULE: &str = "ataccama.one.platform.deployments.<name>.module";
const ENVIRONMENT: &str = "ataccama.one.platform.deployments.<name>.environment";
const ROLES: &str = "ataccama.one.platform.deployments.<name>.security.roles";
const FINGERPRINT: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.fingerprint";
const CONTENT: &str = "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.content";
const IS_REVOKED: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.is-revoked";

/// The patterns of the settings, cut once.
pub(super) struct Patterns {
    pub(super) own_key: Pattern,
    pub(super) own_name: Pattern,
    pub(super) grpc_port: Pattern,
    pub(super) module: Pattern,
    pub(super) environment: Pattern,
    pub(super) roles: Pattern,
    pub(super) fingerprint: Pattern,
    pub(super) content: Pattern,
    pub(super) is_revoked: Pattern,
    pub(super) tls_pin: Pattern,
}

impl Patterns {
    pub(super) fn new() -> Self {
        Self {
            own_key: Pattern::new(OWN_KEY),
            own_name: Pattern::new(OWN_NAME),
            grpc_port: Pattern::new(GRPC_PORT),
            module: Pattern::new(MODULE),
            environment: Pattern::new(ENVIRONMENT),
            roles: Pattern::new(ROLES),
            fingerprint: Pattern::new(FINGERPRINT),
            content: Pattern::new(CONTENT),
            is_revoked: Pattern::new(IS_REVOKED),
            tls_pin: Pattern::new(TLS_PIN),
        }
    }
}
