//! README and the pages of `docs/`: a shell runs their commands in order, and what the commands
//! print is what the page shows.
//!
//! Each section of level two starts over in empty folders, with what its page takes for granted.
//! `# on HOST` goes to another host, `# stop HOME` ends the module of that home. With
//! `INSTA_UPDATE=always` a page gets the output of this run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use super::examples::shell;
use super::modules::Running;
use super::support::Folder;
use super::two_hosts::{Host, hosts};

/// Most words of the README, all blocks included.
const README_WORDS: usize = 900;

/// The blocks that no shell runs here: page, first words, and why.
const NO_RUN: [(&str, &str, &str); 6] = [
    (
        "docs/more-than-one-dpm.md",
        "countersign pair dpm=dpm",
        "needs etcd; the tests of `tests/cli/etcd.rs` start with it",
    ),
    (
        "docs/operate.md",
        "countersign deployment remove dpe-dev",
        "removes users and services of the machine",
    ),
    (
        "docs/operate.md",
        "cp /usr/local/bin/countersign",
        "replaces a program of the machine, and needs systemd",
    ),
    (
        "docs/operate.md",
        "docker build",
        "needs a container engine; the image's file is read by `image_is_made_with_the_oldest_rust`",
    ),
    (
        "docs/operate.md",
        "install -m 755",
        "makes users, and needs systemd; `systemd_verifies_the_units` reads the units",
    ),
    (
        "docs/operate.md",
        "kubectl create secret",
        "needs a cluster; `pods_of_the_manifests_become_ready` does what the cluster does",
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the names of all pages: README's and those of `docs/`.
fn pages() -> Vec<String> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let paths = docs.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let names = pages.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    let pages = names.map(|name| format!("docs/{name}"));
    pages.chain(["README.md".to_owned()]).collect()
}

/// A fenced block of a page.
#[derive(Debug)]
struct Block<'a> {
    /// What stands behind the opening fence, such as `sh`.
    info: &'a str,
    text: &'a str,
    /// The title of the section that it opens.
    opens: Option<&'a str>,
}

impl Block<'_> {
    fn is_session(&self) -> bool {
        self.text.starts_with("$ ")
    }
}

/// Returns the blocks of a page, in order.
fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut opens = Some("");
    let mut parts = page.split("\n```");
    let mut prose = parts.next().unwrap_or_default();
    while let Some(block) = parts.next() {
        let title = prose.rsplit_once("\n## ").map(|(_, rest)| rest);
        opens = title.and_then(|rest| rest.lines().next()).or(opens);
        let (info, text) = block.split_once('\n').unwrap();
        blocks.push(Block { info, text, opens });
        opens = None;
        prose = parts.next().unwrap();
    }
    blocks
}

/// Two hosts on which the commands of a section run.
struct Site {
    hosts: [Host; 2],
    here: usize,
    running: Vec<(String, Running)>,
    /// The words that the last block of public data came with.
    words: String,
}

impl Site {
    /// Makes the hosts; `None` if this user may not.
    fn new(of: &str) -> Option<Self> {
        Some(Self {
            hosts: hosts(of)?,
            here: 0,
            running: Vec::new(),
            words: String::new(),
        })
    }

    /// Runs the lines of a block, and returns what they print. Each must succeed unless `may_fail`.
    #[track_caller]
    fn run(&mut self, lines: &str, may_fail: bool) -> String {
        let mut said = String::new();
        let mut piece = String::new();
        for line in lines.lines() {
            if let Some(host) = line.strip_prefix("# on ") {
                said += &self.flush(&mut piece, may_fail);
                self.here = usize::from(host.starts_with("dpe.example"));
            } else if let Some(home) = line.strip_prefix("# stop ") {
                said += &self.flush(&mut piece, may_fail);
                let found = self.running.iter().position(|(run, _)| run == home);
                self.running.remove(found.unwrap()).1.stop();
            } else if let Some(home) = home_of_run(line) {
                said += &self.flush(&mut piece, may_fail);
                self.start(line, home);
            } else if let Some(rest) = line.strip_prefix("countersign pair accept ") {
                said += &self.flush(&mut piece, may_fail);
                piece = format!("countersign pair accept --words '{}' {rest}\n", self.words);
            } else if let Some(command) = line.strip_prefix("cargo ") {
                piece += &by_cargo(command);
            } else {
                piece += line;
                piece.push('\n');
            }
        }
        said + &self.flush(&mut piece, may_fail)
    }

