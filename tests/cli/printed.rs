//! The commands that a running module prints in its log, and at its start: each is typed into a
//! shell where it is printed, and ends what it is printed for.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use countersign::Reason;
use countersign::internals::Code;
use serde_json::Value;

use super::examples::shell;
use super::free_port::free_port;
use super::http::poll;
use super::modules::{ANY_PORT, Running};
use super::support::{Folder, Run, command, private_part};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";

/// A folder whose name a shell would take apart.
const ODD: &str = "it's my $(dpm);x";

/// Returns the commands in a text: between backticks, or to the end of a line where they stand
/// alone or after a colon.
fn commands(text: &str) -> Vec<String> {
    let programs = ["countersign ", "chmod ", "openssl "];
    let is_command = |part: &&str| programs.iter().any(|program| part.starts_with(program));
    let mut found = Vec::new();
    for line in text.lines() {
        let quoted = line.split('`').skip(1).step_by(2).filter(is_command);
        found.extend(quoted.map(str::to_owned));
        let after_colon = line.rsplit_once(": ").map(|(_, rest)| rest);
        let alone = after_colon
            .into_iter()
            .chain([line.trim()])
            .find(is_command);
        found.extend(alone.filter(|part| !part.contains('`')).map(str::to_owned));
    }
    found
}

/// Returns the one command in `text` that begins as `start`, however often it is there.
#[track_caller]
fn the_command(text: &str, start: &str) -> String {
    let found: BTreeSet<_> = commands(text).into_iter().collect();
    let mut found = found
        .into_iter()
        .filter(|command| command.starts_with(start));
    let first = found
        .next()
        .unwrap_or_else(|| panic!("{start} is not in {text}"));
    assert_eq!(found.next(), None, "{text}");
    first
}

/// Two modules that are paired, in a folder with a name that must be quoted. Their files name
/// their ports.
struct Odd {
    folder: Folder,
}

impl Odd {
    fn paired(more: &[&str]) -> Self {
        let odd = Self {
            folder: Folder::new(),
        };
        let sides = [("dpm", DPM), ("dpe", DPE)].map(|(m, file)| format!("{m}={ODD}/{file}"));
        let mut pair = vec!["pair", &sides[0], &sides[1], "--yes"];
        pair.extend(more);
        odd.run(&pair).exits(0);
        let port = free_port();
        odd.append(
            DPM,
            &format!("ataccama.server.grpc.port={port}\nserver.port=0\n"),
        );
        let to_dpm = format!("ataccama.client.connection.dpm.grpc.port={port}");
        let own = "ataccama.server.grpc.port=0\nserver.port=0";
        // It looks for its DPM every 5 s unless set otherwise.
        let often = "ataccama.one.dpe.service.dpm.check-connection-interval=100";
        odd.append(DPE, &format!("{own}\n{to_dpm}\n{often}\n"));
        odd
    }

    fn read(&self, file: &str) -> String {
        self.folder.read(&format!("{ODD}/{file}"))
    }

    fn write(&self, file: &str, text: &str) {
        self.folder.write(&format!("{ODD}/{file}"), text);
    }

