//! `countersign revoke`.

use super::support::{Folder, private_part};

pub(super) const DPM: &str = "dpm/etc/application.properties";
pub(super) const DPE: &str = "dpe/etc/application.properties";

fn paired() -> Folder {
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    folder
}

#[test]
fn a_key_is_revoked_and_what_stops_working_is_said_before() {
    let folder = paired();
    let before = folder.read(DPM);

    let dry = folder
        .run("revoke --home dpm --deployment dpe-dev --dry-run")
        .exits(0);
    let unasked = folder
        .run("revoke --home dpm --deployment dpe-dev")
        .exits(2);
    assert_eq!(folder.read(DPM), before);
    let run = folder
        .run("revoke --home dpm --deployment dpe-dev --yes")
        .exits(0);
    let again = folder
        .run("revoke --home dpm --deployment dpe-dev -o json")
        .exits(0);

    for run in [dry, unasked, run] {
        assert!(
            run.stderr.contains("all of dpe-dev: no other key of it"),
            "{run:?}"
        );
        assert!(run.stderr.contains("KEY_REVOKED"), "{run:?}");
    }
    assert_eq!(
        folder.read(DPM),
        before.replace("is-revoked=false", "is-revoked=true")
    );
    let report = again.json();
    assert_eq!(
        (&report["written"], &report["keys"][0]["was_revoked"]),
        (&false.into(), &true.into())
    );
}

#[test]
fn only_an_engine_has_engines_that_are_disconnected() {
    let folder = paired();
    let dry = |more: &str| folder.run(&format!("revoke --dry-run {more}")).exits(0);

    let engine = dry("--home dpm --deployment dpe-dev");
    let registry = dry("--home dpe --deployment dpm-dev");

    let all = "all of dpe-dev: no other key of it is trusted here; its engines are DISCONNECTED\n";
    assert!(engine.stderr.contains(all), "{engine:?}");
    let all = "all of dpm-dev: no other key of it is trusted here\n";
    assert!(registry.stderr.contains(all), "{registry:?}");
}

