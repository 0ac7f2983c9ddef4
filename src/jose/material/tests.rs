#![expect(
    clippy::too_many_lines,
    clippy::string_slice,
    reason = "tables of ASCII"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, Engine as _};

use super::*;

/// Runs the machine's openssl; `None`, with a message, if it is not installed.
#[expect(
    clippy::unwrap_in_result,
    reason = "only a missing openssl is an answer"
)]
fn openssl(arguments: &str, input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new("openssl")
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: there is no `openssl` on this machine");
        return None;
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments}");
    Some(output.stdout)
}

fn jwk(key: &SigningKey) -> (String, String) {
    let kid = KeyId::from(key.fingerprint());
    let line = PrivateJwk::write(key, &kid).expose().clone();
    let pretty = PrivateJwk::write_pretty(key, &kid).expose().clone();
    (line, pretty)
}

fn wrapped(text: &str) -> String {
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    lines.join("\n") + "\n"
}

#[test]
fn every_form_of_one_key_reads_as_the_same_key() {
    use KeyFormat::{Base64Jwk, Jwk, Pkcs8Der, Pkcs8Pem, Sec1Der, Sec1Pem, SpkiDer, SpkiPem};
    let key = SigningKey::generate().unwrap();
    let (line, pretty) = jwk(&key);
    let kid = KeyId::from(key.fingerprint());
    let public = PublicJwk::write_pretty(key.verifying_key(), &kid);
    let rows: Vec<(Vec<u8>, KeyFormat)> = vec![
        (line.clone().into(), Jwk),
        (pretty.clone().into(), Jwk),
        (format!("\u{feff}{pretty}\r\n").into(), Jwk),
        (public.clone().into(), Jwk),
        (BASE64_STANDARD.encode(&line).into(), Base64Jwk),
        (BASE64_STANDARD.encode(&pretty).into(), Base64Jwk),
        (BASE64_URL_SAFE.encode(&pretty).into(), Base64Jwk),
        (BASE64_URL_SAFE_NO_PAD.encode(&line).into(), Base64Jwk),
        (wrapped(&BASE64_STANDARD.encode(&pretty)).into(), Base64Jwk),
        (BASE64_STANDARD.encode(public).into(), Base64Jwk),
        (
            key.to_pkcs8_pem().unwrap().expose().clone().into(),
            Pkcs8Pem,
        ),
        (key.to_pkcs8_der().expose().clone(), Pkcs8Der),
        (key.to_sec1_pem().unwrap().expose().clone().into(), Sec1Pem),
        (key.to_sec1_der().unwrap().expose().clone(), Sec1Der),
        (key.verifying_key().to_spki_pem().into(), SpkiPem),
        (
            key.verifying_key()
                .to_spki_pem()
                .replace('\n', "\r\n")
                .into(),
            SpkiPem,
        ),
        (key.verifying_key().to_spki_der().to_vec(), SpkiDer),
    ];
    for (bytes, expected) in rows {
        let (material, format) = KeyMaterial::read(&bytes).unwrap();
        assert_eq!(format, expected);
        assert_eq!(material.verifying_key(), key.verifying_key(), "{format:?}");
        let has_kid = matches!(format, Jwk | Base64Jwk);
        assert_eq!(material.kid().is_some(), has_kid, "{format:?}");
    }
}

#[test]
fn keys_made_by_openssl_are_read_and_named_as_openssl_names_them() {
    for make in [
        "ecparam -name prime256v1 -genkey -noout",
        "ecparam -name prime256v1 -genkey",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    ] {
        let Some(pem) = openssl(make, b"") else {
            return;
        };
        let (material, format) = KeyMaterial::read(&pem).unwrap_or_else(|e| panic!("{make}: {e}"));
        let pkcs8 = make.starts_with("genpkey");
        assert_eq!(
            format,
            if pkcs8 {
                KeyFormat::Pkcs8Pem
            } else {
                KeyFormat::Sec1Pem
            }
        );

        for (convert, expected) in [
            ("pkey -outform DER", KeyFormat::Pkcs8Der),
            ("ec -outform DER", KeyFormat::Sec1Der),
            ("pkey -pubout", KeyFormat::SpkiPem),
            ("pkey -pubout -outform DER", KeyFormat::SpkiDer),
        ] {
            let converted = openssl(convert, &pem).unwrap();
            let (other, format) = KeyMaterial::read(&converted).unwrap();
            assert_eq!(other.verifying_key(), material.verifying_key(), "{convert}");
            // openssl 3 writes PKCS#8 or SEC1 for a private key, depending on its version.
            if expected != KeyFormat::Pkcs8Der {
                assert_eq!(format, expected, "{convert}");
            }
        }

        let spki = openssl(
            "pkey -pubin -outform DER",
            material.verifying_key().to_spki_pem().as_bytes(),
        );
        let digest = openssl("dgst -sha256 -binary", &spki.unwrap()).unwrap();
        assert_eq!(
            BASE64_URL_SAFE_NO_PAD.encode(digest),
            material.verifying_key().fingerprint().to_string()
        );
    }
}

