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

use super::examples::{shell, shell_of};
use super::free_port::free_port;
use super::http::poll;
use super::modules::{ANY_PORT, Running};
use super::support::{Folder, Run, command, private_part};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";

/// A folder whose name a shell would take apart.
const ODD: &str = "it's my $(dpm);x";

fn is_command(part: &&str) -> bool {
    let programs = ["countersign ", "chmod ", "openssl "];
    programs.iter().any(|program| part.starts_with(program))
}

/// Returns the commands between backticks.
fn between_backticks(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(is_command)
}

/// Returns the commands in a text: between backticks, or to the end of a line where they stand
/// alone or after a colon.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        found.extend(between_backticks(line).map(str::to_owned));
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
        self.run(&[&["revoke", "--home", &file][..], &key].concat())
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
            // The last line may be half there.
            let mut lines = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let found = lines.rfind(|line| line["eventId"] == event)?;
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
    let _dpm = started(&odd.folder, &start);
    dpe.until("Engine registered");
}

#[test]
fn copied_engine_is_registered_after_the_command_in_its_log_gave_it_an_id_of_its_own() {
    let odd = Odd::paired(&[]);
    let mut dpm = odd.start("dpm");
    dpm.until(" startup ");
    let mut dpe = odd.start("dpe");
    dpe.until("Engine registered");
    let [id, copy] = ["dpe/storage/engine-id", "copy/storage/engine-id"];
    odd.write("copy/etc/application.properties", &odd.read(DPE));
    odd.write(copy, &odd.read(id));
    let start = || {
        let mut command = command(&odd.folder.path(""));
        command.args(["dpe", "run", "--home", &format!("{ODD}/copy")]);
        Running::of(command)
    };
    let clone = start();

    let line = odd.logged("copy", "engineDuplicate");

    let new_id = the_command(&line, "countersign dpe new-id");
    let doctor = odd.run(&["doctor", "--home", &format!("{ODD}/copy")]);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(doctor.stdout.contains("ENGINE_DUPLICATE"), "{doctor:?}");
    assert_eq!(
        the_command(&doctor.stdout, "countersign dpe new-id"),
        new_id
    );
    // It still runs.
    let refused = odd.typed(&new_id).exits(6);
    assert!(
        refused.stderr.contains("stop the engine first"),
        "{refused:?}"
    );
    assert_eq!(odd.read(copy), odd.read(id));
    drop(clone);
    let said = odd.typed(&new_id).exits(0).stdout;
    let ids = [odd.read(id), odd.read(copy)];
    assert_ne!(ids[0], ids[1]);
    for id in ids {
        assert!(said.contains(id.trim()), "{said}");
    }
    start().until("Engine registered");
}

#[test]
fn engine_that_does_not_come_back_is_forgotten_after_the_command_that_is_printed() {
    let odd = Odd::paired(&[]);
    let mut dpm = odd.start("dpm");
    dpm.until(" startup ");
    let dpe = odd.start("dpe");
    let home = format!("{ODD}/dpm");
    let engines = |words: &[&str]| odd.run(&[&["engines"], words, &["--home", &home]].concat());
    let ready = engines(&["wait", "dpe-dev"]).exits(0);
    assert!(ready.stdout.contains("READY"), "{ready:?}");
    for (words, why) in [
        (
            ["dpe-dev", "--status", "inactive"],
            "not INACTIVE within 0 s, but READY",
        ),
        (["nowhere", "--status", "READY"], "no registered engine"),
    ] {
        let waited = engines(&[&["wait", "--timeout", "0"][..], &words].concat()).exits(1);
        assert!(waited.stderr.contains(why), "{waited:?}");
    }

    let refused = engines(&["forget", "dpe-dev"]).exits(1).stderr;

    let inactivate = the_command(&refused, "countersign engines inactivate");
    drop(dpe);
    let inactive = odd.typed(&inactivate).exits(0).stdout;
    assert!(inactive.contains("INACTIVE"), "{inactive}");
    let forgot = engines(&["forget", "dpe-dev"]).exits(0).stdout;
    assert!(forgot.starts_with("forgot engine "), "{forgot}");
    assert!(engines(&["list"]).exits(0).stdout.contains("no engines"));
}

