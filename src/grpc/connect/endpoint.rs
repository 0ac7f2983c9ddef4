//! Connections for a tonic endpoint, judged as those of this crate are.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::io::InspectReader;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use super::line::is_complaint;
use super::transport::Link;
use super::{ConnectError, ConnectionOptions, Connector, KeepAlive, Target};
use crate::grpc::network::Bytes;

/// A channel over a tonic endpoint, to any gRPC server. Cloning is cheap.
///
/// It asks for a sign of life every 20 s while a call is open, and half as often each time the
/// server ends a connection or a call with `ENHANCE_YOUR_CALM`, down to once in 5 min and 10 s; it
/// never asks more often again. Over the endpoint's own TLS that is seen only where an open call
/// fails with it.
#[derive(Clone, Debug)]
pub struct EndpointChannel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    connector: Arc<Connector>,
    current: ArcSwapOption<Paced>,
}

/// A channel whose PINGs have the pace of so many complaints.
#[derive(Debug)]
struct Paced {
    complaints: u32,
    channel: Channel,
}

/// Makes a channel over `endpoint` that dials beyond loopback only where plaintext is allowed
/// there, or the URI says `https`: tonic sends nothing there without TLS of the endpoint's own.
pub(crate) fn channel_over(
    endpoint: Endpoint,
    allow_plaintext: bool,
    keep_alive: KeepAlive,
) -> Result<EndpointChannel, ConnectError> {
    let uri = endpoint.uri();
    let is_tls = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let options = ConnectionOptions {
        allow_plaintext: is_tls || allow_plaintext,
        keep_alive,
        ..ConnectionOptions::default()
    };
    if let Ok(address) = host.parse::<IpAddr>()
        && !options.allow_plaintext
        && !address.to_canonical().is_loopback()
    {
        return Err(ConnectError::Plaintext(SocketAddr::new(address, port)));
    }
    let connector = Connector::new([&Target::new(host, port)], options, None)?;
    Ok(EndpointChannel(Arc::new(Shared {
        endpoint,
        connector: Arc::new(connector),
        current: ArcSwapOption::empty(),
    })))
}

#[cfg(test)]
impl EndpointChannel {
    pub(super) fn complaints(&self) -> u32 {
        self.0.connector.link.complaints.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn paced(&self) -> Arc<Paced> {
        let complaints = self.connector.link.complaints.load(Ordering::Relaxed);
        let last = self.current.load_full();
        if let Some(last) = last.filter(|last| last.complaints == complaints) {
            return last;
        }
        let keep_alive = self.connector.options.keep_alive;
        let endpoint = self.endpoint.clone();
        let channel = endpoint
            .http2_keep_alive_interval(keep_alive.every(complaints))
            .keep_alive_timeout(keep_alive.answer)
            .keep_alive_while_idle(keep_alive.while_idle)
            .connect_with_connector_lazy(Dialler {
                connector: Arc::clone(&self.connector),
                complaints,
            });
        let paced = Arc::new(Paced {
            complaints,
            channel,
        });
        self.current.store(Some(Arc::clone(&paced)));
        paced
    }

    fn judge(&self, complaints: u32, failed: Status) -> Status {
        if is_complaint(&failed) {
            self.connector.link.complained(complaints);
        }
        failed
    }
}

impl Service<Request<Body>> for EndpointChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    /// Is always ready: a call waits for its connection.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let kept = Arc::clone(&self.0);
        Box::pin(async move {
            let paced = kept.paced();
            let complaints = paced.complaints;
            let mut channel = paced.channel.clone();
            let answer = match poll_fn(|cx| channel.poll_ready(cx)).await {
                Ok(()) => channel.call(request).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => Ok(answer.map(|body| {
                    Body::new(body.map_err(move |failed| kept.judge(complaints, failed)))
                })),
                Err(error) => Err(kept.judge(complaints, Status::from_error(error.into()))),
            }
        })
    }
}

