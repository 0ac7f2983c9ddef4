//! Replicas: copies of one module's files, which share its key.

use std::fs;

use super::support::{Folder, Run};

const REPLICAS: [&str; 2] = [
    "dpm/etc/application.properties",
    "dpm2/etc/application.properties",
];
const DPE: &str = "dpe/etc/application.properties";
const FILES: &str = "--file dpm --file dpm2 --peer-file dpe --yes";

/// A pair whose DPM has a replica in the folder `dpm2`: the same file, with a storage of its own.
fn replicated() -> Folder {
    let folder = Folder::new();
    folder.run("pair dpm=dpm dpe=dpe").exits(0);
    fs::create_dir_all(folder.path("dpm2/etc")).unwrap();
    let [first, second] = REPLICAS.map(|file| folder.path(file));
    fs::copy(first, second).unwrap();
    folder
}

fn rotate(folder: &Folder, step: &str) -> Run {
    folder.run(&format!("rotate {step} {FILES}"))
}

fn texts(folder: &Folder) -> [String; 3] {
    [REPLICAS[0], REPLICAS[1], DPE].map(|file| folder.read(file))
}

/// Checks that the replicas' files are one, and that the engine's trusts their key.
#[track_caller]
fn agree(folder: &Folder) {
    let [first, second, _] = texts(folder);
    assert_eq!(first, second);
    let check = format!("check {} {DPE}", REPLICAS[1]);
    folder.run(&check).exits(0);
}

#[test]
fn each_step_of_a_rotation_writes_the_files_of_all_replicas() {
    let folder = replicated();
    let mut before = texts(&folder);
    for step in [
        "prepare",
        "abort",
        "prepare",
        "activate --offline",
        "finish --now --offline",
        "replace",
    ] {
        let run = rotate(&folder, step).exits(0);

        agree(&folder);
        let after = texts(&folder);
        assert_ne!(after[0], before[0], "{step}");
        before = after;
        if let Some((_, next)) = run.stdout.split_once("next    countersign rotate ") {
            assert!(next.contains("--home dpm --home dpm2 "), "{next}");
        }
    }
}

#[test]
fn run_takes_all_replicas_through_all_steps() {
    let folder = replicated();
    let [before, ..] = texts(&folder);

    rotate(&folder, "run --now --offline").exits(0);

    agree(&folder);
    let [after, ..] = texts(&folder);
    assert_ne!(after, before);
    assert!(!after.contains("countersign.rotation."), "{after}");
}

#[test]
fn step_that_was_cut_off_between_two_replicas_is_completed() {
    for missed in REPLICAS {
        let folder = replicated();
        for step in ["prepare", "abort", "prepare", "activate --offline"] {
            let before = folder.read(missed);
            rotate(&folder, step).exits(0);
            folder.write(missed, before);

            rotate(&folder, step).exits(0);

            agree(&folder);
        }
        let before = folder.read(missed);
        rotate(&folder, "finish --now --offline").exits(0);
        folder.write(missed, before);
        rotate(&folder, "finish --now --offline").exits(0);
        agree(&folder);
    }
}

#[test]
fn next_key_with_which_a_replica_signs_is_not_aborted() {
    for missed in REPLICAS {
        let folder = replicated();
        rotate(&folder, "prepare").exits(0);
        let before = folder.read(missed);
        rotate(&folder, "activate --offline").exits(0);
        folder.write(missed, before);
        let files = texts(&folder);

        let abort = folder.run("rotate abort --file dpm --file dpm2 --one-side --yes");

        let abort = abort.exits(1);
        assert!(abort.stderr.contains("rotate activate"), "{}", abort.stderr);
        assert_eq!(texts(&folder), files);
    }
}

#[test]
fn files_that_differ_in_keys_are_no_replicas_and_nothing_is_written() {
    let name = "countersign.deployment.name=";
    for (change, what) in [
        ("the own key", "another key"),
        ("a next key", "another next key"),
        ("the name", "another `countersign.deployment.name`"),
        ("a trusted key", "other trusted keys"),
    ] {
        let folder = replicated();
        match change {
            "the own key" => {
                let other = Folder::new();
                other.run("pair dpm=dpm dpe=dpe").exits(0);
                folder.write(REPLICAS[1], other.read(REPLICAS[0]));
            }
            "a next key" => {
                for home in ["dpm", "dpm2"] {
                    let alone = format!("rotate prepare --file {home} --peer-file dpe --yes");
                    folder.run(&alone).exits(0);
                }
            }
            "the name" => {
                let text = folder.read(REPLICAS[1]);
                folder.write(REPLICAS[1], text.replace(name, &format!("{name}other-")));
            }
            _ => {
                let revoke = "revoke --file dpm2 --deployment dpe-dev --yes";
                folder.run(revoke).exits(0);
            }
        }
        let before = texts(&folder);
        for step in ["prepare", "activate", "finish", "abort", "run", "replace"] {
            let refused = rotate(&folder, step).exits(1);

            assert!(refused.stderr.contains(what), "{what}: {}", refused.stderr);
            assert_eq!(texts(&folder), before, "{step}");
        }
    }
}

#[test]
fn replica_is_named_once_and_each_has_a_certificate_of_its_own() {
    let folder = replicated();

    let twice = folder.run("rotate prepare --file dpm --file dpm --peer-file dpe --yes");
    let tls = rotate(&folder, "tls");

    let twice = twice.exits(2);
    assert!(twice.stderr.contains("named twice"), "{}", twice.stderr);
    let tls = tls.exits(2);
    assert!(
        tls.stderr.contains("one replica at a time"),
        "{}",
        tls.stderr
    );
}
