//! One call within a time limit.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// Calls `method` with `message`, and tells the callee the time limit too.
///
/// An answer that does not come in time is `DEADLINE_EXCEEDED`.
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
    let answer = timeout(limit, method(request)).await;
    let answer = answer
        .map_err(|_elapsed| Status::deadline_exceeded(format!("no answer within {limit:?}")))?;
    answer.map(Response::into_inner)
}
