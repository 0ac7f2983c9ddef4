//! Laws that hold for every input. `tests/laws.rs` tries them on made-up inputs at every test run,
//! the targets under `fuzz/` on whatever a fuzzer comes up with.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use countersign::Module;
use countersign::clock::{Clock, ManualClock};
use countersign::engine::{EngineAddress, EngineStatus};
use countersign::identity::ServiceIdentity;
use countersign::internals::{
    Document, Edit, Entry, Expression, Location, Name, Target, decode_record, encode_record,
    parse_revoked_keys,
};
use countersign::jose::compact::Compact;
use countersign::jose::{KeyId, KeyMaterial, PrivateJwk, PublicJwk, SigningKey, VerifyingKey};
use countersign::registry::{AddressPolicy, AddressRules, AllowedAddress, Destination};
use countersign::testing::{own_deployment, trusted};
use countersign::token::Accept;
use countersign::trust::OwnDeployment;
use countersign::{MethodRules, Rule};
use http::{HeaderName, HeaderValue, Request, Response};
use serde_json::Value;
use tower::{Layer as _, Service as _};

/// The time of the clock, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;

/// The key of RFC 7515, A.3, which signs for the one trusted deployment, and its fingerprint.
pub(crate) const KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
pub(crate) const KID: &str = "k";

/// A callee `dpm-dev` that trusts `dpe-dev` with [`KEY`] as [`KID`].
struct World {
    callee: Module,
    caller: OwnDeployment,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut caller = own_deployment("dpe", "dpe-dev");
    caller.key = PrivateJwk::parse(KEY).unwrap().key;
    caller.key_id = KeyId::new(KID).unwrap();
    let clock = Arc::new(ManualClock::at_unix(NOW)) as Arc<dyn Clock>;
    let callee = Module::builder(own_deployment("dpm", "dpm-dev")).trust(trusted(&caller));
    World {
        callee: callee.clock(clock).build().unwrap(),
        caller,
    }
});

fn parse(text: &str) -> Option<Document> {
    let document = Document::parse(Path::new("a.properties"), text);
    document.faults().is_empty().then_some(document)
}

fn pairs(document: &Document) -> Vec<(&str, &str)> {
    let entries = document.entries().iter();
    entries.map(|entry| (entry.key(), entry.value())).collect()
}

/// Writing what a text says into it changes nothing, and written to an empty file it says the same.
pub(crate) fn properties(text: &str) {
    let Some(document) = parse(text) else {
        return;
    };
    let mut edit = Edit::new();
    for (key, value) in pairs(&document) {
        edit.set(key, value);
    }
    assert!(edit.apply(text).is_none());

    let Some(rewritten) = edit.apply("") else {
        assert_eq!(document.entries().len(), 0);
        return;
    };
    let again = parse(rewritten.text()).unwrap();
    for (key, value) in pairs(&again) {
        let original = pairs(&document);
        let last = original.iter().rev().find(|(name, _)| *name == key);
        assert_eq!(last, Some(&(key, value)));
    }
    assert!(edit.apply(rewritten.text()).is_none());
}

/// An edit changes the one value, keeps every other byte, and is done after one time.
pub(crate) fn edit(text: &str, key: &str, value: &str) {
    let Some(before) = parse(text) else {
        return;
    };
    if before
        .entries()
        .last()
        .is_some_and(|last| lone_backslash(text, last))
    {
        return;
    }
    let mut edit = Edit::new();
    edit.set(key, value);
    let Some(edited) = edit.apply(text) else {
        assert!(pairs(&before).iter().any(|(_, found)| *found == value));
        return;
    };
    let after = parse(edited.text()).unwrap();
    assert!(edit.apply(edited.text()).is_none());

    let (mut old, new) = (pairs(&before), pairs(&after));
    if !old.iter().any(|(name, _)| same(name, key)) {
        assert!(edited.text().starts_with(text));
        assert_eq!(new, [old, vec![(key, value)]].concat());
        return;
    }
    let at = (0..old.len()).find(|at| old[*at] != new[*at]).unwrap();
    let span = before
        .entries()
        .get(at)
        .map(|entry| entry.value_span)
        .unwrap();
    assert!(edited.text().starts_with(text.get(..span.start).unwrap()));
    assert!(edited.text().ends_with(text.get(span.end..).unwrap()));
    old[at].1 = value;
    assert_eq!(new, old);
}

