//! Stands in for `metrics.rs` without the feature `actuator`: nothing is counted.

#![expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the signatures are those of `metrics.rs`"
)]

use std::error::Error;

pub use super::grpc_method::GrpcSide;

/// The metrics of one module, which are not counted.
#[derive(Debug)]
pub struct Metrics;

/// The metrics of one method, which are not counted.
#[derive(Clone, Debug)]
pub struct MethodMetrics;

impl Metrics {
    /// Creates the metrics of a module.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn new(
        _: &str,
        _: impl IntoIterator<Item = &'static str>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self)
    }

    /// A call was accepted.
    pub fn accepted(&self, _: &str) {}

    /// A call was refused.
    pub fn refused(&self, _: &str, _: Option<&str>) {}

    /// A token was verified.
    pub fn verified_in(&self, _: f64, _: Option<bool>) {}

    /// A token was signed.
    pub fn token_issued(&self, _: &str) {}

    /// A proof shows a peer's clock.
    pub fn clock_measured(&self, _: &str, _: f64) {}

    /// A refusal suggests what a peer's clock shows.
    pub fn clock_estimated(&self, _: &str, _: f64) {}

    /// A peer's clock agrees with this one.
    pub fn clock_agrees(&self, _: &str) {}

    /// A reload of the files ended.
    pub fn config_reload(&self, _: bool) {}

    /// Returns the metrics of a method.
    pub fn of_method(&self, _: GrpcSide, _: &[&str; 3]) -> MethodMetrics {
        MethodMetrics
    }
}

impl MethodMetrics {
    /// A call began.
    pub fn started(&self) {}

    /// The caller sent messages.
    pub fn requests(&self, _: u64) {}

    /// The callee sent messages.
    pub fn replies(&self, _: u64) {}

    /// A call ended.
    pub fn handled(&self, _: usize, _: f64) {}
}
