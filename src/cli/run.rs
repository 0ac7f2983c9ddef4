//! `countersign dpm run` and `countersign dpe run`: the two modules that ship.

use std::convert::Infallible;
use std::future::pending;
use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::input::{HomeArguments, ModuleArgument, notes};
use super::output::{Answer, Console, Exit, Kind, Refused, bug_report, example};
use super::runtime::{Signals, runtime, stdin_ends};
use crate::admin::engine_id;
use crate::admission::raise_descriptors;
use crate::clock::SystemClock;
use crate::config::{Home, ModuleKind, Reloader, Settings, StartError};
use crate::diagnostic::CommandLine;
use crate::dpe::Dpe;
use crate::dpm::Dpm;
use crate::grpc::{Drained, Module, ServeError, cause};
use crate::storage::StorageError;
use crate::telemetry::{self, Ledger, Losses, events};

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
    /// Give an engine whose home was copied an id of its own
    ///
    /// A copied home has the engine's id, too, and a DPM registers one process of an id: it
    /// refuses the copy with `ENGINE_DUPLICATE`. Stop the copy, then run this there. The engine must
    /// not run.
    #[command(after_help = example("dpe new-id --home dpe"))]
    NewId(ModuleArgument),
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
    let arguments = match command {
        DpeCommand::Run(arguments) => arguments,
        DpeCommand::NewId(engine) => return new_id(&engine.home, console),
    };
    long_run(
        arguments,
        &ModuleKind::Dpe,
        console,
        Settings::dpe,
        Dpe::run,
    )
}

fn new_id(home: &Path, console: &Console) -> Answer {
    let (old, new) = engine_id::renew(&Home::new(home))?;
    let start = CommandLine::new("countersign dpe run").option("home", home);
    let text = format!(
        "The engine's id is {new}; it was {old}.\nStart it, and it registers as an engine of its own: {start}\n"
    );
    console.reply(
        text,
        &json!({ "old": old.to_string(), "new": new.to_string() }),
    )
}

