use super::*;

use crate::diagnostic::Severity::{Error, Note, Warning};
use crate::grpc::tls::{ClientAuth, PemFile, certificate_fingerprint};

pub(super) const SERVER: &str = "ataccama.server.grpc.tls";
pub(super) const CLIENT: &str = "ataccama.client.connection.dpm.grpc.tls";
pub(super) const BACK: &str = "ataccama.client.connection.dpe.grpc.tls";

impl Folder {
    /// Writes a certificate and its key; returns the fingerprint of the key.
    pub(in crate::config) fn certificate(&self, name: &str) -> String {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        self.write(&format!("{name}.pem"), made.cert.pem());
        self.write(&format!("{name}-key.pem"), made.signing_key.serialize_pem());
        certificate_fingerprint(made.cert.der())
            .unwrap()
            .to_string()
    }

    /// Adds `lines` to a good file of a DPM and loads it.
    fn load(&self, lines: &str) -> Result<Settings, crate::config::LoadError> {
        load(&self.write("application.properties", good() + lines))
    }
}

pub(super) fn named(settings: &str, name: &str) -> String {
    format!(
        "{settings}.enabled=true\n{settings}.cert-chain=file:{name}.pem\n\
         {settings}.private-key={name}-key.pem\n"
    )
}

pub(super) fn pin(deployment: &str, fingerprint: &str) -> String {
    format!("countersign.deployments.{deployment}.tls-keys.key.fingerprint={fingerprint}\n")
}

pub(super) fn other_pin() -> String {
    key().fingerprint().to_string()
}

/// The message of the one finding of `lines`, which start in line 8.
#[track_caller]
fn message(folder: &Folder, lines: &str, expected: Row) -> String {
    let report = folder.check(good() + lines);
    let text: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(rows(&report.findings), [expected], "{text:?}");
    text.concat()
}

#[test]
fn server_with_its_two_files_and_a_pin_has_no_findings() {
    let folder = Folder::new();
    folder.certificate("a");
    let lines = named(SERVER, "a") + &named(BACK, "a") + &pin("dpe-dev", &other_pin());

    let settings = folder.load(&lines).unwrap();

    let server = settings.options.tls.server.options.clone().unwrap();
    let file = |name: &str, property: &str| PemFile {
        path: folder.0.path().join(name),
        setting: format!("{SERVER}.{property}"),
    };
    assert_eq!(server.own.cert_chain, file("a.pem", "cert-chain"));
    assert_eq!(server.own.private_key, file("a-key.pem", "private-key"));
    assert_eq!((server.client_auth, server.trust), (None, None));
    assert!(settings.options.tls.client("dpe").unwrap().own.is_some());
    assert_eq!(settings.deployments[0].tls_pins.len(), 1);
}

#[test]
fn each_property_comes_from_the_most_specific_place_that_has_it() {
    let folder = Folder::new();
    folder.certificate("a");
    folder.certificate("b");
    let chain = [
        CLIENT,
        "ataccama.client.connection.dpm.tls",
        "ataccama.client.grpc.tls",
        "ataccama.client.tls",
    ];
    let [first, second, third, last] = chain;
    let lines = format!(
        "{last}.trust-cert-collection=a.pem\n{last}.cert-chain=b.pem\n{last}.on=false\n\
         {third}.on=true\n{third}.private-key=b-key.pem\n{third}.cert-chain=b.pem\n\
         {second}.privateKey=a-key.pem\n{first}.certChain=a.pem\n"
    );

    let settings = folder.load(&lines).unwrap();

    let tls = settings.options.tls.client("dpm").unwrap();
    let own = tls.own.unwrap();
    assert_eq!(own.cert_chain.setting, format!("{first}.cert-chain"));
    assert_eq!(own.private_key.setting, format!("{second}.private-key"));
    assert!(own.cert_chain.path.ends_with("a.pem"));
    let trust = tls.trust.unwrap();
    assert_eq!(trust.setting, format!("{last}.trust-cert-collection"));
    // The dial-back falls back to what is for every connection.
    let back = settings.options.tls.client("dpe").unwrap().own.unwrap();
    assert_eq!(back.cert_chain.setting, format!("{third}.cert-chain"));
}

