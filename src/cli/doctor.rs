//! `countersign doctor`: which layer between two modules fails, on which side, and how to fix it.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::input::{HomeArguments, kind_of};
use super::output::{Answer, Console, Exit, Format, Refused, serialized};
use super::runtime::runtime;
use crate::admin::doctor::{self, Diagnosis, Layer, Options, Row, Side, State, Visit};
use crate::config::{self, LoadError, ModuleKind, Settings};
use crate::diagnostic::visible;
use crate::properties::bind::{TimeUnit, duration};

#[derive(Args, Debug)]
#[command(after_help = include_str!("help/doctor.txt"))]
pub(super) struct Arguments {
    #[command(flatten)]
    home: HomeArguments,
    /// The one peer to look at: a connection's name, such as `dpm`, its deployment or `host:port`;
    /// or an engine's id, the beginning of it, or its deployment, module or `host:port`
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// How long a question of each layer may take; a look, also of --watch, takes as long as its
    /// layers together
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    timeout: Duration,
    /// Look again every 2 s until interrupted
    #[arg(long)]
    watch: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    healthy: bool,
    exit: u8,
    own: &'a [Row],
    peers: &'a [Visit],
}

const WATCH_EVERY: Duration = Duration::from_secs(2);

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    let waiting = runtime()?;
    let answer = waiting.block_on(async {
        tokio::select! {
            answer = look(arguments, console) => answer,
            _ = tokio::signal::ctrl_c(), if arguments.watch => Ok(Exit::Interrupted),
        }
    });
    // A name that is being looked up cannot be called off.
    waiting.shutdown_background();
    answer
}

