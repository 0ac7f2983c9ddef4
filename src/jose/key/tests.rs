use super::*;
use crate::jose::PrivateJwk;

/// [RFC 7515, A.3](https://www.rfc-editor.org/rfc/rfc7515#appendix-A.3).
const A3_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
const A3_INPUT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const A3_SIGNATURE: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

/// The order of the curve.
const N: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

fn a3_key() -> SigningKey {
    PrivateJwk::parse(A3_KEY).unwrap().key
}

fn a3_signature() -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(A3_SIGNATURE).unwrap()
}

#[test]
fn rfc_7515_appendix_a3_verifies() {
    let key = a3_key();

    assert!(
        key.verifying_key()
            .verify(A3_INPUT.as_bytes(), &a3_signature())
    );
}

#[test]
fn what_a_key_signs_only_that_key_verifies() {
    let (key, other) = (a3_key(), SigningKey::generate().unwrap());

    let signature = key.sign(b"message").unwrap();

    assert!(key.verifying_key().verify(b"message", &signature));
    assert!(!key.verifying_key().verify(b"massage", &signature));
    assert!(!other.verifying_key().verify(b"message", &signature));
}

#[test]
fn every_flipped_bit_of_a_signature_is_refused() {
    let key = a3_key();
    for bit in 0..512 {
        let mut signature = a3_signature();
        signature[bit / 8] ^= 1 << (bit % 8);

        assert!(
            !key.verifying_key().verify(A3_INPUT.as_bytes(), &signature),
            "bit {bit}"
        );
    }
}

#[test]
fn signatures_of_another_form_are_refused() {
    let key = a3_key();
    let good = a3_signature();
    let (r, s) = good.split_at(32);
    let ecdsa = p256::ecdsa::Signature::from_slice(&good).unwrap();
    let low_s = ecdsa.normalize_s();
    let zero = [0; 32];
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("one byte", vec![1]),
        ("r alone", r.to_vec()),
        ("63 bytes", good[..63].to_vec()),
        ("65 bytes, zero first", [&[0], good.as_slice()].concat()),
        ("65 bytes, recoverable", [good.as_slice(), &[0]].concat()),
        ("66 bytes, padded halves", [&[0], r, &[0], s].concat()),
        ("doubled", good.repeat(2)),
        ("6000 bytes", vec![7; 6000]),
        ("DER", ecdsa.to_der().as_bytes().to_vec()),
        ("swapped halves", [s, r].concat()),
        ("little-endian", {
            let (mut r, mut s) = (r.to_vec(), s.to_vec());
            r.reverse();
            s.reverse();
            [r, s].concat()
        }),
        ("r good, s zero", [r, &zero].concat()),
        ("r good, s = n", [r, &N].concat()),
        ("r zero, s good", [&zero, s].concat()),
    ];
    for (name, signature) in rows {
        assert!(
            !key.verifying_key().verify(A3_INPUT.as_bytes(), &signature),
            "{name}"
        );
    }

    let high_s = [r, &(-*ecdsa.s()).to_bytes()].concat();
    assert!(
        key.verifying_key()
            .verify(A3_INPUT.as_bytes(), &low_s.to_bytes())
    );
    assert!(key.verifying_key().verify(A3_INPUT.as_bytes(), &high_s));
}

#[test]
fn the_range_grid_is_refused() {
    let step = |delta: i16| {
        let mut bytes = N;
        bytes[31] = bytes[31]
            .checked_add_signed(i8::try_from(delta).unwrap())
            .unwrap();
        bytes
    };
    let mut one = [0; 32];
    one[31] = 1;
    let edges = [[0; 32], one, step(-1), N, step(1), [0xff; 32]];
    let key = a3_key();
    for r in edges {
        for s in edges {
            let signature = [r, s].concat();
            assert!(!key.verifying_key().verify(A3_INPUT.as_bytes(), &signature));
        }
    }
}

#[test]
fn every_written_form_reads_back_as_the_same_key() {
    let key = SigningKey::generate().unwrap();

    let pkcs8 = SigningKey::from_pkcs8_der(key.to_pkcs8_der().expose()).unwrap();
    let sec1 = SigningKey::from_sec1_der(key.to_sec1_der().unwrap().expose()).unwrap();
    let spki = VerifyingKey::from_spki_der(key.verifying_key().to_spki_der()).unwrap();

    assert_eq!(pkcs8.verifying_key(), key.verifying_key());
    assert_eq!(sec1.verifying_key(), key.verifying_key());
    assert_eq!(&spki, key.verifying_key());
    assert_eq!(*sec1.scalar(), *key.scalar());
}

#[test]
fn thumbprint_is_that_of_rfc_7638() {
    // The key of RFC 7517, A.1; the digest was computed with Python's hashlib.
    let jwk = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc","kid":"1"}"#;
    let jwk = jwk.replace(r#""use":"enc""#, r#""use":"sig""#);

    let key = crate::jose::PublicJwk::parse(&jwk).unwrap().key;

    assert_eq!(
        key.thumbprint(),
        "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"
    );
}

#[test]
fn debug_shows_the_fingerprint_only() {
    let key = a3_key();

    let shown = format!("{key:?}");

    assert_eq!(shown, format!("SigningKey({})", key.fingerprint()));
}

#[test]
fn keys_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<SigningKey>();
    check::<VerifyingKey>();
}
