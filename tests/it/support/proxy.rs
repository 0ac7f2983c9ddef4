//! A network that can be rerouted.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::world::free_port;

/// Passes connections on, to the address of its route at the time.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    route: watch::Sender<Option<SocketAddr>>,
}

impl Proxy {
    /// Listens on a free port; refuses to pass anything on until it has a route.
    pub(crate) async fn start() -> Self {
        let listener = free_port().await;
        let address = listener.local_addr().unwrap();
        let (route, routes) = watch::channel(None);
        tokio::spawn(accept(listener, routes));
        Self { address, route }
    }

    /// Cuts every connection; new ones lead to `target`.
    pub(crate) fn reroute(&self, target: Option<SocketAddr>) {
        self.route.send_replace(target);
    }
}

async fn accept(listener: TcpListener, routes: watch::Receiver<Option<SocketAddr>>) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut routes = routes.clone();
        tokio::spawn(async move {
            let Some(target) = *routes.borrow_and_update() else {
                return;
            };
            let Ok(mut far) = TcpStream::connect(target).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = routes.changed() => {}
            }
        });
    }
}
