//! Two hosts: network namespaces with a cable between them, and the README's commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::modules::Running;
use super::support::Folder;

const README: &str = include_str!("../../README.md");

/// A network namespace with names for both hosts; it ends with the test.
pub(super) struct Host {
    namespace: String,
    /// What the namespace has in place of the files of `/etc`.
    etc: PathBuf,
    pub(super) folder: Folder,
}

fn ip(arguments: &str) -> bool {
    let ip = Command::new("ip").args(arguments.split(' ')).output();
    ip.is_ok_and(|ip| ip.status.success())
}

/// Makes the hosts `dpm.example` and `dpe.example`; `None` if this user may not.
pub(super) fn hosts(of: &str) -> Option<[Host; 2]> {
    let names = ["dpm", "dpe"].map(|side| format!("cs-{}-{of}-{side}", std::process::id()));
    let [first, _] = &names;
    if !ip(&format!("netns add {first}")) {
        let required = std::env::var_os("COUNTERSIGN_REQUIRE_PEERS");
        assert!(required.is_none(), "cannot make a network namespace");
        return None;
    }
    ip(&format!("netns delete {first}"));
    let hosts = names.map(|namespace| {
        assert!(ip(&format!("netns add {namespace}")));
        let etc = Path::new("/etc/netns").join(&namespace);
        fs::create_dir_all(&etc).unwrap();
        let names = "127.0.0.1 localhost\n10.87.0.1 dpm.example dpm\n\
                     10.87.0.2 dpe.example dpe-0.dpe\n";
        fs::write(etc.join("hosts"), names).unwrap();
        let folder = Folder::new();
        Host {
            namespace,
            etc,
            folder,
        }
    });
    let [dpm, dpe] = &hosts;
    let (here, there) = (&dpm.namespace, &dpe.namespace);
    let cable = format!("link add eth0 netns {here} type veth peer name eth0 netns {there}");
    assert!(ip(&cable));
    for (host, address) in hosts.iter().zip(["10.87.0.1/24", "10.87.0.2/24"]) {
        let namespace = &host.namespace;
        assert!(ip(&format!(
            "-n {namespace} address add {address} dev eth0"
        )));
        for link in ["lo", "eth0"] {
            assert!(ip(&format!("-n {namespace} link set {link} up")));
        }
    }
    Some(hosts)
}

impl Host {
    /// Returns a shell on this host that knows where the binary is.
    pub(super) fn command(&self, line: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_countersign"));
        let folder = binary.parent().unwrap().display();
        let script = format!("PATH={folder}:$PATH; {line}");
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "sh", "-c", &script])
            .current_dir(self.folder.path(""))
            .stdin(Stdio::null());
        command
    }

    /// Runs a line of the shell, and returns its output.
    #[track_caller]
    fn run(&self, line: &str) -> Output {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        output
    }

    /// Starts what `output` names as the last command for this host.
    fn start(&self, output: &Output) -> Running {
        let said = String::from_utf8_lossy(&output.stderr);
        let mut next = said
            .lines()
            .filter_map(|line| Some(line.split_once("here: ")?.1));
        let run = next.next_back().unwrap();
        Running::of(self.command(&format!("exec {run}")))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        ip(&format!("netns delete {}", self.namespace));
        let _ = fs::remove_dir_all(&self.etc);
    }
}

/// Returns the README's commands that pair two hosts.
fn commands() -> [&'static str; 3] {
    let section = README.split("## On two hosts").nth(1).unwrap();
    let commands: Vec<_> = section
        .lines()
        .filter(|line| line.starts_with("countersign pair "))
        .collect();
    commands.try_into().unwrap()
}

/// Returns the option that compares the words of `output`.
fn words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let words = said.lines().find_map(|line| line.strip_prefix("words   "));
    format!("--words '{}'", words.unwrap())
}

/// Pairs and starts two modules as the README says, with `option` in each command.
fn reach_ready([dpm, dpe]: &[Host; 2], option: &str) {
    let [first, second, third] = commands();
    let add = |command: &str, more: &str| match command.split_once(" > ") {
        Some((command, block)) => format!("{command} {option} {more} > {block}"),
        None => format!("{command} {option} {more}"),
    };
    let ours = dpm.run(&add(first, ""));
    dpe.folder.write("dpm.block", dpm.folder.read("dpm.block"));
    let theirs = dpe.run(&add(second, &words(&ours)));
    dpm.folder.write("dpe.block", dpe.folder.read("dpe.block"));
    let done = dpm.run(&add(third, &words(&theirs)));

    let mut registry = dpm.start(&done);
    registry.until(" startup ");
    let _engine = dpe.start(&theirs);
    registry.until("newStatus=READY");
    let doctor = dpe.run("countersign doctor --home dpe");
    assert!(doctor.status.success(), "{doctor:?}");
}

#[test]
fn two_hosts_reach_ready_by_the_commands_of_the_readme() {
    let Some(hosts) = hosts("tls") else {
        return;
    };

    reach_ready(&hosts, "");

    let [dpm, dpe] = &hosts;
    for host in [dpm, dpe] {
        let names = host.folder.files();
        let text = names
            .iter()
            .find(|(path, _)| path.ends_with("application.properties"));
        let text = String::from_utf8_lossy(&text.unwrap().1).into_owned();
        assert!(text.contains("grpc.tls.enabled=true"), "{text}");
        assert!(!text.contains("allow-plaintext"), "{text}");
    }
}

#[test]
fn two_hosts_reach_ready_without_tls_where_each_command_allows_it() {
    let Some(hosts) = hosts("plain") else {
        return;
    };

    reach_ready(&hosts, "--plaintext");
}