/// A removed name is gone, every other line is as it was, and there is nothing left to remove.
pub(crate) fn removal(text: &str, key: &str) {
    let Some(before) = parse(text) else {
        return;
    };
    let mut edit = Edit::new();
    edit.remove(key);
    let Some(edited) = edit.apply(text) else {
        assert!(!pairs(&before).iter().any(|(name, _)| same(name, key)));
        return;
    };
    let after = parse(edited.text()).unwrap();
    assert!(edit.apply(edited.text()).is_none());

    let (mut old, new) = (pairs(&before), pairs(&after));
    old.retain(|(name, _)| !same(name, key));
    assert_eq!(new, old);
    let entries = before.entries().iter();
    let spans = entries.filter(|entry| same(entry.key(), key));
    let spans: Vec<_> = spans.map(|entry| entry.line_span).collect();
    let kept = text.char_indices();
    let kept = kept.filter(|(at, _)| !spans.iter().any(|s| (s.start..s.end).contains(at)));
    let kept: String = kept.map(|(_, character)| character).collect();
    assert_eq!(edited.text(), kept);
}

/// To Java a backslash alone at the very end is an entry without a name, and no longer one
/// once something follows.
fn lone_backslash(text: &str, last: &Entry) -> bool {
    let (start, end) = (last.key_span.end, last.value_span.start);
    let between = text.get(start..end).unwrap();
    last.key().is_empty() && last.value().is_empty() && !between.contains(['=', ':'])
}

/// Returns `true` if two spellings are of one name: only then does one edit replace the other's.
fn same(one: &str, other: &str) -> bool {
    Name::parse(one) == Name::parse(other)
}

/// An accepted key is written in every form and read back equal, and is of one kind only.
pub(crate) fn jwk(text: &str) {
    if let Ok(jwk) = PublicJwk::parse(text) {
        public(
            &jwk.key,
            &jwk.kid.unwrap_or_else(|| jwk.key.fingerprint().into()),
        );
        assert!(PrivateJwk::parse(text).is_err());
    }
    if let Ok(jwk) = PrivateJwk::parse(text) {
        private(
            &jwk.key,
            &jwk.kid.unwrap_or_else(|| jwk.key.fingerprint().into()),
        );
        assert!(PublicJwk::parse(text).is_err());
    }
    if let Ok((read, _)) = KeyMaterial::read(text.as_bytes()) {
        let kid = read.kid().cloned();
        let kid = kid.unwrap_or_else(|| read.verifying_key().fingerprint().into());
        match &read {
            KeyMaterial::Private(key, _) => private(key, &kid),
            other => public(other.verifying_key(), &kid),
        }
        rewritten(text, &read);
    }
}

/// An accepted key is the same key in every encoding of its text.
fn rewritten(text: &str, key: &KeyMaterial) {
    let little = text.encode_utf16().flat_map(u16::to_le_bytes);
    let big = text.encode_utf16().flat_map(u16::to_be_bytes);
    let utf16 = [
        [0xff, 0xfe].into_iter().chain(little).collect::<Vec<u8>>(),
        [0xfe, 0xff].into_iter().chain(big).collect(),
    ];
    let mut forms = utf16.to_vec();
    if text.contains(['{', '-']) {
        let encoded = [text.as_bytes()]
            .into_iter()
            .chain(utf16.iter().map(Vec::as_slice));
        forms.extend(encoded.map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes).into_bytes()));
    }
    if text.starts_with('{') {
        forms.push(format!("{{\"keys\":[{text}]}}").into_bytes());
    }
    for bytes in forms {
        if let Ok((read, _)) = KeyMaterial::read(&bytes) {
            assert_eq!(read.verifying_key(), key.verifying_key());
            assert_eq!(read.kid(), key.kid());
        } else {
            // Escaped quotes are undone from the first brace on, and lengths are limited.
            assert!(text.contains('\\') || bytes.len() > 16 * 1024, "{text}");
        }
    }
}

fn public(key: &VerifyingKey, kid: &KeyId) {
    for text in [
        PublicJwk::write(key, kid),
        PublicJwk::write_pretty(key, kid),
    ] {
        let again = PublicJwk::parse(&text).unwrap();
        assert_eq!((&again.key, again.kid.as_ref()), (key, Some(kid)));
    }
    assert_eq!(
        VerifyingKey::from_spki_der(key.to_spki_der()).unwrap(),
        *key
    );
    let (read, _) = KeyMaterial::read(key.to_spki_pem().as_bytes()).unwrap();
    assert!(matches!(read, KeyMaterial::Public(read, _) if read == *key));
}

