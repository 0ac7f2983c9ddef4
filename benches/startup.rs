//! The CPU time that a module spends until it is up.
//!
//! `cargo bench --bench startup` starts the binary, and prints what `dpm run` uses from exec until
//! it listens, and `dpe run` from exec until its engine is READY: the median of all threads' time
//! on a processor, in milliseconds.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench on its own files"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

const RUNS: usize = 21;
const ANY_PORT: [&str; 4] = [
    "--set",
    "ataccama.server.grpc.port=0",
    "--set",
    "server.port=0",
];

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let pair = [
        "pair",
        "dpm=dpm/etc/application.properties",
        "dpe=dpe/etc/application.properties",
        "--yes",
    ];
    let status = command(folder.path()).args(pair).status();
    assert!(status.unwrap().success());

    let mut dpm = Vec::new();
    let mut dpe = Vec::new();
    for _ in 0..RUNS {
        let mut registry = Module::start(folder.path(), "dpm", &[]);
        let line = registry.until(" startup ");
        dpm.push(registry.cpu_time());
        let (_, rest) = line.split_once(" address=127.0.0.1:").unwrap();
        let port = rest.split(' ').next().unwrap();
        let to_dpm = format!("ataccama.client.connection.dpm.grpc.port={port}");
        let engine = Module::start(folder.path(), "dpe", &["--set", &to_dpm]);
        registry.until("newStatus=READY");
        dpe.push(engine.cpu_time());
    }
    println!("startup/dpm until it listens   {:>7.1} ms", median(dpm));
    println!("startup/dpe until it is READY  {:>7.1} ms", median(dpe));
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// A running module, which ends when it is dropped.
struct Module {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Module {
    fn start(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let mut child = command(folder)
            .args([name, "run", "--home", name])
            .args(ANY_PORT)
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log }
    }

    /// Reads the log until a line has `text`, and returns that line.
    fn until(&mut self, text: &str) -> String {
        let line = self.log.find(|line| line.as_ref().unwrap().contains(text));
        line.unwrap().unwrap()
    }

    /// Adds up the time of its threads on a processor: the first number of `schedstat`, in ns.
    fn cpu_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let times = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(times.sum())
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(RUNS / 2).unwrap().as_secs_f64() * 1000.0
}
