//! Which addresses may be dialled back for which deployment: rules only, no I/O.

mod allowed;
mod ranges;

pub use allowed::{AllowedAddress, Network};
pub use ranges::RefusedRange;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::engine::EngineAddress;

/// What the registry's file adds about where the engines of one deployment may be dialled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct AddressRules {
    /// Where they may be dialled. If empty, everywhere outside the refused ranges.
    ///
    /// It narrows and never widens: an address in a refused range stays refused.
    pub allowed: Vec<AllowedAddress>,
    /// Whether ports below 1024 may be dialled. Default: they may not, since that is where other
    /// services of a network listen.
    pub allow_low_ports: bool,
}

/// Where an engine is to be dialled, and who wants it.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The deployment that registers the engine.
    pub deployment: &'a str,
    /// The address that it gave.
    pub address: &'a EngineAddress,
    /// Whether the registration came from this machine, over loopback or from another of its
    /// addresses.
    pub over_loopback: bool,
}

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

/// Which addresses may be dialled back.
///
/// An engine says itself where it listens, so the holder of a trusted key chooses what the registry
/// connects to. The registry therefore dials no port below 1024, nothing that is no single host
/// ([`RefusedRange`]), not itself, and its own machine, by any address, only for engines that
/// called from there. Private ranges are dialled: engines live in them.
///
/// Every address that a name stands for has to pass. Whether the registration came from this
/// machine is what the connection says: behind a proxy on the registry's own machine every caller
/// does. [`AddressRules::allowed`] is the answer there.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    own: Vec<SocketAddr>,
    pub(crate) rules: AddressBook,
}

impl AddressPolicy {
    /// Refuses `own`, where this process listens, and applies `rules` to the deployments that they
    /// name; the others have [`AddressRules::default`].
    pub fn new(own: Vec<SocketAddr>, rules: impl Into<AddressBook>) -> Self {
        Self {
            own,
            rules: rules.into(),
        }
    }

    /// Checks whether `destination`, which is `resolved`, may be dialled.
    ///
    /// Judges the port and each of `resolved`; what is dialled must be one of these, not a second
    /// answer of the resolver. `is_local` returns `true` for an address of this machine.
    ///
    /// # Errors
    ///
    /// The first rule that refuses it.
    pub fn check(
        &self,
        destination: &Destination<'_>,
        resolved: &[IpAddr],
        is_local: impl Fn(IpAddr) -> bool,
    ) -> Result<(), AddressRefusal> {
        let Destination {
            deployment,
            address: wanted,
            over_loopback: is_from_here,
        } = *destination;
        let (rules, port) = (self.rules.rules_of(deployment), wanted.port());
        if port < FIRST_HIGH_PORT && !rules.allow_low_ports {
            return Err(AddressRefusal(format!(
                "port {port} is below {FIRST_HIGH_PORT}, and `countersign.deployments.{deployment}.allow-low-ports` is not set in the registry's file"
            )));
        }
        for address in resolved.iter().map(IpAddr::to_canonical) {
            let is_here = address.is_loopback() || is_local(address);
            let target = SocketAddr::new(address, port);
            let refused = if let Some(range) = RefusedRange::of(address) {
                format!("{address} is {range}")
            } else if address.is_loopback() && !is_from_here {
                format!("{address} is loopback, and the registration did not come over loopback")
            } else if is_here && !is_from_here {
                format!(
                    "{address} is the registry's own machine, and the registration did not come from there"
                )
            } else if self.is_own(target, is_here) {
                format!("{target} is where the registry itself listens")
            } else if !rules.allow(wanted.hostname(), address) {
                format!(
                    "{address} is not among `countersign.deployments.{deployment}.allowed-addresses` of the registry's file"
                )
            } else {
                continue;
            };
            return Err(AddressRefusal(refused));
        }
        Ok(())
    }

    fn is_own(&self, target: SocketAddr, is_here: bool) -> bool {
        self.own.iter().any(|own| {
            let ip = own.ip().to_canonical();
            let is_same = ip == target.ip() || (ip.is_unspecified() && is_here);
            own.port() == target.port() && is_same
        })
    }
}

impl AddressRules {
    fn allow(&self, hostname: &str, address: IpAddr) -> bool {
        let mut allowed = self.allowed.iter();
        self.allowed.is_empty() || allowed.any(|allowed| allowed.matches(hostname, address))
    }
}

const FIRST_HIGH_PORT: u16 = 1024;

/// Why an address may not be dialled back: a sentence that names the rule, and the setting if one
/// decides.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct AddressRefusal(String);

#[cfg(test)]
mod tests;
