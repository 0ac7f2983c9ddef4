//! What a file promises, kept for an application: its module follows the file, serves where it
//! says, and connects as it says.

mod open;
mod serve;

use std::path::Path;

use tonic::transport::{Channel, Endpoint};
use tower_layer::Layer as _;

use crate::config::{LoadError, ModuleKind};
use crate::grpc::carrier::Transport;
use crate::grpc::{AttachIdentity, ConnectError, Connection, Module, channel_over};

pub use open::{OpenError, OpenOptions};

impl Module {
    /// Opens the module at `home`: a folder with `etc/application.properties`, or such a file; and
    /// follows its files as long as the module, or a layer that was made of it, exists.
    ///
    /// A change in the files, such as a revocation, takes effect within two seconds; on Unix SIGHUP
    /// has them read at once. Its handler is installed for the life of the process: after the last
    /// module is gone, SIGHUP does nothing. Variables of the environment override settings of the
    /// files, as in Spring Boot. The module type is the folder's name. The settings of the log and
    /// of the registry are for the binary and are noted once in the log.
    ///
    /// Nothing is locked or written, so several processes may open one home. With
    /// `countersign.token.replay=strict` only one may: it writes into the folder `storage`.
    ///
    /// # Errors
    ///
    /// When it is not called in a Tokio runtime, a file cannot be read or has faults, or each token
    /// is to be taken once and the folder `storage` cannot be written or another process uses it.
    pub fn open(home: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options(home).open()
    }

    /// Returns how to open the module at `home`, to be changed and opened.
    pub fn options(home: impl AsRef<Path>) -> OpenOptions {
        OpenOptions::new(home.as_ref())
    }

    /// Loads the module at `home` once, as [`open`](Self::open) does.
    ///
    /// Does not follow its files: a key that is revoked there later is still accepted. For tools
    /// that look once; a service uses [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or has faults: then all of them are in the error.
    pub fn load(home: impl AsRef<Path>) -> Result<Self, LoadError> {
        open::load(home.as_ref())
    }

    /// Returns a channel to the deployment `name`, over the one `ataccama.client.connection.<c>` of
    /// the file that leads there, with its TLS and pins; every call carries this module's identity.
    ///
    /// It connects at its first call, and again whenever a connection was lost. Cloning is cheap.
    ///
    /// # Errors
    ///
    /// When no trusted deployment is called `name`, or not exactly one connection leads there.
    pub fn channel(&self, name: &str) -> Result<AttachIdentity<Connection>, ConnectError> {
        let (layer, callee) = (self.layer_for(name)?, self.callee(name)?);
        let Some(wiring) = self.wiring() else {
            let why = "the module has no file that says where deployments are; use `connect`";
            return Err(ConnectError::Refused(why.to_owned()));
        };
        let mut routes: Vec<_> = self.routes_to(&callee).collect();
        // Only the DPM and its engines have a default connection, below what the file says.
        let is_other = matches!(ModuleKind::of(&self.own().module), ModuleKind::Other(_));
        if is_other || routes.iter().any(|route| route.is_written) {
            routes.retain(|route| route.is_written);
        }
        let [route] = *routes else {
            let file = wiring.file.display();
            let names: Vec<_> = routes
                .iter()
                .map(|route| format!("`{}`", route.name))
                .collect();
            return Err(ConnectError::Refused(if names.is_empty() {
                let settings = format!("client.connection.{name}");
                format!(
                    "no connection leads to `{name}`; write into `{file}`:\n  ataccama.{settings}.host=<host>\n  ataccama.{settings}.grpc.port=<port>\n  countersign.{settings}.deployment={name}"
                )
            } else {
                format!(
                    "connections {} all lead to `{name}`; in `{file}`, remove the lines of all but one, or have one lead elsewhere:\n  countersign.client.connection.<connection>.deployment=<deployment>",
                    names.join(", ")
                )
            }));
        };
        let options = route.options.towards(&callee.name);
        Ok(layer.layer(Connection::lazy(&route.target, options)?))
    }

    /// Returns a channel to the deployment `name` over an `endpoint` of one's own, whose URI
    /// decides: `http` is for loopback, unless `countersign.client.allow-plaintext=true`; `https`
    /// needs the endpoint's own TLS, and nothing is sent without it.
    ///
    /// # Errors
    ///
    /// When no trusted deployment is called `name`, its certificates are pinned here, which only
    /// [`channel`](Self::channel) checks, the file turns TLS on and the URI does not, or the
    /// endpoint is over a Unix socket and has no address to judge: use
    /// [`client_layer`](Self::client_layer).
    pub fn connect(
        &self,
        name: &str,
        endpoint: Endpoint,
    ) -> Result<AttachIdentity<Channel>, ConnectError> {
        let uri = endpoint.uri();
        // What tonic has in place of the path of a Unix socket.
        if uri
            .authority()
            .is_some_and(|authority| authority == "tonic")
        {
            let why = "an endpoint over a Unix socket, or to a host `tonic` without a port, has no address to judge; use `Module::client_layer` with `Transport::loopback()`";
            return Err(ConnectError::Refused(why.to_owned()));
        }
        if !self.callee(name)?.tls_pins.is_empty() {
            return Err(ConnectError::Refused(format!(
                "the certificates of `{name}` are pinned, which only `Module::channel` checks"
            )));
        }
        let over = match uri.scheme_str() {
            Some("https") => Transport::tls(),
            // Where it leads is judged when it is dialled.
            _ => Transport::loopback(),
        };
        let layer = self.client_layer(name, over)?;
        Ok(layer.layer(channel_over(endpoint, self.plaintext.calls)?))
    }
}
