#![cfg(test)]
//! The laws of `laws/law.rs`, tried on made-up inputs.

use std::net::IpAddr;

use countersign::engine::EngineId;
use countersign::proto::registry as wire;
use countersign::{ModuleKind, Settings};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::sample::{Index, select};
use prost::Message as _;
use prost_types::Timestamp;

#[cfg(feature = "etcd")]
#[path = "laws/etcd_law.rs"]
mod etcd_law;
#[path = "laws/law.rs"]
mod law;

/// What texts of settings are made of.
const PROPERTIES: &[&str] = &[
    "a",
    "a-b",
    "aB",
    "key",
    "é",
    "😀",
    "=",
    ":",
    " ",
    "\t",
    "\u{c}",
    "\\",
    "\\\\",
    "\n",
    "\r",
    "\r\n",
    "#",
    "!",
    "\\\n",
    "\\\r\n",
    "\\\n  ",
    "\\u0041",
    "\\ud83d\\ude00",
    "\\t",
    "\\n",
    "\\=",
    "\\ ",
    "{\"kty\":\"EC\"}",
    "a=b",
    "\n\n",
    "roles[0]",
    "\u{b}",
    "\u{85}",
    "\0",
    "#---\n",
];

/// What texts of several documents are made of.
const DOCUMENTS: &[&str] = &[
    "#---\n",
    "!---\n",
    "#--- \r\n",
    " #---\n",
    "#----\n",
    "# c\n",
    "! c\n",
    "\n",
    "\r\n",
    "a=1\n",
    "b=2\n",
    "b=\\\n",
    "law.key=0\n",
    "=x\n",
    "#---",
    "c",
];

/// What profile expressions are made of.
const EXPRESSIONS: &[&str] = &[
    "a", "b", "prod", "eu-west", " & ", " | ", "&", "|", "!", "(", ")", " ", "((", "!!", "a & b",
    "(a | b)",
];

/// What imports are made of.
const IMPORTS: &[&str] = &[
    "optional:",
    "file:",
    "file:///",
    "configtree:",
    "classpath:",
    "http://",
    "env:",
    "/",
    "./",
    "../",
    "*",
    "/*/",
    "a",
    "b.properties",
    "c.yml",
    "[.properties]",
    "[.yaml]",
    ";",
    ":",
    " ",
    "\0",
    "etc/",
    ".",
    "${x}",
];

/// What JSON and its misspellings are made of.
const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "0",
    "-1",
    "1e400",
    "1.5",
    " ",
    "\n",
    "\0",
    "\u{feff}",
    "é",
    "\"x\":1,",
    "\"kid\":\"k\",",
    "\"alg\":\"ES256\",",
    "\"alg\":\"none\",",
    "\"typ\":\"jwt\",",
    "\"typ\":\"x\",",
    "\"crit\":[],",
    "\"b64\":true,",
    "\"zip\":\"DEF\",",
    "\"d\":\"AAAA\",",
    "\"kty\":\"EC\",",
    "\"use\":\"sig\",",
    "\"use\":\"enc\",",
    "\"key_ops\":[\"verify\"],",
    "\"nbf\":1800000030,",
    "\"nbf\":1800000031,",
    "\"exp\":0,",
    "\"jti\":\"a\",",
    "\"jti\":1,",
    "\"aud\":[\"dpm-dev\"],",
    "\\u0061",
    "\\ud800",
    "A",
    "_",
    "=",
];

const REVOKED_KEYS: &[&str] = &[
    "revoked vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI 2027-01-15T08:00:00Z dpe-dev\n",
    "undone vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI 2027-01-15T08:00:00.250Z -\n",
    "revoked KBv0lrEO88ISAnmwXn6Y5jYjG9TvemuZA0yQlq7QpG0 2027-01-15T08:00:00Z dpe-dev\n",
    "revoked ",
    "undone vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI",
    " ",
    "\n",
    "\r\n",
    "x",
];

fn text(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    vec(select(pieces), 0..most).prop_map(|pieces| pieces.concat())
}

