use crate::properties::name::{
    Match, Name, Pattern, Variable, distance_up_to, uniform, variable_for,
};

fn fit(pattern: &'static str, name: &str) -> Option<Match> {
    Pattern::new(pattern).matches(&Name::parse(name))
}

#[test]
fn spellings_that_spring_binds_to_one_are_equal() {
    for (one, other) in [
        ("jwt-keys", "jwtKeys"),
        ("jwt-keys", "JWT_KEYS"),
        ("is-revoked", "isRevoked"),
        ("is-revoked", "IS_REVOKED"),
        ("configservice", "config-service"),
        ("keystore", "key-store"),
        ("mtls", "m-tls"),
        ("mtls", "mTls"),
        ("plainTextConsoleAppender", "plain-text-console-appender"),
        ("roles[0]", "roles.0"),
        ("deployments[dpe-dev].module", "deployments.dpe-dev.module"),
    ] {
        assert_eq!(Name::parse(one), Name::parse(other));
    }
    assert_ne!(Name::parse("tls.on"), Name::parse("tls.enabled"));
    assert_ne!(Name::parse("roles[1]"), Name::parse("roles[0]"));
    assert_ne!(Name::parse("a.b"), Name::parse("[a.b]"));
}

#[test]
fn map_keys_are_kept_as_written() {
    for (name, key) in [
        ("deployments.DPE_1.module", "DPE_1"),
        ("deployments.1dpe.module", "1dpe"),
        ("deployments[a.b].module", "a.b"),
        ("deployments.[a.b].module", "a.b"),
        ("DEPLOYMENTS.dpe-dev.Module", "dpe-dev"),
    ] {
        let found = fit("deployments.<name>.module", name).unwrap();
        assert_eq!(found.keys, [key]);
    }
    // An unbracketed dot ends the key: Spring drops such a deployment silently, here the name
    // fits nothing and is an unknown one.
    assert_eq!(
        fit("deployments.<name>.module", "deployments.a.b.module"),
        None
    );
}

#[test]
fn what_follows_a_pattern_is_left_over() {
    assert_eq!(fit("a.roles", "a.roles[0]").unwrap().rest, ["0"]);
    assert_eq!(fit("a.roles", "a.roles.0").unwrap().rest, ["0"]);
    assert_eq!(fit("a.roles", "a.roles[]").unwrap().rest, [""]);
    assert_eq!(fit("a.roles", "a.roles[-1]").unwrap().rest, ["-1"]);
    assert_eq!(fit("a.roles", "a.roles[0").map(|found| found.rest), None);
    assert_eq!(fit("a.roles", "a.roles").unwrap().rest, [""; 0]);
    assert_eq!(fit("a.roles", "a"), None);
}

fn known(keys: &[String]) -> Vec<String> {
    let names: &[&str] = match keys {
        [] => &["dpe-dev", "dpm"],
        [deployment] if deployment == "dpe-dev" => &["key", "key-1"],
        _ => &[],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn variable(name: &str) -> Option<Match> {
    let pattern = Pattern::new("deployments.<name>.jwt-keys.<key>.is-revoked");
    pattern.matches_variable(&Variable::parse(name), &known)
}

#[test]
fn variable_reaches_the_map_keys_that_are_there() {
    for (name, key) in [
        ("DEPLOYMENTS_DPEDEV_JWTKEYS_KEY_ISREVOKED", "key"),
        ("DEPLOYMENTS_DPE_DEV_JWT_KEYS_KEY_IS_REVOKED", "key"),
        ("deployments_dpedev_jwtkeys_key1_isrevoked", "key-1"),
        ("DEPLOYMENTS_DPEDEV_JWTKEYS_KEY_1_ISREVOKED", "key-1"),
    ] {
        assert_eq!(variable(name).unwrap().keys, ["dpe-dev", key], "{name}");
    }
}

/// In Spring the first of these makes a second, phantom deployment `dpedev` or `other`.
#[test]
fn variable_never_names_a_new_map_key() {
    for name in [
        "DEPLOYMENTS_OTHER_JWTKEYS_KEY_ISREVOKED",
        "DEPLOYMENTS_DPEDEV_JWTKEYS_KEY2_ISREVOKED",
        "DEPLOYMENTS_DPM_JWTKEYS_KEY_ISREVOKED",
        "DEPLOYMENTS_DPEDEV_JWTKEYS_KEY_ISREVOKD",
    ] {
        assert_eq!(variable(name), None, "{name}");
    }
}

#[test]
fn variable_may_carry_a_list_index() {
    let pattern = Pattern::new("deployments.<name>.roles");

    let found = pattern.matches_variable(&Variable::parse("DEPLOYMENTS_DPEDEV_ROLES_0"), &known);

    assert_eq!(found.unwrap().rest, ["0"]);
    assert_eq!(
        variable_for("deployments.dpe-dev.security.roles[0]"),
        "DEPLOYMENTS_DPEDEV_SECURITY_ROLES_0"
    );
}

#[test]
fn misspelt_name_is_near_the_one_meant() {
    let pattern = Pattern::new("deployments.<name>.security.jwt-keys.<key>.is-revoked");
    for (name, far) in [
        ("deployments.d.security.jwt-keys.k.is-revokd", Some(1)),
        ("deployments.d.security.jwt-keys.k.revoked", Some(2)),
        ("deployments.d.securty.jwt-key.k.is-revoked", Some(2)),
        ("deployments.d.security.jwt-keys.k.fingerprint", None),
        ("deployments.d.security.jwt-keys.is-revoked", None),
    ] {
        assert_eq!(pattern.distance(&Name::parse(name)), far, "{name}");
    }
    let keys = pattern.keys_of(&Name::parse("deployments.d.security.jwt-keys.k.is-revokd"));
    assert_eq!(
        pattern.with_keys(&keys),
        "deployments.d.security.jwt-keys.k.is-revoked"
    );
}

#[test]
fn distance_counts_inserted_dropped_changed_and_swapped_letters() {
    for (a, b, letters) in [
        ("module", "module", 0),
        ("module", "modul", 1),
        ("module", "mdoule", 1),
        ("module", "nodule", 1),
        ("content", "contents", 1),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(distance_up_to(3, a, b), Some(letters), "{a} {b}");
    }
    for (a, b) in [
        ("", "abcd"),
        ("kitten", "kit"),
        ("é", "ëêèf"),
        ("a", &"b".repeat(99)),
    ] {
        assert_eq!(distance_up_to(2, a, b), None, "{a} {b}");
    }
    assert_eq!(uniform("JWT_Keys-1"), "jwtkeys1");
}