    fn append(&self, file: &str, lines: &str) {
        self.write(file, &(self.read(file) + lines));
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let output = command(&self.folder.path(""))
            .args(arguments)
            .output()
            .unwrap();
        Run {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn revoke(&self) {
        let file = format!("{ODD}/{DPM}");
        let key = ["--deployment", "dpe-dev", "--key", "key", "--yes"];
        self.run(&[&["revoke", "--file", &file][..], &key].concat())
            .exits(0);
    }

    fn start(&self, module: &str) -> Running {
        let mut command = command(&self.folder.path(""));
        command.args([module, "run", "--home", &format!("{ODD}/{module}")]);
        Running::of(command)
    }

    /// Starts the DPM, whose files have a fault; returns what it prints.
    fn refused(&self) -> String {
        let home = format!("{ODD}/dpm");
        self.run(&["dpm", "run", "--home", &home]).exits(3).stderr
    }

    /// Starts a DPM that accepts calls; returns what it prints before.
    fn starts(&self) -> String {
        let mut dpm = self.start("dpm");
        let mut said = String::new();
        loop {
            let line = dpm.until("");
            if line.contains(" startup ") {
                return said;
            }
            said += &line;
        }
    }

    /// Waits for an event in the log of `module`; returns its message.
    fn logged(&self, module: &str, event: &str) -> String {
        let log = self
            .folder
            .path(&format!("{ODD}/{module}/log/spring-boot-logger.json.log"));
        poll(event, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines = text
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            let found = lines.filter(|line| line["eventId"] == event).last()?;
            let message = found["message"].as_str().unwrap();
            Some(message.split_once("message=").unwrap().1.to_owned())
        })
    }

    /// Types a command in the folder from which the modules were started.
    #[track_caller]
    fn typed(&self, line: &str) -> Run {
        let typed = shell(&self.folder, line);
        self.shows_nothing_private(&typed);
        typed
    }

    /// Types a command in the home of the engine.
    #[track_caller]
    fn typed_in_its_home(&self, line: &str) -> Run {
        self.typed(&format!("cd \"it's my \\$(dpm);x/dpe\" && {line}"))
    }

    #[track_caller]
    fn shows_nothing_private(&self, run: &Run) {
        for file in [DPM, DPE] {
            let text = self.read(file);
            let keys = text
                .lines()
                .filter_map(|line| line.split_once("generator.key="));
            for key in keys.filter_map(|(_, key)| BASE64_STANDARD.decode(key).ok()) {
                let d = private_part(&String::from_utf8(key).unwrap());
                assert!(
                    !run.stdout.contains(&d) && !run.stderr.contains(&d),
                    "{run:#?}"
                );
            }
        }
    }
}

#[test]
fn engine_that_waits_is_registered_by_the_command_in_its_log() {
    let odd = Odd::paired(&[]);
    let mut dpe = odd.start("dpe");

    let line = odd.logged("dpe", "waitingForDpm");

    let start = the_command(&line, "countersign dpm run");
    let binary = Path::new(env!("CARGO_BIN_EXE_countersign"))
        .parent()
        .unwrap();
    let path = env::var("PATH").unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {start}")]);
    shell.current_dir(odd.folder.path(""));
    shell.env("PATH", format!("{}:{path}", binary.display()));
    let _dpm = Running::of(shell);
    dpe.until(" register ");
}

#[test]
fn revoked_engine_is_registered_by_the_commands_to_which_either_log_leads() {
    for (module, event) in [("dpe", "registerRefused"), ("dpm", "authRejected")] {
        let odd = Odd::paired(&[]);
        odd.revoke();
        let mut dpm = odd.start("dpm");
        dpm.until(" startup ");
        let mut dpe = odd.start("dpe");

        let line = odd.logged(module, event);

        // "In its home folder", says the line.
        let doctor = the_command(&line, "countersign doctor");
        let doctor = odd.typed_in_its_home(&doctor).exits(4);
        let rotate = the_command(&(doctor.stdout + &doctor.stderr), "countersign rotate run");
        odd.typed_in_its_home(&format!("{rotate} --yes")).exits(0);
        dpe.until(" register ");
    }
}

#[test]
fn unknown_engine_is_registered_by_the_commands_to_which_its_log_leads() {
    let odd = Odd::paired(&[]);
    let text = odd.read(DPM);
    let lines = text.lines().filter(|line| !line.contains(".deployments."));
    odd.write(DPM, &(lines.collect::<Vec<_>>().join("\n") + "\n"));
    let mut dpm = odd.start("dpm");
    dpm.until(" startup ");
    let mut dpe = odd.start("dpe");

    let line = odd.logged("dpe", "registerRefused");

    let doctor = the_command(&line, "countersign doctor");
    let doctor = odd.typed_in_its_home(&doctor).exits(4);
    let pair = the_command(&(doctor.stdout + &doctor.stderr), "countersign pair dpm=");
    odd.typed_in_its_home(&format!("{pair} --yes")).exits(0);
    dpe.until(" register ");
}

#[test]
fn revoked_key_that_is_trusted_again_is_explained_as_its_log_line_says() {
    let folder = super::modules::paired();
    let before = folder.read(DPM);
    let key = "--file dpm --deployment dpe-dev --key key --yes";
    folder.run(&format!("revoke {key}")).exits(0);
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    dpm.until(" startup ");
    folder.write(DPM, before);
    dpm.signal("-HUP");

    let line = dpm.until(" revokedKeyTrusted ");

    let explain = the_command(&line, "countersign explain");
    let explained = shell(&folder, &explain).exits(0);
    let undo = the_command(&explained.stdout, "countersign revoke --undo");
    shell(&folder, &format!("{undo} --yes")).exits(0);
    dpm.until("dpe-dev revoked → trusted");
}

#[test]
fn file_that_others_may_write_is_closed_by_the_command_that_the_start_prints() {
    let odd = Odd::paired(&[]);
    let file = odd.folder.path(&format!("{ODD}/{DPM}"));
    for mode in [0o666, 0o620] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();

        let refused = odd.refused();

        odd.typed(&the_command(&refused, "countersign explain"))
            .exits(0);
        odd.typed(&the_command(&refused, "chmod ")).exits(0);
        assert_eq!(odd.starts(), "");
    }
}

