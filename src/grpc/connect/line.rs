//! One HTTP/2 connection of a client.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::SetOnce;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status, TimeoutExpired};

use super::transport::{Link, Transport};
use crate::grpc::callee::Vouched;
use crate::grpc::tls::Made;

/// When a connection asks its server for a sign of life, and how long it waits for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    /// A PING is sent when no frame arrived for that long.
    pub(super) every: Duration,
    /// The connection ends when the PING is not answered for that long.
    pub(super) answer: Duration,
    /// Whether PINGs are also sent while no call is open.
    pub(super) while_idle: bool,
    /// The connection ends when bytes are not acknowledged for that long: `TCP_USER_TIMEOUT`.
    pub(super) unacknowledged: Duration,
}

impl KeepAlive {
    /// For servers that are modules.
    pub(crate) const MODULES: Self = Self {
        every: Duration::from_secs(4),
        answer: Duration::from_secs(3),
        while_idle: true,
        unacknowledged: Duration::from_secs(7),
    };

    /// For any gRPC server: many end a connection on which PINGs come often, or without a call.
    pub(crate) const ANY_SERVER: Self = Self {
        every: Duration::from_secs(20),
        answer: Duration::from_secs(20),
        while_idle: false,
        unacknowledged: Duration::from_secs(20),
    };

    /// Returns how often a server gets a PING that complained of too many so many times.
    pub(super) fn every(self, complaints: u32) -> Duration {
        let doubled = self.every.saturating_mul(1 << complaints.min(16));
        doubled.min(RAREST.max(self.every))
    }
}

/// Once in 5 min and 10 s: no server is known that complains of that.
const RAREST: Duration = Duration::from_secs(310);

type BoxError = Box<dyn Error + Send + Sync>;

/// One HTTP/2 connection.
#[derive(Debug)]
pub(in crate::grpc) struct Line {
    sender: SendRequest<Body>,
    origin: Uri,
    link: Arc<Link>,
    /// Cancelled once the connection is over, and to end it and every call over it.
    pub(in crate::grpc) life: CancellationToken,
    /// Who proved itself over it.
    pub(in crate::grpc) vouched: Vouched,
    /// The server's complaint with which it ended, if there was one.
    complaint: Arc<SetOnce<Option<Status>>>,
    /// What it was made with, if it has TLS.
    made: Option<Made>,
}

impl Line {
    /// Greets the server at the other end of `transport`, which ends `life`.
    pub(super) async fn open(
        transport: Transport,
        origin: Uri,
        keep_alive: KeepAlive,
        life: CancellationToken,
        (vouched, made): (Vouched, Option<Made>),
    ) -> Result<Self, hyper::Error> {
        let link = Arc::clone(&transport.link);
        let complaints = link.complaints.load(Ordering::Relaxed);
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive.every(complaints))
            .keep_alive_timeout(keep_alive.answer)
            .keep_alive_while_idle(keep_alive.while_idle)
            // A hostile server must not fill this process with headers.
            .max_header_list_size(16 * 1024)
            .handshake(TokioIo::new(transport))
            .await?;
        let complaint = Arc::new(SetOnce::new());
        let (complained, ended) = (Arc::clone(&link), Arc::clone(&complaint));
        tokio::spawn(async move {
            let why = connection.await.err().and_then(complaint_of);
            if why.is_some() {
                complained.complained(complaints);
            }
            let _ = ended.set(why);
        });
        Ok(Self {
            sender,
            origin,
            link,
            life,
            vouched,
            complaint,
            made,
        })
    }

    /// Returns `true` if calls may begin on the connection: it has not ended, nor is about to, and
    /// was made with the certificate of now.
    pub(super) fn is_open(&self) -> bool {
        let is_current = self.made.as_ref().is_none_or(Made::is_current);
        is_current && !self.sender.is_closed() && !self.life.is_cancelled()
    }

    /// Sends `request`; returns the answer's headers, and the body as it comes.
    ///
    /// An answer that is late by the request's own time limit ends the connection, if nothing at
    /// all arrived on it in the meantime.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, BoxError> {
        let limit = time_limit(request.headers());
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = self.origin.scheme().cloned();
        uri.authority = self.origin.authority().cloned();
        *request.uri_mut() = Uri::from_parts(uri)?;
        let agent = request.headers_mut().entry(USER_AGENT);
        agent.or_insert(HeaderValue::from_static(AGENT));
        let before = self.link.readable.load(Ordering::Relaxed);
        let sending = self.sender.clone().send_request(request);
        let answer = match limit {
            None => sending.await,
            Some(limit) => match timeout(limit, sending).await {
                Ok(answer) => answer,
                Err(_elapsed) => {
                    if self.link.readable.load(Ordering::Relaxed) == before {
                        self.life.cancel();
                    }
                    return Err(TimeoutExpired(()).into());
                }
            },
        };
        match answer {
            Ok(answer) => Ok(answer.map(Body::new)),
            // Of a connection that ended before the call was sent, only its own end says why.
            Err(error) if error.is_canceled() => match self.complaint.wait().await {
                Some(why) => Err(why.clone().into()),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

const AGENT: &str = concat!("grpc-rust-countersign/", env!("CARGO_PKG_VERSION"));

/// Returns what the server said when it ended the connection with `ENHANCE_YOUR_CALM`.
fn complaint_of(error: hyper::Error) -> Option<Status> {
    Some(Status::from_error(Box::new(error))).filter(is_complaint)
}

/// Returns `true` if a connection ended with `ENHANCE_YOUR_CALM`: no other reason of HTTP/2 has the
/// code of `failed`.
pub(super) fn is_complaint(failed: &Status) -> bool {
    failed.code() == Code::ResourceExhausted
}

/// Reads the header with which a gRPC call says how long it waits.
fn time_limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (amount, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u32 = amount.parse().ok()?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(unit.saturating_mul(amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limit_is_read_in_every_unit_of_grpc() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("250000u", Some(Duration::from_millis(250))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("1s", None),
            ("-1S", None),
            ("1\u{e9}", None),
        ] {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            headers.insert("grpc-timeout", value);

            assert_eq!(time_limit(&headers), expected, "{text}");
        }
        assert_eq!(time_limit(&HeaderMap::new()), None);
    }

    #[test]
    fn pings_become_rarer_with_each_complaint_down_to_one_in_5_min_10_s() {
        let seconds = [0, 1, 2, 3, 4, 5, u32::MAX]
            .map(|complaints| KeepAlive::ANY_SERVER.every(complaints).as_secs());

        assert_eq!(seconds, [20, 40, 80, 160, 310, 310, 310]);
    }
}
