use super::*;

use crate::diagnostic::Severity::{Error, Note, Warning};

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
    let element = format!("{D}.dpe-dev.security.roles[0]=A\n");
    let found = with(&element);
    assert!(found.contains(&(Code::Cs0103, Error, 8, 1)), "{found:?}");
    assert!(found.iter().all(|row| row.0 != Code::Cs0109), "{found:?}");
}

#[test]
fn cs0103_every_setting_that_decides_trust_or_exposure() {
    let tls = [
        "ataccama.server.grpc.tls",
        "ataccama.server.tls",
        "ataccama.client.connection.dpm.grpc.tls",
        "ataccama.client.connection.dpm.tls",
        "ataccama.client.grpc.tls",
        "ataccama.client.tls",
    ];
    let mut pairs = Vec::new();
    for prefix in tls {
        for (one, other) in [
            ("enabled=true", "enabled=false"),
            ("on=false", "enabled=true"),
            ("mtls=require", "mtls=none"),
            ("cert-chain=a.pem", "certChain=b.pem"),
            ("private-key=a.pem", "private-key=b.pem"),
            ("trust-cert-collection=a", "trust-cert-collection=b"),
        ] {
            pairs.push((format!("{prefix}.{one}"), format!("{prefix}.{other}")));
        }
    }
    let role = "ataccama.authentication.internal.jwt.impersonation-role";
    let enable = "ataccama.authentication.grpc.internal.jwt.enable";
    let peer = "countersign.deployments.dpe-dev";
    for (name, one, other) in [
        ("server.address", "127.0.0.1", "0.0.0.0"),
        (role, "A", "B"),
        (enable, "true", "false"),
        ("countersign.deployment.name", "a", "b"),
        ("countersign.client.connection.dpm.deployment", "a", "b"),
        ("countersign.client.allow-plaintext", "false", "true"),
        ("countersign.server.address", "127.0.0.1", "0.0.0.0"),
        ("countersign.server.allow-plaintext", "false", "true"),
        (&format!("{peer}.allowed-addresses"), "10.0.0.0/8", "::/0"),
        (&format!("{peer}.allow-low-ports"), "false", "true"),
        (&format!("{peer}.single-use-tokens"), "true", "false"),
        (&format!("{peer}.tls-keys.k.fingerprint"), "a", "b"),
        ("countersign.token.leeway", "30s", "300s"),
        ("countersign.token.max-lifetime", "900s", "9000s"),
        ("countersign.token.replay", "strict", "off"),
        ("countersign.proof.mode", "every-call", "off"),
        ("countersign.rotation.previous-fingerprint", "a", "b"),
    ] {
        pairs.push((format!("{name}={one}"), format!("{name}={other}")));
    }
    for (one, other) in pairs {
        let found = with(&format!("{one}\n{other}\n"));
        assert!(
            found.contains(&(Code::Cs0103, Error, 9, 1)),
            "{one} {other} {found:?}"
        );
    }
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
        .find(|f| f.code == Code::Cs0104)
        .unwrap();
    assert_eq!(row(broken), (Code::Cs0104, Error, 11, 67));
    assert!(
        broken
            .help
            .as_ref()
            .unwrap()
            .contains("content={\"kty\":\"EC\",\"crv\":\"P-256\"")
    );
}

#[test]
fn cs0104_pem_over_lines_names_the_command_that_reads_it() {
    let pem = key().verifying_key().to_spki_pem();
    let report = Folder::new().check(after_content(&pem));

    let mut found = report.findings.iter();
    let found = found.find(|f| f.code == Code::Cs0104).unwrap();
    assert!(
        found
            .help
            .as_ref()
            .unwrap()
            .contains("`countersign key import`"),
        "{found}"
    );
}

/// A good file with another content of its key.
fn after_content(content: &str) -> String {
    let good = good();
    let line = good
        .lines()
        .find(|line| line.contains(".content="))
        .unwrap();
    let (name, _) = line.split_once('=').unwrap();
    good.replace(line, &format!("{name}={}", content.trim_end()))
}

#[test]
fn cs0104_backslash_that_swallows_the_next_line() {
    let found = after(|text| text.replace(".module=dpe\n", ".module=dpe\\\n"));

    assert!(found.contains(&(Code::Cs0104, Error, 2, 50)), "{found:?}");
    assert!(found.contains(&(Code::Cs0301, Error, 2, 50)), "{found:?}");
}

#[test]
fn cs0301_own_key_missing_is_an_error_where_the_file_is_no_mere_list_of_peers() {
    let peer = deployment("dpe-dev", "dpe", &key());
    let alone = Folder::new().check(&peer);
    assert_eq!(rows(&alone.findings), [(Code::Cs0301, Warning, 1, 1)]);
    for line in [
        "countersign.deployment.name=dpm-dev",
        "ataccama.server.grpc.port=8531",
        "ataccama.authentication.internal.jwt.generator.token-expiration=300",
    ] {
        let report = Folder::new().check(format!("{peer}{line}\n"));
        assert_eq!(
            rows(&report.findings),
            [(Code::Cs0301, Error, 1, 1)],
            "{line}"
        );
    }
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
        assert_eq!(found.help.as_deref(), Some(meant.as_str()));
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
    for index in ["2", "-1", "1024", "4294967296", "a"] {
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
        [(Code::Cs0305, Note, 8, 38), (Code::Cs0110, Note, 8, 38)]
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
fn cs0111_placeholders_in_settings_that_are_not_read() {
    let uri = format!("{D}.dpe-dev.uri");
    let tls = "countersign.deployments.dpe-dev.tls-keys.k.fingerprint";
    for name in [uri.as_str(), tls] {
        for value in ["${none}", "${a.self}", &format!("${{{KEY}}}")] {
            let found = with(&format!("a.self=${{a.self}}\n{name}={value}\n"));
            let column = u32::try_from(name.len()).unwrap() + 2;
            assert_eq!(found, [(Code::Cs0111, Error, 9, column)], "{name}={value}");
        }
    }
}

#[test]
fn cs0111_private_key_copied_to_a_foreign_name() {
    let copies = format!("foo=${{{KEY}}}\nbar=x-${{none:${{{KEY}}}}}\nbaz=${{none}}\n");

    assert_eq!(
        with(&copies),
        [(Code::Cs0111, Error, 8, 5), (Code::Cs0111, Error, 9, 5)]
    );
}
