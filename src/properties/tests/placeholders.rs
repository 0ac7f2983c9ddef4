use crate::properties::bind::{Looked, PlaceholderError, has_placeholder, placeholders, resolve};

fn lookup(name: &str) -> Option<Looked> {
    let text = match name {
        "a" => "1".to_owned(),
        "b" => "${a}2".to_owned(),
        "k" => "a".to_owned(),
        "escaped" => "x\\${a}".to_owned(),
        "self" => "x${self}".to_owned(),
        "ping" => "${pong}".to_owned(),
        "pong" => "${ping}".to_owned(),
        "key" => return Some(Looked::Private),
        bomb if bomb.starts_with("bomb") => {
            let n: u32 = bomb.trim_start_matches("bomb").parse().ok()?;
            match n {
                0 => "boom".to_owned(),
                n => format!("${{bomb{m}}}${{bomb{m}}}", m = n - 1),
            }
        }
        _ => return None,
    };
    Some(Looked::Text(text))
}

#[test]
fn placeholders_are_resolved_as_spring_resolves_them() {
    for (value, resolved) in [
        ("${a}", "1"),
        ("x${a}y${b}z", "x1y12z"),
        ("${a:default}", "1"),
        ("${none:default}", "default"),
        ("${none:}", ""),
        ("${${k}}", "1"),
        ("${none:${a}}", "1"),
        ("${none:x:y}", "x:y"),
        ("${a:${none}}", "1"),
        ("${none:{x}}", "{x}"),
        // After a backslash it is text, as since Spring 6.2, and so is an open one.
        ("\\${a}", "${a}"),
        ("\\${a}${a}", "${a}1"),
        ("${a}\\${a}", "1${a}"),
        ("\\\\${a}", "\\${a}"),
        ("\\${a:${b}}", "${a:12}"),
        ("${none:\\${a}}", "${a}"),
        ("${escaped}", "x${a}"),
        ("\\${a", "\\${a"),
        ("\\$a", "\\$a"),
        ("${a", "${a"),
        ("$a {a} $", "$a {a} $"),
        ("{\"kty\":\"EC\"}", "{\"kty\":\"EC\"}"),
    ] {
        assert_eq!(
            resolve(value, &lookup).unwrap().as_str(),
            resolved,
            "{value}"
        );
    }
}

#[test]
fn placeholders_that_cannot_be_resolved_are_refused() {
    let escaped = format!("{}{}", "\\${".repeat(20_000), "}".repeat(20_000));
    let deep = format!("{}a{}", "${".repeat(20_000), "}".repeat(20_000));
    for (value, error) in [
        // Spring's binder leaves this one as text.
        ("${none}", PlaceholderError::Unresolved("none".to_owned())),
        ("${}", PlaceholderError::Unresolved(String::new())),
        ("${self}", PlaceholderError::Circle("self".to_owned())),
        ("${ping}", PlaceholderError::Circle("ping".to_owned())),
        ("${bomb31}", PlaceholderError::TooLarge),
        (&deep, PlaceholderError::TooDeep),
        (&escaped, PlaceholderError::TooLarge),
        ("${bomb40}", PlaceholderError::TooDeep),
        ("x${key}", PlaceholderError::PrivateKey("key".to_owned())),
        (
            "${none:${key}}",
            PlaceholderError::PrivateKey("key".to_owned()),
        ),
    ] {
        assert_eq!(resolve(value, &lookup).unwrap_err(), error, "{value:.40}");
    }
    assert!(has_placeholder("a${b}") && !has_placeholder("a${b") && !has_placeholder("$b"));
}

#[test]
fn names_behind_a_backslash_are_not_those_of_placeholders() {
    let names = |value| placeholders(value).collect::<Vec<_>>();
    assert_eq!(names("${a}\\${b}${c:${d}}"), ["a", "c", "d"]);
    assert!(names("\\${a}").is_empty());
}
