//! `countersign pair`.

use std::fs;

use countersign::internals::Document;
use countersign::jose::{KeyMaterial, PublicJwk};

#[cfg(unix)]
use super::support::mode;
use super::support::{Folder, Run, command, private_part};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";
const PAIR: &str = "pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties";
const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

/// Returns the value a file gives a setting.
#[track_caller]
fn value(folder: &Folder, file: &str, key: &str) -> String {
    let text = folder.read(file);
    let document = Document::parse(file.as_ref(), &text);
    let entry = document.entries().iter().rfind(|entry| entry.key() == key);
    let entry = entry.unwrap_or_else(|| panic!("{file} has no {key}:\n{text}"));
    entry.value().to_owned()
}

fn deployment(name: &str, rest: &str) -> String {
    format!("ataccama.one.platform.deployments.{name}.{rest}")
}

/// Returns the fingerprint of a file's own key.
#[track_caller]
fn own_fingerprint(folder: &Folder, file: &str) -> String {
    let key = value(folder, file, OWN_KEY);
    let (key, _) = KeyMaterial::read(key.as_bytes()).unwrap();
    assert!(matches!(key, KeyMaterial::Private(..)));
    key.verifying_key().fingerprint().to_string()
}

/// Checks that `file` trusts the key of `peer` under `name`.
#[track_caller]
fn trusts(folder: &Folder, file: &str, name: &str, peer: &str) {
    let fingerprint = own_fingerprint(folder, peer);
    let key = |rest: &str| {
        value(
            folder,
            file,
            &deployment(name, &format!("security.jwt-keys.key.{rest}")),
        )
    };
    assert_eq!(key("fingerprint"), fingerprint);
    let content = PublicJwk::parse(&key("content")).unwrap();
    assert_eq!(content.key.fingerprint().to_string(), fingerprint);
    assert_eq!(content.kid.unwrap().as_str(), fingerprint);
    assert_eq!(key("is-revoked"), "false");
    assert_eq!(
        value(folder, file, &deployment(name, "security.roles[0]")),
        "IMPERSONATION"
    );
}

fn shows_nothing_private(folder: &Folder, run: &Run) {
    for file in [DPM, DPE] {
        if folder.path(file).exists() {
            let key = value(folder, file, OWN_KEY);
            let shown = format!("{run:?}");
            assert!(!shown.contains(key.get(20..60).unwrap()), "{shown}");
        }
    }
}

fn without(text: &str, key: &str) -> String {
    let kept: Vec<_> = text.lines().filter(|line| !line.starts_with(key)).collect();
    kept.join("\n") + "\n"
}

#[test]
fn two_fresh_modules_trust_each_other_after_one_command() {
    let folder = Folder::new();

    let run = folder.run(PAIR).exits(0);

    trusts(&folder, DPM, "dpe-dev", DPE);
    trusts(&folder, DPE, "dpm-dev", DPM);
    assert_eq!(value(&folder, DPM, &deployment("dpe-dev", "module")), "dpe");
    assert_eq!(
        value(&folder, DPE, &deployment("dpm-dev", "environment")),
        "dev"
    );
    assert_eq!(
        value(&folder, DPM, "countersign.deployment.name"),
        "dpm-dev"
    );
    assert_eq!(
        value(&folder, DPE, "countersign.deployment.name"),
        "dpe-dev"
    );
    assert_eq!(value(&folder, DPM, OWN_KEY).len(), 364);
    assert!(
        run.stdout.contains(&format!(
            "dpm-dev  new key  {}",
            own_fingerprint(&folder, DPM)
        )),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout
            .contains("generator.key=«private key, 364 chars»"),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains("countersign dpm run --home dpm "),
        "{}",
        run.stdout
    );
    assert_eq!(run.stderr, "");
    shows_nothing_private(&folder, &run);
    assert_eq!(folder.names("dpm/etc"), ["application.properties"]);
    #[cfg(unix)]
    for file in [DPM, DPE] {
        assert_eq!(mode(&folder.path(file)), 0o600);
    }
}

#[test]
fn a_second_run_has_nothing_to_do_and_touches_nothing() {
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    let before = [DPM, DPE].map(|file| {
        let metadata = fs::metadata(folder.path(file)).unwrap();
        (folder.read(file), metadata.modified().unwrap())
    });

    let run = folder.run(PAIR).exits(0);

    assert!(run.stdout.ends_with("\nnothing to do\n"), "{}", run.stdout);
    for (file, before) in [DPM, DPE].into_iter().zip(before) {
        let metadata = fs::metadata(folder.path(file)).unwrap();
        assert_eq!((folder.read(file), metadata.modified().unwrap()), before);
    }
}

