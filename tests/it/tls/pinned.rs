//! Modules that know each other's certificate by its fingerprint.

use countersign::Module;
use countersign::Reason;
use countersign::engine::EngineStatus;
use countersign::grpc::reason_of;
use countersign::grpc::tls::ClientAuth;
use countersign::jose::Fingerprint;
use countersign::testing::own_deployment;
use countersign::trust::OwnDeployment;

use super::certificates::{Authority, Files, Pem, Validity, self_signed};
use super::{connect, dpm_with_tls, module, options, pinning, who_am_i};
use crate::support::world::{RunningDpe, RunningDpm, free_port, now_trusts, soon};

/// A DPM and a DPE with a certificate each.
struct Pair {
    files: Files,
    dpm: OwnDeployment,
    dpe: OwnDeployment,
    dpm_pem: Pem,
    dpe_pem: Pem,
}

impl Pair {
    fn new() -> Self {
        Self {
            files: Files::new(),
            dpm: own_deployment("dpm", "dpm-dev"),
            dpe: own_deployment("dpe", "dpe-dev"),
            dpm_pem: self_signed(&["dpm-dev"]),
            dpe_pem: self_signed(&["dpe-dev"]),
        }
    }

    /// Starts the DPM, which pins the DPE's certificate.
    async fn start_dpm(&self) -> RunningDpm {
        let module = module(&self.dpm, [pinning(&self.dpe, &[self.dpe_pem.fingerprint])]);
        let server = self.files.server("dpm", &self.dpm_pem, None, None);
        let server = module.server_tls(server).unwrap();
        let client = self.files.client("dpm-client", Some(&self.dpm_pem), None);
        let client = module.client_tls(client).unwrap();
        RunningDpm::start_with(module, free_port().await, |options| {
            options.server.tls = Some(server);
            options.monitor.connection.tls = Some(client);
        })
    }

    /// Starts the DPE, which pins the DPM's certificate, and whose server shows `shown`.
    fn start_dpe(&self, dpm: &RunningDpm, shown: &Pem) -> RunningDpe {
        let module = self.dpe_module(self.dpm_pem.fingerprint);
        let auth = Some(ClientAuth::Require);
        let server = self.files.server("dpe", shown, auth, None);
        let server = module.server_tls(server).unwrap();
        let client = self.files.client("dpe-client", Some(&self.dpe_pem), None);
        let client = options(&module, client);
        let home = self.files.folder("dpe");
        RunningDpe::start_with(module, dpm.address, &home, |options| {
            options.server.tls = Some(server);
            options.status_checker.connection = client;
        })
    }

    fn dpe_module(&self, dpm_pin: Fingerprint) -> Module {
        module(&self.dpe, [pinning(&self.dpm, &[dpm_pin])])
    }
}

#[tokio::test]
async fn pair_that_pins_each_other_becomes_ready() {
    let pair = Pair::new();
    let dpm = pair.start_dpm().await;

    let dpe = pair.start_dpe(&dpm, &pair.dpe_pem);

    dpm.engine_is(dpe.id, EngineStatus::Ready).await;
    dpe.stop().await;
    dpm.stop().await;
}

#[tokio::test]
async fn engine_that_shows_another_certificate_is_not_ready_and_the_reason_says_why() {
    let pair = Pair::new();
    let dpm = pair.start_dpm().await;
    let stranger = self_signed(&["dpe-dev"]);

    // It calls with the certificate that is pinned, and serves with one that is not.
    let dpe = pair.start_dpe(&dpm, &stranger);

    let reason = dpm.reason(dpe.id, "no TLS with").await;
    let expected = "a key that is not pinned for deployment `dpe-dev`";
    assert!(reason.contains(expected), "{reason}");
    // The caller that chose the address does not learn what is there.
    let shown = stranger.fingerprint.to_string();
    assert!(!reason.contains(&shown), "{reason}");
    dpe.stop().await;
    dpm.stop().await;
}

#[tokio::test]
async fn another_deployments_token_is_refused_on_a_pinned_connection() {
    let pair = Pair::new();
    let (two, none) = (
        own_deployment("dpe", "dpe-two"),
        own_deployment("dpe", "dpe-none"),
    );
    let two_pem = self_signed(&["dpe-two"]);
    let trusting = [
        pinning(&pair.dpe, &[pair.dpe_pem.fingerprint]),
        pinning(&two, &[two_pem.fingerprint]),
        pinning(&none, &[]),
    ];
    let server = pair.files.server("dpm", &pair.dpm_pem, None, None);
    let dpm = dpm_with_tls(module(&pair.dpm, trusting), server).await;
    let pins = [pair.dpm_pem.fingerprint];
    let callers = [&pair.dpe, &two, &none].map(|own| module(own, [pinning(&pair.dpm, &pins)]));
    let [one, other, unpinned] = &callers;
    let client = pair.files.client("two", Some(&two_pem), None);
    let connection = connect(dpm.address.port(), options(other, client))
        .await
        .unwrap();

    let own = who_am_i(&connection, other).await;
    let stolen = who_am_i(&connection, one).await.unwrap_err();
    let without_a_pin = who_am_i(&connection, unpinned).await.unwrap_err();

    assert_eq!(own.unwrap(), "dpe-two");
    assert_eq!(reason_of(&stolen), Some(Reason::IssuerMismatch));
    assert_eq!(reason_of(&without_a_pin), Some(Reason::IssuerMismatch));
    dpm.stop().await;
}

