//! Engines: what a registry knows about one, and the table of its life.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

pub use crate::failure::{DialBackFailure, FailureKind};
pub use constraints::{ConstraintsError, EngineConstraints};

mod constraints;

/// One engine, as the registry holds it.
///
/// Prints as in the seed's log line:
/// `Engine(id=…, address=EngineAddress(hostname=…, port=…))`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Engine {
    /// The engine's own id.
    pub id: EngineId,
    /// Where the registry dials back.
    pub address: EngineAddress,
    /// What the engine needs and offers.
    pub constraints: EngineConstraints,
    /// Its current status.
    pub status: EngineStatus,
    /// Whether it was READY before this registry started, and has not proved itself since.
    pub suspect: bool,
    /// Why it is not READY, or is suspect.
    pub status_reason: Option<Arc<str>>,
    /// The failed dial-back that [`status_reason`](Self::status_reason) is about, if it is about
    /// one.
    pub dial_back_failure: Option<DialBackFailure>,
    /// The deployment that owns it.
    pub owner: Owner,
    /// Whether it last registered from the registry's own machine: only then may it be dialled
    /// there. Not sent on the wire; `false` for a record that was read from there.
    pub over_loopback: bool,
    /// The process that registered; `None` if it gave none, as older engines do.
    pub instance: Option<Instance>,
    /// The time between two of its heartbeats, if it names one. Not sent on the wire.
    pub heartbeat_interval: Option<Duration>,
    /// Where its stream is, if it is a one-way engine that has proved itself over one.
    pub(crate) held: Option<Held>,
    /// When it last became NEW.
    pub registered_at: SystemTime,
    /// When it last called, or answered a check.
    pub last_seen_at: SystemTime,
}

impl Engine {
    /// Returns `true` if `instance` and the recorded process are known and differ.
    pub(crate) fn is_of_another_process(&self, instance: Option<Instance>) -> bool {
        let known = self.instance.zip(instance);
        known.is_some_and(|(recorded, calling)| recorded != calling)
    }

    /// Returns `true` if what was found out about `self` still holds for the engine as it is `now`:
    /// it has not moved, and has not left.
    pub(crate) fn is_still(&self, now: &Self) -> bool {
        now.status != EngineStatus::Inactive
            && now.address == self.address
            && now.instance == self.instance
            && now.owner.deployment == self.owner.deployment
            && now.registered_at == self.registered_at
    }

    /// Returns `true` if what outlasts the registry's process is the same of both: all but how
    /// checks went. An INACTIVE engine is also known by when it was last seen.
    pub(crate) fn is_kept_as(&self, other: &Self) -> bool {
        self.id == other.id
            && self.address == other.address
            && self.constraints == other.constraints
            && self.status == other.status
            && self.owner == other.owner
            && self.over_loopback == other.over_loopback
            && self.instance == other.instance
            && self.heartbeat_interval == other.heartbeat_interval
            && self.registered_at == other.registered_at
            && (self.status != EngineStatus::Inactive || self.last_seen_at == other.last_seen_at)
    }

    /// Returns `true` if another process of the registry has, or had last, its proved stream.
    pub(crate) fn is_held_elsewhere(&self) -> bool {
        self.held.is_some_and(|held| held.by.is_some())
    }

    /// Returns `true` if callers see no difference, but for when the engine was last seen.
    pub(crate) fn is_shown_as(&self, other: &Self) -> bool {
        let shown = Self {
            over_loopback: other.over_loopback,
            heartbeat_interval: other.heartbeat_interval,
            held: other.held,
            last_seen_at: other.last_seen_at,
            ..self.clone()
        };
        shown == *other
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, address, .. } = self;
        write!(f, "Engine(id={id}, address={address})")
    }
}

/// The last proved stream of a one-way engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Held {
    /// Which process of the registry has it, or had it; `None` for this one.
    pub(crate) by: Option<Uuid>,
    /// Whether it is open.
    pub(crate) is_open: bool,
}

