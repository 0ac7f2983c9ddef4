//! `countersign key`.

use std::process::{Command, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine as _};

#[cfg(unix)]
use super::support::mode;
use super::support::{Folder, private_part};

#[test]
fn a_new_key_is_written_as_mkjwk_writes_it_for_its_owner_alone() {
    let folder = Folder::new();

    let run = folder
        .run("key gen --out dpm.jwk --public-out dpm-public.jwk")
        .exits(0);

    let text = folder.read("dpm.jwk");
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("    \"")?.split('"').next())
        .collect();
    assert_eq!(names, ["kty", "d", "use", "crv", "kid", "x", "y", "alg"]);
    assert!(
        text.starts_with("{\n    \"kty\": \"EC\",\n    \"d\": \""),
        "{text}"
    );
    assert!(text.ends_with("\"alg\": \"ES256\"\n}\n"), "{text}");
    let kid = serde_json::from_str::<serde_json::Value>(&text).unwrap()["kid"].clone();
    assert!(run.stdout.contains(kid.as_str().unwrap()), "{run:?}");
    assert!(!format!("{run:?}").contains(&private_part(&text)));
    let public = folder.read("dpm-public.jwk");
    assert!(
        !public.contains("\"d\"") && !public.contains("\"use\""),
        "{public}"
    );
    #[cfg(unix)]
    {
        assert_eq!(mode(&folder.path("dpm.jwk")), 0o600);
        assert_eq!(mode(&folder.path("dpm-public.jwk")), 0o644);
    }
}

#[test]
fn an_existing_key_is_replaced_only_by_force() {
    let folder = Folder::new();
    folder.run("key gen --out dpm.jwk").exits(0);
    let before = folder.read("dpm.jwk");
    folder.write("public.jwk", "mine");

    let refused = folder.run("key gen --out dpm.jwk").exits(6);
    folder
        .run("key gen --out new.jwk --public-out public.jwk")
        .exits(6);
    folder.run("key import dpm.jwk --out public.jwk").exits(6);

    assert_eq!(refused.stdout, "");
    assert!(
        refused
            .stderr
            .starts_with("error: `dpm.jwk` already exists\n"),
        "{refused:?}"
    );
    assert_eq!(folder.read("dpm.jwk"), before);
    assert_eq!(folder.names(""), ["dpm.jwk", "public.jwk"]);
    folder.run("key gen --out dpm.jwk --force").exits(0);
    assert_ne!(folder.read("dpm.jwk"), before);
}

#[test]
fn without_a_file_the_key_goes_through_the_pipe() {
    let folder = Folder::new();

    let made = folder.run("key gen").exits(0);
    let named = folder
        .run_with("key fingerprint - -o json", made.stdout.as_bytes())
        .exits(0);

    let jwk: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    assert_eq!(named.json()["fingerprint"], jwk["kid"]);
    assert_eq!(named.json()["rfc7638"].as_str().unwrap().len(), 43);
    assert_eq!(made.stderr, "");
}

#[test]
#[cfg(target_os = "linux")]
fn a_private_key_is_not_shown_on_a_terminal() {
    let folder = Folder::new();
    let run = |command: &str| {
        let binary = env!("CARGO_BIN_EXE_countersign");
        Command::new("script")
            .args(["-qec", &format!("{binary} {command}"), "/dev/null"])
            .current_dir(folder.path(""))
            .stdin(Stdio::null())
            .output()
    };
    let Ok(output) = run("key gen") else {
        println!("skipped: there is no `script` on this machine");
        return;
    };
    let shown = String::from_utf8_lossy(&output.stdout);

    assert_eq!(output.status.code(), Some(2), "{shown}");
    assert!(shown.contains("--out FILE"), "{shown}");
    assert!(!shown.contains("\"d\""), "{shown}");
}

