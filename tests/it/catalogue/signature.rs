//! 2.4: the 64 bytes of the signature.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use countersign::Reason::{SignatureInvalid, TokenMalformed};
use countersign::jose::SigningKey;
use p256::ecdsa::Signature;
use p256::pkcs8::DecodePrivateKey as _;

use super::peers::{NOW, Peers};
use super::row::{Row, accepted, refused};
use crate::support::draft::{decode, encode, hex, parts, sign, with_signature};

type Half = [u8; 32];

/// The order of the group.
const N: Half = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const ZERO: Half = [0; 32];
const MAX: Half = [0xff; 32];

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let good = Good::of(peers);
    let mut rows = lengths(&good);
    rows.extend(grid(&good));
    rows.extend(other_encodings(&good));
    rows.extend(other_numbers(peers, &good));
    rows.extend(other_keys(peers, &good));
    rows.extend(altered(peers, &good));
    rows.extend(mirrored(&good));
    rows
}

/// A good token, with its signature apart.
struct Good {
    token: String,
    input: String,
    r: Half,
    s: Half,
}

impl Good {
    fn of(peers: &Peers) -> Self {
        let token = peers.good();
        let (input, signature) = token.rsplit_once('.').unwrap();
        let signature = decode(signature);
        let (r, s) = signature.split_at(32);
        Self {
            input: input.to_owned(),
            r: r.try_into().unwrap(),
            s: s.try_into().unwrap(),
            token,
        }
    }

    fn signature(&self) -> Vec<u8> {
        [self.r, self.s].concat()
    }

    fn ecdsa(&self) -> Signature {
        Signature::from_slice(&self.signature()).unwrap()
    }

    /// The token with another signature, which must be refused.
    fn refused(&self, name: impl Into<String>, signature: &[u8]) -> Row {
        let token = with_signature(&self.input, signature);
        refused(name, &token, SignatureInvalid)
    }
}

fn lengths(good: &Good) -> Vec<Row> {
    let signature = good.signature();
    let zero = [0_u8];
    let padded = [&zero, good.r.as_slice(), &zero, good.s.as_slice()].concat();
    let mut random = [0; 64];
    getrandom::fill(&mut random).unwrap();
    let mut rows = vec![
        good.refused("empty", b""),
        good.refused("1 byte", &signature[..1]),
        good.refused("32 bytes", &signature[..32]),
        good.refused("63 bytes", &signature[..63]),
        good.refused("63 bytes, the first one gone", &signature[1..]),
        good.refused(
            "65 bytes, a zero before",
            &[&zero, signature.as_slice()].concat(),
        ),
        good.refused(
            "65 bytes, a zero after",
            &[signature.as_slice(), &zero].concat(),
        ),
        good.refused("66 bytes, each half padded", &padded),
        good.refused("96 bytes", &[signature.as_slice(), &[0; 32]].concat()),
        good.refused("128 bytes, the signature twice", &signature.repeat(2)),
        good.refused("512 bytes", &signature.repeat(8)),
        good.refused("5000 bytes", &vec![7; 5000]),
        good.refused("64 random bytes", &random),
        good.refused("64 zeros", &[0; 64]),
    ];
    let large = with_signature(&good.input, &vec![7; 6000]);
    rows.push(refused("6000 bytes: over 8 KiB", &large, TokenMalformed));
    rows
}

/// Every value at the edges of the range, each with each; r = s = 0 is CVE-2022-21449.
fn grid(good: &Good) -> Vec<Row> {
    let one = add(&ZERO, 1);
    let edges = [
        ("0", ZERO),
        ("1", one),
        ("n-1", subtract(&N, &one)),
        ("n", N),
        ("n+1", add(&N, 1)),
        ("2^256-1", MAX),
    ];
    let mut rows = Vec::new();
    for (r_name, r) in edges {
        for (s_name, s) in edges {
            rows.push(good.refused(format!("r {r_name}, s {s_name}"), &[r, s].concat()));
        }
        let with_s = [r, good.s].concat();
        let with_r = [good.r, r].concat();
        rows.push(good.refused(format!("r {r_name}, s right"), &with_s));
        rows.push(good.refused(format!("r right, s {r_name}"), &with_r));
    }
    rows
}

