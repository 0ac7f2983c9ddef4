use std::fs;

use super::*;
use crate::admin::write::kill;
use crate::config::{ModuleKind, Settings};
use crate::jose::{KeyId, PrivateJwk, PublicJwk, SigningKey};
use crate::proto::identity as wire;

const D: &str = "ataccama.one.platform.deployments";

fn deployment(name: &str, keys: &[(&str, &SigningKey)]) -> String {
    let mut text = format!("{D}.{name}.module=dpe\n");
    for (key, signing) in keys {
        let id = KeyId::from(signing.fingerprint());
        let content = PublicJwk::write(signing.verifying_key(), &id);
        let prefix = format!("{D}.{name}.security.jwt-keys.{key}");
        let lines = [
            format!("{prefix}.fingerprint={id}\n"),
            format!("{prefix}.content={content}\n"),
        ];
        text.extend(lines);
    }
    text + &format!("{D}.{name}.security.roles[0]=IMPERSONATION\n")
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap()
}

fn which(name: &str, key: Option<&str>) -> Which {
    Which::Deployment(DeploymentName::new(name).unwrap(), key.map(str::to_owned))
}

#[test]
fn keys_are_found_by_deployment_name_and_either_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.properties");
    let (one, two, three) = (key(), key(), key());
    let text = deployment("dpe-dev", &[("key", &one), ("key2", &two)])
        + &deployment("other", &[("key", &three)]).replace(
            &format!("fingerprint={}", three.fingerprint()),
            "fingerprint=free text",
        );
    fs::write(&file, text).unwrap();
    let found = |which: Which| {
        let (_, revoked) = plan(std::slice::from_ref(&file), &which, Standing::Revoked).unwrap();
        let keys = revoked[0].keys.iter();
        let names = keys.map(|key| format!("{}/{} {:?}", key.deployment, key.name, key.left));
        names.collect::<Vec<_>>()
    };

    let both = ["dpe-dev/key []", "dpe-dev/key2 []"];
    let left = ["dpe-dev/key2 [\"key\"]"];
    assert_eq!(found(which("dpe-dev", None)), both);
    assert_eq!(found(which("DPEdev", Some("KEY-2"))), left);
    assert_eq!(
        found(Which::Fingerprint(two.fingerprint().to_string())),
        left
    );
    assert_eq!(
        found(Which::Fingerprint("free text".to_owned())),
        ["other/key []"]
    );
    assert_eq!(
        found(Which::Fingerprint(three.fingerprint().to_string())),
        ["other/key []"]
    );
}

#[test]
fn a_private_scalar_in_the_place_of_a_name_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.properties");
    let one = key();
    let json = PrivateJwk::write(&one, &one.fingerprint().into());
    let json: serde_json::Value = serde_json::from_str(json.expose()).unwrap();
    let d = json["d"].as_str().unwrap();
    let named = deployment("dpe-dev", &[(d, &one)]);
    let text = named.replace(
        &format!("fingerprint={}", one.fingerprint()),
        &format!("fingerprint={d}"),
    );
    fs::write(&file, text + &deployment(d, &[("key", &key())])).unwrap();
    let paths = std::slice::from_ref(&file);

    let (change, files) = plan(paths, &which("dpe-dev", None), Standing::Revoked).unwrap();
    let missing = plan(paths, &which("dpe-prod", None), Standing::Revoked).unwrap_err();

    let changes: Vec<_> = change.files.iter().map(|file| &file.changes).collect();
    let shown = format!("{:?} {changes:?} {missing}", files[0].keys);
    assert!(!shown.contains(d), "{d} in {shown}");
    assert!(shown.contains("·.is-revoked"), "{shown}");
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.properties");
    fs::write(&file, deployment("dpe-dev", &[("key", &key())])).unwrap();

    let missing = plan(&[file], &which("dpe-prod", None), Standing::Revoked).unwrap_err();

    let shown = missing.to_string();
    assert!(shown.starts_with("no file has deployment `dpe-prod`; the files trust: `key` of"));
}

#[test]
fn files_with_faults_are_changed_and_only_where_the_key_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.properties");
    let one = key();
    let rest = "ataccama.one.platform.deployments.x.modul=dpe\nbroken=\\u12\n";
    let text = deployment("dpe-dev", &[("key", &one)]) + rest;
    fs::write(&file, &text).unwrap();

    let (change, files) = plan(
        std::slice::from_ref(&file),
        &which("dpe-dev", None),
        Standing::Revoked,
    )
    .unwrap();
    change.carry_out().unwrap();

    let revoked = format!("{D}.dpe-dev.security.jwt-keys.key.is-revoked=true\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), text + &revoked);
    let in_force = files[0].in_force(&ModuleKind::Dpm);
    assert!(in_force.unwrap_err().findings.errors() > 0);
    let (again, _) = plan(&[file], &which("dpe-dev", None), Standing::Revoked).unwrap();
    assert!(again.is_empty());
}

