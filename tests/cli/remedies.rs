//! Every command that is printed to be typed is typed into a shell here, in the situation that it
//! is printed for, and ends it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::examples::shell;
use super::support::{Folder, Run, command, private_part};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";

/// A folder whose name a shell would take apart.
const ODD: &str = "it's my $(dpm);x";

/// Two modules in a folder with a name that must be quoted.
struct Odd {
    folder: Folder,
    dpm: String,
    dpe: String,
}

impl Odd {
    fn new() -> Self {
        Self {
            folder: Folder::new(),
            dpm: format!("{ODD}/{DPM}"),
            dpe: format!("{ODD}/{DPE}"),
        }
    }

    fn paired() -> Self {
        let odd = Self::new();
        odd.run(&["pair", &odd.named("dpm"), &odd.named("dpe")])
            .exits(0);
        odd
    }

    /// Returns the file of `module` as `pair` takes it.
    fn named(&self, module: &str) -> String {
        let file = if module == "dpm" {
            &self.dpm
        } else {
            &self.dpe
        };
        format!("{module}={file}")
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

    /// Takes a step of the engine's rotation, as the files have it.
    fn rotate(&self, step: &str, more: &[&str]) -> Run {
        let files = ["--home", &self.dpe, "--peer-file", &self.dpm];
        self.run(&[&["rotate", step][..], &files, more].concat())
    }

    fn status(&self) -> serde_json::Value {
        self.rotate("status", &["-o", "json"]).exits(0).json()
    }

    /// Revokes the key with this fingerprint in the DPM's file.
    fn revoke(&self, fingerprint: &serde_json::Value) {
        let key = fingerprint.as_str().unwrap();
        let at = ["revoke", "--home", &self.dpm, "--yes", "--fingerprint", key];
        self.run(&at).exits(0);
    }

    /// Types the command that `run` prints, which begins as `start`, with `more` after it.
    #[track_caller]
    fn typed(&self, run: &Run, start: &str, more: &str) -> Run {
        let printed = printed(run);
        let found: Vec<_> = printed.iter().filter(|c| c.starts_with(start)).collect();
        let [command] = found.as_slice() else {
            panic!("{start} is printed {} times: {run:#?}", found.len());
        };
        let typed = shell(&self.folder, &format!("{command} {more}"));
        shows_nothing_private(&self.folder, &[&self.dpm, &self.dpe], &typed);
        typed
    }

    #[track_caller]
    fn is_consistent(&self) {
        self.run(&["check", &self.dpm, &self.dpe]).exits(0);
        assert_eq!(self.status()["phase"], "idle");
    }
}

/// Returns the commands that a run prints, each to the end of its line.
fn printed(run: &Run) -> Vec<String> {
    let lines = run.stdout.lines().chain(run.stderr.lines());
    let found = lines.filter_map(|line| {
        let (before, command) = line.split_once("countersign ")?;
        let leads =
            before.trim().is_empty() || before.ends_with(": ") || before.starts_with("next");
        let command = command.split("      ").next().unwrap();
        leads.then(|| format!("countersign {command}"))
    });
    found.collect()
}

/// Checks that no private key of `files` is in what was printed.
#[track_caller]
fn shows_nothing_private(folder: &Folder, files: &[&str], run: &Run) {
    for file in files {
        let text = folder.read(file);
        let lines = text
            .lines()
            .filter_map(|line| line.split_once("generator.key="));
        for key in lines.filter_map(|(_, key)| BASE64_STANDARD.decode(key).ok()) {
            let d = private_part(&String::from_utf8(key).unwrap());
            let shown = [&run.stdout, &run.stderr];
            assert!(shown.iter().all(|text| !text.contains(&d)), "{run:#?}");
        }
    }
}

#[test]
fn each_step_of_a_rotation_prints_the_next_with_the_options_that_were_given() {
    let odd = Odd::paired();

    let mut run = odd.rotate("activate", &["--offline", "--yes"]).exits(1);
    for step in ["prepare", "activate", "finish"] {
        let start = format!("countersign rotate {step} ");
        let printed = printed(&run).join("\n");
        assert!(printed.contains(" --offline"), "{printed}");
        let more = if step == "finish" {
            "--now --yes"
        } else {
            "--yes"
        };
        run = odd.typed(&run, &start, more).exits(0);
    }

    odd.is_consistent();
    odd.typed(&run, "countersign deployment prune ", "--yes")
        .exits(0);
    assert!(!odd.folder.read(&odd.dpm).contains("is-revoked=true"));
    odd.is_consistent();
}

#[test]
fn options_that_were_given_are_in_the_next_command() {
    let odd = Odd::paired();
    let options = [
        "--offline",
        "--peer-address",
        "dpm-dev=[::1]:8531",
        "--except",
        "dpm-dev",
        "--timeout",
        "7",
    ];

    let refused = odd.rotate("activate", &options).exits(1);

    let expected = "--offline --peer-address 'dpm-dev=[::1]:8531' --except dpm-dev --timeout 7";
    let printed = printed(&refused);
    assert!(printed[0].ends_with(expected), "{printed:?}");
    odd.typed(&refused, "countersign rotate prepare", "--yes")
        .exits(0);
}

#[test]
fn a_new_key_that_is_revoked_before_finish_is_replaced_by_the_command_that_is_printed() {
    let odd = Odd::paired();
    let offline = &["--offline", "--yes"];
    odd.rotate("prepare", offline).exits(0);
    odd.rotate("activate", offline).exits(0);
    odd.revoke(&odd.status()["fingerprint"]);

    let status = odd.rotate("status", &[]).exits(0);
    let finish = odd.rotate("finish", &["--offline", "--now", "--yes"]);
    let abort = odd.rotate("abort", &["--yes"]).exits(1);

    assert_eq!(odd.status()["phase"], "refused");
    let start = "countersign rotate prepare";
    for run in [&status, &abort] {
        assert!(printed(run)[0].starts_with(start), "{run:#?}");
    }
    let mut run = odd.typed(&finish.exits(1), start, "--yes").exits(0);
    for step in ["activate", "finish"] {
        let start = format!("countersign rotate {step} ");
        let more = if step == "finish" {
            "--now --yes"
        } else {
            "--yes"
        };
        run = odd.typed(&run, &start, more).exits(0);
    }
    odd.is_consistent();
    let keys = odd.status()["peers"][0]["keys"].clone();
    let revoked: Vec<_> = keys
        .as_array()
        .unwrap()
        .iter()
        .map(|k| &k["revoked"])
        .collect();
    assert_eq!(
        revoked,
        [true, true, false],
        "every key before it is revoked"
    );
}

#[test]
fn run_goes_on_with_another_key_where_the_new_one_is_revoked_before_finish() {
    let odd = Odd::paired();
    let offline = &["--offline", "--yes"];
    odd.rotate("prepare", offline).exits(0);
    odd.rotate("activate", offline).exits(0);
    odd.revoke(&odd.status()["fingerprint"]);

    odd.rotate("run", &["--offline", "--now", "--yes"]).exits(0);

    odd.is_consistent();
}

#[test]
fn run_discards_a_next_key_that_a_peer_has_revoked_and_goes_on() {
    let odd = Odd::paired();
    let offline = &["--offline", "--now", "--yes"];
    odd.rotate("prepare", &["--yes"]).exits(0);
    odd.revoke(&odd.status()["next_fingerprint"]);

    let run = odd.rotate("run", offline).exits(0);

    assert!(run.stderr.contains("the next key is discarded"), "{run:#?}");
    odd.is_consistent();
}

#[test]
fn revoked_key_is_replaced_by_the_rotation_that_check_and_pair_print() {
    for is_check in [true, false] {
        let odd = Odd::paired();
        odd.revoke(&odd.status()["fingerprint"]);

        let refused = if is_check {
            odd.run(&["check", &odd.dpm, &odd.dpe]).exits(1)
        } else {
            let sides = [odd.named("dpm"), odd.named("dpe")];
            odd.run(&["pair", &sides[0], &sides[1], "--yes"]).exits(6)
        };

        odd.typed(&refused, "countersign rotate replace", "--yes")
            .exits(0);
        odd.is_consistent();
    }
}

#[test]
fn revocation_by_mistake_is_taken_back_by_the_command_that_pair_prints_last() {
    let odd = Odd::paired();
    odd.revoke(&odd.status()["fingerprint"]);
    let sides = [odd.named("dpm"), odd.named("dpe")];

    let refused = odd.run(&["pair", &sides[0], &sides[1], "--yes"]).exits(6);

    let start = "countersign revoke --undo ";
    assert!(
        printed(&refused).last().unwrap().starts_with(start),
        "{refused:#?}"
    );
    odd.typed(&refused, start, "--yes").exits(0);
    odd.is_consistent();
}

#[test]
fn next_key_that_is_damaged_is_discarded_by_the_command_that_is_printed() {
    let odd = Odd::paired();
    let damaged = odd.folder.read(&odd.dpe) + "countersign.rotation.next-key=eyJrdHkiOiJFQyI\n";
    odd.folder.write(&odd.dpe, damaged);

    let check = odd.run(&["check", &odd.dpe]).exits(1);

    odd.typed(&check, "countersign rotate abort", "--yes")
        .exits(0);
    odd.is_consistent();
}

#[test]
fn pair_names_the_homes_that_are_started_so_that_a_shell_takes_them_whole() {
    let odd = Odd::new();
    let sides = [odd.named("dpm"), odd.named("dpe")];

    let paired = odd.run(&["pair", &sides[0], &sides[1]]).exits(0);

    let start = &printed(&paired)[0];
    let home = start.strip_prefix("countersign dpm run ").unwrap();
    let list = shell(&odd.folder, &format!("countersign deployment list {home}")).exits(0);
    assert!(list.stdout.contains("dpe-dev"), "{list:#?}");
}

#[test]
fn doctor_names_the_homes_and_files_so_that_a_shell_takes_them_whole() {
    let odd = Odd::paired();
    let port = "ataccama.client.connection.dpm.grpc.port=1\n";
    odd.folder.write(&odd.dpe, odd.folder.read(&odd.dpe) + port);
    let home = format!("{ODD}/dpe");

    let doctor = odd.run(&["doctor", "--home", &home]).exits(5);
    odd.folder.write(&odd.dpe, "a=b\n");
    let unusable = odd.run(&["doctor", "--home", &home]).exits(3);

    let start = &printed(&doctor)[0];
    let dpm = start.strip_prefix("countersign dpm run ").unwrap();
    shell(&odd.folder, &format!("countersign deployment list {dpm}")).exits(0);
    odd.typed(&unusable, "countersign check ", "").exits(1);
    odd.typed(&unusable, "countersign explain CS", "").exits(0);
}

#[test]
fn doctor_in_a_home_folder_finds_the_home_beside_it() {
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    let port = "ataccama.client.connection.dpm.grpc.port=1\n";
    folder.write(DPE, folder.read(DPE) + port);
    for reason in ["KEY_UNKNOWN", "KEY_REVOKED"] {
        let explained = folder.run(&format!("explain {reason} -o json")).exits(0);
        let help = explained.json()["help"].to_string();
        assert!(help.contains("`countersign doctor --home .`"), "{help}");
    }

    let doctor = shell(&folder, "cd dpe && countersign doctor --home .").exits(5);

    let start = printed(&doctor).remove(0);
    let dpm = start.strip_prefix("countersign dpm run ").unwrap();
    shell(
        &folder,
        &format!("cd dpe && countersign deployment list {dpm}"),
    )
    .exits(0);
}

/// Returns the commands in the example of what `explain` says of a code.
fn example(folder: &Folder, code: &str) -> Vec<String> {
    let explained = folder.run(&format!("explain {code}")).exits(0).stdout;
    let (_, example) = explained.split_once("Example:").unwrap();
    let joined = example.replace("\\\n", "");
    let lines = joined.lines().map(str::trim);
    let programs = ["countersign ", "openssl "];
    let commands = lines.filter(|line| programs.iter().any(|one| line.starts_with(one)));
    commands.map(str::to_owned).collect()
}

/// Returns the texts below `folder` of the sources that `explain` shows, by code or reason.
fn explanations(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut all: Vec<_> = files
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(file).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// Writes other text in the place of `old`.
#[track_caller]
fn replace(folder: &Folder, file: &str, old: &str, new: &str) {
    let text = folder.read(file);
    assert!(text.contains(old), "{old} is not in {text}");
    folder.write(file, text.replace(old, new));
}

/// Returns the value of the first setting of `file` whose name ends as `name`.
#[track_caller]
fn value(folder: &Folder, file: &str, name: &str) -> String {
    let text = folder.read(file);
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let found = lines.find(|(key, _)| key.ends_with(name));
    found
        .unwrap_or_else(|| panic!("{name}: {text}"))
        .1
        .to_owned()
}

/// Takes the own key's line out of a file, as the explanation asks.
fn without_own_key(folder: &Folder, file: &str) {
    let text = folder.read(file);
    let lines = text.lines().filter(|line| !line.contains("generator.key="));
    let kept: Vec<_> = lines.collect();
    folder.write(file, kept.join("\n") + "\n");
}

/// Makes the own key of the DPM one without its private part.
fn key_without_d(folder: &Folder) {
    let key = value(folder, DPM, "generator.key");
    let jwk = BASE64_STANDARD.decode(&key).unwrap();
    let mut jwk: serde_json::Value = serde_json::from_slice(&jwk).unwrap();
    jwk.as_object_mut().unwrap().remove("d");
    let public = BASE64_STANDARD.encode(jwk.to_string());
    replace(folder, DPM, &key, &public);
}

/// Writes the own key of the DPM as PEM, into a file of its own and into the settings.
fn key_as_pem(folder: &Folder) {
    let key = value(folder, DPM, "generator.key");
    folder.write("own.txt", &key);
    folder
        .run("key export own.txt --to pem-pkcs8 --out dpm.pem")
        .exits(0);
    replace(folder, DPM, &key, "-----BEGIN PRIVATE KEY-----");
}

/// Gives the DPM's file the DPM's own public key in the place of the engine's.
fn own_key_as_peer(folder: &Folder) {
    for part in ["jwt-keys.key.fingerprint", "jwt-keys.key.content"] {
        let (theirs, own) = (value(folder, DPM, part), value(folder, DPE, part));
        replace(folder, DPM, &theirs, &own);
    }
}

/// Gives the engine the DPM's private key.
fn one_key_for_both(folder: &Folder) {
    let key = value(folder, DPE, "generator.key");
    replace(folder, DPE, &key, &value(folder, DPM, "generator.key"));
}

/// Breaks the engine's public key in the DPM's file over lines.
fn key_over_lines(folder: &Folder) {
    let key = value(folder, DPM, "jwt-keys.key.content");
    replace(folder, DPM, &key, &key.replace(',', ",\n  "));
}

/// Revokes the engine's key, and lets the file say by hand that it did not.
fn trusted_again(folder: &Folder) {
    folder
        .run("revoke --home dpm --deployment dpe-dev --key key --yes")
        .exits(0);
    replace(folder, DPM, "is-revoked=true", "is-revoked=false");
}

/// Takes what one file says of the other module out of both.
fn strangers(folder: &Folder) {
    for file in [DPM, DPE] {
        let text = folder.read(file);
        let lines = text.lines().filter(|line| !line.contains(".deployments."));
        let kept: Vec<_> = lines.collect();
        folder.write(file, kept.join("\n") + "\n");
    }
}

/// Has the DPM trust the engine of the vendor's guide, and no module the other.
fn published_key(folder: &Folder) {
    strangers(folder);
    let prefix = "ataccama.one.platform.deployments.dpe-dev";
    let key = format!("{prefix}.security.jwt-keys.key");
    let lines = [
        format!("{prefix}.module=dpe"),
        format!("{prefix}.security.roles[0]=IMPERSONATION"),
        format!("{key}.fingerprint=KBv0lrEO88ISAnmwXn6Y5jYjG9TvemuZA0yQlq7QpG0"),
        format!("{key}.content={PUBLISHED}"),
    ];
    folder.write(DPM, folder.read(DPM) + &lines.join("\n") + "\n");
}

/// The key of the engine in the vendor's guide.
const PUBLISHED: &str = r#"{"kty":"EC","crv":"P-256","kid":"KBv0lrEO88ISAnmwXn6Y5jYjG9TvemuZA0yQlq7QpG0","x":"KsJKpmDA03Js3o8JWWiH5tyUfv80kaJy60_7BOrwmKo","y":"7kfcrUzl95MQEZnCjhWA0dIIhzK-jvdaAtGRAuBzZbk","alg":"ES256"}"#;

/// Turns TLS on at the DPM alone.
fn tls_on_one_side(folder: &Folder) {
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --tls --yes"))
        .exits(0);
    let text = folder.read(DPE);
    let lines = text.lines().filter(|line| !line.contains("tls"));
    let kept: Vec<_> = lines.collect();
    folder.write(DPE, kept.join("\n") + "\n");
}

/// What is done to the modules in a folder.
type Step<'a> = &'a dyn Fn(&Folder);

#[test]
fn the_example_of_every_explanation_ends_the_situation_that_it_explains() {
    let revoked = |folder: &Folder| replace(folder, DPM, "is-revoked=false", "is-revoked=true");
    let nothing = |_: &Folder| {};
    let registry_without_key = |folder: &Folder| without_own_key(folder, DPM);
    let rows: [(&str, Step<'_>, Step<'_>); 11] = [
        ("CS0104", &key_over_lines, &nothing),
        ("CS0204", &key_without_d, &nothing),
        ("CS0206", &key_as_pem, &registry_without_key),
        ("CS0207", &own_key_as_peer, &nothing),
        ("CS0209", &published_key, &nothing),
        ("CS0210", &trusted_again, &nothing),
        ("CS0302", &revoked, &nothing),
        ("CS0401", &strangers, &nothing),
        ("CS0402", &revoked, &nothing),
        ("CS0404", &one_key_for_both, &nothing),
        ("CS0405", &tls_on_one_side, &nothing),
    ];
    // These are executed by other tests: here, in `explain.rs`, and where certificates are judged.
    let mut known = BTreeSet::from(["CS0202", "CS0203", "CS0308"].map(str::to_owned));
    known.extend(rows.map(|(code, ..)| code.to_owned()));
    let folder = Folder::new();
    let mut all = explanations("src/diagnostic/explain");
    all.retain(|(code, _)| !example(&folder, code).is_empty());
    let with_commands = all.into_iter().map(|(code, _)| code);
    assert_eq!(with_commands.collect::<BTreeSet<_>>(), known);
    for (code, set_up, by_hand) in rows {
        let folder = Folder::new();
        folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
        set_up(&folder);
        let check = format!("check {DPM} {DPE}");
        let found = folder.run(&check);
        assert!(found.stdout.contains(code), "{code}: {found:#?}");
        by_hand(&folder);

        let commands = example(&folder, code);
        assert!(!commands.is_empty(), "{code}");
        for command in commands {
            let answer = match command.split(' ').nth(1) {
                Some("key") => "",
                Some("rotate") if command.contains("rotate run") => " --offline --yes",
                _ => " --yes",
            };
            let typed = shell(&folder, &format!("{command}{answer}")).exits(0);
            shows_nothing_private(&folder, &[DPM, DPE], &typed);
        }

        folder.run(&check).exits(0);
    }
}

/// Returns the commands that the help of reasons names, and `explain` shows.
fn named_by_reasons(folder: &Folder) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (reason, text) in explanations("src/token/explain") {
        let commands = text
            .split('`')
            .filter_map(|part| part.strip_prefix("countersign "));
        let commands: Vec<_> = commands.map(str::to_owned).collect();
        let shown = folder.run(&format!("explain {reason}")).exits(0).stdout;
        let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            commands.iter().all(|command| shown.contains(command)),
            "{reason}: {shown}"
        );
        named.extend(commands);
    }
    named
}