#[test]
fn tls_that_is_off_for_one_connection_is_off() {
    let folder = Folder::new();
    let lines =
        format!("ataccama.client.tls.enabled=true\n{CLIENT}.enabled=false\n{BACK}.enabled=false\n");

    let settings = folder.load(&lines).unwrap();

    assert_eq!(settings.options.tls.client("dpm"), None);
    assert_eq!(settings.options.tls.client("dpe"), None);
}

#[test]
fn words_for_client_certificates_are_read_in_any_case_and_spelling() {
    let folder = Folder::new();
    folder.certificate("a");
    let cases = [
        ("mtls=none", ClientAuth::None),
        ("mTls=NONE", ClientAuth::None),
        ("m-tls=Optional", ClientAuth::Optional),
        ("mtls=require", ClientAuth::Require),
        ("mtls=REQUIRED", ClientAuth::Require),
    ];
    for (line, expected) in cases {
        let lines = named(SERVER, "a")
            + &format!("{SERVER}.{line}\n{SERVER}.trust-cert-collection=a.pem\n");

        let settings = folder.load(&lines).unwrap();

        let auth = settings.options.tls.server.options.unwrap().client_auth;
        assert_eq!(auth, Some(expected), "{line}");
    }
    let wrong = message(
        &folder,
        &(named(SERVER, "a") + &format!("{SERVER}.mtls=maybe\n")),
        (Code::Cs0306, Error, 11, 31),
    );
    assert!(wrong.contains("`maybe`"), "{wrong}");
}

#[test]
fn cs0306_tls_without_a_certificate() {
    let folder = Folder::new();
    let on = format!("{SERVER}.enabled=true\n");

    let missing = message(&folder, &on, (Code::Cs0306, Error, 8, 34));
    folder.certificate("a");
    let half = message(
        &folder,
        &format!("{on}{SERVER}.cert-chain=a.pem\n"),
        (Code::Cs0306, Error, 9, 37),
    );
    let client = message(
        &folder,
        &format!("{BACK}.enabled=true\n{BACK}.mtls=true\n"),
        (Code::Cs0306, Error, 9, 46),
    );

    assert!(missing.contains("countersign pair --tls"), "{missing}");
    assert!(
        half.contains(&format!("`{SERVER}.private-key` is missing")),
        "{half}"
    );
    assert!(
        client.contains("a client certificate is to be shown"),
        "{client}"
    );
}

#[test]
fn cs0306_files_that_cannot_be_used_are_named_with_the_reason() {
    let folder = Folder::new();
    folder.certificate("a");
    folder.certificate("b");
    folder.write("text.pem", "no certificate");
    let chain = |value: &str| {
        format!(
            "{SERVER}.enabled=true\n{SERVER}.cert-chain={value}\n{SERVER}.private-key=a-key.pem\n"
        )
    };
    let at_chain = |severity| (Code::Cs0306, severity, 9, 37);
    let at_key = (Code::Cs0306, Error, 10, 38);
    let cases = [
        (
            chain("classpath:a.pem"),
            at_chain(Error),
            "inside of a Java archive",
        ),
        (
            chain("file://host/a.pem"),
            at_chain(Error),
            "on a different host",
        ),
        (chain("gone.pem"), at_chain(Error), "cannot be read"),
        (
            chain("text.pem"),
            at_chain(Error),
            "holds no PEM certificate",
        ),
        (
            chain("a-key.pem"),
            at_chain(Error),
            "holds no PEM certificate",
        ),
        (
            chain("b.pem"),
            at_key,
            "does not belong to the first certificate",
        ),
        (
            chain("a.pem").replace("a-key.pem", "a.pem"),
            at_key,
            "holds no unencrypted PEM private key",
        ),
        (
            named(SERVER, "a") + &format!("{SERVER}.trust-cert-collection=text.pem\n"),
            (Code::Cs0306, Error, 11, 48),
            "holds no PEM certificate",
        ),
    ];
    for (lines, expected, part) in cases {
        let found = message(&folder, &lines, expected);

        assert!(found.contains(part), "{part}: {found}");
        // A fault that is only a note in `check` still prevents the start of a module.
        assert!(folder.load(&lines).is_err(), "{part}");
    }
}

#[cfg(unix)]
#[test]
fn cs0108_private_key_of_a_certificate_that_others_read() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    folder.certificate("a");
    let key = folder.0.path().join("a-key.pem");
    for (mode, severity) in [(0o644, Warning), (0o660, Error)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();

        let found = message(
            &folder,
            &named(SERVER, "a"),
            (Code::Cs0108, severity, 10, 38),
        );

        assert!(found.contains("chmod 600"), "{found}");
    }
}

