//! The families of one module's metrics, and the series in them.

use std::collections::{BTreeSet, HashMap};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result, TextEncoder,
};

/// Where families are registered.
///
/// The label values of a series are hashed one after the other without a separator, so two labels
/// that hold free text must not be neighbours: a label from a closed list separates them.
#[derive(Debug, Default)]
pub(super) struct Families(Registry);

impl Families {
    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Gauges that may hold fractions, or NaN.
    pub(super) fn fractions(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.add(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Histograms with buckets up to `bounds`.
    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: &[f64],
    ) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        self.add(HistogramVec::new(options, labels)?)
    }

    /// The one gauge of a family without labels.
    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.add(IntGauge::new(name, help)?)
    }

    fn add<F: Collector + Clone + 'static>(&self, family: F) -> Result<F> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// Writes all series in Prometheus's text format, sorted by name and label values.
    pub(super) fn render(&self) -> String {
        // Only a family without a name or series cannot be written, and none is gathered.
        let text = TextEncoder::new().encode_to_string(&self.0.gather());
        text.unwrap_or_default()
    }
}

/// Removes the series of `family` whose `label` has none of the `values`.
pub(super) fn retain<T: MetricVecBuilder>(
    family: &MetricVec<T>,
    label: &str,
    values: &BTreeSet<&str>,
) {
    for collected in family.collect() {
        for series in collected.get_metric() {
            let pairs = series.get_label().iter();
            let labels: HashMap<_, _> = pairs.map(|l| (l.name(), l.value())).collect();
            if labels
                .get(label)
                .is_none_or(|value| !values.contains(value))
            {
                // An error means that it is gone already.
                let _ = family.remove(&labels);
            }
        }
    }
}

/// Returns `number` as a gauge holds it.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
