//! CS0308: the module's own certificates, with real dates.

use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

use super::tls::{BACK, CLIENT, SERVER, named, other_pin, pin};
use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::diagnostic::Severity::{Error, Note, Warning};
use crate::grpc::tls::certificate_fingerprint;

impl Folder {
    /// Writes a certificate for `localhost` after `change`, and its key; returns its fingerprint.
    pub(in crate::config) fn certificate_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> String {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        self.write(&format!("{name}.pem"), made.pem());
        self.write(&format!("{name}-key.pem"), key.serialize_pem());
        certificate_fingerprint(made.der()).unwrap().to_string()
    }
}

pub(in crate::config) fn expired(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2021, 1, 1);
}

fn of_authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

/// Lets a certificate expire in so many days and an hour.
fn for_days(days: u64) -> impl FnOnce(&mut CertificateParams) {
    let now = SystemClock.now().duration_since(UNIX_EPOCH).unwrap();
    let left = Duration::from_secs(days * 86_400 + 3_600);
    move |params| params.not_after = date_time_ymd(1970, 1, 1) + now + left
}

/// The rows and texts of CS0308 in a good file with `lines`.
fn found(folder: &Folder, lines: &str) -> Vec<(Row, String)> {
    let report = folder.check(good() + lines);
    let found = report.findings.iter();
    let found = found.filter(|found| found.code == Code::Cs0308);
    found.map(|found| (row(found), found.to_string())).collect()
}

/// Returns `true` if a module starts on a good file with `lines`.
fn starts(folder: &Folder, lines: &str) -> bool {
    load(&folder.write("application.properties", good() + lines)).is_ok()
}

#[test]
fn cs0308_certificates_that_peers_refuse_are_found_by_check_and_start() {
    type Change<'a> = &'a dyn Fn(&mut CertificateParams);

    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let nameless = |params: &mut CertificateParams| params.subject_alt_names.clear();
    let not_yet = |params: &mut CertificateParams| params.not_before = date_time_ymd(3999, 1, 1);
    let cases: [(Change<'_>, &str); 5] = [
        (&expired, "it has expired (expired 2"),
        (&not_yet, "it is not valid yet"),
        (
            &of_authority,
            "it is the certificate of an authority (CA:TRUE)",
        ),
        (
            &for_clients,
            "its extended key usage does not include this use",
        ),
        (&nameless, "it names no host (subjectAltName)"),
    ];
    for (change, why) in cases {
        let folder = Folder::new();
        let key = folder.certificate_with("a", change);
        let lines = named(SERVER, "a");

        let all = found(&folder, &lines);

        let [(row, text)] = all.as_slice() else {
            panic!("{why}: {all:?}");
        };
        assert_eq!(*row, (Code::Cs0308, Error, 9, 37), "{text}");
        assert!(text.contains(why), "{why}: {text}");
        let line = format!("countersign.deployments.<this module>.tls-keys.key.fingerprint={key}");
        assert!(text.contains(&line), "{text}");
        assert!(!starts(&folder, &lines), "{text}");
    }
}

#[test]
fn cs0308_is_a_warning_from_30_days_on() {
    for (days, expected) in [
        (31, None),
        (30, None),
        (29, Some(Warning)),
        (0, Some(Warning)),
    ] {
        let folder = Folder::new();
        folder.certificate_with("a", for_days(days));

        let all = found(&folder, &named(SERVER, "a"));

        let severity = all.first().map(|(row, _)| row.1);
        assert_eq!(severity, expected, "{days}: {all:?}");
        assert!(starts(&folder, &named(SERVER, "a")));
    }
}

#[test]
fn certificate_of_a_client_need_not_name_a_host() {
    let folder = Folder::new();
    folder.certificate_with("a", |params| {
        params.subject_alt_names.clear();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let lines = named(BACK, "a") + &format!("{BACK}.trust-cert-collection=a.pem\n");

    assert_eq!(found(&folder, &lines), []);
}

#[test]
fn cs0308_is_a_note_in_a_file_that_pins_every_peer() {
    let folder = Folder::new();
    folder.certificate_with("a", of_authority);
    let lines =
        named(SERVER, "a") + &pin("dpe-dev", &other_pin()) + &format!("{BACK}.enabled=true\n");
    let other = deployment("dpe-two", "dpe", &key());

    let all_pinned = found(&folder, &lines);
    let one_is_not = found(&folder, &(lines.clone() + &other));

    assert_eq!(all_pinned[0].0.1, Note, "{all_pinned:?}");
    assert_eq!(one_is_not[0].0.1, Error, "{one_is_not:?}");
    assert!(starts(&folder, &lines));
}

/// The severities of CS0308 in the DPM's file, whose certificate has expired, beside that of a DPE
/// with `lines`, where `{}` is the fingerprint of the certificate.
fn beside(lines: &str) -> Vec<Severity> {
    let folder = Folder::new();
    let (dpm, dpe) = (key(), key());
    let fingerprint = folder.certificate_with("m", expired);
    let texts = [
        own_line(&dpm) + &deployment("dpe-dev", "dpe", &dpe) + &named(SERVER, "m"),
        own_line(&dpe)
            + &deployment("dpm-dev", "dpm", &dpm)
            + &format!(
                "{CLIENT}.enabled=true\n{}",
                lines.replace("{}", &fingerprint)
            ),
    ];
    let [dpm, dpe] = texts;
    let files = [folder.write("dpm", dpm), folder.write("dpe", dpe)];
    let report = check(&files, &[]).unwrap();
    let found = report.findings.iter();
    let found = found.filter(|found| found.code == Code::Cs0308);
    found.map(|found| found.severity).collect()
}

#[test]
fn certificate_that_every_peer_pins_is_a_note() {
    assert_eq!(beside(&pin("dpm-dev", "{}")), [Note]);
}

#[test]
fn certificate_that_one_peer_does_not_pin_is_an_error() {
    assert_eq!(
        beside(&format!("{CLIENT}.trust-cert-collection=m.pem\n")),
        [Error]
    );
    assert_eq!(beside(&pin("dpm-dev", &other_pin())), [Error]);
}

#[test]
fn certificate_made_as_cs0308_explains_is_accepted() {
    let folder = Folder::new();
    let text = Code::Cs0308.explanation();
    let (_, command) = text.split_once("Example:").unwrap();
    let made = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder.path())
        .output();
    let Some(made) = made.ok().filter(|made| made.status.code() != Some(127)) else {
        eprintln!("skipped: no openssl");
        return;
    };
    assert!(made.status.success(), "{made:?}");
    let lines = format!(
        "{SERVER}.enabled=true\n{SERVER}.cert-chain=tls.pem\n{SERVER}.private-key=tls-key.pem\n"
    );

    assert_eq!(found(&folder, &lines), []);
    assert!(starts(&folder, &lines));
}
