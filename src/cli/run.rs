//! `countersign dpm run` and `countersign dpe run`: the two modules that ship.

use std::future::pending;
use std::sync::Arc;

use clap::{Args, Subcommand};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::home::HomeArguments;
use super::output::{Answer, Console, Exit, Kind, Refused, example};
use super::runtime::runtime;
use super::signals::{self, Signals};
use crate::clock::SystemClock;
use crate::config::{ModuleKind, Reloader, Settings, StartError};
use crate::dpe::Dpe;
use crate::dpm::Dpm;
use crate::grpc::{Drained, ServeError, cause};
use crate::storage::StorageError;
use crate::telemetry;

#[derive(Debug, Subcommand)]
pub(super) enum DpmCommand {
    /// Run the registry: engines register here and are dialled back
    ///
    /// SIGTERM and SIGINT stop it: open calls may finish within
    /// `countersign.server.shutdown-deadline`; a second signal ends it at once. Changed settings
    /// take effect by themselves; SIGHUP reads them at once and reopens the log file.
    #[command(after_help = example("dpm run --home dpm"))]
    Run(RunArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum DpeCommand {
    /// Run an engine: it registers with its DPM and answers the dial-back
    ///
    /// It may start before its DPM. SIGTERM and SIGINT deregister and stop it; a second signal ends
    /// it at once. Changed settings take effect by themselves; SIGHUP reads them at once and
    /// reopens the log file.
    #[command(after_help = example("dpe run --home dpe"))]
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
    long_run(
        arguments,
        &ModuleKind::Dpm,
        console,
        Settings::dpm,
        Dpm::run,
    )
}

pub(super) fn run_dpe(command: &DpeCommand, console: &Console) -> Answer {
    let DpeCommand::Run(arguments) = command;
    long_run(
        arguments,
        &ModuleKind::Dpe,
        console,
        Settings::dpe,
        Dpe::run,
    )
}

/// Starts a module and runs it until it has ended, or until it is asked to end a second time.
///
/// Signals are caught first, so that none ends a module halfway; the module takes its storage
/// folder before the log is opened, so that a second process touches nothing of the first one's.
fn long_run<M>(
    arguments: &RunArguments,
    kind: &ModuleKind,
    console: &Console,
    start: impl AsyncFnOnce(&Settings) -> Result<(M, Reloader), StartError>,
    run: impl AsyncFnOnce(M, WaitForCancellationFutureOwned) -> Result<Drained, ServeError>,
) -> Answer {
    let executor = runtime()?;
    let answer = executor.block_on(async {
        let signals = Signals::catch()?;
        let settings = arguments.home.load(kind, console)?;
        let (module, reloader) = start(&settings).await.map_err(|error| refused(&error))?;
        let log = telemetry::init(&settings.options.logging, Arc::new(SystemClock))
            .map_err(Refused::caused(Kind::Unreadable, "cannot open the log"))?;
        let files = reloader.handle();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let left_alone = async {
            if arguments.until_stdin_ends {
                signals::stdin_ends().await;
            } else {
                pending::<()>().await;
            }
        };
        tokio::select! {
            ended = run(module, stopped) => match ended {
                Ok(_) => Ok(Exit::Done),
                Err(error) => Err(Refused::caused(Kind::Internal, "the module stopped")(error)),
            },
            exit = signals.handle(log, &files, stop, left_alone) => Ok(exit),
            never = reloader.run() => match never {},
        }
    });
    // What is still running ends with the process.
    executor.shutdown_background();
    answer
}

fn refused(error: &StartError) -> Refused {
    let kind = match error {
        StartError::Storage(StorageError::InUse { .. }) => Kind::Taken,
        _ => Kind::Unreadable,
    };
    let failure = Refused::new(kind, cause(error));
    match error {
        StartError::Listen { help, .. } => failure.with_help(*help),
        _ => failure,
    }
}
