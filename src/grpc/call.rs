//! One call within a time limit.

use std::error::Error as _;
use std::iter::successors;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tonic::{Request, Response, Status, TimeoutExpired};

use super::connect::Connection;

/// Calls `method` with `message` and sends the time limit to the callee, with some more: were there
/// two timers of the same length, chance would decide what a late answer is called.
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
    request.set_timeout(limit + MORE);
    match timeout(limit, method(request)).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(elapsed) => {
            let mut late = Status::deadline_exceeded(format!("no answer within {limit:?}"));
            late.set_source(Arc::new(elapsed));
            Err(late)
        }
    }
}

const MORE: Duration = Duration::from_millis(500);

/// [`call`]s over `connection`. A late answer ends the one that the call went over: the next call
/// opens another.
pub(crate) async fn call_over<M, R, F>(
    connection: &Connection,
    limit: Duration,
    message: M,
    method: impl FnOnce(Request<M>) -> F,
) -> Result<R, Status>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let line = connection.line();
    let answer = call(limit, message, method).await;
    if answer.as_ref().is_err_and(is_late) {
        match line {
            Some(line) => line.life.cancel(),
            None => connection.cut(),
        }
    }
    answer
}

/// Returns `true` if this side gave up waiting, and `false` if the callee itself answered
/// `DEADLINE_EXCEEDED`.
pub(crate) fn is_late(status: &Status) -> bool {
    let mut sources = successors(status.source(), |&error| error.source());
    sources.any(|error| error.is::<Elapsed>() || error.is::<TimeoutExpired>())
}

/// Returns a random part of `most`: who waits so does not come together with all others.
pub(crate) fn up_to(most: Duration) -> Duration {
    let mut random = [u8::MAX];
    // Without randomness it is all of it.
    let _ = getrandom::fill(&mut random);
    let [part] = random;
    most * u32::from(part) / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn late_answer_is_late_whichever_timer_fires_first() {
        let limit = Duration::from_millis(200);
        for _ in 0..1_000 {
            // As tonic's channels and servers do it.
            let hangs = |request: Request<()>| async move {
                let header = request.metadata().get("grpc-timeout").unwrap();
                let micros = header.to_str().unwrap().trim_end_matches('u').parse();
                sleep(Duration::from_micros(micros.unwrap())).await;
                Err::<Response<()>, _>(Status::from_error(TimeoutExpired(()).into()))
            };

            let late = call(limit, (), hangs).await.unwrap_err();

            assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
            assert!(is_late(&late));
        }
        let channels_own = Status::from_error(TimeoutExpired(()).into());
        assert!(is_late(&channels_own), "{channels_own:?}");
        assert!(!is_late(&Status::deadline_exceeded("the callee's word")));
    }

    #[test]
    fn random_pause_is_within_its_limit() {
        let most = Duration::from_millis(250);
        let mut pauses: Vec<_> = (0..100).map(|_| up_to(most)).collect();

        assert!(pauses.iter().all(|pause| *pause <= most), "{pauses:?}");
        pauses.dedup();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
