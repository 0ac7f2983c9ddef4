//! The catalogue's rows about files and deployments, 2.11: one bad file each, and its one code.

use std::fmt::Write as _;

use super::*;

fn jwt_key(name: &str) -> String {
    format!("{D}.dpe-dev.security.jwt-keys.{name}")
}

/// A good file with `from` replaced, which must be there.
fn replaced(from: &str, to: &str) -> String {
    let text = good();
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

#[test]
fn other_spellings_of_a_good_file_are_accepted() {
    let good = good();
    let first = good.split('=').next().unwrap().to_owned();
    let mut marked = vec![0xef, 0xbb, 0xbf];
    marked.extend(good.as_bytes());
    let latin = [good.as_bytes(), b"# caf\xe9\n"].concat();
    let rows: [(&str, Vec<u8>); 13] = [
        ("LF", good.clone().into()),
        ("CR LF", good.replace('\n', "\r\n").into()),
        ("CR", good.replace('\n', "\r").into()),
        ("no final newline", good.trim_end().into()),
        ("colons", good.replacen('=', ":", 1).into()),
        ("colons with blanks", good.replacen('=', " : ", 1).into()),
        ("blanks", good.replacen('=', " ", 1).into()),
        ("continued line", good.replacen('=', "=\\\n    ", 1).into()),
        (
            "escaped letter",
            good.replacen("ataccama", "\\u0061taccama", 1).into(),
        ),
        ("escaped colon", good.replacen("\":\"", "\"\\:\"", 1).into()),
        (
            "indented, commented",
            format!("! c\n#d\n\n  \t{good}").into(),
        ),
        ("BOM", marked),
        ("ISO-8859-1", latin),
    ];
    assert!(first.starts_with("ataccama"));
    for (name, text) in rows {
        assert_eq!(error_codes(text), [], "{name}");
    }
}

#[test]
fn files_that_are_none_cannot_be_read() {
    let folder = Folder::new();
    let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let text = format!("\u{feff}{}", good());
        text.encode_utf16().flat_map(unit).collect()
    };
    let wide = "UTF-16 or UTF-32";
    for (name, bytes, cause) in [
        ("UTF-16 LE", utf16(u16::to_le_bytes), wide),
        ("UTF-16 BE", utf16(u16::to_be_bytes), wide),
        ("NUL", [good().as_bytes(), b"a=\0\n"].concat(), "zero byte"),
        ("binary", vec![0x7f, b'E', b'L', b'F', 0, 0, 1], "binary"),
        ("a line of 10 MB", vec![b'a'; 10 << 20], "larger than 8 MiB"),
    ] {
        let file = folder.write(name, bytes);
        let loaded = load(&file).unwrap_err().to_string();
        assert!(loaded.contains(cause), "{name}: {loaded}");
        let shown = match check(std::slice::from_ref(&file), &[]) {
            Ok(report) => {
                let found = report.findings.iter().next().unwrap();
                assert_eq!(found.code, Code::Cs0101, "{name}");
                assert_eq!(found.severity, Severity::Error, "{name}");
                found.message.clone()
            }
            Err(error) => {
                assert!(["binary", "larger than 8 MiB"].contains(&cause), "{name}");
                error.to_string()
            }
        };
        assert!(shown.contains(cause), "{name}: {shown}");
    }
}

#[cfg(unix)]
#[test]
fn paths_that_are_no_file_are_named_at_once() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new();
    let path = |name: &str| folder.0.path().join(name);
    symlink(path("loop"), path("loop")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(path("pipe"))
        .status();
    assert!(made.unwrap().success());
    for (file, cause) in [
        (path("nothing"), "no such file"),
        (folder.0.path().to_owned(), "a directory"),
        (path("loop"), "symbolic links"),
        (path("pipe"), "a pipe"),
        (PathBuf::from("/dev/zero"), "device"),
    ] {
        let shown = check(std::slice::from_ref(&file), &[])
            .unwrap_err()
            .to_string();
        assert!(shown.contains(cause), "{}: {shown}", file.display());
    }
}

#[test]
fn texts_of_another_kind_are_refused() {
    for (name, text) in [
        ("empty", ""),
        ("blank", "\n \n"),
        ("only comments", "# a\n! b\n"),
        ("HTML", "<!DOCTYPE html>\n<html><body>404</body></html>\n"),
        ("JSON", "{\"ataccama\": {\"one\": 1}}\n"),
        ("YAML", "ataccama:\n  one:\n    platform: x\n"),
    ] {
        assert_eq!(error_codes(text), [Code::Cs0301], "{name}");
    }
    for escape in ["\\u12", "\\uXYZW", "\\u", "\\u12G4", "\\ud800"] {
        assert_eq!(
            error_codes(format!("{}x={escape}\n", good())),
            [Code::Cs0101],
            "{escape}"
        );
    }
}

