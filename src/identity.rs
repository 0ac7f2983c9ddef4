//! Who a module is: deployment names, module types, environments, roles, and the identity that a
//! verified call carries.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The spellings of names, found by the form in which all agree: so that a name that is typed
/// becomes the one that a file has.
#[derive(Debug, Default)]
pub(crate) struct Spellings(HashMap<String, DeploymentName>);

impl Spellings {
    /// Returns `name` as it is spelled here, or as it stands.
    pub(crate) fn canonical(&self, name: DeploymentName) -> DeploymentName {
        self.0.get(&name.uniform()).cloned().unwrap_or(name)
    }
}

/// Of two spellings the first counts.
impl FromIterator<DeploymentName> for Spellings {
    fn from_iter<I: IntoIterator<Item = DeploymentName>>(names: I) -> Self {
        let mut all = HashMap::new();
        for name in names {
            all.entry(name.uniform()).or_insert(name);
        }
        Self(all)
    }
}

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

/// Why a text is not a name.
#[derive(Clone, Copy, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than 40 characters.
    #[error("it has {0} characters, at most 40 are allowed")]
    TooLong(usize),
    /// A character outside letters, digits and dashes.
    #[error("it holds {0:?}; letters, digits and dashes are allowed")]
    Character(char),
}

crate::failure::debug_as_text!(NameError);

const MAX_CHARACTERS: usize = 40;

fn checked(text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(odd) = text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && *c != '-')
    {
        return Err(NameError::Character(odd));
    }
    let characters = text.len();
    if characters > MAX_CHARACTERS {
        return Err(NameError::TooLong(characters));
    }
    Ok(text.into())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`: 1 to 40 letters, digits and dashes.
            ///
            /// # Errors
            ///
            /// When `text` is empty, longer, or holds another character.
            pub fn new(text: &str) -> Result<Self, NameError> {
                checked(text).map(Self)
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

name! {
    /// The name of a deployment, such as `dpm-dev`: the same in every module's file.
    ///
    /// Letters, digits and dashes, at most 40. It is what a token's `iss`, `sub` and `aud` carry.
    DeploymentName
}

name! {
    /// The type of a module, such as `dpm` or `dpe`.
    ModuleType
}

name! {
    /// The environment of a deployment, such as `dev`.
    Environment
}

impl DeploymentName {
    /// Returns the form in which two names must differ: lower case, without dashes.
    ///
    /// Environment variables can express no more than that, so names that agree in it would be one.
    pub fn uniform(&self) -> String {
        self.0
            .chars()
            .filter(|c| *c != '-')
            .map(|c| c.to_ascii_lowercase())
            .collect()
    }
}

/// Why a text is not a role.
#[derive(Clone, Copy, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than 128 bytes.
    #[error("it has {0} bytes, at most 128 are allowed")]
    TooLong(usize),
    /// A blank, comma, bracket or control character.
    #[error("it holds {0:?}, which no role name may hold")]
    Character(char),
}

crate::failure::debug_as_text!(RoleError);

/// One role, such as `IMPERSONATION`. Compared without case, as the vendor's files are.
#[derive(Clone, Debug)]
pub struct Role(Arc<str>);

impl Role {
    /// Checks `text`: 1 to 128 bytes without blanks, commas, brackets or control characters.
    ///
    /// # Errors
    ///
    /// When `text` is empty, longer, or holds such a character.
    pub fn new(text: &str) -> Result<Self, RoleError> {
        if text.is_empty() {
            return Err(RoleError::Empty);
        }
        let mut odd = text
            .chars()
            .filter(|c| c.is_whitespace() || c.is_control() || matches!(c, ',' | '[' | ']'));
        if let Some(odd) = odd.next() {
            return Err(RoleError::Character(odd));
        }
        if text.len() > 128 {
            return Err(RoleError::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// Returns the role that the vendor's files give every peer, `IMPERSONATION`.
    pub fn impersonation() -> Self {
        Self("IMPERSONATION".into())
    }

    /// Returns the role as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Role {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Role {}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The roles of a deployment, in the file's order. Prints as `[A, B]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Roles(Arc<[Role]>);

impl Roles {
    /// Returns `true` if `role` is among them, ignoring case.
    pub fn contains(&self, role: &Role) -> bool {
        self.0.contains(role)
    }

    /// Returns them in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Role> {
        self.0.iter()
    }

    /// Returns `true` if there are no roles.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().collect())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<_> = self.0.iter().map(Role::as_str).collect();
        write!(f, "[{}]", roles.join(", "))
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

    #[test]
    fn deployment_names_are_letters_digits_and_dashes() {
        assert_eq!(DeploymentName::new("dpm-dev").unwrap().as_str(), "dpm-dev");
        assert_eq!(DeploymentName::new(""), Err(NameError::Empty));
        assert_eq!(
            DeploymentName::new("dpm.dev"),
            Err(NameError::Character('.'))
        );
        assert_eq!(
            DeploymentName::new("dpm:dev"),
            Err(NameError::Character(':'))
        );
        assert_eq!(
            DeploymentName::new(&"a".repeat(41)),
            Err(NameError::TooLong(41))
        );
    }

    #[test]
    fn a_typed_name_becomes_the_one_that_the_file_has() {
        let [known, later, typed, other] =
            ["dpe-Dev", "DPEDEV", "dpe-dev", "else"].map(|name| DeploymentName::new(name).unwrap());
        let spellings = Spellings::from_iter([known.clone(), later]);

        assert_eq!(spellings.canonical(typed), known);
        assert_eq!(spellings.canonical(other.clone()), other);
    }

    #[test]
    fn names_that_differ_in_case_or_dashes_are_uniformly_equal() {
        let one = DeploymentName::new("dpe-dev").unwrap();
        let other = DeploymentName::new("DPEDev").unwrap();

        assert_ne!(one, other);
        assert_eq!(one.uniform(), other.uniform());
    }

    #[test]
    fn roles_are_found_without_regard_to_case() {
        let roles = Roles::from_iter([Role::new("Impersonation").unwrap()]);

        assert!(roles.contains(&Role::new("IMPERSONATION").unwrap()));
        assert!(!roles.contains(&Role::new("IMPERSONATE").unwrap()));
    }

    #[test]
    fn role_with_a_comma_or_blank_is_refused() {
        assert_eq!(Role::new("A,B").unwrap_err(), RoleError::Character(','));
        assert_eq!(Role::new("A ").unwrap_err(), RoleError::Character(' '));
        assert_eq!(Role::new("").unwrap_err(), RoleError::Empty);
    }
}