impl Held {
    /// A stream that is open here.
    pub(crate) const HERE: Self = Self {
        by: None,
        is_open: true,
    };
}

/// The deployment that registered an engine. Cloning is cheap.
///
/// The texts are those of the registrant's verified identity; they were checked there.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Owner {
    /// The deployment's name, such as `dpe-dev`.
    pub deployment: Arc<str>,
    /// The module's type, such as `dpe`.
    pub module: Arc<str>,
    /// The environment, if the registry's file names one.
    pub environment: Option<Arc<str>>,
    /// The key that signed the registration, as the registry's file names it.
    pub fingerprint: Arc<str>,
}

/// Why a text is not an engine id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it is not a UUID of the form 0031debd-6130-4b4a-8eaf-7a834555cf33")]
pub struct EngineIdError;

/// An engine's id: a UUID, made once by the engine.
///
/// Read in the hyphenated form of [RFC 9562, 4], in any case; printed in lower case, so that two
/// spellings are one id.
///
/// [RFC 9562, 4]: https://www.rfc-editor.org/rfc/rfc9562#section-4
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EngineId(Uuid);

impl EngineId {
    /// The first id in the order of ids, which no engine has.
    pub(crate) const FIRST: Self = Self(Uuid::nil());

    pub(crate) const fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// Makes a version 4 id from `random` bytes.
    pub fn from_random(random: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(random).into_uuid())
    }
}

impl FromStr for EngineId {
    type Err = EngineIdError;