    /// Runs what was collected, on the host where that is.
    #[track_caller]
    fn flush(&mut self, piece: &mut String, may_fail: bool) -> String {
        let lines = std::mem::take(piece);
        if lines.trim().is_empty() {
            return String::new();
        }
        let [dpm, dpe] = self.hosts.each_ref().map(|host| host.folder.path(""));
        let (dpm, dpe) = (dpm.display(), dpe.display());
        let copy = format!(
            "scp() {{ case $2 in dpm.example:) cp \"$1\" {dpm} ;; dpe.example:) cp \"$1\" {dpe} ;; esac; }}"
        );
        let stop = if may_fail { "" } else { "set -e" };
        let script = format!("exec 2>&1\n{stop}\n{copy}\n{lines}");
        let output = self.hosts[self.here].command(&script).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(may_fail || output.status.success(), "{lines}\n{said}");
        if let Some(words) = said.lines().find_map(|line| line.strip_prefix("words   ")) {
            words.clone_into(&mut self.words);
        }
        said
    }

    /// Starts a module; an engine is READY at the registry that runs before the next command.
    #[track_caller]
    fn start(&mut self, line: &str, home: &str) {
        let mut module = Running::of(self.hosts[self.here].command(&format!("exec {line}")));
        module.until(" startup ");
        if line.starts_with("countersign dpe ") {
            let registry = self.running.iter_mut().find(|(home, _)| home == "dpm");
            registry.unwrap().1.until("newStatus=READY");
        }
        self.running.push((home.to_owned(), module));
    }
}

/// Returns the home of a module that `line` runs.
fn home_of_run(line: &str) -> Option<&str> {
    let modules = ["countersign dpm run --home ", "countersign dpe run --home "];
    let rest = modules.iter().find_map(|start| line.strip_prefix(start))?;
    rest.split_whitespace().next()
}

/// Returns what a shell here runs for `cargo COMMAND`, which `.ci/run` runs as it is.
#[track_caller]
fn by_cargo(command: &str) -> String {
    let checks = fs::read_to_string(root().join(".ci/run")).unwrap();
    let (command, _) = command.split_once('#').unwrap_or((command, ""));
    let command = command.trim();
    let known = checks.replace(" --quiet", "").replace(" --locked", "");
    assert!(known.contains(&format!("cargo {command}")), "{command}");
    let own = command.strip_prefix("run -- ");
    own.map(|own| format!("countersign {own}\n"))
        .unwrap_or_default()
}

/// Leaves out what differs from run to run, and the blanks that keep columns straight.
fn settled(text: &str) -> String {
    const VARYING: [(&str, &str); 10] = [
        (r"\S*countersign-demo-\w+", "FOLDER"),
        (r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", "ID"),
        (r"(?m)^[0-9a-f]{8} ", "ID "),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"[\w-]{43}", "KEY"),
        (r"[\w-]{12,42}(?:…|\.\.\.)", "KEY"),
        (r"127\.0\.0\.1:\d{5}\b", "ADDRESS"),
        (r"\b\d+(?:\.\d+)? (ms|s|min|h|d)\b", "N $1"),
        (r"\b(?:NEW|READY) there", "READY there"),
        (r"[ \t]+", " "),
    ];
    let mut text = text.trim_end().to_owned();
    for (pattern, with) in VARYING {
        let pattern = Regex::new(pattern).unwrap();
        text = pattern.replace_all(&text, with).into_owned();
    }
    let lines = text.lines().map(str::trim_end);
    lines.collect::<Vec<_>>().join("\n")
}

/// A page whose blocks get the output of this run where that may be.
struct Shown {
    path: PathBuf,
    page: String,
}

impl Shown {
    /// Checks that `said` is what the page shows below `head`.
    #[track_caller]
    fn shows(&mut self, head: &str, shown: &str, said: &str) {
        if settled(shown) == settled(said) {
            return;
        }
        let update = std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always");
        assert!(update, "{}:\n{shown}\nis now\n{said}", self.path.display());
        let lines = said.lines().map(str::trim_end);
        let said = lines.collect::<Vec<_>>().join("\n");
        let [shown, said] = [shown, &said].map(|text| format!("{head}\n{}", text.trim_end()));
        self.page = self.page.replacen(shown.trim_end(), &said, 1);
        fs::write(&self.path, &self.page).unwrap();
    }
}