/// Dials for a channel that was made after so many complaints.
#[derive(Clone, Debug)]
struct Dialler {
    connector: Arc<Connector>,
    complaints: u32,
}

type Inspect = Box<dyn FnMut(&[u8]) + Send>;

impl Service<Uri> for Dialler {
    type Response = TokioIo<InspectReader<Bytes, Inspect>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self {
            connector,
            complaints,
        } = self.clone();
        Box::pin(async move {
            let limit = connector.options.connect_timeout;
            let dialled = timeout(limit, connector.dial(connector.targets.first())).await;
            let (stream, _) = dialled.unwrap_or(Err(ConnectError::Timeout(limit)))?;
            let inspect: Inspect = if uri.scheme() == Some(&Scheme::HTTPS) {
                Box::new(|_encrypted| {})
            } else {
                let mut frames = Frames::default();
                let link = Arc::clone(&connector.link);
                Box::new(move |read| frames.read(read, &link, complaints))
            };
            Ok(TokioIo::new(InspectReader::new(stream, inspect)))
        })
    }
}

/// The frames that a server sends over plaintext. A stream that grpcio ended has a status of its
/// own, so tonic passes on nothing of the GOAWAY that follows.
#[derive(Debug, Default)]
struct Frames {
    /// The frame's head (RFC 9113, section 4.1), and of a GOAWAY its last stream and its reason.
    head: Vec<u8>,
    /// How much of the frame is left.
    rest: usize,
}

impl Frames {
    fn read(&mut self, mut bytes: &[u8], link: &Link, complaints: u32) {
        const GOAWAY: u8 = 7;
        const ENHANCE_YOUR_CALM: u8 = 11;
        while let Some((&first, after)) = bytes.split_first() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            self.head.push(first);
            bytes = after;
            let (length, read) = match *self.head {
                [_, _, _, GOAWAY, ..] if self.head.len() < 17 => continue,
                [a, b, c, _, _, _, _, _, _, ..] => ([0, a, b, c], self.head.len() - 9),
                _ => continue,
            };
            if self.head.get(13..) == Some(&[0, 0, 0, ENHANCE_YOUR_CALM]) {
                link.complained(complaints);
            }
            self.head.clear();
            self.rest = (u32::from_be_bytes(length) as usize).saturating_sub(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let head = [0, 0, length, kind, 0, 0, 0, 0, 0];
        [&head, payload].concat()
    }

    fn complaints_in(parts: &[&[u8]]) -> u32 {
        let link = Link::default();
        let mut frames = Frames::default();
        for part in parts {
            frames.read(part, &link, 0);
        }
        link.complaints.load(Ordering::Relaxed)
    }

    #[test]
    fn complaint_is_seen_among_frames_however_they_are_cut() {
        let calm = [0, 0, 0, 0, 0, 0, 0, 11, b't', b'o', b'o'];
        let sent = [
            frame(4, &[]),
            // DATA that looks like a complaint.
            frame(0, &frame(7, &calm)),
            frame(7, &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 11]),
            frame(7, &calm),
            frame(6, &[0; 8]),
        ]
        .concat();
        let before = sent.len() - 17 - calm.len() - 9;

        for at in 0..sent.len() {
            let (first, second) = sent.split_at(at);
            assert_eq!(complaints_in(&[first, second]), 1, "{at}");
        }
        let bytes: Vec<_> = sent.chunks(1).collect();
        assert_eq!(complaints_in(&bytes), 1);
        assert_eq!(complaints_in(&[&sent[..before]]), 0);
    }

    #[test]
    fn goaway_that_is_too_short_is_no_complaint_and_keeps_nothing() {
        let link = Link::default();
        let mut frames = Frames::default();

        frames.read(&frame(7, &[0; 3]).repeat(1_000), &link, 0);

        assert_eq!(link.complaints.load(Ordering::Relaxed), 0);
        assert!(frames.head.len() < 17);
    }
}
