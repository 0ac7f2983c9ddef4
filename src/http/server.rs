//! The accept loop: few connections, one request each, and not for long.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Site;

/// How many connections may be open. Probes and scrapers are few.
const MOST: usize = 64;

/// How long a request's headers may take.
const HEADERS: Duration = Duration::from_secs(5);

/// How long a connection may last, however slowly its answer is read.
const WHOLE: Duration = Duration::from_secs(10);

/// The largest request head, in bytes; hyper asks for no less than 8 KiB.
const HEAD_BYTES: usize = 8 * 1024;

/// How many headers a request may have.
const HEADER_COUNT: usize = 64;

/// How long to wait if the operating system gives no connection.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Answers HTTP/1.1 requests on `listener` with `site` until it is dropped.
///
/// Each connection has one request, 5 s for its headers, and ends after 10 s whatever happens.
/// There are 64 at most, fewer where the process has few file descriptors; the oldest gives way to
/// a new one. The details of each part of the health are sent where the listener is on
/// loopback, else only whether the module is ready.
pub async fn serve(listener: TcpListener, site: Site) -> Infallible {
    let details = listener.local_addr().is_ok_and(|at| at.ip().is_loopback());
    let most = room();
    let mut open = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
        };
        match accepted {
            Ok((tcp, _)) => {
                oldest_first.retain(|connection| !connection.is_finished());
                if oldest_first.len() >= most
                    && let Some(oldest) = oldest_first.pop_front()
                {
                    oldest.abort();
                }
                oldest_first.push_back(open.spawn(connection(tcp, site.clone(), details)));
            }
            Err(error) if of_one_connection(&error) => {}
            Err(_) => sleep(BACK_OFF).await,
        }
    }
}

/// Answers the one request of a connection.
async fn connection(tcp: TcpStream, site: Site, details: bool) {
    let shown = &site;
    let answer = service_fn(async |request: Request<Incoming>| {
        let answer = shown.answer(request.method(), request.uri().path(), details);
        Ok::<_, Infallible>(answer.await)
    });
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADER_COUNT);
    // Whatever went wrong, the connection is over; its peer knows best.
    let _ = timeout(WHOLE, protocol.serve_connection(TokioIo::new(tcp), answer)).await;
}

/// How many connections the process's file descriptors allow: most of them are for gRPC.
fn room() -> usize {
    let descriptors = getrlimit(Resource::Nofile)
        .current
        .and_then(|limit| usize::try_from(limit).ok());
    (descriptors.unwrap_or(usize::MAX) / 8).clamp(4, MOST)
}

/// Whether an accept failed for reasons of the one connection that it was about.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
