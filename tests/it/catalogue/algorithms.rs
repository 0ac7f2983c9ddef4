//! 2.3: `alg`, and signatures that other algorithms made.

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use countersign::Reason::{AlgorithmNotAllowed, SignatureInvalid, TokenMalformed};
use countersign::jose::{PublicJwk, SigningKey};
use p256::ecdsa::Signature;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::peers::Peers;
use super::row::{Row, accepted, refused};
use crate::support::draft::{Draft, decode, text, with_signature};

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let mut rows = unsigned(peers);
    rows.extend(values(peers));
    rows.extend(keyed_by_what_is_public(peers));
    rows.extend(made_elsewhere(peers));
    rows.extend(other_digests(peers));
    rows
}

fn unsigned(peers: &Peers) -> Vec<Row> {
    let mut rows = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE"] {
        let draft = peers.draft().header("alg", text(alg));
        let empty = with_signature(&draft.input(), b"");
        let signed = draft.sign(&peers.caller.key);
        rows.push(refused(
            format!("{alg}, empty signature"),
            &empty,
            AlgorithmNotAllowed,
        ));
        rows.push(refused(
            format!("{alg}, valid signature"),
            &signed,
            AlgorithmNotAllowed,
        ));
    }
    let draft = peers.draft().header("alg", "\"none\"");
    let nameless = draft.clone().without_header("kid");
    let es256 = with_signature(&peers.draft().input(), b"");
    rows.extend([
        refused(
            "none without kid",
            &with_signature(&nameless.input(), b""),
            AlgorithmNotAllowed,
        ),
        refused("none in two parts", &draft.input(), TokenMalformed),
        refused("ES256, empty signature", &es256, SignatureInvalid),
    ]);
    rows
}

/// Values of `alg` over a signature that is right for ES256.
fn values(peers: &Peers) -> Vec<Row> {
    let names = [
        "",
        "es256",
        "Es256",
        "eS256",
        "ES256 ",
        " ES256",
        "ES256\0",
        "ES256\n",
        "\tES256",
        "ES384",
        "ES512",
        "ES256K",
        "ESP256",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "EdDSA",
        "Ed25519",
        "HS256",
        "HS384",
        "HS512",
        "dir",
        "ECDH-ES",
        "ECDH-ES+A256KW",
        "RSA-OAEP",
        "RSA1_5",
        "A256KW",
        "A256GCM",
        "PBES2-HS256+A128KW",
        "XX256",
        "SHA256withECDSA",
        "1.2.840.10045.4.3.2",
        "ES256,none",
        "none,ES256",
        "ES256;",
        "ES-256",
        "ECDSA",
        "\u{415}S256",
        "ЕЅ256",
        "ＥＳ２５６",
        "E\u{200b}S256",
    ];
    let names = names.map(|name| (format!("alg {name:?}"), text(name)));
    let kinds = [
        "null",
        "256",
        "[\"ES256\"]",
        "{\"alg\":\"ES256\"}",
        "true",
        "1.0",
    ];
    let kinds = kinds.map(|json| (format!("alg {json}"), json.to_owned()));
    let long = (
        "alg of 2500 characters".to_owned(),
        text(&"ES256".repeat(500)),
    );
    let rows = names.into_iter().chain(kinds).chain([long]);
    let mut rows: Vec<_> = rows
        .map(|(name, json)| {
            let token = peers.token(|draft| draft.header("alg", json));
            refused(name, &token, AlgorithmNotAllowed)
        })
        .collect();
    let missing = peers.token(|draft| draft.without_header("alg"));
    let other_case = peers.token(|draft| draft.without_header("alg").header("ALG", "\"ES256\""));
    let in_claims = peers.token(|draft| draft.without_header("alg").claim("alg", "\"ES256\""));
    rows.extend([
        refused("alg missing", &missing, AlgorithmNotAllowed),
        refused("member ALG", &other_case, AlgorithmNotAllowed),
        refused("alg among the claims", &in_claims, AlgorithmNotAllowed),
    ]);
    rows
}

