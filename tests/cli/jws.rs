//! `countersign jws verify`.

use countersign::jose::compact::{self, HeaderSpec};
use countersign::jose::{KeyId, PrivateJwk, PublicJwk, SigningKey};

use super::support::Folder;

/// [RFC 7515, A.3](https://www.rfc-editor.org/rfc/rfc7515#appendix-A.3).
const A3_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const A3_JWS: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

#[test]
fn the_example_of_rfc_7515_is_verified() {
    let folder = Folder::new();
    folder.write("public.jwk", A3_KEY);

    let run = folder
        .run_with("jws verify --jwk public.jwk", A3_JWS.as_bytes())
        .exits(0);

    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("verified\n", "")
    );
    folder
        .run_with(
            "jws verify --jwk public.jwk",
            format!("{A3_JWS}\n").as_bytes(),
        )
        .exits(0);
}

#[test]
fn what_the_key_did_not_sign_is_refused_with_exit_1() {
    let folder = Folder::new();
    folder.write("public.jwk", A3_KEY);
    let rows = [
        (
            A3_JWS.replace("DtE", "DtF"),
            "refused: its signature does not verify\n",
        ),
        (
            A3_JWS.replace(".DtE", ".Dt="),
            "refused: its signature is not canonical base64url\n",
        ),
        (
            "eyJhbGciOiJub25lIn0.e30.".to_owned(),
            "refused: its `alg` is not ES256\n",
        ),
        (
            "nonsense".to_owned(),
            "refused: it has 1 parts, a token has 3\n",
        ),
        (String::new(), "refused: it has 1 parts, a token has 3\n"),
        (
            "a".repeat(100_000),
            "refused: it has 8195 bytes, at most 8192 are allowed\n",
        ),
    ];
    for (jws, expected) in rows {
        let run = folder
            .run_with("jws verify --jwk public.jwk", jws.as_bytes())
            .exits(1);
        assert_eq!(run.stdout, expected);
    }
    let binary = folder
        .run_with("jws verify --jwk public.jwk", b"\xff\xfe")
        .exits(1);
    assert_eq!(binary.stdout, "refused: it is not text\n");
}

#[test]
fn json_says_the_same() {
    let folder = Folder::new();
    let key = SigningKey::generate().unwrap();
    let kid = KeyId::from(key.fingerprint());
    folder.write("public.jwk", PublicJwk::write(key.verifying_key(), &kid));
    let header = HeaderSpec {
        typ: "JWT",
        kid: &kid,
    };
    let token = compact::sign(&header, b"{}", &key).unwrap();

    let good = folder
        .run_with("jws verify --jwk public.jwk -o json", token.as_bytes())
        .exits(0);
    let bad = folder
        .run_with("jws verify --jwk public.jwk -o json", b"a.b.c")
        .exits(1);

    assert_eq!(good.json(), serde_json::json!({"verified": true}));
    assert_eq!(bad.json()["verified"], false);
    assert!(bad.json()["reason"].is_string());
}

#[test]
fn a_key_file_that_cannot_be_read_is_exit_3_with_path_and_cause() {
    let folder = Folder::new();
    for (file, cause) in [
        ("missing.jwk", "there is no such file"),
        (".", "it is a directory"),
    ] {
        let run = folder
            .run_with(&format!("jws verify --jwk {file}"), A3_JWS.as_bytes())
            .exits(3);
        assert_eq!(run.stdout, "", "{file}");
        assert!(run.stderr.contains(&format!("`{file}`")), "{}", run.stderr);
        assert!(run.stderr.contains(cause), "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
}

#[test]
fn a_file_that_holds_no_public_key_verifies_nothing() {
    let folder = Folder::new();
    folder.write("binary.jwk", [0xff, 0xfe, 0]);
    folder.write("off.jwk", A3_KEY.replace("\"x\":\"f", "\"x\":\"g"));
    let key = SigningKey::generate().unwrap();
    let private = PrivateJwk::write(&key, &KeyId::from(key.fingerprint()));
    folder.write("private.jwk", private.expose());
    folder.write("large.jwk", vec![b'a'; 10_000_000]);
    folder.write("p384.jwk", A3_KEY.replace("P-256", "P-384"));
    for (file, cause) in [
        ("binary.jwk", "invalid utf-8"),
        ("off.jwk", "curve"),
        ("large.jwk", "it has 16385 bytes"),
        (
            "private.jwk",
            "this is a private key, but a public key is needed",
        ),
        ("p384.jwk", "only `P-256` is used"),
    ] {
        let run = folder
            .run_with(&format!("jws verify --jwk {file}"), A3_JWS.as_bytes())
            .exits(1);
        let refused = format!("refused: `{file}` is not a public P-256 JWK: ");
        assert!(run.stdout.starts_with(&refused), "{}", run.stdout);
        assert!(run.stdout.contains(cause), "{}", run.stdout);
        assert_eq!(run.stderr, "", "{file}");
    }
}

#[test]
fn line_ends_after_a_jws_are_dropped_and_blanks_are_not() {
    let folder = Folder::new();
    folder.write("public.jwk", A3_KEY);
    let verify = |jws: String| folder.run_with("jws verify --jwk public.jwk", jws.as_bytes());

    for end in ["", "\n", "\r\n"] {
        verify(format!("{A3_JWS}{end}")).exits(0);
    }
    for wrong in [
        format!(" {A3_JWS}"),
        format!("{A3_JWS} "),
        format!("\n{A3_JWS}"),
    ] {
        verify(wrong).exits(1);
    }
}