#[test]
fn engine_id_of_a_home_without_one_is_not_made() {
    let odd = Odd::paired(&[]);

    for home in ["dpe", "dpm", "nowhere"] {
        let home = format!("{ODD}/{home}");
        let refused = odd.run(&["dpe", "new-id", "--home", &home]);
        assert!(
            refused.stderr.contains("no engine has started"),
            "{refused:?}"
        );
    }

    assert!(!odd.folder.path(&format!("{ODD}/nowhere")).exists());
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
        let rotate = the_command(
            &(doctor.stdout + &doctor.stderr),
            "countersign rotate replace",
        );
        odd.typed_in_its_home(&format!("{rotate} --yes")).exits(0);
        dpe.until("Engine registered");
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
    dpe.until("Engine registered");
}

#[test]
fn revoked_key_that_is_trusted_again_is_explained_as_its_log_line_says() {
    let folder = super::modules::paired();
    let before = folder.read(DPM);
    let key = "--home dpm --deployment dpe-dev --key key --yes";
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
        exists(&folder, &name);
    }
}

/// Checks that there is a command `name`, and the option that it ends in.
#[track_caller]
fn exists(folder: &Folder, name: &str) {
    let (command, options) = name.split_once(" --").unwrap_or((name, ""));

    let help = shell(folder, &format!("{command} --help")).exits(0).stdout;

    let option = options.split(' ').next().unwrap();
    assert!(help.contains(&format!("--{option}")), "{name}: {help}");
}

