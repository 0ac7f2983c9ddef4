//! The server seen by OpenSSL.

use std::process::Stdio;

use countersign::jose::Fingerprint;
use countersign::testing::own_deployment;
use tokio::process::Command;

use super::certificates::{Authority, Files, Pem, Validity, self_signed};
use super::{dpm_with_tls, module, pinning};
use crate::support::world::{RunningDpm, soon};

/// Starts a DPM that shows `pem` and pins `pins` for its DPE.
async fn serve(files: &Files, pem: &Pem, pins: &[Fingerprint]) -> RunningDpm {
    let (dpm, dpe) = (
        own_deployment("dpm", "dpm-dev"),
        own_deployment("dpe", "dpe-dev"),
    );
    let server = files.server("dpm", pem, None, None);
    dpm_with_tls(module(&dpm, [pinning(&dpe, pins)]), server).await
}

/// What `openssl s_client` says of the server; none where there is no `openssl`.
async fn s_client(dpm: &RunningDpm, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &dpm.address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    match soon("openssl", command.output()).await {
        Ok(output) => {
            let [out, err] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b));
            Some(format!("{out}{err}"))
        }
        Err(error) => {
            eprintln!("skipped: openssl: {error}");
            None
        }
    }
}

#[track_caller]
fn says(said: Option<String>, parts: &[&str]) {
    let Some(said) = said else { return };
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn openssl_verifies_name_and_authority_and_gets_http2() {
    let files = Files::new();
    let authority = Authority::new("ours");
    let pem = authority.issue(&["dpm.example"], Validity::Now);
    let trust = files.write("ca.pem", &authority.certificate);
    let dpm = serve(&files, &pem, &[]).await;
    let verified = ["-CAfile", trust.to_str().unwrap(), "-verify_hostname"];

    let ours = s_client(
        &dpm,
        &[&verified[..], &["dpm.example", "-alpn", "h2"]].concat(),
    )
    .await;
    let older = s_client(&dpm, &[&verified[..], &["dpm.example", "-tls1_2"]].concat()).await;
    let other = s_client(&dpm, &[&verified[..], &["other.example"]].concat()).await;
    let web = s_client(&dpm, &["-alpn", "http/1.1"]).await;

    says(
        ours,
        &["Verify return code: 0 (ok)", "TLSv1.3", "ALPN protocol: h2"],
    );
    says(older, &["Verify return code: 0 (ok)", "TLSv1.2"]);
    says(other, &["hostname mismatch"]);
    says(web, &["alert no application protocol"]);
    dpm.stop().await;
}

#[tokio::test]
async fn openssl_gets_nothing_older_than_tls_1_2() {
    let files = Files::new();
    let dpm = serve(&files, &self_signed(&[]), &[]).await;

    let said = s_client(&dpm, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]).await;

    says(said, &["alert handshake failure", "Cipher is (NONE)"]);
    dpm.stop().await;
}

#[tokio::test]
async fn pinned_server_takes_tls_1_3_and_pinned_clients_alone() {
    let files = Files::new();
    let (pem, own, stranger) = (self_signed(&[]), self_signed(&[]), self_signed(&[]));
    let shown = |name: &str, pem: &Pem| {
        let certificate = files.write(&format!("{name}.pem"), &pem.certificate);
        let key = files.write(&format!("{name}-key.pem"), &pem.key);
        [certificate, key].map(|path| path.to_str().unwrap().to_owned())
    };
    let dpm = serve(&files, &pem, &[own.fingerprint]).await;
    let [own, own_key] = shown("own", &own);
    let [stranger, stranger_key] = shown("stranger", &stranger);

    let older = s_client(&dpm, &["-tls1_2", "-cert", &own, "-key", &own_key]).await;
    let pinned = s_client(&dpm, &["-cert", &own, "-key", &own_key, "-alpn", "h2"]).await;
    // With standard input at its end, only waiting for the server shows its refusal.
    let wait = ["-ign_eof", "-alpn", "h2"];
    let none = s_client(&dpm, &wait).await;
    let strange = [&wait[..], &["-cert", &stranger, "-key", &stranger_key]].concat();
    let strange = s_client(&dpm, &strange).await;

    says(older, &["alert protocol version"]);
    says(pinned, &["TLSv1.3", "ALPN protocol: h2"]);
    says(none, &["alert certificate required"]);
    says(strange, &["alert certificate unknown"]);
    dpm.stop().await;
}

#[tokio::test]
async fn session_is_never_resumed() {
    let files = Files::new();
    let dpm = serve(&files, &self_signed(&[]), &[]).await;

    let said = s_client(&dpm, &["-tls1_2", "-reconnect"]).await;

    if let Some(said) = said {
        assert!(said.contains("New, TLSv1.2"), "{said}");
        assert!(!said.contains("Reused, TLSv1.2"), "{said}");
    }
    dpm.stop().await;
}
