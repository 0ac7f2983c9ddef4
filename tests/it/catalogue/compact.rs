//! 2.2: the compact form, and the JSON of the header. The payload's JSON is in `payload`.

use countersign::Reason::{AlgorithmNotAllowed, SignatureInvalid, TokenMalformed};

use super::payload::spoilt;
use super::peers::Peers;
use super::row::{Row, accepted, refused};
use crate::support::draft::{encode, parts, sign, sign_parts};

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let mut rows = dots(peers);
    rows.extend(encodings(peers));
    rows.extend(other_serializations(peers));
    rows.extend(sizes(peers));
    rows.extend(headers(peers));
    rows.extend(good(peers));
    rows
}

fn dots(peers: &Peers) -> Vec<Row> {
    let token = peers.good();
    let [header, payload, signature] = parts(&token);
    let key = &peers.caller.key;
    let malformed = [
        ("one part", header.to_owned()),
        ("two parts", format!("{header}.{payload}")),
        (
            "two parts and a dot before",
            format!(".{header}.{payload}x."),
        ),
        ("four parts", format!("{token}.{signature}")),
        ("four parts, the last empty", format!("{token}.")),
        ("five parts", format!("{token}.a.b")),
        ("leading dot", format!(".{token}")),
        (
            "two dots together",
            format!("{header}..{payload}.{signature}"),
        ),
        ("two dots alone", "..".to_owned()),
        ("4000 dots", ".".repeat(4000)),
        ("empty header", format!(".{payload}.{signature}")),
        ("empty header, signed", sign_parts("", payload, key)),
        ("empty payload, signed", sign_parts(header, "", key)),
    ];
    let malformed = malformed.map(|(name, token)| refused(name, &token, TokenMalformed));
    let invalid = [
        ("two parts and a dot", format!("{header}.{payload}.")),
        ("empty payload", format!("{header}..{signature}")),
        ("all parts but the header empty", format!("{header}..")),
    ];
    let invalid = invalid.map(|(name, token)| refused(name, &token, SignatureInvalid));
    malformed.into_iter().chain(invalid).collect()
}

/// Other spellings of base64url, in each part; header and payload also signed as they are.
fn encodings(peers: &Peers) -> Vec<Row> {
    let key = &peers.caller.key;
    let draft = peers.draft();
    // Texts of 1 mod 3 bytes, so that padding and unused bits are there to spoil.
    let [header, payload] =
        [draft.header_text(), draft.claims_text()].map(|text| encode(of_length_1_mod_3(text)));
    // Its text has characters that the two alphabets spell differently.
    let marks = peers.draft().claim("x", "\"??????~~~~~~\"");
    let [_, marked] = [draft.header_text(), marks.claims_text()].map(encode);
    assert!(marked.contains('_') && marked.contains('-'));
    let standard = marked.replace('_', "/").replace('-', "+");
    let good = sign_parts(&header, &payload, key);
    let (input, signature) = good.rsplit_once('.').unwrap();
    let signature_of = |spoil: fn(&str) -> String| format!("{input}.{}", spoil(signature));
    let mut rows = vec![accepted("padding-prone control", &good)];
    for (name, spoil) in SPOILS {
        let spoilt = [
            ("header", sign_parts(&spoil(&header), &payload, key)),
            ("payload", sign_parts(&header, &spoil(&payload), key)),
            ("signature", signature_of(*spoil)),
        ];
        for (part, token) in spoilt {
            rows.push(refused(format!("{part}: {name}"), &token, TokenMalformed));
        }
    }
    let unsigned = [
        ("header", format!("{header}==.{payload}.{signature}")),
        ("payload", format!("{header}.{payload}==.{signature}")),
    ];
    rows.extend(unsigned.map(|(part, token)| {
        refused(
            format!("{part}: padding added later"),
            &token,
            TokenMalformed,
        )
    }));
    let standard = sign_parts(&header, &standard, key);
    rows.push(refused("standard alphabet", &standard, TokenMalformed));
    rows
}

type Spoil = fn(&str) -> String;

const SPOILS: &[(&str, Spoil)] = &[
    ("padding", |part| format!("{part}==")),
    ("one sign of padding", |part| format!("{part}=")),
    ("space before", |part| format!(" {part}")),
    ("space within", |part| {
        format!("{} {}", &part[..20], &part[20..])
    }),
    ("space after", |part| format!("{part} ")),
    ("bad character", |part| {
        format!("{}*{}", &part[..20], &part[21..])
    }),
    ("hash after", |part| format!("{part}#")),
    ("a character too few", |part| {
        part[..part.len() - 1].to_owned()
    }),
    ("unused bits set", |part| {
        let (start, last) = part.split_at(part.len() - 1);
        let next = char::from(last.as_bytes()[0] + 1);
        format!("{start}{next}")
    }),
];

