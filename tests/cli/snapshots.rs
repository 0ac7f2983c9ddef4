//! The output of every command: exit code, stdout and stderr, compared with `snapshots/*.snap`.
//!
//! To accept new output, run `INSTA_UPDATE=always cargo test --test cli snapshots` and review the
//! diff of the `.snap` files.

use countersign::Reason;
use countersign::internals::Code;

use super::free_port::free_port;
#[cfg(unix)]
use super::modules::Running;
use super::support::{Folder, Run};
use scrub::Scrubber;

#[path = "scrub.rs"]
mod scrub;

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";
const PAIR: &str = "pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties";

/// Commands that ran in one folder, with what each printed.
struct Transcript {
    folder: Folder,
    text: String,
    scrubber: Scrubber,
}

impl Transcript {
    fn new() -> Self {
        Self {
            folder: Folder::new(),
            text: String::new(),
            scrubber: Scrubber::default(),
        }
    }

    /// Starts with two paired modules, where port 1 stands for a DPM that does not run.
    fn paired() -> Self {
        let new = Self::new();
        new.folder
            .write(DPM, "ataccama.server.grpc.port=1\nserver.port=0\n");
        let to_dpm = "ataccama.client.connection.dpm";
        new.folder.write(
            DPE,
            format!("{to_dpm}.host=127.0.0.1\n{to_dpm}.grpc.port=1\nserver.port=0\n"),
        );
        new.folder.run(&format!("{PAIR} --yes")).exits(0);
        new
    }

    fn run(&mut self, arguments: &str) -> Run {
        self.run_with(arguments, b"")
    }

    fn run_with(&mut self, arguments: &str, input: &[u8]) -> Run {
        let run = self.folder.run_with(arguments, input);
        let mut shown = format!("$ countersign {arguments}\nexit {}\n", run.code);
        for (stream, printed) in [("stdout", &run.stdout), ("stderr", &run.stderr)] {
            if !printed.is_empty() {
                shown += "--- ";
                shown += stream;
                shown.push('\n');
                shown += printed;
                if !printed.ends_with('\n') {
                    shown += "«no newline»\n";
                }
            }
        }
        self.note(&shown);
        run
    }

    /// Adds text that no command printed directly.
    fn note(&mut self, text: &str) {
        let text = text.replace(self.folder.path("").to_str().unwrap(), "«folder»/");
        self.text += &self.scrubber.scrub(&text);
        self.text.push('\n');
    }

    /// Compares everything that ran with the stored snapshot `name`.
    #[track_caller]
    fn compare(self, name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, self.text));
    }
}

/// Adds the help of a command and of those below it.
fn add_help(transcript: &mut Transcript, command: &str) {
    let help = transcript.run(&format!("{command} --help")).exits(0).stdout;
    for name in commands_in(&help) {
        add_help(transcript, &format!("{command} {name}"));
    }
}

