//! What a file promises, kept for an application: its module follows the file, serves where it
//! says, and connects as it says.

use std::error::Error;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tower_layer::Layer as _;

use crate::config::{Home, LoadError, ModuleKind, Reloader, Settings, environment, wiring};
use crate::grpc::carrier::Transport;
use crate::grpc::network::Port;
use crate::grpc::tls::TlsError;
use crate::grpc::{
    AttachIdentity, ConnectError, Connection, EndpointChannel, KeepAlive, MethodRules, Module,
    ServeError, ServerOptions, Standard, Tokens, Wiring, channel_over,
};
use crate::identity::ModuleType;
use crate::program::Program;
use crate::storage::StorageError;
use crate::telemetry::events;

#[cfg(test)]
#[cfg(feature = "registry")]
#[path = "library/tests/partitions/mod.rs"]
mod partitions;

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
        OpenOptions {
            home: home.as_ref().to_owned(),
            has_signals: true,
        }
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
        let settings = read(home.as_ref())?;
        let module = settings.module()?;
        match wiring(&settings, &module, false) {
            Ok(wiring) => Ok(module.wired(wiring)),
            Err(error) => Err(LoadError::Internal(error.into())),
        }
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
        Ok(layer.layer(Connection::lazy_to_any(&route.targets, options)?))
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
    ) -> Result<AttachIdentity<EndpointChannel>, ConnectError> {
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
        let channel = channel_over(endpoint, self.plaintext.calls, KeepAlive::ANY_SERVER)?;
        Ok(layer.layer(channel))
    }

    /// Serves `routes` where the module's file says, until SIGTERM or ctrl-c; then drains. A second
    /// signal ends it at once.
    ///
    /// TLS, pins, deadline and limits are those of the file. `IdentityService` is added, and with
    /// the feature `actuator` gRPC health, reflection where the listener is on loopback, and the
    /// HTTP port where `server.port` is set. `rules` is for the services in `routes` alone.
    ///
    /// # Errors
    ///
    /// When the module follows no file, the file names no port, a port cannot be opened, the
    /// listener is beyond loopback without TLS or where calls need no token, `rules` has one for a
    /// service that is added, or the server stops by itself.
    pub async fn serve(&self, rules: MethodRules, routes: Routes) -> Result<(), ServeError> {
        let listener = self.listen().await?;
        let failed = set_up("cannot wait for signals");
        let mut terminate = signal(SignalKind::terminate()).map_err(&failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(&failed)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let mut serving = pin!(self.serve_on(listener, rules, routes, stopped));
        loop {
            tokio::select! {
                ended = &mut serving => return ended,
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                return Ok(());
            }
            stop.cancel();
        }
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
        let listener = self.listen().await?;
        self.serve_on(listener, rules, routes, shutdown).await
    }

    /// Opens the port of the module's file.
    async fn listen(&self) -> Result<TcpListener, ServeError> {
        let Some(wiring) = self.wiring() else {
            let why = "the module has no file that says where to serve; use `serve_on`";
            return Err(ServeError::Refused(why.to_owned()));
        };
        match wiring.grpc {
            Some(address) => bind(address, "ataccama.server.grpc.port").await,
            None => Err(ServeError::Refused(format!(
                "no gRPC port is set; write `ataccama.server.grpc.port=<port>` into `{}`, 0 to have one chosen",
                wiring.file.display()
            ))),
        }
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
        let wiring = self.wiring();
        if let Some(once) = wiring.filter(|wiring| !wiring.is_followed) {
            return Err(ServeError::Refused(format!(
                "the module was loaded from `{}` once, so a key that is revoked there would still be accepted; use `Module::open`",
                once.file.display()
            )));
        }
        let at = listener
            .local_addr()
            .map_err(set_up("cannot set up the server"))?;
        let is_here = crate::grpc::is_loopback(at);
        let server = wiring.map_or_else(ServerOptions::default, |wiring| wiring.server.clone());
        if server.tls.is_none() && !is_here && !self.plaintext.server {
            return Err(ServeError::Refused(format!(
                "{at} is not loopback and the server has no TLS; turn TLS on, or set `countersign.server.allow-plaintext=true` where the network is trusted"
            )));
        }
        if !is_here && self.tokens != Tokens::Required {
            return Err(ServeError::Refused(format!(
                "{at} is not loopback and calls need no token; remove `ataccama.authentication.grpc.internal.jwt.enable=false`"
            )));
        }
        let mut services = rules.services().into_iter();
        if let Some(taken) = services.find(|name| Standard::is_reserved(name)) {
            return Err(ServeError::Refused(format!(
                "`{taken}` is served with rules of its own; remove the rule for it"
            )));
        }
        let port = Some(Port::System(listener));
        let made = Program::new(self.clone(), None, port, server, rules);
        // Its own text says the same.
        let mut program = made.map_err(|error| set_up("cannot set up the server")(error.0))?;
        if let Some((wiring, address)) = wiring.and_then(|wiring| Some((wiring, wiring.http?))) {
            show(&mut program, wiring, address).await?;
        }
        // Added to them, a service that they have too would be a panic.
        let around = program.routes.into_axum_router();
        program.routes = around.fallback_service(routes).into();
        program.start(None).await;
        program.serve(shutdown, || {}, async { "" }).await?;
        Ok(())
    }
}

