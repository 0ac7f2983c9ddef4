//! A module as containers and services run it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::modules::{ANY_PORT, Running, paired};
use super::support::Folder;

const DPM: &str = "dpm/etc/application.properties";
const KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

/// A user that the system does not know.
const UNKNOWN: u32 = 12_345;

/// Returns `true` if this user may make namespaces and become another user.
fn is_root() -> bool {
    let unshare = Command::new("unshare").args(["--mount", "true"]).status();
    let is_root = unshare.is_ok_and(|status| status.success());
    let required = std::env::var_os("COUNTERSIGN_REQUIRE_PEERS");
    assert!(is_root || required.is_none(), "cannot make a namespace");
    is_root
}

/// Runs `script` in `folder`, with the program and its arguments as `"$@"`, in namespaces of its own.
fn isolated(folder: &Folder, namespaces: &str, script: &str, arguments: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(namespaces.split(' '))
        .args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_countersign")])
        .args(arguments.split(' '))
        .current_dir(folder.path(""));
    command
}

/// Runs the DPM of `folder` as a user without a name, a home folder and a terminal.
fn as_unknown(folder: &Folder, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command
        .args(arguments.split(' '))
        .current_dir(folder.path(""))
        .env_clear()
        .stdin(Stdio::null())
        .uid(UNKNOWN)
        .gid(UNKNOWN);
    command
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Gives what is in the home of the DPM to the unknown user.
fn give(folder: &Folder) {
    allow(&folder.path(""), 0o755);
    let owner = format!("{UNKNOWN}:{UNKNOWN}");
    let given = Command::new("chown")
        .args(["-R", &owner])
        .arg(folder.path("dpm"))
        .status();
    assert!(given.unwrap().success());
}

fn run() -> String {
    format!("dpm run --home dpm {ANY_PORT}")
}

/// Waits until it has started, ends it and checks that it ended well.
fn starts_and_ends(command: Command) {
    let mut module = Running::of(command);
    module.until(" startup ");
    module.signal("-TERM");
    assert_eq!(module.child.wait().unwrap().code(), Some(0));
}

#[test]
fn module_runs_with_a_read_only_root_and_a_volume_for_its_home() {
    if !is_root() {
        return;
    }
    let folder = paired();
    // As a volume is for a container: anyone may write there. The settings are a mount of their own.
    let settings = folder.path("settings");
    fs::rename(folder.path("dpm/etc"), settings).unwrap();
    fs::create_dir(folder.path("dpm/etc")).unwrap();
    allow(&folder.path("dpm"), 0o777);
    let script = "mount --bind dpm dpm && mount --bind settings dpm/etc && \
                  mount -o remount,bind,ro settings dpm/etc && \
                  mount -o remount,bind,ro / && ! touch \"$0\" ../x 2>/dev/null && \
                  ! touch dpm/etc/x 2>/dev/null && exec \"$@\"";

    starts_and_ends(isolated(&folder, "--mount", script, &run()));

    assert_eq!(folder.names("dpm"), ["etc", "log", "storage"]);
}

#[test]
fn module_runs_as_a_user_without_a_name_a_home_folder_and_a_terminal() {
    if !is_root() {
        return;
    }
    let folder = paired();
    give(&folder);

    starts_and_ends(as_unknown(&folder, &run()));
}

#[test]
fn first_process_of_a_container_ends_at_sigterm() {
    if !is_root() {
        return;
    }
    let folder = paired();
    let script = "test $$ = 1 && exec \"$@\"";
    let namespaces = "--mount --pid --fork --kill-child";
    let mut module = Running::of(isolated(&folder, namespaces, script, &run()));
    module.until(" startup ");

    let parent = module.child.id();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let first = children.unwrap().trim().to_owned();
    let sent = Command::new("kill").args(["-TERM", &first]).status();

    assert!(sent.unwrap().success());
    module.until(" shutdown ");
    assert_eq!(module.child.wait().unwrap().code(), Some(0));
}

/// Lays `files` out as the kubelet does: each leads through `..data` to a folder of one version.
fn mounted(folder: &Folder, mount: &str, version: &str, files: &[(&str, &str)]) {
    for (name, text) in files {
        folder.write(&format!("{mount}/{version}/{name}"), text);
        let link = folder.path(&format!("{mount}/{name}"));
        let _ = symlink(format!("..data/{name}"), link);
    }
    let next = folder.path(&format!("{mount}/..data_tmp"));
    symlink(version, &next).unwrap();
    fs::rename(next, folder.path(&format!("{mount}/..data"))).unwrap();
}

/// Takes the line with the own key out of the settings of the DPM; returns the rest and the key.
fn without_key(folder: &Folder) -> (String, String) {
    let text = folder.read(DPM);
    let (own, rest): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with(KEY));
    let (_, key) = own[0].split_once('=').unwrap();
    (rest.join("\n") + "\n", key.to_owned())
}

