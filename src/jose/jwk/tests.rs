#![expect(
    clippy::too_many_lines,
    clippy::string_slice,
    reason = "tables of ASCII"
)]

use super::*;
use crate::jose::repair;

const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
/// The prime of the field and the order of the curve, in base64url.
const P: &str = "_____wAAAAEAAAAAAAAAAAAAAAD_______________8";
const N: &str = "_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE";
/// The seed's first public key, as printed: two quotes are missing.
const SEED: &str = r#"{kty":"EC",crv":"P-256","kid":"vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI","x":"Hbs53V5zC-1DjNf5RtJ1bNHlxvzM5jST7J1ADVePV9g","y":"4pVfzrF7FMHt_Xx2FgLauvLZuJqbpL9crdOxvTXWb64","alg":"ES256"}"#;

/// A good public key whose member (or the text after it) is replaced.
fn with(member: &str, value: &str) -> String {
    let good = [
        ("kty", "EC"),
        ("crv", "P-256"),
        ("kid", "k"),
        ("x", X),
        ("y", Y),
        ("alg", "ES256"),
    ];
    let kept = good.iter().filter(|(name, _)| *name != member);
    let mut members: Vec<_> = kept
        .map(|(name, good)| format!(r#""{name}":"{good}""#))
        .collect();
    if !value.is_empty() {
        members.push(format!(r#""{member}":{value}"#));
    }
    format!("{{{}}}", members.join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn bytes(bytes: &[u8]) -> String {
    quoted(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn decoded(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn private(d: &str) -> String {
    format!(
        r#"{{"kty":"EC","d":{d},"use":"sig","crv":"P-256","kid":"k","x":"{X}","y":"{Y}","alg":"ES256"}}"#
    )
}

/// What problems without a variant of their own say, and what the tables call them.
const NAMES: [(&str, &str); 13] = [
    ("`kid` is not usable: it ", "KeyId"),
    ("it is empty", "Empty"),
    ("bytes, at most 16384 are allowed", "TooLarge"),
    ("`d` is missing: this is a public key", "PublicOnly"),
    ("` is missing", "Missing"),
    ("; it must be ", "Type"),
    ("`key_ops` must allow `", "KeyOperations"),
    ("` is not unpadded base64url: it", "Encoding"),
    (" bytes, 32 are required", "Length"),
    ("`x` and `y` are not a point", "NotOnCurve"),
    ("`d` is out of range", "PrivateRange"),
    ("`d` does not belong to", "PrivateMismatch"),
    ("the key failed its own test", "SelfTest"),
];

/// The name of the problem, short enough for a table.
fn problem(error: &JwkError) -> String {
    let debug = format!("{:?}", error.problem());
    let variant = match error.problem() {
        JwkProblem::Other { text, .. } => {
            let mut names = NAMES.iter();
            let found = names.find(|(part, _)| text.contains(part));
            found.unwrap_or_else(|| panic!("{text}")).1
        }
        _ => debug.split(['(', ' ', '{']).next().unwrap(),
    };
    match error.member() {
        Some(member) => format!("{variant} {member}"),
        None => variant.to_owned(),
    }
}

#[test]
fn content_that_is_no_valid_public_key_is_refused_by_name() {
    let long = "a".repeat(5000);
    let rows: Vec<(&str, String, &str)> = vec![
        (
            "x off the curve",
            with("x", &bytes(&[7; 32])),
            "NotOnCurve x",
        ),
        ("x empty", with("x", "\"\""), "Length x"),
        ("x = p", with("x", &quoted(P)), "NotOnCurve x"),
        (
            "x = 2^256 - 1",
            with("x", &bytes(&[255; 32])),
            "NotOnCurve x",
        ),
        (
            "x of 31 bytes",
            with("x", &bytes(&decoded(X)[..31])),
            "ShortCoordinate x",
        ),
        (
            "x of 33 bytes",
            with("x", &bytes(&[&[0], decoded(X).as_slice()].concat())),
            "Length x",
        ),
        (
            "y of 33 bytes",
            with("y", &bytes(&[&[0], decoded(Y).as_slice()].concat())),
            "Length y",
        ),
        (
            "compressed point",
            with("x", &bytes(&[&[3], decoded(X).as_slice()].concat())),
            "Length x",
        ),
        ("x missing", with("x", ""), "Missing x"),
        ("y missing", with("y", ""), "Missing y"),
        (
            "swapped",
            with("", "")
                .replace(X, "-")
                .replace(Y, X)
                .replace("\"-\"", &quoted(Y)),
            "NotOnCurve x",
        ),
        ("x a number", with("x", "1"), "Type x"),
        ("x null", with("x", "null"), "Type x"),
        ("x an array", with("x", "[]"), "Type x"),
        (
            "x in the plain alphabet",
            with("y", &quoted(&Y.replace('_', "/"))),
            "Encoding y",
        ),
        (
            "x padded",
            with("x", &quoted(&format!("{X}="))),
            "Encoding x",
        ),
        (
            "x with a space",
            with("x", &quoted(&format!("{X} "))),
            "Encoding x",
        ),
        ("x in hex", with("x", &quoted(&"7f".repeat(32))), "Length x"),
        (
            "x with trailing bits",
            with("x", &quoted(&format!("{}V", &X[..42]))),
            "Encoding x",
        ),
        ("crv P-384", with("crv", "\"P-384\""), "Value crv"),
        ("crv P-521", with("crv", "\"P-521\""), "Value crv"),
        ("crv secp256k1", with("crv", "\"secp256k1\""), "Value crv"),
        ("crv p-256", with("crv", "\"p-256\""), "Value crv"),
        ("crv prime256v1", with("crv", "\"prime256v1\""), "Value crv"),
        ("crv empty", with("crv", "\"\""), "Value crv"),
        ("crv null", with("crv", "null"), "Type crv"),
        ("crv Ed25519", with("crv", "\"Ed25519\""), "Value crv"),
        ("crv missing", with("crv", ""), "Missing crv"),
        ("kty RSA", with("kty", "\"RSA\""), "Value kty"),
        ("kty oct", with("kty", "\"oct\""), "Value kty"),
        ("kty OKP", with("kty", "\"OKP\""), "Value kty"),
        ("kty ec", with("kty", "\"ec\""), "Value kty"),
        ("kty null", with("kty", "null"), "Type kty"),
        ("kty missing", with("kty", ""), "Missing kty"),
        (
            "RSA key",
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
            "Value kty",
        ),
        (
            "oct key",
            r#"{"kty":"oct","k":"AQAB"}"#.to_owned(),
            "Value kty",
        ),
        ("alg ES384", with("alg", "\"ES384\""), "Value alg"),
        ("alg HS256", with("alg", "\"HS256\""), "Value alg"),
        ("alg none", with("alg", "\"none\""), "Value alg"),
        ("alg ECDH-ES", with("alg", "\"ECDH-ES\""), "Value alg"),
        ("alg null", with("alg", "null"), "Type alg"),
        ("alg es256", with("alg", "\"es256\""), "Value alg"),
        ("use enc", with("use", "\"enc\""), "Value use"),
        ("use 1", with("use", "1"), "Type use"),
        (
            "key_ops sign",
            with("key_ops", r#"["sign"]"#),
            "KeyOperations key_ops",
        ),
        (
            "key_ops encrypt",
            with("key_ops", r#"["encrypt"]"#),
            "KeyOperations key_ops",
        ),
        (
            "key_ops empty",
            with("key_ops", "[]"),
            "KeyOperations key_ops",
        ),
        (
            "key_ops text",
            with("key_ops", "\"verify\""),
            "Type key_ops",
        ),
        ("d present", private(&quoted(D)), "PrivatePart d"),
        ("d null", private("null"), "PrivatePart d"),
        ("d empty", private("\"\""), "PrivatePart d"),
        ("kid a number", with("kid", "1"), "Type kid"),
        ("kid null", with("kid", "null"), "Type kid"),
        ("kid an object", with("kid", "{}"), "Type kid"),
        (
            "kid of 5000 characters",
            with("kid", &quoted(&long)),
            "KeyId kid",
        ),
        (
            "kid with a control character",
            with("kid", r#""a\nb""#),
            "KeyId kid",
        ),
        ("kid empty", with("kid", "\"\""), "KeyId kid"),
        (
            "x twice",
            with("z", "1").replace("\"z\":1", &format!("\"x\":\"{X}\"")),
            "Json",
        ),
        (
            "kty twice",
            with("z", "1").replace("\"z\":1", "\"kty\":\"EC\""),
            "Json",
        ),
        ("trailing garbage", with("", "") + "x", "Json"),
        ("two objects", with("", "").repeat(2), "Json"),
        ("array", format!("[{}]", with("", "")), "Json"),
        (
            "key set",
            format!(r#"{{"keys":[{}]}}"#, with("", "")),
            "KeySet keys",
        ),
        ("text", "\"EC\"".to_owned(), "Json"),
        ("empty", String::new(), "Empty"),
        ("blank", "  \n".to_owned(), "Empty"),
        ("null", "null".to_owned(), "Json"),
        ("single quotes", with("", "").replace('"', "'"), "Json"),
        ("unquoted", with("", "").replace('"', ""), "Json"),
        ("trailing comma", with("", "").replace('}', ",}"), "Json"),
        ("truncated", with("", "")[..90].to_owned(), "Json"),
        ("BOM", format!("\u{feff}{}", with("", "")), "Json"),
        (
            "500 deep",
            with("z", &format!("{}{}", "[".repeat(500), "]".repeat(500))),
            "Json",
        ),
        (
            "PEM",
            "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----".to_owned(),
            "Pem",
        ),
        (
            "smart quotes",
            with("", "").replace('"', "\u{201d}"),
            "Json",
        ),
        ("1 MB", with("z", &quoted(&"a".repeat(1 << 20))), "TooLarge"),
        (
            "point (0, 0)",
            with("x", &bytes(&[0; 32])).replace(Y, &BASE64_URL_SAFE_NO_PAD.encode([0; 32])),
            "NotOnCurve x",
        ),
        (
            "31 and 33 bytes",
            {
                let all = [decoded(X), decoded(Y)].concat();
                with("x", &bytes(&all[..31])).replace(Y, &BASE64_URL_SAFE_NO_PAD.encode(&all[31..]))
            },
            "ShortCoordinate x",
        ),
    ];
    for (name, text, expected) in rows {
        let error = PublicJwk::parse(&text).expect_err(name);
        assert_eq!(problem(&error), expected, "{name}: {text}");
        assert!(
            error.offset().is_none_or(|offset| offset <= text.len()),
            "{name}"
        );
        assert!(!error.to_string().contains(D), "{name}");
    }
}

#[test]
fn content_of_other_shapes_is_accepted() {
    let rows = [
        ("as it is", with("", "")),
        ("white space", with("", "").replace(',', " ,\n  ")),
        ("an extra member", with("ext", "true")),
        ("x5c is not read", with("x5c", r#"["garbage"]"#)),
        ("use sig", with("use", "\"sig\"")),
        ("key_ops verify", with("key_ops", r#"["verify"]"#)),
        ("no alg", with("alg", "")),
        ("no kid", with("kid", "")),
        (
            "escaped member name",
            with("", "").replace("kty", "\\u006bty"),
        ),
    ];
    for (name, text) in rows {
        let jwk = PublicJwk::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(jwk.key.x(), X, "{name}");
        assert_eq!(jwk.alg_present, name != "no alg", "{name}");
        assert_eq!(jwk.use_present, name == "use sig", "{name}");
        assert_eq!(jwk.kid.is_some(), name != "no kid", "{name}");
        assert!(!jwk.unescaped, "{name}");
    }
}

#[test]
fn a_mirrored_point_is_another_key() {
    // p - y: on the curve, so only the fingerprint shows it.
    let y = decoded(Y);
    let p = decoded(P);
    let mut mirrored = [0_u8; 32];
    let mut borrow = 0_i16;
    for i in (0..32).rev() {
        let difference = i16::from(p[i]) - i16::from(y[i]) - borrow;
        borrow = i16::from(difference < 0);
        mirrored[i] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }

    let key = PublicJwk::parse(&with("y", &bytes(&mirrored))).unwrap().key;
    let original = PublicJwk::parse(&with("", "")).unwrap().key;

    assert_ne!(key, original);
    assert_ne!(key.fingerprint(), original.fingerprint());
}

#[test]
fn a_coordinate_with_a_leading_zero_is_32_bytes_and_a_short_one_is_padded_for_the_reader() {
    let key = std::iter::repeat_with(|| SigningKey::generate().unwrap())
        .find(|key| decoded(&key.verifying_key().x())[0] == 0)
        .unwrap();
    let public = key.verifying_key();
    let kid = KeyId::new("k").unwrap();
    let full = PublicJwk::write(public, &kid);
    let stripped = decoded(&public.x())
        .into_iter()
        .skip_while(|byte| *byte == 0);
    let short = BASE64_URL_SAFE_NO_PAD.encode(stripped.collect::<Vec<_>>());

    let accepted = PublicJwk::parse(&full).unwrap();
    let refused = PublicJwk::parse(&full.replace(&public.x(), &short)).unwrap_err();

    assert_eq!(&accepted.key, public);
    let JwkProblem::ShortCoordinate { member, padded, .. } = refused.problem() else {
        panic!("{refused}");
    };
    assert_eq!((*member, padded), ("x", &public.x()));
}

#[test]
fn private_keys_with_a_fault_are_refused_by_name() {
    let good = private(&quoted(D));
    let other = BASE64_URL_SAFE_NO_PAD.encode([7; 32]);
    let rows: Vec<(&str, String, &str)> = vec![
        ("empty", String::new(), "Empty"),
        ("not JSON", "<generated_key>".to_owned(), "Json"),
        ("public only", with("", ""), "PublicOnly d"),
        ("truncated", good[..100].to_owned(), "Json"),
        (
            "d of another key",
            private(&quoted(&other)),
            "PrivateMismatch d",
        ),
        ("d zero", private(&bytes(&[0; 32])), "PrivateRange d"),
        ("d = n", private(&quoted(N)), "PrivateRange d"),
        ("d of 31 bytes", private(&bytes(&[1; 31])), "Length d"),
        ("d of 33 bytes", private(&bytes(&[1; 33])), "Length d"),
        ("d empty", private("\"\""), "Length d"),
        ("d null", private("null"), "Type d"),
        ("d padded", private(&quoted(&format!("{D}="))), "Encoding d"),
        (
            "RSA",
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}"#.to_owned(),
            "Value kty",
        ),
        ("P-384", good.replace("P-256", "P-384"), "Value crv"),
        ("use enc", good.replace("\"sig\"", "\"enc\""), "Value use"),
        (
            "key_ops verify",
            good.replace("\"use\":\"sig\"", r#""key_ops":["verify"]"#),
            "KeyOperations key_ops",
        ),
        ("trailing", good.clone() + "}", "Json"),
        ("PEM", "-----BEGIN EC PRIVATE KEY-----".to_owned(), "Pem"),
        ("key set", format!(r#"{{"keys":[{good}]}}"#), "KeySet keys"),
        ("object of nothing", "{}".to_owned(), "Missing kty"),
    ];
    for (name, text, expected) in rows {
        let error = PrivateJwk::parse(&text).expect_err(name);
        assert_eq!(problem(&error), expected, "{name}");
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(
                !shown.contains(D) && !shown.contains(&other),
                "{name}: {shown}"
            );
        }
    }
    for operations in [r#"["sign"]"#, r#"["sign","verify"]"#] {
        let text = good.replace("\"use\":\"sig\"", &format!("\"key_ops\":{operations}"));
        assert!(PrivateJwk::parse(&text).is_ok(), "{operations}");
    }
}

#[test]
fn faults_are_shown_where_a_person_would_point() {
    let wrong_curve = r#"{"kty":"EC", "crv": "P-384"}"#;
    let escaped = r#"{\"kty\":\"EC\",\"crv\":\"P-384\"}"#;
    let missing = r#"  {"kty":"EC"}"#;

    assert_eq!(PublicJwk::parse(SEED).unwrap_err().offset(), Some(1));
    assert_eq!(
        PublicJwk::parse(wrong_curve).unwrap_err().offset(),
        wrong_curve.find("\"P-384")
    );
    assert_eq!(
        PublicJwk::parse(escaped).unwrap_err().offset(),
        escaped.find("\\\"P-384").map(|at| at + 1)
    );
    assert_eq!(PublicJwk::parse(missing).unwrap_err().offset(), Some(2));
    assert_eq!(
        PublicJwk::parse(SEED).unwrap_err().to_string(),
        "it is not valid JSON: expected `\"` before `kty`"
    );
}

#[test]
fn the_missing_quotes_of_the_guide_are_put_back() {
    let repaired = repair(SEED).unwrap();

    assert_eq!(
        repaired,
        SEED.replacen("{kty", "{\"kty", 1)
            .replacen(",crv", ",\"crv", 1)
    );
    assert_eq!(crate::jose::missing_quotes(SEED), [1, 11]);
    assert!(PublicJwk::parse(&repaired).is_ok());
    let one = SEED.replacen("{kty", "{\"kty", 1);
    assert_eq!(repair(&one).as_ref(), Some(&repaired));
    let unquoted = with("", "")
        .replace("\"kty\"", "kty")
        .replace("\"alg\"", "alg");
    assert_eq!(repair(&unquoted), Some(with("", "")));
}

#[test]
fn repair_offers_only_what_then_is_a_valid_key() {
    for text in [
        "",
        "{",
        "{kty",
        "{kty\":\"EC\"}",
        "[kty\"]",
        &with("", ""),
        &SEED.replace("Hbs5", "Hbs6"),
    ] {
        assert_eq!(repair(text), None, "{text}");
    }
}

#[test]
fn backslashes_that_survived_an_escaping_are_taken_off() {
    let escaped = with("", "").replace('"', "\\\"").replace(':', "\\:");

    let jwk = PublicJwk::parse(&escaped).unwrap();

    assert!(jwk.unescaped);
    assert_eq!(jwk.kid, Some(KeyId::new("k").unwrap()));
}

#[test]
fn what_is_written_reads_back_in_mkjwks_order() {
    let key = PrivateJwk::parse(&private(&quoted(D))).unwrap().key;
    let kid = KeyId::new("my \"key\"").unwrap();

    let one_line = PrivateJwk::write(&key, &kid);
    let pretty = PrivateJwk::write_pretty(&key, &kid);
    let public = PublicJwk::write(key.verifying_key(), &kid);

    let name = |line: &str| line.trim().split(':').next().unwrap().to_owned();
    let names: Vec<_> = pretty
        .expose()
        .lines()
        .filter(|line| line.starts_with("    \""))
        .map(name)
        .collect();
    assert_eq!(
        names,
        [
            "\"kty\"", "\"d\"", "\"use\"", "\"crv\"", "\"kid\"", "\"x\"", "\"y\"", "\"alg\""
        ]
    );
    assert_eq!(
        PrivateJwk::parse(one_line.expose()).unwrap().kid,
        Some(kid.clone())
    );
    assert_eq!(
        PrivateJwk::parse(pretty.expose())
            .unwrap()
            .key
            .verifying_key(),
        key.verifying_key()
    );
    assert_eq!(
        public,
        format!(
            r#"{{"kty":"EC","crv":"P-256","kid":"my \"key\"","x":"{X}","y":"{Y}","alg":"ES256"}}"#
        )
    );
    assert!(
        PublicJwk::write_pretty(key.verifying_key(), &kid).starts_with("{\n    \"kty\": \"EC\",\n")
    );
    assert_eq!(PublicJwk::parse(&public).unwrap().key, *key.verifying_key());
}

#[test]
fn iat_of_a_private_key_is_when_it_was_made_and_is_written_last() {
    let with = |iat: &str| private(&quoted(D)).replace("\"ES256\"}", &format!("\"ES256\"{iat}}}"));
    let made_at = |iat: &str| PrivateJwk::parse(&with(iat)).unwrap().key.made_at();
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds));

    assert_eq!(made_at(r#","iat":1763769600"#), at(1_763_769_600.0));
    assert_eq!(made_at(r#","iat":1763769600.5"#), at(1_763_769_600.5));
    assert_eq!(made_at(r#","iat":0"#), at(0.0));
    // Text that is different there was written on purpose.
    for other in [
        "",
        r#","iat":"1763769600""#,
        r#","iat":-1"#,
        r#","iat":1e300"#,
        r#","iat":253402300800"#,
    ] {
        assert_eq!(made_at(other), None, "{other}");
    }

    let key = PrivateJwk::parse(&with(r#","iat":1763769600.5"#))
        .unwrap()
        .key;
    let kid = KeyId::new("k").unwrap();
    let written = PrivateJwk::write(&key, &kid);
    assert_eq!(written.expose(), &with(r#","iat":1763769600"#));
    assert!(!PublicJwk::write(key.verifying_key(), &kid).contains("iat"));
}

#[test]
fn a_kid_that_cannot_name_a_key_says_why() {
    let error = PublicJwk::parse(&with("kid", "\"\"")).unwrap_err();

    assert_eq!(error.to_string(), "`kid` is not usable: it is empty");
}
