//! What we accept, PyJWT and jose accept too: tokens put together at random and properly signed,
//! some of them altered afterwards.

use countersign::Module;
use countersign::clock::{Clock as _, SystemClock};
use countersign::jose::SigningKey;
use countersign::testing;
use countersign::token::Accept;
use countersign::trust::OwnDeployment;
use serde_json::json;

use super::peer::{JOSE, PYJWT, Peer};
use crate::support::draft::{Draft, decode, encode, sign, text};

const TOKENS: u64 = 2000;

#[test]
fn pyjwt_accepts_whatever_we_accept() {
    if PYJWT.is_there() {
        agrees_with_us(&PYJWT);
    }
}

#[test]
fn jose_accepts_whatever_we_accept() {
    if JOSE.is_there() {
        agrees_with_us(&JOSE);
    }
}

fn agrees_with_us(peer: &Peer) {
    let theirs = testing::own_deployment("dpe", "dpe-dev");
    let ours = super::module_that_trusts(&theirs);
    let verifier = ours.verifier();
    let mut accepted = Vec::new();
    for seed in 0..TOKENS {
        let token = Choices(seed).token(&ours, &theirs);
        if verifier.verify(&token, Accept::Peers).is_ok() {
            accepted.push(token);
        }
    }
    // Neither all nor nothing.
    let enough = 100..usize::try_from(TOKENS).unwrap() - 100;
    assert!(enough.contains(&accepted.len()), "{}", accepted.len());
    let key = super::public_forms(&theirs.key)[0].clone();
    let names = |own: &OwnDeployment| json!([own.issuer(), own.fingerprint().to_string()]);
    let requests = accepted.iter().map(|token| {
        json!({ "key": key, "token": token, "issuer": names(&theirs), "audience": names(&ours.own()) })
    });

    let answers = peer.ask("accepts", &requests.collect::<Vec<_>>());

    assert_eq!(answers.len(), accepted.len());
    for (token, answer) in accepted.iter().zip(answers) {
        assert_eq!(answer, json!({}), "{token}");
    }
}

/// Decisions, the same at every run.
struct Choices(u64);

impl Choices {
    fn below(&mut self, limit: usize) -> usize {
        // SplitMix64: every seed, 0 as well, gives another sequence.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap() % limit
    }

    fn token(&mut self, ours: &Module, theirs: &OwnDeployment) -> String {
        let mut draft = good(ours, theirs);
        for _ in 0..self.below(2) {
            let (name, json) = HEADERS[self.below(HEADERS.len())];
            draft = draft.header(name, json);
        }
        let claims = claims(ours, theirs);
        for _ in 0..self.below(3) {
            let (name, json) = &claims[self.below(claims.len())];
            draft = draft.claim(name, json);
        }
        if self.below(12) == 0 {
            let names = ["iss", "sub", "aud", "exp", "iat", "jti"];
            draft = draft.without(names[self.below(names.len())]);
        }
        if self.below(4) == 0 {
            draft = draft.reversed();
        }
        let [header, payload] = [draft.header_text(), draft.claims_text()]
            .map(|json| SPELLINGS[self.below(SPELLINGS.len())](json));
        let token = sign(header, payload, &theirs.key);
        match self.below(12) {
            0 => self.altered(&token),
            1 => mirrored(&token),
            2 => sign(
                draft.header_text(),
                draft.claims_text(),
                &SigningKey::generate().unwrap(),
            ),
            _ => token,
        }
    }

    /// Changes one character for another of the alphabet.
    fn altered(&mut self, token: &str) -> String {
        let at = self.below(token.len());
        let letter = char::from(b'a' + u8::try_from(self.below(26)).unwrap());
        let letters = token.chars().enumerate();
        letters
            .map(|(n, c)| if n == at { letter } else { c })
            .collect()
    }
}