#[test]
fn what_was_in_the_files_stays_byte_for_byte() {
    let folder = Folder::new();
    let dpm = "# our DPM\r\n\r\n! old\r\nserver.port = 8031\r\nlogging.level: INFO\r\nlast=1";
    let dpe = "#DPE\nb=2\na=1\n\n";
    folder.write(DPM, dpm);
    folder.write(DPE, dpe);

    folder.run(&format!("{PAIR} --yes")).exits(0);

    assert!(folder.read(DPM).starts_with(&format!("{dpm}\r\n")));
    assert!(folder.read(DPE).starts_with(dpe));
    assert!(folder.read(DPM).lines().count() > 10);
    assert!(!folder.read(DPM).replace("\r\n", "").contains('\n'));
    trusts(&folder, DPM, "dpe-dev", DPE);
    trusts(&folder, DPE, "dpm-dev", DPM);
}

#[test]
fn existing_files_are_changed_only_with_a_confirmation() {
    let folder = Folder::new();
    folder.write(DPM, "a=1\n");

    let refused = folder.run(PAIR).exits(2);

    assert_eq!(refused.stdout, "");
    assert!(
        refused.stderr.contains("use `--yes` to apply"),
        "{}",
        refused.stderr
    );
    assert_eq!(folder.read(DPM), "a=1\n");
    assert!(!folder.path("dpe").exists());
    folder.run(&format!("{PAIR} --yes")).exits(0);
}

#[test]
fn a_dry_run_shows_the_change_and_writes_nothing() {
    let folder = Folder::new();
    folder.write(DPM, "a=1\n");

    let run = folder.run(&format!("{PAIR} --dry-run")).exits(0);
    let json = folder
        .run(&format!("{PAIR} --dry-run -o json"))
        .exits(0)
        .json();

    assert!(
        run.stdout
            .contains("  + countersign.deployment.name=dpm-dev\n"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("nothing was written"), "{}", run.stdout);
    assert_eq!(json["written"], false);
    let change = &json["deployments"][0]["changes"][0];
    assert_eq!(
        (&change["key"], &change["value"]),
        (&OWN_KEY.into(), &"«private key, 364 chars»".into())
    );
    assert_eq!(folder.read(DPM), "a=1\n");
    assert_eq!(folder.names(""), ["dpm"]);
}

#[test]
fn a_key_that_is_there_is_reused() {
    let folder = Folder::new();
    folder.run("key gen --out dpm.jwk").exits(0);
    let key = folder.run("key export dpm.jwk --to base64").exits(0).stdout;
    folder.write(DPM, format!("{OWN_KEY}={key}"));

    let run = folder.run(&format!("{PAIR} --yes")).exits(0);

    assert_eq!(value(&folder, DPM, OWN_KEY), key.trim());
    trusts(&folder, DPE, "dpm-dev", DPM);
    assert!(run.stdout.contains("dpm-dev  its key"), "{}", run.stdout);
    assert!(run.stdout.contains("dpe-dev  new key"), "{}", run.stdout);
}

#[test]
fn the_stand_in_of_the_guide_is_no_key() {
    let folder = Folder::new();
    folder.write(DPM, format!("# mine\n{OWN_KEY}=<generated_key>\nz=1\n"));

    folder.run(&format!("{PAIR} --yes")).exits(0);

    trusts(&folder, DPE, "dpm-dev", DPM);
    let text = folder.read(DPM);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].starts_with(OWN_KEY) && lines[2] == "z=1", "{text}");
}

#[test]
fn a_given_key_is_used_where_there_is_none_and_never_replaces_one() {
    let folder = Folder::new();
    folder.run("key gen --out one.jwk").exits(0);
    folder
        .run("key export one.jwk --to pem-sec1 --out one.pem")
        .exits(0);
    folder
        .run("key gen --out two.jwk --public-out public.jwk")
        .exits(0);

    folder.run(&format!("{PAIR} --key dpm=one.pem")).exits(0);
    let name = folder
        .run("key fingerprint one.jwk -o json")
        .exits(0)
        .json();
    assert_eq!(name["fingerprint"], own_fingerprint(&folder, DPM));

    let before = folder.read(DPM);
    let other = folder
        .run(&format!("{PAIR} --key dpm=two.jwk --yes"))
        .exits(6);
    assert!(
        other.stderr.contains("already has a different private key"),
        "{}",
        other.stderr
    );
    folder.run(&format!("{PAIR} --key dpm=one.jwk")).exits(0);
    folder.run(&format!("{PAIR} --key dpm=public.jwk")).exits(3);
    folder
        .run(&format!("{PAIR} --key dpm=missing.jwk"))
        .exits(3);
    folder.run(&format!("{PAIR} --key other=one.jwk")).exits(2);
    assert_eq!(folder.read(DPM), before);
}

