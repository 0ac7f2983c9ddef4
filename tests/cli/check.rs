//! `countersign check`.

#[cfg(unix)]
use super::free_port::free_port;
#[cfg(unix)]
use super::modules::{ANY_PORT, Running, paired_with};
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

const VENDOR: [(&str, &str); 2] = [
    (
        "dpm.properties",
        include_str!("../data/vendor-dpm.properties"),
    ),
    (
        "dpe.properties",
        include_str!("../data/vendor-dpe.properties"),
    ),
];

/// The vendor's sample files, paired.
fn vendor() -> Folder {
    let folder = Folder::new();
    for (name, text) in VENDOR {
        folder.write(name, text);
    }
    folder
        .run("pair dpm=dpm.properties dpe=dpe.properties --yes")
        .exits(0);
    folder
}

#[test]
fn the_vendors_own_sample_values_are_notes_that_one_line_counts() {
    let folder = vendor();

    let run = folder.run("check dpm.properties dpe.properties").exits(0);

    assert_eq!(
        run.stdout,
        "47 notes (--notes)\n\
         0 errors, 0 warnings · 52 settings read, 0 with foreign names ignored\n"
    );
}

#[test]
fn one_error_in_a_vendors_file_is_shown_in_twelve_lines_at_most() {
    let folder = vendor();
    let text = folder.read("dpm.properties");
    folder.write(
        "dpm.properties",
        text.replace(".is-revoked=", ".is-revokd="),
    );

    let run = folder.run("check dpm.properties").exits(1);

    assert!(run.stdout.starts_with("error[CS0106]: "), "{}", run.stdout);
    assert!(
        run.stdout.contains(" notes (--notes)\n1 error, 0 warnings"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.lines().count() <= 12, "{}", run.stdout);
}

#[test]
fn notes_are_shown_in_full_when_asked_and_all_in_json() {
    let folder = vendor();
    let counted = folder.run("check dpm.properties").exits(0);

    let shown = folder.run("check dpm.properties --notes").exits(0);
    let json = folder.run("check dpm.properties -o json").exits(0).json();

    let notes = shown.stdout.matches("note[CS0305]: ").count();
    assert!(notes > 20, "{}", shown.stdout);
    assert!(!shown.stdout.contains("--notes"), "{}", shown.stdout);
    let one_line = format!("{notes} notes (--notes)\n");
    assert!(counted.stdout.starts_with(&one_line), "{}", counted.stdout);
    assert_eq!(json["findings"].as_array().unwrap().len(), notes);
    assert_eq!((&json["errors"], &json["warnings"]), (&0.into(), &0.into()));
}

#[test]
fn several_findings_on_one_line_show_that_line_once() {
    let folder = Folder::new();
    folder
        .run("pair dpm=dpm.properties dpe=dpe.properties")
        .exits(0);
    let text = folder.read("dpm.properties");
    let two = "countersign.reload=maybe # x\nserver.port=0 \n";
    folder.write("dpm.properties", format!("{text}{two}"));

    let run = folder.run("check dpm.properties").exits(1);

    let expected = "\
error[CS0306]: the value `maybe # x` of `countersign.reload` is neither `true` nor `false`
  --> dpm.properties:10:20
   |
10 | countersign.reload=maybe # x
   |                    ^^^^^^---
   |                          |
   |                          CS0105
   |
   = help: a comment needs a separate line: everything after `=` is the value

warning[CS0105]: this is part of the value, not a comment
--> dpm.properties:10:26
 = help: put the comment on a separate line

warning[CS0105]: the value ends in blanks, which Java keeps and countersign removes
  --> dpm.properties:11:14
   |
11 | server.port=0\u{20}
   |              ^
   |
   = help: remove them

1 error, 2 warnings · 10 settings read, 0 with foreign names ignored
";
    assert_eq!(run.stdout, expected);
}

#[cfg(unix)]
#[test]
fn a_start_counts_its_notes_and_names_the_command_that_shows_them() {
    let file = "dpm/etc/application.properties";
    let note = "ataccama.server.grpc.tls.cert-chain=file:a.pem\n";
    let folder = paired_with(&[(file, note)]);
    let command = format!("check {file} --notes");
    let counted = format!("1 note; `countersign {command}` shows all");

    let mut running = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    running.until(&format!("note: {counted}"));
    running.stop();
    let text = folder.read(file);
    folder.write(file, text.replace(".is-revoked=", ".is-revokd="));
    let refused = folder.run("dpm run --home dpm").exits(3);

    assert!(refused.stderr.contains("error[CS0106]: "), "{refused:#?}");
    assert!(refused.stderr.contains(&counted), "{refused:#?}");
    assert!(!refused.stderr.contains("CS0305"), "{refused:#?}");
    let shown = folder.run(&command).exits(1).stdout;
    assert!(shown.contains("note[CS0305]: "), "{shown}");
    // Other commands that load the settings are not about them.
    folder.write(file, text);
    let issue = "token issue --home dpm --audience dpe-dev";
    assert_eq!(folder.run(issue).exits(0).stderr, "");
}

#[cfg(unix)]
#[test]
fn a_start_on_the_vendors_sample_values_says_nothing_about_them() {
    let files = VENDOR.map(|(name, text)| {
        let (module, _) = name.split_once('.').unwrap();
        (format!("{module}/etc/application.properties"), text)
    });
    let folder = paired_with(&files.each_ref().map(|(file, text)| (&**file, *text)));

    for module in ["dpm", "dpe"] {
        let port = free_port();
        let grpc = format!("--set ataccama.server.grpc.port={port} --set server.port=0");
        let advertised = format!("--set ataccama.one.dpe.service.port={port}");
        let run = format!("{module} run --home {module} {grpc} {advertised}");
        let mut running = Running::start(&folder, &run);
        let first = running.until("");
        assert!(first.contains(" startup "), "{first}");
        running.stop();
    }
}

#[test]
fn engine_behind_a_port_mapping_starts_and_advertises_what_its_file_says() {
    let folder = paired_with(&[]);
    let [port, mapped] = [free_port(), free_port()];
    let own = format!("--set ataccama.server.grpc.port={port} --set server.port=0");
    let advertised = format!(
        "--set ataccama.one.dpe.service.hostname=dpe.example --set ataccama.one.dpe.service.port={mapped}"
    );

    let mut running = Running::start(&folder, &format!("dpe run --home dpe {own} {advertised}"));

    let started = running.until(" startup ");
    assert!(
        started.contains(&format!("advertised=dpe.example:{mapped}")),
        "{started}"
    );
    running.stop();
    for (name, value) in [("hostname", "0.0.0.0"), ("port", "0")] {
        let wrong = format!("--set ataccama.one.dpe.service.{name}={value}");
        let refused = folder
            .run(&format!("dpe run --home dpe {own} {wrong}"))
            .exits(3);
        assert!(refused.stderr.contains("CS0307"), "{}", refused.stderr);
    }
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
    for (file, named) in [
        ("missing", "missing"),
        (".", "./etc/application.properties"),
        ("binary", "binary"),
        ("large", "large"),
    ] {
        let run = folder.run(&format!("check {file}")).exits(3);
        assert_eq!(run.stdout, "");
        assert!(run.stderr.contains(&format!("`{named}`")), "{}", run.stderr);
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
