//! 2.5: `kid`, and the members of the header that bring keys along or change the meaning.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use countersign::Reason::{AlgorithmNotAllowed, KeyUnknown, SignatureInvalid, TokenMalformed};
use countersign::jose::{PublicJwk, SigningKey};
use sha2::{Digest as _, Sha256};

use super::peers::Peers;
use super::row::{Row, accepted, refused};
use crate::support::draft::{Draft, encode, hex, sign, sign_parts, text};

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let mut rows = kids(peers);
    rows.extend(not_a_kid(peers));
    rows.extend(changing_the_meaning(peers));
    rows.extend(keys_brought_along(peers));
    rows.extend(types(peers));
    rows.extend(good(peers));
    rows
}

/// Texts that are no trusted key's id. Each is compared as bytes, and never opened, run or shown.
fn kids(peers: &Peers) -> Vec<Row> {
    let kid = peers.caller.key_id.as_str();
    let standard = kid.replace('-', "+").replace('_', "/");
    let bytes = peers.caller.fingerprint();
    let long = |n: usize| kid.repeat(200)[..n].to_owned();
    let near = [
        ("upper case", kid.to_uppercase()),
        ("lower case", kid.to_lowercase()),
        ("space after", format!("{kid} ")),
        ("space before", format!(" {kid}")),
        ("NUL after", format!("{kid}\0")),
        ("NUL and more after", format!("{kid}\0x")),
        ("newline after", format!("{kid}\n")),
        ("truncated", kid[..42].to_owned()),
        ("extended", format!("{kid}A")),
        ("padded", format!("{kid}=")),
        ("standard alphabet", standard),
        ("hexadecimal", hex(bytes.as_bytes())),
        ("twice with a comma", format!("{kid},{kid}")),
        ("percent-encoded", kid.replacen(&kid[..1], "%41", 1)),
        ("homoglyph", format!("{}а", &kid[..42])),
        ("of 1000 characters", long(1000)),
        ("of 5000 characters", long(5000)),
        (
            "RFC 7638 thumbprint",
            peers.caller.key.verifying_key().thumbprint(),
        ),
        ("the iss", peers.caller.issuer().to_owned()),
        ("the callee's own", peers.own.key_id.to_string()),
        ("a stranger's", peers.stranger.key_id.to_string()),
        ("an address that listens", peers.canary.url()),
    ];
    let far = HOSTILE.iter().map(|kid| (*kid, (*kid).to_owned()));
    let rows = near.into_iter().chain(far).map(|(name, kid)| {
        let token = peers.token(|draft| draft.header("kid", text(&kid)));
        refused(format!("kid {name:?}"), &token, KeyUnknown)
    });
    let stranger = peers.stranger.key_id.as_str();
    let own_kid = peers.draft().header("kid", text(stranger));
    let stranger = refused(
        "a stranger's kid and signature",
        &own_kid.sign(&peers.stranger.key),
        KeyUnknown,
    );
    rows.chain([stranger]).collect()
}

const HOSTILE: &[&str] = &[
    "",
    " ",
    "unknown",
    "default",
    "key",
    "0",
    "../../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/dev/null",
    "/proc/self/environ",
    "file:///etc/passwd",
    "' OR '1'='1",
    "x'; DROP TABLE keys; --",
    "*)(uid=*))(|(uid=*",
    "$(id)",
    "| id",
    "`id`",
    "; id",
    "${jndi:ldap://127.0.0.1:9/a}",
    "${ataccama.authentication.internal.jwt.generator.key}",
    "#{T(java.lang.Runtime).getRuntime().exec('id')}",
    "{{7*7}}",
    "%s%n",
    "{:?}",
    "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><x>&e;</x>",
    "a\r\n{\"severity\":\"INFO\",\"message\":\"trusted\"}",
    "\u{1b}[2J\u{1b}[31mred",
    "\u{202e}gnp.exe",
    "🔑",
    "\0",
    "*",
    ".*",
    ".",
    "..",
    "__proto__",
    "constructor",
];

