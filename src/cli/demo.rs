//! `countersign demo`: the whole procedure, run and shown.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::output::{Answer, Console, Exit, Failure, Format};
use super::refused::refused;
use super::runtime::runtime;
use super::signals::Signals;
use crate::admin::demo::{self, DemoOptions, Outcome, Step};
use crate::diagnostic::redact;

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  $ countersign demo
  $ countersign demo --keep my-pair")]
pub(super) struct Arguments {
    /// Leave the two homes in this folder, to go on with
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    steps: Vec<ReportedStep>,
    ready_after_ms: f64,
    held: bool,
}

#[derive(Serialize)]
struct ReportedStep {
    name: &'static str,
    lines: Vec<String>,
    took_ms: f64,
    held: bool,
}

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    let runtime = runtime()?;
    runtime.block_on(async {
        // Caught before there is anything to remove.
        let mut signals = Signals::catch()?;
        tokio::select! {
            answer = carry_out(arguments, console) => answer,
            ended = signals.end() => Ok(ended),
        }
    })
}

async fn carry_out(arguments: &Arguments, console: &Console) -> Answer {
    let failed =
        |what: &str, error: &std::io::Error| Failure::caused(Exit::Unreadable, what, error);
    // A folder that is not kept is removed when this function is left, in whatever way.
    let (folder, fate, _removed) = if let Some(folder) = &arguments.keep {
        refuse_homes_in(folder)?;
        (folder.clone(), "kept", None)
    } else {
        let mut builder = tempfile::Builder::new();
        let folder = builder.prefix("countersign-demo-").tempdir();
        let folder = folder.map_err(|error| failed("cannot make a folder", &error))?;
        let fate = "removed at the end; --keep DIR keeps them";
        (folder.path().to_owned(), fate, Some(folder))
    };
    let binary = std::env::current_exe();
    let binary = binary.map_err(|error| failed("cannot find this program", &error))?;
    if console.format() == Format::Text {
        let shown = redact(&folder.display().to_string());
        console.answer(format!("countersign demo · files in {shown} ({fate})\n\n"))?;
    }
    let options = DemoOptions { binary, folder };
    let mut steps = Vec::new();
    let mut report = |step: &Step| {
        if console.format() == Format::Text {
            // What cannot be shown now is told at the end.
            let _ = console.answer(shown(steps.len() + 1, step));
        }
        steps.push(ReportedStep {
            name: step.name,
            lines: step.lines.clone(),
            took_ms: step.took.as_secs_f64() * 1000.0,
            held: step.held,
        });
    };
    let outcome = demo::run(&options, &mut report).await;
    let outcome = outcome.map_err(|error| refused("the demo cannot go on: ", &error, console))?;
    finish(outcome, steps, arguments, console)
}

/// Refuses to change homes that are there.
fn refuse_homes_in(folder: &Path) -> Result<(), Failure> {
    let homes = ["dpm", "dpe"].map(|module| folder.join(module));
    match homes.iter().find(|home| home.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(home) => {
            let message = format!("`{}` is there already", home.display());
            Err(Failure::new(Exit::WouldOverwrite, message)
                .with_help("give `--keep` a folder that is not there yet"))
        }
    }
}

fn finish(
    outcome: Outcome,
    steps: Vec<ReportedStep>,
    arguments: &Arguments,
    console: &Console,
) -> Answer {
    let seconds = outcome.ready_after.as_secs_f64();
    if console.format() == Format::Json {
        let ready_after_ms = seconds * 1000.0;
        console.json(&Report {
            steps,
            ready_after_ms,
            held: outcome.held,
        })?;
    } else if outcome.held {
        let next = match &arguments.keep {
            Some(folder) => format!(
                "countersign dpm run --home {}",
                redact(&folder.join("dpm").display().to_string())
            ),
            None => "countersign pair --help".to_owned(),
        };
        console.answer(format!("\nREADY in {seconds:.2} s. Next: {next}\n"))?;
    } else {
        return Err(Failure::new(Exit::No, "not every step came as it must"));
    }
    Ok(if outcome.held { Exit::Done } else { Exit::No })
}

fn shown(number: usize, step: &Step) -> String {
    let took = step.took.as_secs_f64() * 1000.0;
    let mut text = String::new();
    for (at, line) in step.lines.iter().enumerate() {
        let verdict = if step.held { "" } else { "  FAILED" };
        // Writing to a string cannot fail.
        let _ = match at {
            0 => writeln!(
                text,
                "{number:>3} {:<9} {line:<78} {took:>5.0} ms{verdict}",
                step.name
            ),
            _ => writeln!(text, "{:13} {line}", ""),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::output::Colour;
    use super::*;

    #[test]
    fn a_step_that_did_not_hold_is_exit_1() {
        let outcome = |held| Outcome {
            ready_after: Duration::from_millis(200),
            held,
        };
        let arguments = Arguments { keep: None };
        for (format, held, expected) in [
            (Format::Text, false, Exit::No),
            (Format::Json, false, Exit::No),
            (Format::Json, true, Exit::Done),
        ] {
            let console = Console::new(format, Colour::Never);

            let ended = finish(outcome(held), Vec::new(), &arguments, &console);

            let exit = ended.unwrap_or_else(|failure| console.fail(&failure));
            assert_eq!(exit, expected, "{format:?} {held}");
        }
    }
}
