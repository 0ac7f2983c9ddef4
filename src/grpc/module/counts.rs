//! What a module counts.

use std::sync::Arc;

use super::Module;
use crate::grpc::{MethodRules, MetricsLayer};
use crate::telemetry::metrics::{Metrics, TrustedKeys};
use crate::token::Reason;

impl Module {
    /// Returns what it counts, which all clones share. Counting begins when this, or
    /// [`server_layer`](Self::server_layer), is first asked for.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.metrics.get_or_init(|| {
            let by_callees = [Reason::ProofMissing, Reason::ProofInvalid];
            let reasons = Reason::ALL.iter().filter(|r| !by_callees.contains(r));
            let metrics = Metrics::new(reasons.map(|reason| reason.as_str()));
            metrics.build_info(self.own().module.as_str());
            self.count_keys(&metrics);
            self.calls.count_calls(&metrics);
            Arc::new(metrics)
        })
    }

    /// Writes all metrics in Prometheus's text format, with the keys and the health of now.
    pub fn metrics_text(&self) -> String {
        let metrics = self.metrics();
        self.count_keys(metrics);
        metrics.ready(self.health.is_ready());
        metrics.render()
    }

    fn count_keys(&self, metrics: &Metrics) {
        let trust = self.trust.load();
        let own = trust.own();
        metrics.signs_with(own.key_id.as_str(), own.key.made_at());
        metrics.trusted(trust.deployments().iter().map(|deployment| {
            let active = deployment.active_keys().count();
            TrustedKeys {
                deployment: deployment.name.as_str(),
                module: deployment.module.as_str(),
                active,
                revoked: deployment.keys.len().saturating_sub(active),
            }
        }));
    }

    /// Returns the layer that counts the calls of a server with `rules`. Put it before the
    /// [`server_layer`](Self::server_layer), or refused calls do not count.
    ///
    /// `descriptors` are encoded `FileDescriptorSet`s of the services that are served; methods that
    /// they do not describe count with the type `unknown`.
    pub fn metrics_layer(&self, rules: &MethodRules, descriptors: &[&[u8]]) -> MetricsLayer {
        MetricsLayer::new(self.metrics(), rules, descriptors)
    }
}