fn private(key: &SigningKey, kid: &KeyId) {
    for text in [
        PrivateJwk::write(key, kid),
        PrivateJwk::write_pretty(key, kid),
    ] {
        let again = PrivateJwk::parse(text.expose()).unwrap();
        assert_eq!(again.key.verifying_key(), key.verifying_key());
        assert_eq!(again.kid.as_ref(), Some(kid));
    }
    for pem in [key.to_pkcs8_pem(), key.to_sec1_pem()] {
        let (read, _) = KeyMaterial::read(pem.unwrap().expose().as_bytes()).unwrap();
        let KeyMaterial::Private(read, _) = read else {
            panic!("a private key was written")
        };
        assert_eq!(read.verifying_key(), key.verifying_key());
    }
    public(key.verifying_key(), kid);
}

/// Whatever is properly signed, only what obeys the contract in a lenient reader's eyes, too, is
/// accepted; and no altered bit is.
pub(crate) fn token(header: &[u8], payload: &[u8]) {
    let World { callee, caller } = &*WORLD;
    let input = format!("{}.{}", encode(header), encode(payload));
    let signature = caller.key.sign(input.as_bytes()).unwrap();
    let token = format!("{input}.{}", encode(&signature));
    let verifier = callee.verifier();
    let Ok(accepted) = verifier.verify(&token, Accept::Peers) else {
        return;
    };

    assert_eq!(accepted.identity().id(), "dpe-dev");
    obeys_the_contract(header, payload);
    let mut altered = token.into_bytes();
    let bit = (header.len() * 31 + payload.len()) % (altered.len() * 8);
    altered[bit / 8] ^= 1 << (bit % 8);
    if let Ok(altered) = String::from_utf8(altered) {
        assert!(verifier.verify(&altered, Accept::Peers).is_err());
    }
}

