//! One case per way in which two sides do not connect, and what each of them reports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign::Module;
use countersign::grpc::ConnectionOptions;
use countersign::grpc::tls::ClientAuth;
use countersign::internals::{ServerFailure, server_config};
use countersign::jose::Fingerprint;
use countersign::testing::own_deployment;
use countersign::trust::OwnDeployment;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::certificates::{Authority, Files, Pem, Validity, self_signed, self_signed_for};
use super::{connect, dpm_with_tls, module, options, pinning, who_am_i};
use crate::support::logs::Logs;
use crate::support::world::{RunningDpm, free_port, soon};

/// A DPM with TLS and a module that wants to call it.
struct World {
    files: Files,
    dpm: OwnDeployment,
    dpe: OwnDeployment,
}

impl World {
    fn new() -> Self {
        Self {
            files: Files::new(),
            dpm: own_deployment("dpm", "dpm-dev"),
            dpe: own_deployment("dpe", "dpe-dev"),
        }
    }

    /// Starts a DPM that shows `pem`, asks by `auth` and accepts what `trust` issued or `pins`
    /// name.
    async fn serve(
        &self,
        pem: &Pem,
        auth: Option<ClientAuth>,
        trust: Option<&str>,
        pins: &[Fingerprint],
    ) -> RunningDpm {
        let module = module(&self.dpm, [pinning(&self.dpe, pins)]);
        dpm_with_tls(module, self.files.server("dpm", pem, auth, trust)).await
    }

    /// The caller, which pins `pins` for the DPM.
    fn caller(&self, pins: &[Fingerprint]) -> Module {
        module(&self.dpe, [pinning(&self.dpm, pins)])
    }

    /// How the caller connects, showing `pem` and trusting the authority `trust`.
    fn client(&self, caller: &Module, pem: Option<&Pem>, trust: Option<&str>) -> ConnectionOptions {
        options(caller, self.files.client("client", pem, trust))
    }
}

/// Calls a DPM that shows `pem`, trusting `authority`; returns why there was no connection.
async fn refusal_of(pem: &Pem, authority: &Authority) -> String {
    let world = World::new();
    let dpm = world.serve(pem, None, None, &[]).await;
    let caller = world.caller(&[]);
    let client = world.client(&caller, None, Some(&authority.certificate));

    let refused = connect(dpm.address.port(), client).await.unwrap_err();

    dpm.stop().await;
    refused
}

#[tokio::test]
async fn certificate_of_the_right_authority_and_name_is_accepted() {
    let world = World::new();
    let authority = Authority::new("ours");
    let pem = authority.issue(&["localhost"], Validity::Now);
    let dpm = world.serve(&pem, None, None, &[]).await;
    let caller = world.caller(&[]);
    let client = world.client(&caller, None, Some(&authority.certificate));

    let connection = connect(dpm.address.port(), client).await.unwrap();

    assert_eq!(who_am_i(&connection, &caller).await.unwrap(), "dpe-dev");
    dpm.stop().await;
}

#[tokio::test]
async fn refused_server_certificates_are_explained() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let here = &["localhost"];
    let cases = [
        (
            theirs.issue(here, Validity::Now),
            "an authority that is not in `ataccama.client.connection.dpm.grpc.tls.trust-cert-collection`",
        ),
        (
            self_signed(here),
            "an authority that is not in `ataccama.client.connection.dpm.grpc.tls.trust-cert-collection`",
        ),
        (
            ours.issue(here, Validity::Over),
            "the server's certificate has expired",
        ),
        (
            ours.issue(here, Validity::NotYet),
            "the server's certificate is not valid yet",
        ),
        (
            ours.issue(&["elsewhere.example"], Validity::Now),
            "the server's certificate is for `elsewhere.example`, not for `localhost`",
        ),
        (
            ours.issue_authority(here),
            "the server's certificate is refused: it is the certificate of an authority (CA:TRUE); `countersign explain CS0308`",
        ),
        (
            ours.issue_for_clients(here),
            "the server's certificate is refused: its extended key usage does not include this use",
        ),
    ];
    for (pem, expected) in cases {
        let refused = refusal_of(&pem, &ours).await;

        assert!(refused.contains(expected), "{expected}: {refused}");
    }
}

