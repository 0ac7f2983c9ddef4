//! A panic ends one call, and the caller is told so.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use super::status::trailers;
use crate::telemetry::events;

/// Answers INTERNAL where anything behind it panics, before the reply or within it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CatchPanic { inner }
    }
}

/// Calls `inner`; see [`CatchPanicLayer`].
#[derive(Clone, Debug)]
pub(super) struct CatchPanic<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for CatchPanic<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<CaughtBody<R>>;
    type Error = S::Error;
    type Future = CaughtFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        // A service that panicked is used again as a poisoned lock is: at its own risk. Each call
        // has its own clone of it.
        let future = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        CaughtFuture {
            future: future.map_err(|panic| told(panic, &path)).ok(),
            path,
        }
    }
}

pin_project_lite::pin_project! {
    /// The answer of [`CatchPanic`]. Without a future, making it panicked.
    #[derive(Debug)]
    pub(super) struct CaughtFuture<F> {
        #[pin]
        future: Option<F>,
        path: String,
    }
}

impl<F, R, E> Future for CaughtFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<CaughtBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(Ok(internal()));
        };
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(polled) => polled.map_ok(|response| {
                response.map(|body| CaughtBody {
                    body: Some(body),
                    path: std::mem::take(this.path),
                })
            }),
            Err(panic) => {
                told(panic, this.path);
                this.future.set(None);
                Poll::Ready(Ok(internal()))
            }
        }
    }
}

pin_project_lite::pin_project! {
    /// A reply's body that ends with INTERNAL where making it panics. Without a body it is empty.
    #[derive(Debug)]
    pub(super) struct CaughtBody<R> {
        #[pin]
        body: Option<R>,
        path: String,
    }
}

impl<R: Body> Body for CaughtBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
            Ok(polled) => polled,
            Err(panic) => {
                told(panic, this.path);
                this.body.set(None);
                Poll::Ready(Some(Ok(Frame::trailers(trailers(&status())))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Logs a panic. Its payload may hold anything, so only the panic hook's own line shows it.
fn told(panic: Box<dyn Any + Send>, path: &str) {
    drop(panic);
    events::handler_panicked(path);
}

fn internal<R>() -> Response<CaughtBody<R>> {
    status().into_http::<()>().map(|()| CaughtBody {
        body: None,
        path: String::new(),
    })
}

fn status() -> Status {
    Status::internal("the call failed; see the callee's log")
}
