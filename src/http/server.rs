//! The accept loop: few connections, one request each, and not for long.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::answer::refused;
use super::{Site, host};
use crate::admission::{Bounds, Connections, Seat, descriptors, is_of_one_connection};

/// How many connections may be open: probes and scrapers are few.
const MOST: usize = 512;

/// How many may be open from one address, if others want to connect.
const MOST_OF_ONE: usize = 128;

/// How long a connection keeps its place if others want it.
const CHANCE: Duration = Duration::from_secs(2);

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

/// How many connections give way at once where descriptors have run out.
const RELIEF: usize = 8;

/// Answers HTTP/1.1 requests on `listener` with `site` until it is dropped.
///
/// Each connection has one request, 5 s for its headers, and ends after 10 s whatever happens.
/// There are 512 at most, fewer where the process has few file descriptors; the oldest that is
/// older than 2 s gives way to a new one. A request without exactly one host gets 400, one for
/// another host 421. Where the listener is not on loopback, only the health's status is shown, and
/// what the site's access allows.
pub async fn serve(listener: TcpListener, site: Site) -> Infallible {
    let details = listener.local_addr().is_ok_and(|at| at.ip().is_loopback());
    let connections = Arc::new(Connections::new(bounds()));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
        };
        match accepted {
            Ok((tcp, peer)) => {
                if let Ok((seat, _)) = connections.admit(peer.ip(), Instant::now()) {
                    open.spawn(connection(tcp, seat, site.clone(), details));
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => {
                connections.relieve(RELIEF);
                sleep(BACK_OFF).await;
            }
        }
    }
}

/// Answers the one request of a connection. Its seat is free once its socket is closed.
async fn connection(tcp: TcpStream, mut seat: Seat, site: Site, details: bool) {
    let local = tcp.local_addr().ok().map(|at| at.ip());
    let shown = &site;
    let answer = service_fn(async |request: Request<Incoming>| {
        let (head, _) = request.into_parts();
        Ok::<_, Infallible>(
            match host::judge(&head, local, &shown.access.allowed_hosts) {
                Ok(()) => shown.answer(&head.method, head.uri.path(), details).await,
                Err(status) => refused(status),
            },
        )
    });
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADER_COUNT);
    let served = timeout(WHOLE, protocol.serve_connection(TokioIo::new(tcp), answer));
    tokio::select! {
        // Whatever went wrong, the connection is over; its peer knows best.
        _ = served => {}
        () = poll_fn(|cx| seat.poll_cut(cx)) => {}
    }
}

/// Most of the process's file descriptors are for gRPC.
fn bounds() -> Bounds {
    Bounds {
        total: (descriptors() / 8).clamp(8, MOST),
        per_address: MOST_OF_ONE,
        per_owner: 0,
        chance: CHANCE,
        first_request: WHOLE,
        age: WHOLE,
    }
}