/// Returns the names of the commands that a help text lists, without `help` itself.
fn commands_in(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    list.take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn help() {
    let mut top = Transcript::new();
    let help = top.run("--help").exits(0).stdout;
    top.compare("help");
    let names = commands_in(&help);
    assert!(names.len() > 10, "{help}");
    for name in names {
        let mut transcript = Transcript::new();
        add_help(&mut transcript, &name);
        transcript.compare(&format!("help_{name}"));
    }
}

#[test]
fn usage() {
    let mut all = Transcript::new();
    for arguments in [
        "",
        "--version",
        "key",
        "key fingerprnt x",
        "check",
        "check --no-such-option x",
        "token issue --home dpe",
        "dpm run --home dpm --set nonsense",
        "explain",
        "-o xml check x",
    ] {
        all.run(arguments);
    }
    all.compare("usage");
}

#[test]
fn pair() {
    let mut all = Transcript::new();
    all.run(&format!("{PAIR} --dry-run")).exits(0);
    all.run(PAIR).exits(0);
    all.run(PAIR).exits(0);
    all.run(&format!("{PAIR} -o json"));
    all.folder.write("new.properties", "# new\n");
    all.run("pair dpm=new.properties dpe=other.properties");
    all.run("pair dpm=new.properties dpe=other.properties --dry-run");
    all.run("pair dpm=new.properties dpe=other.properties --yes -o json");
    all.run("pair dpm dpe");
    all.run("pair dpm=same.properties dpe=same.properties");
    all.run("pair dpm=one.properties dpm=two.properties");
    all.run("pair dpm=one.properties");
    all.run("pair dpm=no/such/folder.properties dpe=dpe.properties --key dpm=missing.jwk");
    all.compare("pair");
}

#[test]
fn pair_with_tls() {
    let mut all = Transcript::new();
    all.run(&format!("{PAIR} --tls --dry-run"));
    all.run(&format!("{PAIR} --tls"));
    all.run(&format!("{PAIR} --tls"));
    all.run(&format!("check {DPM} {DPE}"));
    all.run("deployment show dpe-dev --home dpm");
    all.compare("pair_tls");
}

#[test]
fn pair_of_two_machines() {
    let mut all = Transcript::new();
    all.run("pair --one-side dpm=dpm.properties --dry-run");
    let block = all.run("pair --one-side dpm=dpm.properties").stdout;
    let wrong = "--words one-two-three-four-five-six-seven-eight";
    all.run_with(
        &format!("pair accept dpe=dpe.properties {wrong}"),
        block.as_bytes(),
    );
    all.run_with("pair accept dpe=dpe.properties", block.as_bytes());
    all.run_with("pair accept dpe=dpe.properties --yes", b"no block\n");
    let back = all.run_with("pair accept dpe=dpe.properties --yes", block.as_bytes());
    all.run_with(
        "pair accept dpm=dpm.properties --yes -o json",
        back.stdout.as_bytes(),
    );
    all.run("check dpm.properties dpe.properties");
    let next = all.run("rotate prepare --home dpm.properties --one-side --yes");
    all.run_with(
        "pair accept dpe=dpe.properties --yes",
        next.stdout.as_bytes(),
    );
    all.run("rotate activate --home dpm.properties --one-side --yes");
    all.run("rotate activate --home dpm.properties --one-side --except dpe-dev --yes");
    all.run("rotate finish --home dpm.properties --one-side --now --yes");
    all.run("pair --one-side dpm=dpm.properties -o json");
    all.compare("pair_one_side");
}

#[test]
fn check() {
    let mut all = Transcript::paired();
    all.run(&format!("check {DPM} {DPE}")).exits(0);
    all.run(&format!("check {DPM} {DPE} -o json")).exits(0);
    all.run("check missing.properties");
    all.run("check missing.properties -o json");
    let good = all.folder.read(DPM);
    let name = "countersign.deployment.name=dpm-dev";
    let bad = good
        .replace("module=dpe", "module=")
        .replace("is-revoked=false", "is-revoked=perhaps")
        .replace(name, "countersign.deployment.nme=dpm-dev\nother.setting=1");
    all.folder.write("bad.properties", bad);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(all.folder.path("bad.properties"), mode).unwrap();
    }
    all.run("check bad.properties --list-ignored").exits(1);
    all.run("check bad.properties --list-ignored -o json")
        .exits(1);
    all.run("check bad.properties --color always").exits(1);
    all.folder
        .write("other.properties", good.replace("dpm-dev", "dpm-other"));
    all.run(&format!("check other.properties {DPE}"));
    all.run("check --dry-run other.properties");
    all.compare("check");
}

#[test]
fn check_with_fix() {
    let mut all = Transcript::new();
    let seed = include_str!("../data/seed-dpe.properties");
    all.folder.write("dpe.properties", seed);
    all.run("check dpe.properties");
    all.run("check --fix dpe.properties");
    all.run("check --fix --dry-run dpe.properties");
    all.run("check --fix --dry-run dpe.properties -o json");
    all.run("check --fix --yes dpe.properties");
    all.run("check --fix --yes dpe.properties -o json");
    all.compare("check_fix");
}

