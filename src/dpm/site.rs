//! What a DPM shows over HTTP.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::engine::{EngineId, EngineStatus};
use crate::grpc::{Module, cause};
use crate::http::{About, Site};
use crate::registry::{EngineRegistry, RegistryError};
use crate::telemetry::events;
use crate::telemetry::metrics::EngineMetrics;

/// Shows the state of `module`, and counts the engines of `registry` at each request.
pub(super) fn of(module: &Module, registry: &Arc<EngineRegistry>) -> Site {
    let (own, engines) = (module.own(), module.metrics().of_engines());
    let about = About {
        module: own.module.to_string(),
        deployment: own.issuer().to_owned(),
    };
    let (counted, registry) = (module.clone(), Arc::clone(registry));
    let metrics = move || {
        let (module, registry) = (counted.clone(), Arc::clone(&registry));
        let engines = engines.clone();
        Box::pin(async move {
            if let Err(error) = count(&registry, &engines).await {
                events::registry_failed(&cause(&error));
            }
            let text = spawn_blocking(move || module.metrics_text());
            // It fails where the runtime ends.
            text.await.unwrap_or_default()
        }) as _
    };
    Site::new(about, module.health().clone(), Arc::new(metrics))
}

async fn count(registry: &EngineRegistry, metrics: &EngineMetrics) -> Result<(), RegistryError> {
    let mut numbers = EngineStatus::ALL.map(|status| (status, 0_usize));
    let mut after: Option<EngineId> = None;
    loop {
        let page = registry.list(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for engine in &page {
            let mut numbers = numbers.iter_mut();
            if let Some((_, number)) = numbers.find(|(status, _)| *status == engine.status) {
                *number += 1;
            }
        }
    }
    for (status, number) in numbers {
        metrics.engines(status, number);
    }
    Ok(())
}

const PAGE: usize = 1000;