#[test]
fn every_command_that_a_reason_names_can_be_run() {
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    folder
        .run("revoke --home dpm --deployment dpe-dev --yes")
        .exits(0);
    let pair = format!("pair dpm={DPM} dpe={DPE} --yes");
    folder.write(
        "dpe/storage/engine-id",
        "0031debd-6130-4b4a-8eaf-7a834555cf33",
    );
    // What the reasons name, and how it is typed in this folder.
    let rows = [
        (
            "revoke --undo",
            "revoke --undo --home dpm --deployment dpe-dev --yes".to_owned(),
            0,
        ),
        ("check", format!("check {DPM} {DPE}"), 0),
        ("pair", pair.clone(), 0),
        ("pair --tls", format!("{pair} --tls"), 0),
        ("doctor", "doctor --home dpe".to_owned(), 5),
        ("doctor --home .", "doctor --home .".to_owned(), 5),
        (
            "token issue",
            "token issue --home dpe --audience dpm-dev".to_owned(),
            0,
        ),
        ("token explain", "token explain --home dpm".to_owned(), 0),
        ("dpe new-id", "dpe new-id --home dpe".to_owned(), 0),
        (
            "rotate replace",
            "rotate replace --home dpe --peer-file dpm --yes".to_owned(),
            0,
        ),
    ];
    let named = named_by_reasons(&folder);
    let known = rows.iter().map(|(command, ..)| (*command).to_owned());
    assert_eq!(named, known.collect());
    for (command, typed, code) in rows {
        let typed = match command {
            "doctor --home ." => format!("cd dpe && countersign {typed}"),
            "token explain" => {
                format!(
                    "countersign token issue --home dpe --audience dpm-dev | countersign {typed}"
                )
            }
            _ => format!("countersign {typed}"),
        };
        let run = shell(&folder, &typed).exits(code);
        shows_nothing_private(&folder, &[DPM, DPE], &run);
    }
}