/// `good` with up to three places cut or filled: often still good, or nearly so.
fn spliced(good: String) -> impl Strategy<Value = String> {
    let splice = (any::<Index>(), 0..3_usize, select(JSON));
    vec(splice, 0..4).prop_map(move |splices| {
        let mut characters: Vec<char> = good.chars().collect();
        for (at, cut, filler) in splices {
            let at = at.index(characters.len() + 1);
            let end = characters.len().min(at + cut);
            characters.splice(at..end, filler.chars());
        }
        characters.into_iter().collect()
    })
}

/// A member of the object put somewhere else or left out, and one put in at the start.
fn with_member(good: String) -> impl Strategy<Value = String> {
    let is_member = |piece: &&str| piece.ends_with(',') && piece.contains(':');
    let members: Vec<&str> = JSON.iter().copied().filter(is_member).collect();
    let members = select(members);
    let drop = any::<Option<Index>>();
    (members, any::<bool>(), drop).prop_map(move |(member, put, drop)| {
        let inner = good.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
        let mut members: Vec<&str> = inner.split(",\"").collect();
        if let Some(at) = drop {
            members.remove(at.index(members.len()));
        }
        let member = if put { member } else { "" };
        let rest = members.join(",\"");
        let rest = if rest.starts_with('"') {
            rest
        } else {
            format!("\"{rest}")
        };
        format!("{{{member}{rest}}}")
    })
}

fn near(good: impl Into<String>) -> impl Strategy<Value = String> {
    let good: String = good.into();
    prop_oneof![Just(good.clone()), spliced(good.clone()), with_member(good)]
}

fn header() -> impl Strategy<Value = String> {
    near(format!(
        r#"{{"alg":"ES256","typ":"JWT","kid":"{}"}}"#,
        law::KID
    ))
}

fn claims() -> impl Strategy<Value = String> {
    let times = select(
        &[
            -901_i64, -900, -331, -330, -329, -1, 0, 1, 29, 30, 31, 299, 900, 901,
        ][..],
    );
    (times.clone(), times).prop_flat_map(|(iat, exp)| {
        let now = i64::try_from(law::NOW).unwrap();
        near(format!(
            r#"{{"iss":"dpe-dev","sub":"dpe-dev","aud":"dpm-dev","iat":{},"exp":{}}}"#,
            now + iat,
            now + exp
        ))
    })
}

fn jwk() -> impl Strategy<Value = String> {
    let public = law::KEY.split(",\"d\"").next().unwrap().to_owned() + "}";
    let forms = prop_oneof![near(law::KEY), near(public)];
    (forms, any::<bool>()).prop_map(|(json, escaped)| {
        if escaped {
            json.replace('"', "\\\"")
        } else {
            json
        }
    })
}

/// Values of `authorization`, in which `@` stands for a good token.
fn values() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let pieces: &[&[u8]] = &[
        b"Bearer @",
        b"bearer @",
        b"BEARER",
        b"Bearer",
        b" ",
        b"@",
        b",",
        b"Basic ",
        b"\t",
        b"=",
        b"\xff",
        b";",
        b"Bearer  @",
        b".",
    ];
    vec(
        vec(select(pieces), 0..4).prop_map(|pieces| pieces.concat()),
        0..3,
    )
}

/// Addresses of every range that has a meaning, and any other.
fn ip() -> impl Strategy<Value = IpAddr> {
    let known = [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "0.1.2.3",
        "255.255.255.255",
        "224.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.1.1",
        "8.8.8.8",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2001:db8::1",
        "fd00:ec2::254",
        "64:ff9b::1",
    ];
    let known: Vec<IpAddr> = known.iter().map(|text| text.parse().unwrap()).collect();
    let v4 = any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes()));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes()));
    prop_oneof![select(known), v4, v6]
}

