#![expect(
    clippy::too_many_lines,
    clippy::string_slice,
    reason = "tables of ASCII"
)]

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

use super::*;
use crate::jose::JsonProblem;

const PAYLOAD: &[u8] = br#"{"iss":"dpe-dev"}"#;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs whatever stands in the first two parts.
fn signed(key: &SigningKey, header: &str, payload: &str) -> String {
    let input = format!("{header}.{payload}");
    let signature = key.sign(input.as_bytes()).unwrap();
    format!("{input}.{}", encode(signature))
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap()
}

/// Parses a rightly signed token with this header text.
fn with_header(header: &str) -> Result<Header, CompactError> {
    let token = signed(&key(), &encode(header), &encode(PAYLOAD));
    Compact::parse(&token).map(|token| token.header().clone())
}

fn good(key: &SigningKey) -> String {
    let kid = KeyId::from(key.fingerprint());
    let header = HeaderSpec {
        typ: "JWT",
        kid: &kid,
    };
    sign(&header, PAYLOAD, key).unwrap()
}

#[test]
fn a_signed_token_parses_and_verifies() {
    let key = key();
    let kid = key.fingerprint().to_string();
    let token = good(&key);

    let parsed = Compact::parse(&token).unwrap();

    assert_eq!(parsed.header().kid(), kid);
    assert_eq!(parsed.header().typ(), Some("JWT"));
    assert_eq!(parsed.payload(), PAYLOAD);
    assert_eq!(parsed.signature().len(), 64);
    assert!(parsed.verify(key.verifying_key()));
    assert!(!parsed.verify(SigningKey::generate().unwrap().verifying_key()));
    let header = BASE64_URL_SAFE_NO_PAD
        .decode(token.split('.').next().unwrap())
        .unwrap();
    let expected = format!(r#"{{"alg":"ES256","typ":"JWT","kid":"{kid}"}}"#);
    assert_eq!(String::from_utf8(header).unwrap(), expected);
}

#[test]
fn a_library_of_other_people_verifies_our_token() {
    let key = key();
    let kid = KeyId::from(key.fingerprint());
    let header = HeaderSpec {
        typ: "JWT",
        kid: &kid,
    };
    let token = sign(&header, br#"{"iss":"dpe-dev","exp":4102444800}"#, &key).unwrap();

    let decoding = jsonwebtoken::DecodingKey::from_ec_components(
        &key.verifying_key().x(),
        &key.verifying_key().y(),
    );
    #[expect(clippy::disallowed_methods, reason = "the oracle of this test")]
    let decoded = jsonwebtoken::decode::<Value>(
        &token,
        &decoding.unwrap(),
        &jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256),
    );

    assert_eq!(decoded.unwrap().claims["iss"], "dpe-dev");
}

#[test]
fn every_flipped_bit_of_a_token_is_refused() {
    let key = key();
    let token = good(&key);
    for at in 0..token.len() * 8 {
        let mut bytes = token.clone().into_bytes();
        bytes[at / 8] ^= 1 << (at % 8);
        let Ok(flipped) = String::from_utf8(bytes) else {
            continue;
        };
        let accepted =
            Compact::parse(&flipped).is_ok_and(|token| token.verify(key.verifying_key()));
        assert!(!accepted, "bit {at}: {flipped}");
    }
}

#[test]
fn other_forms_than_three_canonical_parts_are_refused() {
    use CompactError::{Encoding, Parts, TooLarge};
    let key = key();
    let token = good(&key);
    let [header, payload, signature]: [&str; 3] =
        token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let bare = encode(r#"{"alg":"ES256","kid":"k"}"#);
    let rows: Vec<(&str, String, CompactError)> = vec![
        ("empty", String::new(), Parts(1)),
        ("1 part", header.to_owned(), Parts(1)),
        ("2 parts", format!("{header}.{payload}"), Parts(2)),
        ("4 parts", format!("{token}.{signature}"), Parts(4)),
        ("4 parts, last empty", format!("{token}."), Parts(4)),
        ("5 parts", format!("{token}.a.b"), Parts(5)),
        ("leading dot", format!(".{token}"), Parts(4)),
        (
            "two dots together",
            format!("{header}..{payload}.{signature}"),
            Parts(4),
        ),
        ("4000 dots", ".".repeat(4000), Parts(4001)),
        ("20 kB", "a".repeat(20_000), TooLarge(20_000)),
        ("60 kB of dots", ".".repeat(60_000), TooLarge(60_000)),
        (
            "padded header",
            signed(&key, &format!("{bare}=="), payload),
            Encoding("header"),
        ),
        (
            "padded payload",
            signed(&key, header, &format!("{payload}=")),
            Encoding("payload"),
        ),
        (
            "padded signature",
            format!("{token}=="),
            Encoding("signature"),
        ),
        (
            "space in the header",
            signed(&key, &format!(" {header}"), payload),
            Encoding("header"),
        ),
        (
            "space in the payload",
            signed(&key, header, &format!(" {payload}")),
            Encoding("payload"),
        ),
        (
            "space in the signature",
            format!("{header}.{payload}. {signature}"),
            Encoding("signature"),
        ),
        (
            "newline at the end",
            format!("{token}\n"),
            Encoding("signature"),
        ),
        (
            "hash at the end",
            format!("{token}#"),
            Encoding("signature"),
        ),
        (
            "standard alphabet",
            signed(&key, header, "/+8"),
            Encoding("payload"),
        ),
        (
            "truncated header",
            signed(
                &key,
                &header[..header.len() - 1 - header.len() % 4 % 2],
                payload,
            ),
            Encoding("header"),
        ),
        (
            "non-canonical header",
            signed(&key, "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifR", payload),
            Encoding("header"),
        ),
        (
            "non-canonical payload",
            signed(&key, header, "e31"),
            Encoding("payload"),
        ),
        (
            "not ASCII",
            format!("{header}.{payload}é.{signature}"),
            Encoding("payload"),
        ),
        (
            "NUL",
            format!("{header}.{payload}\0.{signature}"),
            Encoding("payload"),
        ),
    ];
    for (name, token, expected) in rows {
        match (name, Compact::parse(&token)) {
            // Depending on its length a shortened header fails as base64 or as JSON.
            ("truncated header", Err(Encoding(_) | CompactError::Header(_))) => {}
            (_, result) => assert_eq!(result.err(), Some(expected), "{name}"),
        }
    }
}

#[test]
fn every_non_canonical_last_character_of_the_signature_is_refused() {
    // 64 bytes are 86 characters, and the last one carries 2 bits: 4 of 64 are canonical.
    let key = key();
    let token = good(&key);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let accepted = alphabet
        .chars()
        .filter(|c| Compact::parse(&format!("{}{c}", &token[..token.len() - 1])).is_ok())
        .count();
    assert_eq!(accepted, 4);
}

#[test]
fn an_empty_part_is_decoded_and_left_to_the_checks_above() {
    let key = key();
    let header = encode(r#"{"alg":"ES256","kid":"k"}"#);

    let no_payload = signed(&key, &header, "");
    let no_signature = format!("{header}.e30.");
    let no_header = signed(&key, "", "e30");

    assert_eq!(Compact::parse(&no_payload).unwrap().payload(), b"");
    assert!(
        !Compact::parse(&no_signature)
            .unwrap()
            .verify(key.verifying_key())
    );
    assert!(matches!(
        Compact::parse(&no_header),
        Err(CompactError::Header(_))
    ));
}

#[test]
fn headers_that_are_not_one_strict_object_are_refused() {
    let good = r#"{"alg":"ES256","kid":"k"}"#;
    let rows = [
        ("text", r#""ES256""#.to_owned()),
        ("array", "[]".to_owned()),
        ("null", "null".to_owned()),
        ("number", "1".to_owned()),
        ("trailing byte", format!("{good}x")),
        ("two objects", format!("{good}{good}")),
        ("NUL", format!("{good}\0")),
        ("trailing comma", r#"{"alg":"ES256","kid":"k",}"#.to_owned()),
        ("comment", r#"{/**/"alg":"ES256","kid":"k"}"#.to_owned()),
        ("single quotes", "{'alg':'ES256','kid':'k'}".to_owned()),
        ("BOM", format!("\u{feff}{good}")),
        (
            "control character",
            "{\"alg\":\"ES256\",\"kid\":\"k\u{1}\"}".to_owned(),
        ),
        ("truncated", good[..good.len() - 1].to_owned()),
        ("missing quote", r#"{alg":"ES256","kid":"k"}"#.to_owned()),
        (
            "2000 arrays",
            format!(
                r#"{{"alg":"ES256","kid":"k","x":{}{}}}"#,
                "[".repeat(2000),
                "]".repeat(2000)
            ),
        ),
        (
            "900 objects",
            format!(
                r#"{{"alg":"ES256","kid":"k","x":{}1{}}}"#,
                r#"{"a":"#.repeat(900),
                "}".repeat(900)
            ),
        ),
        (
            "alg twice",
            r#"{"alg":"ES256","alg":"ES256","kid":"k"}"#.to_owned(),
        ),
        (
            "alg none, then ES256",
            r#"{"alg":"none","alg":"ES256","kid":"k"}"#.to_owned(),
        ),
        (
            "alg ES256, then none",
            r#"{"alg":"ES256","alg":"none","kid":"k"}"#.to_owned(),
        ),
        (
            "kid twice",
            r#"{"alg":"ES256","kid":"k","kid":"l"}"#.to_owned(),
        ),
        (
            "kid twice, other order",
            r#"{"alg":"ES256","kid":"l","kid":"k"}"#.to_owned(),
        ),
        (
            "escaped twin of alg",
            r#"{"alg":"ES256","\u0061lg":"none","kid":"k"}"#.to_owned(),
        ),
        (
            "inner duplicate",
            r#"{"alg":"ES256","kid":"k","x":{"a":1,"a":2}}"#.to_owned(),
        ),
    ];
    for (name, header) in rows {
        let result = with_header(&header);
        assert!(
            matches!(result, Err(CompactError::Header(_))),
            "{name}: {result:?}"
        );
    }
    let key = key();
    for (name, bytes) in [
        (
            "UTF-16",
            good.encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>(),
        ),
        (
            "overlong UTF-8",
            b"{\"alg\":\"ES256\",\"kid\":\"\xc0\xaf\"}".to_vec(),
        ),
        (
            "invalid UTF-8",
            b"{\"alg\":\"ES256\",\"kid\":\"\xff\"}".to_vec(),
        ),
    ] {
        let token = signed(&key, &encode(&bytes), "e30");
        let result = Compact::parse(&token);
        assert!(
            matches!(result, Err(CompactError::Header(_))),
            "{name}: {result:?}"
        );
    }
    let Err(CompactError::Header(error)) = with_header(r#"{"kid":"k","kid":"k"}"#) else {
        panic!("a duplicate was accepted");
    };
    assert!(matches!(error.problem(), JsonProblem::Duplicate(_)));
}

#[test]
fn space_extra_members_unicode_and_order_do_not_matter() {
    for header in [
        r#" { "alg" : "ES256" , "kid" : "k" } "#,
        r#"{"kid":"k","typ":"JWT","alg":"ES256"}"#,
        r#"{"alg":"ES256","kid":"k","jku":"http://127.0.0.1:1/","x5u":"file:///etc/passwd"}"#,
        r#"{"alg":"ES256","kid":"k","jwk":{"kty":"oct","k":"AA"},"x5c":["garbage"],"x5t":1}"#,
        r#"{"alg":"ES256","kid":"k","enc":"A256GCM","iss":"x","\u00e9":"é"}"#,
    ] {
        assert_eq!(with_header(header).unwrap().kid(), "k", "{header}");
    }
}

#[test]
fn only_the_text_es256_is_an_algorithm() {
    let long = "a".repeat(2500);
    let rows = [
        "null",
        r#""""#,
        "256",
        r#"["ES256"]"#,
        r#"{"a":"ES256"}"#,
        "true",
        r#""none""#,
        r#""None""#,
        r#""NONE""#,
        r#""nOnE""#,
        r#""es256""#,
        r#""Es256""#,
        r#""ES256 ""#,
        r#"" ES256""#,
        r#""ES256\u0000""#,
        r#""ES256\n""#,
        r#""ES384""#,
        r#""ES512""#,
        r#""ES256K""#,
        r#""RS256""#,
        r#""PS256""#,
        r#""EdDSA""#,
        r#""Ed25519""#,
        r#""dir""#,
        r#""ECDH-ES""#,
        r#""RSA-OAEP""#,
        r#""A256KW""#,
        r#""HS256""#,
        r#""HS384""#,
        r#""HS512""#,
        r#""1.2.840.10045.4.3.2""#,
        r#""SHA256withECDSA""#,
        "\"\u{415}S256\"",
        r#""XX256""#,
        &format!("\"{long}\""),
    ];
    for alg in rows {
        let result = with_header(&format!(r#"{{"alg":{alg},"kid":"k"}}"#));
        assert_eq!(result, Err(CompactError::Algorithm), "{alg}");
    }
    for header in ["{}", r#"{"kid":"k"}"#, r#"{"ALG":"ES256","kid":"k"}"#] {
        assert_eq!(
            with_header(header),
            Err(CompactError::Algorithm),
            "{header}"
        );
    }
}

#[test]
fn an_algorithm_is_refused_before_anything_else_in_the_header() {
    let result = with_header(r#"{"alg":"none","typ":1,"crit":[]}"#);

    assert_eq!(result, Err(CompactError::Algorithm));
}

#[test]
fn a_typ_of_another_type_is_refused() {
    for typ in ["1", "null", "[]", "{}", "true"] {
        let result = with_header(&format!(r#"{{"alg":"ES256","typ":{typ},"kid":"k"}}"#));
        assert_eq!(result, Err(CompactError::NotText("typ")), "{typ}");
    }
    assert_eq!(
        with_header(r#"{"alg":"ES256","kid":"k"}"#).unwrap().typ(),
        None
    );
}

#[test]
fn members_that_change_the_meaning_are_refused_whatever_their_value() {
    let values = [
        "null",
        "[]",
        r#""exp""#,
        "1",
        r#"["exp"]"#,
        "{}",
        "true",
        "false",
        r#""DEF""#,
    ];
    for member in ["crit", "b64", "zip"] {
        for value in values {
            let result = with_header(&format!(
                r#"{{"alg":"ES256","kid":"k","{member}":{value}}}"#
            ));
            assert_eq!(
                result,
                Err(CompactError::Refused(member)),
                "{member}: {value}"
            );
        }
    }
}

#[test]
fn a_kid_is_text_of_any_kind_and_never_missing() {
    for kid in ["null", "1", "0", "true", "[]", "{}", r#"["k"]"#] {
        let result = with_header(&format!(r#"{{"alg":"ES256","kid":{kid}}}"#));
        assert_eq!(result, Err(CompactError::NotText("kid")), "{kid}");
    }
    assert_eq!(
        with_header(r#"{"alg":"ES256"}"#),
        Err(CompactError::KeyIdMissing)
    );
    for (kid, text) in [
        (r#""""#, ""),
        (r#""../../etc/passwd""#, "../../etc/passwd"),
        (r#""k\u0000""#, "k\0"),
    ] {
        let header = with_header(&format!(r#"{{"alg":"ES256","kid":{kid}}}"#));
        assert_eq!(header.unwrap().kid(), text, "{kid}");
    }
}

#[test]
fn any_jws_is_verified_without_a_kid_but_under_the_same_rules() {
    let key = key();
    let bare = signed(&key, &encode(r#"{"alg":"ES256"}"#), "AQID");
    let critical = signed(&key, &encode(r#"{"alg":"ES256","crit":["exp"]}"#), "AQID");
    let other = SigningKey::generate().unwrap();

    assert_eq!(verify(&bare, key.verifying_key()), Ok(true));
    assert_eq!(verify(&bare, other.verifying_key()), Ok(false));
    assert_eq!(
        verify(&critical, key.verifying_key()),
        Err(CompactError::Refused("crit"))
    );
    assert_eq!(
        verify("a.b", key.verifying_key()),
        Err(CompactError::Parts(2))
    );
}

#[test]
fn debug_shows_no_usable_token() {
    let token = good(&key());
    let signature = token.rsplit('.').next().unwrap();

    let shown = format!("{:?}", Compact::parse(&token).unwrap());

    assert!(
        shown.starts_with("Compact { header: Header { kid: "),
        "{shown}"
    );
    assert!(
        !shown.contains(signature) && !shown.contains("iss"),
        "{shown}"
    );
}

fn token(header: &str) -> String {
    let header = BASE64_URL_SAFE_NO_PAD.encode(header);
    format!("{header}.e30.")
}

#[test]
fn any_algorithm_is_shown() {
    for alg in ["RS256", "HS256", "none"] {
        let token = token(&format!(r#"{{"alg":"{alg}"}}"#));
        let read = Unverified::read(&token).unwrap();

        assert_eq!(read.header["alg"], alg);
        assert_eq!((read.payload, read.signature), (b"{}".to_vec(), Vec::new()));
    }
}

#[test]
fn what_is_no_jws_is_named() {
    let rows = [
        ("", CompactError::Parts(1)),
        ("a.b.c.d.e", CompactError::Parts(5)),
        ("e30.e3.", CompactError::Encoding("payload")),
        ("e30=.e30.", CompactError::Encoding("header")),
    ];
    for (token, expected) in rows {
        let error = Unverified::read(token).unwrap_err();
        assert_eq!(error.to_string(), expected.to_string(), "{token}");
    }
    let twice = Unverified::read(&token(r#"{"alg":"a","alg":"b"}"#)).unwrap_err();
    assert!(matches!(twice, CompactError::Header(_)), "{twice}");
    let long = "a".repeat(MAX_UNVERIFIED_BYTES + 1);
    assert!(matches!(
        Unverified::read(&long).unwrap_err(),
        CompactError::TooLarge(_)
    ));
}