#[test]
fn fingerprint_of_a_module_is_printed_by_the_commands_of_explain() {
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    let expected = value(&folder, DPM, "jwt-keys.key.fingerprint");

    let commands = [
        example(&folder, "CS0202").remove(0),
        "countersign key fingerprint dpe".to_owned(),
    ];

    for command in commands {
        let run = shell(&folder, &command).exits(0);
        assert!(run.stdout.contains(&expected), "{command}: {run:#?}");
        shows_nothing_private(&folder, &[DPM, DPE], &run);
    }
}

#[test]
fn free_name_is_suggested_for_another_key() {
    let folder = Folder::new();
    let pair = format!("pair dpm={DPM} dpe={DPE} --yes");
    folder.run(&pair).exits(0);
    for name in ["key2", "key3"] {
        without_own_key(&folder, DPE);
        let run = folder.run(&pair).exits(6);
        assert!(
            run.stderr.contains(&format!("--key-name {name}`")),
            "{run:#?}"
        );
        folder.run(&format!("{pair} --key-name {name}")).exits(0);
    }

    let taken = format!("{pair} --key-name key2");
    without_own_key(&folder, DPE);
    let run = folder.run(&taken).exits(6);

    assert!(run.stderr.contains("--key-name key4`"), "{run:#?}");
}

