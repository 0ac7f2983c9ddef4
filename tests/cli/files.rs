//! What the binary does to files and folders: their rights, mount points, links and pipes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::modules::{ANY_PORT, Running};
use super::revoke::{DPE, DPM};
use super::support::{Folder, mode};

fn paired() -> Folder {
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    folder
}

#[test]
fn a_mount_point_is_written_in_place_and_the_command_says_so() {
    let folder = paired();
    let copy = folder.path("real.properties");
    fs::copy(folder.path(DPM), &copy).unwrap();
    let script = "mount --bind real.properties dpm/etc/application.properties || exit 99; \
                  exec \"$0\" revoke --home dpm --deployment dpe-dev --yes";
    let ended = Command::new("unshare")
        .args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_countersign")])
        .current_dir(folder.path(""))
        .output();
    let output = match ended {
        Ok(output) if output.status.code() != Some(99) && output.status.code() != Some(1) => output,
        other => {
            println!("skipped: nothing can be mounted here: {other:?}");
            return;
        }
    };

    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(shown.contains("written in place"), "{shown}");
    let text = fs::read_to_string(copy).unwrap();
    assert!(text.contains("is-revoked=true"), "{text}");
    assert!(folder.read(DPM).contains("is-revoked=false"));
}

#[test]
fn umask_000_opens_nothing() {
    let folder = Folder::new();
    let script = format!("umask 000; exec \"$0\" pair dpm={DPM} dpe={DPE}");
    let status = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_countersign")])
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");

    let run = format!("umask 000; exec \"$0\" dpm run --home dpm {ANY_PORT}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &run, env!("CARGO_BIN_EXE_countersign")]);
    shell.current_dir(folder.path(""));
    let mut dpm = Running::of(shell);
    dpm.until(" startup ");

    for name in ["dpm", "dpm/etc", "dpm/log", "dpm/storage", "dpe", "dpe/etc"] {
        assert_eq!(mode(&folder.path(name)) & 0o027, 0, "{name}");
    }
    for (path, _) in folder.files() {
        let closed = if path.starts_with(folder.path("dpm/log")) {
            0o027
        } else {
            0o077
        };
        assert_eq!(mode(&path) & closed, 0, "{}", path.display());
    }
}

#[test]
fn check_names_a_folder_that_others_may_write() {
    let folder = paired();
    let open = |name: &str, mode| {
        fs::create_dir_all(folder.path(name)).unwrap();
        fs::set_permissions(folder.path(name), Permissions::from_mode(mode)).unwrap();
    };
    for (name, mode, code, severity) in [
        ("dpm/etc", 0o777, 1, "error"),
        ("dpm/etc", 0o770, 1, "error"),
        ("dpm/storage", 0o777, 1, "error"),
        ("dpm/log", 0o777, 0, "warning"),
    ] {
        open(name, mode);
        let run = folder.run(&format!("check {DPM}")).exits(code);
        assert!(
            run.stdout.contains(&format!("{severity}[CS0108]")),
            "{run:?}"
        );
        assert!(
            run.stdout.contains(&format!("chmod go-w {name}")),
            "{run:?}"
        );
        open(name, 0o1777);
        folder.run(&format!("check {DPM}")).exits(0);
        open(name, 0o750);
    }
}

#[test]
fn a_link_in_storage_is_refused_and_its_target_is_untouched() {
    let folder = paired();
    folder.write("other", "kept");
    folder.write("dpe/storage/x", "");
    symlink(folder.path("other"), folder.path("dpe/storage/lock")).unwrap();

    let run = folder.run("dpe run --home dpe").exits(3);

    assert!(run.stderr.contains("symbolic link"), "{run:?}");
    assert!(run.stderr.contains("storage/lock"), "{run:?}");
    assert_eq!(folder.read("other"), "kept");
}

#[test]
fn last_weeks_file_is_refused_its_revoked_key_by_check_and_start_and_pairing() {
    let folder = paired();
    let last_week = folder.read(DPM);
    let revoke = "--home dpm --deployment dpe-dev --key key --yes";
    folder.run(&format!("revoke {revoke}")).exits(0);
    assert_eq!(mode(&folder.path("dpm/storage/revoked-keys")), 0o600);
    folder.write(DPM, last_week);

    let check = folder.run(&format!("check {DPM}")).exits(1);
    assert!(check.stdout.contains("error[CS0210]"), "{check:?}");
    let doctor = folder.run("doctor --home dpm").exits(3);
    assert!(doctor.stdout.contains("CS0210"), "{doctor:?}");
    let list = folder.run("deployment list --home dpm -o json").json();
    let key = &list["deployments"][0]["keys"][0];
    assert_eq!(key["revoked"], true, "{list}");
    let pair = folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(1);
    let fingerprint = key["fingerprint"].as_str().unwrap();
    // One in 64 begins with a dash, which would be an option.
    let joint = if fingerprint.starts_with('-') {
        '='
    } else {
        ' '
    };
    let remedy = format!("revoke --undo --home {DPM} --fingerprint{joint}{fingerprint}");
    assert!(
        pair.stderr.contains(&format!("countersign {remedy}")),
        "{pair:?}"
    );

    let undone = folder.run(&format!("{remedy} --yes")).exits(0);
    assert!(undone.stderr.contains("trusts again"), "{undone:?}");
    folder.run(&format!("check {DPM}")).exits(0);
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);
    // Taken back and lost again, then for a key that the file does not have any more.
    folder.run(&format!("revoke {revoke}")).exits(0);
    folder
        .run("deployment remove dpe-dev --home dpm --yes")
        .exits(0);
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(1);
    folder.run(&format!("{remedy} --yes")).exits(0);
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);
}

#[test]
fn a_finished_rotation_is_remembered_and_a_file_without_a_home_says_that_it_is_not() {
    let folder = paired();
    let files = "--home dpe --peer-file dpm --yes";
    folder.run(&format!("rotate run {files} --now --timeout 1"));
    let memory = folder.read("dpm/storage/revoked-keys");
    assert_eq!(memory.lines().count(), 1, "{memory}");
    assert!(memory.starts_with("revoked "), "{memory}");
    fs::copy(folder.path(DPM), folder.path("loose.properties")).unwrap();

    let run = folder.run("revoke --home loose.properties --deployment dpe-dev --yes");

    assert!(run.stderr.contains("in no module's home"), "{run:?}");
}

#[test]
fn no_core_dump_holds_a_key() {
    let folder = paired();
    let mut dpm = Running::start(
        &folder,
        "dpm run --home dpm --set server.port=0 --set ataccama.server.grpc.port=0",
    );
    dpm.until("startup");

    let limits = fs::read_to_string(format!("/proc/{}/limits", dpm.child.id())).unwrap();

    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    // A process that dumps nothing belongs to root here.
    let memory = fs::metadata(format!("/proc/{}/mem", dpm.child.id())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&memory), 0);
}

#[test]
fn who_can_no_longer_read_a_file_that_gets_a_key_is_said() {
    let folder = Folder::new();
    folder.write(DPM, "# mine\n");
    fs::set_permissions(folder.path(DPM), Permissions::from_mode(0o644)).unwrap();

    let run = folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);

    let expected = format!("only the owner and the group of `{DPM}` can read it then");
    assert!(run.stderr.contains(&expected), "{run:?}");
    assert_eq!(mode(&folder.path(DPM)), 0o640);
}
