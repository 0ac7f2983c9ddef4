//! docs/promises.md: each promise of README and SECURITY.md stands there as the page quotes it, and
//! its test exists.

use std::fs;
use std::path::{Path, PathBuf};

/// Rows of SECURITY.md's tables that are their heads.
const HEADS: [&str; 3] = [
    "| asset | how |",
    "| | token alone |",
    "| default | reason |",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the text of a file, with a blank for each line end.
fn words(name: &str) -> String {
    let text = fs::read_to_string(root().join(name)).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the page's rows: promise, file, test.
fn promises() -> Vec<[String; 3]> {
    let page = fs::read_to_string(root().join("docs/promises.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells = rows.map(|row| {
        let row = row.trim_start_matches("| ").trim_end_matches(" |");
        let cells: Vec<_> = row.split(" | ").map(str::to_owned).collect();
        cells.try_into().unwrap()
    });
    cells.collect()
}

/// Adds the text of each Rust file below `folder`.
fn sources(folder: PathBuf, texts: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(path, texts);
        } else if path.extension().is_some_and(|end| end == "rs") {
            *texts += &fs::read_to_string(path).unwrap();
        }
    }
}

#[test]
fn each_promise_is_made_as_it_is_quoted_and_has_a_test() {
    let mut tests = String::new();
    for folder in ["src", "tests"] {
        sources(root().join(folder), &mut tests);
    }
    let said = ["README.md", "SECURITY.md"].map(|name| (name, words(name)));
    for [promise, file, test] in promises() {
        let (_, text) = said.iter().find(|(name, _)| *name == file).unwrap();
        assert!(text.contains(&promise), "{file} does not say: {promise}");
        let head = format!("fn {}()", test.trim_matches('`'));
        assert!(tests.contains(&head), "there is no {test}, for: {promise}");
    }
}

#[test]
fn each_row_of_security_has_a_promise_with_a_test() {
    let promises = promises();
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| "));
    for row in rows.filter(|row| !HEADS.iter().any(|head| row.starts_with(head))) {
        let held = promises
            .iter()
            .any(|[promise, ..]| row.contains(promise.as_str()));
        assert!(held, "docs/promises.md has no test for: {row}");
    }
}

#[test]
fn own_builds_collect_no_jitter() {
    let settings = fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
    assert!(settings.contains("\nAWS_LC_SYS_NO_JITTER_ENTROPY = \"1\"\n"));
}
