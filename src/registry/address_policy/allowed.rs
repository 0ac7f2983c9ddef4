//! A host or network that an operator lists.

use std::net::IpAddr;

use crate::engine::EngineAddress;

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
mod tests {
    use super::*;

    #[test]
    fn networks_hold_the_addresses_of_their_prefix() {
        // Network, an address within, an address without.
        for (network, within, without) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.2/31", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("fd00::1", "fd00::1", "fd00::2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
        ] {
            let listed = AllowedAddress::parse(network).unwrap();
            let holds = |address: &str| listed.matches("a", address.parse().unwrap());

            assert!(holds(within), "{network} {within}");
            assert!(!holds(without), "{network} {without}");
        }
    }

    #[test]
    fn hosts_are_compared_without_case_and_whole() {
        let host = AllowedAddress::parse("DPE.Example.org").unwrap();
        let address = "10.0.0.1".parse().unwrap();

        assert!(host.matches("dpe.example.ORG", address));
        for other in [
            "example.org",
            "dpe.example.org.evil.org",
            "xdpe.example.org",
        ] {
            assert!(!host.matches(other, address), "{other}");
        }
    }

    #[test]
    fn other_texts_list_nothing() {
        for text in [
            "",
            " ",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/255.0.0.0",
            "::/129",
            "10.0.0",
            "10",
            "0x7f.1",
            "*.example.org",
            "a b",
            "example.org/8",
            "-a",
            "a-",
            "http://a",
            "[::1]",
            "fe80::1%eth0",
        ] {
            assert_eq!(AllowedAddress::parse(text), None, "{text}");
        }
    }
}
