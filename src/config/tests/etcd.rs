//! A registry in etcd, and how it is called.

use super::super::settings::{EtcdSettings, RegistryStore};
use super::*;

use crate::diagnostic::Severity::{Error, Note};

const NAME: &str = "countersign.deployment.name=dpm-dev\n";
const URL: &str = "countersign.registry.url=etcd://";
const E: &str = "countersign.registry.etcd";

/// What the file with `lines` says of etcd, and what is wrong with it, but that this build has no
/// store there. `pem` in it is the folder of `cert.pem`, `key.pem` and `trust.pem`.
fn read(lines: &str) -> (Option<EtcdSettings>, Vec<(Code, Severity, String)>) {
    let folder = Folder::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, text) in [
        ("cert.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
        ("trust.pem", made.cert.pem()),
    ] {
        folder.write(name, text);
    }
    let report = folder.check(good() + NAME + lines);
    let etcd = match report.files[0].options.store.clone() {
        RegistryStore::Etcd(etcd) => Some(etcd),
        RegistryStore::Memory | RegistryStore::File(_) => None,
    };
    let found = report.findings.iter();
    let own = found.filter(|found| !is_of_build(found));
    let rows = own.map(|found| {
        let key = found.key.clone().unwrap_or_default();
        let name = key.trim_start_matches("countersign.registry.");
        (found.code, found.severity, name.to_owned())
    });
    (etcd, rows.collect())
}

#[test]
fn etcd_on_this_machine_needs_nothing_but_its_endpoints() {
    let (etcd, found) = read(&format!("{URL}localhost:2379,127.0.0.1:2380, [::1]:2381\n"));

    assert_eq!(found, []);
    let endpoints = etcd.unwrap().endpoints.into_iter();
    let endpoints: Vec<_> = endpoints.map(|one| one.to_string()).collect();
    assert_eq!(
        endpoints,
        ["localhost:2379", "127.0.0.1:2380", "[::1]:2381"]
    );
}

#[test]
fn registry_in_etcd_without_a_name_is_refused() {
    let folder = Folder::new();
    let report = folder.check(good() + URL + "localhost:2379\n");
    let found = report.findings.iter().filter(|found| !is_of_build(found));
    let rows: Vec<_> = found.map(row).collect();

    assert_eq!(rows, [(Code::Cs0301, Error, 8, 26)]);
}

#[test]
fn user_certificate_and_trust_of_etcd_are_read() {
    let (etcd, found) = read(&format!(
        "{URL}etcd.example:2379\n{E}.user=dpm\n{E}.password=\\u0070 x\n\
         {E}.cert-chain=cert.pem\n{E}.private-key=file:key.pem\n\
         {E}.trust-cert-collection=trust.pem\n"
    ));

    assert_eq!(found, []);
    let etcd = etcd.unwrap();
    let (user, password) = etcd.user.unwrap();
    assert_eq!((user.as_str(), password.expose().as_str()), ("dpm", "p x"));
    let own = etcd.client.unwrap();
    let [chain, key] = [own.cert_chain, own.private_key].map(|file| file.path);
    assert!(
        chain.ends_with("cert.pem") && chain.is_absolute(),
        "{chain:?}"
    );
    assert!(key.ends_with("key.pem"), "{key:?}");
    assert!(etcd.trust.unwrap().path.ends_with("trust.pem"));
}

#[cfg(not(feature = "etcd"))]
#[test]
fn build_without_etcd_refuses_it_by_the_name_of_the_feature() {
    let folder = Folder::new();
    let file = folder.write("application.properties", good() + URL + "localhost:2379\n");

    let refused = load(&file).unwrap_err();

    let found = refused.findings().unwrap().iter().next().unwrap();
    assert_eq!(row(found), (Code::Cs0306, Error, 8, 26));
    assert!(found.help.as_ref().unwrap().contains("feature `etcd`"));
}

#[test]
fn settings_of_etcd_that_go_together_are_all_or_none() {
    for (given, missing) in [
        ("user=dpm", "password"),
        ("password=x", "user"),
        ("cert-chain=cert.pem", "private-key"),
        ("private-key=key.pem", "cert-chain"),
    ] {
        let tls = format!("{E}.trust-cert-collection=trust.pem\n");
        let lines = format!("{URL}localhost:2379\n{tls}{E}.{given}\n");

        let (_, found) = read(&lines);

        let name = given.split_once('=').unwrap().0;
        assert_eq!(found, [(Code::Cs0306, Error, format!("etcd.{name}"))]);
        let report = Folder::new().check(good() + &lines);
        let mut texts = report.findings.iter().map(|found| &found.message);
        let missing = format!("`{E}.{missing}` is missing");
        assert!(texts.any(|text| text.contains(&missing)), "{missing}");
    }
}

