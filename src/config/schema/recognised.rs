//! Settings of this family of files that have no effect here. `.**` stands for every name below.

use super::owned::TLS_PREFIXES;
use super::setting::{Fallback, Setting, Takes};

const STORES_ARE_NOT_READ: &str = "Java key stores are not read; give PEM files instead";
const NO_CERTIFICATE: &str =
    "no certificate is made at the start; `countersign pair --tls` makes one";

/// Names below each place where TLS may be set, and why they have no effect.
const TLS: &[(&str, &str)] = &[
    ("allow-generate", NO_CERTIFICATE),
    ("hostname", NO_CERTIFICATE),
    (
        "trust-all",
        "certificates are always checked; name or pin the peer's instead",
    ),
    ("**", STORES_ARE_NOT_READ),
];

/// Why other settings have no effect, and their names.
const GROUPS: &[(&str, &[&str])] = &[
    (STORES_ARE_NOT_READ, STORES),
    (
        "people sign in with Keycloak; countersign knows services only",
        KEYCLOAK,
    ),
    (
        "the Configuration Service is not asked; this file is the whole truth",
        CONFIG_SERVICE,
    ),
    ("encrypted values are not decrypted", ENCRYPTION),
    ("protects the vendor's HTTP services", HTTP),
    ("belongs to Spring Boot", SPRING),
    (
        "belongs to the vendor's jobs",
        &["plugin.executor.ataccama.one.**"],
    ),
    ("belongs to the vendor's modules", OTHERS),
];

const STORES: &[&str] = &[
    "ataccama.client.grpc.**",
    "ataccama.server.grpc.**",
    "server.ssl.**",
    "security.require-ssl",
];
const KEYCLOAK: &[&str] = &[
    "ataccama.authentication.keycloak.**",
    "ataccama.authentication.grpc.basic.**",
    "ataccama.authentication.grpc.bearer.**",
];
const CONFIG_SERVICE: &[&str] = &["ataccama.config-service.**"];
const ENCRYPTION: &[&str] = &["properties.encryption.**", "internal.encryption.**"];
const HTTP: &[&str] = &[
    "ataccama.authentication.http.**",
    "ataccama.client.connection.<c>.http.**",
    "ataccama.client.http.**",
    "ataccama.server.http.**",
    "ataccama.one.webserver.gql.allowed-roles",
    "ataccama.one.graphql.masking.**",
];
const SPRING: &[&str] = &[
    "logging.level.**",
    "logging.file.path",
    "management.**",
    "server.shutdown",
    "spring.lifecycle.timeout-per-shutdown-phase",
    "spring.config.import",
    "root.level",
];
const OTHERS: &[&str] = &[
    "ataccama.authentication.grpc.mtls.**",
    "ataccama.client.connection.<c>.name",
    "ataccama.client.connection.<c>.grpc.**",
    "ataccama.one.dpm.registry.check-engine-threads",
    "ataccama.one.dpm.registry.channel-provider-ttl",
    "ataccama.one.dpm.registry.manually-inactivate-engines-not-seen-for",
    "ataccama.one.dpe.environment",
    "ataccama.one.dpe.service.debug",
    "ataccama.one.dpe.service.persistence.**",
    "ataccama.path.**",
    "plugin.dqc.ataccama.one.mmm.**",
];

/// Lists the settings without an effect; of several that fit a name, the first counts.
pub(super) fn settings() -> Vec<Setting> {
    let mut settings = Vec::new();
    for prefix in TLS_PREFIXES {
        for (name, why) in TLS {
            settings.push(unused(format!("{prefix}.{name}"), why));
        }
    }
    for (why, names) in GROUPS {
        settings.extend(names.iter().map(|name| unused((*name).to_owned(), why)));
    }
    settings
}

fn unused(name: String, why: &'static str) -> Setting {
    Setting::new(name, Takes::Unused, Fallback::None).unused_because(why)
}
