use std::path::Path;

use crate::properties::{ChangeKind, Document, Edit};

fn change(key: &str, kind: ChangeKind) -> (String, ChangeKind) {
    (key.to_owned(), kind)
}

fn set(text: &str, settings: &[(&str, &str)]) -> String {
    let mut edit = Edit::new();
    for (key, value) in settings {
        edit.set(key, value);
    }
    let Some(edited) = edit.apply(text) else {
        panic!("{text:?} is unchanged")
    };
    assert!(
        edit.apply(edited.text()).is_none(),
        "a second time changes {:?} again",
        edited.text()
    );
    let document = Document::parse(Path::new("a"), edited.text());
    for (key, value) in settings {
        let entry = document.entries().iter().rev().find(|e| e.key() == *key);
        if let Some(entry) = entry {
            assert_eq!(entry.value(), *value, "{:?}", edited.text());
        }
    }
    edited.text().to_owned()
}

#[test]
fn setting_that_is_there_keeps_its_line() {
    for (before, after) in [
        ("# c\na = 1 \n\nb=2\n", "# c\na = new\n\nb=2\n"),
        ("a:1", "a:new"),
        ("a 1\r\nb=2\r\n", "a new\r\nb=2\r\n"),
        ("a\nb=2", "a=new\nb=2"),
        ("a=\nb=2", "a=new\nb=2"),
        ("a=1\\\n  2\\\n  3\nb=2", "a=new\nb=2"),
        ("a=1\nx=y\na=2\n", "a=1\nx=y\na=new\n"),
        ("A=1\n", "A=new\n"),
    ] {
        assert_eq!(set(before, &[("a", "new")]), after, "{before:?}");
    }
}

#[test]
fn setting_is_found_in_any_spelling() {
    assert_eq!(
        set("d.x.isRevoked=false\n", &[("d.x.is-revoked", "true")]),
        "d.x.isRevoked=true\n"
    );
}

#[test]
fn new_settings_are_appended_in_order_with_the_file_s_line_ends() {
    for (before, after) in [
        ("", "b=2\na=1\n"),
        ("x=y", "x=y\nb=2\na=1\n"),
        ("x=y\r\nz=1\r\n", "x=y\r\nz=1\r\nb=2\r\na=1\r\n"),
        ("x=y\r", "x=y\rb=2\ra=1\r"),
        // A dangling backslash would swallow the first of them.
        ("x=y\\", "x=y\\\n\nb=2\na=1\n"),
        ("x=y\\\n", "x=y\\\n\nb=2\na=1\n"),
        // A line feed would only complete this line's end.
        ("x=1\ny\\\r", "x=1\ny\\\r\n\nb=2\na=1\n"),
        ("# c", "# c\nb=2\na=1\n"),
    ] {
        assert_eq!(set(before, &[("b", "2"), ("a", "1")]), after, "{before:?}");
    }
}

#[test]
fn heading_stands_above_what_is_appended_and_only_then() {
    let mut edit = Edit::new();
    edit.heading("Added by countersign pair")
        .set("a", "1")
        .set("b", "2");

    let Some(edited) = edit.apply("b=1\n") else {
        panic!()
    };
    assert_eq!(edited.text(), "b=2\n\n# Added by countersign pair\na=1\n");
    assert_eq!(
        edited.changes,
        [
            change("a", ChangeKind::Added),
            change("b", ChangeKind::Replaced)
        ]
    );

    let Some(edited) = edit.apply("a=0\nb=1\n") else {
        panic!()
    };
    assert_eq!(edited.text(), "a=1\nb=2\n");

    // It stands there once.
    let Some(edited) = edit.apply("# Added by countersign pair\nb=2\n") else {
        panic!()
    };
    assert_eq!(edited.text(), "# Added by countersign pair\nb=2\na=1\n");
}

#[test]
fn values_come_back_as_they_were_given() {
    for value in [
        r#"{"kty":"EC","x":"1=2"}"#,
        r"C:\new\table",
        "  leading and trailing ",
        "\t tab",
        "two\nlines\r\n",
        "=starts with a separator",
        ":so does this",
        "# no comment",
        "é ü 😀 \u{1}",
        "",
    ] {
        for before in ["", "k=old\n", "k old\n", "k : old"] {
            set(before, &[("k", value), ("other", "x")]);
        }
    }
}

