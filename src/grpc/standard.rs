//! What every module serves beside its own services: identity, health, reflection.

use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::{Builder, Error as ReflectionError};

use crate::proto;

use super::{MethodRules, Module, Rule};

/// Whether a server answers reflection requests, which everyone may send.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reflection {
    /// It does: clients such as grpcurl learn the services from it. For loopback listeners.
    On,
    /// It does not.
    #[default]
    Off,
}

/// The services that every module has, and the rules for them.
///
/// `IdentityService` for any verified identity and the module's own operator; `grpc.health.v1` and,
/// where it is on, `grpc.reflection` v1 and v1alpha for everyone.
#[derive(Debug)]
pub struct StandardServices {
    /// The services, to which a module adds its own.
    pub routes: Routes,
    /// Their rules, to which a module adds its own.
    pub rules: MethodRules,
    /// What the module's health is.
    pub health: Health,
}

impl StandardServices {
    /// Makes them for `module`; each takes messages of `max_message_bytes` at most. Nothing is
    /// healthy yet.
    ///
    /// # Errors
    ///
    /// When the compiled-in descriptors cannot be served.
    pub fn new(
        module: &Module,
        reflection: Reflection,
        max_message_bytes: usize,
    ) -> Result<Self, ReflectionError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let identity = module.identity_service();
        let mut routes = Routes::new(identity.max_decoding_message_size(max_message_bytes))
            .add_service(health.max_decoding_message_size(max_message_bytes));
        let mut rules = MethodRules::deny_all()
            .allow(
                "/countersign.identity.v1.IdentityService/WhoAmI",
                Rule::any_identity().or_own_module(),
            )
            .allow("/grpc.health.v1.Health/*", Rule::everyone());
        if reflection == Reflection::On {
            routes = routes
                .add_service(
                    descriptors()
                        .build_v1()?
                        .max_decoding_message_size(max_message_bytes),
                )
                .add_service(
                    descriptors()
                        .build_v1alpha()?
                        .max_decoding_message_size(max_message_bytes),
                );
            for service in ["v1", "v1alpha"] {
                let methods = format!("/grpc.reflection.{service}.ServerReflection/*");
                rules = rules.allow(&methods, Rule::everyone());
            }
        }
        Ok(Self {
            routes,
            rules,
            health: Health {
                reporter,
                services: vec!["", "countersign.identity.v1.IdentityService"],
            },
        })
    }
}

fn descriptors() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// The health of a module and its services, as `grpc.health.v1` reports it.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl Health {
    /// Also reports the service `S`.
    #[must_use]
    pub fn of<S: NamedService>(mut self) -> Self {
        self.services.push(S::NAME);
        self
    }

    /// Says `SERVING` for the module and each service.
    pub async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// Says `NOT_SERVING` for the module and each service.
    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
