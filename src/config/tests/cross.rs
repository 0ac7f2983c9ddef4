use super::*;

use crate::diagnostic::Severity::{Error, Note, Warning};

/// Checks two files against each other: per finding its file's name and its row.
fn both(dpm: &str, dpe: &str) -> Vec<(String, Row)> {
    let folder = Folder::new();
    let files = [folder.write("dpm", dpm), folder.write("dpe", dpe)];
    let report = check(&files, &[]).unwrap();
    let named = |finding: &Finding| {
        let file = match &finding.origin {
            Origin::File { path, .. } => path.file_name().unwrap().to_str().unwrap().to_owned(),
            other => other.to_string(),
        };
        (file, row(finding))
    };
    report.findings.iter().map(named).collect()
}

struct Pair {
    dpm: SigningKey,
    dpe: SigningKey,
}

impl Pair {
    fn new() -> Self {
        Self {
            dpm: key(),
            dpe: key(),
        }
    }

    fn files(&self) -> (String, String) {
        (
            own_line(&self.dpm) + &deployment("dpe-dev", "dpe", &self.dpe),
            own_line(&self.dpe) + &deployment("dpm-dev", "dpm", &self.dpm),
        )
    }
}

fn in_file(file: &str, row: Row) -> (String, Row) {
    (file.to_owned(), row)
}

#[test]
fn pair_that_trusts_each_other_has_no_findings() {
    let (dpm, dpe) = Pair::new().files();

    assert_eq!(both(&dpm, &dpe), []);
}

#[test]
fn cs0401_key_that_the_other_file_does_not_trust() {
    let (dpm, _) = Pair::new().files();
    let (_, dpe) = Pair::new().files();

    let not_trusted = (Code::Cs0401, Error, 1, 52);
    assert_eq!(
        both(&dpm, &dpe),
        [in_file("dpe", not_trusted), in_file("dpm", not_trusted)]
    );
}

#[test]
fn cs0402_key_that_the_other_file_trusts_as_revoked() {
    let (dpm, dpe) = Pair::new().files();
    let dpm = dpm.replace("is-revoked=false", "is-revoked=true");

    assert_eq!(
        both(&dpm, &dpe),
        [
            in_file("dpe", (Code::Cs0402, Error, 1, 52)),
            in_file("dpm", (Code::Cs0302, Warning, 4, 77)),
        ]
    );
}

#[test]
fn cs0403_name_or_environment_that_differs() {
    let (dpm, dpe) = Pair::new().files();
    let named = format!("{dpe}countersign.deployment.name=dpe-test\n");
    assert_eq!(
        both(&dpm, &named),
        [in_file("dpe", (Code::Cs0403, Error, 8, 29))]
    );

    let named = format!("{dpe}countersign.deployment.name=dpe-dev\n");
    assert_eq!(both(&dpm, &named), []);

    let moved = dpe.replace("environment=dev", "environment=test");
    assert_eq!(
        both(&dpm, &moved),
        [in_file("dpm", (Code::Cs0403, Warning, 3, 55))]
    );
}

#[test]
fn cs0404_one_private_key_in_both_files() {
    let (one, peer) = (key(), key());
    let dpm = own_line(&one) + &deployment("dpe-dev", "dpe", &peer);
    let dpe = own_line(&one) + &deployment("dpm-dev", "dpm", &peer);

    assert_eq!(
        both(&dpm, &dpe),
        [in_file("dpm", (Code::Cs0404, Error, 1, 52))]
    );
}