fn other_encodings(good: &Good) -> Vec<Row> {
    let signature = good.signature();
    let der = good.ecdsa().to_der();
    let backward = |half: Half| -> Half {
        let mut half = half;
        half.reverse();
        half
    };
    vec![
        good.refused("DER", der.as_bytes()),
        good.refused("DER of 64 bytes", &cut_to_64(der.as_bytes())),
        good.refused("DER of zeros", &[0x30, 6, 2, 1, 0, 2, 1, 0]),
        good.refused("halves swapped", &[good.s, good.r].concat()),
        good.refused("r twice", &[good.r, good.r].concat()),
        good.refused("s twice", &[good.s, good.s].concat()),
        good.refused(
            "little-endian halves",
            &[backward(good.r), backward(good.s)].concat(),
        ),
        good.refused(
            "backward",
            &signature.iter().rev().copied().collect::<Vec<_>>(),
        ),
        good.refused(
            "recoverable, 65 bytes",
            &[signature.as_slice(), &[27]].concat(),
        ),
        good.refused("hexadecimal text", hex(&signature).as_bytes()),
        good.refused("base64url twice", encode(&signature).as_bytes()),
        good.refused(
            "base64 and base64url",
            BASE64_STANDARD.encode(&signature).as_bytes(),
        ),
    ]
}

fn cut_to_64(der: &[u8]) -> Vec<u8> {
    der.iter().copied().chain([0; 64]).take(64).collect()
}

fn other_numbers(peers: &Peers, good: &Good) -> Vec<Row> {
    let x: Half = decode(&peers.caller.key.verifying_key().x())
        .try_into()
        .unwrap();
    let plus_n = |half: &Half| {
        let mut sum = [0_u8; 33];
        let mut carry = 0;
        for at in (0..32).rev() {
            let digit = u16::from(half[at]) + u16::from(N[at]) + carry;
            sum[at + 1] = digit.to_be_bytes()[1];
            carry = digit >> 8;
        }
        sum[0] = u8::try_from(carry).unwrap();
        sum
    };
    let zero = [0_u8];
    let mut rows = vec![
        good.refused(
            "r+n in 33 bytes",
            &[plus_n(&good.r).as_slice(), &good.s].concat(),
        ),
        good.refused(
            "s+n in 33 bytes",
            &[good.r.as_slice(), &plus_n(&good.s)].concat(),
        ),
        good.refused(
            "r+n and s, 33 bytes each",
            &[plus_n(&good.r).as_slice(), &zero, &good.s].concat(),
        ),
        good.refused("s+1", &[good.r, add(&good.s, 1)].concat()),
        good.refused("r+1", &[add(&good.r, 1), good.s].concat()),
        good.refused("n-r", &[subtract(&N, &good.r), good.s].concat()),
        good.refused(
            "n-r and n-s",
            &[subtract(&N, &good.r), subtract(&N, &good.s)].concat(),
        ),
        good.refused("r and s are Q.x", &[x, x].concat()),
    ];
    for bit in [0, 127, 128, 255, 256, 383, 384, 511] {
        let mut signature = good.signature();
        signature[bit / 8] ^= 0x80 >> (bit % 8);
        rows.push(good.refused(format!("bit {bit} flipped"), &signature));
    }
    rows
}

