use std::path::Path;

use crate::diagnostic::{Code, Origin, Public};
use crate::properties::Document;

fn document(text: &str) -> Document {
    Document::parse(Path::new("a.properties"), text)
}

fn pairs(text: &str) -> Vec<(String, String)> {
    document(text)
        .entries()
        .iter()
        .map(|entry| (entry.key().to_owned(), entry.value().to_owned()))
        .collect()
}

fn line_and_column(origin: &Origin) -> (u32, u32) {
    match origin {
        Origin::File { line, column, .. } => (*line, *column),
        other => panic!("{other} is no place in a file"),
    }
}

/// `java.util.Properties.load`, JDK 17: text, and the pairs it yields, duplicates included.
const ROWS: &[(&str, &[(&str, &str)])] = &[
    // Separators.
    ("a = true", &[("a", "true")]),
    ("a:true", &[("a", "true")]),
    ("a true", &[("a", "true")]),
    ("a.b : v", &[("a.b", "v")]),
    ("a.b v w ", &[("a.b", "v w ")]),
    ("a = = b", &[("a", "= b")]),
    ("a==b", &[("a", "=b")]),
    ("a : = b", &[("a", "= b")]),
    ("a\u{c}b", &[("a", "b")]),
    ("  \t\u{c}a=b", &[("a", "b")]),
    ("=v", &[("", "v")]),
    // A backslash alone at the end.
    ("\\", &[("", "")]),
    ("\\\n", &[("", "")]),
    ("\\\r\n", &[]),
    ("\\\r\n\\\r\n", &[]),
    // Values.
    ("k=v  \t", &[("k", "v  \t")]),
    ("k", &[("k", "")]),
    ("k=", &[("k", "")]),
    ("k   ", &[("k", "")]),
    ("\"k\"=\"v\"", &[("\"k\"", "\"v\"")]),
    ("x=true ## note", &[("x", "true ## note")]),
    (
        "tls.trust-all ## for mTLS",
        &[("tls.trust-all", "## for mTLS")],
    ),
    (
        r#"a.content={"kty":"EC","x":"1=2"}"#,
        &[("a.content", r#"{"kty":"EC","x":"1=2"}"#)],
    ),
    (r#"c={\"kty\":\"EC\"}"#, &[("c", r#"{"kty":"EC"}"#)]),
    // Comments and blank lines.
    ("# a=1\n! b=2\n   # c=3\n\n \t \nd=4", &[("d", "4")]),
    ("# ends with a backslash \\\na=1", &[("a", "1")]),
    // Line ends.
    (
        "a=1\rb=2\nc=3\r\nd=4",
        &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")],
    ),
    // Continuations.
    ("k=ab\\\n    cd\\\n  ef", &[("k", "abcdef")]),
    ("k=ab\\\r\n    cd", &[("k", "abcd")]),
    ("k=ab\\\r\n\n x=1", &[("k", "ab"), ("x", "1")]),
    ("k=ab\\\n# not comment", &[("k", "ab# not comment")]),
    ("k=ab\\\\\nc=d", &[("k", "ab\\"), ("c", "d")]),
    ("k=ab\\", &[("k", "ab")]),
    ("ke\\\n  y=v", &[("key", "v")]),
    ("\\\n# a comment\na=1", &[("a", "1")]),
    ("\\", &[("", "")]),
    ("\\\n", &[("", "")]),
    // Escapes.
    ("k=C:\\tools\\new", &[("k", "C:\tools\new")]),
    ("a\\=b=c", &[("a=b", "c")]),
    ("a\\:b\\ c d", &[("a:b c", "d")]),
    ("k=\\u00e9\\u0041", &[("k", "éA")]),
    ("k=\\uD83D\\uDE00", &[("k", "😀")]),
    ("k\\u003d=v", &[("k=", "v")]),
    ("k=\\  v", &[("k", "  v")]),
    ("k=\\q\\\"", &[("k", "q\"")]),
    // Duplicates: both are kept here, with their places; the last one counts, as in Java.
    ("k=1\nk=2", &[("k", "1"), ("k", "2")]),
    // A pretty-printed key leaves one brace and stray names.
    (
        "content={\n    \"kty\": \"EC\",\n}",
        &[("content", "{"), ("\"kty\"", "\"EC\","), ("}", "")],
    ),
];

#[test]
fn text_is_read_as_java_reads_it() {
    for (text, expected) in ROWS {
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(pairs(text), expected, "{text:?}");
    }
}

/// Java throws `Malformed \uxxxx encoding.` and reads nothing; ours reads on, reports an error at
/// the backslash, and keeps the escape as written.
#[test]
fn malformed_escape_is_an_error_at_its_place_and_the_rest_is_read() {
    for (text, value, place) in [
        ("a=1\nk=x\\u12G4", "x\\u12G4", (2, 4)),
        ("a=1\nk=\\u00zz", "\\u00zz", (2, 3)),
        ("a=1\nk=\\u12", "\\u12", (2, 3)),
        ("a=1\nk=\\u", "\\u", (2, 3)),
    ] {
        let document = document(text);
        let [fault] = document.faults() else {
            panic!("{text}")
        };
        let finding = document.describe(fault);

        assert_eq!(document.entries()[1].value(), value);
        assert_eq!(finding.code, Code::Cs0101);
        assert_eq!(line_and_column(&finding.origin), place);
    }
}

/// Java keeps half a surrogate pair in its string; ours refuses it, for it is no text.
#[test]
fn lone_surrogate_is_an_error() {
    for text in ["k=\\ud83d", "k=\\ude00x", "k=\\ud83d\\u0041"] {
        let document = document(text);

        assert_eq!(document.faults().len(), 1, "{text}");
    }
}

#[test]
fn every_character_of_a_value_knows_its_place() {
    let text = "é=1\r\n  key : a\\u00e9b\\\r\n    c\\td\r\n";
    let document = document(text);
    let entry = &document.entries()[1];

    assert_eq!(entry.value(), "aébc\td");
    let places: Vec<_> = entry
        .value()
        .char_indices()
        .map(|(offset, _)| line_and_column(&document.origin(entry.place_in_text(offset))))
        .collect();
    assert_eq!(places, [(2, 9), (2, 10), (2, 16), (3, 5), (3, 6), (3, 8)]);
    assert!(entry.escapes.continued && entry.escapes.control);
    assert_eq!(document.written(entry.key_span), "key");
}

#[test]
fn columns_count_characters() {
    let document = document("k=äö\u{1F600}x y\n");
    let entry = &document.entries()[0];
    let offset = entry.value().find('x').unwrap();

    let origin = document.origin(entry.place_in_text(offset));

    assert_eq!(line_and_column(&origin), (1, 6));
}

#[test]
fn document_separators_are_seen() {
    let document = document("a=1\n#---\na=2\n#--- note\n");

    assert_eq!(document.separators().len(), 1);
    assert_eq!(document.entries().len(), 2);
}

#[test]
fn snippet_shows_the_line_without_its_secrets() {
    let document = document("a=1\nkey=c2VjcmV0 end\nb=2");
    let entry = &document.entries()[1];

    let snippet = document
        .snippet(entry.key_span, &[entry.value_span], &Public::default())
        .unwrap();

    assert_eq!(snippet.line, 2);
    assert_eq!(snippet.text, "key=«hidden, 12 chars»");
    assert_eq!(snippet.marked, 0..3);
}

#[test]
fn neither_text_nor_values_are_in_debug() {
    let document = document("generator.key=c2VjcmV0");

    let shown = format!("{document:?} {:?}", document.entries());

    assert!(!shown.contains("c2VjcmV0"), "{shown}");
}

#[test]
fn huge_texts_end_quickly() {
    let lines = "some.foreign.name=value\n".repeat(200_000);
    assert_eq!(document(&lines).entries().len(), 200_000);

    let long = format!("k={}", "\\u0041".repeat(1_000_000));
    let document = document(&long);
    let entry = &document.entries()[0];
    assert_eq!(entry.value().len(), 1_000_000);
    assert_eq!(
        line_and_column(&document.origin(entry.place_in_text(999_999))).1,
        5_999_997
    );
}

#[test]
fn places_in_several_files_are_each_files_own() {
    let mut document = Document::parse(Path::new("a"), "x=1\n\ny=2\n");
    document.append(Path::new("b"), "  z=\\\n 3\n#---\n");
    document.append(Path::new("c"), "\\u00g=4");

    let places: Vec<_> = document
        .entries()
        .iter()
        .map(|entry| {
            let at = entry.value_span.start;
            (entry.value(), document.origin(at).to_string())
        })
        .collect();

    let expected = [
        ("1", "a:1:3"),
        ("2", "a:3:3"),
        ("3", "b:2:2"),
        ("4", "c:1:7"),
    ];
    assert_eq!(places, expected.map(|(value, at)| (value, at.to_owned())));
    let z = &document.entries()[2];
    assert_eq!(document.origin(z.place_in_text(0)).to_string(), "b:2:2");
    assert_eq!(document.written(z.key_span), "z");
    let separators = document.separators().iter();
    let separators: Vec<_> = separators
        .map(|s| document.origin(s.span.start).to_string())
        .collect();
    assert_eq!(separators, ["b:3:1"]);
    let faults: Vec<_> = document
        .faults()
        .iter()
        .map(|fault| document.describe(fault).origin.to_string())
        .collect();
    assert_eq!(faults, ["c:1:1"]);
    assert_eq!(
        [0, 1, 2, 3].map(|at| document.file_of_entry(at)),
        [0, 0, 1, 2]
    );
    assert_eq!(document.path_at(z.value_span.start), Path::new("b"));
}
