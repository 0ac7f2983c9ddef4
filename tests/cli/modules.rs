//! `dpm run`, `dpe run` and `engines`, as processes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::free_port::free_port;
use super::support::{Folder, command};

/// Longer than any module takes to write what a test waits for.
const LONGEST_SILENCE: Timespec = Timespec {
    tv_sec: 120,
    tv_nsec: 0,
};

/// A module that runs until it is dropped.
pub(super) struct Running {
    pub(super) child: Child,
    lines: Option<BufReader<ChildStderr>>,
}

impl Running {
    pub(super) fn start(folder: &Folder, arguments: &str) -> Self {
        Self::start_with(folder, arguments, [])
    }

    /// Starts it with `variables` in its environment.
    pub(super) fn start_with<const N: usize>(
        folder: &Folder,
        arguments: &str,
        variables: [(&str, &str); N],
    ) -> Self {
        let mut command = command(&folder.path(""));
        command.args(arguments.split_whitespace()).envs(variables);
        Self::of(command)
    }

    /// Starts it with a command of the test's own.
    pub(super) fn of(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = Some(BufReader::new(child.stderr.take().unwrap()));
        Self { child, lines }
    }

    /// Reads the log until a line holds `text`, and returns that line.
    ///
    /// Fails where the process ends before, or writes nothing for [`LONGEST_SILENCE`].
    #[track_caller]
    pub(super) fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        loop {
            let start = read.len();
            let lines = self.lines.as_mut().unwrap();
            if lines.buffer().is_empty() {
                let mut next = [PollFd::new(lines.get_ref(), PollFlags::IN)];
                let written = poll(&mut next, Some(&LONGEST_SILENCE)).unwrap();
                assert_ne!(written, 0, "it is silent without {text:?}:\n{read}");
            }
            let length = lines.read_line(&mut read).unwrap();
            assert_ne!(length, 0, "it ended without {text:?}:\n{read}");
            let line = read.split_at(start).1;
            if line.contains(text) {
                return line.to_owned();
            }
        }
    }

    /// Reads on until each of `texts` was in a line, in whatever order; returns those lines.
    #[track_caller]
    pub(super) fn until_each<const N: usize>(&mut self, texts: [&str; N]) -> [String; N] {
        let mut found = [const { None }; N];
        while found.iter().any(Option::is_none) {
            let line = self.until("");
            let wanted = texts.iter().zip(&mut found);
            for (_, found) in
                wanted.filter(|(text, found)| found.is_none() && line.contains(**text))
            {
                *found = Some(line.clone());
            }
        }
        found.map(Option::unwrap)
    }

    /// Returns the port it listens on, from its first line.
    #[track_caller]
    pub(super) fn port(&mut self) -> u16 {
        let line = self.until(" startup ");
        let (_, rest) = line.split_once(" address=127.0.0.1:").unwrap();
        rest.split(' ').next().unwrap().trim().parse().unwrap()
    }

    /// Reads the rest of the log on a thread of its own, and drops it.
    pub(super) fn drain(&mut self) {
        let lines = self.lines.take().unwrap();
        std::thread::spawn(move || lines.lines().count());
    }

    pub(super) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Returns how many file descriptors and threads it has.
    pub(super) fn held(&self) -> (usize, usize) {
        let count = |of| {
            let listed = fs::read_dir(format!("/proc/{}/{of}", self.child.id()));
            listed.unwrap().count()
        };
        (count("fd"), count("task"))
    }

    /// Ends it, which completes its log file.
    pub(super) fn stop(&mut self) {
        self.signal("-TERM");
        self.child.wait().unwrap();
    }

    fn ends(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) const ANY_PORT: &str = "--set ataccama.server.grpc.port=0 --set server.port=0";

/// Two modules that are paired, whose files said so much before.
pub(super) fn paired_with(files: &[(&str, &str)]) -> Folder {
    let folder = Folder::new();
    for (file, settings) in files {
        folder.write(file, settings);
    }
    let pair = "pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties --yes";
    folder.run(pair).exits(0);
    folder
}

pub(super) fn paired() -> Folder {
    paired_with(&[])
}