#[test]
fn variable_that_is_wrong_is_found_in_several_files_too() {
    let folder = Folder::new();
    let (dpm, dpe) = Pair::new().files();
    let files = [folder.write("dpm", dpm), folder.write("dpe", dpe)];
    let own = own_line(&key());
    let key = own.split_once('=').unwrap().1.trim();
    let codes = |name: &str, value: &str| {
        let report = check(&files, &[(name.to_owned(), value.to_owned())]).unwrap();
        let found = report.findings.iter().map(|found| found.code);
        found.collect::<Vec<_>>()
    };

    assert_eq!(codes("COUNTERSIGN_TOKEN_LEEWAY", "9000s"), [Code::Cs0306]);
    // Each module has its own: what they set here is not compared.
    let name = "ATACCAMA_AUTHENTICATION_INTERNAL_JWT_GENERATOR_KEY";
    assert_eq!(codes(name, key), []);
    assert_eq!(codes("COUNTERSIGN_DEPLOYMENT_NAME", "other"), []);
}

#[test]
fn cs0406_message_sizes_that_do_not_fit() {
    let (dpm, dpe) = Pair::new().files();
    let sized = |server: &str, client: &str| {
        both(
            &format!("{dpm}ataccama.server.grpc.maxMessageSize={server}\n"),
            &format!("{dpe}ataccama.client.grpc.properties.max-message-size={client}\n"),
        )
    };

    for (server, client) in [
        ("8MB", "4MB"),
        ("1GB", "10MB"),
        ("4MB", "2GB"),
        ("64MB", "1GB"),
    ] {
        let expected = [in_file("dpe", (Code::Cs0406, Warning, 8, 50))];
        assert_eq!(sized(server, client), expected, "{server} {client}");
    }
    assert_eq!(sized("10MB", "10MB"), []);
}

#[test]
fn cs0406_is_a_note_for_the_vendors_own_sample_values() {
    let (dpm, dpe) = Pair::new().files();
    let expected = [in_file("dpe", (Code::Cs0406, Note, 8, 50))];
    let client = "ataccama.client.grpc.properties.max-message-size";
    for (server, client_size) in [("1GB", "4MB"), ("10MB", "4MB"), ("10MB", "1GB")] {
        let server = format!("{dpm}ataccama.server.grpc.max-message-size={server}\n");
        let client = format!("{dpe}{client}={client_size}\n");
        assert_eq!(both(&server, &client), expected);
    }
    // The default beside one that is set.
    assert_eq!(both(&dpm, &format!("{dpe}{client}=1GB\n")), expected);
}

#[test]
fn cs0306_strict_module_whose_peer_reuses_its_tokens() {
    let (dpm, dpe) = Pair::new().files();
    let strict = format!("{dpm}countersign.token.replay=strict\n");
    assert_eq!(
        both(&strict, &dpe),
        [in_file("dpm", (Code::Cs0306, Error, 8, 26))]
    );

    let single = "countersign.deployments.dpm-dev.single-use-tokens";
    let reusing = format!("{dpe}{single}=false\n");
    assert_eq!(
        both(&strict, &reusing),
        [in_file("dpm", (Code::Cs0306, Error, 8, 26))]
    );
    let minting = format!("{dpe}{single}=true\n");
    assert_eq!(both(&strict, &minting), []);
    assert_eq!(both(&dpm, &minting), []);
}

#[test]
fn cs0306_tokens_that_the_other_file_refuses() {
    let (dpm, dpe) = Pair::new().files();
    let lifetime = "ataccama.authentication.internal.jwt.generator.token-expiration=800\n";
    let accepted = "countersign.token.max-lifetime=600s\n";

    assert_eq!(
        both(&format!("{dpm}{accepted}"), &format!("{dpe}{lifetime}")),
        [in_file("dpe", (Code::Cs0306, Error, 8, 65))]
    );
    assert_eq!(both(&dpm, &format!("{dpe}{lifetime}")), []);
}

#[cfg(feature = "testing")]
#[test]
fn each_of_several_files_is_looked_at_once() {
    let folder = Folder::new();
    let files = ["a", "b"].map(|name| folder.write(name, good()));
    let [one, other, both] = [&files[..1], &files[1..], &files[..]].map(|files| {
        let before = crate::properties::looks();
        check(files, &[]).unwrap();
        crate::properties::looks() - before
    });

    assert!(both < (one + other) * 3 / 2, "{one}, {other}, {both}");
}