#[test]
fn openssl_reads_what_we_write() {
    let key = SigningKey::generate().unwrap();
    for pem in [key.to_pkcs8_pem().unwrap(), key.to_sec1_pem().unwrap()] {
        let Some(spki) = openssl("pkey -pubout -outform DER", pem.expose().as_bytes()) else {
            return;
        };
        assert_eq!(spki, key.verifying_key().to_spki_der());
    }
}

#[test]
fn other_things_made_by_openssl_are_refused_by_name() {
    let Some(rsa) = openssl("genrsa 2048", b"") else {
        return;
    };
    let make = |arguments: &str, input: &[u8]| openssl(arguments, input).unwrap();
    let p384 = make("ecparam -name secp384r1 -genkey -noout", b"");
    let curve = |name| make(&format!("ecparam -name {name} -genkey -noout"), b"");
    let p256 = curve("prime256v1");
    let rows: Vec<(&str, Vec<u8>, KeyError)> = vec![
        ("RSA", rsa.clone(), KeyError::OtherKind("RSA")),
        (
            "RSA, old PEM",
            make("rsa -traditional", &rsa),
            KeyError::OtherKind("RSA"),
        ),
        (
            "RSA, public",
            make("pkey -pubout", &rsa),
            KeyError::OtherKind("RSA"),
        ),
        (
            "RSA, DER",
            make("pkey -outform DER", &rsa),
            KeyError::OtherKind("RSA"),
        ),
        ("P-384, SEC1", p384.clone(), KeyError::OtherKind("EC P-384")),
        (
            "P-384, public",
            make("pkey -pubout", &p384),
            KeyError::OtherKind("EC P-384"),
        ),
        (
            "secp256k1",
            make("ecparam -name secp256k1 -genkey -noout", b""),
            KeyError::OtherKind("EC secp256k1"),
        ),
        (
            "Ed25519",
            make("genpkey -algorithm ed25519", b""),
            KeyError::OtherKind("Ed25519"),
        ),
        (
            "encrypted PKCS#8",
            make("pkcs8 -topk8 -passout pass:x", &p256),
            KeyError::Encrypted,
        ),
        (
            "encrypted PKCS#8 DER",
            make("pkcs8 -topk8 -passout pass:x -outform DER", &p256),
            KeyError::Encrypted,
        ),
        (
            "encrypted SEC1",
            make("ec -aes128 -passout pass:x", &p256),
            KeyError::Encrypted,
        ),
        (
            "parameters",
            make("ecparam -name prime256v1", b""),
            KeyError::ParametersOnly,
        ),
        ("two keys", p256.repeat(2), KeyError::SeveralKeys(2)),
        (
            "explicit parameters",
            make(
                "ecparam -name prime256v1 -genkey -noout -param_enc explicit",
                b"",
            ),
            KeyError::ExplicitParameters { public: false },
        ),
        (
            "explicit parameters, PKCS#8",
            make("pkey -ec_param_enc explicit", &p256),
            KeyError::ExplicitParameters { public: false },
        ),
        (
            "explicit parameters, public",
            make("pkey -pubout -ec_param_enc explicit", &p256),
            KeyError::ExplicitParameters { public: true },
        ),
        (
            "P-384, DER in base64",
            BASE64_STANDARD
                .encode(make("pkey -outform DER", &p384))
                .into(),
            KeyError::OtherKind("EC P-384"),
        ),
        ("P-224", curve("secp224r1"), KeyError::OtherKind("EC P-224")),
        ("P-521", curve("secp521r1"), KeyError::OtherKind("EC P-521")),
        (
            "P-192",
            curve("prime192v1"),
            KeyError::OtherKind("EC P-192"),
        ),
        (
            "brainpool",
            curve("brainpoolP256r1"),
            KeyError::OtherKind("EC brainpool"),
        ),
        (
            "another curve",
            make("pkey", &curve("sect233k1")),
            KeyError::OtherKind("EC on another curve"),
        ),
        ("SM2", curve("SM2"), KeyError::OtherKind("SM2")),
        (
            "Ed448",
            make("genpkey -algorithm ed448", b""),
            KeyError::OtherKind("Ed448"),
        ),
        (
            "X25519",
            make("genpkey -algorithm x25519", b""),
            KeyError::OtherKind("X25519"),
        ),
        (
            "X448",
            make("genpkey -algorithm x448", b""),
            KeyError::OtherKind("X448"),
        ),
        (
            "RSA, PKCS#1 DER",
            make("rsa -traditional -outform DER", &rsa),
            KeyError::OtherKind("RSA"),
        ),
        (
            "RSA, public PKCS#1 DER",
            make("rsa -RSAPublicKey_out -outform DER", &rsa),
            KeyError::OtherKind("RSA"),
        ),
        (
            "encrypted with PKCS#12's way",
            make(
                "pkcs8 -topk8 -passout pass:x -v1 PBE-SHA1-3DES -outform DER",
                &p256,
            ),
            KeyError::Encrypted,
        ),
    ];
    for (name, bytes, expected) in rows {
        assert_eq!(KeyMaterial::read(&bytes).unwrap_err(), expected, "{name}");
    }
}

