//! The catalogue's rows about keys, 2.10: one bad file each, and the one code that it has.

use super::*;

/// A key as a JWK whose members are changed one by one.
pub(super) struct Jwk {
    members: Vec<(&'static str, String)>,
}

impl Jwk {
    /// The public half of `key`.
    pub(super) fn public(key: &SigningKey) -> Self {
        let public = key.verifying_key();
        let text = |text: &str| format!("\"{text}\"");
        let members = vec![
            ("kty", text("EC")),
            ("crv", text("P-256")),
            ("kid", text(kid(key).as_str())),
            ("x", text(&public.x())),
            ("y", text(&public.y())),
            ("alg", text("ES256")),
        ];
        Self { members }
    }

    /// The same with `d`.
    pub(super) fn private(key: &SigningKey) -> Self {
        let jwk: serde_json::Value =
            serde_json::from_str(PrivateJwk::write(key, &kid(key)).expose()).unwrap();
        Self::public(key).with("d", jwk["d"].to_string())
    }

    pub(super) fn with(mut self, name: &'static str, json: impl Into<String>) -> Self {
        let json = json.into();
        match self.members.iter_mut().find(|(member, _)| *member == name) {
            Some((_, value)) => *value = json,
            None => self.members.push((name, json)),
        }
        self
    }

    fn twice(mut self, name: &'static str) -> Self {
        let member = self.members.iter().find(|(member, _)| *member == name);
        self.members.push(member.unwrap().clone());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.members.retain(|(member, _)| *member != name);
        self
    }