fn not_a_kid(peers: &Peers) -> Vec<Row> {
    let kid = peers.caller.key_id.as_str();
    let kinds = [
        "null".to_owned(),
        "1".to_owned(),
        "0".to_owned(),
        "1.5".to_owned(),
        "true".to_owned(),
        "false".to_owned(),
        "[]".to_owned(),
        format!("[\"{kid}\"]"),
        "{}".to_owned(),
        format!("{{\"kid\":\"{kid}\"}}"),
    ];
    let rows = kinds.into_iter().map(|json| {
        let token = peers.token(|draft| draft.header("kid", &json));
        refused(format!("kid is {json}"), &token, TokenMalformed)
    });
    let missing = peers.draft().without_header("kid");
    let upper = missing.clone().header("KID", text(kid));
    let in_claims = missing.clone().claim("kid", text(kid));
    let more = [
        // One trusted key would verify it, if they were all tried.
        ("kid missing", missing.sign(&peers.caller.key)),
        (
            "kid missing, a stranger's signature",
            missing.sign(&peers.stranger.key),
        ),
        ("member KID", upper.sign(&peers.caller.key)),
        ("kid among the claims", in_claims.sign(&peers.caller.key)),
    ];
    let more = more.map(|(name, token)| refused(name, &token, TokenMalformed));
    rows.chain(more).collect()
}

