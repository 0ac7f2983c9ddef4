//! A flood of forged tokens at a DPM of its own process.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use countersign::Reason;
use countersign::grpc::reason_of;
use countersign::proto::identity::WhoAmIRequest;
use countersign::proto::identity::identity_service_client::IdentityServiceClient;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use super::modules::{ANY_PORT, Running, paired};

/// Forged tokens in all.
const FORGED: usize = 50_000;

/// Those sent before memory is looked at: buffers, connections and logs have their size by then.
const WARM_UP: usize = 5_000;

const CALLERS: usize = 32;

/// How much memory may grow, in bytes.
const SLACK: usize = 5 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_tokens_leave_memory_flat_and_valid_callers_served() {
    let folder = paired();
    // The one good token lasts longer than the flood, however slow the machine is.
    let engine = "dpe/etc/application.properties";
    let lifetime = "ataccama.authentication.internal.jwt.generator.token-expiration=900\n";
    folder.write(engine, folder.read(engine) + lifetime);
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let statm = format!("/proc/{}/statm", dpm.child.id());
    dpm.drain();
    let good = folder.run("token issue --home dpe --audience dpm-dev");
    let good = good.exits(0).stdout.trim().to_owned();
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let valid = tokio::spawn(serve_valid(
        endpoint.connect().await.unwrap(),
        good.clone(),
        Arc::clone(&over),
    ));
    flood(&endpoint, &good, 0..WARM_UP).await;
    let before = resident(&statm);
    flood(&endpoint, &good, WARM_UP..FORGED).await;
    let after = resident(&statm);
    over.store(true, Ordering::Relaxed);

    let served = valid.await.unwrap();
    assert!(served > 50, "{served} valid calls in all that time");
    assert!(after < before + SLACK, "{before} bytes became {after}");
}

/// Calls with a good token until the flood is over, and returns how often.
async fn serve_valid(channel: Channel, token: String, over: Arc<AtomicBool>) -> usize {
    let mut client = IdentityServiceClient::new(channel);
    let mut served = 0;
    while !over.load(Ordering::Relaxed) {
        let call = client.who_am_i(bearer(&token));
        let reply = tokio::time::timeout(Duration::from_secs(5), call).await;
        reply.expect("a valid call waits too long").unwrap();
        served += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served
}

async fn flood(endpoint: &Endpoint, good: &str, numbers: std::ops::Range<usize>) {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut client = IdentityServiceClient::new(endpoint.connect().await.unwrap());
        let (numbers, good) = (numbers.clone(), good.to_owned());
        callers.spawn(async move {
            for number in numbers.skip(caller).step_by(CALLERS) {
                let (token, reason) = forged(&good, number);
                let status = client.who_am_i(bearer(&token)).await.unwrap_err();
                assert_eq!(status.code(), Code::Unauthenticated);
                assert_eq!(reason_of(&status), Some(reason));
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
}

/// A token that is never the same: under an unknown kid, badly signed, or none at all.
fn forged(good: &str, number: usize) -> (String, Reason) {
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let (input, _) = good.rsplit_once('.').unwrap();
    let signature: Vec<u8> = (0..64)
        .map(|n| number.to_be_bytes()[n % 8] ^ 0x55)
        .collect();
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
    match number % 4 {
        0 => {
            let header = format!(r#"{{"alg":"ES256","kid":"unknown-{number}"}}"#);
            let token = format!("{}.e30.{signature}", encode(&header));
            (token, Reason::KeyUnknown)
        }
        1 => (format!("{input}.{signature}"), Reason::SignatureInvalid),
        2 => (format!("{input}.{number}="), Reason::TokenMalformed),
        _ => {
            let large = format!("{number}{}", "x".repeat(9000));
            (large, Reason::TokenMalformed)
        }
    }
}

fn bearer(token: &str) -> Request<WhoAmIRequest> {
    let mut request = Request::new(WhoAmIRequest {});
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// Bytes of a process that are in memory.
fn resident(statm: &str) -> usize {
    let pages = fs::read_to_string(statm).unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
