//! A key or a token in the wrong place of the command line is not repeated.

use super::support::{Folder, private_part};

/// Every command, and `K` where a user may put a key or a token.
const COMMANDS: &[&str] = &[
    "K",
    "demo K",
    "demo --keep f.properties/K",
    "pair K",
    "pair dpm=K dpe=K",
    "pair dpm=dpm.properties dpe=dpe.properties --key dpm=K",
    "pair dpm=K dpe=f.properties --yes",
    "pair --one-side dpm=K",
    "pair --one-side dpm=f.properties --name K --yes",
    "pair accept dpm=K --block K",
    "pair accept dpm=f.properties --block K",
    "pair accept dpm=f.properties --words K",
    "check K",
    "check f.properties K",
    "check --fix K",
    "check --fix f.properties K --yes -o json",
    "key K",
    "key gen K",
    "key gen --out K/K",
    "key fingerprint K",
    "key import K",
    "key import K --out K",
    "key export K",
    "key export --to K f.jwk",
    "token K",
    "token issue K",
    "token issue --home K --audience dpm",
    "token issue --home home --audience K",
    "token verify K",
    "token verify K --home home",
    "token verify --home K",
    "token explain K",
    "token explain --home home --log K",
    "token inspect K",
    "token inspect --token-file K",
    "dpm run K",
    "dpm run --home K",
    "dpm run --home home --set K",
    "dpm run --home home --set K=1",
    "dpm run --home home --set server.port=K",
    "dpe run --home K",
    "dpe run --home home --set countersign.deployment.name=K",
    "engines K",
    "engines list --home K",
    "engines watch --home K",
    "engines show K --home home",
    "jws verify --jwk K",
    "jws verify K",
    "explain K",
    "explain --log K",
    "deployment list --home K",
    "deployment list --home K -o json",
    "deployment show K --home home",
    "deployment add K --home f.properties --module dpe --public-key K",
    "deployment add d --home K --module dpe --public-key f.properties",
    "deployment add d --home home --module dpe --public-key K",
    "deployment remove K --home home --yes",
    "rotate status --home K --peer-file f.properties",
    "rotate prepare --home K --peer-file K",
    "rotate prepare --home home --peer-file K --yes",
    "rotate prepare --home K --one-side",
    "rotate finish --home home --peer-file f.properties --except K",
    "rotate prepare --home home --peer-file f.properties --peer-address K",
    "revoke --home K --deployment d",
    "revoke --home home --deployment K",
    "revoke --home home --deployment d --key K -o json",
    "revoke --home home --fingerprint K",
    "doctor K",
    "doctor --home K",
    "doctor --home K -o json",
    "doctor --home home --peer K",
    "doctor --home home --set K",
    "check f.properties --output K",
    "check f.properties --color K",
];

const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IksifQ.eyJpc3MiOiJkcGUtZGV2IiwiYXVkIjoiZHBtIn0.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

#[test]
fn no_command_repeats_a_key_or_a_token_of_its_arguments() {
    let folder = Folder::new();
    let jwk = folder.run("key gen").exits(0).stdout;
    let jwk: serde_json::Value = serde_json::from_str(&jwk).unwrap();
    let jwk = jwk.to_string();
    let private = private_part(&jwk);
    let base64 = base64(&jwk);
    folder.write("f.properties", "a=1\n");
    folder.write("home/etc/application.properties", "a=1\n");

    for (secret, argument) in [
        (private.as_str(), jwk.as_str()),
        (&base64, &base64),
        (TOKEN, TOKEN),
    ] {
        for command in COMMANDS {
            let run = folder.run(&command.replace('K', argument));

            assert!((1..=6).contains(&run.code), "{command}: {run:#?}");
            let output = run.stdout + &run.stderr;
            let characters: Vec<_> = secret.chars().collect();
            for part in characters.windows(20) {
                let part: String = part.iter().collect();
                assert!(!output.contains(&part), "`{part}` by {command}: {output}");
            }
        }
    }
}

#[test]
fn a_private_key_is_not_taken_from_an_option() {
    let folder = Folder::new();
    let jwk = folder.run("key gen").exits(0).stdout;
    let key = base64(&jwk);
    folder.write("home/etc/application.properties", "server.port=0\n");

    for setting in [
        "ataccama.authentication.internal.jwt.generator.key",
        "countersign.rotation.next-key",
    ] {
        let run = folder.run(&format!("dpm run --home home --set {setting}={key}"));

        let run = run.exits(3);
        let expected = format!("error[CS0108]: `{setting}` cannot be given with `--set`");
        assert!(run.stderr.contains(&expected), "{}", run.stderr);
        assert!(
            !run.stderr.contains(key.get(40..60).unwrap()),
            "{}",
            run.stderr
        );
    }
}

fn base64(jwk: &str) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    BASE64_STANDARD.encode(jwk.trim())
}
