//! When and how a DPM dials its engines back.

use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use crate::grpc::{ConnectionOptions, up_to};

/// When and how engines are dialled back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MonitorOptions {
    /// Between two checks of a READY engine. Default: 1 s.
    pub check_connected_interval: Duration,
    /// Before the second check of an engine that is not READY. Default: 1 s.
    pub check_disconnected_interval: Duration,
    /// By what that interval grows from check to check. Default: 2.
    pub check_disconnected_multiplier: f64,
    /// How far it grows. Default: 10 min.
    pub check_disconnected_max: Duration,
    /// How long an engine may take to answer, beyond the round trip of its connection. Default:
    /// 200 ms.
    pub checker_timeout: Duration,
    /// After how many failed checks in a row a READY engine is DISCONNECTED. Default: 3.
    pub check_failures: u32,
    /// How names become addresses. Default: the system's way.
    pub resolver: Resolver,
    /// How to connect. Default: within 2 s, without TLS only on loopback.
    pub connection: ConnectionOptions,
    /// How long one proof holds on one connection. Default: 10 min.
    pub proof_interval: Duration,
    /// After which time unseen an engine becomes INACTIVE. Default: 2 d.
    pub inactivate_not_seen_for: Duration,
    /// Between two looks for engines that were not seen for that long. Default: 10 min.
    pub inactivate_period: Duration,
}

impl Default for MonitorOptions {
    fn default() -> Self {
        Self {
            check_connected_interval: Duration::from_secs(1),
            check_disconnected_interval: Duration::from_secs(1),
            check_disconnected_multiplier: 2.0,
            check_disconnected_max: Duration::from_secs(600),
            checker_timeout: Duration::from_millis(200),
            check_failures: 3,
            resolver: Resolver::default(),
            connection: ConnectionOptions::default(),
            proof_interval: Duration::from_secs(600),
            inactivate_not_seen_for: Duration::from_secs(2 * 24 * 3600),
            inactivate_period: Duration::from_secs(600),
        }
    }
}

/// How names become addresses. Cloning is cheap.
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

type Resolve = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    /// Asks `resolve`, which may block: it is called on a thread for such work.
    pub fn new(resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(resolve))
    }

    pub(super) fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        (self.0)(name)
    }
}

impl Default for Resolver {
    /// Asks the system.
    fn default() -> Self {
        Self::new(|name| {
            let found = (name, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl MonitorOptions {
    /// Returns how long to wait after so many failed checks in a row.
    pub(super) fn back_off(&self, failures: u32) -> Duration {
        let grown = failures.saturating_sub(1).try_into().unwrap_or(i32::MAX);
        let factor = self.check_disconnected_multiplier.powi(grown);
        let seconds = self.check_disconnected_interval.as_secs_f64() * factor;
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(self.check_disconnected_max)
            .min(self.check_disconnected_max)
    }
    /// Returns over which time checks are spread that become due at once, and the pause after a
    /// failed check that does not count yet.
    pub(super) fn soon(&self) -> Duration {
        self.check_connected_interval
            .min(self.check_disconnected_interval)
    }
}

/// Returns `pause`, up to a tenth shorter or longer: who waits so does not stay in step.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause * 9 / 10 + up_to(pause / 5)
}
