//! `deployment add`, `list`, `show` and `remove`.

use std::time::SystemTime;

use super::modules::paired;
use super::support::{Folder, private_part};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";

/// A pair, and the key of a third module: its private half in `own.jwk`, the public one in
/// `public.jwk`.
fn world() -> Folder {
    let folder = paired();
    folder
        .run("key gen --out own.jwk --public-out public.jwk")
        .exits(0);
    folder
}

fn fingerprint(folder: &Folder, file: &str) -> String {
    let names = folder
        .run(&format!("key fingerprint {file} -o json"))
        .exits(0);
    names.json()["fingerprint"].as_str().unwrap().to_owned()
}

fn modified(folder: &Folder, file: &str) -> SystemTime {
    folder.path(file).metadata().unwrap().modified().unwrap()
}

/// Writes the public key of the module with `file` to `out`.
fn export_own(folder: &Folder, file: &str, out: &str) {
    let text = folder.read(file);
    let mut lines = text.lines();
    let own = lines.find_map(|line| line.split_once("generator.key="));
    folder.write("module.key", own.unwrap().1);
    folder
        .run(&format!(
            "key export module.key --to public-jwk --out {out}"
        ))
        .exits(0);
}

const ADD: &str = "deployment add dpe-two --home dpm --module dpe --public-key public.jwk --yes";

#[test]
fn deployment_that_is_added_is_trusted_and_a_second_run_changes_nothing() {
    let folder = world();
    let before = folder.read(DPM);
    let key = fingerprint(&folder, "public.jwk");

    let run = folder.run(ADD).exits(0);
    let after = folder.read(DPM);
    let written = modified(&folder, DPM);
    let again = folder.run(ADD).exits(0);

    assert!(after.starts_with(&before), "what was there is as it was");
    assert!(run.stdout.contains(&key), "{}", run.stdout);
    assert!(
        again.stdout.ends_with("nothing to do\n"),
        "{}",
        again.stdout
    );
    assert_eq!(modified(&folder, DPM), written);
    assert_eq!(folder.read(DPM), after);
    let listed = folder
        .run("deployment list --home dpm -o json")
        .exits(0)
        .json();
    let added = &listed["deployments"][1];
    assert_eq!(added["name"], "dpe-two");
    assert_eq!(added["module"], "dpe");
    assert_eq!(added["environment"], serde_json::Value::Null);
    assert_eq!(added["roles"], serde_json::json!(["IMPERSONATION"]));
    assert_eq!(
        added["keys"],
        serde_json::json!([{ "name": "key", "fingerprint": key, "revoked": false }])
    );
    let check = folder.run(&format!("check {DPM}")).exits(0);
    assert!(check.stdout.contains("0 errors"), "{}", check.stdout);
}

