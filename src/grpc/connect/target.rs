//! Where a module listens: one place, or several of which one is used.

use std::fmt;
use std::iter;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Uri;

/// Where to connect: a DNS name or an IP address, and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// Names `host`, without brackets even if it is an IPv6 address, and `port`.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
        }
    }

    /// Returns the host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// A target, and what its server sees as its own address.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) target: Target,
    pub(super) origin: Uri,
}

impl Place {
    fn new(target: &Target, has_tls: bool) -> Result<Self, String> {
        let scheme = if has_tls { "https" } else { "http" };
        let origin = Uri::try_from(format!("{scheme}://{target}"));
        Ok(Self {
            origin: origin.map_err(|_invalid| format!("`{target}` is not a valid address"))?,
            target: target.clone(),
        })
    }
}

/// The places of one module, and which of them comes first.
#[derive(Debug)]
pub(super) struct Targets {
    one: Place,
    others: Vec<Place>,
    first: AtomicUsize,
}

impl Targets {
    /// Makes the places of `targets`; the error says why there are none.
    pub(super) fn new<'a>(
        targets: impl IntoIterator<Item = &'a Target>,
        has_tls: bool,
    ) -> Result<Self, String> {
        let mut places = targets
            .into_iter()
            .map(|target| Place::new(target, has_tls));
        Ok(Self {
            one: places.next().ok_or("there is nowhere to connect")??,
            others: places.collect::<Result<_, _>>()?,
            first: AtomicUsize::new(0),
        })
    }

    fn in_order(&self) -> impl Iterator<Item = &Place> + Clone {
        iter::once(&self.one).chain(&self.others)
    }

    /// Iterates over all places, in a ring from the first one on.
    pub(super) fn all(&self) -> impl Iterator<Item = &Place> {
        let first = self.first.load(Ordering::Relaxed);
        let all = self.in_order();
        all.clone().skip(first).chain(all.take(first))
    }

    pub(super) fn first(&self) -> &Target {
        &self.all().next().unwrap_or(&self.one).target
    }

    /// Begins with `place` from now on.
    pub(super) fn stay(&self, place: &Place) {
        let at = self
            .in_order()
            .position(|known| known.target == place.target);
        self.first.store(at.unwrap_or(0), Ordering::Relaxed);
    }

    /// Begins with the next place from now on; returns `false` if there is no other.
    pub(super) fn turn(&self) -> bool {
        if let Some(next) = self.all().nth(1) {
            self.stay(next);
        }
        !self.others.is_empty()
    }
}