/// Why a module cannot be opened.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its files cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A PEM file cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// It was not called in a Tokio runtime.
    #[error(
        "a module follows its files in a Tokio runtime; call this in one, or use `Module::load`"
    )]
    NoRuntime,
    /// The runtime has no timer, or takes no signals.
    #[error("the Tokio runtime has no timer or no I/O; build it with `enable_all()`")]
    NoDriver,
    /// Each token is to be taken once, but another process of this home already keeps count, or the
    /// storage folder cannot be written.
    #[error("`countersign.token.replay=strict` cannot be enforced")]
    Storage(#[from] StorageError),
    /// The signal SIGHUP cannot be caught.
    #[error("cannot wait for SIGHUP")]
    Signal(#[source] io::Error),
}

crate::failure::debug_as_text!(OpenError);

/// How to open a module.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    home: PathBuf,
    has_signals: bool,
}

impl OpenOptions {
    /// Leaves SIGHUP alone. The files are followed all the same.
    #[must_use]
    pub fn without_signals(self) -> Self {
        Self {
            has_signals: false,
            ..self
        }
    }

    /// Opens the module; see [`Module::open`].
    ///
    /// # Errors
    ///
    /// As [`Module::open`].
    pub fn open(self) -> Result<Module, OpenError> {
        let runtime = Handle::try_current().map_err(|_none| OpenError::NoRuntime)?;
        let settings = read(&self.home)?;
        let module = settings.module().map_err(LoadError::Module)?;
        let (mut replay, storage) = (module.replay.iter(), settings.home.storage());
        replay.try_for_each(|replay| replay.keep_in(&storage))?;
        let reloader = Reloader::new(&settings, &module.for_follower());
        let wired = module.clone().wired(wiring(&settings, &module, true)?);
        // Tokio panics where a driver is missing, and has no other way to ask for one.
        let caught = catch_unwind(|| {
            drop(tokio::time::sleep(Duration::ZERO));
            let hangups = self.has_signals.then(|| signal(SignalKind::hangup()));
            hangups.transpose()
        });
        let hangups = caught.map_err(|_panic| OpenError::NoDriver)?;
        let following = follow(
            reloader,
            hangups.map_err(OpenError::Signal)?,
            Ended(wired.for_follower()),
        );
        wired.trust().keep(runtime.spawn(following).abort_handle());
        if !settings.not_for_libraries.is_empty() {
            let file = settings.home.file.display();
            events::settings_not_applied(file, &settings.not_for_libraries.join(", "));
        }
        Ok(wired)
    }
}

fn read(home: &Path) -> Result<Settings, LoadError> {
    let unnamed = ModuleType::new("module").map_err(|error| LoadError::Internal(error.into()))?;
    let kind = ModuleKind::of(&type_by_folder(home).unwrap_or(unnamed));
    Settings::load(home, &kind, environment(), &[])
}

/// Returns the module type that the name of the folder `home` is, or of the home of such a file.
pub(crate) fn type_by_folder(home: &Path) -> Option<ModuleType> {
    let folder = Path::new(".").join(Home::new(home).dir);
    // `.` and `..` have no name of their own.
    let whole = folder.canonicalize().ok();
    let name = folder.file_name().or_else(|| whole.as_ref()?.file_name());
    ModuleType::new(name?.to_str()?).ok()
}

/// Follows the files until the runtime ends, which is then shown, or nothing uses the module.
async fn follow(reloader: Reloader, mut hangups: Option<Signal>, _shown: Ended) {
    let files = reloader.handle();
    let mut running = pin!(reloader.run());
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            never = &mut running => match never {},
            _ = hangup => files.reload(),
        }
    }
}

struct Ended(Module);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.health().shown("configReload").down(
            "the files are no longer followed: the runtime in which the module was opened has ended",
        );
    }
}

fn set_up<E: Into<Box<dyn Error + Send + Sync>>>(what: &str) -> impl Fn(E) -> ServeError {
    move |error| ServeError::Setup(what.to_owned(), error.into())
}

async fn bind(at: SocketAddr, setting: &str) -> Result<TcpListener, ServeError> {
    let what = format!(
        "cannot listen on {at}; set `{setting}` to a free port, or to 0 to have one chosen, and its address to one of this machine"
    );
    TcpListener::bind(at).await.map_err(set_up(&what))
}

/// Shows the module's health and metrics over HTTP at `address`.
#[cfg(feature = "actuator")]
async fn show(
    program: &mut Program,
    wiring: &Wiring,
    address: SocketAddr,
) -> Result<(), ServeError> {
    let listener = bind(address, "server.port").await?;
    let access = crate::http::Access {
        allowed_hosts: wiring.http_hosts.clone(),
        metrics_beyond_loopback: wiring.http_metrics,
    };
    let site = crate::program::site(&program.module, access, || std::future::ready(()));
    program.http = Some((listener, site));
    Ok(())
}

#[cfg(not(feature = "actuator"))]
#[expect(clippy::unused_async, reason = "it awaits with the feature `actuator`")]
async fn show(_: &mut Program, _: &Wiring, _: SocketAddr) -> Result<(), ServeError> {
    let why = "`server.port` is set, but countersign was built without its feature `actuator`";
    Err(ServeError::Refused(why.to_owned()))
}
