//! Roles: what a deployment may do here.

use std::fmt;
use std::sync::Arc;

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
