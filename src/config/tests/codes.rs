use super::*;

use crate::diagnostic::Severity::{Error, Note, Warning};

/// Checks a good file after `change`, without the findings that a good file has (none).
fn after(change: impl FnOnce(String) -> String) -> Vec<Row> {
    rows(&Folder::new().check(change(good())).findings)
}

/// Checks a good file with `lines` added, which start in line 8.
fn with(lines: &str) -> Vec<Row> {
    after(|text| text + lines)
}

#[test]
fn good_file_has_no_findings() {
    assert_eq!(after(|text| text), []);
}

#[test]
fn cs0101_malformed_escape() {
    assert_eq!(with("foreign=a\\u12G4\n"), [(Code::Cs0101, Error, 8, 10)]);
}

#[test]
fn cs0101_text_that_is_not_utf_8_is_noted() {
    let report = Folder::new().check([good().as_bytes(), b"x=\xe9\n"].concat());

    assert_eq!(rows(&report.findings), [(Code::Cs0101, Note, 1, 1)]);
}

#[test]
fn cs0102_byte_order_mark() {
    let report = Folder::new().check(format!("\u{feff}{}", good()));

    assert_eq!(rows(&report.findings), [(Code::Cs0102, Warning, 1, 1)]);
}

#[test]
fn cs0103_duplicate_is_an_error_where_it_decides_trust() {
    let revoked = format!("{D}.dpe-dev.security.jwt-keys.key.isRevoked=true\n");
    assert_eq!(
        with(&revoked),
        [(Code::Cs0302, Warning, 4, 77), (Code::Cs0103, Error, 8, 1)]
    );
    assert_eq!(
        with("server.port=1\nserver.port=2\n"),
        [(Code::Cs0103, Warning, 9, 1)]
    );
    let both = format!("{D}.dpe-dev.security.roles=A,IMPERSONATION\n");
    assert_eq!(with(&both), [(Code::Cs0103, Error, 7, 1)]);
}

#[test]
fn cs0104_key_broken_over_lines() {
    let wrapped = |text: &str, width: usize| {
        let chunks: Vec<_> = text
            .as_bytes()
            .chunks(width)
            .map(String::from_utf8_lossy)
            .collect();
        chunks.join("\n")
    };
    let jwk = PrivateJwk::write_pretty(&key(), &KeyId::new("k").unwrap());
    let base64 = wrapped(&BASE64_STANDARD.encode(jwk.expose()), 76);
    let report = Folder::new().check(format!("{KEY}={base64}\n"));
    assert_eq!(rows(&report.findings), [(Code::Cs0104, Error, 1, 52)]);
    assert_eq!(report.ignored, []);

    let pretty = PublicJwk::write_pretty(key().verifying_key(), &KeyId::new("k").unwrap());
    let lines = format!(
        "{D}.d.module=dpe\n{D}.d.security.roles=IMPERSONATION\n\
         {D}.d.security.jwt-keys.key.fingerprint=k\n{D}.d.security.jwt-keys.key.content={pretty}\n"
    );
    let report = Folder::new().check(good() + &lines);
    let broken = report
        .findings
        .iter()
        .find(|f| f.code() == Code::Cs0104)
        .unwrap();
    assert_eq!(row(broken), (Code::Cs0104, Error, 11, 67));
    assert!(
        broken
            .help()
            .unwrap()
            .contains("content={\"kty\":\"EC\",\"crv\":\"P-256\"")
    );
}

#[test]
fn cs0104_backslash_that_swallows_the_next_line() {
    let found = after(|text| text.replace(".module=dpe\n", ".module=dpe\\\n"));

    assert!(found.contains(&(Code::Cs0104, Error, 2, 50)), "{found:?}");
    assert!(found.contains(&(Code::Cs0301, Error, 2, 50)), "{found:?}");
}