#[test]
fn deployment() {
    let mut all = Transcript::paired();
    all.run("key gen --out own.jwk --public-out public.jwk");
    let add = "deployment add dpe-two --home dpm --module dpe --public-key public.jwk";
    all.run(&format!("{add} --dry-run"));
    all.run(add);
    all.run(&format!("{add} --yes"));
    all.run(&format!("{add} --yes -o json"));
    all.run("deployment add dpe-dev --home dpm --module dpe --public-key public.jwk --yes");
    all.run("deployment add dpe-new --home dpm --module dpe --public-key own.jwk --yes");
    all.run("deployment add dpe-new --home dpm --module dpe --public-key missing.jwk --yes");
    all.run("deployment list --home dpm");
    all.run("deployment list --home dpm -o json");
    all.run("deployment list --home nowhere");
    all.run("deployment show dpe-two --home dpm");
    all.run("deployment show dpe-two --home dpm -o json");
    all.run("deployment show absent --home dpm");
    all.run("deployment remove dpe-two --home dpm --dry-run");
    all.run("deployment remove dpe-two --home dpm");
    all.run("deployment remove dpe-two --home dpm --yes -o json");
    all.run("deployment remove dpe-two --home dpm --yes");
    all.run("deployment remove dpe-dev --home dpm --yes");
    all.run("deployment list --home dpm");
    all.compare("deployment");
}

#[test]
fn key() {
    let mut all = Transcript::new();
    all.run("key gen");
    all.run("key gen --out own.jwk --public-out public.jwk");
    all.run("key gen --out own.jwk");
    all.run("key gen --out other.jwk -o json");
    all.run("key fingerprint own.jwk");
    all.run("key fingerprint own.jwk -o json");
    all.run("key fingerprint missing.jwk");
    all.folder.write("text.jwk", "no key");
    all.run("key fingerprint text.jwk");
    all.run("key fingerprint text.jwk -o json");
    for form in [
        "jwk",
        "public-jwk",
        "base64",
        "pem-pkcs8",
        "pem-sec1",
        "pem-spki",
    ] {
        all.run(&format!("key export own.jwk --to {form}"));
    }
    all.run("key export own.jwk --to der-spki --out own.der");
    all.run("key export own.jwk --to der-spki --out own.der");
    all.run("key export public.jwk --to base64");
    all.run("key import own.der");
    all.run("key import text.jwk");
    all.compare("key");
}

#[test]
fn token() {
    let mut all = Transcript::paired();
    let token = all.run("token issue --home dpe --audience dpm-dev").stdout;
    all.run("token issue --home dpe --audience dpm-dev -o json");
    all.run("token issue --home dpe --audience absent");
    all.run("token issue --home nowhere --audience dpm-dev");
    all.folder.write("token.txt", &token);
    let (body, _) = token.rsplit_once('.').unwrap();
    all.folder
        .write("bad.txt", format!("{body}.{}", "A".repeat(86)));
    for command in ["verify", "explain"] {
        for home in ["dpm", "dpe"] {
            for file in ["token.txt", "bad.txt"] {
                let line = format!("token {command} --home {home} --token-file {file}");
                all.run(&line);
                all.run(&format!("{line} -o json"));
            }
        }
    }
    all.run_with("token verify --home dpm", b"no token");
    all.run("token verify --home dpm --token-file missing.txt");
    all.run("token inspect --token-file token.txt");
    all.run_with("token inspect", b"no token");
    all.compare("token");
}

