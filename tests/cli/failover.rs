//! A DPE with several DPMs, as processes.

use std::fs;

use super::modules::{ANY_PORT, Running, paired};
use super::support::Folder;

/// A pair whose DPM has a replica in the folder `dpm2`: the same files, and a storage of its own.
fn replicated() -> Folder {
    let folder = paired();
    fs::create_dir_all(folder.path("dpm2/etc")).unwrap();
    let etc =
        ["dpm", "dpm2"].map(|home| folder.path(&format!("{home}/etc/application.properties")));
    fs::copy(&etc[0], &etc[1]).unwrap();
    folder
}

#[test]
fn engine_of_a_killed_dpm_is_ready_at_the_next_one() {
    let folder = replicated();
    let [mut first, mut second] = ["dpm", "dpm2"]
        .map(|home| Running::start(&folder, &format!("dpm run --home {home} {ANY_PORT}")));
    let (one, other) = (first.port(), second.port());
    let addresses = format!(
        "--set countersign.client.connection.dpm.addresses=127.0.0.1:{one},localhost:{other}"
    );
    let engine = format!("dpe run --home dpe {ANY_PORT} {addresses}");
    let mut dpe = Running::start(&folder, &engine);
    first.until("newStatus=READY");
    let line = dpe.until("Engine registered");
    assert!(line.contains(&format!("127.0.0.1:{one}")), "{line}");

    first.signal("-KILL");
    second.until("newStatus=READY");

    let line = dpe.until("Engine registered");
    assert!(line.contains(&format!("localhost:{other}")), "{line}");
    let list = format!("engines list --home dpe {addresses}");
    let listed = folder.run(&list).exits(0);
    assert!(listed.stdout.contains("READY"), "{}", listed.stdout);
    let doctor = folder
        .run(&format!("doctor --home dpe {addresses}"))
        .exits(0);
    let (gone, serving) = doctor.stdout.split_once("dpm-dev at localhost").unwrap();
    assert!(
        gone.contains(&format!("dpm-dev at 127.0.0.1:{one}")),
        "{gone}"
    );
    assert!(
        gone.contains("countersign.client.connection.dpm.addresses"),
        "{gone}"
    );
    assert!(gone.contains(" 4 tcp         WARN  "), "{gone}");
    assert!(!doctor.stdout.contains("FAIL"), "{}", doctor.stdout);
    assert!(!serving.contains("WARN"), "{serving}");
    for (port, exit) in [
        (format!("localhost:{other}"), 0),
        (format!("127.0.0.1:{one}"), 5),
    ] {
        let one_alone = format!("doctor --home dpe {addresses} --peer {port}");
        folder.run(&one_alone).exits(exit);
    }

    // Its order does not matter, and without any it is a failure.
    let reversed = format!(
        "--set countersign.client.connection.dpm.addresses=localhost:{other},127.0.0.1:{one}"
    );
    let doctor = folder.run(&format!("doctor --home dpe {reversed} -o json"));
    let report = doctor.exits(0).json();
    assert_eq!(report["healthy"], true);
    assert_eq!(report["peers"][1]["layers"][1]["state"], "warn");
    second.signal("-KILL");
    second.child.wait().unwrap();
    for all_down in [&addresses, &reversed] {
        let doctor = folder.run(&format!("doctor --home dpe {all_down}"));
        let report = doctor.exits(5).stdout;
        assert!(report.contains(" 4 tcp         FAIL  "), "{report}");
    }
}

#[test]
fn addresses_stay_where_the_two_modules_are_paired_again() {
    let folder = replicated();
    let file = "dpe/etc/application.properties";
    let lines = "countersign.client.connection.dpm.addresses=dpm-1:8600,dpm-2:8600\n";
    folder.write(file, folder.read(file) + lines);

    let pair = "pair dpm=dpm dpe=dpe --address dpm=dpm-1:8600 --address dpe=dpe-1 --tls --yes";
    folder.run(pair).exits(0);

    let text = folder.read(file);
    assert!(text.contains(lines), "{text}");
    assert!(
        !text.contains("ataccama.client.connection.dpm.host"),
        "{text}"
    );
    assert!(
        !text.contains("ataccama.client.connection.dpm.grpc.port"),
        "{text}"
    );
    folder.run("check dpm dpe").exits(0);
}