#[test]
fn example_that_has_commands_is_carried_out_by_a_test() {
    // Here, in remedies.rs, and in explain.rs.
    let carried_out = [
        "CS0104", "CS0108", "CS0202", "CS0203", "CS0204", "CS0206", "CS0207", "CS0209", "CS0210",
        "CS0302", "CS0308", "CS0401", "CS0402", "CS0404", "CS0405",
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
    let check = format!("check {DPM} {DPE}");
    let found = folder.run(&format!("check --fix {DPM} {DPE} --yes")).stdout;
    assert!(found.contains("CS0209"), "{found}");

    let said = folder.run("explain CS0209").exits(0).stdout;
    let (_, example) = said.split_once("Example:").unwrap();
    without_own_key(&folder);
    for command in commands(example) {
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
    let pair = the_command(&said, "countersign pair");
    shell(&folder, &format!("{pair} --yes")).exits(0);

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

#[test]
fn peer_forgets_the_old_key_by_the_commands_that_a_rotation_on_one_side_prints() {
    let odd = Odd::paired(&[]);
    let mut dpm = odd.start("dpm");
    dpm.until(" startup ");
    let file = format!("{ODD}/{DPE}");
    let there = format!("dpe={ODD}/{DPM}");
    let rotate = |step: &str, more: &[&str]| {
        let start = ["rotate", step, "--home", &file, "--one-side", "--yes"];
        odd.run(&[&start[..], more].concat()).exits(0)
    };
    odd.folder
        .write("offer.block", rotate("prepare", &[]).stdout);
    let accept = ["pair", "accept", &there, "--block", "offer.block", "--yes"];
    odd.run(&accept).exits(0);
    dpm.until(" configReloaded ");
    rotate("activate", &["--except", "dpm-dev"]);

    let finished = rotate("finish", &["--now", "--except", "dpm-dev"]);

    let text = finished.stdout + &finished.stderr;
    let in_its_home = |start| {
        let command = the_command(&text, start);
        odd.typed(&format!("cd \"it's my \\$(dpm);x/dpm\" && {command}"))
    };
    let revoked = in_its_home("countersign revoke").exits(0);
    let said = revoked.stdout + &revoked.stderr;
    assert!(said.contains("active"), "{said}");
    let shown = in_its_home("countersign deployment show").exits(0).stdout;
    assert!(shown.contains("revoked"), "{shown}");
}

#[test]
fn module_that_does_not_follow_its_file_is_looked_at_by_the_doctor_that_a_rotation_prints() {
    let odd = Odd::paired(&[]);
    odd.append(DPM, "countersign.reload=false\n");
    let mut dpm = odd.start("dpm");
    dpm.until(" startup ");
    let (own, peer) = (format!("{ODD}/{DPE}"), format!("{ODD}/{DPM}"));
    let files = [
        "--home",
        &own,
        "--peer-file",
        &peer,
        "--timeout",
        "1",
        "--yes",
    ];
    odd.run(&[&["rotate", "prepare"][..], &files].concat());

    let refused = odd
        .run(&[&["rotate", "activate"][..], &files].concat())
        .exits(1);

    let doctor = odd.typed(&the_command(&refused.stderr, "countersign doctor"));
    assert!(doctor.stdout.contains("8 token       ok"), "{doctor:#?}");
}

#[test]
fn deployment_that_is_not_added_is_added_after_the_commands_that_are_printed() {
    let folder = super::modules::paired();
    let keys = "key gen --out own.jwk --public-out public.jwk";
    folder.run(keys).exits(0);
    let content = |text: &str| {
        let (_, rest) = text.split_once(".content=").unwrap();
        rest.lines().next().unwrap().to_owned()
    };
    folder.write("dpe.jwk", content(&folder.read(DPM)));
    let published = content(include_str!("../data/seed-dpm.properties"));
    folder.write("published.jwk", published);
    let add = |key: &str| {
        format!("countersign deployment add two --home {DPM} --module dpe --public-key {key} --yes")
    };
    let remove = format!("countersign deployment remove two --home {DPM} --yes");

    // A private key, in a file and on stdin: its owner sends the public half.
    for key in ["own.jwk", "- < own.jwk"] {
        let refused = shell(&folder, &add(key)).exits(3);
        let export = the_command(&refused.stderr, "countersign key export");
        shell(
            &folder,
            &format!(
                "{export} {} > half.jwk",
                key.trim_start_matches("own.jwk").trim_start_matches('-')
            ),
        )
        .exits(0);
        assert!(!folder.read("half.jwk").contains("\"d\""));
        shell(&folder, &add("half.jwk")).exits(0);
        shell(&folder, &remove).exits(0);
    }
    // A published one: its owner makes another.
    let refused = shell(&folder, &add("published.jwk")).exits(3);
    let made = the_command(&refused.stderr, "countersign key gen");
    shell(&folder, &made).exits(0);
    shell(&folder, &add("two-public.jwk")).exits(0);
    shell(&folder, &remove).exits(0);
    // One that has another name.
    let refused = shell(&folder, &add("dpe.jwk")).exits(6);
    let first = the_command(&refused.stderr, "countersign deployment remove");
    shell(&folder, &format!("{first} --yes")).exits(0);
    shell(&folder, &add("dpe.jwk")).exits(0);
    folder.run(&format!("check {DPM}")).exits(0);
}

#[test]
fn folder_that_others_may_write_is_closed_by_the_command_that_check_prints() {
    let odd = Odd::paired(&[]);
    let etc = odd.folder.path(ODD).join("dpm/etc");
    fs::set_permissions(&etc, Permissions::from_mode(0o770)).unwrap();
    let home = format!("{ODD}/dpm");

    let found = odd.run(&["check", &home]).exits(1);

    odd.typed(&the_command(&found.stdout, "chmod go-w"));
    odd.run(&["check", &home]).exits(0);
}

#[test]
fn engine_that_is_not_found_is_looked_for_by_the_command_that_is_printed() {
    let odd = Odd::paired(&[]);
    let home = format!("{ODD}/dpm");
    let show = ["engines", "show", "no-engine", "--home", &home];
    let stopped = odd.run(&show).exits(5);
    // The one in the foreground is typed by another test.
    the_command(&stopped.stderr, "countersign dpm run");
    let mut dpm = odd.start("dpm");
    dpm.until(" startup ");

    let unknown = odd.run(&show).exits(1);

    let listed = odd.typed(&the_command(&unknown.stderr, "countersign engines list"));
    assert!(listed.stdout.starts_with("no engines; "), "{listed:#?}");
}

#[test]
fn faulty_deployment_is_shown_by_the_command_that_a_list_prints() {
    let odd = Odd::paired(&[]);
    odd.write(DPM, &odd.read(DPM).replace("{\"kty\"", "{kty\""));
    let file = format!("{ODD}/{DPM}");

    let list = odd.run(&["deployment", "list", "--home", &file]).exits(0);

    let check = the_command(&list.stderr, "countersign check");
    let found = odd.typed(&check).exits(1).stdout;
    assert!(found.contains("error[CS0201]"), "{found}");
}

#[test]
fn name_that_does_not_resolve_is_looked_up_by_the_command_that_doctor_prints() {
    let odd = Odd::paired(&[]);
    odd.append(
        DPE,
        "ataccama.client.connection.dpm.host=no-such-host.invalid\n",
    );
    let home = format!("{ODD}/dpe");

    let doctor = odd.run(&["doctor", "--home", &home]).exits(5);

    let mut lines = doctor.stdout.lines().map(str::trim);
    let lookup = lines.find(|line| line.starts_with("getent ")).unwrap();
    // "not found" is 2.
    let looked_up = odd.typed(lookup).exits(2);
    assert_eq!(looked_up.stdout, "");
}

#[test]
fn file_that_its_user_may_not_read_is_listed_by_the_command_that_doctor_prints() {
    use std::os::unix::process::CommandExt as _;

    let odd = Odd::paired(&[]);
    let file = odd.folder.path(&format!("{ODD}/{DPM}"));
    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    for name in ["", ODD, &format!("{ODD}/dpm"), &format!("{ODD}/dpm/etc")] {
        fs::set_permissions(odd.folder.path(name), Permissions::from_mode(0o755)).unwrap();
    }
    let mut doctor = command(&odd.folder.path(""));
    doctor.args(["doctor", "--home", &format!("{ODD}/dpm")]);
    if std::os::unix::fs::MetadataExt::uid(&file.metadata().unwrap()) == 0 {
        // Root may read every file.
        doctor.uid(65_534).gid(65_534);
    }

    let output = doctor.output().unwrap();

    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let (_, list) = said.split_once("let this user read it: ").unwrap();
    let listed = shell(&odd.folder, list.lines().next().unwrap()).exits(0);
    assert!(listed.stdout.starts_with("----------"), "{listed:#?}");
}

#[test]
fn engine_is_ready_after_the_two_commands_that_pair_prints() {
    let folder = super::modules::paired_with(&[]);
    folder
        .run("deployment remove dpe-dev --home dpm --yes")
        .exits(0);
    let port = free_port();
    let own = format!("ataccama.server.grpc.port={port}\nserver.port=0\n");
    folder.write(DPM, folder.read(DPM) + &own);
    let to_dpm = format!("ataccama.client.connection.dpm.grpc.port={port}\n");
    let any = "ataccama.server.grpc.port=0\nserver.port=0\n";
    folder.write(DPE, folder.read(DPE) + any + &to_dpm);

    let paired = folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);

    let (_, next) = paired.stdout.split_once("next    ").unwrap();
    let mut both = next.lines().next().unwrap().split(" then ").map(str::trim);
    let mut dpm = started(&folder, both.next().unwrap());
    dpm.until(" startup ");
    let _dpe = started(&folder, both.next().unwrap());
    dpm.until("newStatus=READY");
}

/// Types a command that goes on.
fn started(folder: &Folder, line: &str) -> Running {
    let line = line.replace("countersign ", "exec countersign ");
    Running::of(shell_of(folder, &line))
}

#[test]
fn registry_that_is_not_there_answers_after_the_command_that_engines_prints() {
    let odd = Odd::paired(&[]);
    let list = ["engines", "list", "--home", &format!("{ODD}/dpe")];
    let refused = odd.run(&list).exits(5);

    let run = the_command(&refused.stderr, "countersign dpm run --home .");

    // "In its home folder", says the line before.
    let mut dpm = started(
        &odd.folder,
        &format!("cd \"it's my \\$(dpm);x/dpm\" && {run}"),
    );
    dpm.until(" startup ");
    odd.run(&list).exits(0);
}

#[test]
fn engine_of_a_removed_deployment_is_ready_after_the_command_that_doctor_prints() {
    let odd = Odd::paired(&[]);
    let mut dpm = odd.start("dpm");
    dpm.until(" startup ");
    let _dpe = odd.start("dpe");
    dpm.until("newStatus=READY");
    let text = odd.read(DPM);
    let lines = text.lines().filter(|line| !line.contains(".deployments."));
    odd.write(DPM, &(lines.collect::<Vec<_>>().join("\n") + "\n"));
    dpm.until(" configReloaded ");
    let own = odd.read(DPE);
    let (_, key) = own.split_once("generator.key=").unwrap();
    odd.folder.write("own.txt", key.lines().next().unwrap());

    let doctor = odd
        .run(&["doctor", "--home", &format!("{ODD}/dpm")])
        .exits(4);

    odd.typed("countersign key export own.txt --to public-jwk --out dpe-public.jwk")
        .exits(0);
    let add = the_command(&doctor.stdout, "countersign deployment add");
    odd.typed(&format!("{add} --yes")).exits(0);
    dpm.until("newStatus=READY");
}

/// Every kind of command that the code prints, and the test that types it.
const TYPED: [(&str, &str); 29] = [
    (
        "chmod 600",
        "file_that_others_may_write_is_closed_by_the_command_that_the_start_prints",
    ),
    (
        "openssl pkey -out key.pem -in",
        "private_key_with_a_passphrase_is_used_after_the_commands_that_the_start_prints",
    ),
    (
        "countersign check",
        "faulty_deployment_is_shown_by_the_command_that_a_list_prints",
    ),
    (
        "countersign deployment add",
        "engine_of_a_removed_deployment_is_ready_after_the_command_that_doctor_prints",
    ),
    (
        "countersign deployment list",
        "unknown_engine_is_registered_by_the_commands_to_which_its_log_leads",
    ),
    (
        "countersign deployment prune",
        "each_step_of_a_rotation_prints_the_next_with_the_options_that_were_given",
    ),
    (
        "countersign deployment remove",
        "deployment_that_is_not_added_is_added_after_the_commands_that_are_printed",
    ),
    (
        "countersign deployment show",
        "peer_forgets_the_old_key_by_the_commands_that_a_rotation_on_one_side_prints",
    ),
    (
        "countersign doctor",
        "module_that_does_not_follow_its_file_is_looked_at_by_the_doctor_that_a_rotation_prints",
    ),
    (
        "countersign dpe new-id",
        "copied_engine_is_registered_after_the_command_in_its_log_gave_it_an_id_of_its_own",
    ),
    (
        "countersign dpe run",
        "engine_is_ready_after_the_two_commands_that_pair_prints",
    ),
    (
        "countersign dpm run",
        "engine_that_waits_is_registered_by_the_command_in_its_log",
    ),
    (
        "countersign engines inactivate",
        "engine_that_does_not_come_back_is_forgotten_after_the_command_that_is_printed",
    ),
    (
        "countersign explain",
        "damaged_next_key_is_discarded_by_the_command_that_the_start_prints",
    ),
    (
        "countersign key export",
        "deployment_that_is_not_added_is_added_after_the_commands_that_are_printed",
    ),
    (
        "countersign key export -",
        "deployment_that_is_not_added_is_added_after_the_commands_that_are_printed",
    ),
    (
        "countersign key gen",
        "deployment_that_is_not_added_is_added_after_the_commands_that_are_printed",
    ),
    (
        "countersign engines list",
        "engine_that_is_not_found_is_looked_for_by_the_command_that_is_printed",
    ),
    (
        "chmod go-w",
        "folder_that_others_may_write_is_closed_by_the_command_that_check_prints",
    ),
    (
        "countersign pair",
        "unknown_engine_is_registered_by_the_commands_to_which_its_log_leads",
    ),
    (
        "countersign pair --one-side",
        "two_machines_are_paired_by_the_commands_that_doctor_prints",
    ),
    (
        "countersign pair accept",
        "two_machines_are_paired_by_the_commands_that_doctor_prints",
    ),
    (
        "countersign revoke",
        "peer_forgets_the_old_key_by_the_commands_that_a_rotation_on_one_side_prints",
    ),
    (
        "countersign revoke --undo",
        "revocation_by_mistake_is_taken_back_by_the_command_that_the_start_prints",
    ),
    (
        "countersign rotate",
        "each_step_of_a_rotation_prints_the_next_with_the_options_that_were_given",
    ),
    (
        "countersign rotate abort",
        "damaged_next_key_is_discarded_by_the_command_that_the_start_prints",
    ),
    (
        "countersign rotate replace",
        "lost_or_broken_key_is_replaced_by_the_command_that_pair_prints",
    ),
    (
        "ls -l",
        "file_that_its_user_may_not_read_is_listed_by_the_command_that_doctor_prints",
    ),
    (
        "getent ahosts",
        "name_that_does_not_resolve_is_looked_up_by_the_command_that_doctor_prints",
    ),
];

/// Returns the product's code, file by file, without its tests and comments.
fn code(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            code(&path, texts);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(path).unwrap();
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = product
                .lines()
                .filter(|line| !line.trim().starts_with("//"));
            texts.push(lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

#[test]
fn each_kind_of_command_that_is_printed_is_typed_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    code(&root.join("src"), &mut texts);
    let starts = texts
        .iter()
        .flat_map(|text| text.split("CommandLine::new(\"").skip(1));
    let printed: BTreeSet<_> = starts.map(|rest| rest.split('"').next().unwrap()).collect();
    let stated = ["printed", "remedies", "doctor_fixes"]
        .map(|name| fs::read_to_string(root.join(format!("tests/cli/{name}.rs"))).unwrap())
        .concat();

    // The module's kind is its next word: `countersign dpm run`.
    let unknown: Vec<_> = printed
        .iter()
        .filter(|start| **start != "countersign" && TYPED.iter().all(|(typed, _)| typed != *start))
        .collect();
    let without_test: Vec<_> = TYPED
        .iter()
        .filter(|(start, name)| {
            !printed.contains(start) || !stated.contains(&format!("fn {name}()"))
        })
        .collect();

    assert!(
        unknown.is_empty(),
        "type it in a test, and name the test here: {unknown:#?}"
    );
    assert!(without_test.is_empty(), "{without_test:#?}");
}

#[test]
fn each_command_that_a_sentence_of_the_code_names_exists_with_its_options() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    code(&root.join("src"), &mut texts);
    let names: BTreeSet<_> = texts
        .iter()
        .flat_map(|text| text.lines().flat_map(between_backticks))
        .filter(|command| command.starts_with("countersign ") && !command.contains(['{', '=']))
        .map(|command| command.replace(" CODE", " CS0101"))
        .collect();
    assert!(names.len() > 5, "{names:#?}");
    let folder = Folder::new();
    for name in names {
        exists(&folder, &name);
    }
}
