//! What holds for every command.

use std::io::Read as _;

use serde_json::Value;

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

/// Returns the paths of all commands, such as `rotate run`.
fn all_commands(folder: &Folder, path: &str) -> Vec<String> {
    let help = folder.run(&format!("{path} --help")).exits(0).stdout;
    let below = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = below.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    let mut all = vec![path.to_owned()];
    for name in names.filter(|name| *name != "help") {
        all.extend(all_commands(folder, format!("{path} {name}").trim()));
    }
    all
}

#[test]
fn help_is_wrapped_to_the_width_of_the_terminal_and_to_100_columns_at_most() {
    let folder = Folder::new();
    let commands = all_commands(&folder, "");
    assert!(commands.len() > 30, "{commands:?}");
    for (columns, most) in [(None, 100), (Some("80"), 80), (Some("300"), 100)] {
        for path in &commands {
            for help in ["--help", "-h"] {
                let mut run = command(&folder.path(""));
                run.args(path.split_whitespace()).arg(help);
                run.env_remove("COLUMNS");
                run.envs(columns.map(|columns| ("COLUMNS", columns)));
                let shown = String::from_utf8(run.output().unwrap().stdout).unwrap();
                let wide = shown.lines().filter(|line| line.chars().count() > most);
                let wide: Vec<_> = wide.collect();
                assert!(wide.is_empty(), "{path} {help}: {wide:#?}");
            }
        }
    }
}

#[test]
fn an_error_is_one_json_object_where_json_is_asked_for() {
    let folder = Folder::new();
    folder.write("bad.properties", "ataccama.server.grpc.port=no\n");
    for (command, code, found) in [
        ("deployment list --home nowhere -o json", 3, 0),
        ("dpm run --home bad.properties --output=json", 3, 2),
        ("explain CS9999 -o json", 2, 0),
        // Wrong uses, which clap finds.
        ("-o json", 2, 0),
        ("rotate -ojson", 2, 0),
        ("check --nonsense --output json", 2, 0),
        ("-o=json rotate status", 2, 0),
        ("key fingerprnt x -o json", 2, 0),
    ] {
        let run = folder.run(command).exits(code);

        let error: Value = serde_json::from_str(&run.stderr)
            .unwrap_or_else(|error| panic!("{command}: {error}: {run:#?}"));
        let text = error["error"].as_str().unwrap();
        assert!(!text.is_empty() && !text.contains("error:"), "{run:#?}");
        assert!(error.get("help").is_some(), "{run:#?}");
        assert!(error["commands"].is_array(), "{run:#?}");
        let findings = error["findings"].as_array().unwrap();
        assert_eq!(findings.len(), found, "{command}: {run:#?}");
        for finding in findings {
            assert!(
                finding["code"].is_string() && finding["line"].is_u64()
                    || finding["file"].is_null(),
                "{finding}"
            );
        }
        assert_eq!(run.stdout, "");
    }
    let text = folder.run("check -o text --nonsense json").exits(2);
    assert!(text.stderr.starts_with("error: "), "{text:#?}");
}

#[test]
fn an_option_that_does_not_apply_is_neither_listed_nor_accepted() {
    let folder = Folder::new();
    folder.run("pair dpm=dpm dpe=dpe").exits(0);
    folder
        .run("rotate prepare --home dpe --peer-file dpm")
        .exits(2);
    let rotate = "--home dpe --peer-file dpm --dry-run";
    let about_modules = [
        "--offline",
        "--except dpm-dev",
        "--peer-address dpm-dev=localhost:1",
        "--timeout 1",
    ];
    let mut unfit: Vec<_> = ["prepare", "activate", "abort", "status"]
        .map(|step| (format!("rotate {step}"), "--now".to_owned()))
        .into();
    for option in about_modules {
        unfit.extend(["abort", "status"].map(|step| (format!("rotate {step}"), option.to_owned())));
    }
    unfit.extend(
        ["--dry-run", "--yes"].map(|option| ("rotate status".to_owned(), option.to_owned())),
    );
    for (command, option) in unfit {
        let name = option.split(' ').next().unwrap();
        let help = folder.run(&format!("{command} --help")).exits(0).stdout;
        assert!(
            !help.contains(&format!("      {name}")),
            "{command}: {help}"
        );
        let run = folder.run(&format!("{command} {rotate} {option}")).exits(2);
        assert!(
            run.stderr.starts_with("error: unexpected argument"),
            "{run:?}"
        );
    }
    let run = folder.run("rotate run --help").exits(0).stdout;
    assert!(!run.contains("      --one-side"), "{run}");
    for command in [
        "rotate run --home dpe --one-side",
        "revoke --home dpm --deployment dpe-dev --dry-run --timeout 1",
        "pair --one-side dpm=other --key-name two",
        "check dpm --yes",
    ] {
        folder.run(command).exits(2);
    }
}