#[test]
fn token_of_a_deployment_that_was_added_is_accepted() {
    let folder = world();
    folder.run(ADD).exits(0);
    // The third module is a DPE that trusts the DPM.
    let two = folder.read(DPE);
    let own: String = two
        .lines()
        .filter(|line| !line.contains("generator.key") && !line.contains("deployment.name"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let key = folder.run("key export own.jwk --to base64").exits(0).stdout;
    let own = format!(
        "{own}countersign.deployment.name=dpe-two\n\
         ataccama.authentication.internal.jwt.generator.key={key}"
    );
    folder.write("two/etc/application.properties", own);

    let token = folder
        .run("token issue --home two --audience dpm-dev")
        .exits(0);
    folder.write("token.txt", token.stdout);

    folder
        .run("token verify --home dpm --token-file token.txt")
        .exits(0);
}

#[test]
fn every_form_of_a_public_key_is_taken() {
    for (form, in_set) in [
        ("public-jwk", false),
        ("public-jwk", true),
        ("pem-spki", false),
        ("der-spki", false),
    ] {
        let folder = world();
        folder
            .run(&format!("key export own.jwk --to {form} --out peer.key"))
            .exits(0);
        if in_set {
            let set = format!("{{\"keys\":[{}]}}", folder.read("peer.key"));
            folder.write("peer.key", set);
        }

        folder
            .run("deployment add two --home dpm/etc/application.properties --module dpe --public-key peer.key --yes")
            .exits(0);

        let shown = folder.run("deployment show --home dpm two").exits(0).stdout;
        assert!(
            shown.contains(&fingerprint(&folder, "public.jwk")),
            "{form}: {shown}"
        );
    }
}

#[test]
fn private_key_is_refused_by_name_and_never_shown() {
    for form in [
        "jwk",
        "base64",
        "pem-pkcs8",
        "pem-sec1",
        "der-pkcs8",
        "der-sec1",
    ] {
        let folder = world();
        folder
            .run(&format!("key export own.jwk --to {form} --out peer.key"))
            .exits(0);
        let before = folder.read(DPM);

        let run = folder
            .run("deployment add two --home dpm --module dpe --public-key peer.key --yes")
            .exits(3);

        assert!(
            run.stderr.contains("`peer.key` holds a private key"),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains("--to public-jwk"), "{}", run.stderr);
        assert_eq!(folder.read(DPM), before, "{form}");
    }
}

#[test]
fn what_is_there_is_never_replaced() {
    let folder = world();
    folder.run(ADD).exits(0);
    folder
        .run("key gen --out other.jwk --public-out other-public.jwk")
        .exits(0);
    let before = folder.read(DPM);
    export_own(&folder, DPM, "dpm.jwk");
    export_own(&folder, DPE, "dpe.jwk");
    let mut renamed: serde_json::Value = serde_json::from_str(&folder.read("public.jwk")).unwrap();
    renamed["kid"] = "another-fingerprint".into();
    folder.write("renamed-public.jwk", renamed.to_string());

    for (what, arguments, word) in [
        (
            "another key",
            "dpe-two --module dpe --public-key other-public.jwk",
            "a different key",
        ),
        (
            "the same name but for case",
            "DPE-two --module dpe --public-key other-public.jwk",
            "a different key",
        ),
        (
            "another module",
            "dpe-two --module dpm --public-key public.jwk",
            "module `dpe`",
        ),
        (
            "another name",
            "dpe-three --module dpe --public-key public.jwk",
            "`dpe-two`",
        ),
        (
            "a name of a key that is taken",
            "dpe-two --module dpe --public-key other-public.jwk --key-name key",
            "a different key called `key`",
        ),
        (
            "the same key with another fingerprint",
            "dpe-two --module dpe --public-key renamed-public.jwk",
            "fingerprint",
        ),
        (
            "another environment",
            "dpe-dev --module dpe --environment prod --public-key dpe.jwk",
            "environment `dev`",
        ),
        (
            "the module's own key",
            "dpm-two --module dpm --public-key dpm.jwk",
            "own",
        ),
    ] {
        let run = folder
            .run(&format!("deployment add {arguments} --home dpm --yes"))
            .exits(6);

        assert!(run.stderr.contains(word), "{what}: {}", run.stderr);
        assert_eq!(folder.read(DPM), before, "{what}");
    }
}

#[test]
fn deployment_under_misspelt_settings_is_there_and_has_faults() {
    let folder = world();
    let text = folder.read(DPM) + "\nataccama.one.platform.deployments.dpe-two.modul=dpe\n";
    folder.write(DPM, &text);

    let run = folder.run(ADD).exits(3);

    assert!(run.stderr.contains("has faults"), "{}", run.stderr);
    assert_eq!(folder.read(DPM), text);
}

#[test]
fn second_key_and_role_are_added_beside_the_first() {
    let folder = world();
    folder.run(ADD).exits(0);
    folder
        .run("key gen --out other.jwk --public-out other-public.jwk")
        .exits(0);

    let add = "deployment add dpe-two --home dpm --module dpe --public-key other-public.jwk --key-name key2 --role READER --yes";
    folder.run(add).exits(0);
    folder.run(add).exits(0);

    let shown = folder
        .run("deployment show --home dpm dpe-two -o json")
        .exits(0)
        .json();
    assert_eq!(
        shown["roles"],
        serde_json::json!(["IMPERSONATION", "READER"])
    );
    assert_eq!(shown["keys"][0]["name"], "key");
    assert_eq!(shown["keys"][1]["name"], "key2");
    let text = folder.read(DPM);
    assert_eq!(text.matches("roles[1]=READER").count(), 1, "{text}");
}

#[test]
fn roles_in_one_setting_stay_in_one() {
    let folder = world();
    let text = folder.read(DPM);
    let text = text.replace(
        "security.roles[0]=IMPERSONATION",
        "security.roles=IMPERSONATION,A",
    );
    folder.write(DPM, text);
    export_own(&folder, DPE, "dpe.jwk");

    folder
        .run("deployment add dpe-dev --home dpm --module dpe --public-key dpe.jwk --role B --yes")
        .exits(0);

    assert!(
        folder
            .read(DPM)
            .contains("security.roles=IMPERSONATION,A,B\n")
    );
}

#[test]
fn revoked_key_stays_revoked() {
    let folder = world();
    folder.run(ADD).exits(0);
    let text = folder.read(DPM);
    let (before, own) = text.split_at(text.find("deployments.dpe-two").unwrap());
    let revoked = own.replace("is-revoked=false", "is-revoked=true");
    folder.write(DPM, format!("{before}{revoked}"));

    let run = folder.run(ADD).exits(6);

    assert!(
        run.stderr.contains("has revoked the key of `dpe-two`"),
        "{}",
        run.stderr
    );
    let advice = [
        "give its module a new key, on its host and in its home folder",
        "countersign rotate replace --home . --one-side",
        "--undo",
    ];
    let [new, command, undo] = advice.map(|text| run.stderr.find(text).unwrap());
    assert!(new < command && command < undo, "{}", run.stderr);
}

#[test]
fn removing_says_what_stops_working_and_leaves_the_rest() {
    let folder = world();
    let paired = folder.read(DPM);
    let key = fingerprint(&folder, "public.jwk");
    folder.run(ADD).exits(0);
    let extra = "countersign.deployments.dpe-two.allow-low-ports=true\n\
                 countersign.client.connection.dpe.deployment=dpe-two\n";
    let added = folder.read(DPM);
    folder.write(DPM, format!("{added}{extra}"));

    let asked = folder.run("deployment remove --home dpm DPE-TWO").exits(2);
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    let run = folder
        .run("deployment remove --home dpm DPE-TWO --yes")
        .exits(0);

    assert!(run.stderr.contains("without dpe-two:"), "{}", run.stderr);
    assert!(
        run.stderr.contains(&format!("KEY_UNKNOWN ({key})")),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("the connection `dpe`"),
        "{}",
        run.stderr
    );
    assert!(run.stdout.contains("\n  - ataccama.one"), "{}", run.stdout);
    let after = folder.read(DPM);
    let settings = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(str::to_owned).collect()
    };
    assert_eq!(settings(&after), settings(&paired));
    let written = modified(&folder, DPM);
    let again = folder
        .run("deployment remove --home dpm dpe-two --yes")
        .exits(0);
    assert_eq!(again.stdout, "nothing to do\n");
    assert!(
        again.stderr.contains("trusted are: dpe-dev"),
        "{}",
        again.stderr
    );
    assert_eq!(modified(&folder, DPM), written);
}

#[test]
fn comment_above_what_is_added_is_written_once() {
    let folder = world();
    let ours = "# Written by `countersign deployment add`: a module that this one trusts.\n";

    for _ in 0..2 {
        folder.run(ADD).exits(0);
        assert_eq!(folder.read(DPM).matches(ours).count(), 1);
        let remove = "deployment remove --home dpm dpe-two --yes";
        folder.run(remove).exits(0);
    }
}

#[test]
fn dry_run_writes_nothing() {
    let folder = world();
    let before = folder.read(DPM);

    let added = folder.run(&ADD.replace("--yes", "--dry-run")).exits(0);
    let removed = folder
        .run("deployment remove --home dpm dpe-dev --dry-run -o json")
        .exits(0);

    assert!(
        added
            .stdout
            .contains("  + ataccama.one.platform.deployments.dpe-two.module=dpe\n")
    );
    assert!(added.stdout.ends_with("nothing was written (--dry-run)\n"));
    assert_eq!(removed.json()["written"], false);
    assert_eq!(folder.read(DPM), before);
}

#[test]
fn list_and_show_are_tables_for_people() {
    let folder = world();
    folder.run(ADD).exits(0);

    let listed = folder.run("deployment list --home dpm").exits(0).stdout;
    let unknown = folder.run("deployment show --home dpm unknown").exits(1);
    let shown = folder
        .run("deployment show --home dpm dpe-dev")
        .exits(0)
        .stdout;

    assert_eq!(
        listed,
        "NAME     MODULE  ENVIRONMENT  ROLES          KEYS\n\
         dpe-dev  dpe     dev          IMPERSONATION  1\n\
         dpe-two  dpe     -            IMPERSONATION  1\n"
    );
    assert!(
        shown.starts_with("name         dpe-dev\nmodule       dpe\n"),
        "{shown}"
    );
    assert!(
        unknown.stderr.contains("trusted are: dpe-dev, dpe-two"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn file_that_cannot_be_used_is_exit_3_and_a_wrong_call_exit_2() {
    let folder = world();
    for line in [
        "deployment list --home nowhere",
        "deployment add x --home nowhere.properties --module dpe --public-key public.jwk",
        "deployment add x --home dpm --module dpe --public-key nowhere.jwk",
    ] {
        folder.run(line).exits(3);
    }
    for line in [
        "deployment list",
        "deployment list --home dpm --file dpm/etc/application.properties",
        "deployment add no_name --home dpm --module dpe --public-key public.jwk",
        "deployment add x --home dpm --public-key public.jwk",
    ] {
        folder.run(line).exits(2);
    }
}

#[test]
fn deployment_with_faults_is_fixed_or_removed_but_not_added_to() {
    let folder = world();
    folder.run(ADD).exits(0);
    let text = folder.read(DPM);
    let line = text
        .lines()
        .find(|line| line.contains("dpe-two.security.jwt-keys.key.content"))
        .unwrap();
    let (name, _) = line.split_once('=').unwrap();
    folder.write(DPM, text.replace(line, &format!("{name}={{}}")));

    let add = folder.run(ADD).exits(3);
    let listed = folder.run("deployment list --home dpm").exits(0);
    folder
        .run("deployment remove --home dpm dpe-two --yes")
        .exits(0);

    assert!(add.stderr.contains("has faults"), "{}", add.stderr);
    assert!(listed.stderr.contains("1 error"), "{}", listed.stderr);
    folder.run(&format!("check {DPM}")).exits(0);
}

#[test]
fn setting_that_is_missing_is_put_back() {
    let folder = world();
    folder.run(ADD).exits(0);
    let text = folder.read(DPM);
    let line = text
        .lines()
        .find(|line| line.contains("dpe-two.security.jwt-keys.key.content"))
        .unwrap();
    folder.write(DPM, text.replace(&format!("{line}\n"), ""));

    folder.run(ADD).exits(0);

    assert!(folder.read(DPM).ends_with(&format!("{line}\n")));
    folder.run(&format!("check {DPM}")).exits(0);
}

#[test]
fn deployment_is_removed_where_it_is_written_the_files_of_active_profiles_too() {
    let folder = world();
    let profile = "dpm/etc/application-dev.properties";
    let prefix = "ataccama.one.platform.deployments";
    folder.write(DPM, folder.read(DPM) + "\nspring.profiles.active=dev\n");
    for line in [
        format!("{prefix}.dpe-dev.environment=test"),
        "countersign.deployments.dpe-dev.single-use-tokens=true".to_owned(),
    ] {
        let before = folder.read(DPM);
        folder.write(profile, format!("# dev\n{line}\n"));

        folder
            .run("deployment remove --home dpm dpe-dev --yes")
            .exits(0);

        assert!(
            !folder.read(DPM).contains("dpe-dev"),
            "{}",
            folder.read(DPM)
        );
        assert_eq!(folder.read(profile), "# dev\n");
        folder.write(DPM, before);
    }
    let line = format!("{prefix}.dpe-two.module=dpe\n");
    folder.write(profile, &line);
    folder.run(ADD).exits(0);
    assert_eq!(folder.read(profile), line);
    folder.run(&format!("check {DPM}")).exits(0);
}

#[test]
fn name_that_is_typed_means_its_deployment_in_any_spelling() {
    let folder = world();
    let spelt = folder.run("deployment show DPE-DEV --home dpm").exits(0);
    let as_written = folder.run("deployment show dpe-dev --home dpm").exits(0);
    assert_eq!(spelt.stdout, as_written.stdout);

    for name in ["DPE-DEV", "dpedev", "Dpe-dev"] {
        for command in [
            format!("revoke --home dpm --deployment {name} --key key --yes"),
            format!("revoke --undo --home dpm --deployment {name} --key key --yes"),
        ] {
            folder.run(&command).exits(0);
        }
        let list = folder
            .run("deployment list --home dpm -o json")
            .exits(0)
            .json();
        let deployments = list["deployments"].as_array().unwrap();
        assert_eq!(deployments.len(), 1, "{list}");
        assert_eq!(deployments[0]["keys"][0]["revoked"], false, "{list}");
    }
    folder
        .run("deployment remove DPE-DEV --home dpm --yes")
        .exits(0);

    let text = folder.read("dpm/etc/application.properties");
    assert!(!text.to_lowercase().contains("deployments.dpe"), "{text}");
}

#[test]
fn private_scalar_in_place_of_a_name_is_not_shown() {
    let folder = world();
    let scalar = private_part(&folder.read("own.jwk"));
    folder.run(ADD).exits(0);
    let of = "ataccama.one.platform.deployments.dpe-two.security";
    let named = folder.read(DPM).replace(
        &format!("{of}.jwt-keys.key."),
        &format!("{of}.jwt-keys[{scalar}]."),
    );
    assert!(named.contains(&scalar), "{named}");
    folder.write(DPM, format!("{named}{of}.roles[1]={scalar}\n"));

    for command in ["deployment list", "deployment show dpe-two"] {
        for format in ["text", "json"] {
            let run = folder.run(&format!("{command} --home dpm -o {format}"));
            let run = run.exits(0);
            assert!(run.stdout.contains("dpe-two"), "{run:?}");
            assert!(run.stdout.contains("IMPERSONATION"), "{run:?}");
            for text in [&run.stdout, &run.stderr] {
                assert!(!text.contains(&scalar), "{text}");
            }
        }
    }
}