#[tokio::test]
async fn pinned_certificate_is_accepted_without_authority_name_or_date() {
    let world = World::new();
    let pem = self_signed_for(&["another.example"], Validity::Over);
    let own = self_signed_for(&[], Validity::Over);
    let dpm = world.serve(&pem, None, None, &[own.fingerprint]).await;
    let caller = world.caller(&[pem.fingerprint]);

    let client = world.client(&caller, Some(&own), None);
    let connection = connect(dpm.address.port(), client).await.unwrap();

    assert_eq!(who_am_i(&connection, &caller).await.unwrap(), "dpe-dev");
    dpm.stop().await;
}

#[tokio::test]
async fn certificate_with_another_key_than_the_pinned_is_refused_by_name() {
    let world = World::new();
    let authority = Authority::new("ours");
    // An authority that the caller trusts does not make up for the pin.
    let pem = authority.issue(&["localhost"], Validity::Now);
    let dpm = world.serve(&pem, None, None, &[]).await;
    let caller = world.caller(&[self_signed(&[]).fingerprint]);
    let client = world.client(&caller, None, Some(&authority.certificate));

    let refused = connect(dpm.address.port(), client).await.unwrap_err();

    let expected = format!(
        "the key `{}`, which is not pinned for deployment `dpm-dev`",
        pem.fingerprint
    );
    assert!(refused.contains(&expected), "{refused}");
    assert!(refused.contains("tls-keys.<key>.fingerprint"), "{refused}");
    dpm.stop().await;
}

#[tokio::test]
async fn pin_of_another_trusted_deployment_is_refused() {
    let world = World::new();
    let (mine, others) = (self_signed(&[]), self_signed(&[]));
    let dpm = world.serve(&others, None, None, &[]).await;
    let other = own_deployment("dpm", "dpm-two");
    let caller = module(
        &world.dpe,
        [
            pinning(&world.dpm, &[mine.fingerprint]),
            pinning(&other, &[others.fingerprint]),
        ],
    );
    let client = world.client(&caller, None, None);

    let refused = connect(dpm.address.port(), client).await.unwrap_err();

    let expected = "not pinned for deployment `dpm-dev`";
    assert!(refused.contains(expected), "{refused}");
    dpm.stop().await;
}

/// Calls a DPM that wants a client certificate; returns what the caller learns.
async fn learnt(
    world: &World,
    dpm: &RunningDpm,
    server_pem: &Pem,
    shown: Option<&Pem>,
) -> Result<String, String> {
    let caller = world.caller(&[server_pem.fingerprint]);
    let client = world.client(&caller, shown, None);
    // In TLS 1.3 the server's refusal comes after the client's handshake.
    let connection = connect(dpm.address.port(), client).await.unwrap();
    let answer = who_am_i(&connection, &caller).await;
    answer.map_err(|status| match connection.fault() {
        Some(fault) => fault.in_full(),
        None => panic!("no fault beside {status:?}"),
    })
}

#[tokio::test]
async fn missing_client_certificate_is_named_with_its_settings() {
    let world = World::new();
    let (pem, own) = (self_signed(&[]), self_signed(&[]));
    let dpm = world.serve(&pem, None, None, &[own.fingerprint]).await;

    let error = learnt(&world, &dpm, &pem, None).await.unwrap_err();

    let expected =
        "requires a client certificate; set `ataccama.client.connection.dpm.grpc.tls.cert-chain`";
    assert!(error.contains(expected), "{error}");
    dpm.stop().await;
}

#[tokio::test]
async fn client_certificate_without_a_pin_is_refused() {
    let world = World::new();
    let (pem, own, stranger) = (self_signed(&[]), self_signed(&[]), self_signed(&[]));
    let dpm = world.serve(&pem, None, None, &[own.fingerprint]).await;

    let error = learnt(&world, &dpm, &pem, Some(&stranger))
        .await
        .unwrap_err();

    let expected =
        "refuses the certificate of `ataccama.client.connection.dpm.grpc.tls.cert-chain`";
    assert!(error.contains(expected), "{error}");
    dpm.stop().await;
}