/// Runs the commands of `page`, each section after `prepare` with its title.
#[track_caller]
fn follow(page: &str, prepare: impl Fn(&mut Site, &str)) {
    let path = root().join(page);
    let text = fs::read_to_string(&path).unwrap();
    let mut shown = Shown {
        path,
        page: text.clone(),
    };
    let short: String = page.chars().filter(char::is_ascii_lowercase).collect();
    let mut site = None;
    let mut said = String::new();
    for block in blocks(&text) {
        if let Some(title) = block.opens {
            // The hosts before end first: the new ones have their names.
            drop(site.take());
            let Some(mut new) = Site::new(&short) else {
                return;
            };
            prepare(&mut new, title);
            site = Some(new);
        }
        let site = site.as_mut().unwrap();
        if block.is_session() {
            let text = format!("\n{}", block.text);
            for session in text.split("\n$ ").skip(1) {
                let (command, output) = session.split_once('\n').unwrap_or((session, ""));
                let said = site.run(command, true);
                shown.shows(&format!("$ {command}"), output, &said);
            }
        } else if block.info == "sh" {
            said = site.run(block.text, false);
        } else if ["text", "json"].contains(&block.info) {
            shown.shows(&format!("```{}", block.info), block.text, &said);
        }
    }
}

/// Pairs `dpm` and `dpe`, as pages take for granted.
fn paired(site: &mut Site) {
    site.run("countersign pair dpm=dpm dpe=dpe --yes", false);
}

const BOTH_RUN: &str = "countersign dpm run --home dpm\ncountersign dpe run --home dpe";

#[test]
fn commands_of_the_readme_do_what_it_shows() {
    follow("README.md", |_, _| ());
}

#[test]
fn commands_for_two_hosts_do_what_their_page_shows() {
    follow("docs/two-hosts.md", |_, _| ());
}

#[test]
fn commands_that_rotate_and_revoke_do_what_their_page_shows() {
    follow("docs/rotate.md", |site, title| {
        let times = "ataccama.authentication.internal.jwt.generator.token-expiration=1s\n\
                     countersign.token.max-lifetime=1s\ncountersign.token.leeway=0s\n";
        for module in ["dpm", "dpe"] {
            let file = format!("{module}/etc/application.properties");
            site.hosts[0].folder.write(&file, times);
        }
        paired(site);
        if title == "Replace a pinned certificate" {
            site.run("countersign pair dpm=dpm dpe=dpe --tls --yes", false);
        }
        if !title.starts_with("Trust") {
            site.run(BOTH_RUN, false);
        }
    });
}

#[test]
fn commands_for_the_library_do_what_their_page_shows() {
    follow("docs/library.md", |_, _| ());
}

#[test]
fn five_engines_become_ready_by_the_commands_of_their_page() {
    follow("docs/engines.md", |_, _| ());
}

