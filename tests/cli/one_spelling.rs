//! A module is named in one way, whichever command wants it.

use super::modules::{ANY_PORT, Running};
use super::support::{Folder, Run, command};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";

fn paired() -> Folder {
    let folder = Folder::new();
    folder.run("pair dpm=dpm dpe=dpe").exits(0);
    folder
}

/// Commands that want one module, without it, and how each ends.
const COMMANDS: &[(&str, i32)] = &[
    ("check", 0),
    (
        "deployment add x --module dpe --public-key dpe.jwk --dry-run",
        0,
    ),
    ("deployment list", 0),
    ("deployment remove dpe-dev --dry-run", 0),
    ("deployment show dpe-dev", 0),
    ("doctor --timeout 1s", 5),
    ("engines list", 5),
    ("engines show x", 5),
    ("engines watch", 5),
    ("key fingerprint", 0),
    ("revoke --deployment dpe-dev --dry-run", 0),
    ("rotate status --peer-file dpe", 0),
    ("rotate prepare --peer-file dpe --dry-run", 0),
    ("token issue --audience dpe-dev", 0),
    ("token verify", 1),
    ("token explain", 1),
];

fn in_folder(folder: &Folder, at: &str, arguments: &str, home: Option<&str>) -> Run {
    let mut run = command(&folder.path(at));
    run.args(arguments.split_whitespace());
    if let Some(home) = home {
        run.env("COUNTERSIGN_HOME", home);
    }
    let output = run.output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn with_public_key() -> Folder {
    let folder = paired();
    let made = "key gen --out private.jwk --public-out dpe.jwk";
    folder.run(made).exits(0);
    folder
}

#[test]
fn home_and_file_name_a_module_by_its_folder_or_its_file_for_every_command() {
    let folder = with_public_key();
    for (command, code) in COMMANDS {
        for option in ["--home", "--file"] {
            for module in ["dpm", "dpm/", DPM] {
                let run = folder.run(&format!("{command} {option} {module}"));
                assert_eq!(run.code, *code, "{command} {option} {module}: {run:?}");
            }
        }
    }
}

#[test]
fn a_command_without_a_module_takes_the_one_of_the_variable_else_of_this_folder() {
    let folder = with_public_key();
    let empty = folder.path("elsewhere");
    std::fs::create_dir_all(&empty).unwrap();
    for (command, code) in COMMANDS {
        let home = folder.path("dpm");
        let home = home.to_str().unwrap();
        let command = command.replace(" dpe.jwk", " ../dpe.jwk");
        let command = command.replace("--peer-file dpe", "--peer-file ../dpe");

        let by_variable = in_folder(&folder, "elsewhere", &command, Some(home));
        let here = in_folder(&folder, "dpm", &command, None);
        let before = in_folder(&folder, "dpe", &command, Some(home));
        let empty_variable = in_folder(&folder, "dpm", &command, Some(""));
        let nowhere = in_folder(&folder, "elsewhere", &command, Some(""));

        for run in [by_variable, here, before, empty_variable] {
            assert_eq!(run.code, *code, "{command}: {run:?}");
        }
        assert_eq!(nowhere.code, 2, "{command}: {nowhere:?}");
        assert!(nowhere.stderr.contains("required"), "{nowhere:?}");
    }
}

#[test]
fn a_module_that_is_named_comes_before_the_variable_and_printed_commands_name_it() {
    let folder = paired();

    let named = in_folder(&folder, "", "key fingerprint dpe", Some("dpm"));
    let own = folder.run("key fingerprint --home dpe").exits(0);
    assert_eq!(named.stdout, own.stdout);

    let step = "rotate prepare --peer-file dpe --yes";
    let prepared = in_folder(&folder, "", step, Some("dpm")).exits(0);
    let next = "next    countersign rotate activate --home dpm --peer-file dpe\n";
    assert!(prepared.stdout.contains(next), "{prepared:?}");
}

#[test]
fn a_running_module_may_be_the_one_of_this_folder() {
    let folder = paired();
    let mut run = command(&folder.path("dpm"));
    run.args(format!("dpm run {ANY_PORT}").split_whitespace());

    Running::of(run).until(" startup ");
}

#[test]
fn a_variable_that_leads_nowhere_is_named_like_an_argument() {
    let folder = paired();

    let run = in_folder(&folder, "dpm", "deployment list", Some("nowhere"));

    assert_eq!(run.exits(3).stderr.matches("`nowhere`").count(), 1);
}

#[test]
fn plain_arguments_and_peers_take_a_folder_or_a_file() {
    let folder = paired();

    for files in ["dpm dpe", "dpm/etc/application.properties dpe"] {
        folder.run(&format!("check {files}")).exits(0);
        folder.run(&format!("check --home {files}")).exits(0);
    }
    let twice = folder.run(&format!("check dpm {DPM}")).exits(0);
    assert!(twice.stderr.contains("given twice"), "{twice:?}");
    for peer in ["dpe", DPE] {
        let status = format!("rotate status --home dpm --peer-file {peer}");
        folder.run(&status).exits(0);
    }
    for modules in ["dpm=dpm dpe=dpe", &format!("dpm={DPM} dpe=dpe/")] {
        let again = folder.run(&format!("pair {modules} --yes")).exits(0);
        assert!(again.stdout.ends_with("nothing to do\n"), "{again:?}");
    }
}

#[test]
fn a_pair_makes_a_file_where_the_name_says_so_and_a_home_otherwise() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path("empty")).unwrap();
    folder.write("half/etc/other", "");

    folder.run("pair dpm=empty dpe=one.properties").exits(0);
    folder.run("pair dpm=half dpe=new/home").exits(0);
    let block = folder.run("pair --one-side dpm=there --yes").exits(0);
    folder.write("dpm.block", block.stdout);
    let accept = "pair accept dpe=here --block dpm.block --yes";
    folder.run(accept).exits(0);

    for home in ["empty", "half", "new/home", "there", "here"] {
        let file = folder.path(home).join("etc/application.properties");
        assert!(file.is_file(), "{home}");
    }
    assert!(folder.path("one.properties").is_file());
}