fn obeys_the_contract(header: &[u8], payload: &[u8]) {
    let header: Value = serde_json::from_slice(header).unwrap();
    assert_eq!(
        (&header["alg"], &header["kid"]),
        (&"ES256".into(), &KID.into())
    );
    for member in ["crit", "b64", "zip"] {
        assert!(header.get(member).is_none());
    }
    let typ = header.get("typ").map(|typ| typ.as_str().unwrap());
    assert!(typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT")));

    let claims: Value = serde_json::from_slice(payload).unwrap();
    let time = |claim: &str| claims.get(claim).map(|time| time.as_f64().unwrap());
    assert!(claims["iss"] == "dpe-dev" || claims["iss"] == KID);
    assert_eq!(claims["iss"], claims["sub"]);
    let hash = WORLD.callee.own().fingerprint().to_string();
    let audience = match &claims["aud"] {
        Value::Array(several) => several.clone(),
        one => vec![one.clone()],
    };
    assert!(audience.contains(&"dpm-dev".into()) || audience.contains(&hash.into()));
    #[expect(clippy::cast_precision_loss, reason = "a second is enough here")]
    let now = NOW as f64;
    let (issued, expires) = (time("iat").unwrap(), time("exp").unwrap());
    assert!(expires + 30.0 > now && issued - 30.0 <= now);
    assert!(expires > issued && expires - issued <= 900.0);
    assert!(time("nbf").is_none_or(|start| start - 30.0 <= now && start < expires));
    assert!(
        claims
            .get("jti")
            .is_none_or(|id| id.as_str().unwrap().chars().count() <= 128)
    );
}

/// A token is spelt in one way only: its parts, decoded and encoded, are the same again.
pub(crate) fn compact(text: &str) {
    let Ok(compact) = Compact::parse(text) else {
        return;
    };
    let (header, _) = text.split_once('.').unwrap();
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).unwrap();
    let [payload, signature] = [compact.payload(), compact.signature()].map(encode);
    assert_eq!(text, format!("{}.{payload}.{signature}", encode(&header)));
    assert!(text.starts_with(compact.signing_input()) && text.len() <= 8192);
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A handler is reached with exactly one `authorization` value, `Bearer`, a space and a good token,
/// and then knows who calls. In `values` every `@` stands for such a token.
pub(crate) fn metadata(values: &[&[u8]]) {
    let World { callee, caller } = &*WORLD;
    let claims = format!(
        r#"{{"iss":"dpe-dev","sub":"dpe-dev","aud":"dpm-dev","iat":{NOW},"exp":{}}}"#,
        NOW + 300
    );
    let input = format!(
        "{}.{}",
        encode(format!(r#"{{"alg":"ES256","kid":"{KID}"}}"#).as_bytes()),
        encode(claims.as_bytes())
    );
    let good = format!(
        "{input}.{}",
        encode(&caller.key.sign(input.as_bytes()).unwrap())
    );
    let mut request = Request::new(tonic::body::Body::default());
    *request.uri_mut() = "/a.B/C".parse().unwrap();
    let mut sent = Vec::new();
    for value in values {
        let value = value.split(|byte| *byte == b'@').collect::<Vec<_>>();
        let value = value.join(good.as_bytes());
        if let Ok(header) = HeaderValue::from_bytes(&value) {
            let name = HeaderName::from_static("authorization");
            request.headers_mut().append(name, header);
            sent.push(value);
        }
    }

    let rules = MethodRules::deny_all()
        .allow("/a.B/C", Rule::any_identity())
        .unwrap();
    let handler = tower::service_fn(|mut request: Request<_>| {
        let mut reply = Response::new(tonic::body::Body::default());
        if let Some(known) = request.extensions_mut().remove::<ServiceIdentity>() {
            reply.extensions_mut().insert(known);
        }
        std::future::ready(Ok::<_, std::convert::Infallible>(reply))
    });
    let layer = callee.server_layer(rules).dangerous_any_transport();
    let mut service = layer.layer(handler);
    let mut reply = std::pin::pin!(service.call(request));
    let Poll::Ready(Ok(reply)) = reply.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("the decision is made at once");
    };

    let good = format!("bearer {good}");
    let right = matches!(sent.as_slice(), [value] if is(value, &good));
    let known = reply.extensions().get::<ServiceIdentity>();
    assert_eq!(known.is_some(), right, "{sent:?}");
}

/// Returns `true` if `value` is `good`, the case of the scheme aside.
fn is(value: &[u8], good: &str) -> bool {
    let (scheme, token) = good.split_at(7);
    value
        .split_at_checked(7)
        .is_some_and(|(s, t)| s.eq_ignore_ascii_case(scheme.as_bytes()) && t == token.as_bytes())
}

/// An accepted address names one host and port to everyone: as an authority, as itself, and never
/// in a form that only some resolvers take for a number.
pub(crate) fn address(hostname: &str, port: i64) {
    let Ok(address) = EngineAddress::new(hostname, port) else {
        return;
    };
    assert_eq!(i64::from(address.port()), port);
    assert_eq!(address.hostname(), hostname);
    let authority: http::uri::Authority = address.authority().parse().unwrap();
    assert_eq!(authority.port_u16(), Some(address.port()));
    assert_eq!(authority.host().trim_matches(['[', ']']), hostname);
    let last = hostname.rsplit('.').next().unwrap().to_ascii_lowercase();
    let numeric = match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => last.bytes().all(|b| b.is_ascii_digit()),
    };
    assert!(hostname.parse::<IpAddr>().is_ok() || !numeric);
}

/// The documents of a text hold its entries in their order, each is what its part of the text says
/// alone, and an edit of one changes no other.
pub(crate) fn documents(text: &str) {
    let Some(document) = parse(text) else { return };
    let all: Vec<_> = document.documents_of(0).collect();
    let entries = all.iter().flat_map(|one| document.entries_of(*one));
    assert!(entries.eq(0..document.entries().len()));
    if !text.contains("#---") && !text.contains("!---") {
        assert_eq!(all.len(), 1);
    }
    for (number, one) in all.iter().enumerate() {
        let end = all
            .get(number + 1)
            .map_or(text.len(), |next| document.start_of(*next));
        let part = parse(text.get(document.start_of(*one)..end).unwrap()).unwrap();
        let own = &document.entries()[document.entries_of(*one)];
        let own: Vec<_> = own
            .iter()
            .map(|entry| (entry.key(), entry.value()))
            .collect();
        assert_eq!(pairs(&part), own);
        // A separator before which nothing stands may become a comment.
        let first = &document.entries()[document.entries_of(all[0])];
        // One that is doubtful is refused before any edit.
        let mut separators = document.separators().iter();
        let is_clear = separators.all(|one| format!("{one:?}").contains("reading: Separator"));
        if !is_clear || first.iter().all(|entry| entry.key().is_empty()) {
            continue;
        }
        let mut edit = Edit::new();
        edit.within(vec![number], Some(number)).set("law.key", "1");
        let Some(edited) = edit.apply(text) else {
            continue;
        };
        let after = parse(edited.text()).unwrap();
        assert_eq!(after.documents_of(0).len(), all.len(), "{text:?}");
        for (other, one) in all.iter().enumerate() {
            let [before, after] = [&document, &after].map(|read| {
                let own = &read.entries()[read.entries_of(*one)];
                let own = own
                    .iter()
                    .map(|entry| (entry.key().to_owned(), entry.value().to_owned()));
                own.collect::<HashMap<_, _>>()
            });
            let mut wanted = before;
            if other == number {
                wanted.insert("law.key".to_owned(), "1".to_owned());
            }
            assert!(
                wanted
                    .iter()
                    .all(|(key, value)| after.get(key) == Some(value)),
                "{text:?}"
            );
        }
        assert!(edit.apply(edited.text()).is_none());
    }
}

/// A profile expression that is read holds where a plain reading of its text says so.
pub(crate) fn expression(text: &str) {
    const NAMES: [&str; 4] = ["a", "b", "prod", "eu-west"];
    let read = match Expression::parse(text) {
        Err((_, why)) => return assert!(!why.is_empty()),
        Ok(read) => read,
    };
    for active in 0..16_u8 {
        let is_active = |name: &str| {
            let mut names = NAMES.iter().enumerate();
            names.any(|(at, known)| *known == name && active & (1 << at) != 0)
        };
        assert_eq!(
            read.matches(&is_active),
            holds(text, &is_active),
            "{text:?}"
        );
    }
}

/// Reads a well-formed expression from the outside to the inside.
fn holds(text: &str, is_active: &dyn Fn(&str) -> bool) -> bool {
    let text = text.trim();
    for operator in ['|', '&'] {
        let mut depth = 0;
        let parts: Vec<_> = text
            .split(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0 && c == operator
            })
            .collect();
        match parts.as_slice() {
            [_] => {}
            parts if operator == '|' => return parts.iter().any(|part| holds(part, is_active)),
            parts => return parts.iter().all(|part| holds(part, is_active)),
        }
    }
    if let Some(inner) = text.strip_prefix('!') {
        return !holds(inner, is_active);
    }
    match text
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'))
    {
        Some(inner) => holds(inner, is_active),
        None => is_active(text),
    }
}

