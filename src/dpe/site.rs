//! What a DPE tells over HTTP.

use std::future::ready;
use std::sync::Arc;

use crate::grpc::Module;
use crate::http::{About, Site};

/// Tells of `module`.
pub(super) fn of(module: &Module) -> Site {
    let (own, counted) = (module.own(), module.clone());
    Site {
        about: About {
            module: own.module.to_string(),
            deployment: own.issuer().to_owned(),
        },
        health: module.health().clone(),
        metrics: Arc::new(move || Box::pin(ready(counted.metrics_text()))),
    }
}
