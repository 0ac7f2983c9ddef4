//! What `doctor` prints to fix a world does fix it.

use std::process::Command;

use super::super::examples::shell;
use super::super::free_port::free_port;
use super::super::modules::{ANY_PORT, Running, paired};
use super::super::support::{Folder, Run};
use super::{DPE, DPM, World, fails, has_faketime, says, without};

/// The layer of the first engine that failed, as the DPM's doctor reports it.
#[track_caller]
fn failed_at_engine(world: &World, own: &str, code: i32) -> serde_json::Value {
    let run = world.doctor("dpm", own).exits(code);
    let layers = run.json()["peers"][1]["layers"].clone();
    let mut layers = layers.as_array().unwrap().iter();
    let failed = layers.find(|row| row["state"] == "fail");
    failed.unwrap_or_else(|| panic!("{run:#?}")).clone()
}

impl World {
    /// Starts an engine, and waits until it is READY; returns how the DPM's doctor finds the DPM.
    fn with_engine(&mut self) -> (Running, String) {
        let dpe = format!("dpe run --home dpe {ANY_PORT} {}", self.to_dpm);
        let dpe = Running::start(&self.folder, &dpe);
        self.dpm.until("newStatus=READY");
        let port = self.to_dpm.rsplit('=').next().unwrap();
        (dpe, format!("--set ataccama.server.grpc.port={port}"))
    }
}

#[test]
fn engine_whose_deployment_is_trusted_no_more_is_token_and_the_printed_pair_fixes_it() {
    let mut world = World::new();
    let (_dpe, own) = world.with_engine();
    without(&world.folder, DPM, "deployments.dpe-dev");
    world.dpm.until("configReloaded");

    let failed = failed_at_engine(&world, &own, 4);

    assert_eq!(
        (&failed["layer"], &failed["side"]),
        (&"token".into(), &"here".into())
    );
    says(
        &failed["detail"].to_string(),
        &["no trusted deployment is called `dpe-dev`"],
    );
    let printed = format!("countersign pair --one-side dpm={DPM} > offer.block");
    says(
        &failed["help"].to_string(),
        &[&printed, "countersign deployment add dpe-dev"],
    );
    world
        .folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);
    // The engine may be dialled before the reload is logged.
    world.dpm.until_each(["configReloaded", "newStatus=READY"]);
    world.doctor("dpm", &own).exits(0);
}

#[test]
fn role_that_the_dpm_does_not_give_its_engine_is_a_line_in_the_dpms_file() {
    let mut world = World::new();
    let (_dpe, own) = world.with_engine();
    let whole = world.folder.read(DPM);
    without(&world.folder, DPM, "deployments.dpe-dev.security.roles");
    world.dpm.until("engineCheckFailed");

    let failed = failed_at_engine(&world, &own, 4);

    let line = "ataccama.one.platform.deployments.dpe-dev.security.roles[0]=IMPERSONATION";
    assert_eq!(
        (&failed["layer"], &failed["side"]),
        (&"way back".into(), &"here".into())
    );
    assert_eq!(
        failed["help"],
        serde_json::json!([format!("write into {DPM}: {line}")])
    );
    assert!(whole.contains(line));
    world
        .folder
        .write(DPM, world.folder.read(DPM) + line + "\n");
    world.dpm.until("newStatus=READY");
    world.doctor("dpm", &own).exits(0);
}

#[test]
fn role_that_an_engine_does_not_give_its_dpm_is_a_line_in_the_engines_file() {
    let mut world = World::new();
    let (_dpe, _) = world.with_engine();
    without(&world.folder, DPE, "deployments.dpm-dev.security.roles");
    world.dpm.until("engineCheckFailed");

    let failure = fails(world.doctor("dpe", ""), "way back", "here", 4);

    let line = "ataccama.one.platform.deployments.dpm-dev.security.roles[0]=IMPERSONATION";
    says(&failure, &[&format!("write into {DPE}: {line}")]);
    world
        .folder
        .write(DPE, world.folder.read(DPE) + line + "\n");
    world.dpm.until("newStatus=READY");
    world.doctor("dpe", "").exits(0);
}

