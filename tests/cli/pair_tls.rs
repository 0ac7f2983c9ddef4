//! `countersign pair --tls`.

use std::fs;

#[cfg(unix)]
use super::support::mode;
use super::support::{Folder, Run};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";
const PAIR: &str =
    "pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties --tls";
const PINNED: &str = "countersign.deployments.dpm-dev.tls-keys.key.fingerprint=";

fn paired() -> Folder {
    let folder = Folder::new();
    folder.run(PAIR).exits(0);
    folder
}

fn snapshot(folder: &Folder) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for home in ["dpm/etc", "dpe/etc"] {
        for name in folder.names(home) {
            let path = format!("{home}/{name}");
            files.push((path.clone(), folder.read(&path)));
        }
    }
    files
}

/// The line of `file` that begins with `start`, after it.
#[track_caller]
fn rest_of(folder: &Folder, file: &str, start: &str) -> String {
    let text = folder.read(file);
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    line.unwrap_or_else(|| panic!("no {start} in {text}"))
        .to_owned()
}

#[test]
fn each_side_gets_a_certificate_and_the_other_ones_pin() {
    let folder = Folder::new();

    let run = folder.run(PAIR).exits(0);

    let names = [
        "application.properties",
        "dpm-dev-tls-key.pem",
        "dpm-dev-tls.pem",
    ];
    assert_eq!(folder.names("dpm/etc"), names);
    #[cfg(unix)]
    {
        assert_eq!(mode(&folder.path("dpm/etc/dpm-dev-tls-key.pem")), 0o600);
        assert_eq!(mode(&folder.path("dpm/etc/dpm-dev-tls.pem")), 0o644);
    }
    let dpm = folder.read(DPM);
    for line in [
        "ataccama.server.grpc.tls.enabled=true",
        "ataccama.server.grpc.tls.mtls=require",
        "ataccama.server.grpc.tls.cert-chain=file:etc/dpm-dev-tls.pem",
        "ataccama.server.grpc.tls.private-key=file:etc/dpm-dev-tls-key.pem",
        "ataccama.client.connection.dpe.grpc.tls.enabled=true",
        "ataccama.client.connection.dpe.grpc.tls.cert-chain=file:etc/dpm-dev-tls.pem",
        "ataccama.client.connection.dpe.grpc.tls.private-key=file:etc/dpm-dev-tls-key.pem",
    ] {
        assert!(dpm.lines().any(|other| other == line), "{line}: {dpm}");
    }
    let pin = rest_of(&folder, DPE, PINNED);
    assert!(
        run.stdout.contains(&format!("new TLS key {pin}")),
        "{}",
        run.stdout
    );
    let key = folder.read("dpm/etc/dpm-dev-tls-key.pem");
    let secret = key.lines().nth(1).unwrap();
    assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret));
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn pin_is_what_openssl_computes_of_the_certificate() {
    let folder = paired();
    let script = "openssl x509 -in dpm/etc/dpm-dev-tls.pem -pubkey -noout | openssl pkey -pubin \
                  -outform DER | openssl dgst -sha256 -binary | base64 | tr '+/' '-_' | tr -d '=\\n'";

    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(folder.path(""))
        .output()
        .unwrap();

    let computed = String::from_utf8(output.stdout).unwrap();
    if computed.is_empty() {
        eprintln!("skipped: no openssl");
        return;
    }
    assert_eq!(computed, rest_of(&folder, DPE, PINNED));
}

#[test]
fn pairing_again_changes_nothing() {
    let folder = paired();
    let before = snapshot(&folder);

    let run = folder.run(PAIR).exits(0);

    assert!(run.stdout.contains("nothing to do"), "{}", run.stdout);
    assert_eq!(snapshot(&folder), before);
}