#[tokio::test]
async fn mtls_by_authority_requires_or_allows_a_certificate() {
    let authority = Authority::new("ours");
    let trust = Some(authority.certificate.as_str());
    let pem = authority.issue(&["localhost"], Validity::Now);
    let own = authority.issue(&["dpe"], Validity::Now);
    let stranger = Authority::new("theirs").issue(&["dpe"], Validity::Now);
    let required = "requires a client certificate";
    let refused = "refuses the certificate of";
    let cases = [
        (ClientAuth::None, None, Ok(())),
        (ClientAuth::None, Some(&stranger), Ok(())),
        (ClientAuth::Optional, None, Ok(())),
        (ClientAuth::Optional, Some(&own), Ok(())),
        (ClientAuth::Optional, Some(&stranger), Err(refused)),
        (ClientAuth::Require, None, Err(required)),
        (ClientAuth::Require, Some(&own), Ok(())),
        (ClientAuth::Require, Some(&stranger), Err(refused)),
    ];
    for (auth, shown, expected) in cases {
        let world = World::new();
        let dpm = world.serve(&pem, Some(auth), trust, &[]).await;
        let caller = world.caller(&[]);
        let client = world.client(&caller, shown, trust);
        let connection = connect(dpm.address.port(), client).await.unwrap();

        let answer = who_am_i(&connection, &caller).await;

        let case = format!("{auth:?}, {}", shown.is_some());
        match expected {
            Ok(()) => assert_eq!(answer.unwrap(), "dpe-dev", "{case}"),
            Err(text) => {
                answer.unwrap_err();
                let fault = connection.fault().unwrap().in_full();
                assert!(fault.contains(text), "{case}: {fault}");
            }
        }
        dpm.stop().await;
    }
}

#[tokio::test]
async fn tls_to_a_plaintext_port_is_named() {
    let world = World::new();
    let caller = world.caller(&[self_signed(&[]).fingerprint]);
    let dpm = RunningDpm::start(module(&world.dpm, [pinning(&world.dpe, &[])])).await;

    let refused = connect(dpm.address.port(), world.client(&caller, None, None)).await;

    let refused = refused.unwrap_err();
    let expected = "does not speak TLS on this port; set `ataccama.server.grpc.tls.enabled=true`";
    assert!(refused.contains(expected), "{refused}");
    dpm.stop().await;
}

#[tokio::test]
async fn plaintext_to_a_tls_port_is_named() {
    let world = World::new();
    let caller = world.caller(&[]);
    let dpm = world.serve(&self_signed(&[]), None, None, &[]).await;
    let plain = ConnectionOptions::default();
    let connection = connect(dpm.address.port(), plain).await.unwrap();

    who_am_i(&connection, &caller).await.unwrap_err();

    let fault = connection.fault().unwrap().in_full();
    assert!(fault.contains("speaks TLS on this port"), "{fault}");
    dpm.stop().await;
}

#[tokio::test]
async fn tls_server_without_http2_is_named() {
    let world = World::new();
    let pem = self_signed(&["localhost"]);
    let caller = world.caller(&[pem.fingerprint]);
    let server = world.files.server("web", &pem, None, None);
    let server = server_config(&caller.server_tls(server).unwrap());
    let mut config = rustls::ServerConfig::clone(&server);
    for offered in [vec![], vec![b"http/1.1".to_vec()]] {
        config.alpn_protocols = offered;
        let acceptor = TlsAcceptor::from(Arc::new(config.clone()));
        let listener = free_port().await;
        let port = listener.local_addr().unwrap().port();
        let accepted = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.map(drop)
        });
        let client = world.client(&caller, Some(&pem), None);

        let refused = connect(port, client).await.unwrap_err();

        assert!(refused.contains("not HTTP/2 (ALPN `h2`)"), "{refused}");
        drop(soon("the server's end", accepted).await.unwrap());
    }
}

/// Lets a server of `world` and a client shake hands; returns what the server makes of it.
async fn seen_by_server(server: Arc<rustls::ServerConfig>, client: ConnectionOptions) -> String {
    let listener = free_port().await;
    let port = listener.local_addr().unwrap().port();
    let accepted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let accepted = TlsAcceptor::from(server).accept(stream).await;
        ServerFailure::of(&accepted.err().unwrap()).to_string()
    });
    // What the client sees, other tests say.
    drop(connect(port, client).await);
    soon("the server's end", accepted).await.unwrap()
}

