use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::*;
use crate::config::schema::settings;
use crate::grpc::Target;

fn loaded(
    text: &str,
    environment: &[(&str, &str)],
    sets: &[(&str, &str)],
) -> Result<Settings, super::super::LoadError> {
    let folder = Folder::new();
    folder.write("dpm/etc/application.properties", text);
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    };
    let home = folder.0.path().join("dpm");
    Settings::load(&home, &ModuleKind::Dpm, owned(environment), &owned(sets))
}

#[test]
fn settings_of_a_minimal_file_have_the_defaults() {
    let settings = loaded(&good(), &[], &[]).unwrap();

    assert_eq!(settings.options.server.port, 8531);
    assert_eq!(settings.options.server.http_port, 8031);
    assert_eq!(settings.options.server.address, Ipv4Addr::LOCALHOST);
    assert_eq!(settings.options.server.options.max_message_bytes, 4 << 20);
    assert_eq!(settings.options.policy, crate::token::Policy::default());
    assert_eq!(
        settings.options.monitor.checker_timeout,
        Duration::from_millis(200)
    );
    assert_eq!(
        settings.options.monitor.inactivate_not_seen_for,
        Duration::from_secs(172_800)
    );
    assert_eq!(
        settings.options.engine.check_connection,
        Duration::from_secs(5)
    );
    assert_eq!(
        settings.options.impersonation_role.as_str(),
        "IMPERSONATION"
    );
    let dpm = &settings.options.client.connections[0];
    assert_eq!(dpm.target, Target::new("localhost", 8531));
    assert!(settings.options.logging.console.plain && settings.options.logging.file.json);
    assert!(settings.options.logging.dir.ends_with("dpm/log"));
    assert_eq!(
        settings.own.issuer(),
        settings.own.fingerprint().to_string()
    );
    let deployment = &settings.deployments[0];
    assert_eq!(deployment.name.as_str(), "dpe-dev");
    assert_eq!(deployment.keys[0].name, "key");
    assert!(settings.module().is_ok());
    assert!(settings.findings.is_empty());
}

#[test]
fn ipv6_host_is_an_address_with_and_without_brackets() {
    for host in ["::1", "[::1]"] {
        let text = good() + "ataccama.client.connection.dpm.host=" + host + "\n";

        let settings = loaded(&text, &[], &[]).unwrap();

        assert_eq!(settings.options.client.connections[0].target.host(), "::1");
    }
}

#[test]
fn environment_overrides_the_file_and_options_override_both() {
    let text = good() + "ataccama.server.grpc.port=1\nserver.port=1\n";
    let settings = loaded(
        &text,
        &[
            ("ATACCAMA_SERVER_GRPC_PORT", "2"),
            ("SERVER_PORT", "2"),
            ("HOME", "/root"),
        ],
        &[("server.port", "3"), ("countersign.token.leeway", "5")],
    )
    .unwrap();

    assert_eq!(
        (
            settings.options.server.port,
            settings.options.server.http_port
        ),
        (2, 3)
    );
    assert_eq!(settings.options.policy.leeway(), Duration::from_secs(5));
}

#[test]
fn environment_revokes_a_key_of_a_deployment_that_is_there() {
    for name in [
        "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPEDEV_SECURITY_JWTKEYS_KEY_ISREVOKED",
        "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPE_DEV_SECURITY_JWT_KEYS_KEY_IS_REVOKED",
    ] {
        let settings = loaded(&good(), &[(name, "true")], &[]).unwrap();

        assert_eq!(settings.deployments.len(), 1, "no phantom");
        assert!(settings.deployments[0].keys[0].revoked);
    }
}

#[test]
fn environment_replaces_the_whole_list() {
    let text = good() + &format!("{D}.dpe-dev.security.roles[1]=ADMIN\n");
    let list = "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPEDEV_SECURITY_ROLES";

    let settings = loaded(&text, &[(&format!("{list}_0"), "IMPERSONATION")], &[]).unwrap();
    assert_eq!(settings.deployments[0].roles.to_string(), "[IMPERSONATION]");

    let settings = loaded(&text, &[(list, "A, IMPERSONATION")], &[]).unwrap();
    assert_eq!(
        settings.deployments[0].roles.to_string(),
        "[A, IMPERSONATION]"
    );
}

#[test]
fn variable_that_must_be_meant_for_us_and_fits_nothing_is_an_error() {
    for name in [
        "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_OTHER_SECURITY_JWTKEYS_KEY_ISREVOKED",
        "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPEDEV_SECURITY_JWTKEYS_KEY_ISREVOKD",
        "COUNTERSIGN_TOKEN_LEEWAI",
    ] {
        let error = loaded(&good(), &[(name, "true")], &[]).unwrap_err();
        let found = error.findings().unwrap().iter().next().unwrap();
        assert_eq!(found.code, Code::Cs0106);
        assert_eq!(
            found.origin.to_string(),
            format!("environment variable {name}")
        );
    }
    // What Kubernetes makes for a service called `countersign`, and a variable of a test.
    for name in [
        "COUNTERSIGN_SERVICE_HOST",
        "COUNTERSIGN_PORT_8531_TCP",
        "COUNTERSIGN_ETCD",
    ] {
        assert!(loaded(&good(), &[(name, "x")], &[]).is_ok(), "{name}");
    }
}

