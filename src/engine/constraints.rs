//! What an engine needs and offers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Why constraints are not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintsError {
    /// More than 64 KiB.
    #[error("the constraints take {0} bytes, at most 65536 are allowed")]
    TooLarge(usize),
}

/// Requirements, capabilities and priorities of an engine. Cloning is cheap.
///
/// At most 64 KiB, counted as the bytes of every text and 8 for each entry. The texts are the
/// engine's own: free, unchecked, and to be escaped wherever they are shown.
///
/// Prints as in the seed's log line:
/// `(requirements: {} capabilities: {a: b} priorities: [])`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EngineConstraints(Arc<Parts>);

#[derive(Debug, Default, Eq, PartialEq)]
struct Parts {
    requirements: BTreeMap<String, String>,
    capabilities: BTreeMap<String, String>,
    priorities: Vec<String>,
    bytes: usize,
}

/// What all engines without constraints share.
static NONE: LazyLock<Arc<Parts>> = LazyLock::new(Arc::default);

impl EngineConstraints {
    /// The maximum size of constraints, in bytes.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// Takes the three parts.
    ///
    /// # Errors
    ///
    /// When they take more than [`Self::MAX_BYTES`].
    pub fn new(
        requirements: BTreeMap<String, String>,
        capabilities: BTreeMap<String, String>,
        priorities: Vec<String>,
    ) -> Result<Self, ConstraintsError> {
        let pairs = requirements.iter().chain(&capabilities);
        let size = pairs
            .map(|(name, value)| name.len() + value.len() + ENTRY_BYTES)
            .chain(priorities.iter().map(|text| text.len() + ENTRY_BYTES))
            .sum();
        if size > Self::MAX_BYTES {
            return Err(ConstraintsError::TooLarge(size));
        }
        if size == 0 {
            return Ok(Self(Arc::clone(&NONE)));
        }
        Ok(Self(Arc::new(Parts {
            requirements,
            capabilities,
            priorities,
            bytes: size,
        })))
    }

    /// Returns their size, as it is counted.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Returns what a job must bring.
    pub fn requirements(&self) -> &BTreeMap<String, String> {
        &self.0.requirements
    }

    /// Returns what the engine offers.
    pub fn capabilities(&self) -> &BTreeMap<String, String> {
        &self.0.capabilities
    }

    /// Returns the preferences, most important first.
    pub fn priorities(&self) -> &[String] {
        &self.0.priorities
    }
}

const ENTRY_BYTES: usize = 8;

impl fmt::Display for EngineConstraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requirements, capabilities) = (pairs(self.requirements()), pairs(self.capabilities()));
        let priorities = self.priorities().join(", ");
        write!(
            f,
            "(requirements: {{{requirements}}} capabilities: {{{capabilities}}} priorities: [{priorities}])"
        )
    }
}

fn pairs(map: &BTreeMap<String, String>) -> String {
    let pairs = map.iter().map(|(name, value)| format!("{name}: {value}"));
    pairs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_print_as_in_the_seed() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let capabilities = BTreeMap::from([pair("a", "b"), pair("c", "d")]);

        let constraints =
            EngineConstraints::new(BTreeMap::new(), capabilities, vec!["x".into(), "y".into()]);

        assert_eq!(
            constraints.unwrap().to_string(),
            "(requirements: {} capabilities: {a: b, c: d} priorities: [x, y])"
        );
        assert_eq!(
            EngineConstraints::default().to_string(),
            "(requirements: {} capabilities: {} priorities: [])"
        );
    }

    #[test]
    fn constraints_over_64_kib_are_refused() {
        let of = |bytes: usize| {
            EngineConstraints::new(BTreeMap::new(), BTreeMap::new(), vec!["x".repeat(bytes)])
        };

        assert!(of(64 * 1024 - 8).is_ok());
        assert_eq!(
            of(64 * 1024 - 7),
            Err(ConstraintsError::TooLarge(64 * 1024 + 1))
        );
    }
}