#[test]
fn cs0105_trailing_blank_and_inline_comment() {
    let found = after(|text| text.replace(".module=dpe\n", ".module=dpe  \n"));
    assert_eq!(found, [(Code::Cs0105, Warning, 2, 53)]);

    let found = after(|text| text.replace("is-revoked=false", "is-revoked=false # not revoked"));
    assert_eq!(found[0], (Code::Cs0306, Error, 6, 76));
    assert_eq!(found[1], (Code::Cs0105, Warning, 6, 82));
}

#[test]
fn cs0106_unknown_name_with_the_nearest_one() {
    for (wrong, right) in [
        ("is-revokd", "is-revoked"),
        ("is-revoke", "is-revoked"),
        ("revoked", "is-revoked"),
        ("is_revokd", "is-revoked"),
        ("fingerprnt", "fingerprint"),
        ("contents", "content"),
    ] {
        let line = format!("{D}.dpe-dev.security.jwt-keys.key.{wrong}=true\n");
        let report = Folder::new().check(good() + &line);
        assert_eq!(
            rows(&report.findings),
            [(Code::Cs0106, Error, 8, 1)],
            "{wrong}"
        );
        let found = report.findings.iter().next().unwrap();
        let meant = format!("write `{D}.dpe-dev.security.jwt-keys.key.{right}`");
        assert_eq!(found.help(), Some(meant.as_str()));
    }
    for line in [
        format!("{D}.dpe-dev.securty.roles=A\n"),
        format!("{D}.a.b.module=dpe\n"),
        "ataccama.authentication.internal.jwt.generator.kez=x\n".to_owned(),
        "countersign.tokn.leeway=3s\n".to_owned(),
        "countersign.reloads=true\n".to_owned(),
    ] {
        assert_eq!(with(&line), [(Code::Cs0106, Error, 8, 1)], "{line}");
    }
    assert_eq!(
        with("countersign.deployments.other.single-use-tokens=true\n"),
        [(Code::Cs0106, Error, 8, 1)]
    );
}

#[test]
fn cs0107_name_that_may_be_ours() {
    for line in [
        "atacama.one.platform.deployments.dpe-dev.module=dpe\n",
        "ataccama.one.platform.deployment.dpe-dev.module=dpe\n",
        "countersing.reload=true\n",
        "server.prt=8031\n",
        "ataccama.server.grpc.prot=8531\n",
    ] {
        assert_eq!(with(line), [(Code::Cs0107, Warning, 8, 1)], "{line}");
    }
}

#[cfg(unix)]
#[test]
fn cs0108_private_key_that_others_can_read_or_write() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    for (mode, found) in [
        (0o600, vec![]),
        (0o640, vec![]),
        (0o644, vec![(Code::Cs0108, Warning, 1, 1)]),
        (0o660, vec![(Code::Cs0108, Error, 1, 1)]),
        (0o666, vec![(Code::Cs0108, Error, 1, 1)]),
    ] {
        let file = folder.write("a", good());
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();

        assert_eq!(
            rows(&check(&[file], &[]).unwrap().findings),
            found,
            "{mode:o}"
        );
    }
}

#[test]
fn cs0109_list_index() {
    for index in ["2", "-1", "1024", "4294967296", "a", "0"] {
        let line = format!("{D}.dpe-dev.security.roles[{index}]=A\n");
        let found = with(&line);
        assert!(
            found.contains(&(Code::Cs0109, Error, 8, 1)),
            "{index} {found:?}"
        );
    }
}

#[test]
fn cs0110_backslashes() {
    assert_eq!(
        with("ataccama.server.grpc.tls.private-key=C:\\tls\\new.pem\n"),
        [(Code::Cs0110, Note, 8, 38)]
    );
    let found = after(|text| {
        text.replace("content={\"", "content={\\\\\"")
            .replace("\":\"", "\\\\\":\\\\\"")
            .replace("\",\"", "\\\\\",\\\\\"")
            .replace("\"}", "\\\\\"}")
    });
    assert_eq!(found, [(Code::Cs0110, Note, 5, 73)]);
}