#[test]
fn lost_or_broken_key_is_replaced_by_the_command_that_pair_prints() {
    let lost = |_: &str| String::new();
    let broken = |key: &str| format!("generator.key={}\n", key.split_at(40).0);
    for line in [&lost as &dyn Fn(&str) -> String, &broken] {
        let odd = Odd::paired();
        let text = odd.folder.read(&odd.dpe);
        let (before, rest) = text
            .split_once("ataccama.authentication.internal.jwt.")
            .unwrap();
        let (key, after) = rest.split_once('\n').unwrap();
        let new = line(key.strip_prefix("generator.key=").unwrap());
        let name = if new.is_empty() {
            ""
        } else {
            "ataccama.authentication.internal.jwt."
        };
        let text = format!("{before}{name}{new}{after}");
        odd.folder.write(&odd.dpe, &text);

        let sides = [odd.named("dpm"), odd.named("dpe")];
        let refused = odd.run(&["pair", &sides[0], &sides[1], "--yes"]);

        assert_eq!(odd.folder.read(&odd.dpe), text);
        let replaced = odd
            .typed(&refused, "countersign rotate replace ", "--yes")
            .exits(0);
        odd.is_consistent();
        // Nothing runs here.
        odd.typed(&replaced, "countersign doctor ", "").exits(5);
    }
}