#[test]
fn every_exported_form_imports_as_the_same_key() {
    let folder = Folder::new();
    folder.run("key gen --out dpm.jwk").exits(0);
    let name = folder
        .run("key fingerprint dpm.jwk -o json")
        .exits(0)
        .json();
    let d = private_part(&folder.read("dpm.jwk"));
    let private = [
        "jwk",
        "base64",
        "pem-pkcs8",
        "pem-sec1",
        "der-pkcs8",
        "der-sec1",
    ];
    let public = ["public-jwk", "pem-spki", "der-spki"];
    for form in private.iter().chain(&public) {
        folder
            .run(&format!("key export dpm.jwk --to {form} --out {form}"))
            .exits(0);
        folder
            .run(&format!("key import {form} --out {form}.jwk"))
            .exits(0);

        let back = folder
            .run(&format!("key fingerprint {form}.jwk -o json"))
            .exits(0);
        assert_eq!(back.json(), name, "{form}");
        assert_eq!(
            folder.read(&format!("{form}.jwk")).contains(&d),
            private.contains(form),
            "{form}"
        );
        #[cfg(unix)]
        {
            let expected = if private.contains(form) { 0o600 } else { 0o644 };
            assert_eq!(mode(&folder.path(form)), expected, "{form}");
        }
    }
    assert_eq!(folder.read("base64").trim().len(), 340);
    assert_eq!(folder.read("public-jwk").lines().count(), 1);
    assert_eq!(folder.read("jwk.jwk"), folder.read("dpm.jwk"));
}

/// What Windows, a secret store, a variable and mkjwk's second box make of a key.
#[test]
fn rewritten_key_imports_as_the_same_key_and_a_set_of_two_says_how_to_choose() {
    let folder = Folder::new();
    folder.run("key gen --out dpm.jwk").exits(0);
    folder
        .run("key export dpm.jwk --to pem-pkcs8 --out pem")
        .exits(0);
    let (jwk, pem) = (folder.read("dpm.jwk"), folder.read("pem"));
    let utf16: Vec<u8> = format!("\u{feff}{pem}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    folder.write("base64", BASE64_STANDARD.encode(&pem));
    folder.write(
        "base64-with-mark",
        BASE64_STANDARD.encode(format!("\u{feff}{jwk}")),
    );
    folder.write("utf16", utf16);
    folder.write("variable", pem.replace('\n', "\\n"));
    folder.write("set", format!("{{\"keys\": [{jwk}]}}"));
    folder.write("two", format!("{{\"keys\": [{jwk}, {jwk}]}}"));

    for file in ["base64", "base64-with-mark", "utf16", "variable", "set"] {
        let run = folder.run(&format!("key import {file}")).exits(0);
        assert_eq!(run.stdout, jwk, "{file}");
    }
    let two = folder.run("key import two").exits(3);
    assert_eq!(
        two.stderr,
        "error: cannot read a key from `two`: it is a key set with 2 keys; save the one that you \
         need, chosen by its `kid`, as a file of its own: `jq '.keys[0]'` prints the first\n"
    );
}

#[test]
fn key_that_openssl_can_rewrite_is_imported_after_the_command_that_the_refusal_prints() {
    let folder = Folder::new();
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(std::env::var_os("COUNTERSIGN_REQUIRE_PEERS").is_none());
        return;
    }
    let typed = |line: &str| {
        let mut shell = Command::new("sh");
        let done = shell
            .args(["-c", line])
            .current_dir(folder.path("."))
            .output();
        assert!(done.as_ref().unwrap().status.success(), "{line}: {done:?}");
    };
    typed("openssl ecparam -name prime256v1 -genkey -noout -out plain.pem");
    typed("openssl pkey -in plain.pem -aes128 -passout pass:x -out encrypted.pem");
    typed("openssl pkey -in plain.pem -ec_param_enc explicit -out explicit.pem");
    typed("openssl pkey -in plain.pem -pubout -ec_param_enc explicit -out public.pem");
    typed("openssl req -x509 -new -key plain.pem -subj /CN=a -out both.pem");
    typed("cat plain.pem >> both.pem");
    let name = folder.run("key fingerprint plain.pem").exits(0).stdout;
    for (file, cause) in [
        ("encrypted.pem", "it is encrypted with a passphrase"),
        ("explicit.pem", "it has explicit curve parameters"),
        ("public.pem", "it has explicit curve parameters"),
        ("both.pem", "it contains a certificate beside the key"),
    ] {
        let refused = folder.run(&format!("key import {file}")).exits(3);
        assert!(refused.stderr.contains(cause), "{}", refused.stderr);
        let mut lines = refused.stderr.lines().map(str::trim);
        let command = lines.find(|line| line.starts_with("openssl ")).unwrap();
        let secret = if file == "encrypted.pem" {
            " -passin pass:x"
        } else {
            ""
        };
        typed(&format!("{command}{secret}"));

        let after = folder.run("key fingerprint key.pem").exits(0).stdout;
        assert_eq!(after, name, "{file}");
    }
}

