//! Where an engine listens.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Why a host and port are not a valid address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No host name.
    #[error("the host name is empty")]
    Empty,
    /// Longer than 253 bytes.
    #[error("the host name has {0} bytes, at most 253 are allowed")]
    TooLong(usize),
    /// A character that no DNS label may hold.
    #[error("the host name holds {0:?}; DNS labels and IP addresses are allowed")]
    Character(char),
    /// A label that is empty, longer than 63, or begins or ends with a dash.
    #[error("the host name has a label that is empty, over 63 bytes, or with a dash at an end")]
    Label,
    /// A number where some resolvers would read an IP address, such as `127.1` or `0x7f000001`.
    #[error("the host name ends in a number but is not an IP address in the usual form")]
    Number,
    /// Port 0, negative, or above 65535.
    #[error("the port is {0}, 1 to 65535 are allowed")]
    Port(i64),
}

/// A host and port to dial.
///
/// The host is an IP literal or DNS labels of letters, digits, dashes and underscores, at most 253
/// bytes; the port is 1 to 65535. Forms that only some resolvers take for an address (`127.1`,
/// `2852039166`, `0x7f.1`) are refused. Whether the address may be dialled is not checked here.
///
/// Prints as in the seed's log line: `EngineAddress(hostname=user-VirtualBox, port=8532)`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct EngineAddress {
    hostname: Arc<str>,
    port: u16,
}

impl EngineAddress {
    /// Checks `hostname` and `port`. An IPv6 literal has no brackets or zone.
    ///
    /// # Errors
    ///
    /// When `hostname` is neither an IP literal nor DNS labels, or `port` is out of range.
    pub fn new(hostname: &str, port: i64) -> Result<Self, AddressError> {
        let port = match u16::try_from(port) {
            Ok(port) if port > 0 => port,
            _ => return Err(AddressError::Port(port)),
        };
        check_host(hostname)?;
        Ok(Self {
            hostname: hostname.into(),
            port,
        })
    }

    /// Returns the host as it was given.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `host:port`, or `[host]:port` if the host is an IPv6 address.
    pub fn authority(&self) -> String {
        let Self { hostname, port } = self;
        if hostname.contains(':') {
            format!("[{hostname}]:{port}")
        } else {
            format!("{hostname}:{port}")
        }
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hostname, port } = self;
        write!(f, "EngineAddress(hostname={hostname}, port={port})")
    }
}

/// Checks that `host` is a name or an address, and nothing else.
///
/// # Errors
///
/// When it is neither an IP literal nor DNS labels; those may hold underscores, as the names of
/// containers do.
pub fn check_host(host: &str) -> Result<(), AddressError> {
    if host.is_empty() {
        return Err(AddressError::Empty);
    }
    if host.len() > MAX_HOST_BYTES {
        return Err(AddressError::TooLong(host.len()));
    }
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let mut all = host.chars();
    if let Some(odd) = all.find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_')) {
        return Err(AddressError::Character(odd));
    }
    let mut last = host;
    for label in host.split('.') {
        if label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-') {
            return Err(AddressError::Label);
        }
        last = label;
    }
    // The WHATWG URL rule "ends in a number": such a host is an address or nothing.
    let hex = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::Number);
    }
    Ok(())
}

const MAX_HOST_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_prints_as_in_the_seed() {
        let address = EngineAddress::new("user-VirtualBox", 8532).unwrap();

        assert_eq!(
            address.to_string(),
            "EngineAddress(hostname=user-VirtualBox, port=8532)"
        );
        assert_eq!(address.authority(), "user-VirtualBox:8532");
    }

    #[test]
    fn ip_literals_are_addresses_and_ipv6_is_bracketed_in_the_authority() {
        let v6 = EngineAddress::new("2001:db8::1", 1).unwrap();

        assert_eq!(v6.authority(), "[2001:db8::1]:1");
        assert_eq!(
            EngineAddress::new("10.1.2.3", 65535).unwrap().authority(),
            "10.1.2.3:65535"
        );
    }

    #[test]
    fn ports_outside_1_to_65535_are_refused() {
        for port in [0, -1, 65536, 1 << 32, i64::MIN] {
            assert_eq!(EngineAddress::new("a", port), Err(AddressError::Port(port)));
        }
    }

    #[test]
    fn hosts_that_are_no_dns_name_are_refused() {
        for host in [
            "",
            "a..b",
            "-a",
            "a-",
            ".a",
            "a.",
            "a b",
            "a\nb",
            "a\0",
            "a/b",
            "a@b",
            "a:80",
            "http://a",
            "%00",
            "${jndi:ldap://x}",
            "$(x)",
            "🦀",
            "a\u{202e}b",
            "fe80::1%eth0",
            "[::1]",
            "2852039166",
            "0x7f.1",
            "017700000001",
            "127.1",
            "0x7f000001",
            "1.2.3.4.5",
            "256.1.1.1",
            "01.2.3.4",
            "a.0X1",
        ] {
            assert!(EngineAddress::new(host, 8532).is_err(), "{host:?}");
        }
        assert!(EngineAddress::new(&"a.".repeat(127), 1).is_err());
        assert!(EngineAddress::new(&"a".repeat(64), 1).is_err());
    }
}
