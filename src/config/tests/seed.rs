use super::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn of(report: &Report, code: Code) -> Vec<&Finding> {
    report.findings.iter().filter(|f| f.code == code).collect()
}

#[test]
fn first_block_of_the_seed_lacks_quotes_in_line_4() {
    let report = check(&[data("seed-dpe.properties")], &[]).unwrap();

    let found = of(&report, Code::Cs0201);
    assert_eq!(row(found[0]), (Code::Cs0201, Severity::Error, 4, 74));
    let line = "ataccama.one.platform.deployments.dpm-dev.security.jwt-keys.key.content={\"kty\":\"EC\",\"crv\":\"P-256\",";
    assert!(
        found[0].help.as_ref().unwrap().contains(line),
        "{}",
        found[0]
    );
    assert!(
        found[0].label.as_ref().unwrap().contains("column 84"),
        "{found:?}"
    );
    let snippet = found[0].snippet.as_ref().unwrap();
    let marked: String = snippet
        .text
        .chars()
        .skip(snippet.marked.start)
        .take(3)
        .collect();
    assert_eq!(marked, "kty");
    assert_eq!(report.findings.errors(), 1, "{:?}", report.findings);
}

#[test]
fn second_block_of_the_seed_has_another_key_s_fingerprint() {
    let report = check(&[data("seed-dpm.properties")], &[]).unwrap();

    let found = of(&report, Code::Cs0202);
    assert_eq!(row(found[0]), (Code::Cs0202, Severity::Error, 3, 78));
    for fingerprint in [
        "kHSzWkPiZKfSKAgdIkCdXfAAKs7x23jszQLkTOzQTEM",
        "KBv0lrEO88ISAnmwXn6Y5jYjG9TvemuZA0yQlq7QpG0",
    ] {
        assert!(found[0].message.contains(fingerprint), "{}", found[0]);
    }
    assert_eq!(report.findings.errors(), 1, "{:?}", report.findings);
}

/// The faults repaired as the findings say, the two blocks are good enough to look at.
fn repaired(folder: &Folder) -> [PathBuf; 2] {
    let read = |name| fs::read_to_string(data(name)).unwrap();
    let dpe = read("seed-dpe.properties")
        .replace("{kty\"", "{\"kty\"")
        .replace(",crv\"", ",\"crv\"");
    let dpm = read("seed-dpm.properties").replace(
        "kHSzWkPiZKfSKAgdIkCdXfAAKs7x23jszQLkTOzQTEM",
        "KBv0lrEO88ISAnmwXn6Y5jYjG9TvemuZA0yQlq7QpG0",
    );
    [folder.write("dpe", dpe), folder.write("dpm", dpm)]
}

#[test]
fn repaired_blocks_have_no_error_but_hold_published_keys() {
    let folder = Folder::new();

    let report = check(&repaired(&folder), &[]).unwrap();

    assert_eq!(report.findings.errors(), 0, "{:?}", report.findings);
    let published = of(&report, Code::Cs0209);
    assert_eq!(published.len(), 2);
    assert!(published.iter().all(|f| f.severity == Severity::Warning));
}

#[test]
fn published_keys_are_refused_as_live_ones() {
    let folder = Folder::new();
    for file in repaired(&folder) {
        let text = own_line(&key()) + &fs::read_to_string(&file).unwrap();
        let error = load(&folder.write("live", text)).unwrap_err();

        let errors = error.findings().unwrap().iter();
        let codes: Vec<_> = errors
            .filter(|f| f.severity == Severity::Error)
            .map(|found| found.code)
            .collect();
        assert_eq!(codes, [Code::Cs0209]);
    }
}
