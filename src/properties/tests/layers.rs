use std::path::Path as FilePath;

use crate::diagnostic::Origin;
use crate::properties::{Content, IndexError, Layer, Layered, Level, Path, Sourced, indexed};

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

fn texts<'a>(list: &[&'a Sourced]) -> Vec<&'a str> {
    list.iter().map(|one| one.text()).collect()
}

#[test]
fn later_level_wins_whatever_the_order_given() {
    let mut defaults = Layer::new(Level::Defaults);
    defaults.set(path("server/port"), one("8031", Origin::Default));
    defaults.set(path("server/address"), one("127.0.0.1", Origin::Default));
    let mut file = Layer::new(Level::File);
    file.set(path("server/port"), one("1", at(3)));
    let mut environment = Layer::new(Level::Environment);
    let variable = Origin::Environment("SERVER_PORT".into());
    environment.set(path("server/port"), one("2", variable.clone()));

    let layered = Layered::new(vec![environment, defaults, file]).unwrap();

    let port = layered.value(&path("server/port")).unwrap();
    assert_eq!((port.text(), port.origin()), ("2", &variable));
    let address = layered.value(&path("server/address")).unwrap();
    assert_eq!(address.origin(), &Origin::Default);
    assert!(layered.value(&path("server/none")).is_none());
}

/// The `config` crate alone would make `[C, B]` of it.
#[test]
fn list_of_a_later_level_replaces_the_whole_list() {
    let mut file = Layer::new(Level::File);
    file.set(path("d/roles"), list(&["A", "B"], &at(1)));
    let mut options = Layer::new(Level::SetOptions);
    options.set(path("d/roles"), list(&["C"], &Origin::SetOption));

    let layered = Layered::new(vec![file, options]).unwrap();

    assert_eq!(texts(&layered.list(&path("d/roles")).unwrap()), ["C"]);
}

#[test]
fn names_keep_the_order_of_the_file_and_their_spelling() {
    let mut file = Layer::new(Level::File);
    for name in ["zeta", "DPE-1", "1dpe", "a b"] {
        file.set(
            path(&format!("deployments/{name}/module")),
            one("dpe", at(1)),
        );
    }

    let layered = Layered::new(vec![file]).unwrap();

    assert_eq!(
        layered.names(&path("deployments")),
        ["zeta", "DPE-1", "1dpe", "a b"]
    );
}

#[test]
fn value_and_subtree_at_one_name_do_not_depend_on_chance() {
    for _ in 0..20 {
        let mut file = Layer::new(Level::File);
        file.set(path("x"), one("1", at(1)));
        file.set(path("x/y"), one("2", at(2)));

        let layered = Layered::new(vec![file]).unwrap();

        assert_eq!(layered.value(&path("x/y")).unwrap().text(), "2");
    }
}

#[test]
fn no_text_is_given_to_the_config_crate_or_shown_by_debug() {
    let mut file = Layer::new(Level::File);
    file.set(path("generator/key"), one("c2VjcmV0", at(1)));

    let layered = Layered::new(vec![file.clone()]).unwrap();

    let shown = format!("{file:?} {layered:?} {:?}", layered.config());
    assert!(!shown.contains("c2VjcmV0"), "{shown}");
    let value = layered.value(&path("generator/key")).unwrap();
    assert_eq!((value.text(), value.origin()), ("c2VjcmV0", &at(1)));
}

#[test]
fn indices_must_count_from_zero_without_gaps() {
    let sorted = indexed(vec![("1", "B"), ("0", "A"), ("2", "C")]);
    assert_eq!(sorted, Ok(vec!["A", "B", "C"]));

    for (indices, fault) in [
        (&["0", "2"][..], (1, IndexError::Gap(1))),
        (&["1"], (0, IndexError::Gap(0))),
        (&["0", "-1"], (1, IndexError::NotAnIndex)),
        (&["0", "a"], (1, IndexError::NotAnIndex)),
        (&["0", "+1"], (1, IndexError::NotAnIndex)),
        (&["0", ""], (1, IndexError::NotAnIndex)),
        (&["0", "1024"], (1, IndexError::TooLarge)),
        (&["0", "4294967296"], (1, IndexError::TooLarge)),
        (
            &["0", "99999999999999999999999999"],
            (1, IndexError::TooLarge),
        ),
        (&["0", "0"], (1, IndexError::Twice)),
    ] {
        let elements = indices.iter().map(|index| (*index, ())).collect();
        assert_eq!(indexed(elements), Err(vec![fault]), "{indices:?}");
    }
}
