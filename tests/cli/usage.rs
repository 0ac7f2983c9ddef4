//! What holds for every command.

use std::io::Read as _;

use super::support::{Folder, command};

#[test]
fn no_command_is_a_wrong_use_with_the_list_of_commands() {
    let run = Folder::new().run("").exits(2);

    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("Exit codes:"), "{}", run.stderr);
}

#[test]
fn exit_codes_and_the_default_of_timeout_are_those_of_the_contract() {
    let folder = Folder::new();

    let help = folder.run("--help").exits(0).stdout;

    for line in [
        "  5   the peer cannot be reached, or does not speak gRPC\n",
        "  130, 143  ended by SIGINT or SIGTERM before it finished\n",
    ] {
        assert!(help.contains(line), "{help}");
    }
    for command in ["rotate run", "revoke"] {
        let help = folder.run(&format!("{command} --help")).exits(0).stdout;
        assert!(help.contains("[default: 60]"), "{help}");
    }
}

#[test]
fn help_and_version_are_answers() {
    let folder = Folder::new();

    assert!(
        folder
            .run("--help")
            .exits(0)
            .stdout
            .contains("Usage: countersign")
    );
    assert!(
        folder
            .run("--version")
            .exits(0)
            .stdout
            .starts_with("countersign ")
    );
    assert!(
        folder
            .run("key gen --help")
            .exits(0)
            .stdout
            .contains("Examples:")
    );
}

#[test]
fn a_misspelt_command_names_the_nearest() {
    let run = Folder::new().run("key fingerprnt x").exits(2);

    assert!(run.stderr.contains("fingerprint"), "{}", run.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = Folder::new();
    let mut child = command(&folder.path(""))
        .args(["explain", "CS0201"])
        .spawn()
        .unwrap();
    drop(child.stdout.take());

    let code = child.wait().unwrap().code();

    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn exit_code_of_check_does_not_hang_on_the_reader() {
    let folder = Folder::new();
    folder.write("x.properties", "ataccama.server.grpc.port=no\n");
    let mut child = command(&folder.path(""))
        .args(["check", "x.properties"])
        .spawn()
        .unwrap();
    drop(child.stdout.take());

    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn findings_that_are_the_answer_have_colours_when_asked_for() {
    let folder = Folder::new();
    folder.write("x.properties", "ataccama.server.grpc.port=no\n");

    let plain = folder.run("check x.properties").exits(1);
    let coloured = folder.run("check --color always x.properties").exits(1);

    assert!(!plain.stdout.contains('\u{1b}'), "{}", plain.stdout);
    assert!(coloured.stdout.contains("\u{1b}["), "{}", coloured.stdout);
}

#[test]
fn colours_appear_only_when_asked_for_or_on_a_terminal() {
    let folder = Folder::new();

    let plain = folder.run("key fingerprint missing").exits(3);
    let coloured = folder
        .run("key fingerprint missing --color always")
        .exits(3);

    assert!(plain.stderr.starts_with("error: "), "{}", plain.stderr);
    assert!(
        coloured.stderr.starts_with("\u{1b}[31;1merror:\u{1b}[0m "),
        "{}",
        coloured.stderr
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_once_with_its_cause() {
    let folder = Folder::new();
    folder.write("file", "");
    for command in [
        "check nowhere",
        "deployment add name --home nowhere --module dpe --public-key key",
        "deployment list --home nowhere",
        "deployment remove name --home nowhere",
        "dpm run --home nowhere",
        "pair --one-side dpm=file/x.properties",
        "revoke --home nowhere --fingerprint x --yes",
        "rotate status --home nowhere --peer-file other",
        "token verify --home nowhere",
    ] {
        let run = folder.run(command).exits(3);
        let named = run.stderr.matches("cannot read `").count();
        let causes =
            run.stderr.matches("no such file").count() + run.stderr.matches("directory").count();
        assert_eq!((named, causes), (1, 1), "{command}: {run:?}");
    }
}
