//! Addresses that are not a single host of any network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