/// Examines the modules; with `--watch`, repeatedly: a terminal then shows every result, any other
/// output only the changes.
async fn look(arguments: &Arguments, console: &Console) -> Answer {
    let on_screen = io::stdout().is_terminal() && console.format == Format::Text;
    let mut last = Vec::new();
    loop {
        let printed = Cell::new(0);
        let examined = diagnose(arguments, &|so_far: &Diagnosis| {
            if !arguments.watch {
                follow(so_far, &printed, console);
            }
        })
        .await;
        console.progress("");
        let diagnosis = examined?;
        let now: Vec<_> = diagnosis.rows().map(Row::outcome).collect();
        let text = shown(&diagnosis, console, !arguments.watch)?;
        if arguments.watch && on_screen {
            console.answer(format!("\u{1b}[2J\u{1b}[H{text}"))?;
        } else if now != last {
            console.answer(text.get(printed.get()..).unwrap_or_default())?;
        }
        if !arguments.watch {
            return Ok(exit(&diagnosis));
        }
        if Console::has_no_reader() {
            return Ok(Exit::Done);
        }
        last = now;
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Writes what is known `so_far` beyond what is `printed`, and on a terminal how many peers are left.
fn follow(so_far: &Diagnosis, printed: &Cell<usize>, console: &Console) {
    console.progress("");
    if console.format == Format::Text {
        let text = in_words(so_far, console);
        let new = text.get(printed.get()..).unwrap_or_default();
        // What could not be written is tried again at the end, which reports the failure.
        if console.answer(new).is_ok() {
            printed.set(text.len());
        }
    }
    let (open, all) = (
        so_far.visits.iter().filter(|visit| !visit.has_ended()),
        so_far.visits.len(),
    );
    let left = open.count();
    if left > 0 {
        console.progress(&format!("{} of {all} peers are examined", all - left));
    }
}

async fn diagnose(arguments: &Arguments, show: &dyn Fn(&Diagnosis)) -> Result<Diagnosis, Refused> {
    let home = &arguments.home.module.home;
    let settings = match load(&arguments.home) {
        Ok(settings) => settings,
        Err(error) => {
            let file = config::Home::new(home).file;
            return Ok(doctor::unusable(&error, &file));
        }
    };
    let options = Options {
        home: home.clone(),
        peer: arguments.peer.clone(),
        timeout: arguments.timeout,
    };
    doctor::examine(&settings, &options, show).await
}

fn load(HomeArguments { module, sets }: &HomeArguments) -> Result<Settings, LoadError> {
    let home = &module.home;
    let kind = kind_of(home);
    let settings = Settings::load(home, &kind, config::environment(), sets)?;
    // Of a home with a name of its own, the deployments that it trusts show what it is.
    let deployments = settings.deployments.iter();
    let trusted: Vec<_> = deployments.map(|known| known.module.as_str()).collect();
    let shown = match kind {
        ModuleKind::Other(_) if trusted.contains(&"dpm") => ModuleKind::Dpe,
        ModuleKind::Other(_) if trusted.contains(&"dpe") => ModuleKind::Dpm,
        _ => return Ok(settings),
    };
    Settings::load(home, &shown, config::environment(), sets)
}

/// Returns the exit code: the first layer that failed decides.
fn exit(diagnosis: &Diagnosis) -> Exit {
    let Some(failed) = diagnosis.failed() else {
        return Exit::Done;
    };
    match failed.layer {
        _ if failed.refused => Exit::Refused,
        Layer::Config | Layer::OwnKey => Exit::Unreadable,
        Layer::Name | Layer::Tcp | Layer::Tls | Layer::Grpc => Exit::Unreachable,
        Layer::Token | Layer::Role => Exit::Refused,
        Layer::Clock | Layer::WayBack => Exit::No,
    }
}

/// Writes a diagnosis; as JSON over several lines if it is `whole`, the only one.
fn shown(diagnosis: &Diagnosis, console: &Console, whole: bool) -> Result<String, Refused> {
    if console.format == Format::Text {
        let exit = exit(diagnosis) as u8;
        return Ok(format!("{}exit {exit}\n", in_words(diagnosis, console)));
    }
    let shown = Shown {
        healthy: diagnosis.failed().is_none(),
        exit: exit(diagnosis) as u8,
        own: &diagnosis.own,
        peers: &diagnosis.visits,
    };
    let text = if whole {
        serde_json::to_string_pretty(&shown)
    } else {
        serde_json::to_string(&shown)
    };
    Ok(serialized(text)? + "\n")
}

/// Writes the layers that are known, in their order: what is added later only follows.
fn in_words(diagnosis: &Diagnosis, console: &Console) -> String {
    let mut text = String::new();
    for row in &diagnosis.own {
        line(&mut text, row, console);
    }
    for visit in &diagnosis.visits {
        let (peer, _) = wrapped(&visit.peer, 0, console.width);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{}", console.styled("1", &peer));
        for row in visit.known() {
            line(&mut text, row, console);
        }
        if !visit.has_ended() {
            break;
        }
    }
    text
}

/// Where the details begin.
const INDENT: usize = 21;

/// The column in which times end.
const TIMES: usize = 83;

fn line(text: &mut String, row: &Row, console: &Console) {
    let (number, layer) = (row.layer.number(), row.layer.as_str());
    let (state, style) = match row.state {
        State::Ok => ("ok", "32"),
        State::Fail => ("FAIL", "31;1"),
        State::Warn => ("WARN", "33;1"),
        State::Skip => ("skip", "2"),
        State::NotReached => ("-", "2"),
    };
    let took = match row.milliseconds {
        Some(took) => format!("  {took:.1} ms"),
        None => String::new(),
    };
    let times = TIMES.min(console.width);
    let room = console.width.saturating_sub(took.len());
    let (detail, column) = wrapped(&row.detail, INDENT, room);
    let before = times.saturating_sub(column);
    let state = console.styled(style, &format!("{state:<5}"));
    let shown = format!("{number:>2} {layer:<11} {state} {detail}{took:>before$}");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", shown.trim_end());
    if let Some(side) = row.side {
        let place = match side {
            Side::Here => "fix it on this side",
            Side::Peer => "fix it at the peer",
            Side::Between => "compare both sides",
        };
        let _ = writeln!(text, "{:INDENT$}{}:", "", console.styled("1", place));
    }
    for help in &row.help {
        let (words, column) = wrapped(&help.words, INDENT + 2, console.width);
        let _ = write!(text, "{:INDENT$}  {words}", "");
        // A command stays on one line, so that it can be copied.
        if !help.line.is_empty() {
            let line = visible(&help.line);
            let fits = column + 1 + line.chars().count() <= console.width;
            let between = match (words.is_empty(), fits) {
                (true, _) => String::new(),
                (false, true) => " ".to_owned(),
                (false, false) => format!("\n{:INDENT$}  ", ""),
            };
            let _ = write!(text, "{between}{}", console.styled("36", &line));
        }
        text.push('\n');
    }
}

/// Breaks `text` between words into lines of at most `width` characters, each of which begins after
/// `indent` characters. Returns the column in which the last line ends, too.
fn wrapped(text: &str, indent: usize, width: usize) -> (String, usize) {
    let mut lines = String::new();
    let mut column = indent;
    for word in visible(text).split(' ') {
        let end = column + 1 + word.chars().count();
        if column > indent && end > width {
            let _ = write!(lines, "\n{:indent$}", "");
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += word.chars().count();
    }
    (lines, column)
}

fn time(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(300));
    duration(text, TimeUnit::Seconds, least, most)
}