#[tokio::test]
async fn server_names_what_is_wrong_with_its_callers() {
    let world = World::new();
    let (pem, own, stranger) = (self_signed(&[]), self_signed(&[]), self_signed(&[]));
    let dpm = module(&world.dpm, [pinning(&world.dpe, &[own.fingerprint])]);
    let server = world.files.server("dpm", &pem, None, None);
    let server = server_config(&dpm.server_tls(server).unwrap());
    let caller = world.caller(&[pem.fingerprint]);
    let suspicious = world.caller(&[stranger.fingerprint]);
    let cases = [
        (
            world.client(&caller, None, None),
            "the caller presents no certificate, but `ataccama.server.grpc.tls.mtls` requires one"
                .to_owned(),
        ),
        (
            options(
                &caller,
                world.files.client("stranger", Some(&stranger), None),
            ),
            format!(
                "the caller's certificate has the key `{}`, which no `countersign.deployments.<name>.tls-keys` names",
                stranger.fingerprint
            ),
        ),
        (
            ConnectionOptions::default(),
            "the caller does not speak TLS; this port has `ataccama.server.grpc.tls.enabled=true`"
                .to_owned(),
        ),
    ];
    for (client, expected) in cases {
        let seen = seen_by_server(Arc::clone(&server), client).await;

        assert_eq!(seen, expected);
    }
    let suspicious = world.client(&suspicious, None, None);
    let seen = seen_by_server(server, suspicious).await;
    let refused = "the caller refuses the certificate of `ataccama.server.grpc.tls.cert-chain` (";
    assert!(seen.starts_with(refused), "{seen}");
}

#[tokio::test]
async fn caller_without_pin_or_authority_is_not_connected() {
    let world = World::new();
    let dpm = world.serve(&self_signed(&[]), None, None, &[]).await;
    let caller = world.caller(&[]);

    let refused = connect(dpm.address.port(), world.client(&caller, None, None)).await;

    let refused = refused.unwrap_err();
    assert!(
        refused.contains("no setting names the certificate to accept from deployment `dpm-dev`"),
        "{refused}"
    );
    dpm.stop().await;
}

/// Says `hello` to a TLS port, which is no handshake; returns once the server has left.
async fn strange(server: SocketAddr, hello: &[u8]) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(hello).await.unwrap();
    // The server may have left before.
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let _ = soon("the server's end", stream.read_to_end(&mut rest)).await;
}

/// What `logs` has of failed handshakes: how many lines, and how many handshakes those stand for.
fn failed_handshakes(logs: &mut Logs) -> (u64, u64) {
    let lines = logs.with("\"tlsHandshakeFailed\"");
    lines.fold((0, 0), |(lines, handshakes), line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["eventId"], "tlsHandshakeFailed", "{line}");
        assert_eq!(line["severity"], "WARN", "{line}");
        assert!(line["detail"].is_string(), "{line}");
        let suppressed = line["suppressed"].as_u64().unwrap_or_default();
        (lines + 1, handshakes + 1 + suppressed)
    })
}

#[tokio::test]
async fn hundreds_of_failed_handshakes_are_a_few_lines_and_each_is_counted() {
    let mut logs = Logs::start();
    let world = World::new();
    let dpm = world.serve(&self_signed(&[]), None, None, &[]).await;
    let hellos: [&[u8]; 3] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        b"",
    ];

    for hello in hellos.into_iter().cycle().take(300) {
        strange(dpm.address, hello).await;
    }
    soon("the last handshake", async {
        while failed_handshakes(&mut logs).0 < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (lines, _) = failed_handshakes(&mut logs);
    assert!((3..=12).contains(&lines), "{lines} lines");

    // A minute later the next of each kind says how many there were.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    for hello in hellos {
        strange(dpm.address, hello).await;
    }
    soon("303 handshakes", async {
        while failed_handshakes(&mut logs).1 < 303 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (lines, handshakes) = failed_handshakes(&mut logs);
    assert_eq!(handshakes, 303);
    assert!(lines <= 24, "{lines} lines");
    dpm.stop().await;
}
