use crate::config::schema::{Known, Setting, find, settings};
use crate::properties::name::Name;

/// Every name that is one letter off: another letter, a doubled one, a dropped one. Map keys are
/// anybody's choice; case and dashes are spelling.
fn misspelt(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut in_key = false;
    for (at, letter) in name.char_indices() {
        in_key = (in_key || letter == '<') && letter != '>';
        if in_key || letter == '>' {
            continue;
        }
        let (start, rest) = name.split_at(at);
        let (_, tail) = rest.split_at(1);
        if start.ends_with('>') || tail.starts_with('<') {
            // A letter there makes another map key.
            continue;
        }
        let other = if letter == 'q' { 'z' } else { 'q' };
        wrong.push(format!("{start}{other}{tail}"));
        if letter != '-' {
            wrong.push(format!("{start}{tail}"));
            wrong.push(format!("{start}{letter}{rest}"));
        }
    }
    let fill = |name: String| {
        name.replace("<name>", "dpe-dev")
            .replace("<key>", "k")
            .replace("<c>", "dpm")
    };
    wrong.into_iter().map(fill).collect()
}

#[test]
fn misspelt_name_of_ours_never_goes_unnoticed() {
    let mut count = 0;
    for setting in settings().filter(|setting| setting.is_used()) {
        for wrong in misspelt(setting.name()) {
            let known = find(&Name::parse(&wrong));
            assert!(
                matches!(known, Known::Unknown | Known::NearMiss(_)),
                "{} as {wrong} is {known:?}",
                setting.name()
            );
            count += 1;
        }
    }
    assert!(count > 5000, "{count}");
}

#[test]
fn names_of_other_programs_are_not_mistaken_for_ours() {
    for name in [
        "spring.datasource.url",
        "server.servlet.context-path",
        "ataccama.one.mmm.host",
        "plugin.jdbcdriver.ataccama.one.driver.oracle.driver-class",
        "management",
        "a",
        "",
        "host",
    ] {
        let known = find(&Name::parse(name));
        assert!(matches!(known, Known::Foreign), "{name} is {known:?}");
    }
}

#[test]
fn settings_have_one_name_each_and_say_what_they_are_for() {
    let mut names: Vec<_> = settings().map(Setting::name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();

    assert_eq!(names.len(), count);
    assert!(settings().all(|setting| !setting.what().is_empty()));
}