/// What may stand in a header, for better or worse.
const HEADERS: [(&str, &str); 16] = [
    ("typ", "\"jwt\""),
    ("typ", "\"Jwt\""),
    ("typ", "\"at+jwt\""),
    ("typ", "null"),
    ("cty", "\"JSON\""),
    ("jku", "\"http://127.0.0.1:9/\""),
    ("x5c", "[\"garbage\"]"),
    ("jwk", "{\"kty\":\"oct\",\"k\":\"AAAA\"}"),
    ("enc", "\"A256GCM\""),
    ("crit", "[\"exp\"]"),
    ("b64", "true"),
    ("zip", "\"DEF\""),
    ("alg", "\"ES384\""),
    ("kid", "\"unknown\""),
    ("é😀", "[1,{\"a\":null}]"),
    ("iss", "1"),
];

fn good(ours: &Module, theirs: &OwnDeployment) -> Draft {
    let now = now();
    let name = text(theirs.issuer());
    Draft::new(
        &[
            ("alg", text("ES256")),
            ("kid", text(theirs.key_id.as_str())),
        ],
        &[
            ("iss", name.clone()),
            ("sub", name),
            ("aud", text(&ours.own().fingerprint().to_string())),
            ("iat", now.to_string()),
            ("exp", (now + 300).to_string()),
            ("jti", text("a")),
        ],
    )
}

/// What may stand among the claims, for better or worse. Times keep their distance from edges,
/// since the peers ask their own clocks, later.
fn claims(ours: &Module, theirs: &OwnDeployment) -> Vec<(&'static str, String)> {
    let now = now();
    let (name, hash) = (
        text(ours.own().issuer()),
        text(&ours.own().fingerprint().to_string()),
    );
    let (their_name, kid) = (text(theirs.issuer()), text(theirs.key_id.as_str()));
    let mut claims = vec![
        ("aud", name.clone()),
        ("aud", format!("[{name}]")),
        ("aud", format!("[\"a\",{name},\"b\"]")),
        ("aud", format!("[{hash},{hash}]")),
        ("aud", format!("[{name},1]")),
        ("aud", "[]".to_owned()),
        ("aud", "{}".to_owned()),
        ("iss", kid.clone()),
        ("sub", kid),
        ("iss", format!("[{their_name}]")),
        ("iss", "\"dpe\"".to_owned()),
        ("sub", "1".to_owned()),
        ("jti", text(&"é".repeat(128))),
        ("jti", text(&"é".repeat(129))),
        ("jti", "1".to_owned()),
    ];
    for (from, to) in [
        (0, 880),
        (-300, 500),
        (0, 920),
        (0, 100_000),
        (-200, -100),
        (120, 400),
    ] {
        claims.push(("iat", (now + from).to_string()));
        claims.push(("exp", (now + to).to_string()));
        claims.push(("exp", format!("{}.75", now + to)));
        claims.push(("nbf", (now + from).to_string()));
        claims.push(("nbf", format!("{}.25", now - 60 + from)));
    }
    for json in [
        "null", "true", "\"1\"", "-1", "0", "1e308", "1e400", "NaN", "[]", "-0.0",
    ] {
        for name in ["exp", "nbf", "iat", "x"] {
            claims.push((name, json.to_owned()));
        }
    }
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    for json in [
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "{\"iss\":\"x\"}",
        "\"é\"",
        &nested,
    ] {
        claims.push(("x", json.to_owned()));
    }
    claims
}

/// Ways to write the same object, for better or worse.
const SPELLINGS: [fn(String) -> String; 8] = [
    |json| json,
    |json| json,
    |json| json,
    |json| format!(" {json}\n"),
    |json| json.replace(',', "\t,\r\n "),
    |json| {
        json.replace("\"iss\"", r#""\u0069ss""#)
            .replace("\"alg\"", r#""\u0061lg""#)
    },
    |json| json.replacen('{', "{\"x\":1,\"x\":2,", 1),
    |json| json.replace('}', ",}"),
];

/// The other valid signature: n - s for s.
fn mirrored(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = p256::ecdsa::Signature::from_slice(&decode(signature)).unwrap();
    let (r, s) = signature.split_scalars();
    let mirrored = p256::ecdsa::Signature::from_scalars(r, -*s).unwrap();
    format!("{input}.{}", encode(mirrored.to_bytes()))
}

/// Whole seconds since 1970.
fn now() -> i64 {
    let since = SystemClock.now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}