#[test]
fn certificates_and_requests_are_refused_by_name_alone_and_beside_a_key() {
    let certificate = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    let request = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
    let request = request.serialize_request(&certificate.signing_key).unwrap();
    let key = certificate.signing_key.serialize_pem();
    let of = |kind| KeyError::Certificate(kind);
    let (alone, asked) = (certificate.cert.pem(), request.pem().unwrap());
    let rows: Vec<(Vec<u8>, KeyError)> = vec![
        (alone.clone().into(), of("certificate")),
        (alone.repeat(2).into(), of("certificate")),
        (certificate.cert.der().to_vec(), of("certificate")),
        (
            BASE64_STANDARD.encode(certificate.cert.der()).into(),
            of("certificate"),
        ),
        (asked.clone().into(), of("certificate request")),
        (request.der().to_vec(), of("certificate request")),
        (
            format!("{alone}{key}").into(),
            KeyError::Beside("certificate"),
        ),
        (
            format!("{key}{alone}{alone}").into(),
            KeyError::Beside("certificate"),
        ),
        (
            format!("{key}{asked}").into(),
            KeyError::Beside("certificate request"),
        ),
        (
            format!("{key}{alone}{key}").into(),
            KeyError::SeveralKeys(2),
        ),
    ];
    for (at, (bytes, expected)) in rows.into_iter().enumerate() {
        assert_eq!(KeyMaterial::read(&bytes).unwrap_err(), expected, "row {at}");
    }
}

#[test]
fn what_is_no_key_is_refused_by_name() {
    let key = SigningKey::generate().unwrap();
    let (line, pretty) = jwk(&key);
    let mut flipped = key.to_sec1_der().unwrap().expose().clone();
    flipped[60] ^= 1;
    let page = format!(
        "Public and Private Keypair\n{pretty}\nPublic and Private Keypair Set\n{{\"keys\":[{line}]}}"
    );
    let rows: Vec<(&str, Vec<u8>, KeyError)> = vec![
        ("nothing", vec![], KeyError::Empty),
        ("blank", b" \n".to_vec(), KeyError::Empty),
        ("words", b"not a key".to_vec(), KeyError::Unrecognised),
        (
            "placeholder",
            b"<generated_key>".to_vec(),
            KeyError::Unrecognised,
        ),
        ("binary", vec![0xff; 100], KeyError::Unrecognised),
        ("100 kB", vec![b'a'; 100_000], KeyError::TooLarge(100_000)),
        ("mkjwk's page", page.into(), KeyError::SeveralTexts),
        (
            "a set of two",
            format!("{{\"keys\":[{line},{line}]}}").into(),
            KeyError::KeySet(2),
        ),
        ("an empty set", b"{\"keys\":[]}".into(), KeyError::KeySet(0)),
        (
            "a set of words",
            b"{\"keys\":3}".into(),
            KeyError::KeySet(0),
        ),
        (
            "private and public",
            format!("{pretty}\n{pretty}").into(),
            KeyError::SeveralTexts,
        ),
        (
            "base64 twice",
            BASE64_STANDARD.encode(BASE64_STANDARD.encode(&line)).into(),
            KeyError::Base64Twice,
        ),
        (
            "base64 of words",
            BASE64_STANDARD.encode("words").into(),
            KeyError::Base64OfOther,
        ),
        (
            "certificate",
            b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----".to_vec(),
            KeyError::Certificate("certificate"),
        ),
        (
            "DH parameters",
            b"-----BEGIN DH PARAMETERS-----\nMIIB\n-----END DH PARAMETERS-----".to_vec(),
            KeyError::OtherLabel("`DH PARAMETERS`".to_owned()),
        ),
        (
            "damaged PEM",
            b"-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----".to_vec(),
            KeyError::DamagedPem("PRIVATE KEY"),
        ),
        (
            "PEM without an end",
            b"-----BEGIN PRIVATE KEY-----\nMIGH".to_vec(),
            KeyError::Unrecognised,
        ),
        ("DER with another public point", flipped, KeyError::Der),
    ];
    for (name, bytes, expected) in rows {
        assert_eq!(KeyMaterial::read(&bytes).unwrap_err(), expected, "{name}");
    }
    let nested = format!("{{\"keys\":[{{\"keys\":[{line}]}}]}}");
    assert_eq!(
        KeyMaterial::read(nested.as_bytes())
            .unwrap_err()
            .to_string(),
        "it is a key set (`keys`); write only the key that is in it"
    );
}