#[test]
fn one_key_of_several_is_revoked_by_name_or_fingerprint() {
    let folder = paired();
    let rotate = "--home dpe --peer-file dpm --yes";
    folder.run(&format!("rotate prepare {rotate}")).exits(0);
    folder.run(&format!("rotate activate {rotate}")).exits(0);
    let status = folder
        .run("rotate status --home dpe --peer-file dpm -o json")
        .json();
    let old = status["previous_fingerprint"].as_str().unwrap();

    let run = folder
        .run(&format!("revoke --home dpm --fingerprint={old} --yes"))
        .exits(0);

    assert!(run.stderr.contains("dpe-dev goes on with key2"), "{run:?}");
    let changed =
        "  ~ ataccama.one.platform.deployments.dpe-dev.security.jwt-keys.key.is-revoked=true\n";
    assert!(run.stdout.ends_with(changed), "{run:?}");
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn missing_keys_and_own_keys_get_different_errors() {
    let folder = paired();
    let status = folder
        .run("rotate status --home dpe --peer-file dpm -o json")
        .json();
    let own = status["fingerprint"].as_str().unwrap();

    let missing = folder
        .run("revoke --home dpm --deployment dpe-prod --yes")
        .exits(1);
    let own = folder
        .run(&format!("revoke --home dpe --fingerprint={own} --yes"))
        .exits(1);
    folder.run("revoke --home dpm --yes").exits(2);
    folder
        .run("revoke --home nowhere --deployment dpe-dev --yes")
        .exits(3);

    assert!(
        missing
            .stderr
            .contains("the files trust: `key` of `dpe-dev`"),
        "{missing:?}"
    );
    assert!(own.stderr.contains("only its peers trust it"), "{own:?}");
}

#[test]
fn a_private_key_in_place_of_a_fingerprint_is_not_shown() {
    let folder = paired();
    let text = folder.read(DPM);
    let jwk = folder.run("key gen").exits(0).stdout;
    let private = private_part(&jwk);
    let place = format!("{KEYS}.key.fingerprint=");
    let one_line: String = jwk.lines().map(str::trim).collect();
    folder.write(DPM, text.replace(&place, &format!("{place}{one_line}")));

    for more in [
        "--deployment dpe-dev --dry-run",
        "--deployment dpe-dev --dry-run -o json",
        "--deployment dpe-prod --yes",
        "--deployment dpe-dev --yes",
    ] {
        let run = folder.run(&format!("revoke --home dpm {more}"));

        let output = run.stdout + &run.stderr;
        assert!(output.contains("dpe-dev"), "{output}");
        assert!(!output.contains(&private), "{more}: {output}");
    }
    assert!(folder.read(DPM).contains("is-revoked=true"));
}

#[test]
fn a_private_key_in_place_of_a_name_is_not_shown() {
    let folder = paired();
    let text = folder.read(DPM);
    let place = "generator.key=";
    let private = text.lines().find_map(|line| line.split_once(place));
    let private = private.unwrap().1.trim_end_matches('=');
    let fingerprint = configured(&text);

    for name in ["deployments.dpe-dev.", "jwt-keys.key."] {
        let (before, _) = name.split_once('.').unwrap();
        folder.write(DPM, text.replace(name, &format!("{before}.{private}.")));
        for more in ["", " -o json"] {
            let run = format!("revoke --home dpm --fingerprint={fingerprint} --dry-run{more}");
            let run = folder.run(&run).exits(0);

            let output = run.stdout + &run.stderr;
            assert!(output.contains("is-revoked"), "{output}");
            assert!(!output.contains(private.get(20..60).unwrap()), "{output}");
        }
    }
}

#[test]
fn an_own_key_is_taken_back_by_the_peers_that_are_named_with_it() {
    let folder = paired();
    let own = configured(&folder.read(DPM));

    for files in ["--home dpe --home dpm", "--home dpm --home dpe"] {
        let run = folder.run(&format!("revoke {files} --fingerprint={own} --dry-run"));

        let run = run.exits(0);
        assert!(run.stderr.contains("`key` of dpe-dev"), "{run:?}");
        assert!(!run.stdout.contains(&format!("{DPE}  (")), "{run:?}");
    }
}

#[test]
fn a_file_that_a_reload_refuses_is_written_and_not_active() {
    let folder = paired();
    let faulty = folder.read(DPM) + "ataccama.one.platform.deployments.dpe-dev.modul=x\n";
    folder.write(DPM, &faulty);

    let run = folder
        .run("revoke --home dpm --deployment dpe-dev --yes")
        .exits(1);

    assert!(
        run.stderr.contains("error: written, but NOT active: "),
        "{run:?}"
    );
    assert!(run.stderr.contains("error[CS0106]"), "{run:?}");
    assert_eq!(
        folder.read(DPM),
        faulty.replace("is-revoked=false", "is-revoked=true")
    );
    folder.write(
        DPM,
        faulty.replace("modul=x", "uri=x") + "countersign.reload=false\n",
    );
    let run = folder
        .run("revoke --home dpm --deployment dpe-dev --yes -o json")
        .exits(1);
    assert!(
        run.stderr
            .contains("NOT active: `dpm/etc/application.properties` says"),
        "{run:?}"
    );
    assert!(run.stderr.contains("`kill -HUP PID`"), "{run:?}");
    assert_eq!(run.json()["in_force"], false);
}

#[test]
fn a_memory_that_cannot_be_written_is_named_after_what_was_done() {
    let folder = paired();
    let lock = folder.path("dpm/storage/revoked-keys.lock");
    std::fs::create_dir_all(&lock).unwrap();
    let revoke = "revoke --home dpm --home dpe --yes --fingerprint";
    let shown = folder.run("deployment show dpe-dev --home dpm -o json");
    let key = shown.json()["keys"][0]["fingerprint"].clone();
    let key = key.as_str().unwrap();

    let run = folder.run(&format!("{revoke}={key}")).exits(3);

    let done = format!("error: `{DPM}` is written, but its home cannot remember that in `");
    assert!(run.stderr.contains(&done), "{run:?}");
    assert!(
        run.stderr.contains("storage/revoked-keys`: Is a directory"),
        "{run:?}"
    );
    assert!(folder.read(DPM).contains("is-revoked=true"), "{run:?}");
    std::fs::remove_dir(&lock).unwrap();
    folder.run(&format!("{revoke}={key}")).exits(0);
    let memory = folder.read("dpm/storage/revoked-keys");
    assert!(memory.starts_with(&format!("revoked {key} ")), "{memory}");
}

#[test]
fn an_error_is_a_json_object_where_json_is_asked_for() {
    let folder = paired();

    let run = folder
        .run("revoke --home dpm --deployment dpe-dev -o json")
        .exits(2);

    let last: serde_json::Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
    let error = last["error"].as_str().unwrap();
    assert!(error.starts_with("would modify existing files"), "{run:?}");
    assert_eq!(
        last["help"],
        "use `--yes` to apply or `--dry-run` to preview"
    );
}

const DEV: &str = "dpm/etc/application-dev.properties";
const KEYS: &str = "ataccama.one.platform.deployments.dpe-dev.security.jwt-keys";

/// Pairs two modules, and makes a profile active in the file of the DPM.
fn with_profile(text: &str) -> Folder {
    let folder = paired();
    folder.write(DPM, folder.read(DPM) + "spring.profiles.active=dev\n");
    folder.write(DEV, text);
    folder
}

#[test]
fn a_key_that_an_active_profile_trusts_is_revoked_there_too() {
    let folder = with_profile(&format!("# more\n{KEYS}.key.is-revoked=false\n"));

    folder
        .run("revoke --home dpm --deployment dpe-dev --yes")
        .exits(0);

    assert!(folder.read(DPM).contains("is-revoked=true"));
    assert!(folder.read(DEV).contains("is-revoked=true"));
    folder.run(&format!("check {DPM}")).exits(0);
}

#[test]
fn an_import_that_trusts_a_key_is_named_and_nothing_is_written() {
    // The second has the name of a profile's file.
    for name in ["more.properties", "application-more.properties"] {
        let folder = paired();
        let text = folder.read(DPM) + "spring.config.import=" + name + "\n";
        folder.write(DPM, &text);
        let more = format!("dpm/etc/{name}");
        folder.write(&more, format!("{KEYS}.key.is-revoked=false\n"));

        let run = folder
            .run("revoke --home dpm --deployment dpe-dev --yes")
            .exits(1);

        assert!(run.stderr.contains(&more), "{run:?}");
        assert!(
            run.stderr.contains(&format!("{KEYS}.key.is-revoked=true")),
            "{run:?}"
        );
        assert_eq!(folder.read(DPM), text);
        assert!(folder.read(&more).contains("is-revoked=false"));
    }
}

#[test]
fn revoke_edits_the_active_document_and_lists_those_that_are_not() {
    let folder = paired();
    let conditional = "#---\nspring.config.activate.on-profile=prod\n";
    let text = folder.read(DPM);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains(".jwt-keys."))
        .collect();
    let again = lines.join("\n") + "\n";
    folder.write(DPM, format!("{text}{conditional}{again}"));

    let run = folder
        .run("revoke --home dpm --deployment dpe-dev --yes")
        .exits(0);

    let after = folder.read(DPM);
    let (active, inactive) = after.split_once(conditional).unwrap();
    assert!(active.contains("is-revoked=true"), "{after}");
    assert_eq!(inactive, again);
    assert!(
        run.stderr.contains("in a document that is not active"),
        "{run:?}"
    );
}

