use super::*;

const ACTIVE: &str = "spring.profiles.active";
const FILE: &str = "application.properties";

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

/// Writes `main` and the files of the profiles `dev` and `prod`, which set the port to 1 and 2.
fn folder(main: &str) -> Folder {
    let folder = Folder::new();
    folder.write(FILE, main);
    folder.write("application-dev.properties", "server.port=1\n");
    folder.write("application-prod.properties", "server.port=2\n");
    folder
}

fn port(main: &str, environment: &[(&str, &str)], sets: &[(&str, &str)]) -> u16 {
    let folder = folder(main);
    let file = folder.path().join(FILE);
    let settings = Settings::load(&file, &ModuleKind::Dpm, owned(environment), &owned(sets));
    settings.unwrap().options.server.http_port
}

#[test]
fn files_of_active_profiles_stand_above_the_main_one_and_the_later_wins() {
    let file = |active: &str| format!("{}server.port=9\n{ACTIVE}{active}\n", good());
    for (active, expected) in [
        ("=", 9),
        ("=dev", 1),
        ("= dev , prod ", 2),
        ("=prod,dev", 1),
        ("=dev,dev,prod,prod", 2),
        ("[0]=dev", 1),
        ("[0]=dev\nspring.profiles.active[1]=prod", 2),
        ("=${STAGE:prod}", 2),
        ("=absent", 9),
        ("=x\nspring.profiles.Active=dev", 1),
    ] {
        assert_eq!(port(&file(active), &[], &[]), expected, "{active}");
    }
}

#[test]
fn profiles_are_active_in_every_spelling_of_the_setting() {
    for name in [
        "spring.PROFILES.active",
        "spring.pro-files.active",
        "Spring.Pro_Files.ACTIVE",
        "spring.\\u0070rofiles.active",
        "# pprofile\nspring.profiles.active",
        "_s-PRING.profiles.active",
        "x=1\r\x0c\tspring.profiles.active",
    ] {
        let file = format!("{}server.port=9\n{name}=prod\n", good());
        assert_eq!(port(&file, &[], &[]), 2, "{name}");
    }
}

#[test]
fn variable_overrides_the_list_of_the_file_and_an_option_both() {
    let file = format!("{}server.port=9\n{ACTIVE}=dev\n", good());
    let variable = ("SPRING_PROFILES_ACTIVE", "prod");

    assert_eq!(port(&file, &[variable], &[]), 2);
    assert_eq!(port(&file, &[variable], &[(ACTIVE, "dev")]), 1);
    assert_eq!(port(&file, &[], &[(ACTIVE, "")]), 9);
    let named = format!("{}{ACTIVE}=${{STAGE}}\n", good());
    assert_eq!(port(&named, &[("STAGE", "prod")], &[]), 2);
    // What overrides the files overrides those of profiles, too.
    assert_eq!(port(&file, &[("SERVER_PORT", "3")], &[]), 3);
    assert_eq!(port(&file, &[], &[("server.port", "4")]), 4);
}

#[test]
fn profile_may_hold_the_own_key_and_add_to_a_deployment() {
    let (own, peer) = (key(), key());
    let lines = deployment("dpe-dev", "dpe", &peer);
    let (content, rest): (Vec<_>, Vec<_>) = lines
        .lines()
        .partition(|line| line.contains(".content") || line.contains("roles"));
    let folder = Folder::new();
    folder.write(FILE, rest.join("\n") + &format!("\n{ACTIVE}=dev\n"));
    let more = format!("\n{D}.dpe-dev.security.roles=OTHER,IMPERSONATION\n");
    folder.write(
        "application-dev.properties",
        own_line(&own) + &content.join("\n") + &more,
    );

    let settings = load(&folder.path().join(FILE));

    // The list of the profile's file stands twice there: the fault is where it is.
    let findings = settings.unwrap_err();
    assert_eq!(
        rows(findings.findings().unwrap()),
        [(Code::Cs0103, Severity::Error, 3, 1)]
    );
    folder.write(
        "application-dev.properties",
        own_line(&own) + &content[..1].join("\n") + &more,
    );
    let settings = load(&folder.path().join(FILE)).unwrap();
    assert_eq!(settings.own.fingerprint(), own.fingerprint());
    let deployment = &settings.deployments[0];
    assert_eq!(deployment.keys[0].key.fingerprint(), peer.fingerprint());
    assert_eq!(deployment.roles.to_string(), "[OTHER, IMPERSONATION]");
}

#[test]
fn findings_of_a_profile_name_its_file_and_line() {
    let folder = folder(&(good() + ACTIVE + "=dev\n"));
    let profile = "# one\n\u{e9}=1\ncountersign.nonsense=1\n  server.port=many\n";
    let file = folder.write("application-dev.properties", profile);

    let report = check(&[folder.path().join(FILE)], &[]).unwrap();
    let loaded = load(&folder.path().join(FILE)).unwrap_err();

    let placed = |findings: &Findings| -> Vec<_> {
        let findings = findings.iter();
        findings
            .map(|found| (found.code, found.origin.to_string()))
            .collect()
    };
    let at = |place: &str| format!("{}:{place}", file.display());
    let expected = [(Code::Cs0106, at("3:1")), (Code::Cs0306, at("4:15"))];
    assert_eq!(placed(&report.findings), expected);
    assert_eq!(placed(loaded.findings().unwrap()), expected);
    let shown: Vec<_> = report.findings.iter().collect();
    assert!(shown[0].message.contains("countersign.nonsense"));
}