#[test]
fn values_of_etcd_that_cannot_be_used_are_refused() {
    let tls = format!("{E}.trust-cert-collection=trust.pem\n");
    for (lines, name) in [
        (format!("{E}.user=\n{E}.password=x\n"), "user"),
        (format!("{E}.user=dpm\n{E}.password=\n"), "password"),
        (
            format!("{E}.trust-cert-collection=none.pem\n"),
            "trust-cert-collection",
        ),
        (
            format!("{E}.trust-cert-collection=key.pem\n"),
            "trust-cert-collection",
        ),
        (
            format!("{tls}{E}.cert-chain=none.pem\n{E}.private-key=key.pem\n"),
            "cert-chain",
        ),
        (
            format!("{tls}{E}.cert-chain=cert.pem\n{E}.private-key=cert.pem\n"),
            "private-key",
        ),
        // Without TLS no certificate is shown.
        (
            format!("{E}.cert-chain=cert.pem\n{E}.private-key=key.pem\n"),
            "cert-chain",
        ),
    ] {
        let (_, found) = read(&format!("{URL}localhost:2379\n{lines}"));

        assert_eq!(
            found,
            [(Code::Cs0306, Error, format!("etcd.{name}"))],
            "{lines}"
        );
    }
}

#[test]
fn etcd_beyond_loopback_needs_tls_and_a_user_or_a_certificate() {
    let tls = format!("{E}.trust-cert-collection=trust.pem\n");
    let user = format!("{E}.user=dpm\n{E}.password=x\n");
    let certificate = format!("{E}.cert-chain=cert.pem\n{E}.private-key=key.pem\n");
    let plaintext = (Code::Cs0307, Error, "url".to_owned());
    let unknown = (Code::Cs0301, Error, "url".to_owned());
    for host in ["10.0.0.1", "etcd", "[2001:db8::1]"] {
        let url = format!("{URL}localhost:2379,{host}:2379\n");
        for (lines, expected) in [
            (String::new(), vec![unknown.clone(), plaintext.clone()]),
            (user.clone(), vec![plaintext.clone()]),
            (tls.clone(), vec![unknown.clone()]),
            (format!("{tls}{user}"), vec![]),
            (format!("{tls}{certificate}"), vec![]),
        ] {
            let (_, mut found) = read(&format!("{url}{lines}"));

            found.sort();
            assert_eq!(found, expected, "{host}: {lines}");
        }
    }
}

#[test]
fn malformed_endpoint_of_etcd_is_refused_at_its_place() {
    let many: Vec<_> = (1..=17).map(|port| format!("a:{port}")).collect();
    for (list, place) in [
        ("", 0),
        ("a", 0),
        ("a:1,", 4),
        ("a:1,,b:2", 4),
        ("a:1,b:2/", 4),
        ("a:1,b:0", 4),
        ("a:1,A:1", 4),
        ("http://a:1", 0),
        ("user:word@a:1", 0),
        ("::1:2379", 0),
        (&many.join(","), many[..16].join(",").len() + 1),
    ] {
        let report = Folder::new().check(good() + URL + list + "\n");

        let mut found = report.findings.iter();
        let column = u32::try_from(URL.len() + place + 1).unwrap();
        assert!(
            found.any(|found| row(found) == (Code::Cs0306, Error, 8, column)),
            "{list}: {:?}",
            report.findings
        );
        let store = &report.files[0].options.store;
        assert!(matches!(store, RegistryStore::File(None)), "{store:?}");
    }
}

#[test]
fn settings_of_etcd_without_etcd_have_no_effect_which_is_noted() {
    for url in ["", "countersign.registry.url=memory:\n"] {
        let (etcd, found) = read(&format!("{url}{E}.user=dpm\n{E}.password=x\n"));

        assert!(etcd.is_none());
        let noted = ["etcd.user", "etcd.password"];
        assert_eq!(
            found,
            noted.map(|name| (Code::Cs0305, Note, name.to_owned()))
        );
    }
}

#[test]
fn password_of_etcd_is_shown_nowhere() {
    let secret = "p4ssw0rd";
    for lines in [
        format!("{URL}localhost:1\n{E}.user=a\n{E}.password={secret} \n"),
        format!("{URL}localhost:1\n{E}.password={secret}\n"),
        format!("{E}.password={secret} # of etcd\n"),
        format!("{E}.password={secret}\n{E}.password={secret}2\n"),
        format!("{E}.password={secret}\n{E}.user=${{{E}.password}}\n"),
        format!("export {E}.password={secret}\n"),
        format!("last=\\\n{E}.password={secret}\n"),
    ] {
        let folder = Folder::new();
        let file = folder.write("application.properties", good() + &lines);
        let report = check(std::slice::from_ref(&file), &[]).unwrap();
        let loaded = load(&file);

        let snippets = report
            .findings
            .iter()
            .filter_map(|found| found.snippet.as_ref());
        let snippets: Vec<_> = snippets.map(|snippet| &snippet.text).collect();
        let shown = format!("{report:?} {snippets:?} {loaded:?}");
        assert!(!shown.contains(secret), "{shown}");
    }
    let set = [(format!("{E}.password"), secret.to_owned())];
    let folder = Folder::new();
    let file = folder.write("application.properties", good());
    let refused = Settings::load(&file, &ModuleKind::Dpm, [], &set).unwrap_err();
    let found = refused.findings().unwrap().iter().next().unwrap();
    assert_eq!(found.code, Code::Cs0108, "{found}");
    assert!(!format!("{refused:?}").contains(secret));
}
