//! 2.1: the metadata that carries the token, or should.

use countersign::Reason::{SignatureInvalid, TokenMalformed, TokenMissing};

use super::peers::Peers;
use super::row::{Call, Outcome, Row, row};

pub(super) fn rows(peers: &Peers) -> Vec<Row> {
    let token = peers.good();
    let mut rows = vec![row("none", Call::default(), Outcome::Refused(TokenMissing))];
    rows.extend(one_value(&token));
    rows.extend(several_values(peers, &token));
    rows.extend(elsewhere(&token));
    rows.extend(good(&token));
    rows
}

fn one_value(token: &str) -> impl Iterator<Item = Row> {
    let schemes = [
        "Basic",
        "Token",
        "JWT",
        "DPoP",
        "Digest",
        "Bear",
        "Bearerx",
        "Negotiate",
        "Bearer,",
    ];
    let schemes = schemes.map(|scheme| (scheme, format!("{scheme} {token}")));
    let values = [
        ("empty value", String::new()),
        ("Bearer only", "Bearer".into()),
        ("Bearer and a space", "Bearer ".into()),
        ("token without scheme", token.into()),
        ("Basic credentials", "Basic dXNlcjpwYXNz".into()),
        ("colon", format!("Bearer: {token}")),
        ("no space", format!("Bearer{token}")),
        // The contract has one space; a second one is a byte of the token.
        ("two spaces", format!("Bearer  {token}")),
        ("tab", format!("Bearer\t{token}")),
        ("space before", format!(" Bearer {token}")),
        ("space after", format!("Bearer {token} ")),
        ("trailing word", format!("Bearer {token} extra")),
        ("two in one value", format!("{token}, Bearer {token}")),
        (
            "two with schemes in one value",
            format!("Bearer {token}, Bearer {token}"),
        ),
        ("semicolon after", format!("Bearer {token};")),
        ("quoted", format!("\"Bearer {token}\"")),
        ("quoted token", format!("Bearer \"{token}\"")),
        ("Bearer twice", format!("Bearer Bearer {token}")),
        (
            "percent-encoded dots",
            format!("Bearer {}", token.replace('.', "%2E")),
        ),
        ("200 tildes", "~".repeat(200)),
        (
            "200 tildes as a token",
            format!("Bearer {}", "~".repeat(200)),
        ),
        ("not ASCII", format!("Bearer {token}é")),
    ];
    schemes.into_iter().chain(values).map(|(name, value)| {
        let call = Call::authorization(&[&value]);
        row(name, call, Outcome::Refused(TokenMalformed))
    })
}

fn several_values(peers: &Peers, token: &str) -> impl Iterator<Item = Row> {
    let good = format!("Bearer {token}");
    let again = format!("Bearer {}", peers.good());
    let forged = peers.draft().sign(&peers.stranger.key);
    let bad = format!("Bearer {forged}");
    let basic = "Basic dXNlcjpwYXNz".to_owned();
    let rows = [
        ("one value twice", vec![&good, &good]),
        ("two valid values", vec![&good, &again]),
        ("valid, then bad", vec![&good, &bad]),
        ("bad, then valid", vec![&bad, &good]),
        ("Basic, then Bearer", vec![&basic, &good]),
        ("Bearer, then Basic", vec![&good, &basic]),
    ];
    let rows = rows.map(|(name, values)| {
        let values: Vec<&str> = values.into_iter().map(String::as_str).collect();
        let call = Call::authorization(&values);
        row(name, call, Outcome::Refused(TokenMalformed))
    });
    let empty = row(
        "empty, then valid",
        Call::authorization(&["", &good]),
        Outcome::Refused(TokenMalformed),
    );
    let forged = row(
        "one bad value",
        Call::authorization(&[&bad]),
        Outcome::Refused(SignatureInvalid),
    );
    rows.into_iter().chain([empty, forged])
}

/// The token under other names, and names that proxies give to identities.
fn elsewhere(token: &str) -> impl Iterator<Item = Row> {
    let bearer = format!("Bearer {token}");
    let carriers = [
        "x-authorization",
        "proxy-authorization",
        "cookie",
        "x-auth-token",
        "x-access-token",
        "x-jwt-assertion",
        "x-forwarded-authorization",
        "x-original-authorization",
        "grpc-authorization",
        "grpcgateway-authorization",
        "authorization2",
        "www-authenticate",
        "token",
        "jwt",
        "authorization-bin",
    ];
    let carriers = carriers.map(|name| (format!("{name} alone"), name, bearer.clone()));
    let spoofed = [
        ("x-forwarded-user", "dpe-dev"),
        ("x-forwarded-client-cert", "By=spiffe://x;Hash=1"),
        ("x-remote-user", "dpe-dev"),
        ("x-service-identity", "ServiceIdentity(module=dpe)"),
        ("x-roles", "IMPERSONATION"),
        ("x-ssl-client-verify", "SUCCESS"),
        ("countersign-identity", "dpe-dev"),
        ("countersign-proof", "e30.e30.e30"),
        ("x-envoy-peer-metadata", "dpe-dev"),
    ];
    let spoofed = spoofed.map(|(name, value)| (format!("{name} spoofed"), name, value.to_owned()));
    let random = ("authorization-bin of random bytes", "fv7+/Pv6");
    let random = (
        random.0.to_owned(),
        "authorization-bin",
        random.1.to_owned(),
    );
    let all = carriers.into_iter().chain(spoofed).chain([random]);
    all.map(|(name, header, value)| {
        let call = Call::default().with(header, &value);
        row(name, call, Outcome::Refused(TokenMissing))
    })
}

fn good(token: &str) -> [Row; 7] {
    let ok = |name: &str, call: Call| row(name, call, Outcome::Ok);
    let scheme = |scheme: &str| Call::authorization(&[&format!("{scheme} {token}")]);
    [
        ok("control", Call::bearer(token)),
        ok(
            "valid, and x-roles",
            Call::bearer(token).with("x-roles", "ADMIN"),
        ),
        ok(
            "valid, and another name's value",
            Call::bearer(token).with("x-authorization", "Bearer x"),
        ),
        // The contract compares the scheme without case.
        ok("lower-case scheme", scheme("bearer")),
        ok("upper-case scheme", scheme("BEARER")),
        ok("mixed-case scheme", scheme("bEaReR")),
        ok(
            "valid, and 7 kB of junk",
            Call::bearer(token).with("x-junk", &"j".repeat(7000)),
        ),
    ]
}