#[test]
fn settings_of_a_config_map_with_the_key_in_a_secret_are_read_and_followed() {
    let folder = paired();
    let (rest, key) = without_key(&folder);
    fs::remove_dir_all(folder.path("dpm/etc")).unwrap();
    let secret = folder.path("secret");
    let import = format!("spring.config.import=configtree:{}/\n", secret.display());
    let settings = |more: &str| import.clone() + &rest + more;
    mounted(&folder, "secret", "..1", &[(KEY, &key)]);
    let first = settings("");
    mounted(
        &folder,
        "dpm/etc",
        "..1",
        &[("application.properties", &first)],
    );

    let mut module = Running::start(&folder, &run());
    module.until(" startup ");
    let revoked = "ataccama.one.platform.deployments.dpe-dev.security.jwt-keys.key.is-revoked";
    let next = settings("").replace(&format!("{revoked}=false"), &format!("{revoked}=true"));
    mounted(
        &folder,
        "dpm/etc",
        "..2",
        &[("application.properties", &next)],
    );

    module.until(" keyRevoked ");
}

#[test]
fn private_key_may_be_in_a_variable() {
    let folder = paired();
    let (rest, key) = without_key(&folder);
    folder.write(DPM, rest);

    let name = "ATACCAMA_AUTHENTICATION_INTERNAL_JWT_GENERATOR_KEY";
    let mut module = Running::start_with(&folder, &run(), [(name, &key)]);

    module.until(" startup ");
}

#[test]
fn folder_that_keeps_a_module_from_starting_is_named_with_user_mode_and_way_out() {
    if !is_root() {
        return;
    }
    let folder = paired();
    give(&folder);
    for name in ["storage", "log"] {
        let place = format!("dpm/{name}");
        fs::create_dir(folder.path(&place)).unwrap();
        for mode in [0o755, 0o700] {
            allow(&folder.path(&place), mode);
            let refused = as_unknown(&folder, &run()).output().unwrap();

            let said = String::from_utf8_lossy(&refused.stderr);
            let expected = format!(
                "permission denied to user {UNKNOWN}: `{place}` belongs to user 0 and group 0 and \
                 has mode {mode:04o}; give user {UNKNOWN} access, or run as the owner\n"
            );
            assert_eq!(refused.status.code(), Some(3), "{said}");
            assert!(said.ends_with(&expected), "{said}");
        }
        fs::remove_dir(folder.path(&place)).unwrap();
    }

    allow(&folder.path("dpm/etc"), 0o555);
    let refused = as_unknown(&folder, "revoke --file dpm --deployment dpe-dev --yes").output();
    let said = refused.unwrap().stderr;
    let expected = format!(
        "cannot write `{DPM}`: permission denied to user {UNKNOWN}: `dpm/etc` belongs to user \
         {UNKNOWN} and group {UNKNOWN} and has mode 0555; "
    );
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains(&expected), "{said}");

    let script = "mount --bind dpm dpm && mount -o remount,bind,ro dpm && exec \"$@\"";
    let refused = isolated(&folder, "--mount", script, &run())
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&refused.stderr);
    let expected =
        "`dpm/storage/lock` is on a read-only file system; mount a volume that user 0 may write\n";
    assert!(said.ends_with(expected), "{said}");
}

#[test]
fn volume_that_all_may_write_is_to_be_mounted_at_the_home() {
    let folder = paired();
    fs::create_dir(folder.path("dpm/storage")).unwrap();
    allow(&folder.path("dpm/storage"), 0o777);

    let refused = folder.run(&run()).exits(3);

    assert!(
        refused.stderr.contains("countersign explain CS0108"),
        "{refused:#?}"
    );
    let explained = folder.run("explain CS0108").exits(0);
    assert!(
        explained.stdout.contains("Mount it at the module's home"),
        "{explained:#?}"
    );
}
