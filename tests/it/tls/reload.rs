//! Files that change under a running server and its callers.

use countersign::testing::own_deployment;

use super::super::support::world::now_trusts;
use super::certificates::{Files, self_signed};
use super::{connect, dpm_with_tls, module, options, pinning, who_am_i};

#[tokio::test]
async fn replaced_server_certificate_is_shown_on_the_next_connection() {
    let files = Files::new();
    let (dpm, dpe) = (
        own_deployment("dpm", "dpm-dev"),
        own_deployment("dpe", "dpe-dev"),
    );
    let (old, new) = (self_signed(&[]), self_signed(&[]));
    let server = files.server("dpm", &old, None, None);
    let registry = module(&dpm, [pinning(&dpe, &[])]);
    let running = dpm_with_tls(registry.clone(), server).await;
    let port = running.address.port();
    let caller = |pin| module(&dpe, [pinning(&dpm, &[pin])]);
    let (before, after) = (caller(old.fingerprint), caller(new.fingerprint));
    let [of_old, of_new] = [&before, &after].map(|m| options(m, files.client("c", None, None)));
    let kept = connect(port, of_old.clone()).await.unwrap();
    who_am_i(&kept, &before).await.unwrap();

    // Between the two renames certificate and key do not belong together: the old ones stay.
    files.replace("dpm.pem", &new.certificate);
    registry.reload_tls().unwrap_err();
    connect(port, of_old.clone()).await.unwrap();
    files.replace("dpm-key.pem", &new.key);
    registry.reload_tls().unwrap();

    connect(port, of_new).await.unwrap();
    let refused = connect(port, of_old).await.unwrap_err();
    assert!(refused.contains(&new.fingerprint.to_string()), "{refused}");
    // A connection from before stays.
    who_am_i(&kept, &before).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn replaced_client_certificate_is_shown_on_the_next_connection() {
    let files = Files::new();
    let (dpm, dpe) = (
        own_deployment("dpm", "dpm-dev"),
        own_deployment("dpe", "dpe-dev"),
    );
    let (server, old, new) = (self_signed(&[]), self_signed(&[]), self_signed(&[]));
    let registry = module(&dpm, [pinning(&dpe, &[new.fingerprint])]);
    let running = dpm_with_tls(registry, files.server("dpm", &server, None, None)).await;
    let caller = module(&dpe, [pinning(&dpm, &[server.fingerprint])]);
    let client = options(&caller, files.client("dpe", Some(&old), None));
    let refused = connect(running.address.port(), client.clone())
        .await
        .unwrap();
    who_am_i(&refused, &caller).await.unwrap_err();

    files.replace("dpe.pem", &new.certificate);
    files.replace("dpe-key.pem", &new.key);
    caller.reload_tls().unwrap();

    let accepted = connect(running.address.port(), client).await.unwrap();
    who_am_i(&accepted, &caller).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn calls_after_a_replaced_client_certificate_go_over_a_connection_that_shows_it() {
    let files = Files::new();
    let (dpm, dpe) = (
        own_deployment("dpm", "dpm-dev"),
        own_deployment("dpe", "dpe-dev"),
    );
    let (server, old, new) = (self_signed(&[]), self_signed(&[]), self_signed(&[]));
    let registry = module(&dpm, [pinning(&dpe, &[old.fingerprint, new.fingerprint])]);
    let tls = files.server("dpm", &server, None, None);
    let running = dpm_with_tls(registry.clone(), tls).await;
    let caller = module(&dpe, [pinning(&dpm, &[server.fingerprint])]);
    let client = options(&caller, files.client("dpe", Some(&old), None));
    let connection = connect(running.address.port(), client).await.unwrap();
    who_am_i(&connection, &caller).await.unwrap();

    files.replace("dpe-key.pem", &(old.key.clone() + &new.key));
    caller.reload_tls().unwrap();
    files.replace("dpe.pem", &new.certificate);
    caller.reload_tls().unwrap();
    who_am_i(&connection, &caller).await.unwrap();
    now_trusts(&registry, vec![pinning(&dpe, &[new.fingerprint])]);

    who_am_i(&connection, &caller).await.unwrap();
    running.stop().await;
}
