//! `countersign token`.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

use super::support::Folder;

fn paired() -> Folder {
    let folder = Folder::new();
    folder
        .run("pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties")
        .exits(0);
    folder
}

fn token(folder: &Folder) -> String {
    folder
        .run("token issue --home dpe --audience dpm-dev")
        .exits(0)
        .stdout
}

#[test]
fn an_issued_token_is_accepted_by_the_callee_alone() {
    let folder = paired();
    let token = token(&folder);

    let accepted = folder
        .run_with("token verify --home dpm", token.as_bytes())
        .exits(0);
    let refused = folder
        .run_with("token verify --home dpe", token.as_bytes())
        .exits(1);

    let claims = accepted.json();
    assert_eq!(
        (&claims["iss"], &claims["sub"]),
        (&"dpe-dev".into(), &"dpe-dev".into())
    );
    assert_eq!(claims["aud"][0], "dpm-dev");
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        300
    );
    assert_eq!(refused.stdout, "");
    assert!(
        refused.stderr.starts_with("error: refused: KEY_UNKNOWN: "),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("\nhelp: "), "{}", refused.stderr);
}

#[test]
fn audience_is_found_in_any_spelling() {
    let folder = paired();
    let token = folder
        .run("token issue --home dpe --audience DPM_Dev")
        .exits(0)
        .stdout;

    let accepted = folder
        .run_with("token verify --home dpm", token.as_bytes())
        .exits(0);

    assert_eq!(accepted.json()["aud"][0], "dpm-dev");
}