/// HMAC with a secret that is public: everything that is known of the caller's key.
fn keyed_by_what_is_public(peers: &Peers) -> Vec<Row> {
    let public = peers.caller.key.verifying_key();
    let (x, y) = (decode(&public.x()), decode(&public.y()));
    let pem = public.to_spki_pem();
    let body = pem.lines().filter(|line| !line.starts_with("-----"));
    let body: String = body.collect();
    let jwk = PublicJwk::write(public, &peers.caller.key_id);
    let kid = peers.caller.key_id.as_str();
    let without_kid = jwk.replace(&format!("\"kid\":\"{kid}\","), "");
    assert_ne!(jwk, without_kid);
    let secrets: Vec<(&str, Vec<u8>)> = vec![
        ("SPKI DER", public.to_spki_der().to_vec()),
        ("PEM", pem.clone().into()),
        ("PEM without its last line end", pem.trim_end().into()),
        ("PEM with CR LF", pem.replace('\n', "\r\n").into()),
        ("the PEM's base64", body.into()),
        (
            "standard base64 of the SPKI",
            BASE64_STANDARD.encode(public.to_spki_der()).into(),
        ),
        ("point", [&[4], x.as_slice(), &y].concat()),
        ("x and y", [x.as_slice(), &y].concat()),
        ("x", x),
        ("x as text", public.x().into()),
        ("JWK", jwk.into()),
        ("JWK without kid", without_kid.into()),
        ("kid", kid.into()),
        (
            "fingerprint's bytes",
            peers.caller.fingerprint().as_bytes().to_vec(),
        ),
        ("nothing", Vec::new()),
        ("the word secret", b"secret".to_vec()),
        ("iss", peers.caller.issuer().into()),
        ("32 zeros", vec![0; 32]),
        ("64 zeros", vec![0; 64]),
    ];
    let tag = |algorithm, secret: &[u8], draft: &Draft| {
        let input = draft.input();
        let tag = hmac::sign(&hmac::Key::new(algorithm, secret), input.as_bytes());
        with_signature(&input, tag.as_ref())
    };
    let mut rows = Vec::new();
    for (name, secret) in secrets {
        for (alg, algorithm) in [
            ("HS256", hmac::HMAC_SHA256),
            ("HS384", hmac::HMAC_SHA384),
            ("HS512", hmac::HMAC_SHA512),
        ] {
            let draft = peers.draft().header("alg", text(alg));
            let token = tag(algorithm, &secret, &draft);
            let name = format!("{alg} keyed by {name}");
            rows.push(refused(name, &token, AlgorithmNotAllowed));
        }
        let token = tag(hmac::HMAC_SHA512, &secret, &peers.draft());
        let name = format!("HMAC of 64 bytes under ES256, keyed by {name}");
        rows.push(refused(name, &token, SignatureInvalid));
    }
    rows
}

/// Signatures by OpenSSL's RSA, Ed25519, P-384 and secp256k1.
fn made_elsewhere(peers: &Peers) -> Vec<Row> {
    let vectors = |name: &str| peers.vectors[name].as_object().unwrap().clone();
    let mut rows = Vec::new();
    for (alg, token) in vectors("own_alg") {
        let (name, token) = (format!("real {alg} signature"), token.as_str().unwrap());
        rows.push(match alg.as_str() {
            "ES256" => accepted(name, token),
            _ => refused(name, token, AlgorithmNotAllowed),
        });
    }
    for (alg, token) in vectors("under_es256") {
        let name = format!("real {alg} signature under ES256");
        rows.push(refused(name, token.as_str().unwrap(), SignatureInvalid));
    }
    rows
}

/// The right key over another digest than SHA-256 once.
fn other_digests(peers: &Peers) -> Vec<Row> {
    let key = &peers.caller.key;
    let input = peers.draft().input();
    let once = Sha256::digest(&input);
    let token = |digest: &[u8]| with_signature(&input, &sign_digest(key, digest));
    vec![
        accepted("control: SHA-256", &token(&once)),
        refused("SHA-384", &token(&Sha384::digest(&input)), SignatureInvalid),
        refused("SHA-512", &token(&Sha512::digest(&input)), SignatureInvalid),
        refused(
            "SHA-256 twice",
            &token(&Sha256::digest(once)),
            SignatureInvalid,
        ),
        refused(
            "SHA-384 under ES384",
            &{
                let input = peers.draft().header("alg", "\"ES384\"").input();
                with_signature(&input, &sign_digest(key, &Sha384::digest(&input)))
            },
            AlgorithmNotAllowed,
        ),
    ]
}

/// Signs a digest that may be of any length.
fn sign_digest(key: &SigningKey, digest: &[u8]) -> Vec<u8> {
    let key = super::signature::ecdsa_key(key);
    let signature: Signature = key.sign_prehash(digest).unwrap();
    signature.to_bytes().to_vec()
}