#[test]
fn cs0111_placeholders() {
    for value in [
        "${none}",
        "${server.port}",
        &format!("${{{KEY}}}"),
        "${a.self}",
    ] {
        let found = with(&format!("a.self=${{a.self}}\nserver.port={value}\n"));
        assert_eq!(found, [(Code::Cs0111, Error, 9, 13)], "{value}");
    }
    assert_eq!(with("foreign=${none}\nserver.port=${some.port:8031}\n"), []);
}

#[test]
fn cs0201_content_that_is_no_key() {
    for content in [
        "x",
        "[]",
        "{\"keys\":[]}",
        "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
        "-----BEGIN PUBLIC KEY-----",
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}",
    ] {
        let jwt_key = format!("{D}.dpe-dev.security.jwt-keys.key2");
        let lines = format!("{jwt_key}.fingerprint=k\n{jwt_key}.content={content}\n");
        let found = with(&lines);
        assert_eq!(found.len(), 1, "{content} {found:?}");
        assert_eq!(
            (found[0].0, found[0].1, found[0].2),
            (Code::Cs0201, Error, 9)
        );
    }
}

#[test]
fn cs0202_fingerprint_of_another_key() {
    let found = after(|text| {
        let line = text.lines().nth(3).unwrap().to_owned();
        text.replace(
            &line,
            &format!("{D}.dpe-dev.security.jwt-keys.key.fingerprint=other"),
        )
    });

    assert_eq!(found, [(Code::Cs0202, Error, 4, 77)]);
}

#[test]
fn cs0203_private_key_of_a_peer() {
    let peer = key();
    let private = PrivateJwk::write(&peer, &kid(&peer));
    for json in [
        private.expose().clone(),
        private.expose().replace("{\"kty", "{kty"),
    ] {
        let jwt_key = format!("{D}.dpe-dev.security.jwt-keys.key2");
        let lines = format!("{jwt_key}.fingerprint=k\n{jwt_key}.content={json}\n");
        assert_eq!(with(&lines), [(Code::Cs0203, Error, 9, 74)]);
    }
}

/// Checks a file whose own key is `text`.
fn own(text: &str) -> Vec<Row> {
    let rest = deployment("dpe-dev", "dpe", &key());
    rows(
        &Folder::new()
            .check(format!("{KEY}={text}\n{rest}"))
            .findings,
    )
}

#[test]
fn cs0204_own_key_that_cannot_sign() {
    let (one, other) = (key(), key());
    let mixed = PrivateJwk::write(&one, &kid(&one))
        .expose()
        .replace(&one.verifying_key().x(), &other.verifying_key().x());
    let swapped = PrivateJwk::write(&one, &kid(&one))
        .expose()
        .replace(&one.verifying_key().x(), &other.verifying_key().x())
        .replace(&one.verifying_key().y(), &other.verifying_key().y());
    for json in [content(&one), mixed, swapped, "{\"kty\":\"EC\"".to_owned()] {
        let found = own(&BASE64_STANDARD.encode(&json));
        assert_eq!(found, [(Code::Cs0204, Error, 1, 52)], "{json}");
    }
}

#[test]
fn cs0205_unusual_but_consistent_keys() {
    let peer = key();
    let thumbprint = KeyId::new(&peer.verifying_key().thumbprint()).unwrap();
    let jwk = PublicJwk::write(peer.verifying_key(), &thumbprint);
    let jwt_key = format!("{D}.dpe-dev.security.jwt-keys.key2");
    let lines = format!("{jwt_key}.fingerprint={thumbprint}\n{jwt_key}.content={jwk}\n");
    assert_eq!(with(&lines), [(Code::Cs0205, Note, 9, 74)]);

    let jwk = jwk
        .replace(",\"alg\":\"ES256\"", "")
        .replace(&format!("\"kid\":\"{thumbprint}\","), "");
    let lines = format!("{jwt_key}.fingerprint={thumbprint}\n{jwt_key}.content={jwk}\n");
    assert_eq!(with(&lines), [(Code::Cs0205, Note, 9, 74); 3]);

    let raw = PrivateJwk::write(&peer, &kid(&peer));
    assert_eq!(own(raw.expose()), [(Code::Cs0205, Note, 1, 52)]);
}

