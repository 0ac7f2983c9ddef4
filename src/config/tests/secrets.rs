use super::*;

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
