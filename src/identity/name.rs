//! Names that identify: checked once, at the edge.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn names_that_differ_in_case_or_dashes_are_uniformly_equal() {
        let one = DeploymentName::new("dpe-dev").unwrap();
        let other = DeploymentName::new("DPEDev").unwrap();

        assert_ne!(one, other);
        assert_eq!(one.uniform(), other.uniform());
    }
}