#[test]
fn a_pair_becomes_ready_is_listed_and_ends_at_sigterm() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    let mut dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
    dpe.until("Engine registered");
    dpm.until("newStatus=READY");

    let own = format!("--home dpm --set ataccama.server.grpc.port={port}");
    let listed = folder
        .run(&format!("engines list {own} -o json"))
        .exits(0)
        .json();
    let engine = listed["engines"][0].clone();
    let id = engine["id"].as_str().unwrap();
    let as_peer = folder
        .run(&format!("engines list --home dpe {to_dpm}"))
        .exits(0);
    let shown = folder.run(&format!("engines show {own} {id}")).exits(0);
    for name in [id.split('-').next().unwrap(), "dpe-dev"] {
        let same = folder.run(&format!("engines show {own} {name}")).exits(0);
        assert!(same.stdout.contains(id), "{name}: {}", same.stdout);
    }
    let unknown = "0031debd-6130-4b4a-8eaf-7a834555cf33";
    let missing = folder
        .run(&format!("engines show {own} {unknown}"))
        .exits(1);
    let second = folder
        .run(&format!("dpm run --home dpm {ANY_PORT}"))
        .exits(6);

    assert_eq!(
        (&engine["status"], &engine["deployment"]),
        (&"READY".into(), &"dpe-dev".into())
    );
    assert_eq!(
        (&engine["module"], &engine["environment"]),
        (&"dpe".into(), &"dev".into())
    );
    assert_eq!(engine["hostname"], "localhost");
    assert!(engine["port"].as_u64().unwrap() > 0 && engine["last_seen"].is_string());
    assert!(as_peer.stdout.contains(id.split('-').next().unwrap()));
    assert!(
        shown.stdout.contains("\nstatus         READY\n"),
        "{}",
        shown.stdout
    );
    assert!(missing.stderr.contains(unknown), "{}", missing.stderr);
    let holder = format!("is in use by process {}", dpm.child.id());
    assert!(second.stderr.contains(&holder), "{}", second.stderr);

    dpe.signal("-TERM");
    dpm.until("newStatus=INACTIVE");
    assert_eq!(dpe.ends(), Some(0));
    dpm.signal("-HUP");
    dpm.signal("-TERM");
    dpm.until(" shutdown ");
    assert_eq!(dpm.ends(), Some(0));
    assert!(
        folder
            .read("dpm/log/spring-boot-logger.json.log")
            .contains("\"registerEngine\"")
    );
}

#[test]
fn a_pair_with_tls_becomes_ready_and_a_wrong_pin_is_named() {
    let folder = Folder::new();
    folder
        .run("pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties --tls")
        .exits(0);
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    let engine = format!("dpe run --home dpe {ANY_PORT} {to_dpm}");
    let dpe = Running::start(&folder, &engine);
    dpm.until("newStatus=READY");

    let own = format!("--home dpm --set ataccama.server.grpc.port={port}");
    let as_self = folder.run(&format!("engines list {own}")).exits(0);
    let as_peer = folder
        .run(&format!("engines list --home dpe {to_dpm}"))
        .exits(0);
    dpe.signal("-TERM");
    assert_eq!(dpe.ends(), Some(0));

    assert!(as_self.stdout.contains("READY"), "{}", as_self.stdout);
    assert!(as_peer.stdout.contains("READY"), "{}", as_peer.stdout);

    let pin = "--set countersign.deployments.dpm-dev.tls-keys.key.fingerprint";
    let wrong = format!("{pin}=vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI");
    let mut dpe = Running::start(&folder, &format!("{engine} {wrong}"));
    let line = dpe.until(" waitingForDpm ");
    let listed = folder
        .run(&format!("engines list --home dpe {to_dpm} {wrong}"))
        .exits(5);

    let expected = "which is not pinned for deployment `dpm-dev`";
    assert!(line.contains(expected), "{line}");
    assert!(listed.stderr.contains(expected), "{}", listed.stderr);
    assert!(!listed.stderr.contains("start it"), "{}", listed.stderr);
}

#[test]
fn a_killed_engine_is_disconnected_and_ready_again_when_it_is_back() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let to_dpm = format!(
        "--set ataccama.client.connection.dpm.grpc.port={}",
        dpm.port()
    );
    let engine = format!("dpe run --home dpe {ANY_PORT} {to_dpm}");
    let dpe = Running::start(&folder, &engine);
    dpm.until("newStatus=READY");

    dpe.signal("-KILL");
    assert_eq!(dpe.ends(), None);
    dpm.until("newStatus=DISCONNECTED");

    let _dpe = Running::start(&folder, &engine);
    dpm.until("newStatus=READY");
}