#[test]
fn pair_without_tls_gets_it_later() {
    let folder = Folder::new();
    let plain = PAIR.trim_end_matches(" --tls");
    folder.run(plain).exits(0);
    let before = folder.read(DPM);

    folder.run(&format!("{PAIR} --yes")).exits(0);

    let after = folder.read(DPM);
    assert!(after.starts_with(&before), "{after}");
    assert!(after.contains("tls-keys.key.fingerprint"), "{after}");
}

#[test]
fn dry_run_writes_no_certificate() {
    let folder = Folder::new();

    let run = folder.run(&format!("{PAIR} --dry-run")).exits(0);

    assert!(
        run.stdout.contains("dpm-dev-tls-key.pem  (new, mode 0600)"),
        "{}",
        run.stdout
    );
    assert!(!folder.path("dpm").exists());
}

#[test]
fn certificate_that_is_there_is_kept_and_pinned() {
    let folder = paired();
    let pin = rest_of(&folder, DPE, PINNED);
    // Both files again from scratch, the certificates stay.
    fs::remove_file(folder.path(DPM)).unwrap();
    fs::remove_file(folder.path(DPE)).unwrap();
    let certificate = folder.read("dpm/etc/dpm-dev-tls.pem");

    let run = folder.run(PAIR).exits(0);

    assert!(
        run.stdout.contains(&format!("its TLS key {pin}")),
        "{}",
        run.stdout
    );
    assert_eq!(folder.read("dpm/etc/dpm-dev-tls.pem"), certificate);
    assert_eq!(rest_of(&folder, DPE, PINNED), pin);
}

#[test]
fn certificate_named_in_the_file_is_used_whatever_it_is_called() {
    let folder = paired();
    let pin = rest_of(&folder, DPE, PINNED);
    for (from, to) in [
        ("dpm-dev-tls.pem", "own.pem"),
        ("dpm-dev-tls-key.pem", "own-key.pem"),
    ] {
        let (from, to) = (format!("dpm/etc/{from}"), format!("dpm/etc/{to}"));
        fs::rename(folder.path(&from), folder.path(&to)).unwrap();
    }
    folder.write(
        DPM,
        folder
            .read(DPM)
            .replace("etc/dpm-dev-tls.pem", "etc/own.pem")
            .replace("etc/dpm-dev-tls-key.pem", "etc/own-key.pem"),
    );
    #[cfg(unix)]
    private(&folder, DPM);

    let run = folder.run(PAIR).exits(0);

    assert!(run.stdout.contains("nothing to do"), "{}", run.stdout);
    assert_eq!(rest_of(&folder, DPE, PINNED), pin);
}

#[cfg(unix)]
fn private(folder: &Folder, file: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(folder.path(file), mode).unwrap();
}

/// Runs after `change`, which must keep everything as it is.
#[track_caller]
fn refused(folder: &Folder, code: i32) -> Run {
    let before = snapshot(folder);
    let run = folder.run(&format!("{PAIR} --yes")).exits(code);
    assert_eq!(snapshot(folder), before);
    run
}

#[test]
fn half_a_certificate_and_another_pin_are_refused() {
    let folder = paired();
    let pinned = rest_of(&folder, DPE, PINNED);
    let other = own_pin_of_the_dpe(&folder);
    folder.write(DPE, folder.read(DPE).replace(&pinned, &other));

    let other_pin = refused(&folder, 6);
    for file in [DPM, DPE, "dpm/etc/dpm-dev-tls-key.pem"] {
        fs::remove_file(folder.path(file)).unwrap();
    }
    let half = refused(&folder, 6);

    assert!(
        other_pin
            .stderr
            .contains("pins a different TLS key for `dpm-dev`"),
        "{}",
        other_pin.stderr
    );
    assert!(
        other_pin.stderr.contains("--key-name key2"),
        "{}",
        other_pin.stderr
    );
    assert!(half.stderr.contains("dpm-dev-tls.pem"), "{}", half.stderr);
}

fn own_pin_of_the_dpe(folder: &Folder) -> String {
    rest_of(
        folder,
        DPM,
        "countersign.deployments.dpe-dev.tls-keys.key.fingerprint=",
    )
}