/// Returns `text` as a UTF-16 file, with or without a byte order mark.
fn utf16(text: &str, mark: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let marked = format!("{mark}{text}");
    marked.encode_utf16().flat_map(bytes).collect()
}

#[test]
fn a_key_is_read_through_base64_utf_16_written_line_ends_and_a_set_of_one() {
    use KeyFormat::{Base64Jwk, JwkSet, Pkcs8Der, Pkcs8Pem, RewrittenJwk, Sec1Pem, SpkiDer};
    let key = SigningKey::generate().unwrap();
    let (line, pretty) = jwk(&key);
    let pkcs8 = key.to_pkcs8_pem().unwrap().expose().clone();
    let sec1 = key.to_sec1_pem().unwrap().expose().clone();
    let der = key.to_pkcs8_der().expose().clone();
    let spki = key.verifying_key().to_spki_der();
    let set = format!("{{\"keys\": [\n{pretty}]}}");
    let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes).into_bytes();
    let escaped = |text: &str, end: &str| text.replace('\n', end).into_bytes();
    let (little, big) = (u16::to_le_bytes, u16::to_be_bytes);
    let rows: Vec<(Vec<u8>, KeyFormat)> = vec![
        (base64(pkcs8.as_bytes()), Pkcs8Pem),
        (wrapped(&BASE64_STANDARD.encode(&sec1)).into(), Sec1Pem),
        (BASE64_URL_SAFE_NO_PAD.encode(&der).into(), Pkcs8Der),
        (base64(spki), SpkiDer),
        (utf16(&pkcs8, "\u{feff}", little), Pkcs8Pem),
        (utf16(&pkcs8, "\u{feff}", big), Pkcs8Pem),
        (utf16(&sec1, "", little), Sec1Pem),
        (utf16(&sec1, "", big), Sec1Pem),
        (utf16(&pretty, "\u{feff}", little), RewrittenJwk),
        (
            utf16(&BASE64_STANDARD.encode(&line), "\u{feff}", little),
            Base64Jwk,
        ),
        (base64(&utf16(&line, "\u{feff}", little)), RewrittenJwk),
        (base64(format!("\u{feff}{pretty}").as_bytes()), RewrittenJwk),
        (base64(format!("\u{feff}{pkcs8}").as_bytes()), Pkcs8Pem),
        (escaped(&pkcs8, "\\n"), Pkcs8Pem),
        (escaped(&sec1, "\\r\\n"), Sec1Pem),
        (escaped(&pretty, "\\n"), RewrittenJwk),
        (
            escaped(&wrapped(&BASE64_STANDARD.encode(&line)), "\\n"),
            Base64Jwk,
        ),
        (set.clone().into(), JwkSet),
        (base64(set.as_bytes()), JwkSet),
    ];
    for (at, (bytes, expected)) in rows.into_iter().enumerate() {
        let (material, format) =
            KeyMaterial::read(&bytes).unwrap_or_else(|e| panic!("row {at}, {expected:?}: {e}"));
        assert_eq!(format, expected, "row {at}");
        assert_eq!(material.verifying_key(), key.verifying_key(), "row {at}");
        let public = expected == SpkiDer;
        assert_eq!(
            matches!(material, KeyMaterial::Public(..)),
            public,
            "row {at}"
        );
    }
}

#[test]
fn a_line_end_in_the_kid_of_a_jwk_stays_a_part_of_it() {
    let key = SigningKey::generate().unwrap();
    let named = jwk(&key).0.replace("\"kid\":\"", "\"kid\":\"a\\n");
    let refused = KeyMaterial::read(named.as_bytes()).unwrap_err().to_string();
    assert!(refused.contains("U+000A"), "{refused}");
}

#[test]
fn no_cut_of_a_key_file_panics_or_shows_the_key() {
    let key = SigningKey::generate().unwrap();
    let (line, pretty) = jwk(&key);
    let d = BASE64_URL_SAFE_NO_PAD.encode(key.scalar().as_slice());
    for bytes in [
        pretty.into_bytes(),
        key.to_pkcs8_der().expose().clone(),
        key.to_sec1_pem().unwrap().expose().clone().into_bytes(),
        utf16(&line, "\u{feff}", u16::to_le_bytes),
        BASE64_STANDARD.encode(key.to_pkcs8_der().expose()).into(),
        format!("{{\"keys\":[{line}]}}").into(),
    ] {
        for end in 0..bytes.len() {
            if let Err(error) = KeyMaterial::read(&bytes[..end]) {
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains(&d[..12]), "{shown}");
            }
        }
    }
}
