//! The metrics of a module.

use std::sync::Arc;

use super::Module;
use crate::telemetry::metrics::{Metrics, TrustedKeys};

impl Module {
    /// Returns the metrics, which all clones share.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Writes all metrics in Prometheus's text format, with the current keys and health.
    pub fn metrics_text(&self) -> String {
        let trust = self.trust.load();
        let own = trust.own();
        let trusted = trust.deployments().iter().map(|deployment| {
            let active = deployment.active_keys().count();
            TrustedKeys {
                deployment: deployment.name.as_str(),
                module: deployment.module.as_str(),
                active,
                revoked: deployment.keys.len().saturating_sub(active),
            }
        });
        self.metrics.trusted(trusted);
        let made_at = own.key.made_at();
        self.metrics.signs_with(own.key_id.as_str(), made_at);
        self.metrics.ready(self.health.is_ready());
        self.metrics.render()
    }
}