fn hostname() -> impl Strategy<Value = String> {
    let pieces: &[&str] = &[
        "a",
        "host",
        "127",
        "0",
        "1",
        "0x7f",
        "x",
        ".",
        "-",
        "_",
        ":",
        "::",
        "::1",
        "[",
        "]",
        "%",
        "é",
        " ",
        "/",
        "@",
        "255",
        "fe80",
        "ffff",
        "169.254.169.254",
        "localhost",
        "017",
        "2852039166",
        "xn--",
        "A",
        "\0",
        "127.0.0.1",
    ];
    vec(select(pieces.to_vec()), 0..8).prop_map(|pieces| pieces.concat())
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn every_input_that_was_kept_for_fuzzing_obeys_its_law() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut kept = 0;
    for target in std::fs::read_dir(seeds).unwrap() {
        let target = target.unwrap();
        for file in std::fs::read_dir(target.path()).unwrap() {
            let input = std::fs::read(file.unwrap().path()).unwrap();
            law::input(target.file_name().to_str().unwrap(), &input);
            kept += 1;
        }
    }
    assert!(kept >= 12, "{kept} inputs");
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn properties_are_read_as_they_were_written(text in text(PROPERTIES, 24)) {
        law::properties(&text);
    }

    #[test]
    fn revoked_keys_are_read_as_they_were_written(text in text(REVOKED_KEYS, 12)) {
        law::revoked_keys(&text);
    }

    #[cfg(feature = "etcd")]
    #[test]
    fn records_of_etcd_are_believed_as_far_as_they_are_signed(
        status in 1..5,
        port in 1..65_536,
        capability in ".{0,40}",
        junk in vec(any::<u8>(), 0..8),
    ) {
        let engine = wire::Engine {
            id: EngineId::from_random([1; 16]).to_string(),
            address: Some(wire::EngineAddress { hostname: "a".to_owned(), port }),
            constraints: Some(wire::EngineConstraints {
                capabilities: [("a".to_owned(), capability)].into(),
                ..wire::EngineConstraints::default()
            }),
            status,
            registered_at: Some(Timestamp { seconds: 1, nanos: 1 }),
            ..wire::Engine::default()
        };
        let mut bytes = vec![0x0a];
        bytes.extend(engine.encode_length_delimited_to_vec());
        etcd_law::etcd_record(&bytes);
        bytes.extend(&junk);
        etcd_law::etcd_record(&bytes);
        let mut value = vec![0x0a];
        value.extend(bytes.encode_length_delimited_to_vec());
        etcd_law::etcd_record(&value);
        etcd_law::etcd_record(&junk);
    }

    #[test]
    fn records_of_engines_are_written_as_they_were_read(
        id in any::<[u8; 16]>(),
        hostname in text(&["a", ".", "-", "1", "_", "é"], 6),
        port in any::<i32>(),
        status in -1..6,
        seconds in any::<i64>(),
        junk in vec(any::<u8>(), 0..8),
    ) {
        let engine = wire::Engine {
            id: EngineId::from_random(id).to_string(),
            address: Some(wire::EngineAddress { hostname, port }),
            status,
            registered_at: Some(Timestamp { seconds, nanos: 1 }),
            ..wire::Engine::default()
        };
        let mut bytes = vec![0x0a];
        bytes.extend(engine.encode_length_delimited_to_vec());
        law::record(&bytes);
        bytes.extend(&junk);
        law::record(&bytes);
        law::record(&junk);
    }

    #[test]
    fn edits_change_one_value_and_no_other_byte(
        text in text(PROPERTIES, 24),
        key in text(PROPERTIES, 4),
        value in text(PROPERTIES, 6),
    ) {
        law::edit(&text, &key, &value);
    }

    #[test]
    fn removals_take_one_name_and_no_other_byte(
        text in text(PROPERTIES, 24),
        key in select(PROPERTIES),
    ) {
        law::removal(&text, key);
    }

    #[test]
    fn documents_are_parts_of_their_text(text in text(DOCUMENTS, 16)) {
        law::documents(&text);
    }

    #[test]
    fn profile_expressions_mean_what_they_say(text in text(EXPRESSIONS, 12)) {
        law::expression(&text);
    }

    #[test]
    fn imports_lead_to_absolute_paths(text in text(IMPORTS, 8)) {
        law::import(&text);
    }

    #[test]
    fn accepted_addresses_mean_the_same_to_everyone(host in hostname(), port in -1..70_000_i64) {
        law::address(&host, port);
    }

    #[test]
    fn refused_addresses_stay_refused(
        port in select(&[0, 22, 1023, 1024, 8531, 8532, 65535][..]),
        addresses in vec(ip(), 0..4),
        over_loopback in any::<bool>(),
        network in select(&["10.0.0.0/8", "127.0.0.0/8", "0.0.0.0/0", "::/0", "engine.example", "x/"][..]),
    ) {
        law::dial(port, &addresses, over_loopback, network);
    }

    #[test]
    fn tokens_are_spelt_in_one_way(
        header in header(),
        claims in claims(),
        signature in vec(any::<u8>(), 0..66),
        at in any::<Index>(),
        letter in select(&["", "A", "_", "=", ".", "\u{e9}"][..]),
    ) {
        use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
        let [header, claims, signature] = [header.as_bytes(), claims.as_bytes(), &signature]
            .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let mut token = format!("{header}.{claims}.{signature}");
        law::compact(&token);
        token.insert_str(at.index(token.len() + 1), letter);
        law::compact(&token);
    }
}

