//! The one place where a server is put together.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::VerifyIdentityLayer;

/// The bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// How long open connections may take to finish after a shutdown began.
    pub shutdown_deadline: Duration,
    /// How long a handler may take until its reply begins.
    pub request_timeout: Duration,
}

impl Default for ServerOptions {
    /// 10 s, since one silent connection would hold the process for ever; 30 s for a reply.
    fn default() -> Self {
        Self {
            shutdown_deadline: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drained {
    /// Every connection finished.
    InTime,
    /// Some did not; they end with the process.
    AtDeadline,
}

/// Why a server stopped by itself.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC server stopped")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves `routes` behind `layer` until `shutdown` completes, then drains.
///
/// Open calls may finish within the deadline; a connection that does not end by then is abandoned.
///
/// # Errors
///
/// When the server stops by itself.
pub async fn serve(
    listener: TcpListener,
    layer: VerifyIdentityLayer,
    routes: Routes,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<Drained, ServeError> {
    let (stop, stopped) = oneshot::channel::<()>();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .timeout(options.request_timeout)
        .max_concurrent_streams(100)
        .http2_max_header_list_size(16 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .layer(layer)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async {
            // Either word or a dropped sender means stop.
            let _ = stopped.await;
        });
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return Ok(ended.map(|()| Drained::InTime)?),
        () = shutdown => {}
    }
    // The server is polled below; it may have ended already.
    let _ = stop.send(());
    match tokio::time::timeout(options.shutdown_deadline, server).await {
        Ok(ended) => Ok(ended.map(|()| Drained::InTime)?),
        Err(_elapsed) => Ok(Drained::AtDeadline),
    }
}
