//! `countersign rotate tls`: another certificate in place of a pinned one.

use std::process::Command;

use super::free_port::free_port;
use super::modules::Running;
use super::support::{Folder, mode};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";

/// Two modules that are paired with TLS, on ports of their own.
fn paired() -> Folder {
    let folder = Folder::new();
    let [dpm, dpe] = [free_port(), free_port()];
    folder.write(
        DPM,
        format!("ataccama.server.grpc.port={dpm}\nserver.port=0\n"),
    );
    folder.write(
        DPE,
        format!(
            "ataccama.server.grpc.port={dpe}\nserver.port=0\n\
             ataccama.client.connection.dpm.grpc.port={dpm}\n"
        ),
    );
    let pair = format!("pair dpm={DPM} dpe={DPE} --tls --yes");
    folder.run(&pair).exits(0);
    folder
}

fn ready(folder: &Folder) -> [Running; 2] {
    let mut dpm = Running::start(folder, "dpm run --home dpm");
    dpm.until(" startup ");
    let dpe = Running::start(folder, "dpe run --home dpe");
    dpm.until("newStatus=READY");
    [dpm, dpe]
}

/// Returns what `file` pins.
fn pins(folder: &Folder, file: &str) -> Vec<String> {
    let text = folder.read(file);
    let pins = text.lines().filter(|line| line.contains(".tls-keys."));
    pins.map(|line| line.split_once('=').unwrap().1.to_owned())
        .collect()
}

/// Returns the files below the `etc` of both homes that are no settings, with their content.
fn certificates(folder: &Folder) -> Vec<(String, String)> {
    let homes = ["dpm/etc", "dpe/etc"].into_iter();
    let paths = homes.flat_map(|home| {
        let names = folder.names(home).into_iter();
        names.map(move |name| format!("{home}/{name}"))
    });
    let found = paths.filter(|path| path.contains(".pem"));
    found
        .map(|path| (path.clone(), folder.read(&path)))
        .collect()
}

fn rotate(owner: &str, peer: &str) -> String {
    format!("rotate tls --home {owner} --peer-file {peer} --yes")
}

#[test]
fn certificate_is_changed_while_both_modules_run() {
    for (owner, peer, file) in [("dpe", "dpm", DPM), ("dpm", "dpe", DPE)] {
        let folder = paired();
        let _modules = ready(&folder);
        let (old, before) = (pins(&folder, file), certificates(&folder));

        let run = folder.run(&(rotate(owner, peer) + " -o json")).exits(0);

        let new = run.json()["new"].as_str().unwrap().to_owned();
        assert_eq!(run.json()["old"], *old[0]);
        assert_eq!(pins(&folder, file), [new]);
        let after = certificates(&folder);
        let changed = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after);
        let changed: Vec<_> = changed.map(|(_, (path, _))| path.clone()).collect();
        let names = ["tls-key", "tls"].map(|end| format!("{owner}/etc/{owner}-dev-{end}.pem"));
        assert_eq!(changed, names, "{run:#?}");
        assert_eq!(before.len(), after.len());
        assert_eq!(mode(&folder.path(&names[0])), 0o600);
        for secret in before
            .iter()
            .chain(&after)
            .filter(|(path, _)| path.contains("key"))
        {
            let line = secret.1.lines().nth(1).unwrap();
            assert!(
                !run.stdout.contains(line) && !run.stderr.contains(line),
                "{run:#?}"
            );
        }
        folder.run("doctor --home dpe").exits(0);
        folder.run("doctor --home dpm").exits(0);
    }
}

#[test]
fn no_call_is_refused_and_no_engine_leaves_ready_while_certificates_change_again_and_again() {
    let folder = paired();
    // Often enough for several dial-backs and heartbeats in each step.
    for (file, interval) in [
        (DPM, "ataccama.one.dpm.registry.check-connected-interval"),
        (
            DPE,
            "ataccama.one.dpe.service.dpm.check-connection-interval",
        ),
    ] {
        folder.write(file, folder.read(file) + interval + "=200ms\n");
    }
    // A machine that is busy is not what is tested.
    let patient = "ataccama.one.dpm.registry.grpc-checker-timeout=20s\n";
    folder.write(DPM, folder.read(DPM) + patient);
    let modules = ready(&folder);

    for (owner, peer) in [
        ("dpm", "dpe"),
        ("dpe", "dpm"),
        ("dpm", "dpe"),
        ("dpe", "dpm"),
    ] {
        folder.run(&rotate(owner, peer)).exits(0);
        folder.run("engines list --home dpm").exits(0);
    }

    for mut module in modules {
        module.stop();
    }
    for home in ["dpm", "dpe"] {
        let log = folder.read(&format!("{home}/log/spring-boot-logger.json.log"));
        for event in [
            "tlsHandshakeFailed",
            "authRejected",
            "engineCheckFailed",
            "registerRefused",
            "DISCONNECTED",
            "configReloadFailed",
        ] {
            assert!(!log.contains(event), "{event}: {log}");
        }
    }
}

