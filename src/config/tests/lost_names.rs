//! Settings of ours that a reader would pass over in silence.

use super::*;

use crate::diagnostic::Severity::{Error, Warning};

#[test]
fn cs0104_backslash_of_another_line_that_swallows_one_of_ours() {
    let revoked = format!("{D}.dpe-dev.security.jwt-keys.key.is-revoked=true\n");
    for before in [
        "legacy.dir=C:\\data\\\n",
        "foo\\\n",
        "foo.bar=\\\n",
        "spring.x=a\\\n",
        "foo=C:\\\\\\\n",
        "foo=\\\n  bar,\\\r\n  \t",
        "ataccama.authentication.keycloak.server-url=C:\\x\\\n",
        "logging.file.path=C:\\x\\\r\n",
    ] {
        let found = with(&format!("{before}{revoked}"));
        let line = u32::try_from(8 + before.lines().count()).unwrap();
        let line = if before.ends_with('\t') {
            line - 1
        } else {
            line
        };
        let column = if before.ends_with('\t') { 4 } else { 1 };
        assert!(
            found.contains(&(Code::Cs0104, Error, line, column)),
            "{before:?} {found:?}"
        );
    }
    for spelling in [
        format!("{D}.dpe-dev.security.jwtKeys.key.isRevoked true\n"),
        "ATACCAMA.ONE.platform.deploy\\u006dents.x.module\\\n".to_owned(),
        "countersign.anything\n".to_owned(),
        "server.port: 1\n".to_owned(),
    ] {
        let found = with(&format!("foo=a\\\n{spelling}"));
        assert_eq!(found, [(Code::Cs0104, Error, 9, 1)], "{spelling}");
    }
}

#[test]
fn cs0104_names_what_is_lost_and_not_the_key_in_it() {
    let line = own_line(&key());
    let report = Folder::new().check(format!("legacy.dir=C:\\data\\\n{line}"));

    let mut found = report.findings.iter();
    let found = found.find(|f| f.code == Code::Cs0104).unwrap();
    assert_eq!(found.key.as_deref(), Some(KEY));
    assert!(found.message.contains("`legacy.dir`"), "{found}");
    let hidden = line.split_once('=').unwrap().1.trim();
    let shown = &found.snippet.as_ref().unwrap().text;
    assert!(
        shown.contains("«hidden") && !shown.contains(hidden),
        "{shown}"
    );
}

#[test]
fn a_backslash_that_swallows_nothing_of_ours_is_not_reported() {
    for lines in [
        "foo=a,\\\n  b,\\\n  ataccama.one\n",
        "foo=a\\\\\nserver.port=1\n",
        "# comment \\\nserver.port=1\n",
        "\\\nserver.port=1\n",
        "foo=a\\\n# countersign.reload=true\n",
        "foo=a\\\n\nserver.port=1\n",
    ] {
        assert_eq!(with(lines), [], "{lines:?}");
    }
}

#[test]
fn cs0107_name_of_ours_in_disguise() {
    let tail = "dpe-dev.security.jwt-keys.key.is-revoked";
    for (line, column, right) in [
        (format!("\u{feff}{D}.{tail}=true\n"), 1, "is-revoked"),
        (format!("\u{200b}{D}.{tail}=true\n"), 1, "is-revoked"),
        (format!("\"{D}.{tail}\"=true\n"), 1, D),
        (format!("//{D}.{tail}=true\n"), 1, "is-revoked"),
        (format!(";{D}.{tail}=true\n"), 1, "is-revoked"),
        (format!("ataccama.platform.deployments.{tail}=true\n"), 1, D),
        (format!("one.platform.deployments.{tail}=true\n"), 1, D),
        (format!("ataccama.deployments.{tail}=true\n"), 1, D),
        (format!("export {D}.{tail}=true\n"), 8, "is-revoked"),
        (format!("- {D}.{tail}: true\n"), 3, "is-revoked"),
        ("export server.port=1\n".to_owned(), 8, "server.port"),
        (
            format!("{}_{}=true\n", D.replace('.', "_"), tail.replace('.', "_")),
            1,
            D,
        ),
        (
            "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPEDEV_MODULE=x\n".to_owned(),
            1,
            D,
        ),
        ("SERVER_PORT=1\n".to_owned(), 1, "server.port"),
        ("COUNTERSIGN_TOKEN_LEEWAY=1s\n".to_owned(), 1, "countersign"),
    ] {
        let report = Folder::new().check(good() + &line);
        let found = rows(&report.findings);
        assert_eq!(found, [(Code::Cs0107, Warning, 8, column)], "{line}");
        let found = report.findings.iter().next().unwrap();
        assert!(found.help.as_ref().unwrap().contains(right), "{found}");
    }
    for line in [
        "export FOO=bar\n",
        "say hello=server.port\n",
        "a server.port\n",
        "some_other_name=1\n",
        "\"some.name\"=1\n",
    ] {
        assert_eq!(with(line), [], "{line}");
    }
}

#[test]
fn cs0107_private_key_behind_a_word_is_not_shown() {
    let line = own_line(&key());
    let report = Folder::new().check(format!("{}export {line}", good()));

    let shown = format!("{:?}", report.findings);
    assert!(shown.contains("Cs0107"), "{shown}");
    assert!(!shown.contains(line.split_once('=').unwrap().1.trim()));
}
