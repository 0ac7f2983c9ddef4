//! Clients that mean no good.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::http::{Reply, get, send};
use crate::support::world::{Keys, RunningDpm, soon};

/// How many connections from one address the port holds, if others want to connect.
const MOST_OF_ONE: usize = 128;

/// How long a connection keeps its place.
const CHANCE: Duration = Duration::from_secs(2);

async fn dpm() -> RunningDpm {
    RunningDpm::start(Keys::new().dpm_module()).await
}

async fn is_alive(to: SocketAddr) {
    assert_eq!(get(to, "/actuator/health/liveness").await.status, 200);
}

#[tokio::test]
async fn requests_that_are_none_are_refused_and_the_port_lives_on() {
    let dpm = dpm().await;
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let long_header = format!(
        "GET /actuator HTTP/1.1\r\nx: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    let many_headers = format!("GET /actuator HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200));
    let rows: [(&str, &str, &[u16]); 9] = [
        ("a long path", &long_path, &[414, 431]),
        ("a long header", &long_header, &[431]),
        ("many headers", &many_headers, &[431]),
        ("no HTTP", "\u{16}\u{3}\u{1}\u{2}\r\n\r\n", &[400]),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[]),
        (
            "a blank in a header's name",
            "GET / HTTP/1.1\r\na b: c\r\n\r\n",
            &[400],
        ),
        (
            "two lengths",
            "POST /actuator HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            &[400],
        ),
        (
            "a length that is no number",
            "POST /actuator HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            &[400],
        ),
        (
            "a bare line feed in the target",
            "GET /\nx HTTP/1.1\r\n\r\n",
            &[400],
        ),
    ];

    for (what, request, expected) in rows {
        let answer = send(dpm.http, request).await;

        match expected {
            // Closed without a word.
            [] => assert!(!answer.contains("200"), "{what}: {answer}"),
            // A reset may overtake the answer where the rest was not read.
            _ if answer.is_empty() => {}
            _ => {
                let status = Reply::parse(&answer).status;
                assert!(expected.contains(&status), "{what}: {answer}");
            }
        }
        is_alive(dpm.http).await;
    }
}

#[tokio::test]
async fn connection_has_one_request() {
    let dpm = dpm().await;
    let one = "GET /actuator/health/liveness HTTP/1.1\r\nHost: localhost\r\n\r\n";

    let answers = send(dpm.http, one.repeat(50)).await;

    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert_eq!(Reply::parse(&answers).header("connection"), Some("close"));
}

#[tokio::test]
async fn body_of_a_request_is_not_waited_for() {
    let dpm = dpm().await;

    let answer = send(
        dpm.http,
        "GET /actuator/health/liveness HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\nabc",
    )
    .await;

    assert_eq!(Reply::parse(&answer).status, 200);
}

#[tokio::test]
async fn slow_headers_end_the_connection() {
    let dpm = dpm().await;
    let begun = Instant::now();
    let mut slow = TcpStream::connect(dpm.http).await.unwrap();
    slow.write_all(b"GET /actuator HTTP/1.1\r\n").await.unwrap();
    let mut silent = TcpStream::connect(dpm.http).await.unwrap();

    let mut rest = Vec::new();
    // However it ends, it does.
    let _ = soon("the end of a slow connection", slow.read_to_end(&mut rest)).await;
    let _ = soon("the end of a silent one", silent.read_to_end(&mut rest)).await;

    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
    is_alive(dpm.http).await;
}

/// 300 holders, then 200 connections a second that send nothing; a probe every 100 ms.
#[tokio::test]
async fn probes_and_scrapes_are_answered_under_a_flood() {
    let dpm = dpm().await;
    let to = dpm.http;
    let mut holders = Vec::new();
    for _ in 0..300 {
        holders.push(TcpStream::connect(to).await.unwrap());
    }
    let begun = Instant::now();
    let flood = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            holders.extend(TcpStream::connect(to).await);
        }
    });

    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut answered = 0;
    for n in 0..90 {
        ticks.tick().await;
        let path = ["/actuator/health/readiness", "/actuator/prometheus"][n % 2];
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = send(to, request).await;
        answered += u32::from(answer.starts_with("HTTP/1.1 200"));
    }

    assert!(begun.elapsed() > 3 * CHANCE);
    assert!(answered >= 89, "{answered} of 90");
    flood.abort();
}

#[tokio::test]
async fn idle_connections_give_way_only_after_their_chance() {
    let dpm = dpm().await;
    let mut idle = Vec::new();
    for _ in 0..MOST_OF_ONE {
        idle.push(TcpStream::connect(dpm.http).await.unwrap());
    }
    is_alive(dpm.http).await;
    let begun = Instant::now();

    // The oldest one ends once it had its chance and others connect.
    let mut oldest = idle.remove(0);
    let mut rest = Vec::new();
    let mut end = std::pin::pin!(oldest.read_to_end(&mut rest));
    while futures_pending(&mut end).await {
        is_alive(dpm.http).await;
    }

    let took = begun.elapsed();
    assert!(took > CHANCE / 2 && took < 2 * CHANCE, "{took:?}");
}

/// Returns `true` if `future` is not complete.
async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
    })
    .await
}

#[tokio::test]
async fn flood_of_connections_leaves_the_probe_answered() {
    let dpm = dpm().await;
    let to = dpm.http;
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        flood.spawn(async move {
            for _ in 0..1250 {
                // Out of descriptors is no concern of this test.
                if let Ok(mut stream) = TcpStream::connect(to).await {
                    let _ = stream.write_all(b"GET /actuator HTTP/1.1\r\nx: ").await;
                }
            }
        });
    }

    let mut answered = 0;
    while flood.try_join_next().is_none() {
        // One of them may fall to the flood; the next does not.
        let reply = send(
            to,
            "GET /actuator/health/liveness HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        .await;
        answered += u32::from(reply.starts_with("HTTP/1.1 200"));
    }
    flood.join_all().await;

    assert!(answered > 0);
    is_alive(to).await;
}