#[test]
fn damaged_next_key_is_discarded_by_the_command_that_the_start_prints() {
    let odd = Odd::paired(&[]);
    odd.append(DPM, "countersign.rotation.next-key=eyJrdHkiOiJFQyI\n");

    let refused = odd.refused();

    odd.typed(&the_command(&refused, "countersign explain"))
        .exits(0);
    let abort = the_command(&refused, "countersign rotate abort");
    odd.typed(&format!("{abort} --yes")).exits(0);
    assert_eq!(odd.starts(), "");
}

#[test]
fn revocation_by_mistake_is_taken_back_by_the_command_that_the_start_prints() {
    let odd = Odd::paired(&[]);
    let before = odd.read(DPM);
    odd.revoke();
    odd.write(DPM, &before);

    let said = odd.starts();

    let undo = the_command(&said, "countersign revoke --undo");
    odd.typed(&format!("{undo} --yes")).exits(0);
    assert_eq!(odd.starts(), "");
}

/// Runs `openssl`, unless it is not here.
fn has_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output();
    let is_here = found.is_ok_and(|output| output.status.success());
    assert!(
        is_here || env::var_os("COUNTERSIGN_REQUIRE_PEERS").is_none(),
        "openssl is not here"
    );
    is_here
}

#[test]
fn private_key_with_a_passphrase_is_used_after_the_commands_that_the_start_prints() {
    if !has_openssl() {
        return;
    }
    let odd = Odd::paired(&["--tls"]);
    let key = format!("{ODD}/dpm/etc/dpm-dev-tls-key.pem");
    fs::rename(odd.folder.path(&key), odd.folder.path("open.pem")).unwrap();
    let encrypt = "openssl pkey -aes128 -passout pass:secret -in open.pem -out closed.pem";
    odd.typed(encrypt).exits(0);
    fs::rename(odd.folder.path("closed.pem"), odd.folder.path(&key)).unwrap();

    let refused = odd.refused();

    let convert = the_command(&refused, "openssl pkey");
    odd.typed(&format!("{convert} -passin pass:secret"))
        .exits(0);
    odd.typed(&the_command(&refused, "chmod 600")).exits(0);
    let made = odd.folder.path("key.pem");
    let text = odd.read(DPM).replace(
        "file:etc/dpm-dev-tls-key.pem",
        &format!("file:{}", made.display()),
    );
    odd.write(DPM, &text);
    assert_eq!(odd.starts(), "");
}

#[test]
fn private_key_that_others_may_read_is_closed_by_the_command_that_the_start_prints() {
    let odd = Odd::paired(&["--tls"]);
    let key = odd
        .folder
        .path(&format!("{ODD}/dpm/etc/dpm-dev-tls-key.pem"));
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();

    let said = odd.starts();

    odd.typed(&the_command(&said, "chmod 600")).exits(0);
    assert_eq!(odd.starts(), "");
}

#[test]
fn certificate_of_an_authority_is_replaced_as_the_command_that_the_start_prints_explains() {
    if !has_openssl() {
        return;
    }
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                -subj /CN=localhost -keyout dpm/etc/tls-key.pem -out dpm/etc/tls.pem";
    shell(&folder, make).exits(0);
    let tls = "ataccama.server.grpc.tls";
    let lines = format!(
        "{tls}.enabled=true\n{tls}.cert-chain=file:etc/tls.pem\n{tls}.private-key=file:etc/tls-key.pem\n"
    );
    folder.write(DPM, folder.read(DPM) + &lines);
    let run = format!("dpm run --home dpm {ANY_PORT}");

    let refused = folder.run(&run).exits(3).stderr;

    let explained = shell(&folder, &the_command(&refused, "countersign explain")).exits(0);
    let (_, example) = explained.stdout.split_once("Example:").unwrap();
    let make = the_command(&example.replace("\\\n", " "), "openssl req");
    shell(&folder, &format!("cd dpm/etc && {make}")).exits(0);
    Running::start(&folder, &run).until(" startup ");
}

/// What `explain` says of every code and reason.
fn explanations(folder: &Folder) -> impl Iterator<Item = (String, String)> {
    let codes = Code::ALL.iter().map(ToString::to_string);
    let words = codes.chain(Reason::ALL.iter().map(ToString::to_string));
    words.map(|word| {
        let said = folder.run(&format!("explain {word}")).exits(0).stdout;
        (word, said)
    })
}