#[test]
fn cs0206_another_thing_in_place_of_the_own_key() {
    let set = BASE64_STANDARD.encode("{\"keys\":[]}");
    let rsa = BASE64_STANDARD.encode("{\"kty\":\"RSA\",\"d\":\"AQAB\"}");
    for (text, named) in [
        ("", "nothing"),
        ("<generated_key>", "template"),
        ("${MY_KEY}", "placeholder"),
        ("crypted:AES:AAAA", "encrypted"),
        ("file:key.jwk", "file name"),
        ("-----BEGIN PRIVATE KEY-----", "PEM"),
        (&set, "set of keys"),
        (&rsa, "RSA"),
        ("not base64!", "something else"),
    ] {
        let rest = deployment("dpe-dev", "dpe", &key());
        let report = Folder::new().check(format!("{KEY}={text}\n{rest}"));
        assert_eq!(
            rows(&report.findings),
            [(Code::Cs0206, Error, 1, 52)],
            "{text}"
        );
        let message = report.findings.iter().next().unwrap().message().to_owned();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn cs0207_own_key_among_the_trusted() {
    let both = key();
    let text = own_line(&both) + &deployment("dpe-dev", "dpe", &both);

    let found = rows(&Folder::new().check(text).findings);

    assert_eq!(found, [(Code::Cs0207, Error, 4, 77)]);
}

#[test]
fn cs0208_one_key_in_two_deployments() {
    let peer = key();
    let text = own_line(&key()) + &deployment("a", "dpe", &peer) + &deployment("b", "dpe", &peer);

    let found = rows(&Folder::new().check(text).findings);

    assert_eq!(found, [(Code::Cs0208, Error, 10, 71)]);
}

#[test]
fn cs0301_missing_parts_of_a_deployment() {
    for (line, place) in [
        (2, (3, 1)), // module
        (4, (4, 1)), // fingerprint
        (5, (4, 1)), // content
    ] {
        let found = after(|text| {
            let kept = text.lines().enumerate().filter(|(n, _)| n + 1 != line);
            kept.flat_map(|(_, text)| [text, "\n"]).collect()
        });
        let expected = if line == 2 { (2, 1) } else { place };
        assert_eq!(
            found,
            [(Code::Cs0301, Error, expected.0, expected.1)],
            "{line}"
        );
    }
    assert_eq!(
        with(&format!(
            "{D}.empty.module=dpe\n{D}.empty.security.roles=IMPERSONATION\n"
        )),
        [(Code::Cs0301, Error, 8, 1)]
    );
    let found = after(|text| text.replace("deployments.dpe-dev.", "deployments.dpe_dev."));
    assert_eq!(found, [(Code::Cs0301, Error, 2, 1)]);
    let found = after(|text| text.replace("module=dpe", "module=d p e"));
    assert_eq!(found, [(Code::Cs0301, Error, 2, 50)]);
}

#[test]
fn cs0301_file_without_an_own_key() {
    let folder = Folder::new();
    let text = deployment("dpe-dev", "dpe", &key());
    assert_eq!(
        rows(&folder.check(&text).findings),
        [(Code::Cs0301, Warning, 1, 1)]
    );

    let error = load(&folder.write("run", &text)).unwrap_err();
    assert_eq!(
        rows(error.findings().unwrap()),
        [(Code::Cs0301, Error, 1, 1)]
    );

    for (text, kind) in [
        ("", ""),
        ("<html></html>", "HTML"),
        ("{\"a\": 1}", "JSON"),
        ("ataccama:\n  one: 1\n", "YAML"),
    ] {
        let report = folder.check(text);
        assert_eq!(
            rows(&report.findings),
            [(Code::Cs0301, Error, 1, 1)],
            "{text}"
        );
        assert!(
            report
                .findings
                .iter()
                .next()
                .unwrap()
                .message()
                .contains(kind)
        );
    }
}

#[test]
fn cs0302_all_keys_revoked() {
    let found = after(|text| text.replace("is-revoked=false", "is-revoked=true"));

    assert_eq!(found, [(Code::Cs0302, Warning, 4, 77)]);
}

#[test]
fn cs0303_without_the_impersonation_role() {
    let found = after(|text| text.replace("roles[0]=IMPERSONATION", "roles[0]=OTHER"));
    assert_eq!(found, [(Code::Cs0303, Warning, 7, 61)]);

    let found = after(|text| text.lines().take(6).flat_map(|l| [l, "\n"]).collect());
    assert_eq!(found, [(Code::Cs0303, Warning, 2, 1)]);
}

#[test]
fn cs0304_names_that_are_one() {
    let other = deployment("DPE-DEV", "dpe", &key());
    assert_eq!(with(&other), [(Code::Cs0304, Error, 8, 1)]);
}

#[test]
fn cs0305_recognised_and_not_used() {
    for line in [
        "ataccama.authentication.keycloak.base-url=http://localhost\n",
        "ataccama.config-service.runtime=mandatory\n",
        "ataccama.server.tls.key-store=file:a.p12\n",
        "logging.level.root=INFO\n",
    ] {
        assert_eq!(with(line), [(Code::Cs0305, Note, 8, 1)], "{line}");
        let folder = Folder::new();
        let settings = load(&folder.write("a", good() + line)).unwrap();
        assert!(
            settings.findings.is_empty(),
            "a start says nothing about it"
        );
    }
}

#[test]
fn cs0306_values_of_a_wrong_type() {
    for line in [
        "server.port=80x\n",
        "server.port=70000\n",
        "countersign.token.leeway=301s\n",
        "ataccama.server.grpc.max-message-size=1gb\n",
        "countersign.proof.mode=sometimes\n",
        "countersign.server.address=my-host\n",
        "countersign.deployment.name=a.b\n",
        "countersign.registry.url=http://x\n",
        "ataccama.authentication.internal.jwt.impersonation-role=A B\n",
        "countersign.deployments.dpe-dev.allowed-addresses=10.0.0.0/33\n",
    ] {
        let column = u32::try_from(line.find('=').unwrap()).unwrap() + 2;
        assert_eq!(with(line), [(Code::Cs0306, Error, 8, column)], "{line}");
    }
    let found = after(|text| text.replace("is-revoked=false", "is-revoked="));
    assert_eq!(found[0], (Code::Cs0306, Error, 6, 76));
}

#[test]
fn cs0307_addresses_and_plaintext() {
    for line in [
        "countersign.server.address=0.0.0.0\n",
        "ataccama.one.dpe.service.hostname=my-host\n",
        "ataccama.client.connection.dpm.host=10.0.0.1\n",
    ] {
        let column = u32::try_from(line.find('=').unwrap()).unwrap() + 2;
        assert_eq!(with(line), [(Code::Cs0307, Error, 8, column)], "{line}");
    }
    let ports = "ataccama.server.grpc.port=8532\nataccama.one.dpe.service.port=8034\n";
    assert_eq!(with(ports), [(Code::Cs0307, Error, 9, 31)]);
    let open = "countersign.server.address=0.0.0.0\ncountersign.server.allow-plaintext=true\n";
    let unchecked = "ataccama.authentication.grpc.internal.jwt.enable=false\n";
    assert_eq!(
        with(&format!(
            "{open}ataccama.one.dpe.service.hostname=my-host\n"
        )),
        []
    );
    assert_eq!(
        with(&format!("{open}{unchecked}")),
        [(Code::Cs0307, Error, 10, 50)]
    );
    assert_eq!(with(unchecked), []);
}
