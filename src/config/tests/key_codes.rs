use super::*;

use crate::diagnostic::Severity::{Error, Note};

/// Checks a file whose own key is `text`.
fn own(text: &str) -> Vec<Row> {
    let rest = deployment("dpe-dev", "dpe", &key());
    rows(
        &Folder::new()
            .check(format!("{KEY}={text}\n{rest}"))
            .findings,
    )
}

#[test]
fn cs0201_content_that_is_no_key() {
    for content in [
        "x",
        "[]",
        "{\"keys\":[]}",
        "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
        "-----BEGIN PUBLIC KEY-----",
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}",
    ] {
        let jwt_key = format!("{D}.dpe-dev.security.jwt-keys.key2");
        let lines = format!("{jwt_key}.fingerprint=k\n{jwt_key}.content={content}\n");
        let found = with(&lines);
        assert_eq!(found.len(), 1, "{content} {found:?}");
        assert_eq!(
            (found[0].0, found[0].1, found[0].2),
            (Code::Cs0201, Error, 9)
        );
    }
}

#[test]
fn cs0202_fingerprint_of_another_key() {
    let found = after(|text| {
        let line = text.lines().nth(3).unwrap().to_owned();
        text.replace(
            &line,
            &format!("{D}.dpe-dev.security.jwt-keys.key.fingerprint=other"),
        )
    });

    assert_eq!(found, [(Code::Cs0202, Error, 4, 77)]);
}

#[test]
fn cs0202_fingerprint_in_hexadecimal_is_shown_and_named() {
    let peer = key();
    let hex = peer.fingerprint().to_hex();
    let block = deployment("dpe-two", "dpe", &peer).replace(
        &format!("fingerprint={}", kid(&peer)),
        &format!("fingerprint={hex}"),
    );
    let report = Folder::new().check(good() + &block);

    assert_eq!(rows(&report.findings), [(Code::Cs0202, Error, 10, 77)]);
    let found = report.findings.iter().next().unwrap();
    let text = &found.message;
    assert!(
        text.starts_with(&format!("`fingerprint` is `{hex}`")),
        "{text}"
    );
    assert!(
        text.contains("SHA-256 of that key in hexadecimal"),
        "{text}"
    );
    assert!(found.snippet.as_ref().unwrap().text.ends_with(&hex));
}

#[test]
fn cs0203_private_key_of_a_peer() {
    let peer = key();
    let private = PrivateJwk::write(&peer, &kid(&peer));
    for json in [
        private.expose().clone(),
        private.expose().replace("{\"kty", "{kty"),
    ] {
        let jwt_key = format!("{D}.dpe-dev.security.jwt-keys.key2");
        let lines = format!("{jwt_key}.fingerprint=k\n{jwt_key}.content={json}\n");
        assert_eq!(with(&lines), [(Code::Cs0203, Error, 9, 74)]);
    }
}

#[test]
fn cs0204_own_key_that_cannot_sign() {
    let (one, other) = (key(), key());
    let mixed = PrivateJwk::write(&one, &kid(&one))
        .expose()
        .replace(&one.verifying_key().x(), &other.verifying_key().x());
    let swapped = PrivateJwk::write(&one, &kid(&one))
        .expose()
        .replace(&one.verifying_key().x(), &other.verifying_key().x())
        .replace(&one.verifying_key().y(), &other.verifying_key().y());
    for json in [content(&one), mixed, swapped, "{\"kty\":\"EC\"".to_owned()] {
        let found = own(&BASE64_STANDARD.encode(&json));
        assert_eq!(found, [(Code::Cs0204, Error, 1, 52)], "{json}");
    }
}

