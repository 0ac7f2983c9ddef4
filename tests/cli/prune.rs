//! `countersign deployment prune`.

use std::fs;

use super::modules::{ANY_PORT, Running};
use super::support::Folder;

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";
const MEMORY: &str = "dpm/storage/revoked-keys";
const PRUNE: &str = "deployment prune --home dpm";

/// Pairs a DPM and an engine, whose key is changed; returns a token of the old one.
fn rotated() -> (Folder, String) {
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    let issue = "token issue --home dpe --audience dpm-dev";
    let token = folder.run(issue).exits(0).stdout;
    let rotate = "rotate run --file dpe --peer-file dpm --offline --now --yes";
    folder.run(rotate).exits(0);
    (folder, token)
}

#[test]
fn revoked_key_is_removed_after_the_home_remembers_it_and_no_old_file_brings_it_back() {
    let (folder, token) = rotated();
    let old = folder.read(DPM);
    // Revoked by hand: no memory has it.
    fs::remove_file(folder.path(MEMORY)).unwrap();

    let dry = folder.run(&format!("{PRUNE} --dry-run")).exits(0);
    let unasked = folder.run(PRUNE).exits(2);
    assert_eq!(folder.read(DPM), old);
    assert!(!folder.path(MEMORY).exists());
    let run = folder.run(&format!("{PRUNE} --yes -o json")).exits(0);
    let again = folder.run(&format!("{PRUNE} --yes")).exits(0);

    let what = "removed  `key` of dpe-dev: ";
    assert!(dry.stdout.starts_with(what), "{dry:#?}");
    assert!(unasked.stderr.starts_with(what), "{unasked:#?}");
    let report = run.json();
    assert_eq!(report["written"], true);
    assert_eq!(report["keys"][0]["key"], "key");
    let key = report["keys"][0]["fingerprint"].as_str().unwrap();
    let text = folder.read(DPM);
    assert!(
        !text.contains(key) && !text.contains(".jwt-keys.key."),
        "{text}"
    );
    assert_eq!(text.lines().count(), old.lines().count() - 3);
    assert!(folder.read(MEMORY).starts_with(&format!("revoked {key} ")));
    assert_eq!(again.stdout, "nothing to do\n");
    folder.run(&format!("check {DPM} {DPE}")).exits(0);

    folder.write(DPM, old.replace("is-revoked=true", "is-revoked=false"));
    let verify = "token explain --home dpm -o json";
    let explained = folder.run_with(verify, token.as_bytes()).exits(1);
    assert_eq!(explained.json()["reason"], "KEY_REVOKED");
    // Trusted again, it is remembered, and removed.
    folder.run(&format!("{PRUNE} --yes")).exits(0);
    assert_eq!(folder.read(DPM), text);
}

#[test]
fn last_key_of_a_deployment_is_kept() {
    let (folder, _) = rotated();
    folder
        .run("revoke --file dpm --deployment dpe-dev --yes")
        .exits(0);

    let run = folder.run(&format!("{PRUNE} --yes")).exits(0);
    let text = folder.read(DPM);
    let again = folder.run(&format!("{PRUNE} --yes -o json")).exits(0);

    assert!(
        run.stdout.contains("removed  `key` of dpe-dev: "),
        "{run:#?}"
    );
    assert!(
        run.stdout.contains("kept     `key2` of dpe-dev: "),
        "{run:#?}"
    );
    assert!(text.contains(".jwt-keys.key2.is-revoked=true"), "{text}");
    let report = again.json();
    assert_eq!(
        (&report["written"], &report["kept"][0]["key"]),
        (&false.into(), &"key2".into())
    );
    assert_eq!(folder.read(DPM), text);
}

#[test]
fn key_that_cannot_be_remembered_is_not_removed() {
    let (folder, _) = rotated();
    fs::remove_file(folder.path(MEMORY)).unwrap();
    let lock = folder.path("dpm/storage/revoked-keys.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let text = folder.read(DPM);

    let run = folder.run(&format!("{PRUNE} --yes")).exits(3);

    assert!(run.stderr.contains("storage/revoked-keys"), "{run:#?}");
    assert_eq!(folder.read(DPM), text);
    // A file outside of a home has no memory.
    folder.write("alone.properties", &text);
    let run = folder
        .run("deployment prune --home alone.properties --yes")
        .exits(1);
    assert!(run.stderr.contains("is in no module's home"), "{run:#?}");
    assert_eq!(folder.read("alone.properties"), text);
}

#[test]
fn keys_are_removed_while_the_module_runs() {
    let (folder, _) = rotated();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();

    folder.run(&format!("{PRUNE} --yes")).exits(0);

    let line = dpm.until("configReloaded");
    assert!(line.contains("of dpe-dev removed"), "{line}");
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    let _dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
    dpm.until("newStatus=READY");
}

#[test]
fn next_key_that_was_revoked_and_removed_is_not_trusted_again() {
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    let rotate =
        |step: &str| folder.run(&format!("rotate {step} --file dpe --peer-file dpm --yes"));
    rotate("prepare").exits(0);
    folder
        .run("revoke --file dpm --deployment dpe-dev --key key2 --yes")
        .exits(0);
    folder.run(&format!("{PRUNE} --yes")).exits(0);
    let text = folder.read(DPM);

    let refused = rotate("prepare").exits(1);

    assert!(
        refused.stderr.contains("has revoked the next key"),
        "{refused:#?}"
    );
    assert_eq!(folder.read(DPM), text);
    rotate("abort").exits(0);
    rotate("run --offline --now").exits(0);
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}