#[test]
fn peer_that_does_not_follow_its_file_keeps_the_old_certificate_in_use_until_it_does() {
    let folder = paired();
    let text = folder.read(DPM) + "countersign.reload=false\n";
    folder.write(DPM, text);
    let [mut dpm, _dpe] = ready(&folder);
    let before = folder.read("dpe/etc/dpe-dev-tls.pem");

    let waits = rotate("dpe", "dpm") + " --timeout 1";
    let refused = folder.run(&waits).exits(1);

    assert!(
        refused.stderr.contains("`dpm-dev` is not shown to accept"),
        "{refused:#?}"
    );
    assert_eq!(folder.read("dpe/etc/dpe-dev-tls.pem"), before);
    let both = pins(&folder, DPM);
    assert_eq!(both.len(), 2);

    dpm.signal("-HUP");
    dpm.until("configReloaded");
    let run = folder.run(&(rotate("dpe", "dpm") + " -o json")).exits(1);

    assert!(run.stderr.contains("written, but NOT active"), "{run:#?}");
    // It goes on with the certificate that it made before.
    assert_eq!(run.json()["new"], *both[1]);
    assert_eq!(pins(&folder, DPM), both[1..]);
}

#[test]
fn peers_on_other_machines_pin_it_by_a_line_that_is_printed() {
    let folder = paired();
    let [mut dpm, _dpe] = ready(&folder);
    let one_side = "rotate tls --home dpe --one-side --yes -o json";

    let made = folder.run(one_side).exits(0).json();
    let early = folder.run(&format!("{one_side} --timeout 1")).exits(1);
    let pin = made["pin"].as_str().unwrap();
    folder.write(DPM, folder.read(DPM) + pin + "\n");
    dpm.until("configReloaded");
    let used = folder.run(one_side).exits(0).json();

    assert!(
        early.stderr.contains("is not shown to accept"),
        "{early:#?}"
    );
    assert_eq!(made["new"], used["new"]);
    let steps = used["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["step"]);
    assert_eq!(steps.collect::<Vec<_>>(), ["use", "unpin"]);
    folder.run("doctor --home dpe").exits(0);
}

#[test]
fn nothing_is_written_by_a_dry_run_or_where_no_pin_is_replaced() {
    let folder = paired();
    let before = folder.files();
    let dry = folder
        .run("rotate tls --home dpe --peer-file dpm --dry-run")
        .exits(0);
    assert!(dry.stdout.contains("nothing was written"), "{dry:#?}");
    let unasked = folder.run("rotate tls --home dpe --peer-file dpm").exits(2);
    assert!(unasked.stderr.contains("--yes"), "{unasked:#?}");
    assert_eq!(folder.files(), before);

    let other = pins(&paired(), DPM).remove(0);
    let text = folder.read(DPM).replace(&pins(&folder, DPM)[0], &other);
    folder.write(DPM, text);
    let refused = folder.run(&rotate("dpe", "dpm")).exits(1);
    assert!(
        refused.stderr.contains("does not pin the certificate"),
        "{refused:#?}"
    );

    let plain = Folder::new();
    plain.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    let refused = plain.run(&rotate("dpe", "dpm")).exits(1);
    assert!(
        refused.stderr.contains("names no certificate"),
        "{refused:#?}"
    );
}

/// Returns the state of both homes: files, and what each certificate is.
fn starts(folder: &Folder) {
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn each_write_of_it_can_be_the_last_and_it_goes_on_from_there() {
    for (write, call) in
        (1..40).map(|n| (n, "renameat2,renameat,rename,unlink,unlinkat,link,linkat"))
    {
        let folder = paired();
        let before = pins(&folder, DPM);
        let program = env!("CARGO_BIN_EXE_countersign");
        let killed = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
            ])
            .args([
                "-e",
                &format!("inject={call}:signal=KILL:when={write}"),
                program,
            ])
            .args((rotate("dpe", "dpm") + " --offline").split(' '))
            .current_dir(folder.path(""))
            .output()
            .expect("strace runs");
        if killed.status.success() {
            assert!(write > 5, "{killed:?}");
            return;
        }

        starts(&folder);
        folder.run(&(rotate("dpe", "dpm") + " --offline")).exits(0);

        starts(&folder);
        let after = pins(&folder, DPM);
        assert_eq!(after.len(), 1, "{write}: {after:?}");
        assert_ne!(after, before, "{write}");
        let names = [
            "application.properties",
            "dpe-dev-tls-key.pem",
            "dpe-dev-tls.pem",
        ];
        assert_eq!(folder.names("dpe/etc"), names, "{write}");
        let keys = folder.read("dpe/etc/dpe-dev-tls-key.pem");
        assert_eq!(keys.matches("BEGIN PRIVATE KEY").count(), 1, "{write}");
    }
    panic!("it writes no end");
}

#[test]
fn certificate_and_key_in_one_file_are_left_alone() {
    let folder = paired();
    let both = ["dpe-dev-tls.pem", "dpe-dev-tls-key.pem"]
        .map(|name| folder.read(&format!("dpe/etc/{name}")));
    folder.write("dpe/etc/dpe-dev-tls.pem", both.concat());
    let text = folder
        .read(DPE)
        .replace("dpe-dev-tls-key.pem", "dpe-dev-tls.pem");
    folder.write(DPE, text);
    let before = folder.files();

    let refused = folder.run(&rotate("dpe", "dpm")).exits(1);

    assert!(
        refused.stderr.contains("holds a certificate and its key"),
        "{refused:#?}"
    );
    assert_eq!(folder.files(), before);
}

#[test]
fn files_of_an_operator_beside_the_certificate_are_left_alone() {
    let folder = paired();
    for end in ["pem.old", "pem.next", "pem.bak"] {
        folder.write(&format!("dpe/etc/dpe-dev-tls.{end}"), "an operator's");
    }

    folder.run(&(rotate("dpe", "dpm") + " --offline")).exits(0);

    for end in ["pem.old", "pem.next", "pem.bak"] {
        assert_eq!(
            folder.read(&format!("dpe/etc/dpe-dev-tls.{end}")),
            "an operator's"
        );
    }
}
