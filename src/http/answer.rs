//! What is answered, with the headers that every answer has.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use serde_json::{Value, json};

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