/// An import leads to an absolute path or nowhere, and `optional:` changes only that.
pub(crate) fn import(text: &str) {
    let declaring = Path::new("/etc/dpm/application.properties");
    let parse = |text: &str| Location::parse(text, Some(declaring), Path::new("/home/dpm"));
    let read = parse(text);
    let trimmed = text.trim();
    if !trimmed.starts_with("optional:") {
        let optional = parse(&format!("optional:{trimmed}"));
        assert_eq!(
            (optional.target, optional.optional),
            (read.target.clone(), true)
        );
        assert!(!read.optional);
    }
    let bare = trimmed.strip_prefix("optional:").unwrap_or(trimmed);
    let paths = match &read.target {
        Target::File(path)
        | Target::Bare(path)
        | Target::Tree(path)
        | Target::Trees(path)
        | Target::Unread(path) => path,
        Target::Unknown => return,
    };
    assert!(
        paths.is_absolute() && !paths.to_string_lossy().contains('\0'),
        "{text:?}"
    );
    let scheme = bare
        .split_once(':')
        .map(|(scheme, _)| scheme)
        .unwrap_or_default();
    let is_path = scheme.is_empty() || scheme.contains('/');
    assert!(
        is_path || ["file", "configtree"].contains(&scheme),
        "{text:?}"
    );
    if let Some(file) = read.for_profile("prod") {
        assert_eq!(file.parent(), paths.parent());
    }
}