#[test]
fn mistakes_and_refusals_are_what_their_page_shows() {
    follow("docs/troubleshoot.md", |site, title| {
        paired(site);
        let dpe = "dpe/etc/application.properties";
        let folder = &site.hosts[0].folder;
        match title {
            "Find mistakes before the start" => {
                let own = folder.read(dpe);
                folder.write(dpe, own.replace(r#"{"kty""#, r#"{kty""#));
            }
            "Find out why two modules do not talk" => {
                site.run("countersign dpm run --home dpm", false);
                let stranger = "countersign pair dpm=other dpe=stranger --yes";
                site.run(
                    &format!("{stranger} && mv stranger/etc/*.properties {dpe}"),
                    false,
                );
            }
            _ => {
                let log = r#"{"eventId":"authRejected","reason":"KEY_UNKNOWN","detail":"why"}"#;
                folder.write("dpm/log/spring-boot-logger.json.log", format!("{log}\n"));
            }
        }
    });
}

#[test]
fn health_metrics_and_logs_are_what_their_page_shows() {
    follow("docs/metrics.md", |site, _| {
        paired(site);
        site.run(BOTH_RUN, false);
    });
}

#[test]
fn backup_is_restored_by_the_commands_of_its_page() {
    follow("docs/operate.md", |site, title| {
        if title == "Back up and restore" {
            paired(site);
        }
    });
}

#[test]
fn every_event_of_the_log_is_on_its_page() {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let events = ["events.rs", "events/engine.rs", "events/store.rs"].map(|file| {
        let path = root().join("src/telemetry").join(file);
        fs::read_to_string(path).unwrap()
    });
    let events = events.concat();
    let named = Regex::new(r"eventId = ([^;,]*),").unwrap();
    let quoted = Regex::new(r#""(\w+)""#).unwrap();
    let mut count = 0;
    for id in named.captures_iter(&events) {
        for event in quoted.captures_iter(&id[1]) {
            assert!(page.contains(&format!("`{}`", &event[1])), "{}", &event[1]);
            count += 1;
        }
    }
    assert!(count > 25, "{count}");
}

#[test]
fn readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let words = readme.split_whitespace().count();
    assert!(words <= README_WORDS, "{words}");
}

#[test]
fn every_page_is_followed_and_each_block_has_a_kind() {
    let here = include_str!("docs.rs");
    let mut no_run = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        for block in blocks(&text) {
            let start = block.text.lines().next().unwrap_or_default();
            match block.info {
                "sh" | "text" | "json" => {
                    let followed = here.contains(&format!("follow(\"{page}\""));
                    assert!(followed, "{page} has commands, and no test follows it");
                }
                "rust,no_run" => {}
                "sh no-run" => {
                    let listed = |(of, first, _): &&(&str, &str, &str)| {
                        *of == page && start.starts_with(first)
                    };
                    let found = NO_RUN.iter().find(listed);
                    no_run.push(*found.unwrap_or_else(|| panic!("{page}: {start} is not listed")));
                }
                kind => panic!("{page}: {kind:?} is no kind of block: {start}"),
            }
        }
    }
    no_run.sort_unstable();
    assert_eq!(no_run, NO_RUN, "each is listed once, in order");
    assert!(NO_RUN.len() <= 8);
}

#[test]
fn commands_that_no_shell_runs_here_are_well_formed() {
    let folder = Folder::new();
    let verbs = "check|deployment|dpe|dpm|pair|remove|run";
    let called = Regex::new(&format!(r"countersign ((?:(?:{verbs}) )+)(.*)$")).unwrap();
    let option = Regex::new(r"--[a-z-]+").unwrap();
    let example = Regex::new(r"examples/[\w./-]+").unwrap();
    let page = fs::read_to_string(root().join("docs/operate.md")).unwrap();
    let pages = blocks(&page).into_iter();
    let mut count = 0;
    for block in pages.filter(|block| block.info == "sh no-run") {
        folder.write("block.sh", block.text);
        shell(&folder, "sh -n block.sh").exits(0);
        for line in block.text.lines() {
            if let Some(call) = called.captures(line) {
                let help = shell(&folder, &format!("countersign {}--help", &call[1]));
                let help = help.exits(0).stdout;
                for option in option.find_iter(&call[2]) {
                    assert!(help.contains(option.as_str()), "{line}: {help}");
                }
                count += 1;
            }
            for path in example.find_iter(line) {
                assert!(root().join(path.as_str()).exists(), "{line}");
            }
        }
    }
    assert!(count >= 4, "{count}");
}

#[test]
fn links_of_the_pages_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").unwrap();
    for page in pages() {
        let path = root().join(&page);
        for found in link.captures_iter(&fs::read_to_string(&path).unwrap()) {
            let target = path.with_file_name(&found[1]);
            assert!(target.exists(), "{page}: {}", target.display());
        }
    }
}

#[test]
fn commands_that_a_sentence_of_a_page_names_exist_with_their_options() {
    let quoted = Regex::new(r"`(countersign [a-z][^`]*)`").unwrap();
    let verbs = Regex::new(r"^countersign(?: [a-z][a-z-]*\b)*").unwrap();
    let folder = Folder::new();
    let mut commands = BTreeSet::new();
    for page in pages() {
        let text = fs::read_to_string(root().join(page)).unwrap();
        commands.extend(quoted.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    for command in commands {
        let verbs = verbs.find(&command).unwrap().as_str();
        let (_, options) = command.split_once(" --").unwrap_or_default();
        let option = options.split([' ', '=']).next().unwrap();
        let help = shell(&folder, &format!("{verbs} --help")).exits(0);
        assert!(help.stdout.contains(&format!("--{option}")), "{command}");
    }
}

#[test]
fn reasons_and_codes_that_a_page_names_are_explained() {
    let named = Regex::new(r"\b(?:CS\d{4}|[A-Z]+(?:_[A-Z]+)+)\b").unwrap();
    // Statuses of gRPC, and settings as variables.
    let other = [
        "NOT_SERVING",
        "SERVICE_UNKNOWN",
        "PERMISSION_DENIED",
        "OUT_OF_RANGE",
        "SERVER_ADDRESS",
        "ATACCAMA_SERVER_GRPC_PORT",
    ];
    let folder = Folder::new();
    let mut words = BTreeSet::new();
    for page in pages() {
        let text = fs::read_to_string(root().join(page)).unwrap();
        words.extend(
            named
                .find_iter(&text)
                .map(|found| found.as_str().to_owned()),
        );
    }
    for word in words.iter().filter(|word| !other.contains(&word.as_str())) {
        folder.run(&format!("explain {word}")).exits(0);
    }
}
