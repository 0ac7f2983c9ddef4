use super::{Folder, ModuleKind, Settings, deployment, error_codes, good, key};
use crate::config::schema::{Known, Takes, find, settings};
use crate::diagnostic::Code;
use crate::identity::DeploymentName;
use crate::properties::name::Name;

/// Loads a good file, which trusts `dpe-dev`, with `lines` and `--set` options added.
fn load(lines: &str, sets: &[(String, String)]) -> Settings {
    let file = Folder::new();
    let path = file.write("application.properties", good() + lines);
    Settings::load(&path, &ModuleKind::Dpm, [], sets).unwrap()
}

#[test]
fn different_settings_of_two_spellings_of_a_deployment_are_merged() {
    let other = "countersign.deployments.dpeDev.single-use-tokens=true\n";
    let addresses = "countersign.deployments.dpe-dev.allowed-addresses=10.0.0.0/8\n";

    for lines in [format!("{addresses}{other}"), format!("{other}{addresses}")] {
        let settings = load(&lines, &[]);

        assert_eq!(settings.options.addresses.len(), 1, "{lines}");
        assert_eq!(
            settings.options.addresses["dpe-dev"].allowed.len(),
            1,
            "{lines}"
        );
        assert!(settings.deployments[0].single_use_tokens, "{lines}");
    }
}

#[test]
fn option_in_a_different_spelling_keeps_the_other_settings_of_a_deployment() {
    let lines = "countersign.deployments.dpe-dev.allowed-addresses=10.0.0.0/8\n";
    let set = ("countersign.deployments.DPE_DEV.allow-low-ports", "true");
    let set = (set.0.to_owned(), set.1.to_owned());

    let settings = load(lines, &[set]);

    assert_eq!(settings.options.addresses.len(), 1);
    assert_eq!(settings.options.addresses["dpe-dev"].allowed.len(), 1);
    assert!(settings.options.addresses["dpe-dev"].allow_low_ports);
}

#[test]
fn option_that_adds_a_deployment_decides_how_it_is_spelled() {
    let trusted = deployment("dpe-two", "dpe", &key());
    let lines = trusted.lines().filter_map(|line| line.split_once('='));
    let mut sets: Vec<_> = lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let low = "countersign.deployments.DPE_TWO.allow-low-ports";
    sets.push((low.to_owned(), "true".to_owned()));
    let lines = "countersign.deployments.dpeTwo.allowed-addresses=10.0.0.0/8\n";

    let settings = load(lines, &sets);

    assert_eq!(settings.options.addresses.len(), 1);
    assert_eq!(settings.options.addresses["dpe-two"].allowed.len(), 1);
    assert!(settings.options.addresses["dpe-two"].allow_low_ports);
}

#[test]
fn one_setting_in_two_spellings_of_a_deployment_is_a_duplicate() {
    let twice = "countersign.deployments.dpeDev.allow-low-ports=true\n\
                 countersign.deployments.dpe-dev.allow-low-ports=false\n";

    assert_eq!(error_codes(good() + twice), [Code::Cs0103]);
}

#[test]
fn connection_names_its_deployment_in_any_spelling() {
    let lines = "countersign.client.connection.dpe.deployment=DPEDev\n\
                 ataccama.client.connection.dpe.host=localhost\n\
                 ataccama.client.connection.dpe.grpc.port=8532\n";

    let settings = load(lines, &[]);

    let connections = settings.options.client.connections.iter();
    let named = connections.filter_map(|c| c.deployment.as_ref());
    assert_eq!(
        named.map(DeploymentName::as_str).collect::<Vec<_>>(),
        ["dpe-dev"]
    );
}

/// Every name that is one letter off: another letter, a doubled one, a dropped one. Map keys are
/// free to choose; case and dashes are spelling.
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
        for wrong in misspelt(setting.name) {
            let known = find(&Name::parse(&wrong));
            assert!(
                matches!(known, Known::Unknown | Known::NearMiss(_)),
                "{} as {wrong} is {known:?}",
                setting.name
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
fn settings_have_one_name_each_and_say_why_they_have_no_effect() {
    let mut names: Vec<_> = settings().map(|setting| setting.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();

    assert_eq!(names.len(), count);
    assert!(settings().all(|setting| !matches!(setting.takes, Takes::Unused(""))));
}
