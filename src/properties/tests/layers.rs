use std::path::Path as FilePath;

use crate::diagnostic::Origin;
use crate::properties::{Content, Layered, Path, Sourced, indexed};

fn path(text: &str) -> Path {
    text.split('/').map(|s| s.to_owned().into()).collect()
}

fn at(line: u32) -> Origin {
    let path = FilePath::new("a.properties").into();
    Origin::File {
        path,
        line,
        column: 1,
    }
}

fn one(text: &str, origin: Origin) -> Content {
    Content::One(Sourced::new(text, origin))
}

fn list(texts: &[&str], origin: &Origin) -> Content {
    let element = |text: &&str| Sourced::new(text, origin.clone());
    Content::List(texts.iter().map(element).collect())
}

fn texts(list: &[Sourced]) -> Vec<&str> {
    list.iter().map(Sourced::text).collect()
}

fn layered(contents: impl IntoIterator<Item = (Path, Content)>) -> Layered {
    let mut layered = Layered::default();
    for (path, content) in contents {
        layered.push(path, content);
    }
    layered
}

#[test]
fn later_layer_overrides_an_earlier_one() {
    let defaults = vec![
        (path("server/port"), one("8031", Origin::Default)),
        (path("server/address"), one("127.0.0.1", Origin::Default)),
    ];
    let file = vec![(path("server/port"), one("1", at(3)))];
    let mut environment = Vec::new();
    let variable = Origin::Environment("SERVER_PORT".into());
    environment.push((path("server/port"), one("2", variable.clone())));

    let layered = layered([defaults, file, environment].concat());

    let port = layered.value(&path("server/port")).unwrap();
    assert_eq!((port.text(), port.origin()), ("2", &variable));
    let address = layered.value(&path("server/address")).unwrap();
    assert_eq!(address.origin(), &Origin::Default);
    assert!(layered.value(&path("server/none")).is_none());
}

/// Merged element by element they would be `[C, B]`.
#[test]
fn list_of_a_later_layer_replaces_the_whole_list() {
    let file = vec![(path("d/roles"), list(&["A", "B"], &at(1)))];
    let options = vec![(path("d/roles"), list(&["C"], &Origin::SetOption))];

    let layered = layered([file, options].concat());

    assert_eq!(texts(layered.values(&path("d/roles"))), ["C"]);
}

#[test]
fn names_keep_the_order_of_the_file_and_their_spelling() {
    let mut file = Vec::new();
    for name in ["zeta", "DPE-1", "1dpe", "a b"] {
        let place = path(&format!("deployments/{name}/module"));
        file.push((place, one("dpe", at(1))));
    }

    let layered = layered(file);

    assert_eq!(
        layered.names(&path("deployments")),
        ["zeta", "DPE-1", "1dpe", "a b"]
    );
}

#[test]
fn value_and_subtree_at_one_name_do_not_depend_on_chance() {
    for _ in 0..20 {
        let file = vec![(path("x"), one("1", at(1))), (path("x/y"), one("2", at(2)))];

        let layered = layered(file);

        assert_eq!(layered.value(&path("x/y")).unwrap().text(), "2");
    }
}

#[test]
fn debug_shows_no_text() {
    let file = vec![(path("generator/key"), one("c2VjcmV0", at(1)))];

    let layered = layered(file.clone());

    let shown = format!("{file:?} {layered:?}");
    assert!(!shown.contains("c2VjcmV0"), "{shown}");
    let value = layered.value(&path("generator/key")).unwrap();
    assert_eq!((value.text(), value.origin()), ("c2VjcmV0", &at(1)));
}

#[test]
fn indices_must_count_from_zero_without_gaps() {
    let sorted = indexed(vec![("1", "B"), ("0", "A"), ("2", "C")]);
    assert_eq!(sorted, Ok(vec!["A", "B", "C"]));

    let none = "is not a list index; indices count from 0";
    let large = "is beyond 1023, the last index allowed";
    for (indices, at, why) in [
        (&["0", "2"][..], 1, "has no index 1 before it"),
        (&["1"], 0, "has no index 0 before it"),
        (&["0", "-1"], 1, none),
        (&["0", "a"], 1, none),
        (&["0", "+1"], 1, none),
        (&["0", ""], 1, none),
        (&["0", "1024"], 1, large),
        (&["0", "4294967296"], 1, large),
        (&["0", "99999999999999999999999999"], 1, large),
    ] {
        let elements = indices.iter().map(|index| (*index, ())).collect();
        let fault = (at, why.to_owned());
        assert_eq!(indexed(elements), Err(vec![fault]), "{indices:?}");
    }
    assert_eq!(indexed(vec![("0", ()), ("0", ())]), Err(Vec::new()));
}