    fn from_str(text: &str) -> Result<Self, EngineIdError> {
        const HYPHENATED: usize = 36;
        if text.len() != HYPHENATED {
            return Err(EngineIdError);
        }
        Uuid::try_parse(text).map(Self).or(Err(EngineIdError))
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

/// One process of an engine: a random UUID, made at each start, with which two processes that have
/// the same [`EngineId`] differ.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Instance(EngineId);

impl Instance {
    /// Makes a version 4 UUID from `random` bytes.
    pub fn from_random(random: [u8; 16]) -> Self {
        Self(EngineId::from_random(random))
    }
}

impl FromStr for Instance {
    type Err = EngineIdError;

    fn from_str(text: &str) -> Result<Self, EngineIdError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

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

    /// Names the host of an engine that takes no calls: its port is 0, and it is never dialled.
    ///
    /// # Errors
    ///
    /// When `hostname` is neither an IP literal nor DNS labels.
    pub fn one_way(hostname: &str) -> Result<Self, AddressError> {
        check_host(hostname)?;
        Ok(Self {
            hostname: hostname.into(),
            port: 0,
        })
    }

    /// Returns `true` if the engine takes no calls: it holds a stream to its registry.
    pub fn is_one_way(&self) -> bool {
        self.port == 0
    }

    /// Returns the host as it was given.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Returns the port; 0 if there is no port to dial.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `host:port`, or `[host]:port` if the host is an IPv6 address; `host (one-way)` if
    /// there is no port to dial.
    pub fn authority(&self) -> String {
        let Self { hostname, port } = self;
        if self.is_one_way() {
            format!("{hostname} (one-way)")
        } else if hostname.contains(':') {
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
pub(crate) fn check_host(host: &str) -> Result<(), AddressError> {
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

/// The status of an engine: a closed set, with the numbers that it has on the wire.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum EngineStatus {
    /// Registered, not yet proved.
    New = 1,
    /// The dial-back was answered with a valid proof.
    Ready = 2,
    /// Was READY; the last check failed.
    Disconnected = 3,
    /// Left, was taken out, or was not seen for too long. Its owner is kept.
    Inactive = 4,
}

impl EngineStatus {
    /// Every status, in the order of a life.
    pub const ALL: [Self; 4] = [Self::New, Self::Ready, Self::Disconnected, Self::Inactive];

    /// Returns the word of logs and commands: `NEW`, `READY`, `DISCONNECTED` or `INACTIVE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Ready => "READY",
            Self::Disconnected => "DISCONNECTED",
            Self::Inactive => "INACTIVE",
        }
    }
}

impl fmt::Display for EngineStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What happens to an engine that is already known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// Its owner registered it again, at the same address.
    Registered,
    /// A dial-back was answered with a valid proof.
    Proved,
    /// A dial-back was answered without a proof, on a connection that was proved before.
    Alive,
    /// A dial-back failed, or its lease is over.
    CheckFailed,
    /// It was not seen for the configured time.
    NotSeen,
    /// Its owner took it out of service.
    Deregistered,
}

/// Returns the status that `event` leads to, or `None` if it changes nothing.
///
/// Only [`Event::Proved`] leads to READY, and an INACTIVE engine comes back by registration only.
pub(crate) fn transition(status: EngineStatus, event: Event) -> Option<EngineStatus> {
    use EngineStatus::{Disconnected, Inactive, New, Ready};

    match (status, event) {
        (Disconnected | Inactive, Event::Registered) => Some(New),
        (New | Disconnected, Event::Proved) => Some(Ready),
        (Ready, Event::CheckFailed) => Some(Disconnected),
        (New | Ready | Disconnected, Event::NotSeen | Event::Deregistered) => Some(Inactive),
        (New | Ready, Event::Registered)
        | (Ready | Inactive, Event::Proved)
        | (_, Event::Alive)
        | (New | Disconnected | Inactive, Event::CheckFailed)
        | (Inactive, Event::NotSeen | Event::Deregistered) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::EngineStatus::{Disconnected, Inactive, New, Ready};
    use super::*;

    #[test]
    fn ids_that_differ_in_case_are_one() {
        let lower: EngineId = "0031debd-6130-4b4a-8eaf-7a834555cf33".parse().unwrap();
        let upper: EngineId = "0031DEBD-6130-4B4A-8EAF-7A834555CF33".parse().unwrap();

        assert_eq!(lower, upper);
        assert_eq!(upper.to_string(), "0031debd-6130-4b4a-8eaf-7a834555cf33");
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        for odd in [
            "",
            "0031debd61304b4a8eaf7a834555cf33",
            "{0031debd-6130-4b4a-8eaf-7a834555cf33}",
            "urn:uuid:0031debd-6130-4b4a-8eaf-7a834555cf33",
            "0031debd-6130-4b4a-8eaf-7a834555cf3\n",
            "0031debd-6130-4b4a-8eaf-7a834555cf3g",
            &"0".repeat(1_000_000),
        ] {
            assert_eq!(odd.parse::<EngineId>(), Err(EngineIdError), "{odd:.40?}");
        }
    }

    #[test]
    fn random_ids_are_of_version_4() {
        let id = EngineId::from_random([0xff; 16]);

        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

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

    /// Rows: the event, then what it makes of NEW, READY, DISCONNECTED and INACTIVE.
    const TABLE: &[(Event, [EngineStatus; 4])] = &[
        (Event::Registered, [New, Ready, New, New]),
        (Event::Proved, [Ready, Ready, Ready, Inactive]),
        (Event::Alive, [New, Ready, Disconnected, Inactive]),
        (
            Event::CheckFailed,
            [New, Disconnected, Disconnected, Inactive],
        ),
        (Event::NotSeen, [Inactive; 4]),
        (Event::Deregistered, [Inactive; 4]),
    ];

    #[test]
    fn every_event_leads_where_the_table_says() {
        for (event, row) in TABLE {
            for (from, to) in EngineStatus::ALL.into_iter().zip(row) {
                let expected = (from != *to).then_some(*to);

                assert_eq!(transition(from, *event), expected, "{from} {event:?}");
            }
        }
    }

    #[test]
    fn statuses_print_as_in_the_seed() {
        let words = EngineStatus::ALL.map(EngineStatus::as_str);

        assert_eq!(words, ["NEW", "READY", "DISCONNECTED", "INACTIVE"]);
    }
}