#[test]
fn a_key_that_a_module_does_not_list_is_refused_only_where_it_lists_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.properties");
    let (own, one, other) = (key(), key(), key());
    let own = PrivateJwk::write(&own, &own.fingerprint().into());
    let own = format!(
        "ataccama.authentication.internal.jwt.generator.key={}\n",
        own.expose()
    );
    let text = own + &deployment("dpe-dev", &[("key", &one)]);
    fs::write(&file, text).unwrap();
    let (_, files) = plan(
        std::slice::from_ref(&file),
        &which("dpe-dev", Some("key")),
        Standing::Revoked,
    )
    .unwrap();
    let planned = &files[0];
    let settings = Settings::load(&file, &ModuleKind::Dpm, [], &[]).unwrap();
    let listed = |fingerprint: &str, computed_fingerprint: &str, revoked| wire::TrustedKey {
        deployment: "dpe-dev".to_owned(),
        fingerprint: fingerprint.to_owned(),
        computed_fingerprint: computed_fingerprint.to_owned(),
        revoked,
    };
    let (one, other) = (
        &*one.fingerprint().to_string(),
        &*other.fingerprint().to_string(),
    );

    for (answer, expected) in [
        (vec![], None),
        (vec![listed(one, "", true)], Some(false)),
        (vec![listed(one, "", false)], Some(true)),
        (vec![listed("name", one, true)], Some(false)),
        (vec![listed("name", one, false)], Some(true)),
        (vec![listed(other, other, false)], Some(false)),
        (vec![listed(other, "", false)], None),
        (
            vec![listed(one, one, true), listed("name", one, false)],
            Some(true),
        ),
    ] {
        assert_eq!(planned.accepts(&settings, &answer), expected, "{answer:?}");
    }
}

#[test]
fn what_decides_against_a_revocation_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("application.properties");
    let own = key();
    let jwk = PrivateJwk::write(&own, &own.fingerprint().into());
    let own = format!(
        "ataccama.authentication.internal.jwt.generator.key={}\nspring.profiles.active=dev\n",
        jwk.expose()
    );
    fs::write(&file, own + &deployment("dpe-dev", &[("key", &key())])).unwrap();
    let which = which("dpe-dev", None);
    let (change, files) = plan(std::slice::from_ref(&file), &which, Standing::Revoked).unwrap();
    change.carry_out().unwrap();
    files[0].in_force(&ModuleKind::Dpm).unwrap();
    let profile = folder.path().join("application-dev.properties");
    let setting = format!("{D}.dpe-dev.security.jwt-keys.key.is-revoked");
    fs::write(&profile, format!("# later\n{setting}=false\n")).unwrap();

    let refused = files[0].in_force(&ModuleKind::Dpm).unwrap_err();

    let place = format!("{}:2:1 decides on `key` of `dpe-dev`", profile.display());
    assert_eq!(refused.to_string(), place);
    assert_eq!(
        refused.help.unwrap(),
        format!("have it say `{setting}=true`")
    );
}

const FILES: [&str; 2] = ["one.properties", "two.properties"];

fn revoke(folder: &Path) {
    let files = FILES.map(|file| folder.join(file));
    let (change, _) = plan(&files, &which("dpe-dev", None), Standing::Revoked).unwrap();
    change.carry_out().unwrap();
}

#[test]
#[ignore = "is run by another test, which kills it"]
fn child() {
    revoke(&kill::folder().unwrap());
}

#[test]
fn killed_between_any_two_writes_files_are_old_or_new_and_the_rest_is_revoked_later() {
    let old = deployment("dpe-dev", &[("key", &key())]);
    let new = format!("{old}{D}.dpe-dev.security.jwt-keys.key.is-revoked=true\n");
    let set_up = |folder: &Path| {
        for file in FILES {
            fs::write(folder.join(file), &old).unwrap();
        }
    };
    let texts = |folder: &Path| FILES.map(|file| fs::read_to_string(folder.join(file)).unwrap());
    let look = |folder: &Path, at: u32| {
        for text in texts(folder) {
            assert!(text == old || text == new, "{at}: {text}");
        }
        revoke(folder);
        assert_eq!(texts(folder), [new.clone(), new.clone()]);
        // The files and their folder's lock.
        assert_eq!(fs::read_dir(folder).unwrap().count(), 3, "{at}");
    };

    let killed = kill::at_every_point("admin::revocation::tests::child", set_up, look);

    assert!(killed > 5, "it was killed {killed} times");
}