#[test]
fn an_altered_token_names_its_reason() {
    let folder = paired();
    let token = token(&folder);
    let (body, signature) = token.trim().rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().collect();
    let rows = [
        (String::new(), "TOKEN_MALFORMED"),
        ("a.b".to_owned(), "TOKEN_MALFORMED"),
        (format!("{body}."), "SIGNATURE_INVALID"),
        (token.replacen("eyJ", "fyJ", 1), "TOKEN_MALFORMED"),
        (
            format!("{body}.{}", turned.replace(['w', 'A', 'Q', 'g'], "A")),
            "",
        ),
    ];
    for (altered, reason) in rows {
        let run = folder
            .run_with("token verify --home dpm", altered.as_bytes())
            .exits(1);
        assert!(
            run.stderr.starts_with(&format!("error: refused: {reason}")),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn explain_says_which_rules_hold() {
    let folder = paired();
    folder.write("token.txt", token(&folder));

    let text = folder
        .run("token explain --home dpm --token-file token.txt")
        .exits(0);
    let json = folder
        .run("token explain --home dpm --token-file token.txt -o json")
        .exits(0)
        .json();
    let refused = folder
        .run("token explain --home dpe --token-file token.txt -o json")
        .exits(1)
        .json();

    let last = text.stdout.lines().last().unwrap();
    assert_eq!(
        last,
        "ACCEPTED as ServiceIdentity(module=dpe, id=dpe-dev, roles=[IMPERSONATION])"
    );
    assert!(
        text.stdout
            .lines()
            .rev()
            .skip(1)
            .all(|line| line.starts_with("PASS  ")),
        "{}",
        text.stdout
    );
    assert_eq!(
        (&json["accepted"], &json["reason"]),
        (&true.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&refused["accepted"], &refused["reason"]),
        (&false.into(), &"KEY_UNKNOWN".into())
    );
    let checks = refused["checks"].as_array().unwrap();
    let failed = checks.iter().find(|check| check["pass"] == false).unwrap();
    assert_eq!(failed["name"], "key known");
    assert!(failed["detail"].is_string());
}

#[test]
fn an_audience_that_is_not_trusted_is_refused_with_the_names_that_are() {
    let run = paired()
        .run("token issue --home dpe --audience unknown")
        .exits(2);

    assert_eq!(
        run.stderr,
        "error: no trusted deployment is called `unknown`\nhelp: trusted deployments: `dpm-dev`\n"
    );
}

#[test]
fn a_home_with_faults_is_exit_3_with_every_finding() {
    let folder = paired();
    let file = "dpe/etc/application.properties";
    folder.write(
        file,
        folder.read(file).replace("content={\"kty", "content={kty"),
    );

    let run = folder
        .run("token issue --home dpe --audience dpm-dev")
        .exits(3);
    let missing = folder
        .run("token issue --home nowhere --audience dpm-dev")
        .exits(3);

    assert!(run.stderr.contains("error[CS0201]"), "{}", run.stderr);
    assert!(
        run.stderr.contains("1 error in the settings of `dpe`"),
        "{}",
        run.stderr
    );
    assert!(missing.stderr.contains("nowhere"), "{}", missing.stderr);
    assert_eq!(missing.stderr.lines().count(), 1, "{}", missing.stderr);
}

#[test]
fn explain_goes_on_after_a_failure_and_says_how_to_fix_each() {
    let folder = paired();

    let run = folder
        .run_with("token explain --home dpe", token(&folder).as_bytes())
        .exits(1);

    let lines: Vec<_> = run.stdout.lines().collect();
    for start in [
        "FAIL  key known     KEY_UNKNOWN: ",
        "-     signature     unknown: an earlier rule does not hold: key known",
        "PASS  times         ",
        "FAIL  audience      AUDIENCE_MISMATCH: ",
        "-     role          unknown: an earlier rule does not hold: key known",
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(start)),
            "{start}: {}",
            run.stdout
        );
    }
    assert_eq!(run.stdout.matches("\n                    fix: ").count(), 2);
    assert_eq!(lines.last(), Some(&"REFUSED: KEY_UNKNOWN"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn explain_names_what_copying_and_other_libraries_do_to_a_token() {
    let folder = paired();
    let token = token(&folder);
    let token = token.trim();
    let (signed, _) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap();
    let with = |name: &str| {
        let mut claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        claims[name] = (claims["iat"].as_i64().unwrap() * 1000).into();
        if name == "iat" {
            claims["exp"] = (claims["exp"].as_i64().unwrap() * 1000).into();
        }
        let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        format!("{header}.{payload}.{}", "A".repeat(86))
    };
    let der = [&[0x30, 68, 2, 32][..], &[1; 32], &[2, 32], &[1; 32]].concat();
    let der = BASE64_URL_SAFE_NO_PAD.encode(der);
    for (text, rule, cause) in [
        (
            format!("\"{token}\"\n"),
            "well formed",
            "quotes are around it",
        ),
        (
            format!("\u{201c}{token}\u{201d}"),
            "well formed",
            "quotes are around it",
        ),
        (format!("{token}'"), "well formed", "quotes are around it"),
        (format!(" {token}"), "well formed", "blanks are around it"),
        (
            format!("{token}\u{a0}\n"),
            "well formed",
            "blanks are around it",
        ),
        (
            format!("\u{feff}{token}\r\n"),
            "well formed",
            "a byte order mark is around it",
        ),
        (
            format!("bearer {token}"),
            "well formed",
            "the scheme `Bearer ` is around it",
        ),
        (
            format!("Bearer Bearer {token}"),
            "well formed",
            "the scheme `Bearer ` is around it",
        ),
        (
            format!("{signed}.{der}"),
            "signature",
            "it is DER, as openssl writes it",
        ),
        (with("iat"), "times", "`iat` is in milliseconds"),
        (with("exp"), "times", "`exp` is in milliseconds"),
        (with("nbf"), "times", "`nbf` is in milliseconds"),
    ] {
        let run = folder
            .run_with("token explain --home dpm", text.as_bytes())
            .exits(1);
        let start = format!("FAIL  {rule:<12}  ");
        let line = run.stdout.lines().find(|line| line.starts_with(&start));
        assert!(
            line.is_some_and(|line| line.contains(cause)),
            "{cause}: {}",
            run.stdout
        );
        assert!(!run.stdout.contains(payload), "{}", run.stdout);
    }
}

#[test]
fn inspect_shows_tokens_of_any_algorithm_and_says_that_nothing_is_verified() {
    let folder = Folder::new();
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    for alg in ["RS256", "HS256", "none"] {
        let header = encode(&format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#));
        let payload = encode("{\"iss\":\"https://example.org\",\"name\":\"a\u{202e}b\u{9b}c\"}");
        let jws = format!("Bearer {header}.{payload}.AAAA\n");

        let run = folder.run_with("token inspect", jws.as_bytes()).exits(0);

        assert_eq!(
            run.stderr.lines().next().unwrap().split(':').next(),
            Some("NOT VERIFIED")
        );
        let json = run.json();
        assert_eq!(
            (&json["header"]["alg"], &json["verified"]),
            (&alg.into(), &false.into())
        );
        assert_eq!(json["payload"]["iss"], "https://example.org");
        assert_eq!(json["payload"]["name"], "a\u{202e}b\u{9b}c");
        assert_eq!(json["signature_bytes"], 3);
        assert!(!run.stdout.contains('\u{202e}') && !run.stdout.contains('\u{9b}'));
    }
    let text = format!("{}.{}.", encode("{}"), encode("no JSON"));
    let run = folder.run_with("token inspect", text.as_bytes()).exits(0);
    assert_eq!(run.json()["payload"], "no JSON");

    let encrypted = folder.run_with("token inspect", b"a.b.c.d.e").exits(1);
    assert!(
        encrypted.stderr.contains("is encrypted"),
        "{}",
        encrypted.stderr
    );
    assert_eq!(encrypted.stdout, "");
    folder
        .run_with("token inspect", "a".repeat(70_000).as_bytes())
        .exits(1);
}

#[test]
fn payload_is_read_only_after_its_signature_verified() {
    let folder = paired();
    let good = token(&folder);
    let (header, _) = good.split_once('.').unwrap();
    for payload in ["no JSON", r#"{"iss":1,"iss":2}"#, ""] {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        let signature = BASE64_URL_SAFE_NO_PAD.encode([1; 64]);
        let forged = format!("{header}.{payload}.{signature}");

        let refused = folder.run_with("token verify --home dpm", forged.as_bytes());

        let said = refused.exits(1).stderr;
        assert!(said.contains("refused: SIGNATURE_INVALID: "), "{said}");
    }
}
