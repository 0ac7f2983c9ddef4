//! The README's output is the program's.

#[cfg(unix)]
use super::modules::{ANY_PORT, Running, paired};
use super::support::Folder;

const README: &str = include_str!("../../README.md");

/// Returns the README's `text` block that starts with `start`.
fn block(start: &str) -> &'static str {
    let mut blocks = README.split("```text\n").skip(1);
    let block = blocks.find(|block| block.starts_with(start)).unwrap();
    block.split("\n```").next().unwrap()
}

/// Leaves out what differs from run to run: the folder, keys, ports, ids, times, and the blanks
/// that keep columns straight.
fn settled(text: &str) -> String {
    let word = |word: &str| match word {
        word if word.contains("countersign-demo-") => "FOLDER".to_owned(),
        word if word.ends_with('…') => "KEY".to_owned(),
        word if word.starts_with("127.0.0.1:") || word.starts_with("localhost:") => {
            "ADDRESS".to_owned()
        }
        // A fingerprint, and the loopback address that only some machines have.
        word if word.len() == 43 && !word.contains(['/', '.']) => "KEY".to_owned(),
        "::1," => String::new(),
        word if word.len() == 36 && word.matches('-').count() == 4 => "ID".to_owned(),
        word if word.parse::<f64>().is_ok() => "N".to_owned(),
        word => word.to_owned(),
    };
    let line = |line: &str| {
        line.split_whitespace()
            .map(word)
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    text.trim_end()
        .lines()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_demo_shows_what_the_readme_shows() {
    let run = Folder::new().run("demo").exits(0);

    assert_eq!(settled(&run.stdout), settled(block("countersign demo")));
    assert_eq!(run.stderr, "");
}

#[test]
fn check_shows_what_the_readme_shows() {
    let folder = Folder::new();
    let (dpm, dpe) = (
        "dpm/etc/application.properties",
        "dpe/etc/application.properties",
    );
    folder.write(dpm, include_bytes!("../data/seed-dpm.properties"));
    folder.write(dpe, include_bytes!("../data/seed-dpe.properties"));

    let run = folder.run(&format!("check {dpe} {dpm}")).exits(1);

    for shown in block("error[CS0201]").split("\n\n") {
        assert!(
            run.stdout.contains(shown),
            "{shown}\nis not in\n{}",
            run.stdout
        );
    }
}

#[test]
fn the_readmes_commands_pair_two_modules_that_fit() {
    let folder = Folder::new();
    let start = README.find("countersign pair dpm=").unwrap();
    for line in README.split_at(start).1.lines().take(2) {
        let arguments = line.strip_prefix("countersign ").unwrap();
        folder.run(arguments).exits(0);
    }
}

#[cfg(unix)]
#[test]
fn doctor_shows_what_the_readme_shows() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    // An engine with the same name, and a key of its own.
    folder
        .run("pair dpm=other.properties dpe=stranger.properties")
        .exits(0);
    let stranger = folder.read("stranger.properties");
    folder.write("dpe/etc/application.properties", stranger);

    let run = folder
        .run(&format!(
            "doctor --home dpe --set ataccama.client.connection.dpm.grpc.port={port}"
        ))
        .exits(4);

    let shown = block("$ countersign doctor --home dpe\n").split_once('\n');
    assert_eq!(settled(&run.stdout), settled(shown.unwrap().1));
}

#[test]
fn a_kept_demo_leaves_two_homes_to_go_on_with() {
    let folder = Folder::new();

    let run = folder.run("demo --keep mine -o json").exits(0);

    assert_eq!(run.json()["held"], true);
    assert_eq!(run.json()["steps"].as_array().unwrap().len(), 7);
    folder
        .run("check mine/dpm/etc/application.properties mine/dpe/etc/application.properties")
        .exits(0);
    folder
        .run("token issue --home mine/dpe --audience dpm-dev")
        .exits(0);
}

#[test]
fn no_part_of_a_private_key_is_shown_by_the_demo() {
    let folder = Folder::new();
    let run = folder.run("demo --keep mine").exits(0);

    for module in ["dpm", "dpe"] {
        let file = folder.read(&format!("mine/{module}/etc/application.properties"));
        let key = file
            .split("generator.key=")
            .nth(1)
            .unwrap()
            .lines()
            .next()
            .unwrap();
        let log = folder.read(&format!("mine/{module}/log/spring-boot-logger.json.log"));
        for part in key
            .as_bytes()
            .chunks(20)
            .map(|part| str::from_utf8(part).unwrap())
        {
            let shown =
                run.stdout.contains(part) || run.stderr.contains(part) || log.contains(part);
            assert!(!shown, "{part}");
        }
    }
}

#[test]
fn rotate_and_revoke_show_what_the_readme_shows() {
    let folder = Folder::new();
    folder
        .run("pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties")
        .exits(0);
    for step in ["prepare", "activate"] {
        let step = format!("rotate {step} --home dpe --peer-file dpm --offline --yes");
        folder.run(&step).exits(0);
    }

    for start in ["$ countersign rotate status", "$ countersign revoke"] {
        let (command, shown) = block(start).split_once('\n').unwrap();
        let command = command.strip_prefix("$ countersign ").unwrap();
        let run = folder.run(command).exits(0);
        let said = settled(&run.stderr) + "\n" + &settled(&run.stdout);
        assert_eq!(said.trim_start(), settled(shown));
    }
}
