use std::collections::BTreeSet;

use super::super::fix;
use super::*;
use crate::properties::FileText;

/// Everything that a finding may show.
fn shown(report: &Report) -> String {
    let findings = report.findings.iter();
    let texts =
        findings.map(|f| format!("{f} {f:?} {}", f.snippet.as_ref().map_or("", |s| &s.text)));
    let ignored = report.ignored.iter().map(|ignored| ignored.name.clone());
    texts.chain(ignored).collect::<Vec<_>>().join("\n")
}

#[test]
fn no_part_of_a_private_key_is_ever_shown() {
    let own = key();
    let jwk = PrivateJwk::write(&own, &kid(&own)).expose().clone();
    let pretty = PrivateJwk::write_pretty(&own, &kid(&own)).expose().clone();
    let base64 = BASE64_STANDARD.encode(&jwk);
    let wrapped: Vec<_> = base64
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let wrapped = wrapped.join("\n");
    let d = jwk
        .split("\"d\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let pem = own.to_pkcs8_pem().unwrap().expose().replace('\n', "\\n");
    let peer = format!("{D}.d.security.jwt-keys.k");
    for text in [
        format!("{KEY}={base64}\n{KEY}={base64}\n"),
        format!("{KEY}={wrapped}\n"),
        format!("{KEY}={pretty}\n"),
        format!("{KEY}{base64}\n"),
        format!("{KEY}.{base64}\n"),
        format!("{KEY}={}x\n", base64.get(..200).unwrap()),
        format!("{KEY}={}\n", jwk.replace("{\"kty", "{kty")),
        format!("{KEY}={pem}\n"),
        format!("{KEY}=crypted:AES:{base64}\n"),
        format!("countersign.rotation.next-key={base64} \n"),
        format!("{peer}.content={jwk}\n{peer}.fingerprint={base64}\n"),
        format!("{peer}.content={}\n", jwk.replace("{\"kty", "{kty")),
        format!("{peer}.content={}\n", jwk.replace('"', "")),
        format!("{peer}.content={pretty}\n"),
        format!("{peer}.is-revoked={jwk}\nserver.port={base64}\n"),
        format!("my.key={base64}\n{KEY}=${{my.key}}\n{peer}.content=${{my.key}}\n"),
        format!("{D}.{base64}.module=dpe\n{D}.d.module={jwk}\n"),
        format!("{D}.d.security.roles={base64},{jwk}\n"),
        base64.clone(),
        jwk,
    ] {
        let folder = Folder::new();
        let file = folder.write("a", &text);
        let report = check(std::slice::from_ref(&file), &[]).unwrap();
        let loaded = load(&file).map_or_else(|e| format!("{e} {e:?}"), |s| format!("{s:?}"));
        let shown = shown(&report) + &loaded;

        assert!(!shown.contains(&d), "d in {shown}");
        for start in (0..base64.len() - 20).step_by(4) {
            let part = base64.get(start..start + 20).unwrap();
            assert!(!shown.contains(part), "{part} in {shown}");
        }
    }
}

/// What comes before a private scalar in a line, and what comes after it.
const PLACES: &[(&str, &str)] = &[
    ("D.dpe-dev.module=", ""),
    ("D.dpe-dev.environment : ", " \t"),
    ("D.", ".module=dpe"),
    ("D.dpe-dev.", "=x"),
    ("D.dpe-dev.security.roles[", "]=A"),
    ("D.dpe-dev.security.roles[0]=", ""),
    ("server.port=", ""),
    ("server.port ", " # ours"),
    ("server.port=\\u12 ", ""),
    ("server.port=", "\\u12"),
    ("server.port=${", "}"),
    ("server.port=${a:", "}"),
    ("export server.port=", ""),
    ("server.port=1\\\nserver.address=", ""),
    ("x=1\\\nserver.address=", ""),
    ("server.address=", "\\\nserver.port=1"),
    ("", "\\\nserver.port=1"),
    ("", "=1\\\nserver.port=1"),
    ("x=1\\\nD.", ".module=dpe"),
    ("export D.", ".module=dpe"),
    ("server.address=", ""),
    ("server.adress=", ""),
    ("a.fingerprint=", "\nserver.port=%"),
    ("ataccama.client.connection.", ".host=x"),
    ("countersign.client.connection.dpm.deployment=", ""),
    ("countersign.deployment.name=", ""),
    ("countersign.rotation.activated-at=", ""),
    ("countersign.rotation.previous-fingerprint=x, ", ""),
    (
        "ataccama.server.tls.enabled=true\nataccama.server.tls.cert-chain=",
        "",
    ),
    ("spring.profiles.active=", ""),
    ("spring.profiles.group.", "=a b"),
    ("spring.config.import=", ""),
    ("spring.config.import=file:/", ".properties"),
    ("#---\nspring.config.activate.on-profile=(", ""),
    ("a.b.", "=x"),
    (
        "D.d.security.jwt-keys.k.content={\"kty\":\"EC\",\"d\":\"",
        "\"}",
    ),
    (
        "D.d.security.jwt-keys.k.content={\"kty\":\"EC\",\"d\":\"",
        "\"} ",
    ),
    ("D.", ".module=dpe "),
    (
        "D.d.security.jwt-keys.k.content={\\\"kty\\\"\\:\\\"EC\\\",d\\:",
        "}",
    ),
    (
        "D.d.security.jwt-keys.k.content=C\nD.d.security.jwt-keys.k.fingerprint=",
        "",
    ),
    (
        "D.d.security.jwt-keys.k.content=C\nD.d.security.jwt-keys.",
        ".fingerprint=x",
    ),
    (
        "D.d.security.jwt-keys.k.fingerprint=x\nD.d.security.jwt-keys.k.content=C",
        "",
    ),
];

#[test]
fn a_private_scalar_is_hidden_however_and_wherever_it_is_written() {
    let peer = key();
    let json = PrivateJwk::write(&peer, &kid(&peer));
    let json: serde_json::Value = serde_json::from_str(json.expose()).unwrap();
    let d = json["d"].as_str().unwrap();
    let (first, rest) = d.split_at(21);
    let units = d.chars().map(|c| format!("\\u{:04x}", u32::from(c)));
    let escaped = units.collect::<Vec<_>>().concat();

    let spellings = [
        d.to_owned(),
        format!("{first}\\\n   {rest}"),
        format!("\\\n{first}\\\r\n\t{rest}"),
        format!("{}{}", escaped.get(..6).unwrap(), d.get(1..).unwrap()),
        escaped,
        format!("{} {d}", "word ".repeat(11)),
    ];
    for (before, after) in PLACES {
        for written in &spellings {
            let line = format!("{before}{written}{after}\n")
                .replace("D.", &format!("{D}."))
                .replace("=C", &format!("={}", content(&peer)))
                .replace('%', written);
            let text = good() + &line;
            let repaired = FileText::from_bytes(text.as_bytes()).unwrap();
            let repaired = fix(Path::new("a"), &repaired, &BTreeSet::from([0, 1]));
            let repairs = repaired.map(|fixed| fixed.repairs);
            let shown = shown(&Folder::new().check(text)) + &format!("{repairs:?}");

            for secret in [d, first, rest, written] {
                for at in 0..secret.len() - 12 {
                    let part = secret.get(at..at + 12).unwrap();
                    let is_name = part.contains(' ') || part.contains("word");
                    assert!(
                        is_name || !shown.contains(part),
                        "{part} of {line} in {shown}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_kid_that_is_the_own_private_scalar_is_hidden_wherever_the_own_key_stands() {
    let own = key();
    let json = PrivateJwk::write(&own, &kid(&own));
    let json: serde_json::Value = serde_json::from_str(json.expose()).unwrap();
    let d = json["d"].as_str().unwrap();
    let peer = key();
    let named = PublicJwk::write(peer.verifying_key(), &KeyId::new(d).unwrap());
    let trusted = deployment("dpe-dev", "dpe", &peer).replace(&content(&peer), &named);

    for text in [own_line(&own) + &trusted, trusted + &own_line(&own)] {
        let shown = shown(&Folder::new().check(text));

        assert!(!shown.contains(d), "{shown}");
    }
    let setting = format!("{D}.dpe-dev.security.jwt-keys.key.content");
    let folder = Folder::new();
    let file = folder.write("a", own_line(&own) + &deployment("dpe-dev", "dpe", &peer));
    let set = vec![(setting, named)];
    let refused = Settings::load(&file, &ModuleKind::Dpm, Vec::new(), &set);
    let said = refused.map_or_else(|error| format!("{error} {error:?}"), |_| String::new());
    assert!(!said.contains(d), "{said}");
}
