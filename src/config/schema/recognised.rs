//! Settings of this family of files that have no effect here. `.**` stands for every name below.

use super::{Setting, Takes};
use crate::properties::name::uniform;

const KEYCLOAK: &str = "people sign in with Keycloak; countersign knows services only";
const CONFIG_SERVICE: &str = "the Configuration Service is not asked; this file is the whole truth";
const STORES: &str = "Java key stores are not read; give PEM files instead";
const GENERATED: &str = "no certificate is made at the start; `countersign pair --tls` makes one";
const TRUST_ALL: &str = "certificates are always checked; name or pin the peer's instead";
const ENCRYPTION: &str = "encrypted values are not decrypted";
const HTTP: &str = "protects the vendor's HTTP services";
const SPRING: &str = "belongs to Spring Boot";
const JOBS: &str = "belongs to the vendor's jobs";
const OTHERS: &str = "belongs to the vendor's modules";

const fn unused(name: &'static str, what: &'static str) -> Setting {
    Setting::new(name, Takes::Unused, what)
}

/// The settings without an effect. Exact names of ours are found first.
pub(super) static SETTINGS: &[Setting] = &[
    unused("ataccama.authentication.keycloak.**", KEYCLOAK),
    unused("ataccama.authentication.grpc.basic.**", KEYCLOAK),
    unused("ataccama.authentication.grpc.bearer.**", KEYCLOAK),
    unused("ataccama.authentication.grpc.mtls.**", OTHERS),
    unused("ataccama.authentication.http.**", HTTP),
    unused("ataccama.client.connection.<c>.name", OTHERS),
    unused("ataccama.client.connection.<c>.http.**", HTTP),
    unused("ataccama.client.connection.<c>.grpc.tls.**", STORES),
    unused("ataccama.client.connection.<c>.tls.**", STORES),
    unused("ataccama.client.connection.<c>.grpc.**", OTHERS),
    unused("ataccama.client.grpc.**", STORES),
    unused("ataccama.client.http.**", HTTP),
    unused("ataccama.client.tls.**", STORES),
    unused("ataccama.server.grpc.**", STORES),
    unused("ataccama.server.http.**", HTTP),
    unused("ataccama.server.tls.**", STORES),
    unused("ataccama.config-service.**", CONFIG_SERVICE),
    unused("ataccama.one.dpm.registry.check-engine-threads", OTHERS),
    unused("ataccama.one.dpm.registry.channel-provider-ttl", OTHERS),
    unused(
        "ataccama.one.dpm.registry.manually-inactivate-engines-not-seen-for",
        OTHERS,
    ),
    unused("ataccama.one.dpe.environment", OTHERS),
    unused("ataccama.one.dpe.service.debug", OTHERS),
    unused("ataccama.one.dpe.service.persistence.**", OTHERS),
    unused("ataccama.one.webserver.gql.allowed-roles", HTTP),
    unused("ataccama.one.graphql.masking.**", HTTP),
    unused("ataccama.path.**", OTHERS),
    unused("plugin.executor.ataccama.one.**", JOBS),
    unused("plugin.dqc.ataccama.one.mmm.**", OTHERS),
    unused("properties.encryption.**", ENCRYPTION),
    unused("internal.encryption.**", ENCRYPTION),
    unused("logging.level.**", SPRING),
    unused("logging.file.path", SPRING),
    unused("management.**", SPRING),
    unused("server.shutdown", SPRING),
    unused("server.ssl.**", STORES),
    unused("security.require-ssl", STORES),
    unused("spring.lifecycle.timeout-per-shutdown-phase", SPRING),
    unused("spring.config.import", SPRING),
    unused("root.level", SPRING),
];

/// Returns why `setting`, written as `name`, has no effect.
pub(in crate::config) fn why_unused(setting: &Setting, name: &str) -> &'static str {
    let name = uniform(name);
    match name.rsplit('.').next() {
        _ if setting.what != STORES || !name.contains(".tls.") => setting.what,
        Some("allowgenerate" | "hostname") => GENERATED,
        Some("trustall") => TRUST_ALL,
        _ => setting.what,
    }
}
