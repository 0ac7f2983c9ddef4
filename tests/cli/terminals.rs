//! What a terminal is shown.

use std::process::{Command, Stdio};

use regex::Regex;

use super::free_port::free_port;
use super::modules::paired;
use super::support::{Folder, Run};

const HOSTILE: &str = "a\u{1b}[31m\u{7}\u{202e}\u{9b}2J\u{2066}b";

/// What moves a cursor, rings, or reorders its neighbours.
fn is_obeyed(c: char) -> bool {
    c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Checks what a command that fails prints; returns `true` if the hostile name is in it.
#[track_caller]
fn shows_it_escaped(run: &Run) -> bool {
    assert!(run.code != 0, "it has something to say: {run:#?}");
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.contains(is_obeyed), "{text:?}");
    }
    run.stdout.contains("202e") || run.stderr.contains("202e")
}

#[test]
fn no_name_of_a_file_and_no_argument_reaches_the_terminal_unescaped() {
    let folder = Folder::new();
    folder.write(&format!("{HOSTILE}/there.properties"), "a=\\u12\n");
    for arguments in [
        format!("check {HOSTILE}"),
        format!("check {HOSTILE}/there.properties"),
        format!("check {HOSTILE}/there.properties -o json"),
        format!("check {HOSTILE} -o json"),
        format!("pair dpm={HOSTILE}/there.properties dpe=x"),
        format!("key fingerprint {HOSTILE}"),
        format!("key gen --out {HOSTILE}/none/x"),
        format!("jws verify --jwk {HOSTILE}"),
        format!("token issue --home {HOSTILE} --audience x"),
        format!("token explain --home {HOSTILE}"),
        format!("dpm run --home {HOSTILE}"),
        format!("engines list --home {HOSTILE}"),
        format!("engines list --home {HOSTILE} -o json"),
        format!("deployment list --home {HOSTILE}"),
        format!("rotate status --one-side --home {HOSTILE}"),
        format!("revoke --home {HOSTILE} --deployment x"),
        format!("doctor --home {HOSTILE}"),
        format!("doctor --home {HOSTILE} -o json"),
        format!("explain --log {HOSTILE}"),
        format!("explain {HOSTILE}"),
        format!("--{HOSTILE}"),
        HOSTILE.to_owned(),
        format!("pair {HOSTILE}=x"),
        format!("check --{HOSTILE} x"),
    ] {
        assert!(shows_it_escaped(&folder.run(&arguments)), "{arguments:?}");
    }
}

#[test]
fn no_name_or_value_of_a_setting_reaches_the_terminal_unescaped() {
    let folder = Folder::new();
    let text = format!(
        "countersign.{HOSTILE}=1\nserver.port={HOSTILE}\ncountersign.deployment.name={HOSTILE}\n\
         ataccama.one.platform.deployments.{HOSTILE}.module=dpe\n\
         spring.config.import={HOSTILE}\nspring.profiles.active={HOSTILE}\n"
    );
    folder.write("file.properties", text);
    for arguments in [
        "check file.properties --list-ignored",
        "check file.properties -o json",
        "dpm run --home file.properties",
    ] {
        assert!(shows_it_escaped(&folder.run(arguments)), "{arguments}");
    }
}

/// Runs `countersign` with `arguments` on a terminal of `columns`, and returns what it is sent.
#[cfg(unix)]
fn on_a_terminal(folder: &Folder, columns: u16, arguments: &str) -> String {
    let program = env!("CARGO_BIN_EXE_countersign");
    let typed = format!("stty cols {columns}; {program} {arguments}");
    let run = Command::new("script")
        .args(["--quiet", "--return", "--command", &typed, "/dev/null"])
        .current_dir(folder.path("."))
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .output()
        .expect("`script` of util-linux runs");
    String::from_utf8(run.stdout).unwrap().replace('\r', "")
}

/// Returns `text` without styles, and without what the terminal erased again.
#[cfg(unix)]
fn unstyled(text: &str) -> String {
    let style = Regex::new("[^\n]*\u{1b}\\[K|\u{1b}\\[[0-9;]*m").unwrap();
    style.replace_all(text, "").into_owned()
}

#[cfg(unix)]
#[test]
fn doctor_breaks_words_and_no_command_at_the_width_of_the_terminal() {
    let folder = paired();
    let closed = format!(
        "doctor --home dpe --set ataccama.client.connection.dpm.grpc.port={}",
        free_port()
    );

    let sent = on_a_terminal(&folder, 70, &closed);

    let shown = unstyled(&sent);
    let too_long = shown.lines().filter(|line| line.chars().count() > 70);
    let broken: Vec<_> = too_long
        .filter(|line| !line.trim_start().starts_with("countersign "))
        .collect();
    assert_eq!(broken, Vec::<&str>::new(), "{shown}");
    // In one line elsewhere: the words are the same.
    let plain = folder.run(&closed);
    let untimed = |text: &str| {
        let words = text.split_whitespace().map(str::to_owned);
        words
            .filter(|word| word.parse::<f64>().is_err())
            .collect::<Vec<_>>()
    };
    assert_eq!(untimed(&shown), untimed(&plain.stdout));
    assert!(plain.stdout.lines().any(|line| line.chars().count() > 70));
}

#[cfg(unix)]
#[test]
fn doctor_says_in_words_what_it_says_in_colours() {
    let folder = paired();
    let port = free_port();
    let closed = format!("doctor --home dpe --set ataccama.client.connection.dpm.grpc.port={port}");

    let coloured = on_a_terminal(&folder, 100, &closed);
    let plain = on_a_terminal(&folder, 100, &format!("--color never {closed}"));

    assert!(
        coloured.contains("\u{1b}[31;1mFAIL \u{1b}[0m"),
        "{coloured}"
    );
    assert!(coloured.contains("\u{1b}[32mok"), "{coloured}");
    assert!(
        !plain.contains("\u{1b}[3") && !plain.contains("[0m"),
        "{plain:?}"
    );
    assert!(
        unstyled(&coloured).contains(" 4 tcp         FAIL  "),
        "{coloured}"
    );
}
