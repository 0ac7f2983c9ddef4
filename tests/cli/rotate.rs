//! `countersign rotate`.

use std::fs;
#[cfg(target_os = "linux")]
use std::io::Write as _;
#[cfg(target_os = "linux")]
use std::process::{Command, Stdio};

use serde_json::Value;

#[cfg(unix)]
use super::free_port::free_port;
use super::modules::{ANY_PORT, Running, paired_with};
use super::support::{Folder, Run, command, private_part};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";
#[cfg(unix)]
const DPM_LOG: &str = "dpm/log/spring-boot-logger.json.log";
const FILES: &str = "--home dpe --peer-file dpm";

fn paired() -> Folder {
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    folder
}

fn rotate(folder: &Folder, step: &str, more: &str) -> Run {
    folder.run(&format!("rotate {step} {FILES} {more}"))
}

fn status(folder: &Folder) -> Value {
    rotate(folder, "status", "-o json").exits(0).json()
}

/// Returns every value that is a private key in the owner's file.
fn private_keys(folder: &Folder) -> Vec<String> {
    let text = folder.read(DPE);
    let lines = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.ends_with("generator.key") || name.ends_with("next-key")).then_some(value)
    });
    lines.map(str::to_owned).collect()
}

/// Checks that the owner's private keys stand nowhere but in its file.
fn shows_nothing_private(folder: &Folder, run: &Run) {
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    let mut texts = vec![run.stdout.clone(), run.stderr.clone()];
    for (path, bytes) in folder.files() {
        if path != folder.path(DPE) {
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    for key in private_keys(folder) {
        let jwk = String::from_utf8(BASE64_STANDARD.decode(&key).unwrap()).unwrap();
        let d = private_part(&jwk);
        for text in &texts {
            assert!(!text.contains(&d) && !text.contains("\"d\""), "{text}");
            // The part of the base64 that is of `d`; what is before it is the same in every key.
            for part in key.as_bytes()[24..80].windows(24) {
                assert!(!text.contains(str::from_utf8(part).unwrap()), "{text}");
            }
        }
    }
}

#[test]
fn a_key_is_changed_in_three_steps() {
    let folder = paired();
    let old = status(&folder)["fingerprint"].clone();

    let prepared = rotate(&folder, "prepare", "--yes").exits(0);
    shows_nothing_private(&folder, &prepared);
    assert_eq!(private_keys(&folder).len(), 2);
    assert!(
        prepared
            .stdout
            .contains("next-key=«private key, 364 chars»")
    );
    let next = "\nnext    countersign rotate activate --home dpe --peer-file dpm\n";
    assert!(prepared.stdout.ends_with(next), "{}", prepared.stdout);
    let there = status(&folder);
    assert_eq!(there["phase"], "prepared");
    assert_eq!(there["peers"][0]["keys"].as_array().unwrap().len(), 2);

    let activated = rotate(&folder, "activate", "--yes").exits(0);
    shows_nothing_private(&folder, &activated);
    assert_eq!(private_keys(&folder).len(), 1);
    assert_eq!(status(&folder)["fingerprint"], there["next_fingerprint"]);
    assert_eq!(status(&folder)["previous_fingerprint"], old);

    let early = rotate(&folder, "finish", "--yes").exits(1);
    let (_, left) = early.stderr.split_once("may be accepted for ").unwrap();
    let left: u64 = left.split(' ').next().unwrap().parse().unwrap();
    // The longest lifetime, the leeway and a reload, but for the time that this test took.
    assert!((700..=932).contains(&left), "{early:?}");
    let finished = rotate(&folder, "finish", "--now --yes -o json")
        .exits(0)
        .json();
    assert_eq!(
        (&finished["phase"], &finished["written"]),
        (&"idle".into(), &true.into())
    );
    let keys = &status(&folder)["peers"][0]["keys"];
    assert_eq!(
        (&keys[0]["revoked"], &keys[0]["fingerprint"]),
        (&true.into(), &old)
    );
    assert_eq!(
        (&keys[1]["revoked"], &keys[1]["role"]),
        (&false.into(), &"signs".into())
    );
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn run_takes_all_steps_of_either_side_and_goes_on_from_any() {
    let folder = paired();
    for steps in [&[][..], &["prepare"], &["prepare", "activate"]] {
        for files in ["--home dpe --peer-file dpm", "--home dpm --peer-file dpe"] {
            let read = |what: &str| {
                let shown = folder
                    .run(&format!("rotate status {files} -o json"))
                    .exits(0);
                shown.json()[what].clone()
            };
            let old = read("fingerprint");
            for step in steps {
                folder.run(&format!("rotate {step} {files} --yes")).exits(0);
            }

            let run = folder
                .run(&format!("rotate run {files} --now --yes"))
                .exits(0);

            assert_eq!(read("phase"), "idle", "{run:?}");
            assert_ne!(read("fingerprint"), old);
            assert_eq!(run.stderr.lines().count(), 3 - steps.len(), "{run:?}");
        }
    }
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

/// Reads what follows `before` in the first line of `text` that has it.
#[cfg(target_os = "linux")]
fn after<'a>(text: &'a str, before: &str) -> &'a str {
    let mut found = text.lines().filter_map(|line| line.split_once(before));
    let (_, rest) = found.next().unwrap_or_else(|| panic!("{before}: {text}"));
    rest.split_whitespace().next().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn run_writes_the_key_that_it_showed() {
    let folder = paired();
    let line = format!(
        "{} rotate run {FILES} --now",
        env!("CARGO_BIN_EXE_countersign")
    );
    let Ok(mut terminal) = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(folder.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    else {
        let required = std::env::var_os("COUNTERSIGN_REQUIRE_PEERS").is_some();
        assert!(!required, "no `script`");
        println!("skipped: there is no `script` on this machine");
        return;
    };
    terminal.stdin.take().unwrap().write_all(b"y\n").unwrap();
    let output = terminal.wait_with_output().unwrap();

    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    let shown = after(&printed, "key2.fingerprint=");
    assert_eq!(after(&printed, "files trust "), shown, "{printed}");
    assert_eq!(status(&folder)["fingerprint"], shown, "{printed}");
}

#[test]
fn nothing_is_written_by_a_dry_run_nor_without_a_yes_nor_twice() {
    let folder = paired();
    let stamp = || {
        [DPM, DPE].map(|file| {
            let modified = fs::metadata(folder.path(file)).unwrap().modified();
            (folder.read(file), modified.unwrap())
        })
    };
    let before = stamp();

    let dry = rotate(&folder, "prepare", "--dry-run").exits(0);
    let unasked = rotate(&folder, "prepare", "").exits(2);
    rotate(&folder, "run", "--dry-run").exits(0);

    assert_eq!(stamp(), before);
    assert!(dry.stdout.ends_with("nothing was written (--dry-run)\n"));
    assert!(unasked.stderr.contains("--yes"), "{unasked:?}");
    rotate(&folder, "prepare", "--yes").exits(0);
    let before = stamp();
    let again = rotate(&folder, "prepare", "").exits(0);
    assert_eq!(stamp(), before);
    assert!(again.stdout.contains("\nnothing to do\n"), "{again:?}");
}

#[test]
fn both_sides_may_rotate_at_once() {
    let folder = paired();
    for round in 1..=3 {
        let both = ["--home dpe --peer-file dpm", "--home dpm --peer-file dpe"].map(|files| {
            let mut run = command(&folder.path(""));
            run.args(["rotate", "run", "--now", "--offline", "--yes"]);
            run.args(files.split(' ')).spawn().unwrap()
        });

        for one in both {
            let output = one.wait_with_output().unwrap();
            assert!(output.status.success(), "{round}: {output:?}");
        }

        folder.run(&format!("check {DPM} {DPE}")).exits(0);
        for file in [DPM, DPE] {
            let revoked = folder.read(file).matches("is-revoked=true").count();
            assert_eq!(revoked, round, "{file}");
        }
    }
}

#[test]
fn abort_with_another_module_s_file_forgets_nothing() {
    let folder = paired();
    let other = "pair dpm=other/etc/application.properties dpe=another.properties";
    folder.run(other).exits(0);
    rotate(&folder, "prepare", "--yes").exits(0);
    let before = folder.read(DPE);

    let refused = folder
        .run("rotate abort --home dpe --peer-file other --yes")
        .exits(1);

    let path = "`other/etc/application.properties`";
    assert!(refused.stderr.contains(path), "{refused:?}");
    assert_eq!(folder.read(DPE), before);
    // A block may be anywhere.
    let expected = "the peers trust the next key until each revokes it";
    let one_side = folder
        .run("rotate abort --home dpe --one-side --yes")
        .exits(0);
    assert!(one_side.stderr.contains(expected), "{one_side:?}");
}

#[test]
fn a_step_out_of_turn_names_the_one_before_it() {
    let folder = paired();

    let unprepared = rotate(&folder, "activate", "--yes").exits(1);
    rotate(&folder, "abort", "--yes").exits(0);
    rotate(&folder, "prepare", "--yes").exits(0);
    let unactivated = rotate(&folder, "finish", "--yes").exits(1);
    rotate(&folder, "activate", "--yes").exits(0);
    let late = rotate(&folder, "abort", "--yes").exits(1);

    let help = "help: first:\n  countersign rotate prepare --home dpe --peer-file dpm\n";
    assert!(unprepared.stderr.ends_with(help), "{unprepared:?}");
    assert!(
        unactivated.stderr.contains("rotate activate --home"),
        "{unactivated:?}"
    );
    assert!(
        late.stderr
            .contains("\n  countersign rotate finish --home dpe --peer-file dpm\n"),
        "{late:?}"
    );
}

#[test]
fn a_peer_that_nothing_is_known_of_is_not_cut_off() {
    let folder = paired();
    let third = "x/etc/application.properties";
    folder
        .run(&format!(
            "pair dpm={DPM} other={third} --name other=other-dev --yes"
        ))
        .exits(0);
    let files = "--home dpm --peer-file dpe";
    folder
        .run(&format!("rotate prepare {files} --yes"))
        .exits(0);

    let refused = folder
        .run(&format!("rotate activate {files} --yes"))
        .exits(1);

    let expected = "`other-dev` is not shown to accept the new key";
    assert!(refused.stderr.contains(expected), "{refused:?}");
    assert!(refused.stderr.contains("--except other-dev"), "{refused:?}");
    folder
        .run(&format!("rotate activate {files} --except other-dev --yes"))
        .exits(0);
    let both = format!("{files} --peer-file x");
    folder.run(&format!("rotate status {both}")).exits(0);
}

#[test]
fn an_option_for_an_unknown_peer_is_refused() {
    let folder = paired();
    let before = [DPM, DPE].map(|file| folder.read(file));
    for step in ["prepare", "run"] {
        for option in ["--except dpm-prod", "--peer-address dpm-prod=localhost:1"] {
            let run = rotate(&folder, step, &format!("{option} --yes")).exits(2);
            let expected = format!(
                "error: `{DPE}` does not trust a deployment `dpm-prod`\nhelp: the peers there: `dpm-dev`\n"
            );
            assert!(run.stderr.ends_with(&expected), "{run:?}");
        }
    }
    assert_eq!([DPM, DPE].map(|file| folder.read(file)), before);
}

#[test]
fn the_old_key_is_not_forgotten_while_a_peer_without_a_file_here_trusts_it() {
    let folder = paired();
    let third = "x/etc/application.properties";
    folder
        .run(&format!(
            "pair dpm={DPM} other={third} --name other=other-dev --yes"
        ))
        .exits(0);
    let all = "--home dpm --peer-file dpe --peer-file x";
    folder.run(&format!("rotate prepare {all} --yes")).exits(0);
    folder.run(&format!("rotate activate {all} --yes")).exits(0);
    let few = "--home dpm --peer-file dpe";
    let before = [DPM, DPE, third].map(|file| folder.read(file));

    let finish = folder.run(&format!("rotate finish {few} --now --yes"));
    let dry = folder.run(&format!("rotate finish {few} --now --dry-run"));
    let whole = folder.run(&format!("rotate run {few} --now --yes"));
    let other = folder.run(&format!("rotate finish {few} --now --yes --except dpe-dev"));

    for run in [finish, dry, whole, other] {
        let run = run.exits(1);
        let expected = "`other-dev` may still trust the old key, and its file is not named";
        assert!(run.stderr.contains(expected), "{run:?}");
        assert!(run.stderr.contains("--except other-dev"), "{run:?}");
    }
    assert_eq!([DPM, DPE, third].map(|file| folder.read(file)), before);
    let left = folder
        .run(&format!(
            "rotate finish {few} --now --yes --except other-dev"
        ))
        .exits(0);
    for part in [
        "the old key may still be trusted by other-dev; nothing here remembers that",
        "\n  countersign revoke --home . --fingerprint",
    ] {
        assert!(left.stderr.contains(part), "{left:?}");
    }
    assert_eq!(folder.read(third), before[2]);
}

/// Moves the lines of the file of `module` that contain `part` into that of an active profile.
fn into_profile(folder: &Folder, module: &str, part: &str) -> String {
    let main = format!("{module}/etc/application.properties");
    let profile = format!("{module}/etc/application-dev.properties");
    let text = folder.read(&main);
    let (moved, rest): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains(part));
    folder.write(&main, rest.join("\n") + "\nspring.profiles.active=dev\n");
    folder.write(&profile, "# dev\n".to_owned() + &moved.join("\n") + "\n");
    profile
}

#[test]
fn rotation_changes_the_settings_where_active_profiles_have_them() {
    let folder = paired();
    let old = status(&folder)["fingerprint"].clone();
    let own = into_profile(&folder, "dpe", "generator.key=");
    let peer = into_profile(&folder, "dpm", ".jwt-keys.key.");
    let mains = [DPM, DPE].map(|file| folder.read(file));
    let key = folder.read(&own);

    rotate(&folder, "prepare", "--offline --yes").exits(0);
    assert!(folder.read(&own).contains("countersign.rotation.next-key="));
    rotate(&folder, "run", "--offline --now --yes").exits(0);

    assert_eq!(status(&folder)["phase"], "idle");
    assert_ne!(status(&folder)["fingerprint"], old);
    assert_ne!(folder.read(&own), key);
    assert_eq!(folder.read(DPE), mains[1]);
    assert!(folder.read(&peer).contains(".jwt-keys.key.is-revoked=true"));
    assert!(folder.read(DPM).contains(".jwt-keys.key2.fingerprint="));
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn a_key_is_activated_in_one_file_or_not_at_all() {
    let folder = paired();
    rotate(&folder, "prepare", "--offline --yes").exits(0);
    let profile = into_profile(&folder, "dpe", "countersign.rotation.next-key=");
    let before = [DPE, &profile].map(|file| folder.read(file));

    let run = rotate(&folder, "activate", "--offline --yes").exits(1);

    assert!(
        run.stderr.contains("move these settings into one file"),
        "{run:?}"
    );
    assert_eq!([DPE, &profile].map(|file| folder.read(file)), before);
}

#[test]
fn what_an_import_decides_is_named_and_not_changed() {
    let folder = paired();
    let key = folder.read(DPE);
    let key = key
        .lines()
        .find(|line| line.contains("generator.key="))
        .unwrap();
    folder.write("dpe/etc/more.properties", format!("# theirs\n{key}\n"));
    folder.write(
        DPE,
        folder.read(DPE) + "spring.config.import=more.properties\n",
    );
    let before = folder.read(DPE);

    let run = rotate(&folder, "run", "--offline --now --yes").exits(1);

    assert!(
        run.stderr.contains("dpe/etc/more.properties:2:1 decides"),
        "{run:?}"
    );
    assert!(
        run.stderr
            .contains(&format!("have the own key in `{DPE}` alone")),
        "{run:?}"
    );
    assert_eq!(folder.read(DPE), before);
    let (_, value) = key.split_once('=').unwrap();
    assert!(
        !run.stderr.contains(value) && !run.stdout.contains(value),
        "{run:?}"
    );
}

#[test]
fn peers_are_named_in_any_spelling() {
    let folder = paired();
    rotate(&folder, "prepare", "--offline --yes").exits(0);

    rotate(&folder, "activate", "--except DPM-Dev --yes --dry-run").exits(0);

    let free = free_port();
    let asked = rotate(
        &folder,
        "activate",
        &format!("--peer-address DPMdev=[::1]:{free} --yes"),
    );
    asked.exits(0);
}

#[test]
fn file_of_a_profile_is_not_taken_for_a_modules() {
    let folder = paired();
    let profile = "dpe/etc/application-dev.properties";
    folder.write(DPE, folder.read(DPE) + "\nspring.profiles.active=dev\n");
    folder.write(profile, "server.port=0\n");
    let before = folder.read(profile);

    for (command, code) in [
        (format!("rotate status --home {profile} --peer-file dpm"), 2),
        (
            format!("rotate prepare --home dpm --peer-file {profile} --yes"),
            2,
        ),
        (format!("deployment list --home {profile}"), 2),
        (
            format!("deployment remove dpm-dev --home {profile} --yes"),
            2,
        ),
        (format!("pair dpm={DPM} dpe={profile} --yes"), 2),
    ] {
        let run = folder.run(&command).exits(code);
        let expected = format!("error: `{profile}` is the file of an active profile of `{DPE}`\n");
        assert!(run.stderr.contains(&expected), "{command}: {run:?}");
        let help = format!("help: name the main file: `{DPE}`\n");
        assert!(run.stderr.ends_with(&help), "{command}: {run:?}");
    }
    assert_eq!(folder.read(profile), before);
    assert_eq!(
        folder.names("dpe/etc"),
        ["application-dev.properties", "application.properties"]
    );
}

#[test]
fn variable_that_overrides_a_change_is_named_and_its_value_is_not_shown() {
    let folder = paired();
    let run = |arguments: &str, variable: &str| {
        let output = command(&folder.path(""))
            .args(arguments.split_whitespace())
            .env(variable, "IN-THE-VARIABLE")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let roles = "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPE_DEV_SECURITY_ROLES";

    let removed = run("deployment remove dpe-dev --home dpm --dry-run", roles);

    let decides = format!("environment variable {roles} decides");
    assert!(removed.contains(&decides), "{removed}");
    assert!(
        removed.contains("security.roles[0]` in `dpm/etc/application.properties` has no effect"),
        "{removed}"
    );
    assert!(!removed.contains("IN-THE-VARIABLE"), "{removed}");
    let before = folder.read(DPM);
    for is_revoked in [
        "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPEDEV_SECURITY_JWTKEYS_KEY_ISREVOKED",
        "ataccama.one.platform.deployments.dpe-dev.security.jwt-keys.key.is-revoked",
    ] {
        let revoked = run("revoke --home dpm --deployment dpe-dev --yes", is_revoked);

        let decides = format!("environment variable {is_revoked} decides");
        assert!(revoked.contains(&decides), "{revoked}");
        assert_eq!(folder.read(DPM), before);
    }
}

#[test]
fn a_key_that_a_variable_overrides_is_not_changed() {
    let folder = paired();
    let own = "ATACCAMA_AUTHENTICATION_INTERNAL_JWT_GENERATOR_KEY";
    let run = |step: &str| {
        let more = match step {
            "abort" => "",
            "prepare" | "activate" => "--offline",
            _ => "--offline --now",
        };
        let arguments = format!("rotate {step} {FILES} {more} --yes");
        let output = command(&folder.path(""))
            .args(arguments.split_whitespace())
            .env(own, "IN-THE-VARIABLE")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let refused = |step: &str| {
        let before = [DPM, DPE].map(|file| folder.read(file));
        let (code, stderr) = run(step);
        assert_eq!(code, Some(1), "{step}: {stderr}");
        let why =
            format!("error: the environment variable `{own}` overrides `generator.key` in `{DPE}`");
        assert!(stderr.starts_with(&why), "{step}: {stderr}");
        assert!(
            stderr.contains(&format!("`unset {own}`")),
            "{step}: {stderr}"
        );
        assert!(!stderr.contains("IN-THE-VARIABLE"), "{step}: {stderr}");
        assert_eq!([DPM, DPE].map(|file| folder.read(file)), before, "{step}");
    };

    for step in ["prepare", "activate", "finish"] {
        refused(step);
        refused("run");
        let now = if step == "finish" { "--now" } else { "" };
        rotate(&folder, step, &format!("--offline {now} --yes")).exits(0);
    }
    rotate(&folder, "prepare", "--yes").exits(0);
    assert_eq!(run("abort").0, Some(0));
}

#[test]
fn a_peer_that_takes_the_connection_and_does_not_answer_is_not_taken_for_absent() {
    let folder = Folder::new();
    // Nothing accepts: the system completes the connection, and nothing answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    folder.write(
        DPM,
        format!("ataccama.server.grpc.port={port}\nserver.port=0\n"),
    );
    folder.write(
        DPE,
        format!(
            "ataccama.client.connection.dpm.host=127.0.0.1\n\
             ataccama.client.connection.dpm.grpc.port={port}\n"
        ),
    );
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);
    rotate(&folder, "prepare", "--yes").exits(0);

    let silent = rotate(&folder, "activate", "--yes --timeout 0").exits(1);
    drop(deaf);
    let absent = rotate(&folder, "activate", "--dry-run").exits(0);
    let offline = rotate(&folder, "activate", "--offline --yes").exits(0);

    let expected = format!("trusts it, but 127.0.0.1:{port} did not answer");
    assert!(silent.stderr.contains(&expected), "{silent:?}");
    assert!(silent.stderr.contains("--offline"), "{silent:?}");
    assert!(absent.stderr.contains(": not reached; `"), "{absent:?}");
    assert!(offline.stderr.contains(": not asked; `"), "{offline:?}");
}

#[test]
fn a_damaged_next_key_is_shown_and_forgotten() {
    let folder = paired();
    let own = folder.read(DPE);
    let key = own
        .lines()
        .find_map(|line| line.split_once("generator.key="));
    // No key at all, and the own one, which peers must not lose.
    for damaged in ["eyJrdHkiOiJFQyI", key.unwrap().1] {
        let next = format!("countersign.rotation.next-key={damaged}\n");
        folder.write(DPE, format!("{own}{next}"));
        let peer = folder.read(DPM);

        let shown = rotate(&folder, "status", "").exits(0);
        let prepare = rotate(&folder, "prepare", "--yes").exits(3);
        let dry = rotate(&folder, "abort", "--dry-run").exits(0);
        assert_eq!(folder.read(DPE), format!("{own}{next}"));
        rotate(&folder, "abort", "--yes").exits(0);

        let expected = "next key    damaged; only `abort` is possible\n";
        assert!(shown.stdout.contains(expected), "{shown:?}");
        let help = "next    countersign rotate abort --home dpe --peer-file dpm\n";
        assert!(shown.stdout.ends_with(help), "{shown:?}");
        for run in [&shown, &prepare] {
            assert!(run.stderr.contains("error[CS020"), "{run:?}");
            let help = "countersign rotate abort --home dpe/etc/application.properties --one-side";
            assert!(run.stderr.contains(help), "{run:?}");
        }
        assert!(
            dry.stdout.contains("- countersign.rotation.next-key"),
            "{dry:?}"
        );
        assert_eq!((folder.read(DPE), folder.read(DPM)), (own.clone(), peer));
    }
    rotate(&folder, "prepare", "--yes").exits(0);
}

#[test]
fn a_next_key_that_a_peer_has_revoked_is_to_be_forgotten() {
    let folder = paired();
    rotate(&folder, "prepare", "--yes").exits(0);
    let next = status(&folder)["next_fingerprint"].clone();
    let next = next.as_str().unwrap();
    folder
        .run(&format!("revoke --home dpm --fingerprint={next} --yes"))
        .exits(0);

    let next_command = status(&folder)["next_command"].clone();
    let abort = "countersign rotate abort --home dpe --peer-file dpm";
    assert_eq!(next_command, abort);
    let refused = rotate(&folder, "prepare", "--yes").exits(1);
    assert!(refused.stderr.contains(abort), "{refused:?}");
    rotate(&folder, "abort", "--yes").exits(0);
    rotate(&folder, "run", "--now --yes").exits(0);
}

#[cfg(unix)]
#[test]
fn activate_waits_until_a_running_peer_has_read_its_file() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let at = format!("--peer-address dpm-dev=127.0.0.1:{}", dpm.port());

    for _ in 0..3 {
        rotate(&folder, "prepare", "--yes").exits(0);
        let activated = rotate(&folder, "activate", &format!("--yes {at}")).exits(0);

        let accepts = "dpm-dev: the running module accepts it, asked at ";
        assert_eq!(
            activated.stderr.matches(accepts).count(),
            1,
            "{activated:?}"
        );
        // What it waits for is for a person at a terminal.
        assert!(!activated.stderr.contains("waiting"), "{activated:?}");
        rotate(&folder, "finish", "--now --yes --offline").exits(0);
    }
}

#[cfg(unix)]
#[test]
fn a_running_peer_has_the_last_word() {
    let folder = Folder::new();
    let port = free_port();
    folder.write(
        DPM,
        format!("ataccama.server.grpc.port={port}\nserver.port=0\n"),
    );
    folder.write(
        DPE,
        format!("ataccama.client.connection.dpm.grpc.port={port}\n"),
    );
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);
    let start = || {
        let mut dpm = Running::start(&folder, "dpm run --home dpm --set countersign.reload=false");
        dpm.until(" startup ");
        dpm
    };
    let dpm = start();
    rotate(&folder, "prepare", "--yes").exits(0);

    let refused = rotate(&folder, "activate", "--yes --timeout 1").exits(1);
    let waited = rotate(&folder, "run", "--yes --timeout 1").exits(1);

    for run in [refused, waited] {
        let expected = "`dpm/etc/application.properties` trusts it: written, not yet active";
        assert!(run.stderr.contains(expected), "{run:?}");
        assert!(run.stderr.contains("`configReloadFailed`"), "{run:?}");
        assert!(
            run.stderr.contains("\n  countersign doctor --home dpe\n"),
            "{run:?}"
        );
    }
    assert_eq!(status(&folder)["phase"], "prepared");
    assert!(!folder.read(DPM_LOG).contains("authRejected"));
    drop(dpm);
    let dpm = start();
    let accepted = rotate(&folder, "activate", "--yes").exits(0);
    let expected = format!("the running module accepts it, asked at localhost:{port}");
    assert!(accepted.stderr.contains(&expected), "{accepted:?}");

    // The file has revoked the old key, and the module does not follow it.
    let held = rotate(&folder, "run", "--now --yes --timeout 1").exits(1);
    let at =
        format!("written, but NOT active: the module at localhost:{port} still accepts the key");
    assert!(held.stderr.contains(&at), "{held:?}");
    assert!(held.stderr.contains("kill -HUP PID"), "{held:?}");
    assert!(!held.stderr.contains("is revoked"), "{held:?}");
    assert!(held.stdout.contains("is-revoked=true"), "{held:?}");
    // Made again it says so again.
    let again = rotate(&folder, "finish", "--now --yes --timeout 1").exits(1);
    assert!(again.stderr.contains(&at), "{again:?}");
    assert!(again.stdout.contains("nothing to do"), "{again:?}");
    drop(dpm);
    rotate(&folder, "finish", "--now --yes").exits(0);
    folder.write(DPM, folder.read(DPM) + "\ncountersign.reload=false\n");
    for step in ["prepare", "activate"] {
        rotate(&folder, step, "--yes").exits(0);
    }
    let unseen = rotate(&folder, "finish", "--now --yes").exits(1);
    let expected = format!("written, but NOT active: `{DPM}` says `countersign.reload=false`");
    assert!(unseen.stderr.contains(&expected), "{unseen:?}");
}

#[cfg(unix)]
#[test]
fn the_old_key_stays_while_the_running_module_signs_with_it() {
    let port = free_port();
    let settings = format!("ataccama.server.grpc.port={port}\nserver.port=0\n");
    let folder = paired_with(&[(DPE, &settings)]);
    let key = private_keys(&folder).remove(0);
    let own = "ATACCAMA_AUTHENTICATION_INTERNAL_JWT_GENERATOR_KEY";
    for variable in [("COUNTERSIGN_RELOAD", "false"), (own, &key)] {
        let mut dpe = Running::start_with(&folder, "dpe run --home dpe", [variable]);
        dpe.until(" startup ");
        if status(&folder)["phase"] == "idle" {
            rotate(&folder, "prepare", "--yes").exits(0);
            rotate(&folder, "activate", "--offline --yes").exits(0);
        }

        let waited = rotate(&folder, "run", "--yes --timeout 1").exits(1);

        let expected = "the running module still signs with its old key";
        assert!(waited.stderr.contains(expected), "{waited:?}");
        let help = "if a variable overrides `generator.key`: start it without";
        assert!(waited.stderr.contains(help), "{waited:?}");
        assert_eq!(status(&folder)["phase"], "activated");
    }
}

#[cfg(unix)]
#[test]
fn a_whole_rotation_is_no_refusal_in_any_log() {
    let folder = Folder::new();
    let (registry, engine) = (free_port(), free_port());
    // A token may reach its last second on its way: without a leeway that is a refusal.
    let short = "ataccama.authentication.internal.jwt.generator.token-expiration=2\n\
                 countersign.token.max-lifetime=2\ncountersign.token.leeway=1s\nserver.port=0\n";
    folder.write(
        DPM,
        format!("{short}ataccama.server.grpc.port={registry}\n"),
    );
    folder.write(
        DPE,
        format!(
            "{short}ataccama.server.grpc.port={engine}\n\
             ataccama.client.connection.dpm.grpc.port={registry}\n"
        ),
    );
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);
    let mut dpm = Running::start(&folder, "dpm run --home dpm");
    dpm.until(" startup ");
    let mut dpe = Running::start(&folder, "dpe run --home dpe");
    dpm.until("newStatus=READY");
    dpm.drain();
    dpe.drain();

    rotate(&folder, "run", "--yes").exits(0);

    dpe.stop();
    dpm.stop();
    for log in [DPM_LOG, "dpe/log/spring-boot-logger.json.log"] {
        let log = folder.read(log);
        assert!(log.contains("configReloaded"), "{log}");
        assert!(!log.contains("authRejected"), "{log}");
    }
}

/// Puts the lines of `file` that hold `part` into a document of the profile `prod`, which is
/// active, before one that is not.
fn in_active_document(folder: &Folder, file: &str, part: &str) {
    let text = folder.read(file);
    let lines = |is_moved: bool| {
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.contains(part) == is_moved);
        lines.collect::<String>()
    };
    let on = "#---\nspring.config.activate.on-profile";
    let documents = format!(
        "{}spring.profiles.active=prod\n{on}=prod\n# what counts\n{}{on}=test\nserver.port=1\n",
        lines(false),
        lines(true)
    );
    folder.write(file, documents);
}

#[test]
fn key_in_an_active_document_is_rotated_there() {
    let folder = paired();
    in_active_document(&folder, DPE, "generator.key");
    in_active_document(&folder, DPM, ".deployments.");
    let before = [DPM, DPE].map(|file| folder.read(file));
    let old = status(&folder)["fingerprint"].clone();

    rotate(&folder, "run", "--offline --now --yes").exits(0);

    let now = status(&folder);
    assert_ne!(now["fingerprint"], old);
    assert_eq!(now["phase"], "idle");
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
    for (file, before) in [DPM, DPE].iter().zip(before) {
        let after = folder.read(file);
        let of = |text: &str, at: usize| text.split("#---").nth(at).unwrap().to_owned();
        assert_ne!(of(&after, 1), of(&before, 1), "{file}");
        assert_eq!(of(&after, 2), of(&before, 2), "{file}");
        assert_eq!(
            after.matches("generator.key").count(),
            before.matches("generator.key").count()
        );
    }
}