#[test]
fn two_modules_with_one_private_key_are_not_paired() {
    let folder = Folder::new();
    folder.run("key gen --out one.jwk").exits(0);

    let run = folder
        .run(&format!("{PAIR} --key dpm=one.jwk --key dpe=one.jwk"))
        .exits(3);

    assert!(
        run.stderr.contains("the same private key"),
        "{}",
        run.stderr
    );
    assert_eq!(folder.names(""), ["one.jwk"]);
}

#[test]
fn half_done_pairs_are_completed() {
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    let whole = folder.read(DPE);
    let content = deployment("dpm-dev", "security.jwt-keys.key.content");
    let fingerprint = deployment("dpm-dev", "security.jwt-keys.key.fingerprint");
    let damaged = [
        without(&whole, &content),
        without(&whole, &fingerprint),
        without(&whole, &deployment("dpm-dev", "security.roles")),
        without(&whole, &deployment("dpm-dev", "module")),
        without(&whole, &deployment("dpm-dev", "")),
        whole.replace("content={\"kty", "content={kty"),
        whole.replace(&fingerprint, &format!("{fingerprint}=x\n#")),
    ];
    for text in damaged {
        assert_ne!(text, whole);
        folder.write(DPE, &text);
        let run = folder.run(&format!("{PAIR} --yes")).exits(0);
        assert!(!run.stdout.contains("new key"), "{}", run.stdout);
        trusts(&folder, DPE, "dpm-dev", DPM);
        folder.run(PAIR).exits(0);
    }
}

#[test]
fn names_environment_and_role_can_be_chosen_and_are_kept() {
    let folder = Folder::new();

    let run = folder
        .run(&format!(
            "{PAIR} --environment test --name dpe=engine-1 --role RUNNER"
        ))
        .exits(0);

    let lines: Vec<_> = run.stdout.lines().take(2).collect();
    assert!(lines[0].starts_with("dpm-test  new key  "), "{lines:?}");
    assert!(lines[1].starts_with("engine-1  new key  "), "{lines:?}");
    assert_eq!(
        value(&folder, DPE, "countersign.deployment.name"),
        "engine-1"
    );
    assert_eq!(
        value(&folder, DPE, &deployment("dpm-test", "environment")),
        "test"
    );
    assert_eq!(
        value(&folder, DPM, &deployment("engine-1", "security.roles[0]")),
        "RUNNER"
    );
    let again = folder.run(&format!("{PAIR} --role runner")).exits(0);
    assert!(
        again.stdout.ends_with("nothing to do\n"),
        "{}",
        again.stdout
    );
    let renamed = folder
        .run(&format!("{PAIR} --name dpe=engine-2 --yes"))
        .exits(6);
    assert!(renamed.stderr.contains("engine-1"), "{}", renamed.stderr);
    folder.run(&format!("{PAIR} --yes")).exits(0);
    assert_eq!(
        value(&folder, DPM, &deployment("engine-1", "security.roles[1]")),
        "IMPERSONATION"
    );
}

#[test]
fn a_second_engine_does_not_slip_into_the_first_ones_place() {
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    let before = folder.read(DPM);
    let second = format!("pair dpm={DPM} dpe=dpe2.properties --yes");

    let refused = folder.run(&second).exits(6);

    assert!(
        refused
            .stderr
            .contains("trusts a different key as `dpe-dev`"),
        "{}",
        refused.stderr
    );
    assert_eq!(folder.read(DPM), before);
    folder.run(&format!("{second} --name dpe=dpe-2")).exits(0);
    trusts(&folder, DPM, "dpe-2", "dpe2.properties");
    trusts(&folder, DPM, "dpe-dev", DPE);
    folder.run(PAIR).exits(0);
}

