//! One call within a time limit.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// Calls `method` with `message` and sends the time limit to the callee.
///
/// A late answer is `DEADLINE_EXCEEDED`, and [`is_late`].
pub(crate) async fn call<M, R, F>(
    limit: Duration,
    message: M,
    method: impl FnOnce(Request<M>) -> F,
) -> Result<R, Status>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(limit);
    match timeout(limit, method(request)).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(elapsed) => {
            let mut late = Status::deadline_exceeded(format!("no answer within {limit:?}"));
            late.set_source(Arc::new(elapsed));
            Err(late)
        }
    }
}

/// Returns `true` if [`call`] gave up waiting, and `false` if the callee itself answered
/// `DEADLINE_EXCEEDED`.
pub(crate) fn is_late(status: &Status) -> bool {
    status.source().is_some_and(<dyn Error>::is::<Elapsed>)
}
