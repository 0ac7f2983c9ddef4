//! What a DPE shows over HTTP.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::grpc::Module;
use crate::http::{About, Site};

/// Shows the state of `module`.
pub(super) fn of(module: &Module) -> Site {
    let (own, counted) = (module.own(), module.clone());
    let about = About {
        module: own.module.to_string(),
        deployment: own.issuer().to_owned(),
    };
    let metrics = move || {
        let module = counted.clone();
        let text = spawn_blocking(move || module.metrics_text());
        // It fails where the runtime ends.
        Box::pin(async { text.await.unwrap_or_default() }) as _
    };
    Site::new(about, module.health().clone(), Arc::new(metrics))
}