#[test]
fn a_revoked_key_stays_revoked() {
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    let text = folder
        .read(DPM)
        .replace("is-revoked=false", "is-revoked=true");
    folder.write(DPM, &text);

    let run = folder.run(&format!("{PAIR} --yes")).exits(6);

    assert!(
        run.stderr.contains("has revoked the key of `dpe-dev`"),
        "{}",
        run.stderr
    );
    assert_eq!(folder.read(DPM), text);
}

#[test]
fn files_that_cannot_be_used_are_exit_3_and_nothing_is_written() {
    let folder = Folder::new();
    folder.write("binary", [0_u8, 1, 2]);
    folder.write("broken", "a=\\u12\n");
    folder.write("public", format!("{OWN_KEY}=nonsense\n"));
    folder.write("placeholder", format!("{OWN_KEY}=${{KEY}}\n"));
    for (file, cause) in [
        ("binary", "binary"),
        ("broken", "error[CS0101]"),
        ("public", "own key"),
        ("placeholder", "placeholder"),
        ("binary/below", ""),
    ] {
        let run = folder
            .run(&format!("pair dpm={DPM} dpe={file} --yes"))
            .exits(3);
        assert!(run.stderr.contains(cause), "{}", run.stderr);
        assert_eq!(run.stdout, "");
        assert!(!folder.path(DPM).exists(), "{file}");
    }
    folder.run(&format!("pair dpm={DPM} dpe={DPM}")).exits(2);
    folder.run(&format!("pair dpm={DPM} dpm={DPE}")).exits(2);
    folder.run(&format!("pair dpm={DPM}")).exits(2);
    folder.run("pair dpm dpe").exits(2);
}

#[test]
#[cfg(unix)]
fn a_file_that_gets_a_private_key_is_closed_to_others_and_that_is_said() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    folder.write(DPM, "a=1\n");
    fs::set_permissions(folder.path(DPM), fs::Permissions::from_mode(0o644)).unwrap();

    let run = folder.run(&format!("{PAIR} --yes")).exits(0);

    assert_eq!(mode(&folder.path(DPM)), 0o640);
    assert!(
        run.stderr
            .contains("permissions tightened from 0644 to 0640"),
        "{}",
        run.stderr
    );
    // Root's, where the tests run as root, and otherwise the user's own.
    let named = std::process::Command::new("stat")
        .args(["-c", "(owner %U, group %G)"])
        .arg(folder.path(DPM))
        .output();
    let named = String::from_utf8(named.unwrap().stdout).unwrap();
    assert!(run.stderr.contains(named.trim()), "{named}: {}", run.stderr);
}