/// Starts a module and runs it until it has ended, or until it is asked to end a second time.
///
/// Signals are caught before it starts, so that none ends a module halfway, and after its settings
/// are read: what is wrong with them is printed, which may block. The module takes its storage
/// folder before the log is opened, so that a second process touches nothing of the first one's.
fn long_run<M>(
    arguments: &RunArguments,
    kind: &ModuleKind,
    console: &Console,
    start: impl AsyncFnOnce(&Settings) -> Result<(M, Reloader), StartError>,
    run: impl AsyncFnOnce(M, WaitForCancellationFutureOwned) -> Result<Drained, ServeError>,
) -> Answer {
    raise_descriptors();
    let executor = runtime()?;
    let answer = executor.block_on(async {
        let settings = arguments.home.load(kind, console)?;
        if let Some(notes) = notes(&settings.findings, &settings.home.file) {
            console.note(&notes);
        }
        let signals =
            Signals::catch().map_err(Refused::caused(Kind::Internal, "cannot wait for signals"))?;
        let (module, reloader) = start(&settings).await.map_err(|error| refused(&error))?;
        let log = telemetry::init(&settings.options.logging, Arc::new(SystemClock))
            .map_err(Refused::caused(Kind::Unreadable, "cannot open the log"))?;
        panic::set_hook(Box::new(bug_logger()));
        // Whose keys a reload replaces: they are not kept beside it.
        drop(settings);
        let (files, followed) = (reloader.handle(), reloader.module().clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let left_alone = async {
            if arguments.until_stdin_ends {
                stdin_ends().await;
            } else {
                pending::<()>().await;
            }
        };
        let answer = tokio::select! {
            ended = run(module, stopped) => ended.map(|_| Exit::Done),
            exit = signals.handle(&files, stop, left_alone) => Ok(exit),
            never = follow(log.losses(), &followed) => match never {},
            never = reloader.run() => match never {},
        };
        // The last lines are worth a moment, and no more: an output may never take them.
        log.finish(LAST_LINES);
        answer.map_err(Refused::caused(Kind::Internal, "the module stopped"))
    });
    // What is still running ends with the process.
    executor.shutdown_background();
    answer
}

/// Returns what logs panics: for each place in the code one a minute.
fn bug_logger() -> impl Fn(&PanicHookInfo<'_>) {
    let ledger = Mutex::new(Ledger::new(MOST_BUGS, 1));
    move |panic| {
        let place = panic.location().map(|place| (place.line(), place.column()));
        let mut places = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = places.admit(place, Instant::now()) {
            events::bug(&bug_report(panic), suppressed);
        }
    }
}

/// How many places have a line of their own.
const MOST_BUGS: usize = 16;

/// How long the log may take at the end.
const LAST_LINES: Duration = Duration::from_millis(500);

/// How often it is logged that lines are lost.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Shows in the metrics, health and log of `module` which lines of the log are lost.
async fn follow(mut losses: watch::Receiver<Losses>, module: &Module) -> Infallible {
    let health = module.health().shown("log");
    let (mut reported, mut due) = (0, Instant::now());
    let mut is_quiet = false;
    loop {
        let Losses { lines, failing } = losses.borrow_and_update().clone();
        module.metrics().log_lines_lost(lines);
        let causes: Vec<_> = failing
            .iter()
            .map(|(of, why)| format!("{of}: {why}"))
            .collect();
        let (cause, said) = (
            causes.join("; "),
            format!("lines lost since the start: {lines}"),
        );
        if cause.is_empty() {
            health.up(said);
        } else {
            health.down(format!("{said}; {cause}"));
        }
        let now = Instant::now();
        if lines > reported && now >= due && (is_quiet || cause.is_empty()) {
            events::log_lines_lost(lines.saturating_sub(reported), &cause);
            (reported, due) = (lines, now + REPORT_EVERY);
        }
        is_quiet = timeout(REPORT_EVERY, losses.changed()).await.is_err();
    }
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

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::time::sleep;

    use super::*;
    use crate::telemetry::Format;
    use crate::telemetry::capture::{Lines, subscriber};
    use crate::testing;

    /// The part `log` of the module's health: whether it is up, and what it says.
    fn log_part(module: &Module) -> (bool, String) {
        let health = module.health().current();
        let part = health.parts().iter().find(|part| part.name == "log");
        let part = part.unwrap();
        (part.up, part.detail.to_string())
    }

    /// How many lines each `logLinesLost` since the last look says were lost.
    fn reported(lines: &Lines) -> Vec<u64> {
        let events = lines.take().into_iter();
        let events = events.map(|line| serde_json::from_str::<Value>(&line).unwrap());
        let lost = events.filter(|event| event["eventId"] == "logLinesLost");
        lost.map(|event| event["lines"].as_u64().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn lost_lines_are_counted_in_metric_health_and_one_line_afterwards() {
        let module = testing::pair().dpm;
        let (dispatch, lines) = subscriber(Format::Json, Arc::new(SystemClock));
        let _subscriber = tracing::dispatcher::set_default(&dispatch);
        let losses = watch::Sender::default();
        let failing = |lines| Losses {
            lines,
            failing: [("a.log", "disk full".to_owned())].into(),
        };
        let over = |lines| Losses {
            lines,
            ..Losses::default()
        };
        let (shown, receiver) = (module.clone(), losses.subscribe());
        let follow = async move { follow(receiver, &shown).await };
        let check = async {
            let soon = Duration::from_millis(1);
            sleep(soon).await;
            assert_eq!(
                log_part(&module),
                (true, "lines lost since the start: 0".to_owned())
            );
            losses.send_replace(failing(3));
            sleep(soon).await;
            let (up, detail) = log_part(&module);
            assert!(!up && detail.contains("3; a.log: disk full"), "{detail}");
            assert_eq!(reported(&lines), [0_u64; 0]);

            losses.send_replace(over(3));
            sleep(soon).await;
            assert_eq!(reported(&lines), [3]);
            assert_eq!(
                log_part(&module),
                (true, "lines lost since the start: 3".to_owned())
            );
            let metrics = module.metrics_text();
            assert!(
                metrics.contains("\ncountersign_log_lines_lost_total 3\n"),
                "{metrics}"
            );

            // However often it happens, it is one line a minute.
            for lines in 4..50 {
                losses.send_replace(failing(lines));
                sleep(soon).await;
                losses.send_replace(over(lines));
                sleep(soon).await;
            }
            assert_eq!(reported(&lines), [0_u64; 0]);
            sleep(2 * REPORT_EVERY).await;
            assert_eq!(reported(&lines), [46]);

            // An output that stays broken is named in the others.
            losses.send_replace(failing(50));
            sleep(2 * REPORT_EVERY).await;
            assert_eq!(reported(&lines), [1]);
        };
        tokio::select! {
            never = follow => match never {},
            () = check => {}
        }
    }
}
