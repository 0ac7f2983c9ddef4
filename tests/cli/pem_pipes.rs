//! A pipe in the place of a certificate, a key or an authority's certificate: refused at once,
//! wherever it is read.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::examples::shell;
use super::modules::{ANY_PORT, Running};
use super::support::{Folder, Run};

const DPM: &str = "dpm/etc/application.properties";
const PAIR: &str =
    "pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties --tls";

/// Where the DPM's file names a PEM file, and which.
const PLACES: [(&str, &str); 5] = [
    (
        "ataccama.server.grpc.tls.cert-chain",
        "dpm/etc/dpm-dev-tls.pem",
    ),
    (
        "ataccama.server.grpc.tls.private-key",
        "dpm/etc/dpm-dev-tls-key.pem",
    ),
    (
        "ataccama.server.grpc.tls.trust-cert-collection",
        "dpm/etc/callers.pem",
    ),
    (
        "ataccama.client.connection.dpe.grpc.tls.trust-cert-collection",
        "dpm/etc/engines.pem",
    ),
    (
        "ataccama.client.connection.dpe.grpc.tls.cert-chain",
        "dpm/etc/own.pem",
    ),
];

/// Two modules with TLS; the DPM names a file of its own in each place.
fn paired() -> Folder {
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    let certificate = folder.read("dpm/etc/dpm-dev-tls.pem");
    let mut text = folder.read(DPM);
    for name in ["callers", "engines", "own"] {
        folder.write(&format!("dpm/etc/{name}.pem"), &certificate);
    }
    for (setting, file) in PLACES {
        let value = file.strip_prefix("dpm/").unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with(&format!("{setting}=")));
        text = lines.collect::<Vec<_>>().join("\n") + &format!("\n{setting}=file:{value}\n");
    }
    folder.write(DPM, text);
    folder
}

/// Puts a pipe in the place of `file`, in one step.
fn becomes_a_pipe(folder: &Folder, file: &str) {
    let pipe = folder.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    fs::rename(pipe, folder.path(file)).unwrap();
}

/// Runs a command that waits for no pipe; one that does ends with 124.
fn at_once(folder: &Folder, arguments: &str) -> Run {
    shell(folder, &format!("timeout 60 countersign {arguments}"))
}

#[track_caller]
fn names(text: &str, file: &str) {
    let name = Path::new(file).file_name().unwrap().to_str().unwrap();
    assert!(text.contains(name), "{name}: {text}");
    assert!(text.contains("it is a pipe"), "{text}");
    assert!(text.contains("only a regular file is used"), "{text}");
}

#[test]
fn pipe_in_the_place_of_a_pem_file_is_refused_at_once_by_check_and_start() {
    for (setting, file) in PLACES {
        let folder = paired();
        becomes_a_pipe(&folder, file);

        let check = at_once(&folder, &format!("check {DPM}")).exits(1);
        let run = at_once(&folder, &format!("dpm run --home dpm {ANY_PORT}")).exits(3);

        for text in [check.stdout, run.stderr] {
            names(&text, file);
            assert!(text.contains("error[CS0306]"), "{text}");
            assert!(text.contains(setting), "{setting}: {text}");
        }
    }
}

#[test]
fn pipe_in_the_place_of_a_pem_file_is_refused_at_once_by_a_reload_and_the_old_one_serves_on() {
    for (_, file) in PLACES {
        let folder = paired();
        let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
        let port = dpm.port();
        let list = format!(
            "engines list --home dpe --set ataccama.client.connection.dpm.grpc.port={port}"
        );
        at_once(&folder, &list).exits(0);
        let whole = fs::read(folder.path(file)).unwrap();

        becomes_a_pipe(&folder, file);
        dpm.signal("-HUP");

        names(&dpm.until(" configReloadFailed "), file);
        at_once(&folder, &list).exits(0);

        folder.write("whole", whole);
        fs::rename(folder.path("whole"), folder.path(file)).unwrap();
        dpm.signal("-HUP");
        dpm.until(" configReloaded ");
        at_once(&folder, &list).exits(0);
    }
}