#[test]
fn missing_and_empty_parts_are_refused() {
    let key = jwt_key("key");
    for name in [
        format!("{key}.fingerprint"),
        format!("{key}.content"),
        format!("{D}.dpe-dev.module"),
    ] {
        let text = good();
        let kept = text.lines().filter(|line| !line.starts_with(&name));
        let missing: String = kept.flat_map(|line| [line, "\n"]).collect();
        assert_eq!(error_codes(missing), [Code::Cs0301], "{name} missing");
        let emptied = text.lines().map(|line| match line.split_once('=') {
            Some((found, _)) if found == name => format!("{name}=\n"),
            _ => format!("{line}\n"),
        });
        let emptied: String = emptied.collect();
        let code = if name.ends_with(".content") {
            Code::Cs0201
        } else {
            Code::Cs0301
        };
        assert_eq!(error_codes(emptied), [code], "{name} empty");
    }
    let no_role = replaced(".roles[0]=IMPERSONATION", ".roles[0]=");
    assert_eq!(error_codes(no_role), [Code::Cs0306], "role empty");
    let no_roles = replaced(".roles[0]=IMPERSONATION", ".roles=IMPERSONATION,,ADMIN");
    assert_eq!(
        error_codes(no_roles),
        [Code::Cs0306],
        "role empty in a list"
    );
}

#[test]
fn switches_are_words_of_spring_and_nothing_else() {
    for value in [
        "true", "false", "yes", "no", "on", "off", "1", "0", "TRUE", "Off",
    ] {
        let text = replaced("is-revoked=false", &format!("is-revoked={value}"));
        assert_eq!(error_codes(text), [], "{value}");
    }
    for value in [
        "",
        "fals",
        "2",
        "-1",
        "t",
        "nein",
        "null",
        "\"false\"",
        "'false'",
        "false # not revoked",
        "false;",
        "false,true",
        "not true",
        "\\u0000false",
    ] {
        let text = replaced("is-revoked=false", &format!("is-revoked={value}"));
        assert_eq!(error_codes(text), [Code::Cs0306], "{value}");
    }
}

#[test]
fn names_of_deployments_are_letters_digits_and_dashes() {
    let long = "n".repeat(41);
    for (name, code) in [
        ("a/b", Code::Cs0301),
        ("a\\ b", Code::Cs0301),
        ("é", Code::Cs0301),
        ("../x", Code::Cs0106),
        ("*", Code::Cs0301),
        ("a_b", Code::Cs0301),
        ("a\\u000ab", Code::Cs0301),
        ("a\\u0000b", Code::Cs0301),
        ("a.b", Code::Cs0106),
        ("", Code::Cs0301),
        (&long, Code::Cs0301),
        (&"n".repeat(300), Code::Cs0301),
    ] {
        let text = replaced("deployments.dpe-dev.", &format!("deployments.{name}."));
        assert_eq!(error_codes(text), [code], "{name:?}");
    }
    let text = replaced(
        "deployments.dpe-dev.",
        &format!("deployments.{}.", "n".repeat(40)),
    );
    assert_eq!(error_codes(text), [], "40 characters");
    for twin in ["DPE-DEV", "dpedev", "Dpe-Dev"] {
        let text = good() + &deployment(twin, "dpe", &key());
        assert_eq!(error_codes(text), [Code::Cs0304], "{twin}");
    }
}

#[test]
fn key_or_name_of_a_key_stands_once() {
    let (own, peer, third) = (own_line(&key()), key(), key());
    let one = deployment("one", "dpe", &peer);
    let two = deployment("two", "dpe", &peer);
    // A second key of the first deployment.
    let keys = one.lines().filter(|line| line.contains(".jwt-keys.key."));
    let again: String = keys.flat_map(|line| [line, "\n"]).collect();
    let again = again.replace(".jwt-keys.key.", ".jwt-keys.second.");
    let revoked = |text: &str| text.replace("is-revoked=false", "is-revoked=true");
    let named = |text: &str, key: &SigningKey, name: &str| text.replace(kid(key).as_str(), name);
    let thumbprint = peer.verifying_key().thumbprint();
    let others = named(&deployment("two", "dpe", &third), &third, "same");
    for (name, text) in [
        ("the same key in two deployments", one.clone() + &two),
        ("revoked here, trusted there", revoked(&one) + &two),
        ("trusted here, revoked there", one.clone() + &revoked(&two)),
        (
            "the same key under two names",
            one.clone() + &named(&two, &peer, &thumbprint),
        ),
        (
            "the same kid for two keys",
            named(&one, &peer, "same") + &others,
        ),
        ("the same key twice in one deployment", one.clone() + &again),
        (
            "revoked and trusted in one deployment",
            one.clone() + &revoked(&again),
        ),
        (
            "under two names in one deployment",
            one.clone() + &named(&again, &peer, &thumbprint),
        ),
    ] {
        assert_eq!(
            error_codes(format!("{own}{text}")),
            [Code::Cs0208],
            "{name}"
        );
    }
}