    pub(super) fn text(&self) -> String {
        let members = self.members.iter();
        let members: Vec<_> = members.map(|(n, v)| format!("\"{n}\":{v}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// A file that trusts one key, `content` under `fingerprint`.
fn trusting(content: &str, fingerprint: &str) -> String {
    let jwt_key = format!("{D}.dpe-dev.security.jwt-keys.key");
    format!(
        "{}{D}.dpe-dev.module=dpe\n{D}.dpe-dev.security.roles=IMPERSONATION\n\
         {jwt_key}.fingerprint={fingerprint}\n{jwt_key}.content={content}\n",
        own_line(&key()),
    )
}

pub(super) fn b64(bytes: &[u8]) -> String {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn decoded(text: &str) -> Vec<u8> {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
    let bytes = digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]);
    bytes.map(|byte| u8::try_from(byte).unwrap()).collect()
}

/// The field's prime and the group's order.
const P: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
pub(super) const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// Coordinates that are none, or none of this key.
fn coordinates(peer: &SigningKey) -> Vec<(&'static str, Jwk)> {
    let mut rows = wrong_bytes(peer);
    rows.extend(wrong_texts(peer));
    rows
}

/// Coordinates whose bytes are no point of the curve, or too many or too few.
fn wrong_bytes(peer: &SigningKey) -> Vec<(&'static str, Jwk)> {
    let key = peer.verifying_key();
    let (x, y) = (decoded(&key.x()), decoded(&key.y()));
    let both = [x.as_slice(), &y].concat();
    let mut moved = y.clone();
    moved[31] ^= 1;
    let with_x = |bytes: &[u8]| Jwk::public(peer).with("x", b64(bytes));
    let with_y = |bytes: &[u8]| Jwk::public(peer).with("y", b64(bytes));
    vec![
        ("off the curve", with_y(&moved)),
        ("(0, 0)", with_x(&[0; 32]).with("y", b64(&[0; 32]))),
        ("x empty", with_x(&[])),
        ("y empty", with_y(&[])),
        ("x = p", with_x(&hex(P))),
        ("x + p in 33 bytes", with_x(&[&[1], x.as_slice()].concat())),
        ("x = 2^256 - 1", with_x(&[0xff; 32])),
        ("x of 31 bytes", with_x(&x[1..])),
        ("x of 33 bytes", with_x(&[&[0], x.as_slice()].concat())),
        ("y of 31 bytes", with_y(&y[..31])),
        ("y of 33 bytes", with_y(&[y.as_slice(), &[0]].concat())),
        (
            "31 and 33 bytes",
            with_x(&both[..31]).with("y", b64(&both[31..])),
        ),
        (
            "33 and 31 bytes",
            with_x(&both[..33]).with("y", b64(&both[33..])),
        ),
        (
            "compressed",
            with_x(&[&[2], x.as_slice()].concat()).without("y"),
        ),
        (
            "uncompressed point as x",
            with_x(&[&[4], both.as_slice()].concat()),
        ),
    ]
}

/// Coordinates that are no canonical base64url strings, or not where they belong.
fn wrong_texts(peer: &SigningKey) -> Vec<(&'static str, Jwk)> {
    let jwk = || Jwk::public(peer);
    let text = |text: &str| format!("\"{text}\"");
    let (x, y) = (peer.verifying_key().x(), peer.verifying_key().y());
    let standard = format!("{}/", x.replace(['-', '_'], "+").split_at(42).0);
    let trailing = format!("{}B", x.split_at(42).0);
    vec![
        ("x missing", jwk().without("x")),
        ("y missing", jwk().without("y")),
        ("swapped", jwk().with("x", text(&y)).with("y", text(&x))),
        ("x a number", jwk().with("x", "1")),
        ("x null", jwk().with("x", "null")),
        ("x an array", jwk().with("x", "[]")),
        ("standard alphabet", jwk().with("x", text(&standard))),
        ("padded", jwk().with("x", text(&format!("{x}=")))),
        ("space", jwk().with("x", text(&format!("{x} ")))),
        ("hexadecimal", jwk().with("x", text(&"7f".repeat(32)))),
        ("trailing bits", jwk().with("x", text(&trailing))),
    ]
}

/// Members that say that it is another kind of key, or for another use.
fn members(peer: &SigningKey) -> Vec<(String, Jwk)> {
    let rows = [
        (
            "crv",
            &[
                "\"P-384\"",
                "\"P-521\"",
                "\"secp256k1\"",
                "\"p-256\"",
                "\"prime256v1\"",
                "\"\"",
                "null",
                "\"Ed25519\"",
            ][..],
        ),
        ("kty", &["\"RSA\"", "\"oct\"", "\"OKP\"", "\"ec\"", "null"]),
        (
            "alg",
            &[
                "\"ES384\"",
                "\"HS256\"",
                "\"none\"",
                "\"ECDH-ES\"",
                "null",
                "\"es256\"",
            ],
        ),
        ("use", &["\"enc\"", "1", "null", "\"\""]),
        (
            "key_ops",
            &["[\"sign\"]", "[\"encrypt\"]", "[]", "\"verify\"", "null"],
        ),
        ("kid", &["1", "null", "\"\"", "{}"]),
    ];
    let changed = rows.into_iter().flat_map(|(name, values)| {
        values.iter().map(move |json| {
            (
                format!("{name} {json}"),
                Jwk::public(peer).with(name, *json),
            )
        })
    });
    let missing = ["crv", "kty"];
    let missing = missing.map(|name| (format!("{name} missing"), Jwk::public(peer).without(name)));
    let twice = ["x", "kty", "kid"];
    let twice = twice.map(|name| (format!("{name} twice"), Jwk::public(peer).twice(name)));
    let long = format!("\"{}\"", "k".repeat(5000));
    let long = (
        "kid of 5000 characters".to_owned(),
        Jwk::public(peer).with("kid", long),
    );
    let control = Jwk::public(peer).with("kid", r#""a\\u0001b""#);
    let control = ("kid with a control character".to_owned(), control);
    changed
        .chain(missing)
        .chain(twice)
        .chain([long, control])
        .collect()
}

#[test]
fn content_that_is_no_public_key_is_refused() {
    let peer = key();
    let good = Jwk::public(&peer).text();
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let texts = [
        ("trailing garbage", format!("{good}x")),
        ("two objects", good.repeat(2)),
        ("array", format!("[{good}]")),
        ("key set", format!("{{\"keys\":[{good}]}}")),
        ("text", "\"EC\"".to_owned()),
        ("null", "null".to_owned()),
        ("single quotes", good.replace('"', "'")),
        ("unquoted", good.replace('"', "")),
        (
            "the seed's missing quotes",
            good.replacen("{\"", "{", 1).replacen(",\"", ",", 1),
        ),
        ("trailing comma", good.replace('}', ",}")),
        ("truncated", good.split_at(90).0.to_owned()),
        ("BOM", format!("\u{feff}{good}")),
        ("500 deep", Jwk::public(&peer).with("z", deep).text()),
        ("PEM", "-----BEGIN PUBLIC KEY-----".to_owned()),
        (
            "PEM on one line",
            peer.verifying_key().to_spki_pem().replace('\n', ""),
        ),
        ("smart quotes", good.replace('"', "\u{201d}")),
        ("base64 of it", BASE64_STANDARD.encode(&good)),
        (
            "RSA key",
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
        ),
        ("symmetric key", r#"{"kty":"oct","k":"AQAB"}"#.to_owned()),
    ];
    let texts = texts.map(|(name, text)| (name.to_owned(), text));
    let points = coordinates(&peer).into_iter();
    let points = points.map(|(name, jwk)| (name.to_owned(), jwk.text()));
    let members = members(&peer).into_iter();
    let members = members.map(|(name, jwk)| (name, jwk.text()));
    for (name, content) in texts.into_iter().chain(points).chain(members) {
        let found = error_codes(trusting(&content, kid(&peer).as_str()));
        assert_eq!(found, [Code::Cs0201], "{name}");
    }
}

#[test]
fn value_over_64_kib_is_reported_once_and_not_as_missing_too() {
    let peer = key();
    let long = Jwk::public(&peer)
        .with("z", format!("\"{}\"", "z".repeat(1 << 20)))
        .text();

    let found = error_codes(trusting(&long, kid(&peer).as_str()));

    assert_eq!(found, [Code::Cs0306]);
}

#[test]
fn content_of_other_shapes_has_a_code_of_its_own() {
    let peer = key();
    let fingerprint = kid(&peer);
    let private = || Jwk::private(&peer);
    for (name, content, code) in [
        ("empty", String::new(), Code::Cs0201),
        ("d present", private().text(), Code::Cs0203),
        (
            "d null",
            Jwk::public(&peer).with("d", "null").text(),
            Code::Cs0203,
        ),
        (
            "d empty",
            Jwk::public(&peer).with("d", "\"\"").text(),
            Code::Cs0203,
        ),
        (
            "d and a missing quote",
            private().text().replacen("{\"", "{", 1),
            Code::Cs0203,
        ),
        (
            "another kid",
            Jwk::public(&peer).with("kid", "\"other\"").text(),
            Code::Cs0202,
        ),
        (
            "another key's kid",
            Jwk::public(&peer)
                .with("kid", format!("\"{}\"", kid(&key())))
                .text(),
            Code::Cs0202,
        ),
    ] {
        let found = error_codes(trusting(&content, fingerprint.as_str()));
        assert_eq!(found, [code], "{name}");
    }
    let nameless = Jwk::public(&peer).without("kid").text();
    let strange = error_codes(trusting(&nameless, "other"));
    assert_eq!(strange, [Code::Cs0202], "no kid, and another fingerprint");
}

#[test]
fn content_of_accepted_shapes_has_no_error() {
    let peer = key();
    let zero = std::iter::repeat_with(key)
        .find(|key| decoded(&key.verifying_key().x())[0] == 0)
        .unwrap();
    let jwk = || Jwk::public(&peer);
    let fingerprint = kid(&peer).to_string();
    let thumbprint = peer.verifying_key().thumbprint();
    for (name, content, fingerprint) in [
        ("control", jwk().text(), &fingerprint),
        (
            "a leading zero",
            Jwk::public(&zero).text(),
            &kid(&zero).to_string(),
        ),
        (
            "white space",
            jwk().text().replace(',', " , "),
            &fingerprint,
        ),
        (
            "an extra member",
            jwk().with("ext", "true").text(),
            &fingerprint,
        ),
        ("use sig", jwk().with("use", "\"sig\"").text(), &fingerprint),
        (
            "key_ops verify",
            jwk().with("key_ops", "[\"verify\"]").text(),
            &fingerprint,
        ),
        ("no alg", jwk().without("alg").text(), &fingerprint),
        ("no kid", jwk().without("kid").text(), &fingerprint),
        (
            "no kid, thumbprint",
            jwk().without("kid").text(),
            &thumbprint,
        ),
        (
            "thumbprint",
            jwk().with("kid", format!("\"{thumbprint}\"")).text(),
            &thumbprint,
        ),
        (
            "free text",
            jwk().with("kid", "\"my key\"").text(),
            &"my key".to_owned(),
        ),
    ] {
        assert_eq!(error_codes(trusting(&content, fingerprint)), [], "{name}");
    }
}

/// The key at `-y` is another one; only the fingerprint shows it, so its name is noted.
#[test]
fn mirrored_point_under_the_old_fingerprint_is_noted() {
    let peer = key();
    let (p, y) = (hex(P), decoded(&peer.verifying_key().y()));
    let mut mirrored = [0; 32];
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i16::from(p[at]) - i16::from(y[at]) - borrow;
        borrow = i16::from(difference < 0);
        mirrored[at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    let content = Jwk::public(&peer).with("y", b64(&mirrored)).text();

    let report = Folder::new().check(trusting(&content, kid(&peer).as_str()));

    let codes: Vec<_> = report.findings.iter().map(|found| found.code).collect();
    assert_eq!(codes, [Code::Cs0205]);
}

/// 43 characters are a fingerprint, or a private key.
#[test]
fn a_bare_private_scalar_is_shown_nowhere() {
    let json = PrivateJwk::write(&key(), &kid(&key()));
    let json: serde_json::Value = serde_json::from_str(json.expose()).unwrap();
    let d = json["d"].as_str().unwrap();
    for line in [
        format!("{D}.dpe-dev.module={d}\n"),
        format!("{D}.{d}.module=dpe\n"),
        format!("{D}.dpe-dev.{d}=x\n"),
        format!("server.port={d}\n"),
        format!("ataccama.client.connection.{d}.host=x\n"),
        format!("countersign.client.connection.dpm.deployment={d}\n"),
        format!("spring.profiles.active={d}\n"),
        format!("a.b.{d}=x\n"),
        format!("countersign.server.address={d}\n"),
    ] {
        let report = Folder::new().check(good() + &line);

        let shown = format!("{:?} {:?}", report.findings, report.ignored);
        assert!(!shown.contains(d), "{line} {shown}");
    }
    let variable = ("SERVER_PORT".to_owned(), d.to_owned());
    let folder = Folder::new();
    let file = folder.write("a", good());
    let report = check(&[file], &[variable]).unwrap();
    assert_eq!(report.findings.errors(), 1);
    assert!(!format!("{:?}", report.findings).contains(d));
}

#[test]
fn a_wrong_fingerprint_is_still_shown() {
    let (one, other) = (key(), kid(&key()));
    let text = own_line(&key()) + &deployment("dpe-dev", "dpe", &one);
    let line = format!("fingerprint={}", kid(&one));

    let report = Folder::new().check(text.replace(&line, &format!("fingerprint={other}")));

    let found = report
        .findings
        .iter()
        .find(|found| found.code == Code::Cs0202);
    let message = &found.unwrap().message;
    assert!(
        message.contains(other.as_str()) && message.contains(kid(&one).as_str()),
        "{message}"
    );
}