/// Adds spaces until encoding leaves one byte over.
fn of_length_1_mod_3(mut text: String) -> String {
    while text.len() % 3 != 1 {
        text.push(' ');
    }
    text
}

fn other_serializations(peers: &Peers) -> Vec<Row> {
    let token = peers.good();
    let [header, payload, signature] = parts(&token);
    let flattened =
        format!(r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#);
    let general = format!(
        r#"{{"payload":"{payload}","signatures":[{{"protected":"{header}","signature":"{signature}"}}]}}"#
    );
    vec![
        refused("JSON, flattened", &flattened, TokenMalformed),
        refused("JSON, general", &general, TokenMalformed),
        refused(
            "detached payload",
            &format!("{header}..{signature}"),
            SignatureInvalid,
        ),
    ]
}

/// The contract's bound is 8 KiB; what is larger is not taken apart.
fn sizes(peers: &Peers) -> Vec<Row> {
    let of_length = |length: usize| {
        let fill =
            |n: usize| peers.token(|draft| draft.claim("x", format!("\"{}\"", "x".repeat(n))));
        // Four characters carry three.
        let mut filler = (length - fill(0).len()) * 3 / 4 - 3;
        while fill(filler).len() < length {
            filler += 1;
        }
        fill(filler)
    };
    let (most, more) = (of_length(8191), of_length(8193));
    assert!(most.len() <= 8192 && more.len() > 8192);
    vec![
        accepted("8 KiB", &most),
        refused("over 8 KiB", &more, TokenMalformed),
        refused("10 kB", &of_length(10_000), TokenMalformed),
        refused("10 kB of letters", &"a".repeat(10_000), TokenMalformed),
    ]
}

fn headers(peers: &Peers) -> Vec<Row> {
    let key = &peers.caller.key;
    let header = peers.draft().header_text();
    let payload = peers.draft().claims_text();
    let kinds = [
        ("text", "\"ES256\""),
        ("bare text", "ES256"),
        ("array", "[]"),
        ("null", "null"),
        ("number", "1"),
        ("true", "true"),
        ("only spaces", "  "),
    ];
    let kinds = kinds.map(|(name, json)| (name.to_owned(), json.as_bytes().to_vec()));
    let (kid, other) = (&peers.caller.key_id, &peers.other.key_id);
    let twice = [
        ("alg", r#""ES256""#.to_owned()),
        ("alg", r#""none""#.to_owned()),
        ("kid", format!("\"{kid}\"")),
        ("kid", format!("\"{other}\"")),
        ("typ", r#""JWT""#.to_owned()),
        (r"\u0061lg", r#""none""#.to_owned()),
    ];
    let twice = twice.into_iter().flat_map(|(name, json)| {
        let first = header.replacen('{', &format!(r#"{{"{name}":{json},"#), 1);
        let last = header.replacen('}', &format!(r#","{name}":{json}}}"#), 1);
        [
            (format!("{name}:{json} first too"), first.into_bytes()),
            (format!("{name}:{json} last too"), last.into_bytes()),
        ]
    });
    let rows = kinds.into_iter().chain(twice).chain(spoilt(&header));
    let rows = rows.map(|(name, header)| {
        let token = sign(header, &payload, key);
        refused(format!("header: {name}"), &token, TokenMalformed)
    });
    let empty = sign("{}", &payload, key);
    let empty = refused("header: empty object", &empty, AlgorithmNotAllowed);
    rows.chain([empty]).collect()
}

fn good(peers: &Peers) -> [Row; 4] {
    let key = &peers.caller.key;
    let (header, payload) = (peers.draft().header_text(), peers.draft().claims_text());
    let spaced = |text: &str| format!(" {}\r\n", text.replace(',', " ,\n\t"));
    let extra = peers.token(|draft| {
        draft
            .header("x", r#"{"a":[1,null]}"#)
            .header("é", "\"é😀\"")
    });
    [
        accepted("control", &peers.good()),
        accepted(
            "white space in the header",
            &sign(spaced(&header), &payload, key),
        ),
        accepted("more members in the header", &extra),
        accepted(
            "members in another order",
            &peers.draft().reversed().sign(key),
        ),
    ]
}