fn other_keys(peers: &Peers, good: &Good) -> Vec<Row> {
    let [header, payload, _] = parts(&good.token);
    let payload_text = String::from_utf8(decode(payload)).unwrap();
    let header_text = String::from_utf8(decode(header)).unwrap();
    let over = |message: &str| peers.caller.key.sign(message.as_bytes()).unwrap();
    let transplanted = peers.token(|draft| draft.claim("jti", "\"another\""));
    vec![
        refused(
            "a stranger's key under a trusted kid",
            &peers.draft().sign(&peers.stranger.key),
            SignatureInvalid,
        ),
        refused(
            "the callee's key under a trusted kid",
            &peers.draft().sign(&peers.own.key),
            SignatureInvalid,
        ),
        good.refused("taken from another token", &decode(parts(&transplanted)[2])),
        good.refused("over the payload alone", &over(payload)),
        good.refused("over the header alone", &over(header)),
        good.refused(
            "over the decoded text",
            &over(&format!("{header_text}.{payload_text}")),
        ),
        good.refused("over nothing", &over("")),
        good.refused(
            "over the input and a dot",
            &over(&format!("{}.", good.input)),
        ),
    ]
}

/// A good token of which something was changed afterwards.
fn altered(peers: &Peers, good: &Good) -> Vec<Row> {
    let draft = peers.draft();
    let signature = good.signature();
    let token = |input: String| with_signature(&input, &signature);
    let other = format!("\"{}\"", peers.other.issuer());
    let drafts = [
        ("exp", draft.clone().claim("exp", (NOW + 600).to_string())),
        ("sub", draft.clone().claim("sub", &other)),
        ("iss", draft.clone().claim("iss", &other)),
        ("aud", draft.clone().claim("aud", "\"x\"")),
        ("jti", draft.clone().claim("jti", "\"b\"")),
        ("roles added", draft.clone().claim("roles", "[\"ADMIN\"]")),
        ("typ", draft.clone().header("typ", "\"jwt\"")),
        ("member of the header added", draft.clone().header("x", "1")),
        ("order of the claims", draft.clone().reversed()),
    ];
    let mut rows: Vec<_> = drafts
        .map(|(name, draft)| {
            refused(
                format!("altered: {name}"),
                &token(draft.input()),
                SignatureInvalid,
            )
        })
        .into();
    let spaced = format!(
        "{}.{}",
        encode(draft.header_text()),
        encode(draft.claims_text().replace(':', ": "))
    );
    rows.push(refused(
        "altered: spaces in the payload",
        &token(spaced),
        SignatureInvalid,
    ));
    // Signed by a trusted key, under the kid of another one.
    let borrowed = sign(draft.header_text(), draft.claims_text(), &peers.other.key);
    rows.push(refused(
        "another trusted deployment's key",
        &borrowed,
        SignatureInvalid,
    ));
    rows
}

/// Half of all signers emit the high one of the two values of s.
fn mirrored(good: &Good) -> [Row; 3] {
    let other = subtract(&N, &good.s);
    let (low, high) = if good.s < other {
        (good.s, other)
    } else {
        (other, good.s)
    };
    let token = |s: Half| with_signature(&good.input, &[good.r, s].concat());
    [
        accepted("control", &good.token),
        accepted("low s", &token(low)),
        accepted("high s", &token(high)),
    ]
}

fn add(number: &Half, small: u8) -> Half {
    let mut sum = *number;
    let mut carry = small;
    for byte in sum.iter_mut().rev() {
        let (digit, over) = byte.overflowing_add(carry);
        *byte = digit;
        carry = u8::from(over);
    }
    sum
}

fn subtract(from: &Half, number: &Half) -> Half {
    let mut difference = [0; 32];
    let mut borrow = 0;
    for at in (0..32).rev() {
        let digit = i16::from(from[at]) - i16::from(number[at]) - borrow;
        borrow = i16::from(digit < 0);
        difference[at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    difference
}

/// The same key for the library that signs whatever it is given.
pub(super) fn ecdsa_key(key: &SigningKey) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_pkcs8_der(key.to_pkcs8_der().expose()).unwrap()
}
