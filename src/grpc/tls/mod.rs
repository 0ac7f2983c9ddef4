//! TLS of servers.

use std::sync::Arc;

use rustls::ServerConfig;

/// What a server shows to those who connect, and asks of them.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Serves with `config`, whose ALPN protocols have to include `h2`.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self { config }
    }

    /// Returns the configuration that the next handshake takes.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}
