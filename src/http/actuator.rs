//! `/actuator/*`: health, info and metrics, in Spring Boot's words.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

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
    pub(super) access: Access,
    /// Held while metrics are written: one scrape at a time, however many ask.
    scraping: Arc<Mutex<()>>,
}

/// What others than callers on this machine get, and as which host they may ask.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Access {
    /// Names of the port beside its address and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// Whether metrics are shown beyond loopback.
    pub metrics_beyond_loopback: bool,
}

/// Who a module is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct About {
    /// Its type, such as `dpm`.
    pub module: String,
    /// Its deployment's name, or its key if it has no name.
    pub deployment: String,
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
            access: Access::default(),
            scraping: Arc::default(),
        }
    }

    /// Shows more than the status, or to other hosts, as `access` says.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Answers a request. Only callers on this machine get `details` and what is not health; others
    /// get the status.
    pub(super) async fn answer(&self, method: &Method, path: &str, details: bool) -> Answer {
        let metrics = self.access.metrics_beyond_loopback;
        let page = path.strip_prefix("/actuator").filter(|page| match *page {
            "" | "/info" => details,
            "/prometheus" => details || metrics,
            page => PAGES.contains(&page),
        });
        let Some(page) = page else {
            return refused(StatusCode::NOT_FOUND);
        };
        if method != Method::GET && method != Method::HEAD {
            return refused(StatusCode::METHOD_NOT_ALLOWED);
        }
        match page {
            "" => of_json(StatusCode::OK, &links()),
            "/health" => health(&self.health.current(), true, details),
            // A module that answers is alive.
            "/health/liveness" => {
                let live = of_part("livenessState", UP);
                of_state(UP, Map::from_iter([live]), false, details)
            }
            "/health/readiness" => health(&self.health.current(), false, details),
            "/info" => of_json(StatusCode::OK, &self.info()),
            _ => {
                let _alone = self.scraping.lock().await;
                of_metrics((self.metrics)().await)
            }
        }
    }

    fn info(&self) -> Value {
        let About { module, deployment } = &self.about;
        json!({
            "app": { "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") },
            "module": module,
            "deployment": deployment,
        })
    }
}

const UP: &str = "UP";
const OUT_OF_SERVICE: &str = "OUT_OF_SERVICE";
/// Spring's word for what has no say in the whole.
const UNKNOWN: &str = "UNKNOWN";

/// What is below `/actuator`.
const PAGES: [&str; 5] = [
    "/health",
    "/health/liveness",
    "/health/readiness",
    "/info",
    "/prometheus",
];

fn links() -> Value {
    let mut links = Map::new();
    for page in [""].iter().chain(&PAGES) {
        let name = match page.trim_start_matches('/') {
            "" => "self".to_owned(),
            page => page.replace('/', "-"),
        };
        let link = json!({ "href": format!("/actuator{page}"), "templated": false });
        links.insert(name, link);
    }
    json!({ "_links": links })
}

/// Answers whether the module is ready, or with the `whole` health.
fn health(state: &State, whole: bool, details: bool) -> Answer {
    let status = if state.is_ready() { UP } else { OUT_OF_SERVICE };
    let mut parts = Map::new();
    for part in state.parts() {
        let status = match (part.up, part.required) {
            (true, _) => UP,
            (false, true) => OUT_OF_SERVICE,
            (false, false) => UNKNOWN,
        };
        let details = json!({ "message": part.detail });
        let shown = json!({ "status": status, "details": details });
        parts.insert(part.name.to_owned(), shown);
    }
    parts.extend([of_part("readinessState", status)]);
    parts.extend(whole.then(|| of_part("livenessState", UP)));
    of_state(status, parts, whole, details)
}

fn of_part(name: &str, status: &str) -> (String, Value) {
    (name.to_owned(), json!({ "status": status }))
}

fn of_state(status: &str, parts: Map<String, Value>, whole: bool, details: bool) -> Answer {
    let mut body = Map::from_iter([("status".to_owned(), Value::from(status))]);
    if details {
        body.insert("components".to_owned(), parts.into());
    }
    if whole {
        let groups = json!(["liveness", "readiness"]);
        body.insert("groups".to_owned(), groups);
    }
    let code = match status {
        UP => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    of_json(code, &body.into())
}

pub(super) type Answer = Response<String>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers with `value`.
pub(super) fn of_json(status: StatusCode, value: &Value) -> Answer {
    answer(status, JSON, value.to_string())
}

/// Answers with metrics in Prometheus's text format.
pub(super) fn of_metrics(text: String) -> Answer {
    answer(StatusCode::OK, PROMETHEUS, text)
}

/// Answers that something is wrong with the request. Nothing of it is repeated.
pub(super) fn refused(status: StatusCode) -> Answer {
    let error = status.canonical_reason().unwrap_or_default();
    let value = json!({ "status": status.as_u16(), "error": error });
    let mut answer = of_json(status, &value);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

fn answer(status: StatusCode, content: HeaderValue, body: String) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What was true a moment ago is no answer to a probe.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
