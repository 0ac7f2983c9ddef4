//! A false engine: answers every dial-back, with the proof that a test chooses.

use std::net::SocketAddr;
use std::sync::Arc;

use countersign::clock::SystemClock;
use countersign::grpc::{NONCE, PROOF};
use countersign::proto::engine as wire;
use countersign::proto::engine::engine_service_server::{EngineService, EngineServiceServer};
use countersign::token::proof::{EngineClaim, Exchange, ProofSigner};
use countersign::trust::{OwnDeployment, TrustStore};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::world::free_port;

/// Answers without looking at the caller.
#[derive(Clone)]
pub(crate) struct Impostor {
    /// The engine that it says it is.
    pub(crate) claim: EngineClaim,
    /// The key that it signs a proof with; without one it gives none.
    pub(crate) key: Option<OwnDeployment>,
    /// Gets for each call whether it asks for a proof.
    asked: UnboundedSender<bool>,
}

impl Impostor {
    /// Serves on a free port, as the engine `id` there.
    pub(crate) async fn serve(
        id: &str,
        key: Option<OwnDeployment>,
    ) -> (SocketAddr, JoinHandle<()>) {
        let (address, task, _asked) = Self::serve_reporting(id, key).await;
        (address, task)
    }

    /// Serves likewise, and reports of each call whether it asks for a proof.
    pub(crate) async fn serve_reporting(
        id: &str,
        key: Option<OwnDeployment>,
    ) -> (SocketAddr, JoinHandle<()>, UnboundedReceiver<bool>) {
        Self::serve_process(id, key, None).await
    }

    /// Serves likewise, as one process of the engine.
    pub(crate) async fn serve_process(
        id: &str,
        key: Option<OwnDeployment>,
        instance: Option<String>,
    ) -> (SocketAddr, JoinHandle<()>, UnboundedReceiver<bool>) {
        let (asked, calls) = unbounded_channel();
        let listener = free_port().await;
        let address = listener.local_addr().unwrap();
        let claim = EngineClaim {
            id: id.to_owned(),
            hostname: address.ip().to_string(),
            port: address.port(),
            instance,
        };
        let task = tokio::spawn(async move {
            Server::builder()
                .add_service(EngineServiceServer::new(Self { claim, key, asked }))
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .unwrap();
        });
        (address, task, calls)
    }
}

#[tonic::async_trait]
impl EngineService for Impostor {
    async fn check_status(
        &self,
        request: Request<wire::CheckStatusRequest>,
    ) -> Result<Response<wire::CheckStatusResponse>, Status> {
        let header = |name: &str| request.metadata().get(name)?.to_str().ok();
        // Most tests do not listen.
        let _ = self.asked.send(header(NONCE).is_some());
        let mut response = Response::new(wire::CheckStatusResponse {
            engine_id: self.claim.id.clone(),
        });
        if let (Some(key), Some(nonce)) = (&self.key, header(NONCE)) {
            let token = header("authorization").unwrap();
            let exchange = Exchange {
                caller: "dpm-dev",
                nonce: nonce.parse().unwrap(),
                token: token.strip_prefix("Bearer ").unwrap(),
                path: "/countersign.engine.v1.EngineService/CheckStatus",
            };
            let signer = ProofSigner::new(
                Arc::new(TrustStore::alone(key.clone())),
                Arc::new(SystemClock),
            );
            let proof = signer.sign(&exchange, Some(&self.claim)).unwrap();
            response
                .metadata_mut()
                .insert(PROOF, proof.parse().unwrap());
        }
        Ok(response)
    }
}