#[test]
fn every_command_that_an_explanation_names_exists_with_its_options() {
    let folder = Folder::new();
    let mut names = BTreeSet::new();
    for (_, said) in explanations(&folder) {
        let text = said.split("Example:").next().unwrap();
        // Lines are broken at blanks.
        let text = text.replace("\n  ", " ").replace('\n', " ");
        names.extend(
            commands(&text)
                .into_iter()
                .filter(|c| c.starts_with("countersign ")),
        );
    }
    assert!(names.len() > 5, "{names:#?}");
    for name in names {
        let (command, options) = name.split_once(" --").unwrap_or((&name, ""));

        let help = shell(&folder, &format!("{command} --help")).exits(0).stdout;

        let option = options.split(' ').next().unwrap();
        assert!(help.contains(&format!("--{option}")), "{name}: {help}");
    }
}

#[test]
fn example_that_has_commands_is_carried_out_by_a_test() {
    // Here, in remedies.rs, and in explain.rs.
    let carried_out = [
        "CS0104", "CS0108", "CS0202", "CS0203", "CS0204", "CS0206", "CS0207", "CS0209", "CS0210",
        "CS0302", "CS0308", "CS0401", "CS0402", "CS0404",
    ];
    let folder = Folder::new();

    let has_commands: Vec<_> = explanations(&folder)
        .filter(|(_, said)| {
            let example = said
                .split_once("Example:")
                .map_or("", |(_, example)| example);
            !commands(example).is_empty()
        })
        .map(|(word, _)| word)
        .collect();

    assert_eq!(has_commands, carried_out);
}

/// Takes the own keys' lines out of both files, as an explanation asks.
fn without_own_key(folder: &Folder) {
    for file in [DPM, DPE] {
        let text = folder.read(file);
        let lines = text.lines().filter(|line| !line.contains("generator.key"));
        folder.write(file, lines.collect::<Vec<_>>().join("\n") + "\n");
    }
}

#[test]
fn published_key_is_replaced_by_the_commands_of_its_explanation() {
    let folder = Folder::new();
    folder.write(DPM, include_str!("../data/seed-dpm.properties"));
    folder.write(DPE, include_str!("../data/seed-dpe.properties"));
    // The guide's files have other settings as well.
    let port = "server.port=8034\nataccama.server.grpc.port=8532\n";
    folder.write(DPE, folder.read(DPE) + port);
    let check = format!("check {DPM} {DPE}");
    let found = folder.run(&format!("check --fix {DPM} {DPE} --yes")).stdout;
    assert!(found.contains("CS0209"), "{found}");

    let said = folder.run("explain CS0209").exits(0).stdout;
    let (_, example) = said.split_once("Example:").unwrap();
    for command in commands(example) {
        if command.starts_with("countersign pair ") {
            without_own_key(&folder);
        }
        shell(&folder, &format!("{command} --yes")).exits(0);
    }

    let found = folder.run(&check).exits(0).stdout;
    assert!(!found.contains("CS0209"), "{found}");
}

#[test]
fn tls_on_one_side_is_turned_on_for_both_by_the_command_of_its_explanation() {
    let folder = Folder::new();
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --tls"))
        .exits(0);
    let text = folder.read(DPE);
    let lines = text.lines().filter(|line| !line.contains("tls"));
    folder.write(DPE, lines.collect::<Vec<_>>().join("\n") + "\n");
    let check = format!("check {DPM} {DPE}");
    let found = folder.run(&check).exits(1).stdout;
    assert!(found.contains("error[CS0405]"), "{found}");

    let said = folder.run("explain CS0405").exits(0).stdout;
    let pair = the_command(&said, "countersign pair --tls");
    shell(&folder, &format!("{pair} dpm={DPM} dpe={DPE} --yes")).exits(0);

    folder.run(&check).exits(0);
}

#[test]
fn files_and_folders_that_others_may_write_are_closed_by_the_commands_of_their_explanation() {
    let folder = super::modules::paired();
    fs::create_dir_all(folder.path("dpm/storage")).unwrap();
    for (name, mode) in [(DPM, 0o666), ("dpm/etc", 0o777), ("dpm/storage", 0o770)] {
        fs::set_permissions(folder.path(name), Permissions::from_mode(mode)).unwrap();
    }
    let check = format!("check {DPM}");
    let found = folder.run(&check).exits(1).stdout;
    assert_eq!(found.matches("error[CS0108]").count(), 3, "{found}");

    let said = folder.run("explain CS0108").exits(0).stdout;
    let (_, example) = said.split_once("Example:").unwrap();
    for command in commands(example) {
        shell(&folder, &command).exits(0);
    }

    let found = folder.run(&check).exits(0).stdout;
    assert!(!found.contains("CS0108"), "{found}");
}