#[test]
fn cs0205_unusual_but_consistent_keys() {
    let peer = key();
    let thumbprint = KeyId::new(&peer.verifying_key().thumbprint()).unwrap();
    let jwk = PublicJwk::write(peer.verifying_key(), &thumbprint);
    let jwt_key = format!("{D}.dpe-dev.security.jwt-keys.key2");
    let lines = format!("{jwt_key}.fingerprint={thumbprint}\n{jwt_key}.content={jwk}\n");
    assert_eq!(with(&lines), [(Code::Cs0205, Note, 9, 74)]);

    let jwk = jwk
        .replace(",\"alg\":\"ES256\"", "")
        .replace(&format!("\"kid\":\"{thumbprint}\","), "");
    let lines = format!("{jwt_key}.fingerprint={thumbprint}\n{jwt_key}.content={jwk}\n");
    assert_eq!(with(&lines), [(Code::Cs0205, Note, 9, 74); 3]);

    let raw = PrivateJwk::write(&peer, &kid(&peer));
    assert_eq!(own(raw.expose()), [(Code::Cs0205, Note, 1, 52)]);
}

#[test]
fn cs0206_another_thing_in_place_of_the_own_key() {
    let set = BASE64_STANDARD.encode("{\"keys\":[]}");
    let rsa = BASE64_STANDARD.encode("{\"kty\":\"RSA\",\"d\":\"AQAB\"}");
    for (text, named) in [
        ("", "nothing"),
        ("<generated_key>", "template"),
        ("${MY_KEY}", "placeholder"),
        ("crypted:AES:AAAA", "encrypted"),
        ("file:key.jwk", "file name"),
        ("-----BEGIN PRIVATE KEY-----", "PEM"),
        (&set, "set of keys"),
        (&rsa, "RSA"),
        ("no-base64!", "something else"),
    ] {
        let rest = deployment("dpe-dev", "dpe", &key());
        let report = Folder::new().check(format!("{KEY}={text}\n{rest}"));
        assert_eq!(
            rows(&report.findings),
            [(Code::Cs0206, Error, 1, 52)],
            "{text}"
        );
        let message = report.findings.iter().next().unwrap().message.clone();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn cs0201_names_the_quotes_and_blanks_of_a_word_processor() {
    let peer = key();
    let jwk = PublicJwk::write(peer.verifying_key(), &kid(&peer));
    let x = peer.verifying_key().x();
    for (content, named) in [
        (jwk.replace('"', "\u{201d}"), "a curly quote, U+201D"),
        (
            jwk.replace("\"crv\"", "\u{2018}crv\u{2019}"),
            "a curly quote, U+2018",
        ),
        (
            jwk.replace(&x, &format!("{x}\u{201d}")),
            "a curly quote, U+201D",
        ),
        (jwk.replace(',', ",\u{a0}"), "a no-break blank, U+00A0"),
        (
            jwk.replace(&x, &format!("{x}\u{a0}")),
            "a no-break blank, U+00A0",
        ),
    ] {
        let jwt_key = format!("{D}.dpe-dev.security.jwt-keys.key2");
        let name = kid(&peer);
        let lines = format!("{jwt_key}.fingerprint={name}\n{jwt_key}.content={content}\n");
        let rest = deployment("dpe-dev", "dpe", &key());
        let own = own_line(&key());
        let report = Folder::new().check(format!("{own}{rest}{lines}"));
        let found: Vec<_> = report.findings.iter().collect();
        let message = found.iter().find(|found| found.code == Code::Cs0201);
        let message = message
            .map(|found| found.message.as_str())
            .unwrap_or_default();
        assert!(message.contains(named), "{named}: {found:?}");
    }
}

#[test]
fn cs0207_own_key_among_the_trusted() {
    let both = key();
    let text = own_line(&both) + &deployment("dpe-dev", "dpe", &both);

    let found = rows(&Folder::new().check(text).findings);

    assert_eq!(found, [(Code::Cs0207, Error, 4, 77)]);
}

#[test]
fn cs0208_one_key_in_two_deployments() {
    let peer = key();
    let text = own_line(&key()) + &deployment("a", "dpe", &peer) + &deployment("b", "dpe", &peer);

    let found = rows(&Folder::new().check(text).findings);

    assert_eq!(found, [(Code::Cs0208, Error, 10, 71)]);
}
