//! Who a module is: deployment names, module types, environments, roles, and the identity that a
//! verified call carries.

mod name;
mod role;

pub use name::{DeploymentName, Environment, ModuleType, NameError};
pub use role::{Role, RoleError, Roles};

use std::fmt;
use std::sync::Arc;

/// A module that proved who it is.
///
/// Only the verifier makes one: module, id and roles come from the callee's own file, where they
/// are beside the key that signed the token, never from the token. Handlers find it in the
/// request's extensions. Cloning is cheap.
///
/// Prints as in the seed's log line:
/// `ServiceIdentity(module=dpe, id=dpe-dev, roles=[IMPERSONATION])`.
///
/// Code outside of this crate cannot make one, not even from its parts:
///
/// ```compile_fail,E0624
/// # use countersign::identity::{ModuleType, Role, Roles, ServiceIdentity};
/// let module = ModuleType::new("dpe").unwrap();
/// let roles = Roles::from_iter([Role::new("IMPERSONATION").unwrap()]);
/// let identity = ServiceIdentity::new(module, "dpe-dev", roles);
/// ```
///
/// while the same without the last line compiles:
///
/// ```
/// # use countersign::identity::{ModuleType, Role, Roles, ServiceIdentity};
/// let module = ModuleType::new("dpe").unwrap();
/// let roles = Roles::from_iter([Role::new("IMPERSONATION").unwrap()]);
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct ServiceIdentity(Arc<Parts>);

#[derive(Eq, PartialEq)]
struct Parts {
    module: ModuleType,
    id: Box<str>,
    roles: Roles,
}

impl ServiceIdentity {
    /// Makes an identity. Crate-private, so that outside of this crate only a verified token does.
    pub(crate) fn new(module: ModuleType, id: &str, roles: Roles) -> Self {
        Self(Arc::new(Parts {
            module,
            id: id.into(),
            roles,
        }))
    }

    /// Makes an unverified identity, for the unit tests of handlers.
    #[cfg(feature = "testing")]
    pub fn for_tests(module: ModuleType, id: &DeploymentName, roles: Roles) -> Self {
        Self::new(module, id.as_str(), roles)
    }

    /// Returns the module type, such as `dpe`.
    pub fn module(&self) -> &ModuleType {
        &self.0.module
    }

    /// Returns the deployment name, such as `dpe-dev`.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Returns the roles that the callee's file gives this deployment.
    pub fn roles(&self) -> &Roles {
        &self.0.roles
    }
}

impl fmt::Display for ServiceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { module, id, roles } = &*self.0;
        write!(
            f,
            "ServiceIdentity(module={module}, id={id}, roles={roles})"
        )
    }
}

impl fmt::Debug for ServiceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_prints_as_in_the_seed() {
        let module = ModuleType::new("dpe").unwrap();
        let roles = Roles::from_iter([Role::new("IMPERSONATION").unwrap()]);

        let identity = ServiceIdentity::new(module, "dpe-dev", roles);

        assert_eq!(
            identity.to_string(),
            "ServiceIdentity(module=dpe, id=dpe-dev, roles=[IMPERSONATION])"
        );
    }
}
