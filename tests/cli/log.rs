//! Outputs of the log that fail: calls, probes and signals do not notice.

use std::fs;
use std::io::{PipeReader, PipeWriter, Write as _, pipe};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll as poll_fds};
use serde_json::Value;
use tokio::time::Instant;

use super::free_port::free_port;
use super::http::{get, poll, port};
use super::modules::{ANY_PORT, Running, paired};
use super::support::{Folder, command};

const LOG: &str = "dpm/log/spring-boot-logger.json.log";

/// A pipe that is full and that nothing reads.
struct Full {
    stderr: PipeWriter,
    _reader: PipeReader,
}

impl Full {
    fn new() -> Self {
        let (reader, stderr) = pipe().unwrap();
        let mut filler = stderr.try_clone().unwrap();
        std::thread::spawn(move || filler.write_all(&vec![b'x'; 1 << 20]));
        poll("a full pipe", || {
            let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
            let ready = poll_fds(&mut fds, Some(&Timespec::default())).unwrap();
            (ready == 0).then_some(())
        });
        Self {
            stderr,
            _reader: reader,
        }
    }

    fn start(&self, folder: &Folder, arguments: &str) -> Child {
        let stderr = self.stderr.try_clone().unwrap();
        let mut command = command(&folder.path(""));
        command.args(arguments.split_whitespace());
        command.stderr(Stdio::from(stderr)).spawn().unwrap()
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args([name, &pid]).status().unwrap();
    assert!(status.success());
}

/// The status and the text of the health part `log`.
fn log_part(http: u16) -> (String, String) {
    let health: Value = serde_json::from_str(&get(http, "/actuator/health").1).unwrap();
    let part = &health["components"]["log"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&part["status"]), text(&part["details"]["message"]))
}

fn lost_lines(http: u16) -> u64 {
    let metrics = get(http, "/actuator/prometheus").1;
    let (_, rest) = metrics
        .split_once("\ncountersign_log_lines_lost_total ")
        .unwrap();
    rest.lines().next().unwrap().parse().unwrap()
}

/// The events in the log file; every line is one.
#[track_caller]
fn events(folder: &Folder) -> Vec<Value> {
    let text = fs::read_to_string(folder.path(LOG)).unwrap_or_default();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn is_logged(folder: &Folder, event: &str) -> Option<Value> {
    let mut all = events(folder).into_iter();
    all.find(|one| one["eventId"] == event)
}

#[test]
fn stderr_that_is_not_read_delays_neither_calls_nor_the_log_file_nor_sigterm() {
    let folder = paired();
    let stranger = "pair dpm=other.properties dpe=stranger/etc/application.properties";
    folder.run(stranger).exits(0);
    let full = Full::new();
    let (grpc, http) = (free_port(), free_port());
    let ports = format!("--set ataccama.server.grpc.port={grpc} --set server.port={http}");
    let dpm = format!("dpm run --home dpm {ports} --set countersign.server.shutdown-deadline=1s");
    let mut child = full.start(&folder, &dpm);
    poll("startup", || is_logged(&folder, "startup"));

    // Each of them logs on its way.
    for _ in 0..3 {
        let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={grpc}");
        let refused = folder.run(&format!("engines list --home stranger {to_dpm}"));
        refused.exits(4);
    }
    poll("refusal", || is_logged(&folder, "authRejected"));
    assert_eq!(get(http, "/actuator/health/liveness").0, 200);
    let asked = Instant::now();
    signal(&child, "-TERM");

    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{asked:?}");
    assert!(is_logged(&folder, "shutdown").is_some());
}

#[test]
fn module_that_cannot_print_what_is_wrong_with_its_files_ends_at_sigterm() {
    let folder = paired();
    let broken = "dpm/etc/application.properties";
    folder.write(broken, folder.read(broken).replace("content={", "content="));
    let full = Full::new();

    let mut child = full.start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    signal(&child, "-TERM");

    assert_eq!(child.wait().unwrap().code(), None);
}

#[test]
fn log_file_that_becomes_a_pipe_costs_lines_and_nothing_else() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let http = port(&dpm.until(" startup "), " http=127.0.0.1:");
    poll("health", || (log_part(http).0 == "UP").then_some(()));
    // In one step: a line in between would make a file.
    let made = Command::new("mkfifo").arg(folder.path("pipe")).status();
    assert!(made.unwrap().success());
    fs::rename(folder.path("pipe"), folder.path(LOG)).unwrap();

    dpm.signal("-HUP");
    dpm.until("configReloaded");
    let said = poll("lost lines", || {
        let (status, said) = log_part(http);
        (status == "UNKNOWN" && lost_lines(http) > 0).then_some(said)
    });
    assert!(
        said.contains("spring-boot-logger.json.log: it is a"),
        "{said}"
    );
    let ready = get(http, "/actuator/health/readiness");
    assert_eq!(ready.0, 200, "{ready:?}");

    fs::remove_file(folder.path(LOG)).unwrap();
    dpm.signal("-HUP");
    let lost = poll("the line afterwards", || is_logged(&folder, "logLinesLost"));

    assert!(lost["lines"].as_u64().unwrap() > 0, "{lost}");
    assert_eq!(lost["severity"], "WARN");
    poll("health", || (log_part(http).0 == "UP").then_some(()));
}

#[test]
fn link_or_pipe_as_log_file_is_refused_at_the_start() {
    let folder = paired();
    folder.write("dpm/log/other", "");
    let run = format!("dpm run --home dpm {ANY_PORT}");
    let refused = || {
        let run = folder.run(&run).exits(3);
        let place = "log/spring-boot-logger.json.log";
        assert!(run.stderr.contains(place), "{}", run.stderr);
        assert!(run.stderr.contains("regular file"), "{}", run.stderr);
        fs::remove_file(folder.path(LOG)).unwrap();
    };

    symlink(Path::new("other"), folder.path(LOG)).unwrap();
    refused();
    let made = Command::new("mkfifo").arg(folder.path(LOG)).status();
    assert!(made.unwrap().success());
    refused();

    assert_eq!(folder.read("dpm/log/other"), "");
}

#[test]
fn half_a_line_is_cut_off_when_the_disk_is_full_and_one_line_says_what_is_missing() {
    let folder = paired();
    let run = format!("dpm run --home dpm {ANY_PORT}");
    let program = env!("CARGO_BIN_EXE_countersign");
    // A file may have this many blocks: the last line that fits in part is written in part.
    let limited = format!("trap '' XFSZ; ulimit -f 8; exec '{program}' {run}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &limited]).current_dir(folder.path(""));
    let mut dpm = Running::of(shell);
    let http = port(&dpm.until(" startup "), " http=127.0.0.1:");

    while lost_lines(http) == 0 {
        dpm.signal("-HUP");
        dpm.until("configReloaded");
    }
    let full = fs::read(folder.path(LOG)).unwrap();
    assert_eq!(full.last(), Some(&b'\n'));
    let kept = events(&folder).len();
    // A new file has room again.
    fs::remove_file(folder.path(LOG)).unwrap();
    dpm.signal("-HUP");
    let lost = poll("the line afterwards", || is_logged(&folder, "logLinesLost"));

    assert!(kept > 1 && lost["lines"].as_u64().unwrap() > 0, "{lost}");
}
