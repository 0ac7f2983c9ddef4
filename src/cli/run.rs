//! `countersign dpm run` and `countersign dpe run`: the two modules that ship.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use clap::{Args, Subcommand};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::home::HomeArguments;
use super::output::{Answer, Console, Exit, Failure};
use super::runtime::runtime;
use super::signals::{self, Signals};
use crate::clock::SystemClock;
use crate::config::{ModuleKind, Reloader, Settings};
use crate::dpe::{self, Dpe, StatusCheckerOptions};
use crate::dpm::{self, Dpm, MonitorOptions};
use crate::grpc::tls::{ClientTlsOptions, TlsError};
use crate::grpc::{ConnectionOptions, Module, Reflection, ServerOptions, Target};
use crate::registry::store::MemoryStore;
use crate::registry::{AddressBook, Limits};
use crate::storage::{Storage, StorageError};
use crate::telemetry::{self, Appenders, Guard, Logging};

#[derive(Debug, Subcommand)]
pub(super) enum DpmCommand {
    /// Run the registry: engines register here and are dialled back
    #[command(after_help = "\
Example:
  $ countersign dpm run --home dpm

SIGTERM and SIGINT stop it: open calls may finish within `countersign.server.shutdown-deadline`;
a second one ends it at once. Changed settings take effect by themselves; SIGHUP reads them at
once, and opens the log file anew.")]
    Run(RunArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum DpeCommand {
    /// Run an engine: it registers with its DPM and answers the dial-back
    #[command(after_help = "\
Example:
  $ countersign dpe run --home dpe

It may start before its DPM. SIGTERM and SIGINT deregister and stop it; a second one ends it at
once. Changed settings take effect by themselves; SIGHUP reads them at once, and opens the log
file anew.")]
    Run(RunArguments),
}

#[derive(Args, Debug)]
pub(super) struct RunArguments {
    #[command(flatten)]
    home: HomeArguments,
    /// End when stdin does, as with the process that started this one
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

pub(super) fn run_dpm(command: &DpmCommand, console: &Console) -> Answer {
    let DpmCommand::Run(arguments) = command;
    let load = || {
        let settings = arguments.home.load(&ModuleKind::Dpm, console)?;
        in_memory(&settings)?;
        Ok(settings)
    };
    long_run(arguments, load, async |ready, stopped| {
        let settings = &ready.settings;
        let options = dpm::Options {
            limits: limits(settings),
            monitor: monitor(settings, &ready.module)?,
            addresses: ready.addresses,
            server: server(settings, &ready.module)?,
            reflection: reflection(settings),
        };
        let store = Arc::new(MemoryStore::default());
        let dpm = Dpm::new(ready.module, ready.storage, ready.listener, store, options);
        let dpm =
            dpm.map_err(|error| Failure::caused(Exit::Unreadable, "cannot start the DPM", &error))?;
        let ended = dpm.with_http(ready.http).run(stopped).await;
        ended.map_err(|error| Failure::caused(Exit::Bug, "the DPM stopped", &error))?;
        Ok(Exit::Done)
    })
}

pub(super) fn run_dpe(command: &DpeCommand, console: &Console) -> Answer {
    let DpeCommand::Run(arguments) = command;
    let load = || arguments.home.load(&ModuleKind::Dpe, console);
    long_run(arguments, load, async |ready, stopped| {
        let options = engine(&ready.settings, &ready.module, arguments)?;
        let dpe = Dpe::new(ready.module, ready.storage, ready.listener, options);
        let dpe =
            dpe.map_err(|error| Failure::caused(Exit::Unreadable, "cannot start the DPE", &error))?;
        let ended = dpe.with_http(ready.http).run(stopped).await;
        ended.map_err(|error| Failure::caused(Exit::Bug, "the DPE stopped", &error))?;
        Ok(Exit::Done)
    })
}

/// What a module starts with.
struct Ready {
    settings: Settings,
    module: Module,
    /// Where engines may be dialled; reloads replace it.
    addresses: AddressBook,
    storage: Storage,
    listener: TcpListener,
    http: TcpListener,
}

/// Runs `module` until it has ended, or until it is asked to end a second time.
///
/// Signals are caught first, so that none ends a module halfway; the storage folder is taken before
/// the log and the listener, so that a second process touches nothing of the first one's.
fn long_run(
    arguments: &RunArguments,
    load: impl FnOnce() -> Result<Settings, Failure>,
    module: impl AsyncFnOnce(Ready, Stopped) -> Answer,
) -> Answer {
    let runtime = runtime()?;
    let answer = runtime.block_on(async {
        let signals = Signals::catch()?;
        let settings = load()?;
        let identity = settings.module().map_err(|error| {
            Failure::caused(Exit::Unreadable, "cannot use the settings", &error)
        })?;
        let storage = Storage::lock(&settings.home.storage).map_err(|error| not_held(&error))?;
        let log = start_log(&settings)?;
        let addresses = AddressBook::new(settings.address_rules());
        let reloader = Reloader::with_addresses(&settings, &identity, addresses.clone());
        let files = reloader.handle();
        let ready = Ready {
            listener: listen(&settings).await?,
            http: listen_http(&settings).await?,
            module: identity,
            addresses,
            settings,
            storage,
        };
        let (stop, stopped) = oneshot::channel();
        let stopped: Stopped = Box::pin(async move {
            // A dropped sender ends the module, too.
            let _ = stopped.await;
        });
        let left_alone = async {
            if arguments.until_stdin_ends {
                signals::stdin_ends().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            answer = module(ready, stopped) => answer,
            insisted = signals.obey(log, &files, stop, left_alone) => Ok(insisted),
            never = reloader.run() => match never {},
        }
    });
    // What is still running ends with the process.
    runtime.shutdown_background();
    answer
}

/// Completes when a module is asked to end.
type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

fn start_log(settings: &Settings) -> Result<Guard, Failure> {
    let from = settings.logging;
    let logging = Logging {
        console: Appenders {
            plain: from.plain_console,
            json: from.json_console,
        },
        file: Appenders {
            plain: from.plain_file,
            json: from.json_file,
        },
        dir: settings.home.log.clone(),
    };
    let guard = telemetry::init(&logging, Arc::new(SystemClock));
    guard.map_err(|error| Failure::caused(Exit::Unreadable, "cannot open the log", &error))
}

async fn listen(settings: &Settings) -> Result<TcpListener, Failure> {
    let address = SocketAddr::new(settings.server.address, settings.server.port);
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| {
        let what = format!("cannot listen on {address}");
        Failure::caused(Exit::Unreadable, &what, &error).with_help(
            "set `ataccama.server.grpc.port` to a free port, or to 0 to have one chosen, and \
             `countersign.server.address` to an address of this machine",
        )
    })
}

async fn listen_http(settings: &Settings) -> Result<TcpListener, Failure> {
    let address = SocketAddr::new(settings.server.http_address, settings.server.http_port);
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| {
        let what = format!("cannot listen on {address} for HTTP");
        Failure::caused(Exit::Unreadable, &what, &error).with_help(
            "set `server.port` to a free port, or to 0 to have one chosen, and `server.address` \
             to an address of this machine",
        )
    })
}

fn not_held(error: &StorageError) -> Failure {
    let exit = match error {
        StorageError::InUse { .. } => Exit::WouldOverwrite,
        _ => Exit::Unreadable,
    };
    Failure::caused(exit, "cannot start", error)
}

/// Refuses a store that this version has not.
fn in_memory(settings: &Settings) -> Result<(), Failure> {
    match settings.registry.url.as_deref() {
        None | Some("memory:") => Ok(()),
        Some(url) => {
            let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
            let message = format!("this version keeps engines in memory alone, not in `{scheme}:`");
            Err(Failure::new(Exit::Unreadable, message)
                .with_help("remove `countersign.registry.url`, or set it to `memory:`"))
        }
    }
}

fn server(settings: &Settings, module: &Module) -> Result<ServerOptions, Failure> {
    let tls = settings.server.tls.clone();
    let tls = tls.map(|options| module.server_tls(options)).transpose();
    Ok(ServerOptions {
        tls: tls.map_err(|error| no_tls(&error))?,
        shutdown_deadline: settings.server.shutdown_deadline,
        max_message_bytes: usize::try_from(settings.server.max_message_bytes).unwrap_or(usize::MAX),
        ..ServerOptions::default()
    })
}

fn reflection(settings: &Settings) -> Reflection {
    if settings.server.address.is_loopback() {
        Reflection::On
    } else {
        Reflection::Off
    }
}

/// Returns how to connect, with TLS by `tls` where there is any.
pub(super) fn connection(
    settings: &Settings,
    module: &Module,
    tls: Option<&ClientTlsOptions>,
) -> Result<ConnectionOptions, Failure> {
    let tls = tls.map(|options| module.client_tls(options.clone()));
    Ok(ConnectionOptions {
        allow_plaintext: settings.client.allow_plaintext,
        tls: tls.transpose().map_err(|error| no_tls(&error))?,
        ..ConnectionOptions::default()
    })
}

pub(super) fn no_tls(error: &TlsError) -> Failure {
    Failure::caused(Exit::Unreadable, "cannot set up TLS", error)
}

fn limits(settings: &Settings) -> Limits {
    let from = &settings.registry;
    let defaults = Limits::default();
    let new = u32::try_from(from.max_new_engines_per_second);
    Limits {
        max_engines: from.max_engines,
        max_engines_per_deployment: from.max_engines_per_deployment,
        max_new_engines_per_second: new.unwrap_or(defaults.max_new_engines_per_second),
    }
}

fn monitor(settings: &Settings, module: &Module) -> Result<MonitorOptions, Failure> {
    let from = &settings.registry;
    Ok(MonitorOptions {
        check_connected_interval: from.check_connected,
        check_disconnected_interval: from.check_disconnected,
        check_disconnected_multiplier: from.multiplier.into(),
        check_disconnected_max: from.check_disconnected_max,
        checker_timeout: from.checker_timeout,
        connection: connection(settings, module, settings.client.dial_back_tls.as_ref())?,
        inactivate_not_seen_for: from.inactivate_not_seen_for,
        ..MonitorOptions::default()
    })
}

fn engine(
    settings: &Settings,
    module: &Module,
    arguments: &RunArguments,
) -> Result<dpe::Options, Failure> {
    let dpm = settings
        .client
        .connections
        .iter()
        .find(|connection| connection.name == "dpm");
    let dpm = dpm.ok_or_else(|| Failure::new(Exit::Unreadable, "no connection to a DPM is set"))?;
    let home = &arguments.home.home;
    let status_checker = StatusCheckerOptions {
        check_connection_interval: settings.engine.check_connection,
        connection: connection(settings, module, dpm.tls.as_ref())?,
        start_hint: format!(
            "start it with: countersign dpm run --home {}",
            home.with_file_name("dpm").display()
        ),
        ..StatusCheckerOptions::new(Target::new(&dpm.host, dpm.port))
    };
    let mut options = dpe::Options::new(status_checker);
    options.hostname = match &settings.engine.hostname {
        Some(hostname) => hostname.clone(),
        None if settings.server.address.is_loopback() => "localhost".to_owned(),
        None => gethostname::gethostname().to_string_lossy().into_owned(),
    };
    options.port = settings.engine.port;
    options.dpm_deployment.clone_from(&dpm.deployment);
    options.server = server(settings, module)?;
    options.reflection = reflection(settings);
    Ok(options)
}
