use super::*;

use crate::diagnostic::Severity::Error;

const NEXT: &str = "countersign.rotation.next-key";

fn next_line(key: &SigningKey) -> String {
    own_line(key).replace(KEY, NEXT)
}

#[test]
fn what_rotation_left_is_read() {
    let (next, previous) = (key(), key().fingerprint());
    let folder = Folder::new();
    let text = good()
        + &next_line(&next)
        + "countersign.rotation.activated-at=2026-01-31T12:00:00Z\n"
        + &format!("countersign.rotation.previous-fingerprint={previous}\n");

    let report = folder.check(text);

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let rotation = &report.files[0].options.rotation;
    let (found, kid) = rotation.next.as_ref().unwrap();
    assert_eq!(found.verifying_key(), next.verifying_key());
    assert_eq!(kid.as_str(), next.fingerprint().to_string());
    assert_eq!(rotation.previous, [previous]);
    let at = rotation.activated_at.unwrap();
    let at = at.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(at.as_secs(), 1_769_860_800);
}

#[test]
fn a_next_key_that_could_not_sign_is_an_error() {
    let (own, peer) = (key(), key());
    let start = own_line(&own) + &deployment("dpe-dev", "dpe", &peer);
    for (line, code) in [
        (next_line(&own), Code::Cs0204),
        (next_line(&peer), Code::Cs0207),
        (format!("{NEXT}=AAAA\n"), Code::Cs0206),
        (format!("{NEXT}=-----BEGIN\n"), Code::Cs0206),
        (format!("{NEXT}=\n"), Code::Cs0206),
        (format!("{NEXT}={}\n", content(&key())), Code::Cs0204),
    ] {
        let found = rows(&Folder::new().check(start.clone() + &line).findings);
        assert_eq!(found.len(), 1, "{line} {found:?}");
        assert_eq!((found[0].0, found[0].1, found[0].2), (code, Error, 8));
    }
}

#[test]
fn times_and_fingerprints_that_are_none_are_errors() {
    for line in [
        "countersign.rotation.activated-at=yesterday",
        "countersign.rotation.activated-at=",
        "countersign.rotation.activated-at=2026-01-31T12:00:00",
        "countersign.rotation.previous-fingerprint=key",
    ] {
        assert_eq!(error_codes(good() + line + "\n"), [Code::Cs0306], "{line}");
    }
}

#[test]
fn the_next_key_is_not_taken_from_arguments_and_not_shown() {
    let folder = Folder::new();
    let line = next_line(&key());
    let value = line.trim_end().split_once('=').unwrap().1.to_owned();
    let file = folder.write("application.properties", good() + &line);
    let report = check(std::slice::from_ref(&file), &[]).unwrap();

    let shown = format!("{report:?}");
    let sets = [(NEXT.to_owned(), value.clone())];
    let refused = Settings::load(&file, &ModuleKind::Dpm, [], &sets).unwrap_err();

    assert!(!shown.contains(value.get(40..80).unwrap()), "{shown}");
    let findings = refused.findings().unwrap();
    assert_eq!(findings.iter().next().unwrap().code, Code::Cs0108);
}
