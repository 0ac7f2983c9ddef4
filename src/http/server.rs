//! The accept loop: few connections, one request each, and not for long.
//!
//! A web page that a browser shows can have its own name lead to this machine. The browser then
//! sends that name as the host, so that only known ones are answered.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Site;
use super::actuator::refused;
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
    let connections = Arc::new(Connections::new(Bounds {
        // Most of the process's file descriptors are for gRPC.
        total: (descriptors() / 8).clamp(8, MOST),
        per_address: MOST_OF_ONE,
        per_owner: 0,
        chance: CHANCE,
        first_request: WHOLE,
        age: WHOLE,
    }));
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
        Ok::<_, Infallible>(match judge(&head, local, &shown.access.allowed_hosts) {
            Ok(()) => shown.answer(&head.method, head.uri.path(), details).await,
            Err(status) => refused(status),
        })
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

/// Judges a request that came to the address `local`; `allowed` are further names of this port.
///
/// # Errors
///
/// 400 unless there is exactly one host, 421 if it is another than this port's.
pub(super) fn judge(
    head: &Parts,
    local: Option<IpAddr>,
    allowed: &[String],
) -> Result<(), StatusCode> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    let host = Authority::try_from(host.as_bytes())
        .ok()
        .filter(|host| !host.host().is_empty())
        .ok_or(StatusCode::BAD_REQUEST)?;
    let mut named = [Some(&host), head.uri.authority()].into_iter().flatten();
    if named.all(|host| is_ours(host, local, allowed)) {
        Ok(())
    } else {
        Err(StatusCode::MISDIRECTED_REQUEST)
    }
}

fn is_ours(host: &Authority, local: Option<IpAddr>, allowed: &[String]) -> bool {
    if host.as_str().contains('@') {
        return false;
    }
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    let address = name.parse().ok().map(|ip: IpAddr| ip.to_canonical());
    (address.is_some() && address == local.map(|local| local.to_canonical()))
        || name.eq_ignore_ascii_case("localhost")
        || allowed
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the status with which a request for `target` with `hosts`, at 192.0.2.1, is refused.
    fn refused(target: &str, hosts: &[&str]) -> Option<u16> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let local = "192.0.2.1".parse().ok();
        let allowed = ["Metrics.Example".to_owned(), "2001:db8::1".to_owned()];
        judge(&head, local, &allowed)
            .err()
            .map(|status| status.as_u16())
    }

    #[test]
    fn hosts_of_the_port_are_answered() {
        for host in [
            "192.0.2.1",
            "192.0.2.1:8031",
            "[::ffff:192.0.2.1]:8031",
            "localhost",
            "LOCALHOST:1",
            "metrics.example:8031",
            "[2001:db8::1]",
        ] {
            assert_eq!(refused("/actuator", &[host]), None, "{host}");
        }
    }

    #[test]
    fn other_hosts_are_misdirected() {
        for host in [
            "evil.example",
            "127.0.0.1",
            "192.0.2.10",
            "localhost.evil.example",
            "evil.example:8031",
            "localhost@evil.example",
            "evil@localhost",
            "[::1]",
            "metrics.example.",
        ] {
            assert_eq!(refused("/", &[host]), Some(421), "{host}");
        }
    }

    #[test]
    fn request_without_exactly_one_host_is_400() {
        let rows: [&[&str]; 6] = [
            &[],
            &[""],
            &["localhost", "localhost"],
            &["localhost", "evil.example"],
            &["local host"],
            &["localhost, evil.example"],
        ];
        for hosts in rows {
            assert_eq!(refused("/actuator", hosts), Some(400), "{hosts:?}");
        }
    }

    #[test]
    fn absolute_target_is_refused() {
        let target = |host: &str| format!("http://{host}/actuator");

        assert_eq!(refused(&target("localhost"), &["localhost"]), None);
        assert_eq!(refused(&target("evil.example"), &["localhost"]), Some(421));
        assert_eq!(refused(&target("localhost"), &["evil.example"]), Some(421));
    }
}
