//! A panic ends one call, and the caller gets a status.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::reply::{Call, Guard, ReplyBody, panicked};

/// Answers INTERNAL where the service that it wraps panics, before the reply or within it.
#[derive(Clone, Debug)]
pub(super) struct CatchPanic<S>(pub(super) S);

impl<S, B, R> Service<Request<B>> for CatchPanic<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<ReplyBody<R>>;
    type Error = S::Error;
    type Future = CaughtFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        // A service that panicked is used again as a poisoned lock is: at its own risk. Each call
        // has its own clone of it.
        let future = catch_unwind(AssertUnwindSafe(|| self.0.call(request)));
        let call = match future {
            Ok(future) => Call::Made { future },
            Err(panic) => Call::ended(panicked(panic, &path)),
        };
        CaughtFuture { call, path }
    }
}

pin_project_lite::pin_project! {
    /// The answer of [`CatchPanic`].
    #[derive(Debug)]
    pub(super) struct CaughtFuture<F> {
        #[pin]
        call: Call<F>,
        path: String,
    }
}

impl<F, R, E> Future for CaughtFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ReplyBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let call = this.call.as_mut();
        match catch_unwind(AssertUnwindSafe(|| call.poll_answer(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(answer))) => Poll::Ready(answer.map(|response| {
                let path = std::mem::take(this.path);
                response.map(|body| ReplyBody::new(body, Guard::Panic(path)))
            })),
            Ok(Poll::Ready(Err(status))) => Poll::Ready(Ok(ReplyBody::instead(status))),
            Err(panic) => {
                let status = panicked(panic, this.path);
                this.call.set(Call::Over);
                Poll::Ready(Ok(ReplyBody::instead(status)))
            }
        }
    }
}
