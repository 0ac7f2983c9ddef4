//! The catalogue's rows about the own key, 2.10: one bad value each, and the one code that it has.

use super::key_rows::{Jwk, N, b64, hex};
use super::*;

/// Own keys that are none, before they are written as base64.
fn wrong_own_keys(own: &SigningKey) -> Vec<(&'static str, String, Code)> {
    let jwk = || Jwk::private(own);
    let with_d = |d: String| jwk().with("d", d).text();
    let good = jwk().text();
    let truncated = good.split_at(120).0.to_owned();
    let rsa = r#"{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}"#;
    vec![
        ("public only", Jwk::public(own).text(), Code::Cs0204),
        ("truncated JSON", truncated, Code::Cs0204),
        ("trailing", format!("{good}}}"), Code::Cs0206),
        ("d of another key", with_d(b64(&[7; 32])), Code::Cs0204),
        ("d = 0", with_d(b64(&[0; 32])), Code::Cs0204),
        ("d = n", with_d(b64(&hex(N))), Code::Cs0204),
        ("d of 31 bytes", with_d(b64(&[1; 31])), Code::Cs0204),
        ("d of 33 bytes", with_d(b64(&[1; 33])), Code::Cs0204),
        ("d empty", with_d("\"\"".to_owned()), Code::Cs0204),
        ("d null", with_d("null".to_owned()), Code::Cs0204),
        ("d a number", with_d("1".to_owned()), Code::Cs0204),
        ("RSA", rsa.to_owned(), Code::Cs0206),
        ("P-384", jwk().with("crv", "\"P-384\"").text(), Code::Cs0206),
        ("use enc", jwk().with("use", "\"enc\"").text(), Code::Cs0206),
        ("key set", format!("{{\"keys\":[{good}]}}"), Code::Cs0206),
        ("not JSON", "no key but a sentence".to_owned(), Code::Cs0206),
    ]
}

/// Values of the own key's setting that are no base64 of a JWK.
fn wrong_own_values(own: &SigningKey) -> Vec<(&'static str, String, Code)> {
    let good = Jwk::private(own).text();
    let twice = BASE64_STANDARD.encode(BASE64_STANDARD.encode(&good));
    let cut = BASE64_STANDARD.encode(&good).split_at(101).0.to_owned();
    let whole = BASE64_STANDARD.encode(&good);
    let (head, tail) = whole.split_at(52);
    let pem = own.to_pkcs8_pem().unwrap().expose().replace('\n', "\\n");
    let pem_in_base64 = BASE64_STANDARD.encode(own.to_pkcs8_pem().unwrap().expose());
    let marked = BASE64_STANDARD.encode(format!("\u{feff}{good}"));
    vec![
        ("empty", String::new(), Code::Cs0206),
        ("not base64", "%%%".to_owned(), Code::Cs0206),
        ("base64 twice", twice, Code::Cs0204),
        ("base64 cut", cut, Code::Cs0206),
        ("blank inside", format!("{head} {tail}"), Code::Cs0206),
        ("line end inside", format!("{head}\\n{tail}"), Code::Cs0206),
        ("template", "<generated_key>".to_owned(), Code::Cs0206),
        ("PEM", pem, Code::Cs0206),
        ("base64 of PEM", pem_in_base64, Code::Cs0206),
        ("base64 of a byte order mark", marked, Code::Cs0206),
        ("placeholder", "${OWN_KEY}".to_owned(), Code::Cs0206),
        ("crypted", "crypted:AES:AAAA".to_owned(), Code::Cs0206),
    ]
}

#[test]
fn own_key_that_is_not_usable_is_refused() {
    let own = key();
    let rest = deployment("dpe-dev", "dpe", &key());
    let keys = wrong_own_keys(&own).into_iter();
    let keys = keys.map(|(name, json, code)| (name, BASE64_STANDARD.encode(json), code));
    for (name, value, code) in keys.chain(wrong_own_values(&own)) {
        let found = error_codes(format!("{KEY}={value}\n{rest}"));
        assert_eq!(found, [code], "{name}");
    }
}

#[test]
fn own_key_set_twice_or_trusted_is_refused() {
    let own = key();
    let line = own_line(&own);
    let rest = deployment("dpe-dev", "dpe", &key());
    let trusted = deployment("dpe-dev", "dpe", &own);

    let twice = error_codes(format!("{line}{line}{rest}"));
    let trusting_itself = error_codes(format!("{line}{trusted}"));

    assert_eq!(twice, [Code::Cs0103]);
    assert_eq!(trusting_itself, [Code::Cs0207]);
}