#[test]
fn a_public_key_has_no_private_form() {
    let folder = Folder::new();
    folder
        .run("key gen --out dpm.jwk --public-out public.jwk")
        .exits(0);

    for form in ["base64", "pem-pkcs8", "pem-sec1", "der-pkcs8", "der-sec1"] {
        let run = folder
            .run(&format!("key export public.jwk --to {form}"))
            .exits(2);
        assert_eq!(run.stdout, "", "{form}");
    }
    folder.run("key export public.jwk --to jwk").exits(0);
}

#[test]
fn a_kid_of_another_kind_is_kept_and_remarked_on() {
    let folder = Folder::new();
    folder.run("key gen --out dpm.jwk").exits(0);
    let name = folder.run("key fingerprint dpm.jwk -o json").json();
    let own = name["fingerprint"].as_str().unwrap();
    let text = folder.read("dpm.jwk");
    folder.write("free.jwk", text.replace(own, "my key"));
    folder.write(
        "thumb.jwk",
        text.replace(own, name["rfc7638"].as_str().unwrap()),
    );

    let free = folder.run("key export free.jwk --to public-jwk").exits(0);
    let named = folder.run("key fingerprint free.jwk -o json").exits(0);
    let thumb = folder.run("key fingerprint thumb.jwk").exits(0);

    assert!(free.stdout.contains(r#""kid":"my key""#), "{}", free.stdout);
    assert_eq!(named.json(), name);
    assert_eq!(
        named.stderr,
        "note: the key's `kid` is not its fingerprint: `my key`\n"
    );
    assert!(
        thumb.stderr.contains("is its RFC 7638 thumbprint"),
        "{}",
        thumb.stderr
    );
}

#[test]
fn what_is_no_key_is_exit_3_with_path_and_one_cause_and_nothing_of_the_key() {
    let folder = Folder::new();
    folder.run("key gen --out dpm.jwk").exits(0);
    let text = folder.read("dpm.jwk");
    let d = private_part(&text);
    folder.write("damaged", text.replace("\"kty\"", "kty\""));
    folder.write(
        "moved",
        text.replace("\"d\"", "\"q\"").replace("\"crv\"", "\"d\""),
    );
    folder.write("cut", text.split_at(120).0);
    folder.write("unquoted", text.replace('"', ""));
    folder.write(
        "wrong-d",
        text.replace(&d, &d.chars().rev().collect::<String>()),
    );
    folder.write("large", vec![b' '; 10_000_000]);
    folder.write("binary", [0_u8, 159, 146, 150]);
    folder.write("empty", "");
    for file in [
        "damaged", "moved", "cut", "unquoted", "wrong-d", "large", "binary", "empty", "missing",
        ".",
    ] {
        for command in ["fingerprint", "import", "export --to jwk"] {
            let run = folder.run(&format!("key {command} {file}")).exits(3);
            assert_eq!(run.stdout, "", "{file}");
            let named = match (command, file) {
                // A folder is a home.
                ("fingerprint", ".") => "`./etc/application.properties`".to_owned(),
                _ => format!("`{file}`"),
            };
            assert!(run.stderr.contains(&named), "{}", run.stderr);
            assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
            let shown = d
                .as_bytes()
                .windows(10)
                .any(|part| run.stderr.contains(std::str::from_utf8(part).unwrap()));
            assert!(!shown, "{}", run.stderr);
        }
    }
}

#[test]
fn openssl_agrees_with_the_fingerprint() {
    let folder = Folder::new();
    let script = "openssl ecparam -name prime256v1 -genkey -out k.pem 2>/dev/null || exit 99
        openssl pkey -in k.pem -pubout -outform DER | openssl dgst -sha256 -binary | \
        openssl base64 -A | tr '+/' '-_' | tr -d '='";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    if output.status.code() == Some(99) {
        println!("skipped: there is no `openssl` on this machine");
        return;
    }

    let name = folder.run("key fingerprint k.pem -o json").exits(0).json();

    assert_eq!(
        name["fingerprint"],
        String::from_utf8(output.stdout).unwrap()
    );
}

#[cfg(unix)]
#[test]
fn replaced_key_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    folder.run("key gen --out a.jwk").exits(0);
    for command in [
        "key gen --out b.jwk --force",
        "key import a.jwk --out b.jwk --force",
        "key export a.jwk --to pem-pkcs8 --out b.jwk --force",
    ] {
        folder.write("b.jwk", "old");
        let open = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(folder.path("b.jwk"), open).unwrap();

        folder.run(command).exits(0);

        assert_eq!(mode(&folder.path("b.jwk")), 0o600, "{command}");
    }
}

