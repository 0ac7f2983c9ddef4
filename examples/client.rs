//! Your own client with countersign: every call carries this module's identity.
//!
//! ```text
//! echo ataccama.client.connection.greeter.host=localhost >> caller/etc/application.properties
//! echo ataccama.client.connection.greeter.grpc.port=50051 >> caller/etc/application.properties
//! cargo run --example client -- caller greeter-dev
//! ```

use countersign::Module;

mod greeter;
use greeter::greeter_service_client::GreeterServiceClient;
use greeter::{GreetOftenRequest, GreetRequest};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it got")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let home = arguments.next().unwrap_or_else(|| "caller".to_owned());
    let callee = arguments.next().unwrap_or_else(|| "greeter-dev".to_owned());

    let module = Module::open(&home)?;
    let mut greeter = GreeterServiceClient::new(module.channel(&callee)?)
        .max_decoding_message_size(module.max_reply_size());

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
