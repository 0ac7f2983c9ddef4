//! A host is a name or an address, and nothing else.

use super::*;

const DPM_HOST: &str = "ataccama.client.connection.dpm.host";
const OWN_HOST: &str = "ataccama.one.dpe.service.hostname";

#[test]
fn host_is_a_name_or_an_address_and_nothing_else() {
    let wrong = [
        "http://dpm",
        "dpm:8531",
        "https://user@dpm:8531/x",
        "dpm/",
        "\"dpm\"",
        "a..b",
        "d p m",
        "",
    ];
    for setting in [DPM_HOST, OWN_HOST] {
        for host in wrong {
            let folder = Folder::new();
            let line = format!("{setting}={host}\ncountersign.client.allow-plaintext=true\n");
            let report = folder.check(good() + &line);

            let found: Vec<_> = report
                .findings
                .iter()
                .filter(|f| f.code == Code::Cs0306)
                .collect();
            assert_eq!(found.len(), 1, "{setting}={host}: {:?}", report.findings);
            assert_eq!(found[0].severity, Severity::Error);
            let file = folder.path().join("application.properties");
            Settings::load(&file, &ModuleKind::Dpe, [], &[]).unwrap_err();
        }
        for host in [
            "my_dpe_1",
            "dpm",
            "dpm.example.com",
            "10.1.2.3",
            "[::1]",
            "::1",
        ] {
            let folder = Folder::new();
            let line = format!(
                "{setting}={host}\ncountersign.client.allow-plaintext=true\ncountersign.server.address=0.0.0.0\ncountersign.server.allow-plaintext=true\n"
            );
            let report = folder.check(good() + &line);
            assert_eq!(
                report.findings.errors(),
                0,
                "{setting}={host}: {:?}",
                report.findings
            );
        }
    }
}

#[test]
fn connection_with_half_an_address_is_an_error() {
    for (given, missing) in [("host=ledger", "grpc.port"), ("grpc.port=8600", "host")] {
        let text = good() + "ataccama.client.connection.ledger." + given + "\n";
        let folder = Folder::new();
        let report = folder.check(text);

        let found = report
            .findings
            .iter()
            .find(|f| f.severity == Severity::Error)
            .unwrap();
        assert_eq!(found.code, Code::Cs0301, "{given}");
        let setting = format!("ataccama.client.connection.ledger.{missing}");
        assert_eq!(
            found.help.as_deref(),
            Some(&*format!("write `{setting}=`")),
            "{given}"
        );
        load(&folder.path().join("application.properties")).unwrap_err();
    }
    // The DPM's has a default for both.
    let text = good() + "ataccama.client.connection.dpm.grpc.port=8600\n";
    assert_eq!(Folder::new().check(text).findings.errors(), 0);
}
