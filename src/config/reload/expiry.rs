//! When the module's own certificates expire: in the metrics, and, from 30 days before, in the log.

use crate::config::schema::TlsEnd;
use crate::config::settings::Tls;
use crate::grpc::Module;
use crate::grpc::tls::Shown;
use crate::telemetry::events;

/// The certificates that the module shows.
#[derive(Debug)]
pub struct Expiry {
    /// Where they are: another place needs a restart.
    tls: Tls,
    /// What shows each, and the days that it had left when it was logged last.
    read: Vec<(String, Shown, i64)>,
}

impl Expiry {
    /// Reads the certificates that `tls` names, and shows in the metrics of `module` when they
    /// expire.
    pub fn of(tls: Tls, module: &Module) -> Self {
        let now = module.clock().now();
        let mut read = Vec::new();
        for (end, own, _) in tls.own() {
            let usage = match end {
                TlsEnd::Server => "server",
                TlsEnd::Client(connection) => connection,
            };
            if let Ok((shown, _)) = own.judge(now, end == TlsEnd::Server) {
                read.push((usage.to_owned(), shown, i64::MAX));
            }
        }
        #[cfg(feature = "actuator")]
        module.metrics().certificates(
            read.iter()
                .map(|(usage, shown, _)| (&**usage, shown.not_after)),
        );
        Self { tls, read }
    }

    /// Reads them again.
    pub fn again(&self, module: &Module) -> Self {
        Self::of(self.tls.clone(), module)
    }

    /// Logs each certificate that expires within 30 days or has expired, once a day.
    pub fn note(&mut self, module: &Module) {
        let now = module.clock().now();
        for (usage, shown, logged) in &mut self.read {
            let days = shown.days_left(now);
            if days < Shown::SOON && days != *logged {
                *logged = days;
                events::certificate_expires(usage, shown.fingerprint, shown.not_after, days);
            }
        }
    }
}
