//! `engines watch`, as a process.

use std::io::{BufRead as _, BufReader};
use std::process::ChildStdout;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::modules::{ANY_PORT, Running, paired};
use super::support::Folder;

/// Longer than anything takes that a test waits for.
const LONGEST_SILENCE: Timespec = Timespec {
    tv_sec: 120,
    tv_nsec: 0,
};

/// A watch that runs until it is dropped.
struct Watch {
    running: Running,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn start(folder: &Folder, arguments: &str) -> Self {
        let mut running = Running::start(folder, &format!("engines watch {arguments}"));
        let lines = BufReader::new(running.child.stdout.take().unwrap());
        Self { running, lines }
    }

    #[track_caller]
    fn next(&mut self) -> String {
        if self.lines.buffer().is_empty() {
            let mut next = [PollFd::new(self.lines.get_ref(), PollFlags::IN)];
            assert_ne!(poll(&mut next, Some(&LONGEST_SILENCE)).unwrap(), 0);
        }
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended: {line}");
        line
    }

    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        loop {
            let line = self.next();
            if line.contains(text) {
                return line;
            }
        }
    }

    fn ends(mut self) -> Option<i32> {
        self.running.child.wait().unwrap().code()
    }
}

/// A DPM and its engine, which is READY; and how to reach the DPM as either of them.
fn ready(folder: &Folder) -> (Running, Running, [String; 2]) {
    let mut dpm = Running::start(folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let own = format!("--home dpm --set ataccama.server.grpc.port={port}");
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    let dpe = Running::start(folder, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
    dpm.until("newStatus=READY");
    dpm.drain();
    (dpm, dpe, [own, format!("--home dpe {to_dpm}")])
}

#[test]
fn watch_shows_each_engine_and_then_each_change_until_ctrl_c() {
    let folder = paired();
    let (_dpm, mut dpe, [own, _]) = ready(&folder);

    let mut watch = Watch::start(&folder, &format!("{own} -o json"));
    let first: Value = serde_json::from_str(&watch.next()).unwrap();
    dpe.stop();
    let left: Value = serde_json::from_str(&watch.next()).unwrap();
    let id = first["engine"]["id"].as_str().unwrap();
    folder.run(&format!("engines forget {id} {own}")).exits(0);
    let removed: Value = serde_json::from_str(&watch.next()).unwrap();
    watch.running.signal("-INT");

    assert_eq!(first["engine"]["status"], "READY");
    assert_eq!(first["engine"]["deployment"], "dpe-dev");
    assert_eq!(left["engine"]["id"], id);
    assert_eq!(left["engine"]["status"], "INACTIVE");
    assert_eq!(removed, serde_json::json!({ "removed_id": id }));
    assert_eq!(watch.ends(), Some(130));
}

#[test]
fn watch_outlasts_its_dpm_and_shows_what_differs_afterwards() {
    let folder = paired();
    let (dpm, dpe, [own, as_peer]) = ready(&folder);
    let mut watch = Watch::start(&folder, &as_peer);
    let head = watch.next();
    let first = watch.next();
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };

    drop(dpm);
    watch.running.until("asking again until it answers");
    drop(dpe);
    let at_port = own.replace("--home dpm", "--set server.port=0");
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {at_port}"));
    dpm.until("newStatus=DISCONNECTED");
    let lost = watch.until("DISCONNECTED");
    watch.running.signal("-TERM");

    assert_eq!(words(&head)[..4], ["TIME", "ID", "ADDRESS", "STATUS"]);
    assert_eq!(words(&first)[3..], ["READY", "dpe-dev", "dpe", "dev"]);
    assert_eq!(words(&lost)[1..3], words(&first)[1..3]);
    assert_eq!(watch.ends(), Some(143));
}

#[test]
fn watch_ends_where_its_pipe_is_read_no_more() {
    let folder = paired();
    let (_dpm, mut dpe, [own, _]) = ready(&folder);
    let mut watch = Watch::start(&folder, &own);
    watch.until("READY");

    let Watch { running, lines } = watch;
    drop(lines);
    dpe.stop();

    let mut running = running;
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_of_a_dpm_that_is_not_there_is_exit_5_and_of_one_that_refuses_exit_4() {
    let folder = paired();
    let away = "engines watch --home dpm --set ataccama.server.grpc.port=1";
    let away = folder.run(away).exits(5);
    assert!(away.stderr.contains("cannot be reached"), "{}", away.stderr);

    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let to_dpm = format!(
        "--set ataccama.client.connection.dpm.grpc.port={}",
        dpm.port()
    );
    let stranger = "pair dpm=other.properties dpe=stranger/etc/application.properties";
    folder.run(stranger).exits(0);
    let refused = folder
        .run(&format!("engines watch --home stranger {to_dpm}"))
        .exits(4);
    assert!(refused.stderr.contains("KEY_UNKNOWN"), "{}", refused.stderr);
}
