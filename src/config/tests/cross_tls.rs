use super::tls::{BACK, CLIENT, SERVER, named, other_pin, pin};
use super::*;

use crate::diagnostic::Severity::Error;

/// Two files with TLS, after `change`; per finding its file's name and its row.
fn both(change: impl Fn(&mut [String; 2], &[String; 2])) -> Vec<(String, Row, String)> {
    let folder = Folder::new();
    let (dpm, dpe) = (key(), key());
    let pins = [folder.certificate("m"), folder.certificate("e")];
    let mut texts = [
        own_line(&dpm)
            + &deployment("dpe-dev", "dpe", &dpe)
            + &named(SERVER, "m")
            + &named(BACK, "m")
            + &pin("dpe-dev", &pins[1]),
        own_line(&dpe)
            + &deployment("dpm-dev", "dpm", &dpm)
            + &named(SERVER, "e")
            + &named(CLIENT, "e")
            + &pin("dpm-dev", &pins[0]),
    ];
    change(&mut texts, &pins);
    let [dpm, dpe] = &texts;
    let files = [folder.write("dpm", dpm), folder.write("dpe", dpe)];
    let report = check(&files, &[]).unwrap();
    let reported = |finding: &Finding| {
        let file = match &finding.origin {
            Origin::File { path, .. } => path.file_name().unwrap().to_str().unwrap().to_owned(),
            other => other.to_string(),
        };
        (file, row(finding), finding.to_string())
    };
    report.findings.iter().map(reported).collect()
}

#[track_caller]
fn one(found: &[(String, Row, String)], file: &str, expected: Row, part: &str) {
    let [(at, row, text)] = found else {
        panic!("{found:#?}");
    };
    assert_eq!((at.as_str(), *row), (file, expected), "{text}");
    assert!(text.contains(part), "{text}");
}

#[test]
fn two_files_whose_pins_meet_have_no_findings() {
    assert_eq!(both(|_, _| ()), []);
}

#[test]
fn cs0405_pin_of_another_certificate() {
    let found = both(|[_, dpe], [dpm_pin, _]| *dpe = dpe.replace(dpm_pin, &other_pin()));

    one(
        &found,
        "dpe",
        (Code::Cs0405, Error, 14, 58),
        "is not pinned here for dpm-dev",
    );
}

#[test]
fn cs0405_caller_without_the_certificate_that_is_asked_for() {
    let found =
        both(|[_, dpe], _| dpe.push_str("ataccama.client.connection.dpm.grpc.tls.mtls=none\n"));

    one(
        &found,
        "dpe",
        (Code::Cs0405, Error, 12, 52),
        "requires a client certificate, but connection `dpm` does not present one",
    );
}

#[test]
fn cs0405_tls_on_one_side_only() {
    let off = format!("{CLIENT}.enabled=true");
    let found = both(|[_, dpe], [dpm_pin, _]| {
        *dpe = dpe.replace(&off, &format!("{CLIENT}.enabled=false"));
        *dpe = dpe.replace(&pin("dpm-dev", dpm_pin), "");
    });

    let reported = "connection `dpm` of";
    let row = (Code::Cs0405, Error, 8, 34);
    assert!(
        found
            .iter()
            .any(|(file, at, text)| file == "dpm" && *at == row && text.contains(reported)),
        "{found:#?}"
    );
}