#[test]
fn keys_come_back_as_they_were_given() {
    for key in ["a b", "a=b", "a:b", "#a", "!a", "a\\b", "é"] {
        let text = set("", &[(key, "v")]);
        let document = Document::parse(Path::new("a"), &text);
        assert_eq!(document.entries()[0].key(), key);
    }
}

#[test]
fn later_value_for_one_name_wins_within_an_edit() {
    assert_eq!(set("", &[("a-b", "1"), ("aB", "2")]), "aB=2\n");
}

#[test]
fn debug_of_an_edit_shows_no_value() {
    let mut edit = Edit::new();
    edit.set("generator.key", "c2VjcmV0");

    let shown = format!("{edit:?} {:?}", edit.apply(""));

    assert!(!shown.contains("c2VjcmV0"), "{shown}");
}

fn remove(text: &str, key: &str) -> String {
    let mut edit = Edit::new();
    edit.remove(key);
    match edit.apply(text) {
        None => text.to_owned(),
        Some(edited) => {
            assert_eq!(edited.changes, [change(key, ChangeKind::Removed)]);
            assert!(edit.apply(edited.text()).is_none());
            edited.text().to_owned()
        }
    }
}

#[test]
fn a_removed_setting_takes_its_lines_along_and_nothing_else() {
    for (before, after) in [
        ("# c\na = 1 \n\nb=2\n", "# c\n\nb=2\n"),
        ("a=1", ""),
        ("b=2\na=1", "b=2\n"),
        ("b=2\r\n  a=1\r\nc=3\r\n", "b=2\r\nc=3\r\n"),
        ("b=2\ra=1\rc=3\r", "b=2\rc=3\r"),
        ("a=1\\\n  2\\\n  3\nb=2", "b=2"),
        ("a=1\\", ""),
        // A backslash alone begins the line of what follows.
        ("b=2\n \\\n  a=1\nc=3\n", "b=2\nc=3\n"),
        // Here it does not.
        ("\\\n#x\na=1\nc=3\n", "\\\n#x\nc=3\n"),
        ("\\\n\na=1\nc=3\n", "\\\n\nc=3\n"),
        ("a=1\nx=y\nA=2\n", "x=y\n"),
        ("b=2\n", "b=2\n"),
    ] {
        assert_eq!(remove(before, "a"), after, "{before:?}");
    }
}

#[test]
fn one_edit_replaces_removes_and_appends() {
    let mut edit = Edit::new();
    edit.set("a", "new").remove("b").set("c", "3");

    let Some(edited) = edit.apply("b=2\na=1") else {
        panic!()
    };

    assert_eq!(edited.text(), "a=new\nc=3\n");
}

#[test]
fn edit_of_one_document_leaves_the_others() {
    let text = "a=1\n#---\na=2\n#---\na=3\n";
    let within = |documents: &[usize], home, value: Option<&str>, text: &str| {
        let mut edit = Edit::new();
        edit.within(documents.to_vec(), home);
        match value {
            Some(value) => edit.set("a", value),
            None => edit.remove("a"),
        };
        edit.set("b", "4");
        edit.apply(text).map(|edited| edited.text().to_owned())
    };

    // Of several documents that count, the last one decides.
    let changed = within(&[0, 1], Some(0), Some("5"), text).unwrap();
    assert_eq!(changed, "a=1\nb=4\n#---\na=5\n#---\na=3\n");
    assert_eq!(within(&[0, 1], Some(0), Some("5"), &changed), None);
    let removed = within(&[0, 1], Some(0), None, text).unwrap();
    assert_eq!(removed, "b=4\n#---\n#---\na=3\n");
    let last = within(&[2], Some(2), Some("3"), text).unwrap();
    assert_eq!(last, "a=1\n#---\na=2\n#---\na=3\nb=4\n");
    let new = within(&[], None, Some("6"), "# top\na=1\n").unwrap();
    assert_eq!(new, "# top\na=6\nb=4\n#---\na=1\n");
}
