//! A panic costs one call.

use countersign::grpc::Drained;
use tokio::runtime::Runtime;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::served::{PANICS, Served};
use crate::support::world::channel;

#[test]
fn panicking_handler_answers_internal_and_the_next_call_is_answered() {
    let served = Served::start(|_| ());

    let status = served.call(PANICS).unwrap_err();

    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("secret"), "{status}");
    assert_eq!(served.call("").unwrap(), "fine");
    assert_eq!(served.stop(), Drained::InTime);
}

#[test]
fn panicking_reply_ends_with_internal() {
    let served = Served::start(|_| ());
    let client = Runtime::new().unwrap();
    let status = client.block_on(async {
        let mut client = HealthClient::new(channel(served.address).await);
        let service = PANICS.to_owned();
        let watched = client.watch(HealthCheckRequest { service }).await;
        let mut reply = watched.unwrap().into_inner();
        reply.message().await.unwrap_err()
    });

    assert_eq!(status.code(), Code::Internal);
    assert_eq!(served.call("").unwrap(), "fine");
}
