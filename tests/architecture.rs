#![cfg(test)]
//! The layer table of ARCHITECTURE.md, compared with the source.
//!
//! A module may use only modules on lower floors. `cargo test architecture` names every
//! use that climbs, every file over its size, and every module missing from the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Lowest floor first; modules on one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["clock", "secret", "diagnostic", "failure", "files"],
    &["properties", "jose", "identity", "engine"],
    &["trust", "telemetry", "proto", "storage"],
    &["token", "registry", "admission"],
    &["grpc", "http"],
    &["program"],
    &["dpm", "dpe", "testing"],
    &["config"],
    &["admin", "library"],
    &["cli"],
];

/// Longest file, in lines, counted up to its unit tests.
const MAX_FILE_LINES: usize = 500;

/// Most code lines of each module: lower them when code goes, never raise them.
const BUDGETS: &[(&str, usize)] = &[
    ("admin", 7199),
    ("admission", 419),
    ("cli", 4629),
    ("clock", 86),
    ("config", 7161),
    ("diagnostic", 596),
    ("dpe", 861),
    ("dpm", 2820),
    ("engine", 353),
    ("failure", 107),
    ("files", 101),
    ("grpc", 6204),
    ("http", 287),
    ("identity", 207),
    ("jose", 1643),
    ("library", 321),
    ("program", 148),
    ("properties", 1784),
    ("proto", 178),
    ("registry", 3412),
    ("secret", 22),
    ("storage", 341),
    ("telemetry", 1761),
    ("testing", 51),
    ("token", 1856),
    ("trust", 313),
];

/// Most code lines of all modules.
const TOTAL: usize = 42860;

/// Most occurrences of `let x = x…`: lower it when one goes.
const MAX_SHADOWING: usize = 23;

/// Most occurrences of `let f = |…|`: lower it when one goes.
const MAX_NAMED_CLOSURES: usize = 10;

/// Groups of files that use each other: remove an entry once its cycle is gone, never add one.
const CYCLES: &[&[&str]] = &[];

/// Words that plain English has shorter or clearer ones for, with the most occurrences: the aim
/// is 0.
const WORDS: &[(&str, usize)] = &[
    ("whoever", 0),
    ("whom", 0),
    ("nobody", 0),
    ("somebody", 0),
    ("everybody", 0),
    ("anybody", 0),
    ("mend\\w*", 0),
    ("anew", 0),
    ("heed\\w*", 0),
    ("hindrance", 0),
    ("farewell", 0),
    ("told", 0),
    ("tells", 0),
    ("held against", 0),
    ("tells whether", 0),
    ("is none", 0),
    ("in force", 0),
];

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
fn modules_stay_within_their_budgets() {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for file in product_files() {
        if let Some(module) = module_of(&file) {
            *lines.entry(module).or_default() += code_lines(&file).len();
        }
    }
    let total: usize = lines.values().sum();
    let limits: BTreeMap<_, _> = BUDGETS.iter().copied().collect();
    let over: Vec<_> = lines
        .iter()
        .filter(|(module, count)| limits.get(module.as_str()).is_none_or(|most| *count > most))
        .collect();

    assert!(over.is_empty(), "over their budgets: {over:?} of {lines:?}");
    assert!(total <= TOTAL, "{total} code lines, the limit is {TOTAL}");
}

#[test]
fn shadowing_and_named_closures_become_rarer() {
    let shadowing = Regex::new(r"^\s*let (?:mut )?(\w+) = [&*]?(?:mut )?(\w+)\b").unwrap();
    let closure = Regex::new(r"^\s*let (?:mut )?\w+ = (?:move )?\|").unwrap();
    let lines: Vec<_> = product_files().iter().flat_map(|f| code_lines(f)).collect();
    let shadowing = lines
        .iter()
        .filter_map(|line| shadowing.captures(line))
        .filter(|names| names[1] == names[2])
        .count();
    let closures = lines.iter().filter(|line| closure.is_match(line)).count();

    assert!(shadowing <= MAX_SHADOWING, "{shadowing} shadowing `let`s");
    assert!(closures <= MAX_NAMED_CLOSURES, "{closures} named closures");
}

