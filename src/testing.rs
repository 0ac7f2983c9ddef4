//! For unit tests: an identity without a token, and a pair of modules that trust each other.
//!
//! Behind the feature `testing`; put `countersign = { …, features = ["testing"] }` under
//! `[dev-dependencies]` only, since [`identity`] makes an identity without any check.
//!
//! ```
//! use countersign::{ServiceIdentity, testing};
//!
//! // A handler's unit test: the request as the server layer would hand it over.
//! let mut request = tonic::Request::new(());
//! request.extensions_mut().insert(testing::identity("dpe", "dpe-dev", &["IMPERSONATION"]));
//!
//! let caller = countersign::grpc::caller(&request).unwrap();
//! assert_eq!(caller.id(), "dpe-dev");
//! ```

#![expect(
    clippy::unwrap_used,
    reason = "what a test makes is valid, and failing the test is the right answer"
)]

use std::sync::Arc;

use crate::clock::{Clock, ManualClock};
use crate::grpc::{Module, ModuleBuilder};
use crate::identity::{DeploymentName, ModuleType, Role, Roles, ServiceIdentity};
use crate::jose::SigningKey;
use crate::trust::{Deployment, OwnDeployment, TrustedKey};

/// Makes an unverified identity.
///
/// # Panics
///
/// If a name or role is invalid.
pub fn identity(module: &str, id: &str, roles: &[&str]) -> ServiceIdentity {
    let roles: Roles = roles.iter().map(|role| Role::new(role).unwrap()).collect();
    let id = DeploymentName::new(id).unwrap();
    ServiceIdentity::for_tests(ModuleType::new(module).unwrap(), &id, roles)
}

/// Two modules with fresh keys that trust each other, on one clock.
#[derive(Debug)]
#[non_exhaustive]
pub struct Pair {
    /// `dpm-dev`, of module type `dpm`.
    pub dpm: Module,
    /// `dpe-dev`, of module type `dpe`.
    pub dpe: Module,
    /// The clock of both. Starts in 2027 and does not advance.
    pub clock: Arc<ManualClock>,
}

/// Makes a pair: `dpm-dev` and `dpe-dev`, each with the role `IMPERSONATION` at the other.
///
/// # Panics
///
/// When the operating system gives no random bytes for the keys.
pub fn pair() -> Pair {
    let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
    let (dpm, dpe) = (
        own_deployment("dpm", "dpm-dev"),
        own_deployment("dpe", "dpe-dev"),
    );
    let (engine, registry) = (trusted(&dpe), trusted(&dpm));
    let ticking = |builder: ModuleBuilder| builder.clock(Arc::clone(&clock) as Arc<dyn Clock>);
    Pair {
        dpm: ticking(Module::builder(dpm).trust(engine)).build().unwrap(),
        dpe: ticking(Module::builder(dpe).trust(registry))
            .build()
            .unwrap(),
        clock,
    }
}

/// Makes a module's own half: a fresh key under its fingerprint.
///
/// # Panics
///
/// If a name is invalid, or the operating system gives no random bytes.
pub fn own_deployment(module: &str, name: &str) -> OwnDeployment {
    let key = SigningKey::generate().unwrap();
    let module = ModuleType::new(module).unwrap();
    OwnDeployment::new(module, DeploymentName::new(name).unwrap(), key)
}

/// Makes what a peer's file holds about `own`: its public key and the role `IMPERSONATION`.
///
/// # Panics
///
/// When `own` has no name.
pub fn trusted(own: &OwnDeployment) -> Deployment {
    let mut key = TrustedKey::new("key", own.key.verifying_key().clone());
    key.key_id = own.key_id.clone();
    let name = own.name.clone().unwrap();
    let mut deployment = Deployment::new(name, own.module.clone(), vec![key]);
    deployment.roles = Roles::from_iter([Role::new("IMPERSONATION").unwrap()]);
    deployment
}