#[test]
fn file_of_an_active_profile_stands_for_its_module_where_a_key_is_revoked() {
    let folder = with_profile("server.port=0\n");

    folder
        .run(&format!("revoke --home {DEV} --deployment dpe-dev --yes"))
        .exits(0);

    assert!(folder.read(DPM).contains("is-revoked=true"));
    assert_eq!(folder.read(DEV), "server.port=0\n");
}

#[test]
fn revocation_of_a_key_without_the_setting_stands_beside_the_key() {
    let folder = paired();
    let text = folder.read(DPM);
    let (keys, rest): (Vec<_>, Vec<_>) = text.lines().partition(|l| l.contains(".deployments."));
    folder.write(DPM, rest.join("\n") + "\nspring.profiles.active=dev\n");
    let plain = keys.iter().filter(|line| !line.contains("is-revoked"));
    folder.write(DEV, plain.copied().collect::<Vec<_>>().join("\n") + "\n");
    let before = folder.read(DPM);

    folder
        .run("revoke --home dpm --deployment dpe-dev --yes")
        .exits(0);

    assert_eq!(folder.read(DPM), before);
    assert!(folder.read(DEV).contains("is-revoked=true"));
}

#[test]
fn revocation_of_an_unreadable_key_stands_where_its_deployment_is_written() {
    let folder = paired();
    let text = folder.read(DPM);
    let (keys, rest): (Vec<_>, Vec<_>) = text.lines().partition(|l| l.contains(".deployments."));
    folder.write(DPM, rest.join("\n") + "\nspring.profiles.active=dev\n");
    let plain = keys.iter().filter(|line| !line.contains("is-revoked"));
    let broken = plain.map(|line| match line.split_once("fingerprint=") {
        Some((name, _)) => format!("{name}fingerprint=my key\n"),
        None => line.replace("\"EC\"", "\"no\"") + "\n",
    });
    folder.write(DEV, broken.collect::<String>());
    let before = folder.read(DPM);

    let run = folder.run("revoke --home dpm --deployment dpe-dev --yes");

    assert_eq!(folder.read(DPM), before, "{run:?}");
    assert!(folder.read(DEV).contains("is-revoked=true"), "{run:?}");
}

