//! Strangers in numbers, and callers among them.

use std::net::SocketAddr;
use std::time::Duration;

use countersign::Module;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::process::Homes;
use super::served::WHO_AM_I;
use super::wire::{
    DATA, EMPTY, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, field, frame, request,
};
use crate::support::world::soon;

const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// How many connections watch before the flood, and how many callers come during it.
const WATCHERS: u32 = 1024;
const CALLERS: u32 = 100;

/// Connects from one of 60,000 addresses of this machine.
async fn connect(number: u32, to: SocketAddr) -> std::io::Result<TcpStream> {
    let [_, _, a, b] = (number % 60_000).to_be_bytes();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 1, a, b], 0).into()).unwrap();
    socket.connect(to).await
}

/// A call on `stream`, with more `headers` than each has.
fn call(stream: u32, path: &str, headers: &[u8]) -> Vec<u8> {
    let headers = [&request(path), headers].concat();
    let mut call = frame(HEADERS, END_HEADERS, stream, &headers);
    call.extend(frame(DATA, END_STREAM, stream, EMPTY));
    call
}

fn start() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// Opens a connection with so many watches.
async fn watcher(from: u32, to: SocketAddr, watches: u32) -> Option<TcpStream> {
    let mut tcp = connect(from, to).await.ok()?;
    let mut sent = start();
    for n in 0..watches {
        sent.extend(call(2 * n + 1, WATCH, &[]));
    }
    tcp.write_all(&sent).await.ok()?;
    Some(tcp)
}

/// Connects, shows a token some time later, and returns `true` if the call is answered.
async fn gets_in(from: u32, dpm: SocketAddr, bearer: String, delay: Duration) -> bool {
    let exchange = async {
        let mut tcp = connect(from, dpm).await?;
        tcp.write_all(&start()).await?;
        sleep(delay).await;
        let bearer = field("authorization", &bearer);
        tcp.write_all(&call(1, WHO_AM_I, &bearer)).await?;
        loop {
            let mut head = [0; 9];
            tcp.read_exact(&mut head).await?;
            let [a, b, c, kind, _, .., stream] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            tcp.read_exact(&mut payload).await?;
            if (kind, stream) == (DATA, 1) {
                return std::io::Result::Ok(());
            }
        }
    };
    exchange.await.is_ok()
}

fn bearer(homes: &Homes) -> String {
    let module = Module::load(homes.path().join("dpe")).unwrap();
    let trust = module.trust().current();
    let token = module.issuer().issue(trust.deployment("dpm-dev").unwrap());
    format!("Bearer {}", token.unwrap().expose())
}

/// Counts the callers that get in under 1,024 watches and 200 new connections a second.
async fn admitted(addresses: u32) -> usize {
    let homes = Homes::new();
    let dpm = homes.dpm(4096, &[]);
    let (to, bearer) = (dpm.address, bearer(&homes));
    let mut watchers = Vec::new();
    for n in 0..WATCHERS {
        watchers.extend(watcher(n % addresses, to, 1).await);
    }
    // They had their chance.
    sleep(Duration::from_secs(2)).await;
    let flood = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(5));
        let mut open = std::collections::VecDeque::new();
        for n in 0.. {
            ticks.tick().await;
            open.extend(connect(n % addresses, to).await);
            // What this process may open is bounded too.
            open.drain(..open.len().saturating_sub(1000));
        }
    });
    let mut callers = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(100));
    for n in 0..CALLERS {
        ticks.tick().await;
        let delay = Duration::from_millis([20, 80][n as usize % 2]);
        callers.spawn(gets_in(n % addresses, to, bearer.clone(), delay));
    }
    let got_in = soon("the callers' ends", callers.join_all()).await;
    flood.abort();
    got_in.into_iter().filter(|got_in| *got_in).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_callers_get_in_under_a_flood_from_one_address() {
    let admitted = admitted(1).await;
    assert!(admitted >= 99, "{admitted} of {CALLERS}");
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_callers_get_in_under_a_flood_from_many_addresses() {
    let admitted = admitted(50_000).await;
    assert!(admitted >= 99, "{admitted} of {CALLERS}");
}