#[test]
fn help_and_errors_have_one_spelling_of_a_module() {
    let folder = Folder::new();
    for (command, _) in COMMANDS {
        let words = command.split_whitespace();
        let verb: Vec<_> = words.take_while(|word| !word.starts_with('-')).collect();
        let help = folder.run(&format!("{} --help", verb.join(" "))).exits(0);
        let words: Vec<_> = help.stdout.split_whitespace().collect();
        let text = words.join(" ").replace("[alias: --file]", "");
        assert!(!text.contains("--file"), "{command}: {text}");
        assert!(text.contains("$COUNTERSIGN_HOME"), "{command}: {text}");
    }
}

#[test]
fn module_that_nothing_names_is_asked_for_with_what_was_tried() {
    let folder = Folder::new();
    let tried =
        "`COUNTERSIGN_HOME` is not set, and this folder has no `etc/application.properties`";
    for command in ["doctor", "deployment list", "rotate run --peer-file dpe"] {
        let refused = folder.run(command).exits(2);
        assert!(refused.stderr.contains("--home <DIR|FILE>"), "{refused:?}");
        assert!(refused.stderr.contains(tried), "{refused:?}");
        let refused = folder.run(&format!("{command} -o json")).exits(2);
        assert!(refused.stderr.contains(tried), "{refused:?}");
    }

    let without_peer = folder.run("rotate run --home dpm").exits(2);
    assert!(!without_peer.stderr.contains(tried), "{without_peer:?}");
    assert!(
        without_peer.stderr.contains("--peer-file"),
        "{without_peer:?}"
    );
    for text in [without_peer.stderr, folder.run("rotate run --help").stdout] {
        assert!(!text.contains("--one-side"), "{text}");
        assert!(text.contains("--peer-file <DIR|FILE>"), "{text}");
    }
}