#[tokio::test]
async fn token_of_a_pinned_deployment_is_refused_on_an_unpinned_connection() {
    let pair = Pair::new();
    let authority = Authority::new("an authority");
    let stranger = authority.issue(&["stranger"], Validity::Now);
    let trusting = [pinning(&pair.dpe, &[pair.dpe_pem.fingerprint])];
    let trust = Some(authority.certificate.as_str());
    let server = pair.files.server("dpm", &pair.dpm_pem, None, trust);
    let dpm = dpm_with_tls(module(&pair.dpm, trusting), server).await;
    let dpe = pair.dpe_module(pair.dpm_pem.fingerprint);
    let client = pair.files.client("stranger", Some(&stranger), None);
    let connection = connect(dpm.address.port(), options(&dpe, client))
        .await
        .unwrap();

    let refused = who_am_i(&connection, &dpe).await.unwrap_err();

    assert_eq!(reason_of(&refused), Some(Reason::IssuerMismatch));
    dpm.stop().await;
}

#[tokio::test]
async fn pin_that_is_taken_back_ends_the_callers_calls() {
    let pair = Pair::new();
    let own = module(&pair.dpm, [pinning(&pair.dpe, &[pair.dpe_pem.fingerprint])]);
    let server = pair.files.server("dpm", &pair.dpm_pem, None, None);
    let dpm = dpm_with_tls(own.clone(), server).await;
    let dpe = pair.dpe_module(pair.dpm_pem.fingerprint);
    let client = pair.files.client("dpe-client", Some(&pair.dpe_pem), None);
    let connection = connect(dpm.address.port(), options(&dpe, client))
        .await
        .unwrap();
    who_am_i(&connection, &dpe).await.unwrap();

    let new = self_signed(&["dpe-dev"]).fingerprint;
    now_trusts(&own, vec![pinning(&pair.dpe, &[new])]);

    let refused = who_am_i(&connection, &dpe).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::IssuerMismatch));
    dpm.stop().await;
}

#[tokio::test]
async fn connection_ends_when_the_certificate_of_its_callee_is_pinned_no_more() {
    let pair = Pair::new();
    let new = self_signed(&["dpm-dev"]).fingerprint;
    let known = pair.dpm_pem.fingerprint;
    let dpm = pair.start_dpm().await;
    for before in [vec![known], vec![known, new]] {
        let dpe = module(&pair.dpe, [pinning(&pair.dpm, &before)]);
        let client = pair.files.client("dpe-client", Some(&pair.dpe_pem), None);
        let connection = connect(dpm.address.port(), options(&dpe, client))
            .await
            .unwrap();
        who_am_i(&connection, &dpe).await.unwrap();

        now_trusts(&dpe, vec![pinning(&pair.dpm, &[new])]);

        let refused = async { while who_am_i(&connection, &dpe).await.is_ok() {} };
        soon("a refusal", refused).await;
        let answer = who_am_i(&connection, &dpe).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    dpm.stop().await;
}

#[tokio::test]
async fn connection_goes_on_when_another_certificate_of_its_callee_is_pinned_or_no_more() {
    let pair = Pair::new();
    let dpm = pair.start_dpm().await;
    let (known, new) = (
        pair.dpm_pem.fingerprint,
        self_signed(&["dpm-dev"]).fingerprint,
    );
    let dpe = module(&pair.dpe, [pinning(&pair.dpm, &[known])]);
    let client = pair.files.client("dpe-client", Some(&pair.dpe_pem), None);
    let connection = connect(dpm.address.port(), options(&dpe, client))
        .await
        .unwrap();

    for pins in [vec![known, new], vec![known]] {
        now_trusts(&dpe, vec![pinning(&pair.dpm, &pins)]);
        for _ in 0..10 {
            who_am_i(&connection, &dpe).await.unwrap();
        }
    }

    assert_eq!(connection.opened(), 1);
    dpm.stop().await;
}

#[tokio::test]
async fn connection_goes_on_when_the_pins_of_another_deployment_change() {
    let pair = Pair::new();
    let dpm = pair.start_dpm().await;
    let known = pair.dpm_pem.fingerprint;
    let dpe = module(&pair.dpe, [pinning(&pair.dpm, &[known])]);
    let client = pair.files.client("dpe-client", Some(&pair.dpe_pem), None);
    let connection = connect(dpm.address.port(), options(&dpe, client))
        .await
        .unwrap();
    let other = own_deployment("dpm", "dpm-two");
    let pin = self_signed(&["dpm-two"]).fingerprint;

    now_trusts(
        &dpe,
        vec![pinning(&pair.dpm, &[known]), pinning(&other, &[pin])],
    );

    for _ in 0..10 {
        who_am_i(&connection, &dpe).await.unwrap();
    }
    assert_eq!(connection.opened(), 1);
    dpm.stop().await;
}

#[tokio::test]
async fn certificates_stay_required_after_the_last_pin_is_gone() {
    let pair = Pair::new();
    let own = module(&pair.dpm, [pinning(&pair.dpe, &[pair.dpe_pem.fingerprint])]);
    let server = pair.files.server("dpm", &pair.dpm_pem, None, None);
    let dpm = dpm_with_tls(own.clone(), server).await;
    let dpe = pair.dpe_module(pair.dpm_pem.fingerprint);

    now_trusts(&own, vec![pinning(&pair.dpe, &[])]);

    let bare = pair.files.client("bare", None, None);
    let connection = connect(dpm.address.port(), options(&dpe, bare))
        .await
        .unwrap();
    who_am_i(&connection, &dpe).await.unwrap_err();
    let fault = connection.fault().unwrap().to_string();
    assert!(fault.contains("certificate"), "{fault}");
    dpm.stop().await;
}
