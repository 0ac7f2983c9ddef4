//! A private key with a typo is still a private key.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::jose::Fingerprint;
use crate::properties::FileText;

use super::super::check_texts;
use super::*;

/// The key of RFC 7515, A.3: a fixed one, so that what fails once fails always.
const PRIVATE: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";

fn private_jwk() -> String {
    let jwk = format!(
        r#"{{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"{PRIVATE}"}}"#
    );
    let key = PrivateJwk::parse(&jwk).unwrap().key;
    PrivateJwk::write(&key, &kid(&key)).expose().clone()
}

/// Everything that `check` says, in text or JSON.
#[expect(clippy::use_debug, reason = "that form must not show a key either")]
fn reported(line: &str) -> String {
    let text = FileText::from_bytes(line.as_bytes()).unwrap();
    let report = check_texts(
        &[(Path::new("a").to_owned(), text)],
        &HashMap::new(),
        &[],
        &[],
    )
    .unwrap();
    let mut reported = String::new();
    for found in report.findings.iter() {
        writeln!(reported, "{found} {found:?}").unwrap();
    }
    for ignored in &report.ignored {
        writeln!(reported, "{ignored:?}").unwrap();
    }
    reported
}

#[track_caller]
fn assert_no_part(reported: &str, secret: &str, line: &str) {
    let characters: Vec<_> = secret.chars().collect();
    for part in characters.windows(12) {
        let part: String = part.iter().collect();
        assert!(
            !reported.contains(&part),
            "`{part}` of `{line}` in:\n{reported}"
        );
    }
}

fn settings() -> [String; 10] {
    let peer = format!("{D}.d.security.jwt-keys.k");
    [
        format!("{peer}.content"),
        format!("{peer}.fingerprint"),
        format!("{peer}.is-revoked"),
        format!("{D}.d.module"),
        format!("{D}.d.security.roles[0]"),
        KEY.to_owned(),
        "countersign.deployment.name".to_owned(),
        "countersign.server.address".to_owned(),
        "server.port".to_owned(),
        "some.foreign.name".to_owned(),
    ]
}

/// Every text that differs from `text` in one character, for characters that mean something.
fn edits(text: &str, meaning: &[char]) -> Vec<String> {
    let characters: Vec<_> = text.chars().collect();
    let mut edited = Vec::new();
    for at in 0..=characters.len() {
        let (before, after) = characters.split_at(at);
        let joined = |middle: Option<char>, after: &[char]| -> String {
            before
                .iter()
                .copied()
                .chain(middle)
                .chain(after.iter().copied())
                .collect()
        };
        edited.extend(meaning.iter().map(|c| joined(Some(*c), after)));
        if let [_, rest @ ..] = after {
            edited.push(joined(None, rest));
            edited.extend(meaning.iter().map(|c| joined(Some(*c), rest)));
        }
    }
    edited
}

#[test]
fn no_edit_of_a_character_shows_a_private_key_in_content() {
    let setting = &settings()[0];
    let meaning = ['"', ':', '\\', ' ', '\n', '$', '.', 'u'];
    for edited in edits(&private_jwk(), &meaning) {
        let line = format!("{setting}={edited}");

        assert_no_part(&reported(&line), PRIVATE, &line);
    }
}

#[test]
fn no_edit_of_a_character_shows_a_private_key_in_another_setting() {
    let jwk = private_jwk();
    for (n, setting) in settings()[1..].iter().enumerate() {
        // A third of them for each of nine settings: every edit is tried in three.
        for edited in edits(&jwk, &['"', '\n']).iter().skip(n % 3).step_by(3) {
            let line = format!("{setting}={edited}");

            assert_no_part(&reported(&line), PRIVATE, &line);
        }
    }
}

#[test]
fn no_cut_or_edit_of_the_base64_shows_a_private_key() {
    let base64 = BASE64_STANDARD.encode(private_jwk());
    for setting in settings() {
        let cuts = (0..base64.len()).step_by(11);
        let cut = cuts.flat_map(|at| {
            let (head, tail) = base64.split_at(at);
            [
                format!("{head} {tail}"),
                format!("{head}!{tail}"),
                format!("{head}\n{tail}"),
            ]
        });
        for value in cut {
            let line = format!("{setting}={value}");
            let reported = reported(&line);

            for start in 0..base64.len() - 20 {
                let part = base64.get(start..start + 20).unwrap();
                assert!(
                    !reported.contains(part),
                    "`{part}` of `{line}` in:\n{reported}"
                );
            }
        }
    }
}

#[test]
fn no_spelling_of_a_private_key_is_shown_in_any_setting() {
    let jwk = private_jwk();
    let (head, tail) = PRIVATE.split_at(20);
    let hex = PRIVATE.parse::<Fingerprint>().unwrap().to_hex();
    let spellings = [
        jwk.replace(r#""d":""#, r#""d"""#),
        jwk.replace(r#""d":""#, r#""d":"!!"#),
        jwk.replace(r#""d":"#, r#""d"="#),
        jwk.replace(r#""d":"#, "d:"),
        jwk.replace(r#""d":"#, r#""d" : "#),
        jwk.replace(r#""d""#, r#""d ""#),
        jwk.replace(r#""d""#, r#""D""#),
        jwk.replace(r#""d""#, r#""\\u0064""#),
        jwk.replace(r#""d""#, r#""\u0064""#),
        jwk.replace(&format!(r#""{PRIVATE}""#), &format!(r#"["{PRIVATE}"]"#)),
        jwk.replace(&format!(r#""{PRIVATE}""#), PRIVATE),
        jwk.replace(PRIVATE, &format!("{PRIVATE}=")),
        jwk.replace(PRIVATE, &format!("{head} {tail}")),
        jwk.replace(PRIVATE, &PRIVATE.replace('-', "+").replace('_', "/")),
        jwk.replace(PRIVATE, &hex),
        jwk.replace('"', ""),
        jwk.replace('"', "'"),
        jwk.replace('"', "”"),
        jwk.replace('"', "&quot;"),
        jwk.replace('"', "%22")
            .replace('{', "%7B")
            .replace('}', "%7D"),
        jwk.replace('"', "\\\""),
        jwk.replace('"', "\\\\\""),
        jwk.replace(r#""kty":"EC","#, "")
            .get(..60)
            .unwrap()
            .to_owned(),
        format!("[{jwk}]"),
        format!(r#"{{"keys":[{jwk}]}}"#),
    ];
    for setting in settings() {
        for spelling in &spellings {
            let line = format!("{setting}={spelling}");
            let reported = reported(&line);

            assert_no_part(&reported, PRIVATE, &line);
            assert_no_part(
                &reported,
                &PRIVATE.replace('-', "+").replace('_', "/"),
                &line,
            );
            assert_no_part(&reported, &hex, &line);
        }
    }
}

#[test]
fn what_is_public_of_a_key_with_a_typo_is_shown() {
    let key = key();
    let content = content(&key).replacen("{\"kty", "{kty", 1);
    let line = format!("{D}.d.security.jwt-keys.k.content={content}");
    let reported = reported(&line);

    let public = key.verifying_key();
    for text in [public.x(), public.y(), key.fingerprint().to_string()] {
        assert!(reported.contains(&text), "{text} not in {reported}");
    }
}