#[test]
fn files_that_the_architecture_names_exist() {
    let top = root().parent().unwrap().to_owned();
    let text = fs::read_to_string(top.join("ARCHITECTURE.md")).unwrap();
    let place = Regex::new(r"`((?:[a-z_]+/)+(?:[a-z_]+\.rs)?)`").unwrap();
    let named = place.captures_iter(&text).map(|found| found[1].to_owned());
    let missing: Vec<_> = named
        .filter(|path| !top.join(path).exists() && !root().join(path).exists())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn no_type_has_its_methods_in_more_than_two_files() {
    let block = Regex::new(r"(?m)^impl(?:<.*?>)? (\w+)(?:<.*>)? (?:where|\{)").unwrap();
    let mut files: BTreeMap<(String, String), BTreeSet<PathBuf>> = BTreeMap::new();
    for file in product_files() {
        let module = module_of(&file).unwrap_or_default();
        for found in block.captures_iter(&code(&file)) {
            let of_type = files.entry((module.clone(), found[1].to_owned()));
            of_type.or_default().insert(file.clone());
        }
    }
    files.retain(|_, files| files.len() > 2);
    assert!(files.is_empty(), "{files:#?}");
}

#[test]
fn files_of_a_module_use_each_other_in_one_direction() {
    let found = cycles();
    let known: Vec<Vec<String>> = CYCLES
        .iter()
        .map(|files| files.iter().map(|f| (*f).to_owned()).collect())
        .collect();
    // A group that lost a file is reported too: the shorter one replaces it in the list.
    let new: Vec<_> = found
        .iter()
        .filter(|files| !known.contains(files))
        .collect();
    let gone: Vec<_> = known
        .iter()
        .filter(|files| !found.contains(files))
        .collect();

    assert!(
        new.is_empty() && gone.is_empty(),
        "not in the list CYCLES: {new:#?}\nin the list and no cycle: {gone:#?}"
    );
}

#[test]
fn words_of_the_old_dialect_become_rarer() {
    let top = root().parent().unwrap().to_owned();
    let mut texts: Vec<_> = ["README.md", "SECURITY.md", "ARCHITECTURE.md"]
        .iter()
        .map(|name| top.join(name))
        .collect();
    texts.extend(sources());
    texts.extend(below_with(top.join("docs"), "md"));
    let texts: Vec<_> = texts
        .iter()
        .map(|f| fs::read_to_string(f).unwrap())
        .collect();
    let mut over = Vec::new();
    for (word, most) in WORDS {
        let pattern = Regex::new(&format!(r"(?i)\b{word}\b")).unwrap();
        let count: usize = texts
            .iter()
            .map(|text| pattern.find_iter(text).count())
            .sum();
        if count > *most {
            over.push((word, count, most));
        }
    }
    assert!(over.is_empty(), "(word, occurrences, limit): {over:?}");
}

#[test]
fn no_command_is_put_together_by_hand_or_has_a_hole() {
    let verbs = "pair|check|rotate|revoke|deployment|doctor|explain|key|(?:dpm|dpe) run";
    let by_hand = Regex::new(&format!(r#"countersign (?:{verbs})\b[^"`]*\{{"#)).unwrap();
    let hole = Regex::new(&format!(
        r#""[^"]*countersign (?:{verbs})\b[^"`]*(?:<|…|\b(?:FILE|HOME|CODE|NAME|CALLER)\b)"#
    ))
    .unwrap();
    let mut found = Vec::new();
    for file in product_files() {
        let lines = code_lines(&file);
        let faulty = lines
            .iter()
            .filter(|line| by_hand.is_match(line) || hole.is_match(line));
        found.extend(faulty.map(|line| format!("{}: {line}", file.display())));
    }
    assert!(found.is_empty(), "use `CommandLine`: {found:#?}");
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

/// Returns the groups of files in one module that use each other, directly or round about.
fn cycles() -> Vec<Vec<String>> {
    let files: BTreeMap<String, PathBuf> = product_files()
        .into_iter()
        .map(|file| (module_path(&file), file))
        .collect();
    let uses: BTreeMap<&str, BTreeSet<String>> = files
        .iter()
        .map(|(module, file)| (module.as_str(), used_files(module, file, &files)))
        .collect();
    let mut groups = BTreeSet::new();
    for start in uses.keys() {
        let reached = reachable(start, &uses);
        if reached.contains(*start) {
            let group: Vec<_> = reached
                .into_iter()
                .filter(|other| reachable(other, &uses).contains(*start))
                .collect();
            groups.insert(group);
        }
    }
    groups.into_iter().collect()
}

fn reachable(start: &str, uses: &BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start.to_owned()];
    while let Some(module) = open.pop() {
        for next in &uses[module.as_str()] {
            if reached.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    reached
}

/// Returns the other files of the same top-level module that `file` uses.
fn used_files(module: &str, file: &Path, files: &BTreeMap<String, PathBuf>) -> BTreeSet<String> {
    let top = module.split("::").next().unwrap();
    paths_in(module, file)
        .into_iter()
        .filter(|path| path.split("::").next() == Some(top))
        .filter_map(|path| defining_file(&path, files, 0))
        .filter(|used| used != module)
        .collect()
}

/// Returns the file that defines what `path` names; a re-export leads to its source.
fn defining_file(path: &str, files: &BTreeMap<String, PathBuf>, depth: usize) -> Option<String> {
    let mut module = path;
    while !files.contains_key(module) {
        module = module.rsplit_once("::")?.0;
    }
    let rest = path.strip_prefix(module)?.strip_prefix("::");
    let name = rest.and_then(|rest| rest.split("::").next());
    if let Some(name) = name.filter(|_| depth < 5) {
        let end = format!("::{name}");
        let source = reexports(module, &files[module])
            .into_iter()
            .find(|path| path.ends_with(&end) && !path.starts_with(&format!("{module}{end}")));
        if let Some(source) = source {
            return defining_file(&source, files, depth + 1);
        }
    }
    Some(module.to_owned())
}

fn reexports(module: &str, file: &Path) -> Vec<String> {
    let text = code_lines(file).join("\n");
    let pattern = Regex::new(r"(?m)^pub(?:\([a-z: ]+\))? use ([^;]+);").unwrap();
    pattern
        .captures_iter(&text)
        .flat_map(|found| expand(&found[1]))
        .filter_map(|path| absolute(module, &path, &text))
        .collect()
}

/// Returns every path in the file's code that starts in this crate, from `use` or in a line; a
/// re-export alone is no use.
fn paths_in(module: &str, file: &Path) -> Vec<String> {
    let text = code_lines(file).join("\n");
    let import = Regex::new(r"(?m)^ *use ([^;]+);").unwrap();
    let any_import = Regex::new(r"(?m)^ *(?:pub(?:\([a-z: ]+\))? )?use [^;]+;").unwrap();
    let inline = Regex::new(r"\b[a-z_]+(?:::\w+)+").unwrap();
    let mut paths: Vec<_> = import
        .captures_iter(&text)
        .flat_map(|found| expand(&found[1]))
        .collect();
    let rest = any_import.replace_all(&text, "");
    paths.extend(
        inline
            .find_iter(&rest)
            .map(|found| found.as_str().to_owned()),
    );
    paths
        .iter()
        .filter_map(|path| absolute(module, path, &text))
        .collect()
}

/// Resolves `crate::`, `super::`, `self::` and the names of modules declared in the file.
fn absolute(module: &str, path: &str, text: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("crate::") {
        return Some(rest.to_owned());
    }
    let (mut base, mut rest) = (module, path);
    if let Some(after) = rest.strip_prefix("self::") {
        return Some(format!("{base}::{after}"));
    }
    while let Some(after) = rest.strip_prefix("super::") {
        base = base.rsplit_once("::")?.0;
        rest = after;
    }
    let first = rest.split("::").next()?;
    let declared = text.contains(&format!("mod {first};"));
    (rest != path || declared).then(|| format!("{base}::{rest}"))
}

/// Expands `a::{b, c::{d, e}}` into its paths.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap().trim();
        return vec![path.trim_end_matches("::self").to_owned()];
    };
    let inner = inner.trim_end();
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inner.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().unwrap().push(c);
        }
    }
    parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty())
        .flat_map(|part| expand(&format!("{head}{part}")))
        .collect()
}

/// Returns the path of the module that a file defines, without `crate`.
fn module_path(file: &Path) -> String {
    let below = file.strip_prefix(root()).unwrap().with_extension("");
    let path = below.to_str().unwrap().replace('/', "::");
    path.trim_end_matches("::mod").to_owned()
}

/// Returns the lines of a file that are neither blank nor a comment, without its unit tests.
fn code_lines(file: &Path) -> Vec<String> {
    code(file)
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
        .map(str::to_owned)
        .collect()
}

fn product_files() -> Vec<PathBuf> {
    let mut files = sources();
    files.retain(|file| {
        !file.ends_with("tests.rs")
            && !file.components().any(|part| part.as_os_str() == "tests")
            && !file.to_str().unwrap().ends_with("_tests.rs")
    });
    files
}

/// The file's text up to unit tests that stand in it.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let tests = text.split("#[cfg(test)]\nmod tests {");
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
    below_with(folder, "rs")
}

fn below_with(folder: PathBuf, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
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
