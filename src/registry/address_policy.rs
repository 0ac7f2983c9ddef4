//! Which addresses may be dialled back for which deployment: rules only, no I/O.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

/// An address that is never dialled for any deployment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RefusedRange {
    /// `0.0.0.0/8` and `::`: no destination ([RFC 1122, 3.2.1.3]); systems dial themselves instead.
    ///
    /// [RFC 1122, 3.2.1.3]: https://www.rfc-editor.org/rfc/rfc1122#page-29
    Unspecified,
    /// `255.255.255.255`.
    Broadcast,
    /// `224.0.0.0/4` and `ff00::/8`.
    Multicast,
    /// `169.254.0.0/16` and `fe80::/10`.
    LinkLocal,
    /// Where clouds serve credentials to any caller.
    Metadata,
    /// An IPv6 address that leads to a refused IPv4 address, by a tunnel or a translator.
    Embedded(Ipv4Addr),
    /// `64:ff9b:1::/48` ([RFC 8215]): leads to an IPv4 address, but only the network knows the
    /// prefix length, and so which address.
    ///
    /// [RFC 8215]: https://www.rfc-editor.org/rfc/rfc8215
    LocalTranslation,
}

impl RefusedRange {
    /// Returns the refused range that contains `address`, if there is one.
    ///
    /// Loopback is not one of them: whether it may be dialled depends on who asks. An IPv4-mapped
    /// address is judged as the IPv4 address that it is.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Option<RefusedRange> {
    match address.octets() {
        _ if METADATA_V4.contains(&address) => Some(RefusedRange::Metadata),
        [0, ..] => Some(RefusedRange::Unspecified),
        [169, 254, ..] => Some(RefusedRange::LinkLocal),
        [255, 255, 255, 255] => Some(RefusedRange::Broadcast),
        [224..=239, ..] => Some(RefusedRange::Multicast),
        _ => None,
    }
}

fn of_v6(address: Ipv6Addr) -> Option<RefusedRange> {
    if address.is_unspecified() {
        return Some(RefusedRange::Unspecified);
    }
    if address.is_loopback() {
        return None;
    }
    if METADATA_V6.contains(&address) {
        return Some(RefusedRange::Metadata);
    }
    match address.segments() {
        [0xff00..=0xffff, ..] => return Some(RefusedRange::Multicast),
        [0xfe80..=0xfebf, ..] => return Some(RefusedRange::LinkLocal),
        [0x64, 0xff9b, 1, ..] => return Some(RefusedRange::LocalTranslation),
        _ => {}
    }
    let inner = embedded(address)?;
    // Loopback at the far end of a tunnel is not an engine.
    let refused = inner.is_loopback() || of_v4(inner).is_some();
    refused.then_some(RefusedRange::Embedded(inner))
}

/// Returns the IPv4 address that is embedded in `address`, if there is one.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match address.segments() {
        // 6to4 (RFC 3056); IPv4-compatible (RFC 4291, 2.5.5.1) and -translated (RFC 2765); NAT64
        // (RFC 6052).
        [0x2002, high, low, ..]
        | [0, 0, 0, 0, 0 | 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        // Teredo (RFC 4380): the client, inverted.
        [0x2001, 0, .., high, low] => (!high, !low),
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

/// EC2, GCE, Azure and others; Alibaba; Oracle; Azure's host.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// EC2, GCE.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

impl fmt::Display for RefusedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unspecified => f.write_str("the unspecified address, which is not a destination"),
            Self::Broadcast => f.write_str("the broadcast address"),
            Self::Multicast => f.write_str("a multicast address"),
            Self::LinkLocal => f.write_str("link-local"),
            Self::Metadata => f.write_str("the metadata address of a cloud"),
            Self::Embedded(inner) => match of_v4(*inner) {
                Some(range) => write!(f, "a way to {inner}, which is {range}"),
                None => write!(f, "a way to {inner}, which is loopback"),
            },
            Self::LocalTranslation => {
                f.write_str("in 64:ff9b:1::/48, which hides the real IPv4 destination")
            }
        }
    }
}

/// A host or network that may be dialled back.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AllowedAddress {
    /// A DNS name in lower case: the very name that the engine gives, whatever it stands for.
    Host(String),
    /// Every address of a network, also by a name that stands for it.
    Network(Network),
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl AllowedAddress {
    /// Reads a host name, an IP address, or a network such as `10.0.0.0/8`.
    ///
    /// An address is a network of its own. Bits beyond the network's length do not count. An
    /// IPv4-mapped network, such as `::ffff:10.0.0.0/104`, is the IPv4 one.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, bits) = match text.split_once('/') {
            Some((host, bits)) => (host, Some(decimal(bits)?)),
            None => (text, None),
        };
        match (host.parse::<IpAddr>(), bits) {
            (Ok(address), bits) => Network::new(address, bits).map(Self::Network),
            // The form of an engine's host, so that each that is listed can be met.
            (Err(_), None) => EngineAddress::new(host, 1)
                .is_ok()
                .then(|| Self::Host(host.to_ascii_lowercase())),
            (Err(_), Some(_)) => None,
        }
    }

    /// Returns `true` if this lists `hostname`, which has the address `address`.
    pub(super) fn matches(&self, hostname: &str, address: IpAddr) -> bool {
        match self {
            Self::Host(host) => host.eq_ignore_ascii_case(hostname),
            Self::Network(network) => network.contains(address),
        }
    }
}

impl Network {
    fn new(address: IpAddr, bits: Option<u8>) -> Option<Self> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return None;
        }
        Some(match (address, address.to_canonical()) {
            (IpAddr::V6(_), mapped @ IpAddr::V4(_)) if bits >= MAPPED_BITS => Self {
                address: mapped,
                bits: bits - MAPPED_BITS,
            },
            _ => Self { address, bits },
        })
    }

    /// Returns `true` if `address`, in its canonical form, is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (width, difference) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (32, u128::from(own.to_bits() ^ other.to_bits()))
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (128, own.to_bits() ^ other.to_bits()),
            _ => return false,
        };
        let ignored = width - u32::from(self.bits);
        difference.checked_shr(ignored).unwrap_or(0) == 0
    }
}

/// The prefix of IPv4-mapped addresses.
const MAPPED_BITS: u8 = 96;

/// Reads only digits: `u8::from_str` also accepts a sign.
fn decimal(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
