//! Channels to deployments, by the connections of a module's file.

use tonic::transport::{Channel, Endpoint};
use tower_layer::Layer as _;

use crate::grpc::{
    AttachIdentity, ConnectError, Connection, ConnectionOptions, KeepAlive, Module, channel_over,
};
use crate::trust::Deployment;

/// Returns a channel over the one connection that leads to the deployment `name`.
pub(super) fn channel(
    module: &Module,
    name: &str,
) -> Result<AttachIdentity<Connection>, ConnectError> {
    let (layer, callee) = (module.layer_for(name)?, module.callee(name)?);
    let file = &module.wiring().ok_or(ConnectError::NoFile)?.file;
    let routes: Vec<_> = module.routes_to(&callee).collect();
    let [route] = *routes else {
        let deployment = name.to_owned();
        if routes.is_empty() {
            return Err(ConnectError::NoConnection {
                deployment,
                file: file.clone(),
                lines: lines(module, &callee),
            });
        }
        let names: Vec<_> = routes
            .iter()
            .map(|route| format!("`{}`", route.name))
            .collect();
        return Err(ConnectError::SeveralConnections {
            deployment,
            names: names.join(", "),
        });
    };
    let options = route.options.towards(&callee.name);
    Ok(layer.layer(Connection::lazy(&route.target, options)?))
}

/// Returns the lines that make a connection to `callee`.
fn lines(module: &Module, callee: &Deployment) -> String {
    let of_module = callee.module.as_str();
    let mut routes = module
        .wiring()
        .into_iter()
        .flat_map(|wiring| &wiring.routes);
    let there = routes.find(|route| route.name == of_module);
    let is_taken = there.is_some_and(|route| route.deployment.is_some());
    let name = if is_taken {
        callee.name.as_str()
    } else {
        of_module
    };
    let mut lines = Vec::new();
    if is_taken || there.is_none() {
        lines.push(format!("ataccama.client.connection.{name}.host=<host>"));
        lines.push(format!(
            "ataccama.client.connection.{name}.grpc.port=<port>"
        ));
    }
    if is_taken || module.deployment_of(of_module).is_err() {
        let chosen = &callee.name;
        lines.push(format!(
            "countersign.client.connection.{name}.deployment={chosen}"
        ));
    }
    lines.join("\n  ")
}

/// Returns a channel to the deployment `name` over `endpoint`.
pub(super) fn connect(
    module: &Module,
    name: &str,
    endpoint: Endpoint,
) -> Result<AttachIdentity<Channel>, ConnectError> {
    let (layer, callee) = (module.layer_for(name)?, module.callee(name)?);
    let mut with_tls = module
        .routes_to(&callee)
        .filter(|route| route.options.tls.is_some());
    let contradiction = if !callee.tls_pins.is_empty() {
        Some(format!(
            "the certificates of `{name}` are pinned, which only `Module::channel` checks"
        ))
    } else if endpoint.uri().scheme_str() == Some("https") {
        None
    } else {
        let route = with_tls.next();
        route.map(|route| {
            let connection = &route.name;
            format!("the file turns TLS on for connection `{connection}` to `{name}`, and the endpoint's URI is not `https`")
        })
    };
    if let Some(why) = contradiction {
        return Err(ConnectError::Contradicts(why));
    }
    let options = ConnectionOptions {
        allow_plaintext: module.plaintext.calls,
        keep_alive: KeepAlive::ANY_SERVER,
        ..ConnectionOptions::default()
    };
    Ok(layer.layer(channel_over(endpoint, options)?))
}