#[test]
fn lost_or_broken_key_is_replaced_by_the_commands_that_check_and_doctor_print() {
    for is_lost in [true, false] {
        let odd = Odd::paired();
        let text = odd.folder.read(&odd.dpe);
        let key = text.lines().find(|line| line.contains("generator.key="));
        let (name, value) = key.unwrap().split_once('=').unwrap();
        let jwk = String::from_utf8(BASE64_STANDARD.decode(value).unwrap()).unwrap();
        let public = BASE64_STANDARD.encode(jwk.replace("\"d\"", "\"D\""));
        let line = if is_lost {
            String::new()
        } else {
            format!("{name}={public}")
        };
        odd.folder
            .write(&odd.dpe, text.replace(key.unwrap(), &line));

        let check = odd.run(&["check", &odd.dpe]).exits(1);
        let doctor = odd
            .run(&["doctor", "--home", &format!("{ODD}/dpe")])
            .exits(3);

        let found = |run: &Run| {
            let (_, rest) = run
                .stdout
                .split_once("countersign rotate replace ")
                .unwrap();
            let rest = rest.lines().next().unwrap();
            format!("countersign rotate replace {rest}")
        };
        assert_eq!(found(&check), found(&doctor));
        let replaced = shell(&odd.folder, &format!("{} --yes", found(&doctor))).exits(0);
        odd.folder.write("dpe-dev.block", &replaced.stdout);
        let mut said = replaced.stderr.lines();
        let words = said.find_map(|line| line.strip_prefix("words   ")).unwrap();
        let named = odd.named("dpm");
        let accept = [
            "pair",
            "accept",
            &named,
            "--block",
            "dpe-dev.block",
            "--words",
            words,
        ];
        odd.run(&[&accept[..], &["--yes"]].concat()).exits(0);
        odd.is_consistent();
    }
}

