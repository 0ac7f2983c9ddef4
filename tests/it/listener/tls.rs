//! TLS handshakes at the listener.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use countersign::grpc::Drained;
use countersign::grpc::tls::{ClientAuth, OwnFiles, PemFile, ServerTlsOptions};
use countersign::proto::engine::CheckStatusRequest;
use countersign::proto::engine::engine_service_client::EngineServiceClient;
use countersign::testing;
use hyper_util::rt::TokioIo;
use rcgen::CertifiedKey;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::Request;
use tonic::transport::Endpoint;

use super::served::{NAMES_PEER, Served};
use super::wire::{Raw, call};
use crate::support::world::PATIENCE;

const SHORT: Duration = Duration::from_millis(200);

/// One side's certificate, which the other side trusts.
struct Side {
    certificate_pem: String,
    key_pem: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Side {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self {
            certificate_pem: cert.pem(),
            key_pem: signing_key.serialize_pem(),
            certificate: cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into(),
        }
    }

    fn trusted(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }
}

/// Two sides that know each other.
struct Sides {
    server: Side,
    client: Side,
}

impl Sides {
    fn new() -> Self {
        Self {
            server: Side::new(),
            client: Side::new(),
        }
    }

    /// Serves with TLS; asks for the client's certificate.
    fn serve(&self, change: impl FnOnce(&mut countersign::grpc::ConnectionLimits)) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let pem = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            PemFile::new(path, name)
        };
        let own = OwnFiles::new(
            pem("cert-chain", &self.server.certificate_pem),
            pem("private-key", &self.server.key_pem),
        );
        let mut tls = ServerTlsOptions::new(own, "tls");
        tls.client_auth = Some(ClientAuth::Require);
        tls.trust = Some(pem("trust", &self.client.certificate_pem));
        let tls = testing::pair().dpm.server_tls(tls).unwrap();
        Served::start(|options| {
            options.tls = Some(tls);
            change(&mut options.connections);
        })
    }

    fn connector(&self) -> TlsConnector {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.server.trusted())
            .with_client_auth_cert(self.client.chain(), self.client.key.clone_key());
        let mut config = config.unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    async fn connect(&self, served: &Served) -> tokio_rustls::client::TlsStream<TcpStream> {
        let tcp = TcpStream::connect(served.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.connector().connect(name, tcp).await.unwrap()
    }

    /// Makes a call; returns what the handler knows of its peer.
    fn call(&self, served: &Served) -> String {
        Runtime::new().unwrap().block_on(async {
            let mut stream = Some(TokioIo::new(self.connect(served).await));
            let connector = tower::service_fn(move |_| {
                let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
                std::future::ready(stream.map_err(std::io::Error::from))
            });
            let endpoint = Endpoint::from_static("http://localhost");
            let channel = endpoint.connect_with_connector(connector).await.unwrap();
            let mut request = Request::new(CheckStatusRequest {});
            request
                .metadata_mut()
                .insert("manner", NAMES_PEER.parse().unwrap());
            let answer = EngineServiceClient::new(channel)
                .check_status(request)
                .await;
            answer.unwrap().into_inner().engine_id
        })
    }
}

#[test]
fn handler_learns_the_verified_client_certificate() {
    let sides = Sides::new();
    let served = sides.serve(|_| ());

    let peer = sides.call(&served);

    let length = sides.client.certificate.len();
    assert_eq!(peer, format!("127.0.0.1 {length}"));
    assert_eq!(served.stop(), Drained::InTime);
}

#[test]
fn stalled_handshake_is_cut_at_its_deadline_and_delays_no_other() {
    let sides = Sides::new();
    let served = sides.serve(|limits| limits.tls_handshake = SHORT);
    let begun = Instant::now();
    let mut stalled = Raw::connect(served.address);

    sides.call(&served);

    stalled.closed();
    assert!((SHORT..PATIENCE).contains(&begun.elapsed()));
}

#[test]
fn silence_after_the_handshake_is_cut_at_the_first_requests_deadline() {
    let sides = Sides::new();
    let served = sides.serve(|limits| limits.first_request = SHORT);
    let ended = Runtime::new().unwrap().block_on(async {
        let mut stream = sides.connect(&served).await;
        let mut read = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut read);
        tokio::time::timeout(PATIENCE, reading).await
    });

    // A cut connection ends without a `close_notify`.
    assert!(ended.unwrap().is_err());
    sides.call(&served);
}

#[test]
fn plaintext_to_a_tls_port_is_refused_at_once() {
    let sides = Sides::new();
    let served = sides.serve(|_| ());
    let begun = Instant::now();
    let mut plain = Raw::http2(served.address, &[]);
    plain.send(&call(1));

    plain.alerted();

    assert!(begun.elapsed() < Duration::from_secs(4), "not the deadline");
    sides.call(&served);
}

#[test]
fn nothing_runs_on_after_a_stop_with_a_stalled_handshake() {
    let sides = Sides::new();
    let served = sides.serve(|_| ());
    let mut stalled = Raw::connect(served.address);
    // The answer comes after the stalled connection was taken.
    sides.call(&served);

    assert_eq!(served.stop(), Drained::InTime);

    stalled.closed();
}