#[test]
fn both_halves_in_one_file_are_a_wrong_use_that_writes_nothing() {
    let folder = Folder::new();
    for command in [
        "key gen --out a --public-out a",
        "key gen --out a --public-out ./sub/../a --force",
    ] {
        let run = folder.run(command).exits(2);

        assert!(run.stderr.contains("name the same file"), "{}", run.stderr);
        assert_eq!(folder.names(""), [""; 0]);
    }
}

#[test]
fn file_that_cannot_be_written_is_named_and_no_temporary_one() {
    let run = Folder::new().run("key gen --out nowhere/a.jwk").exits(3);

    assert!(run.stderr.contains("`nowhere/a.jwk`"), "{}", run.stderr);
    assert!(!run.stderr.contains(".countersign-"), "{}", run.stderr);
}

#[test]
fn key_file_that_is_too_long_is_not_given_a_length_that_was_not_read() {
    let folder = Folder::new();
    folder.write("long", " ".repeat(1_000_000));

    let run = folder.run("key fingerprint long").exits(3);

    assert!(
        run.stderr.contains("more than 65536 bytes"),
        "{}",
        run.stderr
    );
}

#[test]
fn key_in_json_is_read_from_its_members_and_from_no_text_in_them() {
    let folder = Folder::new();
    folder.run("key gen --out one.jwk").exits(0);
    folder.run("key gen --out two.jwk").exits(0);
    let pem = folder.run("key export two.jwk --to pem-spki").exits(0);
    let line = pem.stdout.replace('\n', "");
    let public = folder.run("key export one.jwk --to public-jwk").exits(0);
    let both = public
        .stdout
        .trim()
        .replacen('{', &format!("{{\"note\":\"{line}\","), 1);
    folder.write("both.jwk", both);

    let one = folder.run("key fingerprint one.jwk").exits(0);
    let both = folder.run("key fingerprint both.jwk").exits(0);

    assert_eq!(both.stdout, one.stdout);
}

#[test]
fn a_file_that_a_key_closes_to_others_is_said_to_be_closed() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    for (before, is_said) in [(0o644, true), (0o640, true), (0o600, false), (0o400, false)] {
        folder.write("k.jwk", "");
        let mode = std::fs::Permissions::from_mode(before);
        std::fs::set_permissions(folder.path("k.jwk"), mode).unwrap();

        let run = folder.run("key gen --out k.jwk --force").exits(0);

        assert_eq!(super::support::mode(&folder.path("k.jwk")), 0o600);
        let said = format!("tightened from {before:04o}: only its owner can read it");
        assert_eq!(run.stderr.contains(&said), is_said, "{run:?}");
        std::fs::remove_file(folder.path("k.jwk")).unwrap();
    }
}
