//! The examples of `--help`, carried out.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;

use super::free_port::free_port;
use super::modules::Running;
use super::support::{Folder, Run};

/// The engine whose id stands in an example.
const ENGINE: &str = "0031debd-6130-4b4a-8eaf-7a834555cf33";

/// Returns the examples of `command` and of those below it, in the order of their help.
fn examples(folder: &Folder, command: &str) -> Vec<String> {
    let help = folder.run(&format!("{command} --help")).exits(0).stdout;
    let whole = help.replace(" \\\n", "");
    let shown = whole.lines().filter_map(|line| line.strip_prefix("  $ "));
    let mut found: Vec<_> = shown.map(str::to_owned).collect();
    let below = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    for line in below.lines().take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().unwrap();
        if name != "help" {
            found.extend(examples(folder, format!("{command} {name}").trim()));
        }
    }
    found
}

/// Returns a shell that knows where the binary is, and runs `line`.
pub(super) fn shell_of(folder: &Folder, line: &str) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_countersign"));
    let mut path = vec![binary.parent().unwrap().to_owned()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap()));
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(folder.path(""));
    shell.env("PATH", env::join_paths(path).unwrap());
    shell
}

/// Runs `line` as a shell does that knows where the binary is.
pub(super) fn shell(folder: &Folder, line: &str) -> Run {
    let output = shell_of(folder, line).output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Makes the files that the examples name: two homes on free ports, keys, and a token.
fn prepared() -> Folder {
    let folder = Folder::new();
    let (dpm, dpe) = (
        "dpm/etc/application.properties",
        "dpe/etc/application.properties",
    );
    let (registry, engine) = (free_port(), free_port());
    folder.write(
        dpm,
        format!("ataccama.server.grpc.port={registry}\nserver.port=0\n"),
    );
    let ports = format!(
        "ataccama.server.grpc.port={engine}\nserver.port=0\nataccama.client.connection.dpm.grpc.port={registry}\n"
    );
    folder.write(dpe, ports);
    folder
        .run(&format!("pair dpm={dpm} dpe={dpe} --yes"))
        .exits(0);
    folder.write("dpe/storage/engine-id", format!("{ENGINE}\n"));
    let own = folder.read(dpe);
    let key = own
        .lines()
        .find_map(|line| line.split_once("generator.key="));
    let refused = r#"{"eventId":"authRejected","reason":"KEY_UNKNOWN","detail":"why"}"#;
    folder.write(
        "dpm/log/spring-boot-logger.json.log",
        format!("{refused}\n"),
    );
    folder.write("own.txt", key.unwrap().1);
    for line in [
        "countersign key export own.txt --to public-jwk --out public.jwk",
        "countersign key gen --out source.jwk",
        "countersign key gen --out two.jwk --public-out dpe-two.jwk",
        "countersign key export source.jwk --to pem-sec1 --out ec256.pem",
        "countersign token issue --home dpe --audience dpm-dev > token.txt",
    ] {
        shell(&folder, line).exits(0);
    }
    folder
}

fn start(folder: &Folder, line: &str) -> Running {
    Running::start(folder, line.strip_prefix("countersign ").unwrap())
}

/// Runs a command that goes on without end, up to its first line.
fn shows_a_line(folder: &Folder, line: &str) {
    let mut running = start(folder, line);
    let mut shown = BufReader::new(running.child.stdout.take().unwrap());
    assert_ne!(shown.read_line(&mut String::new()).unwrap(), 0);
}

#[test]
fn every_example_of_the_help_runs() {
    let folder = prepared();
    let examples = examples(&folder, "");
    assert!(examples.len() > 20, "{examples:#?}");
    // Keys come first: other examples use what those make.
    let is_key = |line: &&String| line.contains("countersign key ");
    let (keys, rest): (Vec<_>, Vec<_>) = examples.iter().partition(is_key);
    // What is taken back comes last: other examples use it.
    let is_last = |line: &&String| {
        [" revoke ", " inactivate ", " forget "]
            .iter()
            .any(|word| line.contains(word))
    };
    let (last, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_last);
    let (modules, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|line| {
        [" dpm run ", " dpe run ", " engines ", " doctor "]
            .iter()
            .any(|word| line.contains(word))
    });

    // These change the keys that the others use.
    let changing = prepared();
    for line in keys.into_iter().chain(rest) {
        // Each example makes its file as if it were the first.
        for out in line.split("--out ").skip(1) {
            let _ = std::fs::remove_file(folder.path(out.split(' ').next().unwrap()));
        }
        if line.contains(" rotate tls ") {
            let encrypted = prepared();
            shell(&encrypted, "countersign pair dpm=dpm dpe=dpe --tls --yes").exits(0);
            shell(&encrypted, line).exits(0);
        } else if [" rotate ", " revoke ", " new-id "]
            .iter()
            .any(|word| line.contains(word))
        {
            shell(&changing, line).exits(0);
        } else if line.contains(" pair ") {
            // Each pairs two modules that know nothing of each other yet.
            let fresh = Folder::new();
            fresh.write("dpm.jwk", folder.read("source.jwk"));
            if line.contains(" accept ") {
                let made = "countersign pair --one-side dpm=dpm.properties > dpm.block";
                shell(&fresh, made).exits(0);
            }
            shell(&fresh, line).exits(0);
        } else {
            shell(&folder, line).exits(0);
        }
    }
    let mut running = Vec::new();
    for line in modules {
        if line.contains(" run ") {
            running.push(start(&folder, line));
            running.last_mut().unwrap().until(" startup ");
            if let [dpm, _dpe] = running.as_mut_slice() {
                dpm.until("newStatus=");
            }
        } else if line.contains(" engines watch ") {
            shows_a_line(&folder, line);
        } else {
            shell(&folder, line).exits(0);
        }
    }
    assert_eq!(running.len(), 2);
    for line in last {
        shell(&folder, line).exits(0);
    }
}