#[test]
fn two_machines_are_paired_by_the_commands_that_doctor_prints() {
    let (here, there) = (Folder::new(), Folder::new());
    let both = Folder::new();
    both.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    let own = |file: &str| {
        let text = both.read(file);
        let lines = text.lines().filter(|line| !line.contains(".deployments."));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    };
    here.write("dpe/etc/application.properties", own(DPE));
    there.write("etc/application.properties", own(DPM));

    let doctor = here.run("doctor --home dpe");

    let printed = printed(&doctor);
    let [offer, accept, back] =
        ["pair --one-side", "pair accept dpm", "pair accept dpe"].map(|start| {
            let start = format!("countersign {start}");
            let mut all = printed.iter().filter(|command| command.starts_with(&start));
            all.next().unwrap_or_else(|| panic!("{start}: {doctor:#?}"))
        });
    shell(&here, offer).exits(0);
    there.write("offer.block", here.read("offer.block"));
    shell(&there, &accept.replace(" > ", " --yes > ")).exits(0);
    here.write("reply.block", there.read("reply.block"));
    shell(&here, &format!("{back} --yes")).exits(0);
    both.write(DPE, here.read(DPE));
    both.write(DPM, there.read("etc/application.properties"));
    both.run(&format!("check {DPM} {DPE}")).exits(0);
}
