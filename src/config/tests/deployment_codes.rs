use super::*;

use crate::diagnostic::Severity::{Error, Note, Warning};
use crate::identity::ModuleType;

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

    for text in ["", "<html></html>", "{\"a\": 1}", "ataccama:\n  one: 1\n"] {
        let report = folder.check(text);
        assert_eq!(
            rows(&report.findings),
            [(Code::Cs0301, Error, 1, 1)],
            "{text}"
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
fn cs0304_own_name_is_a_peers() {
    assert_eq!(
        with("countersign.deployment.name=DPE-dev\n"),
        [(Code::Cs0304, Error, 8, 29)]
    );
}

#[test]
fn connection_that_leads_to_no_trusted_deployment() {
    let named = "countersign.client.connection.dpe.deployment=nope\n";
    assert_eq!(with(named), [(Code::Cs0106, Error, 8, 46)]);
    let host = "ataccama.client.connection.dpm.host=localhost\n";
    assert_eq!(with(host), [(Code::Cs0301, Warning, 8, 1)]);
    let first = deployment("dpm-dev", "dpm", &key());
    assert_eq!(with(&format!("{first}{host}")), []);
    let second = deployment("dpm-two", "dpm", &key());
    let both = format!("{first}{second}{host}");
    assert_eq!(with(&both), [(Code::Cs0301, Warning, 20, 1)]);
    let named = "countersign.client.connection.dpm.deployment=dpm-two\n";
    assert_eq!(with(&format!("{both}{named}")), []);
}

#[test]
fn connection_to_a_module_of_the_vendor_is_a_note_until_that_module_is_trusted() {
    for module in ["configservice", "config-service", "mmm", "storage"] {
        let place = format!("ataccama.client.connection.{module}");
        // Nothing dials it: a half or a far address is no fault of it.
        let far = format!("{place}.host=10.0.0.1\n");
        assert_eq!(with(&far), [(Code::Cs0305, Note, 8, 1)], "{module}");
        let folder = Folder::new();
        let settings = load(&folder.write("a", good() + &far)).unwrap();
        assert!(settings.findings.is_empty(), "a start does not repeat it");

        let local = format!("{place}.host=localhost\n{place}.grpc.port=8511\n");
        assert_eq!(with(&local), [(Code::Cs0305, Note, 8, 1)], "{module}");
        let trusted = deployment("one", module, &key());
        assert_eq!(with(&format!("{trusted}{local}")), []);
        let codes = error_codes(good() + &trusted + &far);
        assert_eq!(codes, [Code::Cs0301], "{module} needs its port");
        let chosen = format!("countersign.client.connection.{module}.deployment=dpe-dev\n");
        assert_eq!(with(&format!("{local}{chosen}")), []);
        assert_eq!(error_codes(good() + &far + &chosen), [Code::Cs0301]);
    }
}

#[test]
fn connection_to_any_other_module_that_is_not_trusted_still_warns() {
    for module in ["dpm", "dmp", "shop", "cofigservice", "mm"] {
        let place = format!("ataccama.client.connection.{module}");
        let local = format!("{place}.host=localhost\n{place}.grpc.port=8511\n");
        assert_eq!(with(&local), [(Code::Cs0301, Warning, 8, 1)], "{module}");
    }
    // Which of two is meant is a question of every module.
    let [one, two] = ["one", "two"].map(|name| deployment(name, "mmm", &key()));
    let mmm = "ataccama.client.connection.mmm";
    let both = format!("{one}{two}{mmm}.host=localhost\n{mmm}.grpc.port=8521\n");
    assert_eq!(with(&both), [(Code::Cs0301, Warning, 20, 1)]);
}

#[test]
fn dial_back_leads_to_the_engines_of_many_deployments() {
    let second = deployment("dpe-two", "dpe", &key());
    let tls = "ataccama.client.connection.dpe.grpc.tls.enabled=false\n";
    assert_eq!(with(&format!("{second}{tls}")), []);
}

#[test]
fn cs0306_tokens_that_live_longer_than_peers_accept() {
    let lifetime = "ataccama.authentication.internal.jwt.generator.token-expiration";
    assert_eq!(
        with(&format!("{lifetime}=901\n")),
        [(Code::Cs0306, Warning, 8, 65)]
    );
    assert_eq!(with(&format!("{lifetime}=900\n")), []);
}

#[test]
fn every_start_and_check_warns_of_what_is_open() {
    let open = "countersign.server.address=0.0.0.0\ncountersign.server.allow-plaintext=true\n";
    let unauthenticated = "ataccama.authentication.grpc.internal.jwt.enable=false\n";
    for (lines, expected) in [
        (open, (Code::Cs0307, Warning, 9, 36)),
        (unauthenticated, (Code::Cs0307, Warning, 8, 50)),
    ] {
        let folder = Folder::new();
        let settings = load(&folder.write("a", good() + lines)).unwrap();

        assert_eq!(rows(&settings.findings), [expected]);
        assert_eq!(with(lines), [expected]);
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
        "countersign.registry.url=file:\n",
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
fn cs0307_what_is_advertised_stands_unless_no_host_can_dial_it() {
    let [host, port] = ["hostname", "port"].map(|name| format!("ataccama.one.dpe.service.{name}"));
    for (name, value, severity) in [
        (&host, "my-host", Note),
        (&host, "10.0.0.1", Note),
        (&host, "0.0.0.0", Error),
        (&host, "::", Error),
        (&host, "::ffff:0.0.0.0", Error),
        (&port, "0", Error),
        (&port, "8034", Note),
    ] {
        let lines = format!("ataccama.server.grpc.port=8532\n{name}={value}\n");
        let column = u32::try_from(name.len()).unwrap() + 2;

        assert_eq!(
            with(&lines),
            [(Code::Cs0307, severity, 9, column)],
            "{lines}"
        );
        let folder = Folder::new();
        let loaded = load(&folder.write("a", good() + &lines));
        assert_eq!(loaded.is_ok(), severity == Note, "{lines}");
    }
    assert_eq!(with(&format!("{port}=8034\n")), []);
}

#[test]
fn one_way_engine_has_no_address_to_judge_and_notes_what_it_does_not_use() {
    let one_way = "countersign.dpe.one-way=true\n";
    for (line, found) in [
        ("", None),
        ("ataccama.one.dpe.service.hostname=my-host\n", None),
        ("ataccama.one.dpe.service.port=0\n", Some(Code::Cs0305)),
        ("ataccama.server.grpc.port=8532\n", Some(Code::Cs0305)),
        ("countersign.server.address=0.0.0.0\n", Some(Code::Cs0305)),
    ] {
        let found: Vec<_> = found.map(|code| (code, Note)).into_iter().collect();
        let all = with(&format!("{one_way}{line}"));

        let known: Vec<_> = all.iter().map(|row| (row.0, row.1)).collect();
        assert_eq!(known, found, "{line}");
        let folder = Folder::new();
        let file = folder.write("a", format!("{}{one_way}{line}", good()));
        let settings = Settings::load(&file, &ModuleKind::Dpe, [], &[]).unwrap();
        assert!(settings.options.engine.one_way, "{line}");
    }
}

#[test]
fn module_that_is_no_engine_is_not_one_way() {
    let folder = Folder::new();
    let file = folder.write("a", good() + "countersign.dpe.one-way=true\n");

    let ledger = ModuleKind::Other(ModuleType::new("ledger").unwrap());
    let refused = Settings::load(&file, &ledger, [], &[]).unwrap_err();

    let found = rows(refused.findings().unwrap());
    assert_eq!(found, [(Code::Cs0306, Error, 8, 25)]);
}

#[test]
fn cs0307_addresses_and_plaintext() {
    let open = "countersign.server.address=0.0.0.0\n";
    assert_eq!(with(open), [(Code::Cs0307, Error, 8, 28)]);
    let dialled = "ataccama.client.connection.dpm.host=10.0.0.1\n";
    assert_eq!(
        with(dialled),
        [
            (Code::Cs0301, Warning, 8, 1),
            (Code::Cs0307, Warning, 8, 37),
            (Code::Cs0307, Error, 8, 37)
        ]
    );
    let open = "countersign.server.address=0.0.0.0\ncountersign.server.allow-plaintext=true\n";
    let unchecked = "ataccama.authentication.grpc.internal.jwt.enable=false\n";
    assert_eq!(
        with(&format!(
            "{open}ataccama.one.dpe.service.hostname=my-host\n"
        )),
        [(Code::Cs0307, Warning, 9, 36)]
    );
    assert_eq!(
        with(&format!("{open}{unchecked}")),
        [
            (Code::Cs0307, Warning, 9, 36),
            (Code::Cs0307, Error, 10, 50)
        ]
    );
    // A name may lead back to this machine: check and start judge alike.
    let named = format!(
        "{}ataccama.client.connection.dpm.host=dpm-host\n",
        deployment("dpm-dev", "dpm", &key())
    );
    let expected = (Code::Cs0307, Warning, 14, 37);
    assert_eq!(with(&named), [expected; 2]);
    let settings = load(&Folder::new().write("a", good() + &named)).unwrap();
    assert_eq!(rows(&settings.findings), [expected; 2]);
}

/// `count` more keys of `dpe-dev`, three lines each.
pub(in crate::config) fn more_keys(count: usize) -> String {
    let one = |n| {
        let key = key();
        let below = format!("{D}.dpe-dev.security.jwt-keys.more{n}");
        let (kid, content) = (kid(&key), content(&key));
        format!("{below}.fingerprint={kid}\n{below}.content={content}\n{below}.is-revoked=false\n")
    };
    (0..count).map(one).collect()
}

#[test]
fn cs0309_eighth_active_key_is_refused_by_check_and_start() {
    let column = u32::try_from(format!("{D}.dpe-dev.security.jwt-keys.more6.fingerprint=").len());
    let eighth = (Code::Cs0309, Error, 26, column.unwrap() + 1);

    assert_eq!(with(&more_keys(6)), []);
    assert_eq!(with(&more_keys(7)), [eighth]);
    assert_eq!(error_codes(good() + &more_keys(7)), [Code::Cs0309]);
    // A revoked key needs no room.
    let revoked = more_keys(9).replacen("is-revoked=false", "is-revoked=true", 3);
    assert_eq!(with(&revoked), []);
}
