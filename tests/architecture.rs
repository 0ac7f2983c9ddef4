#![cfg(test)]
//! The layer table of ARCHITECTURE.md, held against the source.
//!
//! A module may use only modules on lower floors. `cargo test architecture` names every
//! use that climbs, every file over its size, and every module missing from the table.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lowest floor first; modules on one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["clock", "secret", "diagnostic"],
    &["properties", "jose", "identity", "engine"],
    &["trust", "telemetry", "proto", "storage"],
    &["token", "registry"],
    &["grpc", "http"],
    &["dpm", "dpe", "testing"],
    &["config"],
    &["admin"],
    &["cli"],
];

/// Longest file, in lines, counted up to its unit tests.
const MAX_FILE_LINES: usize = 400;

#[test]
fn modules_only_use_lower_floors() {
    let floor: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(n, names)| names.iter().map(move |name| (*name, n)))
        .collect();
    let mut faults = Vec::new();
    for file in sources() {
        let Some(importer) = module_of(&file) else {
            continue;
        };
        let Some(from) = floor.get(importer.as_str()) else {
            faults.push(format!("{}: `{importer}` has no floor", file.display()));
            continue;
        };
        for (line, used) in crate_uses(&file) {
            if used == importer {
                continue;
            }
            match floor.get(used.as_str()) {
                Some(to) if to < from => {}
                Some(_) => faults.push(format!(
                    "{}:{line}: `{importer}` may not use `{used}`",
                    file.display()
                )),
                None => faults.push(format!("{}:{line}: `{used}` has no floor", file.display())),
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn files_stay_readable() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|file| !file.ends_with("tests.rs"))
        .map(|file| (code(&file).lines().count(), file))
        .filter(|(lines, _)| *lines > MAX_FILE_LINES)
        .collect();
    assert!(long.is_empty(), "over {MAX_FILE_LINES} lines: {long:?}");
}

#[test]
fn tests_named_for_prior_vulnerabilities_exist() {
    let page = include_str!("../docs/prior-vulnerabilities.md");
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let named: Vec<_> = rows
        .skip(1)
        .filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next())
        .flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`')))
        .collect();
    let tests = root().with_file_name("tests");
    let sources: Vec<_> = [root(), tests]
        .into_iter()
        .flat_map(below)
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let exists = |name: &&str| {
        let head = format!("fn {name}()");
        sources.iter().any(|text| text.contains(&head))
    };

    let missing: Vec<_> = named.iter().filter(|name| !exists(name)).collect();

    assert!(named.len() > 12, "{named:?}");
    assert!(missing.is_empty(), "{missing:?}");
}

/// The file's text up to its unit tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let tests = text.split("#[cfg(test)]\nmod tests");
    tests.into_iter().next().unwrap().to_owned()
}

/// Every `crate::name` in the file outside comments, with its line.
fn crate_uses(file: &Path) -> Vec<(usize, String)> {
    let mut uses = Vec::new();
    for (n, line) in code(file).lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for part in line.split("crate::").skip(1) {
            let name: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            uses.push((n + 1, name));
        }
    }
    uses
}

fn module_of(file: &Path) -> Option<String> {
    let below = file.strip_prefix(root()).unwrap();
    let first = below
        .components()
        .next()?
        .as_os_str()
        .to_str()?
        .trim_end_matches(".rs")
        .to_owned();
    (first != "lib" && first != "main").then_some(first)
}

fn sources() -> Vec<PathBuf> {
    below(root())
}

fn below(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
