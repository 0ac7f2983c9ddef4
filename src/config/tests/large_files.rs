//! Files larger than any that is written by hand.

use std::fmt::Write as _;

use super::*;
use crate::config::AsWritten;
use crate::properties::{Edit, FileText};

#[test]
fn thousand_deployments_with_keys_of_their_own_are_accepted() {
    let mut text = own_line(&key());
    for n in 0..1000 {
        text += &deployment(&format!("d{n}"), "dpe", &key());
    }
    let folder = Folder::new();
    let file = folder.write("a", text);

    let settings = load(&file).unwrap();

    assert_eq!(settings.deployments.len(), 1000);
}

#[test]
fn hundred_thousand_lines_are_read_and_more_than_131072_refused() {
    let lines = |count| good() + &"some.foreign.name=value\n".repeat(count);

    let report = Folder::new().check(lines(100_000));

    assert_eq!(report.findings.errors(), 0);
    let folder = Folder::new();
    let file = folder.write("a", lines(131_072));
    let refused = check(&[file], &[]).unwrap_err().to_string();
    assert!(
        refused.ends_with("it has more than 131072 lines"),
        "{refused}"
    );
}

/// Every line may be at fault; finding out where must not take the square of their number.
#[test]
fn fifty_thousand_broken_deployments_end_quickly() {
    let mut text = own_line(&key());
    for n in 0..50_000 {
        writeln!(text, "{D}.d{n}.module=dpe").unwrap();
    }

    let report = Folder::new().check(text);

    // Up to the limit for each, and one that counts the rest.
    let of = |code| report.findings.iter().filter(|f| f.code == code).count();
    assert_eq!((of(Code::Cs0301), of(Code::Cs0303)), (201, 201));
}

/// As many connections, revocations in a document that is not active, and names of no deployment
/// as there are deployments.
#[test]
fn names_of_deployments_are_looked_up_in_one_pass() {
    const MANY: usize = 10_000;
    let mut text = good();
    for n in 0..MANY {
        let last = MANY - 1;
        writeln!(
            text,
            "{D}.d{n}.module=dpe\nataccama.client.connection.c{n}.host=h\n\
             ataccama.client.connection.c{n}.grpc.port=1\n\
             countersign.client.connection.c{n}.deployment=d{last}\n\
             countersign.deployments.unknown{n}.allow-low-ports=true"
        )
        .unwrap();
    }
    text += "#---\nspring.config.activate.on-profile=other\n";
    for n in 0..MANY {
        writeln!(text, "{D}.d{n}.security.jwt-keys.key.is-revoked=true").unwrap();
    }

    let report = Folder::new().check(text);

    let of = |code| report.findings.iter().filter(|f| f.code == code).count();
    assert_eq!((of(Code::Cs0106), of(Code::Cs0305)), (201, 1));
}

/// A file of 8 MiB holds a million documents.
#[test]
fn documents_are_counted_in_one_pass() {
    let text = good() + &"#---\nserver.port=1\n".repeat(50_000);
    let folder = Folder::new();
    let file = folder.write("application.properties", &text);
    let read = FileText::from_bytes(text.as_bytes()).unwrap();

    let written = AsWritten::of_module(&file, &[(file.clone(), read)], &[]).unwrap();
    let (active, home) = written.documents_in(&file);

    assert_eq!((active.len(), home), (50_001, Some(0)));
    assert_eq!(written.active_entries().count(), 50_007);
    let mut edit = Edit::new();
    edit.within(active, home).set("server.port", "2");
    assert!(
        edit.apply(&text)
            .unwrap()
            .text()
            .ends_with("server.port=2\n")
    );
    assert_eq!(load(&file).unwrap().options.server.http_port, 1);
}