#[test]
fn engine_that_was_killed_is_to_be_started() {
    let mut world = World::new();
    let port = free_port();
    let own = format!("--set ataccama.server.grpc.port={port} --set server.port=0");
    let start = format!("dpe run --home dpe {own} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &start);
    world.dpm.until("newStatus=READY");
    dpe.child.kill().unwrap();
    let _ = dpe.child.wait();
    world.dpm.until("newStatus=DISCONNECTED");
    let doctor = format!("--set ataccama.server.grpc.port={port}");

    let failure = fails(world.doctor("dpe", &doctor), "way back", "here", 1);

    says(
        &failure,
        &["the engine does not run", "countersign dpe run --home dpe"],
    );
    let _dpe = Running::start(&world.folder, &start);
    world.dpm.until("newStatus=READY");
    world.doctor("dpe", &doctor).exits(0);
}

/// Two modules whose files name their ports.
fn with_ports() -> Folder {
    let folder = paired();
    let (dpm, dpe) = (free_port(), free_port());
    let port = |file: &str, lines: String| folder.write(file, folder.read(file) + &lines);
    port(
        DPM,
        format!("ataccama.server.grpc.port={dpm}\nserver.port=0\n"),
    );
    let to_dpm = format!("ataccama.client.connection.dpm.grpc.port={dpm}");
    port(
        DPE,
        format!("ataccama.server.grpc.port={dpe}\nserver.port=0\n{to_dpm}\n"),
    );
    folder
}

fn replace(folder: &Folder, file: &str, old: &str, new: &str) {
    let text = folder.read(file);
    assert!(text.contains(old), "{text}");
    folder.write(file, text.replace(old, new));
}

/// Carries out the command that `failure` prints, which begins as `start`.
#[track_caller]
fn carry_out(folder: &Folder, failure: &str, start: &str) -> Run {
    let (_, rest) = failure
        .split_once(start)
        .unwrap_or_else(|| panic!("{start} is not in {failure}"));
    let rest = rest.split(['"', '`', '\n', ';']).next().unwrap();
    let command = format!("{start}{rest} --yes");
    folder.run(command.strip_prefix("countersign ").unwrap())
}

/// Puts another key in the place of a module's own.
fn replace_key(folder: &Folder, file: &str) {
    folder.run("key gen --out new.jwk").exits(0);
    let new = folder.run("key export new.jwk --to base64").exits(0);
    let text = folder.read(file);
    let (before, rest) = text.split_once("generator.key=").unwrap();
    let (_, after) = rest.split_once('\n').unwrap();
    let new = new.stdout.trim();
    folder.write(file, format!("{before}generator.key={new}\n{after}"));
}

#[test]
fn revoked_key_is_replaced_by_the_rotation_that_is_printed() {
    let folder = with_ports();
    replace(&folder, DPM, "is-revoked=false", "is-revoked=true");
    let mut dpm = Running::start(&folder, "dpm run --home dpm --set server.port=0");
    dpm.until(" startup ");
    let mut dpe = Running::start(&folder, "dpe run --home dpe --set server.port=0");
    dpe.until(" registerRefused ");
    let rotate = format!("countersign rotate replace --home {DPE} --peer-file {DPM}");

    let failure = fails(folder.run("doctor --home dpe -o json"), "token", "peer", 4);
    let pair = folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(6);
    let check = folder.run(&format!("check {DPM} {DPE}")).exits(1);

    says(&failure, &[&rotate, "countersign revoke --undo --home dpm"]);
    says(&pair.stderr, &[&rotate, "countersign revoke --undo --home"]);
    says(&check.stdout, &[&rotate]);
    carry_out(&folder, &failure, "countersign rotate replace").exits(0);
    dpm.until("newStatus=READY");
    folder.run("doctor --home dpe").exits(0);
}

#[test]
fn peer_whose_every_key_is_revoked_here_is_fixed_by_the_rotation_that_is_printed() {
    let folder = with_ports();
    let mut dpm = Running::start(&folder, "dpm run --home dpm --set server.port=0");
    dpm.until(" startup ");
    let mut dpe = Running::start(&folder, "dpe run --home dpe --set server.port=0");
    dpm.until("newStatus=READY");
    replace(&folder, DPE, "is-revoked=false", "is-revoked=true");
    dpe.until(" registerRefused ");

    let failure = fails(folder.run("doctor --home dpe -o json"), "token", "here", 4);

    carry_out(&folder, &failure, "countersign rotate replace").exits(0);
    // For the DPM, which may not have looked meanwhile, it may have been READY all along.
    dpe.until("Engine registered");
    folder.run("doctor --home dpe").exits(0);
}

/// Returns the command of `failure` that begins as `start`.
#[track_caller]
fn printed(failure: &str, start: &str) -> String {
    let (_, rest) = failure.split_once(start).unwrap();
    let rest = rest.split(['"', '`', '\n', ';']).next().unwrap();
    format!("{start}{rest}")
}

#[test]
fn revoked_key_is_replaced_over_two_machines_by_the_commands_that_are_printed() {
    for is_own in [true, false] {
        let (here, there) = (with_ports(), Folder::new());
        let file = "etc/application.properties";
        there.write(file, here.read(DPM));
        std::fs::remove_dir_all(here.path("dpm")).unwrap();
        let (revoking, at) = if is_own { (&there, file) } else { (&here, DPE) };
        replace(revoking, at, "is-revoked=false", "is-revoked=true");
        let mut dpm = Running::start(&there, "dpm run --home .");
        dpm.until(" startup ");

        let side = if is_own { "peer" } else { "here" };
        let failure = fails(here.run("doctor --home dpe -o json"), "token", side, 4);

        let replaces = printed(&failure, "countersign rotate replace ");
        let accepts = printed(&failure, "countersign pair accept ");
        let (first, second) = if is_own {
            (&here, &there)
        } else {
            (&there, &here)
        };
        let run = shell(first, &replaces.replace(" > ", " --yes > ")).exits(0);
        let (_, block) = replaces.split_once(" > ").unwrap();
        second.write(block, first.read(block));
        let words = run.stderr.lines().find_map(|l| l.strip_prefix("words   "));
        let words = words.unwrap();
        shell(second, &format!("{accepts} --words '{words}' --yes")).exits(0);
        here.write(DPM, there.read(file));
        here.run(&format!("check {DPM} {DPE}")).exits(0);
    }
}

#[test]
fn key_that_was_replaced_is_trusted_beside_the_old_one_by_the_pair_that_is_printed() {
    for (file, reason) in [(DPE, "KEY_UNKNOWN"), (DPM, "AUDIENCE_MISMATCH")] {
        let world = World::of(paired(), "");
        let World { folder, dpm, .. } = world;
        drop(dpm);
        replace_key(&folder, file);
        let world = World::of(folder, "");

        let failure = fails(world.doctor("dpe", ""), "token", "between", 4);
        let check = world.folder.run(&format!("check {DPM} {DPE}")).exits(1);

        says(
            &failure,
            &[reason, "if it is the same module with another key"],
        );
        says(&check.stdout, &["--key-name key2"]);
        carry_out(&world.folder, &failure, "countersign pair").exits(0);
        world.folder.run(&format!("check {DPM} {DPE}")).exits(0);
    }
}

#[test]
fn engine_that_the_dpm_itself_refuses_is_not_to_be_started() {
    let mut world = World::new();
    replace_key(&world.folder, DPE);
    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let _dpe = Running::start(&world.folder, &dpe);
    world.dpm.until("authRejected");
    // Another thread writes the file.
    let log = "dpm/log/spring-boot-logger.json.log";
    while !world.folder.read(log).contains("authRejected") {
        std::thread::yield_now();
    }
    let port = world.to_dpm.rsplit('=').next().unwrap();
    let own = format!("--set ataccama.server.grpc.port={port}");

    let run = world.doctor("dpm", &own).exits(4);

    says(
        &run.stdout,
        &[
            "registered engines: 0; none of dpe-dev; this DPM itself refuses an engine: KEY_UNKNOWN, once in the last 2 minutes",
            "countersign explain --log dpm/log",
            "countersign pair --one-side dpm=dpm/etc/application.properties",
        ],
    );
    assert!(!run.stdout.contains("start the engine"), "{run:#?}");
}

#[test]
fn dpm_that_listens_on_loopback_only_is_not_taken_for_one_that_does_not_run() {
    let world = World::new();
    let port = world.to_dpm.rsplit('=').next().unwrap();
    let elsewhere = "--set ataccama.client.connection.dpm.host=127.0.0.2";

    let failure = fails(world.doctor("dpe", elsewhere), "tcp", "peer", 5);

    let command = format!("countersign pair dpm={DPM} dpe={DPE} --address dpm=127.0.0.2");
    says(
        &failure,
        &[
            &format!("listens on loopback only, at 127.0.0.1:{port}"),
            "`countersign.server.address` in its file",
            &command,
        ],
    );
    assert!(!failure.contains("dpm run"), "{failure}");
}

#[test]
fn own_name_that_the_other_file_does_not_have_is_fixed_by_the_line_that_is_printed() {
    let world = World::new();
    let folder = &world.folder;
    let (mine, theirs) = ("deployment.name=dpe-x", "deployment.name=dpe-dev");
    replace(folder, DPE, theirs, mine);

    let failure = fails(world.doctor("dpe", ""), "token", "between", 4);
    let pair = folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(6);

    let line = "countersign.deployment.name=dpe-dev";
    says(
        &failure,
        &["ISSUER_MISMATCH", &format!("write into {DPE}: {line}")],
    );
    says(
        &pair.stderr,
        &[&format!("write `{line}` into its own file")],
    );
    replace(folder, DPE, mine, theirs);
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn pin_of_another_certificate_is_fixed_by_the_pair_that_is_printed() {
    let folder = Folder::new();
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --tls"))
        .exits(0);
    let text = folder.read(DPE);
    let (before, rest) = text.split_once("tls-keys.key.fingerprint=").unwrap();
    let (_, after) = rest.split_once('\n').unwrap();
    let wrong = "vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI";
    folder.write(
        DPE,
        format!("{before}tls-keys.key.fingerprint={wrong}\n{after}"),
    );
    let world = World::of(folder, "");

    let failure = fails(world.doctor("dpe", ""), "tls", "between", 5);

    says(&failure, &["--tls --key-name key2"]);
    carry_out(&world.folder, &failure, "countersign pair").exits(0);
    world.doctor("dpe", "").exits(1);
}

#[test]
fn engine_whose_clock_is_off_gets_the_fix_for_a_clock() {
    if !has_faketime() {
        return;
    }
    let mut world = World::new();
    // Ending the program `faketime` leaves what it started running: only its library is used.
    let library = Command::new("faketime")
        .args(["-f", "-100s", "printenv", "LD_PRELOAD"])
        .output();
    let library = String::from_utf8(library.unwrap().stdout).unwrap();
    let slow = [
        ("LD_PRELOAD", library.trim()),
        ("FAKETIME", "-100s"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let dpe = format!("dpe run --home dpe {ANY_PORT} {}", world.to_dpm);
    let _dpe = Running::start_with(&world.folder, &dpe, slow);

    let line = world.dpm.until("engineCheckFailed");

    says(
        &line,
        &["PROOF_INVALID", "The clocks of the two modules differ"],
    );
    assert!(!line.contains("another module"), "{line}");
    world.dpm.stop();
    let explained = world.folder.run("explain --log dpm/log").exits(0).stdout;
    says(&explained, &["Check NTP on"]);
    assert!(!explained.contains("What answered is not"), "{explained}");
}
