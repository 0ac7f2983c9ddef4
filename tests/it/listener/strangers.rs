//! Peers that speak no HTTP/2. While each is connected, a valid call is answered.

use std::time::Duration;

use tokio::time::Instant;

use super::process::Homes;
use super::wire::{PREFACE, Raw};

/// The start of a TLS 1.2 record with a client's hello.
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03";

/// How long a connection may be silent.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// Sends `bytes` to a DPM and makes a valid call; returns how long the stranger was borne.
async fn borne(bytes: &[u8]) -> Duration {
    let homes = Homes::new();
    let dpm = homes.dpm(256, &[]);
    let mut raw = Raw::connect(dpm.address);
    let begun = Instant::now();
    raw.send(bytes);
    assert_eq!(dpm.who_am_i(&homes).await.unwrap(), "dpe-dev");
    raw.closed();
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_preface_is_borne_until_the_first_requests_deadline() {
    let (half, _) = PREFACE.split_at(12);
    let borne = borne(half).await;
    let beyond = borne.abs_diff(FIRST_REQUEST);
    assert!(beyond < Duration::from_secs(1), "{borne:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_at_once() {
    let garbage: Vec<u8> = (0..4096_u32).map(|n| (n * 31 % 251) as u8).collect();
    assert!(borne(&garbage).await < FIRST_REQUEST / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_hello_to_a_plaintext_port_is_refused_at_once() {
    let hello = [TLS_HELLO, &[7; 155]].concat();
    assert!(borne(&hello).await < FIRST_REQUEST / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_1_is_refused_at_once() {
    let request = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    assert!(borne(request).await < FIRST_REQUEST / 2);
}