#[test]
fn list_indices_count_from_zero_once() {
    let roles = format!("{D}.dpe-dev.security.roles");
    for (name, index, code) in [
        ("gap", "[2]", Code::Cs0109),
        ("negative", "[-1]", Code::Cs0109),
        ("2^32", "[4294967296]", Code::Cs0109),
        ("letter", "[a]", Code::Cs0109),
        ("over the most", "[1024]", Code::Cs0109),
        ("twice", "[0]", Code::Cs0103),
        // Spring takes an empty index for none: the list is given in two ways.
        ("empty", "[]", Code::Cs0103),
        // Spring looks for `[1]` and finds none.
        ("with a zero before it", "[01]", Code::Cs0109),
    ] {
        let found = error_codes(good() + &format!("{roles}{index}=A\n"));
        assert_eq!(found, [code], "{name}");
    }
    let unclosed = error_codes(good() + &format!("{roles}[1=A\n"));
    assert_eq!(unclosed, [Code::Cs0106], "unclosed");
    let without_first = replaced(".roles[0]=", ".roles[1]=");
    assert_eq!(
        error_codes(without_first),
        [Code::Cs0109],
        "[1] without [0]"
    );
}

#[test]
fn what_decides_trust_is_said_once_and_spelt_right() {
    let key = jwt_key("key");
    for line in [
        format!("{key}.fingerprnt=x"),
        format!("{key}.is-revoke=true"),
        format!("{key}.revoked=true"),
        format!("{key}.contents=x"),
        format!("{key}.is_revokd=true"),
        format!("{D}.dpe-dev.securty.roles=A"),
        format!("{D}.dpe-dev.security.jwt-key.key.is-revoked=true"),
        format!("{D}.dpe-dev.security.rolls=A"),
        format!("{D}.dpe-dev.modul=dpe"),
    ] {
        assert_eq!(
            error_codes(format!("{}{line}\n", good())),
            [Code::Cs0106],
            "{line}"
        );
    }
    for line in [
        format!("{key}.isRevoked=true"),
        format!("{key}.is-revoked=true"),
        format!("{key}.is-revoked=false"),
        format!("{key}.IS_REVOKED=true"),
        format!("{D}.dpe-dev.module=dpm"),
        format!("{D}.dpe-dev.security.jwtKeys.key.is-revoked=true"),
    ] {
        assert_eq!(
            error_codes(format!("{}{line}\n", good())),
            [Code::Cs0103],
            "{line}"
        );
    }
    let text = good();
    let fingerprint = text.lines().nth(3).unwrap().to_owned();
    assert!(fingerprint.contains(".fingerprint="));
    let twice = error_codes(format!("{text}{fingerprint}\n"));
    assert_eq!(twice, [Code::Cs0103], "fingerprint twice, and the same");
    let swallowing = replaced("is-revoked=false", "is-revoked=false\\");
    assert!(
        error_codes(swallowing).contains(&Code::Cs0104),
        "a stray backslash"
    );
}

#[test]
fn placeholders_end_and_never_copy_a_private_key() {
    let mut bomb = "b0=boom\n".to_owned();
    for n in 1..=40 {
        writeln!(bomb, "b{n}=${{b{m}}}${{b{m}}}", m = n - 1).unwrap();
    }
    let mut chain = "c0=8031\n".to_owned();
    for n in 1..=20_000 {
        writeln!(chain, "c{n}=${{c{}}}", n - 1).unwrap();
    }
    let nested = format!(
        "server.port={}x{}\n",
        "${".repeat(20_000),
        "}".repeat(20_000)
    );
    for (name, lines) in [
        ("unresolved", "server.port=${nowhere}\n".to_owned()),
        ("itself", "server.port=${server.port}\n".to_owned()),
        ("a circle", "a=${b}\nb=${a}\nserver.port=${a}\n".to_owned()),
        ("2^40 letters", format!("{bomb}server.port=${{b40}}\n")),
        ("20,000 deep", format!("{chain}server.port=${{c20000}}\n")),
        ("20,000 nested", nested),
        ("the private key", format!("server.port=${{{KEY}}}\n")),
        (
            "the private key by a default",
            format!("server.port=${{none:${{{KEY}}}}}\n"),
        ),
        (
            "the private key in a role",
            format!("{D}.dpe-dev.security.roles[1]=${{{KEY}}}\n"),
        ),
    ] {
        assert_eq!(error_codes(good() + &lines), [Code::Cs0111], "{name}");
    }
}