#[test]
fn both_files_are_revoked_in_one_go() {
    let folder = with_profile(&format!("{KEYS}.key.is-revoked=false\n"));

    let both = format!("revoke --home dpm --home {DEV} --deployment dpe-dev --yes");
    folder.run(&both).exits(0);

    assert!(folder.read(DPM).contains("is-revoked=true"));
    assert!(folder.read(DEV).contains("is-revoked=true"));
}

#[test]
fn a_key_that_only_an_active_profile_has_is_revoked_there() {
    let folder = paired();
    let text = folder.read(DPM);
    let (keys, rest): (Vec<_>, Vec<_>) = text.lines().partition(|l| l.contains(".deployments."));
    folder.write(DPM, rest.join("\n") + "\nspring.profiles.active=dev\n");
    folder.write(DEV, keys.join("\n"));
    let before = folder.read(DPM);

    folder
        .run("revoke --home dpm --deployment dpe-dev --yes")
        .exits(0);

    assert_eq!(folder.read(DPM), before);
    assert!(folder.read(DEV).contains("is-revoked=true"));
}

/// Writes the key of `dpe-dev` by placeholders, its fingerprint as free text, and returns that and
/// the computed one.
pub(super) fn with_placeholders(folder: &Folder) -> [String; 2] {
    let text = folder.read(DPM);
    let computed = configured(&text);
    let text = text.replace(&computed, "free-text");
    let name = format!("{KEYS}.key.fingerprint=");
    let text = text.replace(&name, &format!("{name}${{dpe.fp}}\ndpe.fp="));
    let name = format!("{KEYS}.key.content=");
    let text = text.replace(&name, &format!("{name}${{dpe.jwk}}\ndpe.jwk="));
    folder.write(DPM, text);
    ["free-text".to_owned(), computed]
}

/// Returns the fingerprint that a DPM's file has for the DPE.
fn configured(text: &str) -> String {
    let name = format!("{KEYS}.key.fingerprint=");
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(&name));
    found.unwrap().to_owned()
}

#[test]
fn a_key_behind_placeholders_is_found_by_either_fingerprint() {
    let folder = paired();
    let fingerprints = with_placeholders(&folder);
    folder.run(&format!("check {DPM}")).exits(0);

    for fingerprint in fingerprints {
        let run = format!("revoke --home dpm --fingerprint={fingerprint} --dry-run");
        let run = folder.run(&run).exits(0);

        let expected = "`key` of dpe-dev signed: free-text\n";
        assert!(run.stderr.contains(expected), "{run:?}");
        assert!(run.stdout.contains("is-revoked=true"), "{run:?}");
    }
}

#[test]
fn a_fingerprint_that_begins_with_a_dash_is_no_option() {
    let folder = paired();
    let text = folder.read(DPM);
    folder.write(DPM, text.replace(&configured(&text), "-free-text"));

    let run = folder
        .run("revoke --home dpm --fingerprint -free-text --dry-run")
        .exits(0);

    assert!(run.stdout.contains("is-revoked=true"), "{run:?}");
}

#[test]
fn a_fingerprint_that_an_active_profile_overrides_matches_no_key() {
    let folder = with_profile("");
    let text = folder.read(DPM);
    let lines = text.lines().filter(|line| line.starts_with(KEYS));
    folder.write(DEV, lines.collect::<Vec<_>>().join("\n"));
    let key = configured(&text);
    folder.write(DPM, text.replace(&key, "former"));
    let revoke = |key: &str, more: &str| {
        folder.run(&format!("revoke --home dpm --fingerprint={key} {more}"))
    };

    let former = revoke("former", "--dry-run").exits(1);
    revoke(&key, &format!("--home {DEV} --yes")).exits(0);

    let expected = format!("the files trust: `key` of `dpe-dev` ({key})");
    assert!(former.stderr.contains(&expected), "{former:?}");
    assert!(folder.read(DPM).contains("is-revoked=true"));
    assert!(folder.read(DEV).contains("is-revoked=true"));
}