#[test]
fn encoding_mode_and_byte_order_mark_are_each_files_own() {
    let folder = folder(&(good() + ACTIVE + "=dev,prod\n"));
    folder.write("application-dev.properties", b"\xef\xbb\xbfserver.port=1\n");
    let prod = folder.write("application-prod.properties", b"# \xe9\nserver.port=2\n");

    let report = check(&[folder.path().join(FILE)], &[]).unwrap();

    let found = report.findings.iter();
    let found: Vec<_> = found.map(|f| (f.code, f.origin.to_string())).collect();
    let dev = folder.path().join("application-dev.properties");
    let expected = [
        (Code::Cs0102, format!("{}:1:1", dev.display())),
        (Code::Cs0101, format!("{}:1:1", prod.display())),
    ];
    assert_eq!(found, expected);
}

#[test]
fn file_of_a_profile_that_makes_profiles_active_is_refused() {
    let folder = folder(&(good() + ACTIVE + "=dev\n"));
    let text = format!("{ACTIVE}=prod\nserver.port=1\n");
    folder.write("application-dev.properties", text);

    let report = check(&[folder.path().join(FILE)], &[]).unwrap();

    assert_eq!(
        rows(&report.findings),
        [(Code::Cs0306, Severity::Error, 1, 24)]
    );
    load(&folder.path().join(FILE)).unwrap_err();
}

#[test]
fn profile_that_is_named_beside_its_main_file_is_looked_at_once() {
    let folder = folder(&(good() + ACTIVE + "=dev\n"));
    let files = [FILE, "application-dev.properties"].map(|name| folder.path().join(name));

    let report = check(&files, &[]).unwrap();

    assert_eq!(rows(&report.findings), []);
    assert_eq!(report.files.len(), 1);
    // By itself it is what it is: a part of a file.
    let alone = check(&files[1..], &[]).unwrap();
    assert_eq!(alone.files.len(), 1);
}

#[test]
fn profile_that_cannot_be_read_is_an_error_with_its_name() {
    let folder = folder(&(good() + ACTIVE + "=dev\n"));
    let file = folder.path().join("application-dev.properties");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();

    let error = load(&folder.path().join(FILE)).unwrap_err();

    assert!(
        error.to_string().contains("application-dev.properties"),
        "{error}"
    );
}

#[test]
fn placeholder_in_the_list_never_shows_a_private_key() {
    let text = good() + ACTIVE + "=${ataccama.authentication.internal.jwt.generator.key}\n";
    let folder = folder(&text);

    let error = load(&folder.path().join(FILE)).unwrap_err();

    assert_eq!(
        rows(error.findings().unwrap()),
        [(Code::Cs0111, Severity::Error, 8, 24)]
    );
}

#[test]
fn key_in_the_list_of_profiles_is_shown_neither_as_a_name_nor_in_a_path() {
    let key = "eyJrdHkiOiJFQyIsImNydiI6IlAtMjU2IiwieCI6IkpoT3BmRkVqZzlPdkRiVjhCd2x5Mm9ZRWp";
    for active in [key.to_owned(), key.repeat(4)] {
        let text = good() + ACTIVE + "=" + &active + "\n";
        let folder = folder(&text);

        let report = check(&[folder.path().join(FILE)], &[]).unwrap();

        let reported: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            (reported.len(), report.findings.errors()),
            (1, 0),
            "{reported:?}"
        );
        assert!(
            !reported.concat().contains("eyJrdHkiOiJFQyIs"),
            "{reported:?}"
        );
    }
}

#[test]
fn active_profile_without_a_file_is_noted_where_it_is_named() {
    let noted = |active: &str, environment: &[(&str, &str)]| {
        let folder = folder(&format!("{}{ACTIVE}{active}\n", good()));
        let file = folder.path().join(FILE);
        let report = check(std::slice::from_ref(&file), &owned(environment)).unwrap();
        assert_eq!(
            (report.findings.errors(), report.findings.warnings()),
            (0, 0)
        );
        let notes = report.findings.iter().map(|found| {
            assert_eq!((found.code, found.severity), (Code::Cs0305, Severity::Note));
            let message = found.message.replace(&*folder.path().to_string_lossy(), "");
            let column = match &found.origin {
                Origin::File { column, .. } => column.to_string(),
                other => other.to_string(),
            };
            format!("{column}: {message}")
        });
        notes.collect::<Vec<_>>()
    };
    let note = |at: &str, name: &str| {
        format!(
            "{at}: profile `{name}` is active, but `/application-{name}.properties` does not exist"
        )
    };
    let variable = "SPRING_PROFILES_ACTIVE";

    for there in ["=dev", "=", "=dev,prod"] {
        assert!(noted(there, &[]).is_empty(), "{there}");
    }
    assert_eq!(noted("=x", &[]), [note("24", "x")]);
    assert_eq!(
        noted("[0]=dev\nspring.profiles.active[1]=x", &[]),
        [note("27", "x")]
    );
    assert_eq!(noted("=${STAGE:x}", &[]), [note("24", "x")]);
    assert_eq!(noted("=x,dev,y", &[]).len(), 2);
    assert_eq!(
        noted("=dev", &[(variable, "x")]),
        [note("environment variable SPRING_PROFILES_ACTIVE", "x")]
    );
    assert!(noted("=x", &[(variable, "dev")]).is_empty());
    assert!(noted("=x", &[("spring_profiles_active", "dev")]).is_empty());
    assert_eq!(noted("=${STAGE:dev,y}", &[]), [note("24", "y")]);
}

#[test]
fn profile_that_a_condition_names_needs_no_file() {
    let lines = "#---\nspring.config.activate.on-profile=x & !prod\nserver.port=3\n";
    let folder = folder(&format!("{}{ACTIVE}=x\n{lines}", good()));

    let report = check(&[folder.path().join(FILE)], &[]).unwrap();

    assert_eq!(rows(&report.findings), []);
}
