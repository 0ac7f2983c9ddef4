//! `countersign demo`: the whole procedure, run and shown.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::output::{Answer, Console, Exit, Format, Kind, Refused};
use super::runtime::{Signals, runtime};
use crate::admin::demo::{self, Step};
use crate::diagnostic::{CommandLine, redact, visible};

#[derive(Args, Debug)]
#[command(after_help = include_str!("help/demo.txt"))]
pub(super) struct Arguments {
    /// Leave the two homes in this folder, to go on with
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    runtime()?.block_on(async {
        // Caught before there is anything to remove.
        let mut signals =
            Signals::catch().map_err(Refused::caused(Kind::Internal, "cannot wait for signals"))?;
        tokio::select! {
            answer = carry_out(arguments, console) => answer,
            ended = signals.end() => Ok(ended),
        }
    })
}

async fn carry_out(arguments: &Arguments, console: &Console) -> Answer {
    // A folder that is not kept is removed when this function returns, for whatever reason.
    let (folder, fate, _removed) = if let Some(folder) = &arguments.keep {
        refuse_homes_in(folder)?;
        (folder.clone(), "kept", None)
    } else {
        let made = tempfile::Builder::new()
            .prefix("countersign-demo-")
            .tempdir();
        let folder = made.map_err(Refused::caused(Kind::Unreadable, "cannot make a folder"))?;
        let fate = "removed at the end; --keep DIR keeps them";
        (folder.path().to_owned(), fate, Some(folder))
    };
    let found = std::env::current_exe();
    let what = "cannot find this program";
    let binary = found.map_err(Refused::caused(Kind::Unreadable, what))?;
    let is_text = console.format == Format::Text;
    if is_text {
        let shown = visible(&redact(&folder.display().to_string()));
        console.answer(format!("countersign demo · files in {shown}\n({fate})\n\n"))?;
    }
    let mut steps = Vec::new();
    let ready_after = demo::run(&binary, &folder, &mut |step: &Step| {
        if is_text {
            // A step that cannot be shown now counts all the same.
            let _ = console.answer(visible(&shown(steps.len() + 1, step)));
        }
        steps.push(step.clone());
    })
    .await;
    finish(ready_after?, &steps, arguments, console)
}

/// Refuses to change homes that are there.
fn refuse_homes_in(folder: &Path) -> Result<(), Refused> {
    let homes = ["dpm", "dpe"].map(|module| folder.join(module));
    match homes.iter().find(|home| home.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(home) => {
            let message = format!("`{}` already exists", home.display());
            Err(Refused::new(Kind::Taken, message)
                .with_help("give `--keep` a folder that does not exist yet"))
        }
    }
}

fn finish(
    ready_after: Duration,
    steps: &[Step],
    arguments: &Arguments,
    console: &Console,
) -> Answer {
    let held = steps.iter().all(|step| step.held);
    if console.format == Format::Text && !held {
        let message = "a step did not give the expected result";
        return Err(Refused::new(Kind::Conflict, message));
    }
    let next = arguments.keep.as_ref().map_or_else(
        || CommandLine::new("countersign pair").flag("help"),
        |folder| CommandLine::new("countersign dpm run").option("home", folder.join("dpm")),
    );
    let text = format!(
        "\nREADY in {:.2} s. Next: {next}\n",
        ready_after.as_secs_f64()
    );
    let report = json!({
        "steps": steps,
        "ready_after_ms": ready_after.as_secs_f64() * 1000.0,
        "held": held,
    });
    console.reply(text, &report)?;
    Ok(Exit::yes(held))
}

fn shown(number: usize, step: &Step) -> String {
    let verdict = if step.held { "" } else { "  FAILED" };
    let (name, took) = (step.name, step.took_ms);
    let mut lines = step.lines.iter();
    let first = lines.next().map(String::as_str).unwrap_or_default();
    let mut text = format!("{number:>3} {name:<9} {first:<57} {took:>5.0} ms{verdict}\n");
    for line in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:13} {line}", "");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::ColorChoice;

    use super::*;

    #[test]
    fn a_step_that_did_not_hold_is_exit_1() {
        let ready_after = Duration::from_millis(200);
        let arguments = Arguments { keep: None };
        for (format, held, expected) in [
            (Format::Text, false, Exit::No),
            (Format::Json, false, Exit::No),
            (Format::Json, true, Exit::Done),
        ] {
            let console = Console::new(format, ColorChoice::Never);
            let steps = [true, held].map(|held| Step {
                name: "x",
                lines: Vec::new(),
                took_ms: 1.0,
                held,
            });

            let ended = finish(ready_after, &steps, &arguments, &console);

            let exit = ended.unwrap_or_else(|failure| console.fail(&failure));
            assert_eq!(exit, expected, "{format:?} {held}");
        }
    }
}
