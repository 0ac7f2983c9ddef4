//! What a terminal is shown.

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
        format!("rotate status --one-side --file {HOSTILE}"),
        format!("revoke --file {HOSTILE} --deployment x"),
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
