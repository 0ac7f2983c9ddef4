//! `check --fix`: broken files become what they were, byte for byte, or stay as they are.

use std::fs;

#[cfg(unix)]
use super::support::mode;
use super::support::{Folder, Run};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";

fn paired() -> Folder {
    let folder = Folder::new();
    folder.run(&format!("pair dpm={DPM} dpe={DPE}")).exits(0);
    folder
}

fn fix(folder: &Folder) -> Run {
    folder.run(&format!("check --fix {DPE} --yes -o json"))
}

/// Breaks a line after every 40 characters.
fn wrapped(value: &str) -> String {
    let characters: Vec<_> = value.chars().collect();
    let lines = characters
        .chunks(40)
        .map(|line| line.iter().collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of the setting whose name ends in `name`.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.split_once('=').filter(|(key, _)| key.ends_with(name)));
    found.unwrap().1
}

#[test]
fn quotes_of_the_seeds_own_file_are_put_back_and_a_second_run_changes_nothing() {
    let folder = Folder::new();
    let seed = include_str!("../data/seed-dpe.properties");
    folder.write(DPE, seed);

    let shown = folder.run(&format!("check --fix {DPE} --yes"));
    let after = folder.read(DPE);
    let written = fs::metadata(folder.path(DPE)).unwrap().modified().unwrap();
    let again = folder.run(&format!("check --fix {DPE} --yes"));

    assert_eq!(
        after,
        seed.replacen("{kty\":\"EC\",crv\":", "{\"kty\":\"EC\",\"crv\":", 1)
    );
    for part in [
        "dpe/etc/application.properties:4: CS0201: the missing quotes are put back\n- ataccama.",
        ".content={kty\":\"EC\",",
        ".content={\"kty\":\"EC\",",
        "\n1 repair written\n",
    ] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    assert!(!shown.stdout.contains("error[CS0201]"), "{}", shown.stdout);
    assert!(
        again.stdout.starts_with("nothing to repair\n"),
        "{}",
        again.stdout
    );
    let now = fs::metadata(folder.path(DPE)).unwrap().modified().unwrap();
    assert_eq!((folder.read(DPE), now), (after, written));
}