#[test]
fn jws() {
    let mut all = Transcript::paired();
    let token = all.run("token issue --home dpe --audience dpm-dev").stdout;
    let text = all.folder.read(DPM);
    let mut lines = text.lines();
    let content = lines.find_map(|line| line.split_once("content="));
    all.folder.write("public.jwk", content.unwrap().1);
    all.folder.run("key gen --public-out other.jwk").exits(0);
    all.run_with("jws verify --jwk public.jwk", token.trim().as_bytes());
    all.run_with(
        "jws verify --jwk public.jwk -o json",
        token.trim().as_bytes(),
    );
    all.run_with("jws verify --jwk other.jwk", token.trim().as_bytes());
    all.run_with("jws verify --jwk public.jwk", b"a.b");
    all.run_with("jws verify --jwk missing.jwk", b"a.b");
    all.compare("jws");
}

#[test]
fn rotate() {
    let both = "--home dpe --peer-file dpm";
    let files = format!("{both} --offline");
    let mut all = Transcript::paired();
    all.run(&format!("rotate status {both}"));
    all.run(&format!("rotate status {both} -o json"));
    all.run(&format!("rotate activate {files} --yes"));
    all.run(&format!("rotate finish {files} --yes"));
    all.run(&format!("rotate prepare {files} --dry-run"));
    all.run(&format!("rotate prepare {files}"));
    all.run(&format!("rotate prepare {files} --yes"));
    all.run(&format!("rotate prepare {files} --yes -o json"));
    all.run(&format!("rotate status {both}"));
    all.run(&format!("rotate status {both} -o json"));
    all.run(&format!("rotate abort {files} --yes"));
    all.run(&format!("rotate prepare {files} --yes -o json"));
    all.run("rotate activate --home dpe --peer-file dpm --yes --timeout 0");
    all.run(&format!("rotate activate {files} --dry-run"));
    all.run(&format!("rotate activate {files} --yes"));
    all.run(&format!("rotate status {both}"));
    all.run(&format!("rotate finish {files} --yes"));
    all.run(&format!("rotate finish {files} --yes -o json"));
    all.run(&format!("rotate finish {files} --now --yes"));
    all.run(&format!("rotate status {both} -o json"));
    all.run(&format!("check {DPM} {DPE}"));
    all.compare("rotate");
}

#[test]
fn rotate_in_one_run() {
    let mut all = Transcript::paired();
    all.run("rotate run --home dpm --peer-file dpe --offline --now --dry-run");
    all.run("rotate run --home dpm --peer-file dpe --offline --now");
    all.run("rotate run --home dpm --peer-file dpe --offline --now --yes");
    all.run("rotate run --home dpm --peer-file dpe --offline --now --yes -o json");
    all.run("rotate run --home nowhere --peer-file dpe --yes");
    all.run("rotate run --home dpm --peer-file dpm --yes");
    all.run("rotate run --home dpm --yes");
    all.compare("rotate_run");
}

#[test]
fn revoke() {
    let mut all = Transcript::paired();
    let revoke = "revoke --home dpm --deployment dpe-dev";
    all.run(&format!("{revoke} --dry-run"));
    all.run(revoke);
    all.run("revoke --home dpm --deployment absent --yes");
    all.run("revoke --home dpm --fingerprint absent --yes");
    all.run("revoke --home dpm --yes");
    all.run("revoke --home nowhere --deployment dpe-dev --yes");
    all.run(&format!("{revoke} --yes --watch --timeout 0"));
    all.run(&format!("{revoke} --yes"));
    all.run(&format!("{revoke} --yes -o json"));
    all.compare("revoke");
}

#[test]
fn explain() {
    let mut codes = Transcript::new();
    for code in Code::ALL {
        codes.run(&format!("explain {code}"));
    }
    codes.run("explain CS0201 -o json");
    codes.run("explain banana");
    codes.compare("explain_codes");
    let mut reasons = Transcript::new();
    for reason in Reason::ALL {
        reasons.run(&format!("explain {reason}"));
    }
    reasons.run("explain KEY_UNKNOWN -o json");
    reasons.run("explain --log missing");
    let log = include_str!("../data/seed_001_log.jsonl");
    reasons.folder.write("log.jsonl", log);
    reasons.run("explain --log log.jsonl");
    reasons.compare("explain_reasons");
}

