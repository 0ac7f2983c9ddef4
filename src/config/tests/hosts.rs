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

const ADDRESSES: &str = "countersign.client.connection.dpm.addresses";
const PLAINTEXT: &str = "countersign.client.allow-plaintext=true\n";

/// A DPE's file without a fault: its own key in line 1, `dpm-dev` in lines 2 to 7.
fn dpe() -> String {
    own_line(&key()) + &deployment("dpm-dev", "dpm", &key())
}

#[test]
fn addresses_of_a_connection_are_tried_in_their_order() {
    let folder = Folder::new();
    let line = format!("{ADDRESSES}=localhost:8531, DPM-2:8600,[::1]:1\n{PLAINTEXT}");
    let file = folder.write("application.properties", dpe() + &line);

    let settings = load(&file).unwrap();

    let dpm = settings.options.client.connection("dpm").unwrap();
    let targets: Vec<_> = dpm.targets().map(ToString::to_string).collect();
    assert_eq!(targets, ["localhost:8531", "dpm-2:8600", "[::1]:1"]);
    assert!(dpm.is_written);
}

#[test]
fn addresses_make_a_connection_of_any_name() {
    let folder = Folder::new();
    let ledger = deployment("ledger-dev", "ledger", &key());
    let line = "countersign.client.connection.ledger.addresses[0]=localhost:1\n";
    let file = folder.write("application.properties", dpe() + &ledger + line);

    let settings = load(&file).unwrap();

    assert_eq!(
        settings.findings.iter().count(),
        0,
        "{:?}",
        settings.findings
    );
    let ledger = settings.options.client.connection("ledger").unwrap();
    assert_eq!(ledger.target.to_string(), "localhost:1");
}

#[test]
fn each_address_has_a_host_and_a_port_and_is_there_once() {
    let many: Vec<_> = (1..=17).map(|port| format!("localhost:{port}")).collect();
    let long = format!("{}:1", "a.".repeat(10_000));
    for (wrong, why) in [
        ("", "names no address"),
        ("dpm", "is not of the form"),
        ("localhost:1,,", "is not of the form"),
        ("::1:8531", "is not of the form"),
        ("dpm:", "has no port"),
        ("dpm:0", "has no port"),
        ("dpm:65536", "has no port"),
        ("dpm:+1", "has no port"),
        ("dpm:0x1", "has no port"),
        ("http://dpm:8531", "is not of the form"),
        ("[dpm]:8531", "has no valid host"),
        (":8531", "has no valid host"),
        ("localhost:1,LOCALHOST:1", "is there twice"),
        ("[::1]:1,[::1]:1", "is there twice"),
        (&long, "has no valid host"),
        (&many.join(","), "is one of more than 16"),
    ] {
        let folder = Folder::new();
        let report = folder.check(dpe() + &format!("{ADDRESSES}={wrong}\n{PLAINTEXT}"));

        let found: Vec<_> = report.findings.iter().collect();
        let [found] = *found else {
            panic!("{wrong}: {found:?}");
        };
        assert_eq!(found.code, Code::Cs0306, "{wrong}");
        assert!(found.message.contains(why), "{wrong}: {}", found.message);
        assert!(matches!(found.origin, Origin::File { line: 8, .. }));
        load(&folder.path().join("application.properties")).unwrap_err();
    }
}

#[test]
fn addresses_exclude_a_host_and_a_port() {
    for other in ["host=localhost", "grpc.port=8600"] {
        let other = format!("ataccama.client.connection.dpm.{other}\n");
        let line = format!("{ADDRESSES}=localhost:1,localhost:2\n");

        let found = rows(&Folder::new().check(dpe() + &line + &other).findings);

        assert_eq!(found.len(), 1, "{other}: {found:?}");
        assert_eq!(found[0].0, Code::Cs0306);
    }
}

#[test]
fn each_address_beyond_loopback_needs_tls() {
    let line = format!("{ADDRESSES}=localhost:1,10.0.0.1:1,dpm:1\n");
    let open = "countersign.server.address=0.0.0.0\ncountersign.server.allow-plaintext=true\n";
    let folder = Folder::new();
    let report = folder.check(dpe() + open + &line);

    let mut dialled = report
        .findings
        .iter()
        .filter(|found| found.message.contains("would be dialled without TLS"));
    let (address, name) = (dialled.next().unwrap(), dialled.next().unwrap());

    assert_eq!(dialled.next(), None);
    assert!(address.message.contains("10.0.0.1"), "{}", address.message);
    assert_eq!(address.severity, Severity::Error);
    assert!(name.message.contains("dpm"), "{}", name.message);
    assert_ne!(name.severity, Severity::Error);
}
