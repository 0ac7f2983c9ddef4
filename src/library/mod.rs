//! What a file promises, kept for an application: its module follows the file, serves where it says,
//! and connects as it says.

mod open;
mod route;
mod serve;

use std::path::Path;

use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};

use crate::config::LoadError;
use crate::grpc::{AttachIdentity, ConnectError, Connection, MethodRules, Module, ServeError};

pub use open::{OpenError, OpenOptions};

impl Module {
    /// Opens the module at `home`: a folder with `etc/application.properties`, or such a file; and
    /// follows its files as long as the module, or a layer that was made of it, exists.
    ///
    /// What changes in the files, a revocation for one, takes effect within a second; on Unix SIGHUP
    /// has them read at once. Its handler is installed for the life of the process: after the last
    /// module is gone, SIGHUP does nothing. Variables of the environment override settings of the
    /// files, as in Spring Boot. The module type is the folder's name. The settings of the log and of
    /// the registry are for the binary and are noted once in the log.
    ///
    /// Nothing is locked or written: several processes may open one home.
    ///
    /// # Errors
    ///
    /// When it is not called in a Tokio runtime, a file cannot be read, or has faults.
    pub fn open(home: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options(home).open()
    }

    /// Returns how to open the module at `home`, to be changed and opened.
    pub fn options(home: impl AsRef<Path>) -> OpenOptions {
        OpenOptions::new(home.as_ref())
    }

    /// Loads the module at `home` once, as [`open`](Self::open) does.
    ///
    /// Does not follow its files: a key that is revoked there later is still accepted. For tools that
    /// look once; a service uses [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or has faults: then all of them are in the error.
    pub fn load(home: impl AsRef<Path>) -> Result<Self, LoadError> {
        open::load(home.as_ref())
    }

    /// Serves `routes` where the module's file says, until SIGTERM or ctrl-c; then drains. A second
    /// signal ends it at once.
    ///
    /// TLS, pins, deadline and limits are those of the file. `IdentityService` is added, and with the
    /// feature `actuator` gRPC health, reflection where the listener is on loopback, and the HTTP port
    /// where `server.port` is set. `rules` is for the services in `routes` alone.
    ///
    /// # Errors
    ///
    /// When the module follows no file, the file names no port, a port cannot be opened, the listener
    /// is beyond loopback without TLS, or the server stops by itself.
    pub async fn serve(&self, rules: MethodRules, routes: Routes) -> Result<(), ServeError> {
        serve::until_signal(self, rules, routes).await
    }

    /// Serves as [`serve`](Self::serve) does, until `shutdown` completes; takes no signals.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub async fn serve_until(
        &self,
        rules: MethodRules,
        routes: Routes,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        serve::until(self, rules, routes, shutdown).await
    }

    /// Serves as [`serve_until`](Self::serve_until) does, on `listener` in place of the file's
    /// address. A module that was made from keys is served without TLS, on loopback.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub async fn serve_on(
        &self,
        listener: TcpListener,
        rules: MethodRules,
        routes: Routes,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        serve::on(self, listener, rules, routes, shutdown).await
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
        route::channel(self, name)
    }

    /// Returns a channel to the deployment `name` over an `endpoint` of one's own, whose URI decides:
    /// `http` is for loopback, unless `countersign.client.allow-plaintext=true`; `https` needs the
    /// endpoint's own TLS, and nothing is sent without it.
    ///
    /// An endpoint over a Unix socket has no address to judge: use
    /// [`client_layer`](Self::client_layer) for it.
    ///
    /// # Errors
    ///
    /// When no trusted deployment is called `name`, its certificates are pinned here, which only
    /// [`channel`](Self::channel) checks, or the file turns TLS on and the URI does not.
    pub fn connect(
        &self,
        name: &str,
        endpoint: Endpoint,
    ) -> Result<AttachIdentity<Channel>, ConnectError> {
        route::connect(self, name, endpoint)
    }
}
