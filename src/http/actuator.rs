//! `/actuator/*`: health, info and metrics, in Spring Boot's words.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::answer::{Answer, of_json, of_metrics, refused};
use crate::telemetry::health::{Health, State};

/// Writes the metrics of now; on a thread where it may take a while, as with a thousand deployments
/// it takes.
pub type MetricsText = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// What is shown of a module.
#[derive(Clone)]
pub struct Site {
    about: About,
    health: Health,
    metrics: MetricsText,
    /// Held while metrics are written: one scrape at a time, however many ask.
    scraping: Arc<Mutex<()>>,
}

/// Who a module is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct About {
    /// Its type, such as `dpm`.
    pub module: String,
    /// Its deployment's name, or its key where it has none.
    pub deployment: String,
}

/// How much is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Details {
    /// All there is, on this machine alone.
    Shown,
    /// The status, to all other callers.
    Hidden,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Site");
        shown.field("about", &self.about).finish_non_exhaustive()
    }
}

impl Site {
    /// Shows what the module is, its state from `health`, and its counts from `metrics`.
    pub fn new(about: About, health: Health, metrics: MetricsText) -> Self {
        Self {
            about,
            health,
            metrics,
            scraping: Arc::default(),
        }
    }

    pub(super) async fn answer(&self, method: &Method, path: &str, details: Details) -> Answer {
        let route = match path {
            "/actuator" => Route::Links,
            "/actuator/health" => Route::Health,
            "/actuator/health/liveness" => Route::Liveness,
            "/actuator/health/readiness" => Route::Readiness,
            "/actuator/info" => Route::Info,
            "/actuator/prometheus" => Route::Prometheus,
            _ => return refused(StatusCode::NOT_FOUND),
        };
        if method != Method::GET && method != Method::HEAD {
            return refused(StatusCode::METHOD_NOT_ALLOWED);
        }
        match route {
            Route::Links => of_json(StatusCode::OK, &links()),
            Route::Health => health(&self.health.current(), details),
            // A module that answers is alive.
            Route::Liveness => probe(
                Map::from_iter([("livenessState", UP)].map(part)),
                UP,
                details,
            ),
            Route::Readiness => readiness(&self.health.current(), details),
            Route::Info => of_json(StatusCode::OK, &self.info(details)),
            Route::Prometheus => {
                let _alone = self.scraping.lock().await;
                of_metrics((self.metrics)().await)
            }
        }
    }

    fn info(&self, details: Details) -> Value {
        let About { module, deployment } = &self.about;
        match details {
            Details::Hidden => json!({ "app": { "name": env!("CARGO_PKG_NAME") } }),
            Details::Shown => json!({
                "app": { "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") },
                "module": module,
                "deployment": deployment,
            }),
        }
    }
}

enum Route {
    Links,
    Health,
    Liveness,
    Readiness,
    Info,
    Prometheus,
}

const UP: &str = "UP";
const OUT_OF_SERVICE: &str = "OUT_OF_SERVICE";
/// Spring's word for what has no say in the whole.
const UNKNOWN: &str = "UNKNOWN";

fn links() -> Value {
    let paths = [
        "health",
        "health/liveness",
        "health/readiness",
        "info",
        "prometheus",
    ];
    let link = |path: &str| json!({ "href": format!("/actuator/{path}"), "templated": false });
    let mut links = Map::from_iter(paths.map(|path| (path.replace('/', "-"), link(path))));
    let own = json!({ "href": "/actuator", "templated": false });
    links.insert("self".to_owned(), own);
    json!({ "_links": links })
}

fn health(state: &State, details: Details) -> Answer {
    let mut parts = parts(state);
    parts.extend([
        part(("livenessState", UP)),
        part(("readinessState", status(state))),
    ]);
    let mut answer = body(parts, status(state), details);
    answer.insert("groups".to_owned(), json!(["liveness", "readiness"]));
    of_status(status(state), answer)
}

fn readiness(state: &State, details: Details) -> Answer {
    let mut parts = parts(state);
    parts.extend([part(("readinessState", status(state)))]);
    probe(parts, status(state), details)
}

fn probe(parts: Map<String, Value>, status: &'static str, details: Details) -> Answer {
    of_status(status, body(parts, status, details))
}

fn of_status(status: &str, body: Map<String, Value>) -> Answer {
    let code = match status {
        UP => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    of_json(code, &Value::Object(body))
}

fn body(parts: Map<String, Value>, status: &'static str, details: Details) -> Map<String, Value> {
    let mut body = Map::from_iter([("status".to_owned(), Value::from(status))]);
    if details == Details::Shown {
        body.insert("components".to_owned(), Value::Object(parts));
    }
    body
}

fn status(state: &State) -> &'static str {
    if state.is_ready() { UP } else { OUT_OF_SERVICE }
}

fn part((name, status): (&str, &str)) -> (String, Value) {
    (name.to_owned(), json!({ "status": status }))
}

fn parts(state: &State) -> Map<String, Value> {
    let shown = state.parts().iter().map(|part| {
        let status = match (part.up, part.required) {
            (true, _) => UP,
            (false, true) => OUT_OF_SERVICE,
            (false, false) => UNKNOWN,
        };
        let details = json!({ "message": part.detail });
        (
            part.name.to_owned(),
            json!({ "status": status, "details": details }),
        )
    });
    shown.collect()
}
