//! From settings to how an application's module serves and calls.

use std::net::SocketAddr;

use super::settings::Settings;
use crate::grpc::tls::TlsError;
use crate::grpc::{ConnectionOptions, KeepAlive, Module, Route, Target, Wiring};

/// Returns how `module`, made of `settings`, serves and calls.
///
/// # Errors
///
/// When a PEM file cannot be used.
pub(crate) fn wiring(
    settings: &Settings,
    module: &Module,
    is_followed: bool,
) -> Result<Wiring, TlsError> {
    let (server, client) = (&settings.options.server, &settings.options.client);
    let mut routes = Vec::new();
    for connection in &client.connections {
        let options = settings.connection(module, &connection.name)?;
        routes.push(Route {
            name: connection.name.clone(),
            target: Target::new(&connection.host, connection.port),
            deployment: connection.deployment.clone(),
            is_written: connection.is_written,
            options: ConnectionOptions {
                keep_alive: KeepAlive::ANY_SERVER,
                ..options
            },
        });
    }
    let grpc = SocketAddr::new(server.address, server.port);
    let http = SocketAddr::new(server.http_address, server.http_port);
    Ok(Wiring {
        file: settings.home.file.clone(),
        is_followed,
        grpc: server.has_port.then_some(grpc),
        http: server.http_is_set.then_some(http),
        http_hosts: server.allowed_hosts.clone(),
        http_metrics: server.metrics_beyond_loopback,
        server: settings.server_options(module)?,
        routes,
        client_bytes: client.max_message_bytes,
    })
}