#[test]
fn an_engine_registers_again_at_a_dpm_that_forgot_it() {
    let in_memory = "countersign.registry.url=memory:\n";
    let folder = paired_with(&[("dpm/etc/application.properties", in_memory)]);
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    // It looks for its DPM every 5 s unless set otherwise.
    let often = "--set ataccama.one.dpe.service.dpm.check-connection-interval=100";
    let engine = format!("dpe run --home dpe {ANY_PORT} {to_dpm} {often}");
    let mut dpe = Running::start(&folder, &engine);
    dpm.until("newStatus=READY");
    dpe.drain();

    dpm.signal("-KILL");
    assert_eq!(dpm.ends(), None);
    let at_port = format!("--set ataccama.server.grpc.port={port} --set server.port=0");
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {at_port}"));

    dpm.until(" registerEngine ");
    dpm.until("newStatus=READY");
}

#[test]
fn an_engine_may_start_first_and_says_once_that_it_waits() {
    let folder = paired();
    let dpe = "dpe run --home dpe --set ataccama.client.connection.dpm.grpc.port=1";
    let mut dpe = Running::start(&folder, &format!("{dpe} {ANY_PORT}"));

    let line = dpe.until("waiting");

    assert!(line.contains("countersign dpm run --home dpm"), "{line}");
    dpe.signal("-INT");
    dpe.until(" shutdown ");
    assert_eq!(dpe.ends(), Some(0));
}

#[test]
fn a_registry_that_cannot_be_reached_is_exit_5_and_one_that_refuses_exit_4() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let stranger = "pair dpm=other.properties dpe=stranger/etc/application.properties";
    folder.run(stranger).exits(0);
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");

    let away = folder
        .run("engines list --home dpm --set ataccama.server.grpc.port=1")
        .exits(5);
    let refused = folder
        .run(&format!("engines list --home stranger {to_dpm}"))
        .exits(4);

    assert_eq!((away.stdout.as_str(), refused.stdout.as_str()), ("", ""));
    assert!(
        away.stderr.contains("127.0.0.1:1 cannot be reached"),
        "{}",
        away.stderr
    );
    assert!(refused.stderr.contains("KEY_UNKNOWN"), "{}", refused.stderr);
}

#[test]
fn a_home_that_cannot_be_used_is_exit_3() {
    let folder = paired();
    let broken = "dpe/etc/application.properties";
    folder.write(broken, folder.read(broken).replace("content={", "content="));
    for module in ["dpm", "dpe"] {
        let missing = folder.run(&format!("{module} run --home nowhere")).exits(3);
        assert!(missing.stderr.contains("nowhere"), "{}", missing.stderr);
    }

    let run = folder.run("dpe run --home dpe").exits(3);

    assert!(run.stderr.contains("error[CS0201]"), "{}", run.stderr);
    folder.run("dpm run").exits(2);
    folder.run("dpm run --home dpm --set nonsense").exits(2);
}

#[test]
fn second_module_of_a_home_is_exit_6_with_the_firsts_pid_and_touches_nothing() {
    let folder = paired();
    let run = format!(
        "dpm run --home dpm --set server.port=0 --set ataccama.server.grpc.port={}",
        free_port()
    );
    let mut first = Running::start(&folder, &run);
    first.until(" startup ");
    // Where no log can be opened any more, a second module fails with another error.
    fs::rename(folder.path("dpm/log"), folder.path("dpm/old-log")).unwrap();
    folder.write("dpm/log", "a file");

    let second = folder.run(&run).exits(6);

    let holder = format!("is in use by process {}", first.child.id());
    assert!(second.stderr.contains(&holder), "{}", second.stderr);
}

#[tokio::test]
async fn second_signal_ends_a_module_that_drains() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let address = format!("http://127.0.0.1:{}", dpm.port());
    let channel = Endpoint::try_from(address).unwrap().connect().await;
    let mut health = HealthClient::new(channel.unwrap());
    let watched = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watched = watched.into_inner();
    watched.message().await.unwrap();

    dpm.signal("-TERM");
    // The DPM says that it drains, and does so while this call is open.
    watched.message().await.unwrap();
    dpm.signal("-TERM");

    assert_eq!(dpm.ends(), Some(143));
}

#[test]
fn something_that_accepts_and_is_silent_is_exit_5() {
    let folder = paired();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let list = format!("engines list --home dpm --set ataccama.server.grpc.port={port}");

    let run = folder.run(&list).exits(5);

    assert!(
        run.stderr.contains("did not answer within 5s"),
        "{}",
        run.stderr
    );
}
