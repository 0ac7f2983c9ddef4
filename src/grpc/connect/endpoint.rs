//! Connections for a tonic endpoint, judged as those of this crate are.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use super::{ConnectError, ConnectionOptions, Connector, KeepAlive, Target};

/// Makes a channel over `endpoint` that dials beyond loopback only where plaintext is allowed
/// there, or the URI says `https`: tonic sends nothing there without TLS of the endpoint's own.
pub(crate) fn channel_over(
    endpoint: Endpoint,
    allow_plaintext: bool,
) -> Result<Channel, ConnectError> {
    let uri = endpoint.uri();
    let is_tls = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let options = ConnectionOptions {
        allow_plaintext: is_tls || allow_plaintext,
        keep_alive: KeepAlive::ANY_SERVER,
        ..ConnectionOptions::default()
    };
    if let Ok(address) = host.parse::<IpAddr>()
        && !options.allow_plaintext
        && !address.to_canonical().is_loopback()
    {
        return Err(ConnectError::Plaintext(SocketAddr::new(address, port)));
    }
    let keep_alive = options.keep_alive;
    let connector = Connector::new(&Target::new(host, port), options, None)?;
    let alive = endpoint
        .http2_keep_alive_interval(keep_alive.every)
        .keep_alive_timeout(keep_alive.answer)
        .keep_alive_while_idle(keep_alive.while_idle);
    Ok(alive.connect_with_connector_lazy(Dialler(Arc::new(connector))))
}

#[derive(Clone, Debug)]
struct Dialler(Arc<Connector>);

impl Service<Uri> for Dialler {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = Arc::clone(&self.0);
        Box::pin(async move {
            let limit = connector.options.connect_timeout;
            let dialled = timeout(limit, connector.dial()).await;
            let (stream, _) = dialled.unwrap_or(Err(ConnectError::Timeout(limit)))?;
            Ok(TokioIo::new(stream))
        })
    }
}
