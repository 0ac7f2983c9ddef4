//! What every module serves beside its own services: identity, health, reflection.

#[cfg(feature = "actuator")]
use prost::{DecodeError, Message as _};
#[cfg(feature = "actuator")]
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic::service::Routes;
#[cfg(feature = "actuator")]
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService as Reported},
};
#[cfg(feature = "actuator")]
use tonic_reflection::server::{Builder, Error as ReflectionError};

#[cfg(feature = "actuator")]
use super::health::HealthService;
#[cfg(feature = "actuator")]
use super::metrics::OWN_DESCRIPTORS;
#[cfg(feature = "actuator")]
use super::serve::Reflection;
use super::serve::ServerOptions;
use super::{MethodRules, Module, Rule};

/// The services that every module has, and the rules for them.
///
/// `IdentityService` for any verified identity and the module's own operator; `grpc.health.v1` and,
/// if it is on, `grpc.reflection` v1 and v1alpha for everyone.
#[derive(Debug)]
pub struct StandardServices {
    /// The services, to which a module adds its own.
    pub routes: Routes,
    /// Their rules, to which a module adds its own.
    pub rules: MethodRules,
    /// What the module's health is.
    #[cfg(feature = "actuator")]
    pub health: Health,
}

#[cfg(not(feature = "actuator"))]
impl StandardServices {
    /// Makes the one that there is without the feature `actuator`.
    pub fn new(module: &Module, options: &ServerOptions) -> Self {
        Self {
            routes: routes(module, options),
            rules: own_rules(),
        }
    }
}

fn routes(module: &Module, options: &ServerOptions) -> Routes {
    let identity = module.identity_service();
    Routes::new(identity.max_decoding_message_size(options.max_message_bytes))
}

fn own_rules() -> MethodRules {
    let rule = Rule::any_identity().or_own_module();
    MethodRules::deny_all().with(IDENTITY, "WhoAmI", rule)
}

#[cfg(feature = "actuator")]
impl StandardServices {
    /// Makes them for `module`, which also serves the services that `own` names. Nothing is healthy
    /// yet.
    ///
    /// # Errors
    ///
    /// When the compiled-in descriptors cannot be served.
    pub fn new(
        module: &Module,
        options: &ServerOptions,
        own: Vec<String>,
    ) -> Result<Self, ReflectionError> {
        let mut services = own;
        services.extend([String::new(), IDENTITY.to_owned()]);
        let reporter = HealthReporter::new();
        let standard = Reported::from_health_reporter(reporter.clone());
        let health = HealthServer::new(HealthService(standard));
        let mut routes =
            routes(module, options).add_service(health.max_decoding_message_size(SMALL));
        let mut rules = own_rules().with(HEALTH, "Check", Rule::everyone()).with(
            HEALTH,
            "Watch",
            Rule::everyone(),
        );
        if options.reflection == Reflection::On {
            let v1 = descriptors(&services)?.build_v1()?;
            let v1alpha = descriptors(&services)?.build_v1alpha()?;
            routes = routes
                .add_service(v1.max_decoding_message_size(SMALL))
                .add_service(v1alpha.max_decoding_message_size(SMALL));
            for service in REFLECTION {
                rules = rules.with(service, "ServerReflectionInfo", Rule::everyone());
            }
        }
        Ok(Self {
            routes,
            rules,
            health: Health { reporter, services },
        })
    }
}

/// The largest message to a service that everyone may call, in bytes.
const SMALL: usize = 8 * 1024;

const IDENTITY: &str = "countersign.identity.v1.IdentityService";
#[cfg(feature = "actuator")]
const HEALTH: &str = "grpc.health.v1.Health";
#[cfg(feature = "actuator")]
const REFLECTION: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Describes what is served, and nothing else: `services`, as far as they have a descriptor, health
/// and reflection itself.
#[cfg(feature = "actuator")]
fn descriptors(services: &[String]) -> Result<Builder<'static>, DecodeError> {
    let named = services.iter().map(String::as_str);
    let own = named.filter(|name| !name.is_empty());
    let served: Vec<_> = own.chain(REFLECTION).chain([HEALTH]).collect();
    let mut described = Builder::configure().include_reflection_service(false);
    for encoded in OWN_DESCRIPTORS {
        let mut set = FileDescriptorSet::decode(encoded)?;
        set.file.retain(|file| {
            file.service.is_empty() || served.iter().any(|name| defines(file, name))
        });
        described = described.register_file_descriptor_set(set);
    }
    Ok(served
        .iter()
        .fold(described, |all, name| all.with_service_name(*name)))
}

/// Returns `true` if `file` defines the service that has this full name.
#[cfg(feature = "actuator")]
fn defines(file: &FileDescriptorProto, name: &str) -> bool {
    let mut services = file.service.iter();
    services.any(|own| name.rsplit_once('.') == Some((file.package(), own.name())))
}

/// The health of a module and its services, as `grpc.health.v1` reports it.
#[cfg(feature = "actuator")]
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<String>,
}

#[cfg(feature = "actuator")]
impl Health {
    /// Reports `SERVING` for the module and each service, or `NOT_SERVING`.
    pub async fn report(&self, is_ready: bool) {
        let status = if is_ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