#[test]
fn cs0305_what_is_not_done_for_a_certificate_is_explained() {
    let folder = Folder::new();

    let found = message(
        &folder,
        "ataccama.client.tls.trust-all=true\n",
        (Code::Cs0305, Note, 8, 1),
    );

    assert!(found.contains("certificates are always checked"), "{found}");
}

#[test]
fn cs0305_settings_without_effect_are_noted() {
    let folder = Folder::new();
    folder.certificate("a");
    for (lines, found) in [
        (format!("{SERVER}.mtls=require\n"), 1),
        (format!("{SERVER}.enabled=false\n{SERVER}.mtls=true\n"), 1),
        (format!("{SERVER}.mtls=none\n{CLIENT}.mtls=false\n"), 0),
        (
            format!("{SERVER}.cert-chain=a.pem\n{SERVER}.private-key=a-key.pem\n"),
            2,
        ),
        ("ataccama.client.tls.cert-chain=a.pem\n".to_owned(), 1),
    ] {
        let report = folder.check(good() + &lines);
        let mut rows = rows(&report.findings);
        rows.retain(|row| (row.0, row.1) == (Code::Cs0305, Note));
        assert_eq!(rows.len(), found, "{lines} {}", report.findings.len());
        assert_eq!(report.findings.errors(), 0, "{lines}");
    }
}

#[test]
fn cs0306_encrypted_private_key_comes_with_the_command_that_decrypts_it() {
    let folder = Folder::new();
    folder.certificate("a");
    for text in [
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ] {
        folder.write("a-key.pem", text);
        let report = folder.check(good() + &named(SERVER, "a"));
        let mut found = report.findings.iter();
        let found = found.find(|f| f.code == Code::Cs0306).unwrap();
        assert!(found.message.ends_with("is encrypted"), "{found}");
        assert!(
            found
                .help
                .as_ref()
                .unwrap()
                .contains("`openssl pkey -out key.pem -in "),
            "{found}"
        );
    }
}

#[test]
fn cs0306_tls_that_would_trust_no_peer() {
    let folder = Folder::new();
    folder.certificate("a");
    let back = message(
        &folder,
        &format!("{BACK}.enabled=true\n"),
        (Code::Cs0306, Error, 8, 49),
    );
    let required = message(
        &folder,
        &(named(SERVER, "a") + &format!("{SERVER}.mtls=require\n")),
        (Code::Cs0306, Error, 8, 34),
    );

    assert!(
        back.contains("the certificate to accept from deployment `dpe-dev`"),
        "{back}"
    );
    assert!(
        required.contains("would accept no certificate"),
        "{required}"
    );
}

#[test]
fn pins_that_do_not_identify_a_caller_are_errors() {
    let folder = Folder::new();
    let own = folder.certificate("a");
    let server = named(SERVER, "a") + &format!("{BACK}.enabled=true\n");
    let other = other_pin();
    let second = deployment("dpe-two", "dpe", &key());

    let no_pin = message(
        &folder,
        &(server.clone()
            + &pin("dpe-dev", "abc")
            + &format!("{BACK}.trust-cert-collection=a.pem\n")),
        (Code::Cs0306, Error, 12, 58),
    );
    let own_pin = message(
        &folder,
        &(server.clone() + &pin("dpe-dev", &own)),
        (Code::Cs0207, Error, 12, 58),
    );
    let twice = message(
        &folder,
        &(server + &pin("dpe-dev", &other) + &second + &pin("dpe-two", &other)),
        (Code::Cs0208, Error, 19, 58),
    );

    assert!(no_pin.contains("is not a fingerprint"), "{no_pin}");
    assert!(
        own_pin.contains("the module's own certificate"),
        "{own_pin}"
    );
    assert!(twice.contains("is also at"), "{twice}");
}

#[test]
fn cs0405_pinned_deployment_is_not_called_without_tls() {
    let folder = Folder::new();
    let lines = pin("dpe-dev", &other_pin());

    let found = message(&folder, &lines, (Code::Cs0405, Error, 8, 58));

    assert!(found.contains("would call it without TLS"), "{found}");
    assert!(folder.load(&lines).is_err());
}
