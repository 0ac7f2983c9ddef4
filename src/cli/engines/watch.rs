//! `engines watch`: a line for each engine, and for each change, until a signal.

use std::thread;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::admin::greeting::{Callee, Doubt};
use crate::admin::watch::{News, watch};
use crate::cli::output::{Answer, Console, Exit, Format, Kind, Refused};
use crate::cli::runtime::Signals;
use crate::diagnostic::visible;

/// Has `write` write each engine and each change, until a signal or the end of a pipe's reader.
pub(super) fn run(
    callee: &Callee,
    console: &Console,
    executor: &Runtime,
    write: fn(&Console, News) -> Answer,
    refused: impl Fn(Doubt) -> Refused,
) -> Answer {
    let (send, news) = mpsc::channel(WAITING);
    let (out, all_read) = (console.clone(), send.clone());
    // A reader that stalls does not keep signals waiting.
    let started = thread::Builder::new().spawn(move || write_all(&out, news, write));
    let writing = started.map_err(Refused::caused(Kind::Internal, "cannot start a thread"))?;
    let signal = executor.block_on(async {
        let caught = Signals::catch();
        let mut signals =
            caught.map_err(Refused::caused(Kind::Internal, "cannot wait for signals"))?;
        tokio::select! {
            ended = watch(callee, send) => ended.map(|()| None).map_err(refused),
            () = all_read.closed() => Ok(None),
            exit = signals.end() => Ok(Some(exit)),
        }
    })?;
    signal.map_or_else(|| writing.join().unwrap_or(Ok(Exit::Bug)), Ok)
}

/// How many changes wait to be written.
const WAITING: usize = 64;

fn write_all(
    console: &Console,
    mut news: mpsc::Receiver<News>,
    write: fn(&Console, News) -> Answer,
) -> Answer {
    let mut has_head = console.format != Format::Text;
    while let Some(one) = news.blocking_recv() {
        if !std::mem::replace(&mut has_head, true) {
            console.answer(line(&HEAD.map(str::to_owned)))?;
        }
        if Console::has_no_reader() {
            break;
        }
        write(console, one)?;
    }
    Ok(Exit::Done)
}

const HEAD: [&str; 8] = [
    "TIME",
    "ID",
    "ADDRESS",
    "STATUS",
    "DEPLOYMENT",
    "MODULE",
    "ENV",
    "WHY",
];

/// How wide the columns are at least: nothing is known of the lines to come.
const WIDTHS: [usize; 8] = [24, 8, 20, 12, 12, 6, 4, 0];

/// Returns a line of the table.
pub(super) fn line(cells: &[String; 8]) -> String {
    let columns = cells.iter().zip(WIDTHS);
    let padded = columns.map(|(cell, width)| format!("{cell:<width$}"));
    let text = padded.collect::<Vec<_>>().join("  ");
    visible(text.trim_end()) + "\n"
}
