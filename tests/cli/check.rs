//! `countersign check`.

use super::support::Folder;

/// The two blocks of the guide, as printed.
const SEED_DPE: &str = include_str!("../data/seed-dpe.properties");
const SEED_DPM: &str = include_str!("../data/seed-dpm.properties");

#[test]
fn the_guides_two_faults_are_found_where_they_are() {
    let folder = Folder::new();
    folder.write("dpe.properties", SEED_DPE);
    folder.write("dpm.properties", SEED_DPM);

    let dpe = folder.run("check dpe.properties").exits(1);
    let dpm = folder.run("check dpm.properties").exits(1);

    assert!(dpe.stdout.contains("error[CS0201]: "), "{}", dpe.stdout);
    assert!(
        dpe.stdout.contains("--> dpe.properties:4:74\n"),
        "{}",
        dpe.stdout
    );
    assert!(
        dpe.stdout.contains(r#"content={"kty":"EC","crv":"P-256""#),
        "{}",
        dpe.stdout
    );
    assert!(dpm.stdout.contains("error[CS0202]: "), "{}", dpm.stdout);
    for fingerprint in [
        "kHSzWkPiZKfSKAgdIkCdXfAAKs7x23jszQLkTOzQTEM",
        "KBv0lrEO88ISAnmwXn6Y5jYjG9TvemuZA0yQlq7QpG0",
    ] {
        assert!(dpm.stdout.contains(fingerprint), "{}", dpm.stdout);
    }
    assert_eq!((dpe.stderr.as_str(), dpm.stderr.as_str()), ("", ""));
}

#[test]
fn json_has_the_members_that_scripts_rely_on() {
    let folder = Folder::new();
    folder.write("dpe.properties", SEED_DPE);

    let json = folder.run("check dpe.properties -o json").exits(1).json();

    let findings = json["findings"].as_array().unwrap();
    let found = findings
        .iter()
        .find(|finding| finding["code"] == "CS0201")
        .unwrap();
    assert_eq!(found["severity"], "error");
    assert_eq!(found["file"], "dpe.properties");
    assert_eq!((&found["line"], &found["column"]), (&4.into(), &74.into()));
    assert!(
        found["key"]
            .as_str()
            .unwrap()
            .ends_with("jwt-keys.key.content")
    );
    assert!(found["message"].is_string() && found["help"].is_string());
    assert!(json["errors"].as_u64().unwrap() >= 1);
    assert!(json["warnings"].is_u64());
}

#[test]
fn a_fresh_pair_has_no_findings() {
    let folder = Folder::new();
    folder
        .run("pair dpm=dpm.properties dpe=dpe.properties")
        .exits(0);

    let run = folder.run("check dpm.properties dpe.properties").exits(0);

    assert_eq!(
        run.stdout,
        "0 errors, 0 warnings · 16 settings read, 0 with foreign names ignored\n"
    );
}

#[test]
fn ignored_settings_are_counted_and_named_when_asked() {
    let folder = Folder::new();
    folder
        .run("pair dpm=dpm.properties dpe=dpe.properties")
        .exits(0);
    let text = folder.read("dpm.properties");
    folder.write("dpm.properties", format!("{text}acme.billing.url=x\n"));

    let counted = folder.run("check dpm.properties").exits(0);
    let named = folder.run("check dpm.properties --list-ignored").exits(0);

    assert!(
        counted
            .stdout
            .ends_with(", 1 with foreign names ignored (--list-ignored)\n"),
        "{}",
        counted.stdout
    );
    assert!(!counted.stdout.contains("acme"), "{}", counted.stdout);
    assert!(
        named
            .stdout
            .contains("ignored acme.billing.url (dpm.properties:10:1)"),
        "{}",
        named.stdout
    );
}

#[test]
fn a_file_that_cannot_be_read_is_exit_3_with_path_and_one_cause() {
    let folder = Folder::new();
    folder.write("binary", [0_u8, 1, 2, 3]);
    folder.write("large", vec![b'a'; 10_000_000]);
    for file in ["missing", ".", "binary", "large"] {
        let run = folder.run(&format!("check {file}")).exits(3);
        assert_eq!(run.stdout, "");
        assert!(run.stderr.contains(&format!("`{file}`")), "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
    folder.run("check").exits(2);
}

#[test]
fn bytes_that_are_no_text_are_a_finding_with_its_place() {
    let folder = Folder::new();
    folder
        .run("pair dpm=dpm.properties dpe=dpe.properties")
        .exits(0);
    let text = folder.read("dpm.properties");
    let lines = text.lines().count();
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    folder.write("wide", wide);
    folder.write("zero", format!("{text}# \0\n"));
    folder.write("zero.value", format!("{text}a=\0\n"));

    for (file, line, column) in [
        ("wide", 1, 1),
        ("zero", lines + 1, 3),
        ("zero.value", lines + 1, 3),
    ] {
        let json = folder.run(&format!("check {file} -o json")).exits(1).json();

        let found = &json["findings"][0];
        assert_eq!(found["code"], "CS0101", "{json}");
        assert_eq!(found["severity"], "error");
        assert_eq!(found["file"], file);
        assert_eq!(
            (&found["line"], &found["column"]),
            (&line.into(), &column.into())
        );
        assert_eq!(json["errors"], 1);
        let run = folder.run(&format!("check dpe.properties {file}")).exits(1);
        assert!(run.stdout.contains("error[CS0101]"), "{}", run.stdout);
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn a_file_named_twice_is_checked_once() {
    let folder = Folder::new();
    folder.write("dpe.properties", SEED_DPE);
    let once = folder.run("check dpe.properties").exits(1);

    let twice = folder.run("check dpe.properties ./dpe.properties").exits(1);

    assert_eq!(twice.stdout, once.stdout);
    assert_eq!(
        twice.stderr,
        "warning: `./dpe.properties` is given twice; it is checked once\n"
    );
}