#[test]
#[cfg(unix)]
fn a_file_that_is_there_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    let modes = || [DPM, DPE].map(|file| mode(&folder.path(file)));
    for file in [DPM, DPE] {
        fs::set_permissions(folder.path(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    folder.run("key gen --out k --public-out p").exits(0);

    for step in ["prepare", "abort", "prepare", "activate", "finish --now"] {
        let offline = if step == "abort" { "" } else { "--offline" };
        let step = format!("rotate {step} --home dpe --peer-file dpm {offline} --yes");
        folder.run(&step).exits(0);
        assert_eq!(modes(), [0o644; 2], "{step}");
    }
    for command in [
        "deployment add two --module dpe --public-key p --role IMPERSONATION --home dpm --yes",
        "revoke --home dpm --deployment two --yes",
        "deployment remove two --home dpm --yes",
    ] {
        folder.run(command).exits(0);
        assert_eq!(modes(), [0o644; 2], "{command}");
    }
}

#[test]
#[cfg(unix)]
fn a_symbolic_link_is_followed() {
    let folder = Folder::new();
    folder.write("real.properties", "a=1\n");
    std::os::unix::fs::symlink("real.properties", folder.path("dpm.properties")).unwrap();

    folder
        .run(&format!("pair dpm=dpm.properties dpe={DPE} --yes"))
        .exits(0);

    assert!(
        folder
            .path("dpm.properties")
            .symlink_metadata()
            .unwrap()
            .is_symlink()
    );
    trusts(&folder, DPE, "dpm-dev", "real.properties");
}

#[test]
fn the_private_part_stands_in_its_own_file_only() {
    let folder = Folder::new();
    folder.run("key gen --out dpm.jwk").exits(0);
    folder.run(&format!("{PAIR} --key dpm=dpm.jwk")).exits(0);

    let d = private_part(&folder.read("dpm.jwk"));

    assert!(!folder.read(DPE).contains(&d));
    assert!(!folder.read(DPE).contains("\"d\""));
    assert!(!folder.read(DPE).contains(&value(&folder, DPM, OWN_KEY)));
}

#[test]
fn json_names_files_keys_and_changes() {
    let folder = Folder::new();

    let json = folder.run(&format!("{PAIR} -o json")).exits(0).json();

    assert_eq!(json["written"], true);
    let dpm = &json["deployments"][0];
    assert_eq!(dpm["name"], "dpm-dev");
    assert_eq!(dpm["fingerprint"], own_fingerprint(&folder, DPM));
    assert_eq!(
        (&dpm["new_key"], &dpm["new_file"]),
        (&true.into(), &true.into())
    );
    assert_eq!(dpm["file"], DPM);
}

#[test]
fn one_file_by_two_paths_is_a_wrong_use_even_before_its_folder_is_there() {
    let folder = Folder::new();
    for other in [
        "new.properties",
        "./new.properties",
        "sub/../new.properties",
    ] {
        let run = folder
            .run(&format!("pair dpm=new.properties dpe={other}"))
            .exits(2);

        assert!(run.stderr.contains("the same file"), "{}", run.stderr);
        assert_eq!(folder.names(""), [""; 0]);
    }
}

#[test]
fn pair_keeps_the_name_and_the_key_that_an_active_profile_has() {
    let folder = Folder::new();
    folder.run(&format!("{PAIR} --name dpm=other")).exits(0);
    let profile = "dpm/etc/application-dev.properties";
    let text = folder.read(DPM);
    let (trusted, own): (Vec<_>, Vec<_>) = text
        .lines()
        .partition(|line| line.contains(".deployments.") || line.starts_with('#'));
    let main = trusted.join("\n") + "\nspring.profiles.active=dev\n";
    folder.write(DPM, &main);
    let own = own.join("\n") + "\n";
    folder.write(profile, &own);

    let run = folder.run(&format!("{PAIR} --yes -o json")).exits(0);

    assert_eq!(run.json()["deployments"][0]["name"], "other");
    assert_eq!(run.json()["written"], false);
    assert_eq!((folder.read(DPM), folder.read(profile)), (main, own));
}

#[test]
fn pair_changes_a_setting_where_an_active_profile_has_it() {
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    let profile = "dpm/etc/application-dev.properties";
    folder.write(DPM, folder.read(DPM) + "spring.profiles.active=dev\n");
    let roles = deployment("dpe-dev", "security.roles");
    folder.write(profile, format!("{roles}[0]=OTHER\n"));
    let main = folder.read(DPM);

    let run = folder.run(&format!("{PAIR} --yes -o json")).exits(0);

    let changes = &run.json()["deployments"][0]["changes"];
    assert_eq!(changes[0]["key"], format!("{roles}[1]"));
    assert_eq!(folder.read(DPM), main);
    let expected = format!("{roles}[0]=OTHER\n{roles}[1]=IMPERSONATION\n");
    assert_eq!(folder.read(profile), expected);
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn a_name_that_files_have_is_found_in_any_spelling() {
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    let before = [DPM, DPE].map(|file| folder.read(file));

    let names = "--name dpm=DPM-Dev --name dpe=dpeDEV";
    folder.run(&format!("{PAIR} {names} --yes")).exits(0);
    assert_eq!([DPM, DPE].map(|file| folder.read(file)), before);

    let lines = before[0].lines();
    let unnamed: Vec<_> = lines
        .filter(|line| !line.starts_with("countersign."))
        .collect();
    folder.write(DPM, unnamed.join("\n") + "\n");
    folder.run(&format!("{PAIR} {names} --yes")).exits(0);
    assert_eq!(
        value(&folder, DPM, "countersign.deployment.name"),
        "dpm-dev"
    );
}

#[test]
fn pair_warns_of_a_variable_above_a_new_file() {
    let folder = Folder::new();
    let output = command(&folder.path(""))
        .args(PAIR.split(' '))
        .env("COUNTERSIGN_DEPLOYMENT_NAME", "other")
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    for file in [DPM, DPE] {
        let warning = format!(
            "warning: the variable `COUNTERSIGN_DEPLOYMENT_NAME` of this shell overrides \
             `countersign.deployment.name` in `{file}`"
        );
        assert!(stderr.contains(&warning), "{stderr}");
    }
}

#[test]
fn new_settings_never_land_in_a_document_that_depends_on_a_profile() {
    let conditional = "spring.config.activate.on-profile=prod\nserver.port=9999\n";
    for (above, text) in [
        ("# for prod\n", format!("# for prod\n{conditional}")),
        (
            "server.port=8031\n",
            format!("server.port=8031\n#---\n{conditional}"),
        ),
    ] {
        let folder = Folder::new();
        folder.write(DPM, text);

        folder.run(&format!("{PAIR} --yes")).exits(0);

        let after = folder.read(DPM);
        let (first, second) = after.split_once("#---\n").unwrap();
        assert!(
            first.starts_with(above) && first.contains(OWN_KEY),
            "{after}"
        );
        assert_eq!(second, conditional);
        trusts(&folder, DPM, "dpe-dev", DPE);
        folder.run(&format!("check {DPM} {DPE}")).exits(0);
        // A second plan finds nothing to do.
        folder.run(&format!("{PAIR} --yes")).exits(0);
        assert_eq!(folder.read(DPM), after);
    }
}

const TO_HOSTS: &str = "--address dpm=dpm.example --address dpe=dpe.example:9000";

#[test]
fn addresses_are_written_on_both_sides_and_a_second_run_changes_nothing() {
    let folder = Folder::new();

    let run = folder.run(&format!("{PAIR} {TO_HOSTS}")).exits(0);

    for (file, setting, expected) in [
        (DPM, "countersign.server.address", "0.0.0.0"),
        (DPE, "countersign.server.address", "0.0.0.0"),
        (DPE, "ataccama.server.grpc.port", "9000"),
        (DPE, "ataccama.one.dpe.service.hostname", "dpe.example"),
        (DPE, "ataccama.client.connection.dpm.host", "dpm.example"),
        (DPM, "ataccama.server.grpc.tls.mtls", "require"),
    ] {
        assert_eq!(value(&folder, file, setting), expected);
    }
    // The DPM dials what its engines advertise.
    assert!(!folder.read(DPM).contains("connection.dpe.host"));
    let ports = "\nports   a firewall must let through: TCP 8531 to dpm.example, TCP 9000 to \
                 dpe.example\n";
    assert!(run.stdout.contains(ports), "{run:#?}");
    let next = "next    on dpm.example: countersign dpm run --home dpm      then      on \
                dpe.example: countersign dpe run --home dpe\n";
    assert!(run.stdout.ends_with(next), "{run:#?}");
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
    let again = folder.run(&format!("{PAIR} {TO_HOSTS}")).exits(0);
    assert!(again.stdout.ends_with("nothing to do\n"), "{again:#?}");
}

#[test]
fn address_changes_what_the_file_says_and_shows_it() {
    let folder = Folder::new();
    folder.run(&format!("{PAIR} {TO_HOSTS}")).exits(0);
    let to_others = "--address dpm=10.0.0.1:9001 --listen dpm=10.0.0.1 --yes";

    let run = folder.run(&format!("{PAIR} {to_others}")).exits(0);

    for line in [
        "  ~ countersign.server.address=10.0.0.1\n",
        "  + ataccama.server.grpc.port=9001\n",
        "  ~ ataccama.client.connection.dpm.host=10.0.0.1\n",
        "  + ataccama.client.connection.dpm.grpc.port=9001\n",
    ] {
        assert!(run.stdout.contains(line), "{line}: {run:#?}");
    }
    // What was narrowed stays so.
    let wide = "--address dpm=10.0.0.1:9001";
    let again = folder.run(&format!("{PAIR} {wide}")).exits(0);
    assert!(again.stdout.ends_with("nothing to do\n"), "{again:#?}");
}

#[test]
fn address_beyond_the_host_has_tls_unless_plaintext_is_asked_for() {
    let folder = Folder::new();

    folder
        .run(&format!("{PAIR} {TO_HOSTS} --plaintext"))
        .exits(0);

    for file in [DPM, DPE] {
        for end in ["server", "client"] {
            let allowed = format!("countersign.{end}.allow-plaintext");
            assert_eq!(value(&folder, file, &allowed), "true");
        }
        assert!(!folder.read(file).contains("tls"));
    }
    let spelled = folder
        .read(DPM)
        .replace("allow-plaintext=true", "allow-plaintext=on");
    folder.write(DPM, spelled);
    let again = folder.run(&format!("{PAIR} {TO_HOSTS} --plaintext"));
    assert!(again.exits(0).stdout.ends_with("nothing to do\n"));
    let both = format!("{PAIR} {TO_HOSTS} --plaintext --tls");
    folder.run(&both).exits(2);
    let secure = Folder::new();
    secure.run(&format!("{PAIR} {TO_HOSTS}")).exits(0);
    let text = secure.read(DPM);
    let refused = secure.run(&format!("{PAIR} {TO_HOSTS} --plaintext --yes"));
    assert!(refused.exits(1).stderr.contains("has TLS on"));
    assert_eq!(secure.read(DPM), text);
    let near = Folder::new();
    near.run(&format!("{PAIR} --address dpm=localhost:9000"))
        .exits(0);
    assert!(!near.read(DPM).contains("tls") && !near.read(DPM).contains("server.address"));
}

#[test]
fn address_that_is_no_host_is_refused_before_anything_is_written() {
    let folder = Folder::new();
    for address in [
        "dpm=http://dpm.example",
        "dpm=dpm.example:0",
        "dpm=dpm.example:65536",
        "dpm=-x",
        "dpm=",
        "dpm",
        "other=dpm.example",
        "dpm=a..b",
        "dpm=[::1",
        "dpm=0.0.0.0",
        "dpm=::",
        "dpm=224.0.0.1",
        "dpm=<HOST>",
        "dpm=a --address dpm=b",
        "dpm=dpm.example --listen dpm=127.0.0.1",
        "dpm=localhost --listen dpm=0.0.0.0",
        // The DPM would not be reached from there.
        "dpe=dpe.example",
    ] {
        folder.run(&format!("{PAIR} --address {address}")).exits(2);
    }
    for listen in ["dpm=dpm.example", "dpm=10.0.0.5"] {
        folder.run(&format!("{PAIR} --listen {listen}")).exits(2);
    }
    assert_eq!(folder.names(""), [""; 0]);
}

#[test]
fn file_that_dials_another_host_while_it_stays_on_its_own_is_warned_of() {
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    let text = folder.read(DPE) + "ataccama.client.connection.dpm.host=dpm.example\n";
    folder.write(DPE, text + "countersign.client.allow-plaintext=true\n");

    let run = folder.run(&format!("check {DPE}")).exits(0);

    let message = "the DPM is on `dpm.example`, but cannot dial back";
    assert!(run.stdout.contains("CS0307"), "{run:#?}");
    assert!(run.stdout.contains(message), "{run:#?}");
}

/// Returns the arguments that pair a DPM with `count` engines.
fn with_engines(count: usize) -> String {
    let engines = (1..=count).map(|n| format!("dpe=e{n}/etc/application.properties"));
    format!("pair dpm={DPM} {}", engines.collect::<Vec<_>>().join(" "))
}

#[test]
fn engines_are_paired_with_one_dpm_in_one_plan() {
    let folder = Folder::new();
    let all = with_engines(5);

    let run = folder.run(&all).exits(0);

    for name in [
        "dpe-dev",
        "dpe-2-dev",
        "dpe-3-dev",
        "dpe-4-dev",
        "dpe-5-dev",
    ] {
        assert!(run.stdout.contains(&format!("\n{name} ")), "{run:#?}");
        value(&folder, DPM, &deployment(name, "module"));
    }
    for n in 1..=5 {
        let file = format!("e{n}/etc/application.properties");
        trusts(&folder, &file, "dpm-dev", DPM);
        folder.run(&format!("check {DPM} {file}")).exits(0);
    }
    let again = folder.run(&all).exits(0);
    assert!(again.stdout.ends_with("nothing to do\n"), "{again:#?}");
    let more = format!("{} fast:dpe=f/etc/application.properties", with_engines(6));
    let more = folder.run(&format!(
        "{more} --yes --address fast=f.example --address dpm=dpm.example --plaintext"
    ));
    assert!(more.exits(0).stdout.contains("\ndpe-6-dev "));
    value(&folder, DPM, &deployment("fast", "module"));
    let advertised = "ataccama.one.dpe.service.hostname";
    let hostname = value(&folder, "f/etc/application.properties", advertised);
    assert_eq!(hostname, "f.example");
}

#[cfg(unix)]
#[test]
fn thirty_engines_are_one_command_of_less_than_60_lines() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    for n in 1..=30 {
        let file = format!("e{n}/etc/application.properties");
        folder.write(&file, "server.port=0\n");
        fs::set_permissions(folder.path(&file), fs::Permissions::from_mode(0o644)).unwrap();
    }

    let run = folder.run(&format!("{} --yes", with_engines(30))).exits(0);

    let lines = run.stdout.lines().chain(run.stderr.lines());
    assert!(lines.count() < 60, "{run:#?}");
    let others = "and those of 29 other files";
    assert!(run.stderr.contains(others), "{}", run.stderr);
    assert!(run.stdout.contains("checked 31 files"), "{run:#?}");
    assert!(run.stdout.contains("\ndpe-30-dev "), "{run:#?}");
}

#[test]
fn option_for_one_of_several_engines_takes_its_name() {
    let folder = Folder::new();
    let two = with_engines(2);

    let unclear = folder
        .run(&format!("{two} --address dpe=e.example"))
        .exits(2);
    let same = format!("pair dpm={DPM} dpe=e1 dpe=./e1");
    let same = folder.run(&same).exits(2);
    let twins = folder
        .run(&format!("pair dpm={DPM} a:dpe=e1 a:dpe=e2"))
        .exits(2);

    assert!(
        unclear.stderr.contains("there are several `dpe`"),
        "{unclear:#?}"
    );
    assert!(same.stderr.contains("the same file"), "{same:#?}");
    assert!(twins.stderr.contains("both"), "{twins:#?}");
    assert_eq!(folder.names(""), [""; 0]);
}

#[test]
fn tls_that_would_end_another_pairing_is_refused_with_the_command_for_all() {
    let folder = Folder::new();
    folder.run(&with_engines(2)).exits(0);
    let one = format!("{} --address dpm=dpm.example --yes", with_engines(1));

    let refused = folder.run(&one).exits(1);

    assert!(
        refused.stderr.contains("`dpe-2-dev` in plaintext"),
        "{refused:#?}"
    );
    let command = refused.stderr.lines().last().unwrap().trim();
    let file = "e2/etc/application.properties";
    let command = command.replace("FILE-OF-dpe-2-dev", file) + " --yes";
    let all = folder
        .run(command.strip_prefix("countersign ").unwrap())
        .exits(0);
    assert!(all.stdout.contains("0 errors"), "{all:#?}");
    for engine in ["e1/etc/application.properties", file] {
        folder.run(&format!("check {DPM} {engine}")).exits(0);
        // They are on the DPM's host, as they have no address.
        assert!(!folder.read(engine).contains("connection.dpm.host"));
    }
}

#[test]
fn nothing_is_written_that_a_module_would_not_start_with() {
    let folder = Folder::new();
    folder.run(&format!("{PAIR} {TO_HOSTS}")).exits(0);
    folder.run("key gen --out twin.jwk").exits(0);
    let text = folder.read(DPM);

    for (arguments, why) in [
        // The DPM has TLS on.
        ("new:dpe=new.properties", "CS0405"),
        (
            "a:dpe=a b:dpe=b --tls --key a=twin.jwk --key b=twin.jwk",
            "CS0208",
        ),
    ] {
        let run = folder
            .run(&format!("pair dpm={DPM} {arguments} --yes"))
            .exits(1);

        assert!(run.stderr.contains(why), "{run:#?}");
        assert!(run.stderr.contains("nothing is written"), "{run:#?}");
        assert_eq!(folder.read(DPM), text);
    }
    assert!(!folder.path("new.properties").exists() && !folder.path("a").exists());
}

#[test]
fn port_that_the_file_does_not_say_plainly_is_asked_for() {
    for port in ["${p}", "0"] {
        let folder = Folder::new();
        folder.write(DPM, format!("p=9531\nataccama.server.grpc.port={port}\n"));

        let run = folder.run(&format!("{PAIR} {TO_HOSTS} --yes")).exits(2);

        assert!(run.stderr.contains("which port the dpm has"), "{run:#?}");
        assert!(!folder.path(DPE).exists());
    }
}

#[test]
fn peers_that_are_not_pinned_go_on_where_tls_was_on_before() {
    let folder = Folder::new();
    folder.run(&format!("{PAIR} {TO_HOSTS}")).exits(0);
    let text = folder.read(DPM);
    let lines = text
        .lines()
        .filter(|line| !line.contains("mtls") && !line.contains("tls-keys"));
    folder.write(DPM, lines.collect::<Vec<_>>().join("\n") + "\n");
    let more = "new:dpe=new/etc/application.properties --address new=new.example";

    folder.run(&format!(
        "pair dpm={DPM} {more} --address dpm=dpm.example --yes"
    ));

    assert!(!folder.read(DPM).contains("mtls"), "{}", folder.read(DPM));
}