#[test]
fn what_an_editor_breaks_comes_back_byte_for_byte() {
    let folder = paired();
    let comment = "# ours\n! and this\n\nserver.port = 8034\nother.product=x \t\n";
    let whole = format!("{comment}{}", folder.read(DPE));
    let key = value(&whole, "generator.key");
    let content = value(&whole, ".content");
    let rows: [(&str, String); 6] = [
        ("CS0104", whole.replace(key, &wrapped(key))),
        (
            "CS0104",
            whole.replace(
                content,
                &content.replace(",\"", ",\n  \"").replace('}', "\n}"),
            ),
        ),
        (
            "CS0201",
            whole
                .replace("{\"kty\"", "{kty")
                .replace("\"crv\"", "crv\""),
        ),
        (
            "CS0105",
            whole.replace("is-revoked=false", "is-revoked=false \t "),
        ),
        ("CS0105", whole.replace(key, &format!("{key}  "))),
        ("CS0102", format!("\u{feff}{whole}")),
    ];
    for (code, broken) in rows {
        folder.write(DPE, &broken);

        let run = fix(&folder).exits(0);

        let json = run.json();
        assert_eq!(json["written"], true, "{code}");
        let codes: Vec<_> = json["repairs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| &r["code"])
            .collect();
        assert_eq!(codes, [code], "{run:#?}");
        assert_eq!(folder.read(DPE), whole, "{code}");
        for part in key
            .as_bytes()
            .chunks(20)
            .map(|part| str::from_utf8(part).unwrap())
        {
            assert!(
                !run.stdout.contains(part) && !run.stderr.contains(part),
                "{code}"
            );
        }
    }
    // All of it at once, with the line ends of another system.
    let broken = whole
        .replace("{\"kty\"", "{kty\"")
        .replace("is-revoked=false", "is-revoked=false ")
        .replace(key, &wrapped(key));
    folder.write(DPE, format!("\u{feff}{}", broken.replace('\n', "\r\n")));

    fix(&folder).exits(0);

    assert_eq!(folder.read(DPE), whole.replace('\n', "\r\n"));
}

#[test]
fn dry_run_shows_the_repairs_and_writes_nothing() {
    let folder = paired();
    let broken = folder.read(DPE).replace("{\"kty\"", "{kty\"");
    folder.write(DPE, &broken);

    let run = folder
        .run(&format!("check --fix --dry-run {DPM} {DPE}"))
        .exits(0);

    assert!(
        run.stdout.contains("\n1 repair, not written\n"),
        "{}",
        run.stdout
    );
    assert_eq!(folder.read(DPE), broken);
    folder.run(&format!("check --dry-run {DPE}")).exits(2);
}

#[test]
fn without_a_yes_the_repairs_are_shown_and_not_written() {
    let folder = paired();
    let whole = folder.read(DPE);
    folder.write(DPE, whole.replace("{\"kty\"", "{kty\""));
    let broken = folder.read(DPE);

    let run = folder.run(&format!("check --fix {DPE}")).exits(2);

    let shown = format!("{DPE}:7: CS0201: the missing quotes are put back\n- ");
    assert!(run.stderr.contains(&shown), "{run:?}");
    let help = "help: use `--yes` to apply or `--dry-run` to preview\n";
    assert!(run.stderr.ends_with(help), "{run:?}");
    assert_eq!((folder.read(DPE), &*run.stdout), (broken, ""));
    folder.run(&format!("check --fix {DPE} --yes")).exits(0);
    assert_eq!(folder.read(DPE), whole);
    // Nothing is asked where there is nothing to write.
    folder.run(&format!("check --fix {DPE}")).exits(0);
    folder.run(&format!("check --yes {DPE}")).exits(2);
}

#[test]
fn what_is_not_whole_afterwards_is_left_alone() {
    let folder = paired();
    let whole = folder.read(DPE);
    let content = value(&whole, ".content");
    let cut = content.split(",\"y\"").next().unwrap();
    for broken in [
        // A coordinate is missing, with and without quotes.
        whole.replace(content, &format!("{cut}}}")),
        whole.replace(content, &format!("{cut}}}").replace("{\"kty", "{kty")),
        whole.replace(content, "{kty\":\"EC\"\n,crv\":\"P-256\"}"),
        // This may be a comment or not.
        whole.replace(
            "roles[0]=IMPERSONATION",
            "roles[0]=IMPERSONATION # the role",
        ),
        // A private key where the peer's public one belongs.
        whole.replace(
            content,
            &content.replace("{\"kty\"", "{d\":\"AAAA\",\"kty\""),
        ),
    ] {
        assert_ne!(broken, whole);
        folder.write(DPE, &broken);

        let run = fix(&folder);

        assert_eq!(
            run.json()["repairs"].as_array().unwrap().len(),
            0,
            "{run:#?}"
        );
        assert_eq!(run.json()["written"], false);
        assert_eq!(folder.read(DPE), broken);
    }
}

#[cfg(unix)]
#[test]
fn a_repaired_file_keeps_its_mode_and_a_link_stays_one() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let folder = paired();
    let broken = folder.read(DPE).replace("{\"kty\"", "{kty\"");
    folder.write("real", broken);
    fs::set_permissions(folder.path("real"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(folder.path(DPE)).unwrap();
    symlink(folder.path("real"), folder.path(DPE)).unwrap();

    let run = folder.run(&format!("check --fix {DPE} --yes")).exits(0);

    // A program that reads it may need that mode: it is reported and not changed.
    assert!(run.stdout.contains("CS0108"), "{}", run.stdout);
    assert_eq!(mode(&folder.path("real")), 0o644);
    assert!(fs::symlink_metadata(folder.path(DPE)).unwrap().is_symlink());
}

/// A document that counts under a profile.
fn document(mark: &str, profile: &str, lines: &str) -> String {
    format!("{mark}\nspring.config.activate.on-profile={profile}\n{lines}")
}

#[test]
fn active_document_is_repaired_and_every_other_one_stays_byte_for_byte() {
    let folder = paired();
    let whole = folder.read(DPE);
    let lines = |wanted: fn(&&str) -> bool| {
        let lines = whole.split_inclusive('\n').filter(wanted);
        lines.collect::<String>()
    };
    let peer = lines(|line| line.contains(".deployments."));
    let own = lines(|line| !line.contains(".deployments."));
    let other = peer.replace("IMPERSONATION", "OTHER \t\\\n  one");
    let foreign = "\tother.product = x \t\r\n! and a blank at its end: \nthird.one : \\u0041\n";
    let text = |broken: &str| {
        let documents = [
            format!("# ours\n{own}spring.profiles.active=prod,eu\n"),
            document("#---", "test", &format!("{foreign}{other}")),
            document(
                "!---",
                "prod & eu",
                &format!("# the peer\n{broken}{foreign}"),
            ),
            document("#---", "!prod", &other),
        ];
        documents.concat()
    };
    let key = value(&peer, ".content");
    let rows = [
        ("CS0201", peer.replace("{\"kty\"", "{kty\"")),
        ("CS0104", peer.replace(key, &key.replace(",\"", ",\n  \""))),
        (
            "CS0105",
            peer.replace("is-revoked=false", "is-revoked=false \t"),
        ),
    ];
    let profile = "dpe/etc/application-test.properties";
    folder.write(profile, &other);
    for (code, broken) in rows {
        folder.write(DPE, text(&broken));

        let run = fix(&folder).exits(0);

        let json = run.json();
        let repairs = json["repairs"].as_array().unwrap();
        let codes: Vec<_> = repairs.iter().map(|repair| &repair["code"]).collect();
        assert_eq!(codes, [code], "{run:#?}");
        assert_eq!(folder.read(DPE), text(&peer), "{code}");
        assert_eq!(folder.read(profile), other);
        assert_eq!(
            folder.names("dpe/etc"),
            ["application-test.properties", "application.properties"]
        );
    }
}

#[test]
fn document_that_is_not_active_is_not_repaired() {
    let folder = paired();
    let text = folder.read(DPE);
    let broken = text.replace("{\"kty\"", "{kty\"");
    let peer: String = broken
        .split_inclusive('\n')
        .filter(|line| line.contains(".deployments."))
        .collect();
    let whole = text + &document("#---", "test", &peer);
    folder.write(DPE, &whole);

    let run = fix(&folder).exits(0);

    assert_eq!(run.json()["written"], false, "{run:#?}");
    assert_eq!(folder.read(DPE), whole);
}

#[test]
fn setting_in_the_file_of_an_active_profile_is_repaired_there() {
    let folder = paired();
    let text = folder.read(DPE);
    let lines = |is_peer: bool| {
        let lines = text.split_inclusive('\n');
        let lines = lines.filter(|line| line.contains(".deployments.") == is_peer);
        lines.collect::<String>()
    };
    let main = lines(false) + "spring.profiles.active=prod\n";
    let profile = "dpe/etc/application-prod.properties";
    folder.write(DPE, &main);
    folder.write(profile, lines(true).replace("{\"kty\"", "{kty\""));

    let run = fix(&folder).exits(0);

    assert_eq!(run.json()["written"], true, "{run:#?}");
    assert_eq!(folder.read(profile), lines(true));
    assert_eq!(folder.read(DPE), main);
}

#[test]
fn what_stands_beside_a_public_key_is_not_shown_by_its_repair() {
    let folder = paired();
    let (file, secret) = (DPM, "Dqjavmcdf8TXb7BY85ef9UNIx2KYoUl3DHB_dRSVZYQ");
    let text = folder.read(file);
    let broken = text.replace(
        "{\"kty\":\"EC\",",
        &format!("{{\"kty\":\"EC\",\n#   \"d\":\"{secret}\",\n   "),
    );
    let beside = text.replace(
        "\"alg\":\"ES256\"}",
        &format!("\"alg\":\"ES256\",\"note\":\"{secret}\"}} "),
    );
    for changed in [broken, beside] {
        assert_ne!(changed, text);
        folder.write(file, &changed);
        for how in ["--fix --dry-run", "--fix --dry-run -o json"] {
            let run = folder.run(&format!("check {file} {how}"));
            assert!(!format!("{run:?}").contains(secret), "{run:#?}");
        }
    }
}
