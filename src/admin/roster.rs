//! Lists the engines of a registry, page by page.

use tonic::{Request, Status};

use crate::grpc::{AttachIdentity, Connection};
use crate::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use crate::proto::registry::{Engine, ListEnginesRequest};

/// A client of a registry, with this module's identity.
pub type Client = EngineRegistryServiceClient<AttachIdentity<Connection>>;

/// Lists all engines that the caller may see, without a time limit of its own.
///
/// # Errors
///
/// The status that the registry returns instead of a page.
pub async fn list(channel: AttachIdentity<Connection>) -> Result<Vec<Engine>, Status> {
    let mut client = Client::new(channel);
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