/// `crit`, `b64` and `zip` in any form, and payloads that only they would explain.
fn changing_the_meaning(peers: &Peers) -> Vec<Row> {
    let crit = [
        r#"["x"]"#,
        r#"["b64"]"#,
        "[]",
        r#""exp""#,
        "null",
        "1",
        r#"["alg"]"#,
        "[1]",
        r#"["exp","exp"]"#,
        r#"["exp"]"#,
        "{}",
        r#"[""]"#,
        "true",
        r#"["kid"]"#,
        "[null]",
    ];
    let rows = crit.map(|json| (format!("crit {json}"), vec![("crit", json)]));
    let named = [
        (
            "crit names an extension that is there",
            vec![("crit", r#"["x"]"#), ("x", "1")],
        ),
        ("b64 false", vec![("b64", "false")]),
        (
            "b64 false, critical",
            vec![("b64", "false"), ("crit", r#"["b64"]"#)],
        ),
        (
            "b64 true, critical",
            vec![("b64", "true"), ("crit", r#"["b64"]"#)],
        ),
        ("b64 true", vec![("b64", "true")]),
        ("b64 null", vec![("b64", "null")]),
        ("zip DEF", vec![("zip", "\"DEF\"")]),
        ("zip null", vec![("zip", "null")]),
        ("zip empty", vec![("zip", "\"\"")]),
    ];
    let named = named.map(|(name, members)| (name.to_owned(), members));
    let rows = rows.into_iter().chain(named).map(|(name, members)| {
        let token = peers.token(|draft| {
            let add = |draft: Draft, (name, json): (&str, &str)| draft.header(name, json);
            members.into_iter().fold(draft, add)
        });
        refused(name, &token, TokenMalformed)
    });
    let draft = peers
        .draft()
        .header("b64", "false")
        .header("crit", r#"["b64"]"#);
    let raw = sign_parts(&encode(draft.header_text()), "payload", &peers.caller.key);
    let raw = refused("b64 false, payload as it is", &raw, TokenMalformed);
    let nested = peers.draft().header("cty", "\"JWT\"").header_text();
    let nested = sign(nested, peers.good(), &peers.caller.key);
    let nested = refused("a token within a token", &nested, TokenMalformed);
    let in_header = peers
        .draft()
        .without("iss")
        .header("iss", text(peers.caller.issuer()));
    let in_header = in_header.sign(&peers.caller.key);
    let in_header = refused("claims in the header only", &in_header, TokenMalformed);
    rows.chain([raw, nested, in_header]).collect()
}

/// A stranger signs and says where its key is. The callee does not look.
fn keys_brought_along(peers: &Peers) -> Vec<Row> {
    let key = &peers.stranger.key;
    let jwk = PublicJwk::write(key.verifying_key(), &peers.stranger.key_id);
    let own_kid = text(peers.stranger.key_id.as_str());
    let trusted_kid = text(peers.caller.key_id.as_str());
    let certificate = certificate(key);
    let print = text(&encode(Sha256::digest(&certificate)));
    let certificate = format!("[\"{}\"]", BASE64_STANDARD.encode(certificate));
    let url = text(&peers.canary.url());
    let members = [
        ("jwk", jwk.as_str()),
        ("jku", &url),
        ("x5u", &url),
        ("jku", "\"file:///etc/passwd\""),
        ("x5u", "\"file:///etc/passwd\""),
        ("x5c", &certificate),
        ("x5c", "[\"garbage\"]"),
        ("x5t", &own_kid),
        ("x5t#S256", &print),
    ];
    let mut rows = Vec::new();
    for (at, (name, json)) in members.into_iter().enumerate() {
        let draft = peers.draft().header(name, json);
        let as_own = draft.clone().header("kid", &own_kid);
        let as_trusted = draft.clone().header("kid", &trusted_kid);
        let without_kid = draft.without_header("kid");
        for (kid, draft, reason) in [
            ("a trusted kid", as_trusted, SignatureInvalid),
            ("its own kid", as_own, KeyUnknown),
            ("no kid", without_kid, TokenMalformed),
        ] {
            let name = format!("{at}: a stranger's {name} with {kid}");
            rows.push(refused(name, &draft.sign(key), reason));
        }
    }
    let oct = peers.draft().header("jwk", r#"{"kty":"oct","k":"AAAA"}"#);
    rows.push(refused(
        "symmetric jwk, HS256",
        &oct.clone().header("alg", "\"HS256\"").sign(key),
        AlgorithmNotAllowed,
    ));
    rows.push(refused("symmetric jwk", &oct.sign(key), SignatureInvalid));
    rows
}

/// A certificate that `key` signed for itself.
fn certificate(key: &SigningKey) -> Vec<u8> {
    let key = rcgen::KeyPair::try_from(key.to_pkcs8_der().expose().as_slice()).unwrap();
    let parameters = rcgen::CertificateParams::new(["stranger".to_owned()]).unwrap();
    parameters.self_signed(&key).unwrap().der().to_vec()
}

fn types(peers: &Peers) -> Vec<Row> {
    let refused_types = [
        "\"at+jwt\"",
        "\"JWE\"",
        "\"JOSE\"",
        "\"JWS\"",
        "\"secevent+jwt\"",
        "\"logout+jwt\"",
        "\"dpop+jwt\"",
        "\"application/jwt\"",
        "\"countersign-proof+jwt\"",
        "\"JWT \"",
        "\"JWT\\u0000\"",
        "\"\"",
        "1",
        "null",
        "[\"JWT\"]",
        "{}",
        "true",
    ];
    let refused_types = refused_types.map(|json| {
        let token = peers.token(|draft| draft.header("typ", json));
        refused(format!("typ {json}"), &token, TokenMalformed)
    });
    let accepted_types = ["\"JWT\"", "\"jwt\"", "\"Jwt\""].map(|json| {
        let token = peers.token(|draft| draft.header("typ", json));
        accepted(format!("typ {json}"), &token)
    });
    let none = peers.token(|draft| draft.without_header("typ"));
    let rows = refused_types.into_iter().chain(accepted_types);
    rows.chain([accepted("no typ", &none)]).collect()
}

/// Members that change no verdict, since they are not read (the contract's choice).
fn good(peers: &Peers) -> Vec<Row> {
    let url = text(&peers.canary.url());
    let jwk = PublicJwk::write(peers.stranger.key.verifying_key(), &peers.stranger.key_id);
    let private = jwk.replace("\"x\"", "\"d\":\"AAAA\",\"x\"");
    let members = [
        ("jku", url.as_str()),
        ("x5u", &url),
        ("jwk", &jwk),
        ("jwk", &private),
        ("x5c", "[\"garbage\"]"),
        ("x5t", "\"garbage\""),
        ("enc", "\"A256GCM\""),
        ("iss", "\"anyone\""),
        ("cty", "\"x\""),
    ];
    let rows = members.into_iter().enumerate().map(|(at, (name, json))| {
        let token = peers.token(|draft| draft.header(name, json));
        accepted(format!("{at}: {name} on a good token"), &token)
    });
    rows.collect()
}
