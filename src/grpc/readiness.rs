//! The parts of its health that every module has, and what gRPC's health service makes of them.

use super::{Health, Module};
use crate::telemetry::health::Setter;
use crate::trust::KeySet;

/// Keeps what a module says of its health: its keys, whether it may accept tokens yet, and
/// `SERVING` for the services of `grpc` while it is ready.
///
/// A module is not ready before [`begin`](Self::begin) has made one.
#[derive(Debug)]
pub struct Readiness {
    module: Module,
    grpc: Health,
    keys: Setter,
    replay: Option<Setter>,
}

impl Readiness {
    /// Begins to follow the health of `module`, and says how things are now.
    pub async fn begin(module: &Module, grpc: Health) -> Self {
        let waits = module.not_ready_for().is_some();
        let mut readiness = Self {
            keys: module.health().required("keys"),
            replay: waits.then(|| module.health().required("replay")),
            module: module.clone(),
            grpc,
        };
        readiness.report().await;
        readiness
    }

    /// Goes on to say how things are, until it is dropped.
    pub async fn run(mut self) {
        let mut trust = self.module.trust().subscribe();
        let mut health = self.module.health().subscribe();
        loop {
            trust.mark_unchanged();
            health.mark_unchanged();
            self.report().await;
            tokio::select! {
                // The module holds the senders.
                _ = health.changed() => {}
                _ = trust.changed() => {}
                () = self.module.ready(), if self.replay.is_some() => {}
            }
        }
    }

    async fn report(&mut self) {
        self.look();
        self.grpc.report(self.module.health().is_ready()).await;
    }

    fn look(&mut self) {
        self.keys.up(describe(&self.module.trust().load()));
        let Some(replay) = &self.replay else {
            return;
        };
        if let Some(left) = self.module.not_ready_for() {
            let seconds = left.as_secs() + 1;
            replay.down(format!(
                "each token is accepted once; tokens from before the start are refused for \
                 {seconds} s more"
            ));
        } else {
            replay.up("each token is accepted once");
            self.replay = None;
        }
    }
}

fn describe(trust: &KeySet) -> String {
    let deployments = trust.deployments();
    let active: usize = deployments.iter().map(|d| d.active_keys().count()).sum();
    let all: usize = deployments.iter().map(|d| d.keys.len()).sum();
    let revoked = all.saturating_sub(active);
    let trusted = deployments.len();
    format!("trusted deployments: {trusted}, their keys: {active}, revoked: {revoked}")
}
