//! The current address rules, which a reload may replace.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::AddressRules;

/// Address rules by deployment. Cloning is cheap; all clones hold the same rules, and a change is
/// seen by all of them at once.
#[derive(Clone, Debug, Default)]
pub struct AddressBook(Arc<ArcSwap<HashMap<String, AddressRules>>>);

impl AddressBook {
    /// Starts with `rules`; deployments without an entry have [`AddressRules::default`].
    pub fn new(rules: HashMap<String, AddressRules>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(rules)))
    }

    /// Replaces the rules for every later check.
    pub fn replace(&self, rules: HashMap<String, AddressRules>) {
        self.0.store(Arc::new(rules));
    }

    /// Returns a copy of the rules of `deployment`.
    pub fn rules_of(&self, deployment: &str) -> AddressRules {
        self.0.load().get(deployment).cloned().unwrap_or_default()
    }
}

impl From<HashMap<String, AddressRules>> for AddressBook {
    fn from(rules: HashMap<String, AddressRules>) -> Self {
        Self::new(rules)
    }
}