#[test]
fn commands_that_find_no_module_running() {
    let mut all = Transcript::paired();
    all.run("engines list --home dpm");
    all.run("engines list --home dpe -o json");
    all.run("engines list --home nowhere");
    all.run("engines show --home dpm 0031debd-6130-4b4a-8eaf-7a834555cf33");
    all.run("engines show --home dpm no-id");
    all.run("doctor --home dpm");
    all.run("doctor --home dpe");
    all.run("doctor --home dpe -o json");
    all.run("doctor --home dpe --peer absent");
    all.run("doctor --home nowhere");
    all.run("dpm run --home nowhere");
    all.run("dpe run --home nowhere");
    let broken = all.folder.read(DPE).replace("content={", "content=");
    all.folder
        .write(DPE, broken.replace("fingerprint=", "fingerprint=A"));
    all.run("dpm run --home dpm --set ataccama.server.grpc.port=port");
    all.compare("not_running");
}

#[cfg(unix)]
#[test]
fn commands_that_find_modules_running() {
    let mut all = Transcript::paired();
    let port = free_port();
    for file in [DPM, DPE] {
        let text = all.folder.read(file);
        let text = text.replace("grpc.port=1\n", &format!("grpc.port={port}\n"));
        all.folder.write(file, text);
    }
    let mut dpm = Running::start(&all.folder, "dpm run --home dpm");
    let started = dpm.until(" startup ");
    let engine = "dpe run --home dpe --set ataccama.server.grpc.port=0";
    let mut dpe = Running::start(&all.folder, engine);
    let registered = dpe.until("Engine registered");
    let ready = dpm.until("newStatus=READY");
    all.note(&format!("log lines\n{started}{registered}{ready}"));

    let listed = all.run("engines list --home dpm -o json").exits(0).json();
    let id = listed["engines"][0]["id"].as_str().unwrap().to_owned();
    all.run("engines list --home dpm");
    all.run("engines list --home dpe");
    all.run(&format!("engines show --home dpm {id}"));
    all.run(&format!("engines show --home dpm {id} -o json"));
    all.run("engines show --home dpm 0031debd-6130-4b4a-8eaf-7a834555cf33");
    all.run("dpm run --home dpm");
    all.run("doctor --home dpe");
    all.run("doctor --home dpe -o json");
    all.run("doctor --home dpm");
    all.run("doctor --home dpm -o json");
    all.run("doctor --home dpm --peer dpe-dev");
    all.run("rotate prepare --home dpe --peer-file dpm --yes");
    dpm.until(" configReloaded ");
    all.run("rotate activate --home dpe --peer-file dpm --yes");
    all.run("rotate abort --home dpe --peer-file dpm --yes");

    let stranger = "pair dpm=other.properties dpe=stranger/etc/application.properties";
    all.folder.run(stranger).exits(0);
    let to_dpm = format!(
        "--set ataccama.client.connection.dpm.host=127.0.0.1 \
         --set ataccama.client.connection.dpm.grpc.port={port}"
    );
    all.run(&format!("engines list --home stranger {to_dpm}"));
    all.run(&format!("doctor --home stranger {to_dpm}"));
    all.run(&format!("doctor --home stranger {to_dpm} -o json"));
    all.run("explain --log dpm/log");
    all.run("explain --log dpm/log -o json");
    all.run("token explain --home dpm --log dpm/log");
    all.run("token explain --home dpm --log dpm/log -o json");

    all.run("revoke --home dpm --deployment dpe-dev --yes --watch -o json");
    all.run("doctor --home dpe");
    dpe.signal("-TERM");
    dpm.signal("-TERM");
    let ended = dpm.until(" shutdown ");
    all.note(&format!("log lines\n{ended}"));
    all.compare("running");
}

#[cfg(unix)]
#[test]
fn demo() {
    let mut all = Transcript::new();
    all.run("demo --keep kept").exits(0);
    all.run("demo --keep kept");
    all.run("demo --keep again -o json").exits(0);
    all.compare("demo");
}
