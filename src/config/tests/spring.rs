//! The rows of `tests/data/spring_boot.json`: what Spring Boot's manual says, file by file.

use serde_json::Value;

use super::*;

pub fn rows_of_the_manual() -> Vec<Value> {
    let text = include_str!("../../../tests/data/spring_boot.json");
    serde_json::from_str(text).unwrap()
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let members = value.as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    members
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

/// The settings that rows look at: the name in the row, and what a module makes of it.
fn found(settings: &Settings, name: &str) -> String {
    let options = &settings.options;
    match name {
        "server.port" => options.server.http_port.to_string(),
        "ataccama.server.grpc.port" => options.server.port.to_string(),
        "ataccama.one.dpe.service.hostname" => options.engine.hostname.clone().unwrap_or_default(),
        "deployments" => {
            let names = settings.deployments.iter().map(|one| one.name.as_str());
            names.collect::<Vec<_>>().join(",")
        }
        other => panic!("no row may look at {other}"),
    }
}

#[test]
fn every_row_of_the_manual_reads_as_spring_boot_reads_it() {
    let good = good();
    let all = rows_of_the_manual();

    let wrong: Vec<_> = all.iter().filter_map(|row| is_wrong(row, &good)).collect();

    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The settings file of a module, in its home.
pub const MAIN: &str = "etc/application.properties";

/// Writes the files of a row into `folder`, the home, the main one below `good`; returns the
/// environment.
pub fn written(row: &Value, folder: &Folder, good: &str) -> Vec<(String, String)> {
    let home = folder.path().to_string_lossy().into_owned();
    for (path, text) in pairs(&row["files"]) {
        let key = if path == MAIN { good } else { "" };
        folder.write(&path, format!("{key}{}", text.replace("<home>", &home)));
    }
    let all = pairs(&row["environment"]).into_iter();
    all.map(|(name, value)| (name, value.replace("<home>", &home)))
        .collect()
}

/// Returns what is wrong with a row; `None` if check and start agree with it.
fn is_wrong(row: &Value, good: &str) -> Option<String> {
    let folder = Folder::new();
    let environment = written(row, &folder, good);
    let sets = pairs(&row["set"]);
    let file = folder.path().join(MAIN);
    let loaded = Settings::load(&file, &ModuleKind::Dpm, environment.clone(), &sets);
    let report = check(&[file], &environment).unwrap();
    let wanted = row["refused"].as_str();
    let seen = match (loaded, wanted) {
        (Ok(settings), None) => {
            let values = pairs(&row["values"]).into_iter();
            let mut others = values.filter(|(name, value)| found(&settings, name) != *value);
            others
                .next()
                .map(|(name, _)| format!("{name} is {}", found(&settings, &name)))
        }
        (Err(error), Some(code)) => {
            let findings = error.findings().cloned().unwrap_or_default();
            let mut codes = findings.iter().map(|found| found.code.as_str());
            (!codes.any(|found| found == code)).then(|| error.to_string())
        }
        (Err(error), None) => Some(error.to_string()),
        (Ok(_), Some(_)) => Some("it is accepted".to_owned()),
    };
    let agrees = !sets.is_empty() || (report.findings.errors() > 0) == wanted.is_some();
    let of_check = || (!agrees).then(|| format!("check: {:?}", report.findings));
    let seen = seen.or_else(of_check)?;
    Some(format!("{row}\n  {seen}"))
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[test]
fn document_that_is_not_active_has_no_effect_and_is_noted() {
    let folder = Folder::new();
    let peer = deployment("partner", "dpe", &key());
    let text = good()
        + "#---\nspring.config.activate.on-profile=prod\n"
        + &peer
        + "countersign.server.allow-plaintext=true\n";
    let file = folder.write("application.properties", &text);

    let settings = load(&file).unwrap();

    assert_eq!(settings.deployments.len(), 1);
    assert!(!settings.options.server.allow_plaintext);
    let report = check(std::slice::from_ref(&file), &[]).unwrap();
    assert_eq!(
        rows(&report.findings),
        [(Code::Cs0305, Severity::Note, 9, 1)]
    );
    let environment = owned(&[("SPRING_PROFILES_ACTIVE", "prod")]);
    let settings = Settings::load(&file, &ModuleKind::Dpm, environment, &[]).unwrap();
    assert_eq!(settings.deployments.len(), 2);
    assert!(settings.options.server.allow_plaintext);
}

#[test]
fn second_value_in_another_document_is_no_duplicate() {
    let folder = Folder::new();
    let again = "#---\nserver.port=2\n#---\nserver.port=3\n";

    let report = folder.check(good() + "server.port=1\n" + again);

    assert_eq!(rows(&report.findings), []);
}

#[test]
fn revocation_in_a_document_that_is_not_active_is_warned_of() {
    let folder = Folder::new();
    let revoked = format!("{D}.dpe-dev.security.jwt-keys.key.is-revoked=true\n");
    let text = good() + "#---\nspring.config.activate.on-profile=prod\n" + &revoked;
    let file = folder.write("application.properties", text);

    let settings = load(&file).unwrap();

    assert_eq!(
        rows(&settings.findings),
        [(Code::Cs0305, Severity::Warning, 10, 76)]
    );
}

#[test]
fn placeholder_never_reaches_into_a_document_that_is_not_active() {
    let text = good()
        + "port=1\nserver.port=${port}\n#---\nspring.config.activate.on-profile=prod\nport=2\n";
    let file = Folder::new();
    let path = file.write("application.properties", text);

    assert_eq!(load(&path).unwrap().options.server.http_port, 1);
}

#[test]
fn a_revocation_in_an_import_without_extension_holds() {
    let revoked = format!("{D}.dpe-dev.security.jwt-keys.key.is-revoked=true\n");
    for (active, file) in [("", "revoked"), ("prod", "revoked-prod")] {
        let folder = Folder::new();
        let lines = format!(
            "spring.config.import=optional:file:./revoked[.properties]\n\
             spring.profiles.active={active}\n"
        );
        folder.write(MAIN, good() + &lines);
        folder.write(file, &revoked);

        let settings = load(folder.path()).unwrap();

        assert!(settings.deployments[0].keys[0].revoked, "{file}");
    }
}

#[test]
fn variables_of_a_group_with_a_gap_are_refused() {
    let group = "SPRING_PROFILES_GROUP_A";
    for (indices, expected) in [
        (["0", "2"], 1),
        (["1", "EU"], 1),
        (["00", "0"], 1),
        (["0", "1024"], 1),
        (["0", "1"], 0),
        (["0", "EU"], 0),
    ] {
        let folder = Folder::new();
        let path = folder.write(MAIN, good() + "spring.profiles.active=a\n");
        folder.write("etc/application-c.properties", "server.port=0x\n");
        let variables = indices.map(|index| (format!("{group}_{index}"), "c".to_owned()));

        let report = check(&[path], &variables).unwrap();

        let codes = report.findings.iter().map(|found| found.code);
        let gaps = codes.clone().filter(|code| *code == Code::Cs0109).count();
        assert_eq!(gaps, expected, "{indices:?}");
        // The members are active all the same.
        assert!(
            codes.clone().any(|code| code == Code::Cs0306),
            "{indices:?}"
        );
    }
}

#[test]
fn service_links_are_no_settings() {
    let file = good() + "ataccama.server.grpc.port=9000\n";
    for service in [
        "COUNTERSIGN_REGISTRY",
        "SERVER",
        "ATACCAMA_ONE_DPE",
        "SPRING_PROFILES",
    ] {
        let names = [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "8531"),
            ("SERVICE_PORT_GRPC", "8531"),
            ("PORT", "tcp://10.0.0.1:8531"),
            ("PORT_8531_TCP", "tcp://10.0.0.1:8531"),
            ("PORT_8531_TCP_PROTO", "tcp"),
            ("PORT_8531_TCP_PORT", "8531"),
            ("PORT_8531_TCP_ADDR", "10.0.0.1"),
            ("PORT_53_UDP", "udp://10.0.0.1:53"),
        ];
        let variables = names.map(|(end, value)| (format!("{service}_{end}"), value.to_owned()));
        let folder = Folder::new();
        let path = folder.write("application.properties", &file);

        let settings = Settings::load(&path, &ModuleKind::Dpe, variables.clone(), &[]);

        let settings = settings.unwrap_or_else(|error| panic!("{service}: {error}"));
        assert_eq!(settings.options.engine.port, None, "{service}");
        assert_eq!(settings.options.server.http_port, 8034, "{service}");
        assert_eq!(rows(&settings.findings), [], "{service}");
        assert_eq!(check(&[path], &variables).unwrap().findings.errors(), 0);
    }
}

#[test]
fn setting_that_looks_like_a_service_link_is_a_setting() {
    let folder = Folder::new();
    let path = folder.write("application.properties", good());
    let variables = owned(&[
        ("ATACCAMA_ONE_DPE_SERVICE_PORT", "9532"),
        ("ATACCAMA_SERVER_GRPC_PORT", "9532"),
        ("SERVER_PORT", "9034"),
    ]);

    let settings = Settings::load(&path, &ModuleKind::Dpe, variables, &[]).unwrap();

    assert_eq!(settings.options.engine.port, Some(9532));
    assert_eq!(settings.options.server.http_port, 9034);
}

#[test]
fn check_finds_what_a_run_refuses_in_the_environment() {
    let folder = Folder::new();
    let path = folder.write("application.properties", good());
    for (name, value, code) in [
        ("ATACCAMA_SERVER_GRPC_PORT", "abc", Code::Cs0306),
        ("COUNTERSIGN_REGISTRY_URL", "etcd://localhost", Code::Cs0306),
        ("COUNTERSIGN_NONSENSE_X", "1", Code::Cs0106),
        ("COUNTERSIGN_DEPLOYMENT_NAME", "a b", Code::Cs0306),
    ] {
        let environment = owned(&[(name, value)]);

        let report = check(std::slice::from_ref(&path), &environment).unwrap();
        let loaded = Settings::load(&path, &ModuleKind::Dpm, environment, &[]);

        let error = loaded
            .map(|_| ())
            .map_err(|error| error.findings().cloned().unwrap());
        let errors = error.map_or_else(|findings| findings.errors(), |()| 0);
        assert_eq!(report.findings.errors(), errors, "{name}");
        let found = report.findings.iter().find(|found| found.code == code);
        assert_eq!(found.is_some(), errors > 0, "{name}: {:?}", report.findings);
    }
}

#[test]
fn several_files_are_compared_without_the_environment_of_this_process() {
    let folder = Folder::new();
    let (dpm, dpe) = (key(), key());
    let files = [("dpm", &dpm, "dpe", &dpe), ("dpe", &dpe, "dpm", &dpm)];
    let paths = files.map(|(name, own, other, trusted)| {
        let text = own_line(own) + &deployment(&format!("{other}-dev"), other, trusted);
        folder.write(&format!("{name}/etc/application.properties"), text)
    });
    let revoked = "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPEDEV_SECURITY_JWTKEYS_KEY_ISREVOKED";

    let report = check(&paths, &owned(&[(revoked, "true")])).unwrap();

    let codes: Vec<_> = report.findings.iter().map(|found| found.code).collect();
    assert!(!codes.contains(&Code::Cs0402), "{codes:?}");
}
