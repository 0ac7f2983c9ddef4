//! The engines that a registry knows, asked for page by page.

use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::grpc::AttachIdentity;
use crate::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use crate::proto::registry::{Engine, ListEnginesRequest};

/// Calls a registry as a caller that it knows.
pub type Client = EngineRegistryServiceClient<AttachIdentity<Channel>>;

/// Lists all engines that the caller may see. Its time is bounded by the caller alone.
///
/// # Errors
///
/// What the registry answers in place of a page.
pub async fn list(client: &mut Client) -> Result<Vec<Engine>, Status> {
    let mut engines = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListEnginesRequest {
            page_size: 1000,
            page_token,
        };
        let answer = client.list_engines(Request::new(request)).await?;
        let page = answer.into_inner();
        engines.extend(page.engines);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(engines);
        }
    }
}
