//! Your own service behind countersign: no call reaches a handler without a verified identity.
//!
//! Pair two homes, say where this one listens, start it, then call it with `examples/client.rs`:
//!
//! ```text
//! countersign pair greeter=greeter/etc/application.properties caller=caller/etc/application.properties
//! echo ataccama.server.grpc.port=50051 >> greeter/etc/application.properties
//! cargo run --example server -- greeter
//! ```

use countersign::{MethodRules, Module, Rule};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

mod greeter;
use greeter::greeter_service_server::{GreeterService, GreeterServiceServer};
use greeter::{GreetOftenRequest, GreetOftenResponse, GreetRequest, GreetResponse};

struct Greeter;

#[tonic::async_trait]
impl GreeterService for Greeter {
    async fn greet(&self, call: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        // The layer put it there; a handler never sees an unverified caller.
        let caller = countersign::grpc::caller(&call)?;
        let text = format!("hello {}, you are {caller}", caller.id());
        Ok(Response::new(GreetResponse { text }))
    }

    type GreetOftenStream = ReceiverStream<Result<GreetOftenResponse, Status>>;

    async fn greet_often(
        &self,
        call: Request<GreetOftenRequest>,
    ) -> Result<Response<Self::GreetOftenStream>, Status> {
        let text = format!("hello {}", countersign::grpc::caller(&call)?.id());
        let times = call.into_inner().times;
        let (greetings, stream) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            for _ in 0..times {
                let greeting = GreetOftenResponse { text: text.clone() };
                if greetings.send(Ok(greeting)).await.is_err() {
                    return; // the caller left
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "greeter".to_owned());
    let module = Module::open(&home)?;
    // Default deny: a method without a rule is not served.
    let rules = MethodRules::deny_all()
        .allow_service::<GreeterServiceServer<Greeter>>(Rule::any_identity());
    let greeter =
        GreeterServiceServer::new(Greeter).max_decoding_message_size(module.max_message_size());
    module.serve(rules, Routes::new(greeter)).await?;
    Ok(())
}