// Each case signs or checks keys, which takes its time without optimization.
proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn accepted_keys_are_read_as_they_were_written(text in jwk()) {
        law::jwk(&text);
    }

    #[test]
    fn accepted_tokens_obey_the_contract(header in header(), claims in claims()) {
        law::token(header.as_bytes(), claims.as_bytes());
    }

    #[test]
    fn handlers_are_reached_with_one_good_value_only(values in values()) {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        law::metadata(&values);
    }
}

/// What loading `text` takes, counted in looks at entries and at parts of names.
fn steps(text: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("application.properties");
    std::fs::write(&file, text).unwrap();
    let before = countersign::internals::looks();
    Settings::load(&file, &ModuleKind::Dpm, Vec::new(), &[]).unwrap_err();
    countersign::internals::looks() - before
}

/// A line of a file, or a few, by its number.
type Line = fn(usize) -> String;

/// Whatever a file is made of, finding out what is wrong with it must not take the square of its size.
#[test]
fn twice_the_text_takes_twice_the_steps() {
    const D: &str = "ataccama.one.platform.deployments";
    let shapes: [(&str, Line); 12] = [
        ("foreign names", |n| format!("a.b{n}=c\n")),
        ("deployments", |n| {
            format!("{D}.d{n}.module=dpe\n{D}.d{n}.security.roles[0]=A\n")
        }),
        ("names of no deployment", |n| {
            format!("countersign.deployments.d{n}.allow-low-ports=true\n")
        }),
        ("connections", |n| {
            format!(
                "ataccama.client.connection.c{n}.host=h\n\
                 countersign.client.connection.c{n}.deployment=d\n"
            )
        }),
        ("connections that name no deployment", |n| {
            format!("ataccama.client.connection.c{n}.host=h\n")
        }),
        ("connections with TLS", |n| {
            format!(
                "ataccama.client.connection.c{n}.host=h\n\
                 ataccama.client.connection.c{n}.grpc.port=1\n\
                 ataccama.client.connection.c{n}.grpc.tls.enabled=true\n"
            )
        }),
        ("placeholders", |n| {
            format!("a{n}=1\nspring.profiles.group.g{n}=${{a{n}}}\n")
        }),
        ("lists of placeholders", |n| {
            format!("a{n}=h\ncountersign.http.allowed-hosts[{n}]=${{a{n}}}\n")
        }),
        ("documents", |n| format!("#---\nserver.port={n}\n")),
        ("keys with broken quotes", |n| {
            format!("{D}.d{n}.security.jwt-keys.key.content={{kty\":\"EC\"\n")
        }),
        ("broken lines", |n| {
            format!("{D}.d{n}.security.jwt-keys.key.content={{\n\"kty{n}\"\n")
        }),
        ("lost lines", |n| format!("a{n}=\\\nserver.port={n}\n")),
    ];
    for (what, line) in shapes {
        let [once, twice] =
            [500, 1000].map(|count| steps(&(0..count).map(line).collect::<String>()));
        assert!(once > 500, "{what}: {once} steps");
        assert!(twice < once * 9 / 4, "{what}: {once} steps, then {twice}");
    }
}