#[test]
fn unknown_option_is_an_error() {
    let error = loaded(&good(), &[], &[("server.prt", "1")]).unwrap_err();

    assert!(error.to_string().contains("CS0106"), "{error}");
}

#[test]
fn placeholders_reach_foreign_names_variables_and_folders() {
    let text = good()
        + "my.port=9000\nataccama.server.grpc.port=${my.port}\n\
           ataccama.client.connection.dpm.host=${DPM_HOST:localhost}\n\
           server.address=${HTTP_HOST}\n";

    let settings = loaded(
        &text,
        &[("DPM_HOST", "127.0.0.1"), ("HTTP_HOST", "::1")],
        &[],
    )
    .unwrap();

    assert_eq!(settings.options.server.port, 9000);
    assert_eq!(
        settings.options.client.connections[0].target.host(),
        "127.0.0.1"
    );
    assert_eq!(settings.options.server.http_address, Ipv6Addr::LOCALHOST);

    let folder = good() + "server.port=${ataccama.path.storage}\n";
    let error = loaded(&folder, &[], &[]).unwrap_err().to_string();
    assert!(error.contains("dpm/storage` of `server.port`"), "{error}");
}

#[test]
fn every_option_of_the_monitor_comes_from_its_setting() {
    let lines = "ataccama.one.dpm.registry.inactivate-scheduler-period=3s\n\
                 ataccama.one.dpm.registry.check-disconnected-interval-multiplier=3\n";

    let settings = loaded(&(good() + lines), &[], &[]).unwrap();

    assert_eq!(
        settings.options.monitor.inactivate_period,
        Duration::from_secs(3)
    );
    assert!((settings.options.monitor.check_disconnected_multiplier - 3.0).abs() < f64::EPSILON);
}

/// `check` reports an error for a value exactly if loading refuses it, for every setting.
#[test]
fn check_refuses_what_a_start_refuses() {
    let values = ["x y", "file:/x"];
    let folder = Folder::new();
    let good = good();
    for setting in settings().filter(|setting| setting.is_used() && !setting.is_private()) {
        let name = setting.name.replace("<name>", "dpe-dev");
        let name = name.replace("<key>", "key").replace("<c>", "dpm");
        for value in values {
            let file = folder.write("application.properties", format!("{good}{name}={value}\n"));
            let report = check(std::slice::from_ref(&file), &[]).unwrap();
            let loaded = load(&file);
            let refused = loaded.as_ref().is_err();
            let why = loaded.as_ref().err().map(ToString::to_string);
            assert_eq!(
                report.findings.errors() > 0,
                refused,
                "{name}={value}: {why:?}"
            );
            let made = loaded.ok().map(|settings| settings.module());
            assert!(made.is_none_or(|module| module.is_ok()), "{name}={value}");
        }
    }
}

#[test]
fn missing_home_is_named() {
    let error = load(Path::new("/nowhere/dpm")).unwrap_err();

    assert_eq!(
        error.to_string(),
        "cannot read `/nowhere/dpm`: there is no such file"
    );
}

#[test]
fn module_is_loaded_from_its_home() {
    let folder = Folder::new();
    folder.write("dpm/etc/application.properties", good());

    let module = crate::grpc::Module::load(folder.0.path().join("dpm")).unwrap();

    assert_eq!(module.own().module.as_str(), "dpm");
    assert!(module.layer_for("dpe-dev").is_ok());
}

#[test]
fn large_file_with_foreign_names_loads_without_a_word() {
    let mut text = good();
    for n in 0..600 {
        let name = format!("plugin.jdbcdriver.ataccama.one.driver.postgres{n}.pattern");
        writeln!(text, "{name}=SELECT {{columns}} FROM {{table}} # {n}").unwrap();
    }
    assert!(text.len() > 40_000);
    let folder = Folder::new();
    let file = folder.write("a", &text);

    let settings = load(&file).unwrap();
    let report = check(&[file], &[]).unwrap();

    assert!(settings.findings.is_empty(), "{:?}", settings.findings);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.ignored.len(), 600);
}

#[test]
fn thousand_deployments_load() {
    let peer = key();
    let mut text = own_line(&key());
    for n in 0..1000 {
        let name = format!("d{n}");
        let block = deployment(&name, "dpe", &peer);
        text += &block.replace(&kid(&peer).to_string(), &format!("k{n}"));
    }
    let report = Folder::new().check(text);

    // One key in a thousand places: each but the first is reported, up to the limit.
    let codes: Vec<_> = report.findings.iter().map(|found| found.code).collect();
    assert_eq!(
        codes.iter().filter(|code| **code == Code::Cs0208).count(),
        201
    );
}

#[test]
fn hostile_files_end_quickly() {
    let lines = format!("{D}.x.security.jwt-keys.k.is-revokd=true\n").repeat(50_000);
    let long = format!("{KEY}={}", "A".repeat(7_000_000));
    let nested = format!("server.port={}", "${".repeat(500_000));
    let deep = format!(
        "{D}.x.security.jwt-keys.k.content={}",
        "[".repeat(1_000_000)
    );
    for text in [lines, long, nested, deep] {
        let report = Folder::new().check(text);

        assert!(report.findings.errors() > 0);
        assert!(report.findings.len() < 500);
    }
}