/// What may be dialled is no refused address in the standard library's eyes either, and neither a
/// further answer of the resolver nor a list of networks opens what was refused.
pub(crate) fn dial(port: u16, addresses: &[IpAddr], over_loopback: bool, network: &str) {
    let Ok(address) = EngineAddress::new("engine.example", port.into()) else {
        return;
    };
    let destination = Destination {
        deployment: "dpe-dev",
        address: &address,
        over_loopback,
    };
    let own = SocketAddr::from(([127, 0, 0, 1], 8531));
    let rules = |allowed: Option<AllowedAddress>| {
        let mut rules = AddressRules::default();
        rules.allowed.extend(allowed);
        AddressPolicy::new(vec![own], HashMap::from([("dpe-dev".to_owned(), rules)]))
    };
    let passes = |policy: &AddressPolicy, addresses: &[IpAddr]| {
        policy.check(&destination, addresses, |_| false).is_ok()
    };
    let open = rules(None);
    let outcome = passes(&open, addresses);

    assert_eq!(
        outcome,
        addresses.iter().all(|one| passes(&open, &[*one])) && port >= 1024
    );
    if outcome {
        for address in addresses {
            assert!(
                may_be_dialled(address.to_canonical(), over_loopback),
                "{address}"
            );
            assert!((address.to_canonical(), port) != (own.ip(), own.port()));
        }
    }
    if let Some(allowed) = AllowedAddress::parse(network) {
        assert!(outcome || !passes(&rules(Some(allowed)), addresses));
    }
}

fn may_be_dialled(address: IpAddr, over_loopback: bool) -> bool {
    let refused = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let refused = refused || address.is_unspecified() || address.is_multicast();
    !refused && (over_loopback || !address.is_loopback())
}

/// What is remembered of revoked keys is read as it is written, and a change of one byte changes
/// one line at most.
pub(crate) fn revoked_keys(text: &str) {
    let Ok(records) = parse_revoked_keys(text) else {
        return;
    };
    let written: String = records.iter().map(ToString::to_string).collect();
    let torn = text.strip_prefix(&written);
    assert!(
        torn.is_some_and(|torn| !torn.contains('\n')) || format!("{text}\n") == written,
        "{text:?} became {written:?}"
    );
    for (at, _) in written.match_indices('\n') {
        let lines = parse_revoked_keys(written.get(..=at).unwrap()).unwrap();
        assert_eq!(lines[..], records[..lines.len()]);
    }
    for at in 0..written.len() {
        let mut changed = written.clone().into_bytes();
        changed[at] = b'0';
        let changed = parse_revoked_keys(std::str::from_utf8(&changed).unwrap());
        let differing = changed.map_or(0, |changed| {
            let both = records.iter().zip(&changed);
            both.filter(|(one, other)| one != other).count()
        });
        assert!(differing <= 1, "byte {at} of {written:?}");
    }
}

/// An engine that is read from the registry's file is written as it was read, and none is READY
/// without being suspect.
pub(crate) fn record(bytes: &[u8]) {
    let Ok(engine) = decode_record(bytes, None) else {
        return;
    };
    assert_eq!(engine.suspect, engine.status == EngineStatus::Ready);
    let written = encode_record(&engine);
    let again = decode_record(&written, None).unwrap();
    assert_eq!(again, engine);
}

/// Applies the law of the fuzz target `target` to an input of it that is kept as a file. `address`
/// and `dial` take no text and have none.
pub(crate) fn input(target: &str, input: &[u8]) {
    let text = std::str::from_utf8(input);
    match (target, text) {
        ("compact", Ok(text)) => compact(text),
        ("documents", Ok(text)) => documents(text),
        ("expression", Ok(text)) => expression(text),
        ("import", Ok(text)) => import(text),
        ("edit", Ok(text)) => {
            let mut parts = text.splitn(3, '\0');
            if let (Some(key), Some(value), Some(text)) = (parts.next(), parts.next(), parts.next())
            {
                edit(text, key, value);
                removal(text, key);
            }
        }
        ("jwk", Ok(text)) => jwk(text),
        ("metadata", _) => {
            let values: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
            metadata(&values);
        }
        ("properties", Ok(text)) => properties(text),
        ("record", _) => record(input),
        ("revoked_keys", Ok(text)) => revoked_keys(text),
        ("token", _) => {
            if let Some(end) = input.iter().position(|byte| *byte == b'\n') {
                let (header, payload) = input.split_at(end);
                token(header, payload);
            }
        }
        (_, Err(_)) => {}
        (target, Ok(_)) => panic!("no fuzz target `{target}` takes files"),
    }
}
