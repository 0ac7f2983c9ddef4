//! Modules as processes, under limits of the operating system.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use countersign::Module;
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Status;
use tower_layer::Layer as _;

use crate::support::world::{self, PATIENCE};

const BINARY: &str = env!("CARGO_BIN_EXE_countersign");

/// Two paired homes, `dpm` and `dpe`.
pub(super) struct Homes(TempDir);

impl Homes {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paired = Command::new(BINARY)
            .args(["pair", "dpm=dpm/etc/application.properties"])
            .arg("dpe=dpe/etc/application.properties")
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(paired.status.success(), "{paired:?}");
        Self(folder)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Starts a DPM that may open `descriptors` files.
    pub(super) fn dpm(&self, descriptors: u32, sets: &[&str]) -> Process {
        self.start("dpm", &format!("ulimit -n {descriptors}; exec"), sets)
    }

    /// Has the DPM's file revoke every key of `deployment`.
    pub(super) fn revoke(&self, deployment: &str) {
        let revoked = Command::new(BINARY)
            .args([
                "revoke",
                "--home",
                "dpm",
                "--deployment",
                deployment,
                "--yes",
            ])
            .current_dir(self.path())
            .output()
            .unwrap();
        assert!(revoked.status.success(), "{revoked:?}");
    }

    /// Starts `module` by a shell's `prefix`.
    pub(super) fn start(&self, module: &str, prefix: &str, sets: &[&str]) -> Process {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!(r#"{prefix} "$0" "$@""#), BINARY])
            .args([module, "run", "--home", module])
            .args(["--set", "ataccama.server.grpc.port=0"])
            .args(["--set", "server.port=0"]);
        for set in sets {
            command.args(["--set", set]);
        }
        let mut child = command
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines(child.stderr.take().unwrap());
        let mut process = Process {
            address: ([127, 0, 0, 1], 0).into(),
            child,
            lines,
        };
        let started = process.says(" startup ");
        let (_, address) = started.split_once(" address=").unwrap();
        let address = address.split([',', ' ']).next().unwrap();
        process.address = address.trim().parse().unwrap();
        process
    }
}

/// Reads everything that is written, so that no writer waits.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (lines, read) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    read
}

/// A module that runs until it is dropped.
pub(super) struct Process {
    pub(super) address: SocketAddr,
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Returns the next line of the log that holds `text`.
    #[track_caller]
    pub(super) fn says(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no line with {text:?} in time"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Returns the lines that it has written and no test has read, as far as they arrived.
    pub(super) fn said(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Connects `count` times and says nothing.
    pub(super) fn silent(&self, count: usize) -> Vec<TcpStream> {
        let connect = |_| TcpStream::connect(self.address).unwrap();
        (0..count).map(connect).collect()
    }

    /// Calls `WhoAmI` as the DPE, over a new connection.
    pub(super) async fn who_am_i(&self, homes: &Homes) -> Result<String, Status> {
        let module = Module::load(homes.path().join("dpe")).unwrap();
        let identity = module
            .client_layer("dpm-dev", countersign::Transport::loopback())
            .unwrap();
        let channel = world::channel(self.address).await;
        let mut client = IdentityServiceClient::new(identity.layer(channel));
        let answer = client.who_am_i(WhoAmIRequest {}).await?;
        Ok(answer.into_inner().identity.unwrap().id)
    }

    /// Returns how much processor time it has used.
    pub(super) fn used(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // The name, in parentheses, may hold blanks.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<_> = fields.split(' ').collect();
        let ticks = |n: usize| fields[n].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// Checks that it uses less than a tenth of a processor for two seconds.
    #[track_caller]
    pub(super) fn idles(&self) {
        let before = self.used();
        // The measure itself: processor time over wall-clock time.
        std::thread::sleep(Duration::from_secs(2));
        let used = self.used().saturating_sub(before);
        assert!(used < Duration::from_millis(200), "used {used:?} in 2 s");
    }

    /// Returns how much memory it has resident, in KiB.
    pub(super) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let (_, resident) = status.split_once("VmRSS:").unwrap();
        resident.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Returns how many files it has open.
    pub(super) fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
        open.count()
    }

    /// Returns how many TCP connections are established in its network.
    pub(super) fn connections(&self) -> usize {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.id())).unwrap();
        let states = table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3));
        states.filter(|state| *state == "01").count()
    }

    /// Lets it open `descriptors` files from now on, where it began with 256.
    pub(super) fn limit_descriptors(&self, descriptors: usize) {
        // Raising the maximum again would need privileges.
        let limit = Rlimit {
            current: Some(descriptors as u64),
            maximum: Some(256),
        };
        prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }

    pub(super) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits for its end; returns its exit code and how long the end took.
    pub(super) fn ends(&mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        let status = self.child.wait().unwrap();
        (status.code(), begun.elapsed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
