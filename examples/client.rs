//! Your own client with countersign: every call carries this module's identity.
//!
//! ```text
//! cargo run --example client -- caller greeter-dev
//! ```

use countersign::Module;
use tonic::transport::Channel;
use tower_layer::Layer as _;

mod greeter;
use greeter::greeter_service_client::GreeterServiceClient;
use greeter::{GreetOftenRequest, GreetRequest};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it got")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let home = arguments.next().unwrap_or_else(|| "caller".to_owned());
    let callee = arguments.next().unwrap_or_else(|| "greeter-dev".to_owned());

    let module = Module::load(&home)?;
    let channel = Channel::from_static("http://127.0.0.1:50051")
        .connect()
        .await?;
    let mut greeter = GreeterServiceClient::new(module.client_layer(&callee)?.layer(channel));

    let greeting = greeter.greet(GreetRequest {}).await?;
    println!("{}", greeting.into_inner().text);

    let mut greetings = greeter
        .greet_often(GreetOftenRequest { times: 3 })
        .await?
        .into_inner();
    while let Some(greeting) = greetings.message().await? {
        println!("{}", greeting.text);
    }
    Ok(())
}
