//! 2.2: the payload's JSON, properly signed.

use countersign::Reason::{IssuerMismatch, TokenMalformed};

use super::peers::Peers;
use super::row::{Row, accepted, refused};
use crate::support::draft::sign;

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let mut rows = objects(peers);
    rows.extend(duplicates(peers));
    rows.extend(good(peers));
    rows
}

fn objects(peers: &Peers) -> Vec<Row> {
    let draft = peers.draft();
    let kinds = [
        ("text", "\"dpe-dev\""),
        ("bare text", "dpe-dev"),
        ("array", "[]"),
        ("null", "null"),
        ("number", "1"),
        ("true", "true"),
        ("empty object", "{}"),
        ("only spaces", "  "),
    ];
    let kinds = kinds.map(|(name, json)| (name.to_owned(), json.as_bytes().to_vec()));
    let in_array = format!("[{}]", draft.claims_text()).into_bytes();
    let rest = [
        ("object in an array".to_owned(), in_array),
        (
            "out of step: a comma for a value".to_owned(),
            draft.clone().claim("nbf", "{,").claims_text().into_bytes(),
        ),
        (
            "lone surrogate".to_owned(),
            draft.clone().claim("x", r#""\ud800""#).claims_text().into(),
        ),
        (
            "claims in a text".to_owned(),
            serde_json::to_vec(&draft.claims_text()).unwrap(),
        ),
    ];
    let rows = kinds.into_iter().chain(rest);
    let rows = rows.chain(spoilt(&draft.claims_text()));
    let rows = rows.map(|(name, payload)| {
        let token = sign(draft.header_text(), payload, &peers.caller.key);
        refused(name, &token, TokenMalformed)
    });
    rows.collect()
}

/// Every way to make JSON that some parser takes for `json`, an object with a first member of
/// three letters.
pub(super) fn spoilt(json: &str) -> Vec<(String, Vec<u8>)> {
    let first = |from: &str, to: &str| json.replacen(from, to, 1).into_bytes();
    let with = |value: &[u8]| {
        let open = json.strip_suffix('}').unwrap().as_bytes();
        [open, b",\"x\":", value, b"}"].concat()
    };
    let around = |open: &str, count: usize, close: &str| {
        let value = format!("{}1{}", open.repeat(count), close.repeat(count));
        with(value.as_bytes())
    };
    let utf16 = || json.encode_utf16();
    let rows = [
        ("trailing byte", format!("{json}x").into()),
        ("trailing bracket", format!("{json}}}").into()),
        ("two objects", format!("{json}{json}").into()),
        ("two objects in lines", format!("{json}\n{json}").into()),
        ("NUL after", format!("{json}\0").into()),
        ("NUL before", format!("\0{json}").into()),
        ("trailing comma", json.replace('}', ",}").into()),
        ("comment before", format!("/**/{json}").into()),
        ("comment within", first(",", ",/* */")),
        ("line comment after", format!("{json}//").into()),
        ("single quotes", json.replace('"', "'").into()),
        ("BOM", format!("\u{feff}{json}").into()),
        ("UTF-16 LE", utf16().flat_map(u16::to_le_bytes).collect()),
        ("UTF-16 BE", utf16().flat_map(u16::to_be_bytes).collect()),
        ("invalid UTF-8", with(b"\"\xff\"")),
        ("overlong UTF-8", with(b"\"\xc0\xaf\"")),
        ("surrogate in UTF-8", with(b"\"\xed\xa0\x80\"")),
        ("raw control character", with(b"\"\x01\"")),
        ("raw line feed", with(b"\"\n\"")),
        ("truncated", json[..json.len() - 1].into()),
        ("cut in half", json[..json.len() / 2].into()),
        ("missing quote", first("{\"", "{")),
        ("missing second quote", first("\":", ":")),
        ("missing colon", first(":", " ")),
        ("missing comma", first(",", " ")),
        ("names without quotes", unquoted(json)),
        ("2000 arrays", around("[", 2000, "]")),
        ("900 objects", around(r#"{"":"#, 900, "}")),
        ("duplicate within", with(br#"{"a":1,"a":2}"#)),
    ];
    let rows = rows.into_iter();
    rows.map(|(name, json)| (name.to_owned(), json)).collect()
}

/// Takes the quotes off member names.
fn unquoted(json: &str) -> Vec<u8> {
    let json = json.replace("{\"", "{").replace(",\"", ",");
    json.replace("\":", ":").into_bytes()
}

fn duplicates(peers: &Peers) -> Vec<Row> {
    let good = peers.draft().claims_text();
    let other = format!("\"{}\"", peers.other.issuer());
    let rows = [
        ("exp", "9999999999".to_owned()),
        ("exp", "1".to_owned()),
        ("iss", other.clone()),
        ("sub", other),
        ("aud", "\"another\"".to_owned()),
        ("iat", "1".to_owned()),
        ("jti", "\"b\"".to_owned()),
        (r"\u0065xp", "9999999999".to_owned()),
        (r"i\u0073s", "\"another\"".to_owned()),
    ];
    let rows = rows.into_iter().flat_map(|(name, json)| {
        let first = good.replacen('{', &format!(r#"{{"{name}":{json},"#), 1);
        let last = good.strip_suffix('}').unwrap();
        let last = format!(r#"{last},"{name}":{json}}}"#);
        [("first", first), ("last", last)].map(|(place, payload)| {
            let token = sign(peers.draft().header_text(), payload, &peers.caller.key);
            refused(format!("{name}:{json} {place} too"), &token, TokenMalformed)
        })
    });
    rows.collect()
}

fn good(peers: &Peers) -> Vec<Row> {
    let key = &peers.caller.key;
    let (header, payload) = (peers.draft().header_text(), peers.draft().claims_text());
    let spaced = format!("\r\n {} \t", payload.replace(',', " ,\n\t"));
    let escaped = payload.replacen("\"iss\"", r#""\u0069ss""#, 1);
    vec![
        accepted("white space", &sign(&header, spaced, key)),
        accepted("escaped claim name", &sign(&header, escaped, key)),
        accepted(
            "more claims",
            &peers.token(|draft| {
                let draft = draft
                    .claim("azp", "\"x\"")
                    .claim("deep", r#"{"iss":["x"]}"#);
                draft.claim("email_verified", "true").claim("n", "null")
            }),
        ),
        accepted(
            "Unicode",
            &peers.token(|draft| draft.claim("ü", "\"é😀\"").claim("x", r#""\ud83d\ude00""#)),
        ),
        accepted(
            "numbers with exponents",
            &peers.token(|draft| draft.claim("exp", "18.000003e8")),
        ),
        refused(
            "claims of another name beside them",
            &peers.token(|draft| draft.claim("iss", "\"x\"").claim("ISS", "\"dpe-dev\"")),
            IssuerMismatch,
        ),
    ]
}
