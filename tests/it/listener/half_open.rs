//! A peer vanishes without a word: its network is taken away.

use std::process::{Command, Output};
use std::time::Duration;

use tokio::time::Instant;

use super::process::Homes;
use super::wire::{END_STREAM, Raw, call};

/// A keepalive ping each 30 s, 10 s for the answer, and some patience.
const DETECTED: Duration = Duration::from_secs(45);

/// A network namespace, linked to ours. Gone with this value, and with it every process's network
/// in it.
struct Namespace {
    name: String,
}

const HERE: &str = "198.18.77.1";
const THERE: &str = "198.18.77.2";

impl Namespace {
    /// Makes one; returns none where that is not allowed.
    fn new() -> Option<Self> {
        let name = format!("cs{}", std::process::id());
        let made = ip(&format!("netns add {name}")).is_some_and(|ip| ip.status.success());
        if !made {
            return None;
        }
        let namespace = Self { name };
        let name = &namespace.name;
        for command in [
            format!("link add {name}a type veth peer name {name}b netns {name}"),
            format!("address add {HERE}/30 dev {name}a"),
            format!("link set {name}a up"),
            format!("-n {name} address add {THERE}/30 dev {name}b"),
            format!("-n {name} link set {name}b up"),
            format!("-n {name} link set lo up"),
        ] {
            let made = ip(&command);
            assert!(made.is_some_and(|ip| ip.status.success()), "{command}");
        }
        Some(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("link delete {}a", self.name));
        let _ = ip(&format!("netns delete {}", self.name));
    }
}

fn ip(arguments: &str) -> Option<Output> {
    let ip = Command::new("ip").args(arguments.split(' ')).output();
    ip.ok()
}

#[test]
fn peer_whose_network_vanished_is_cut_by_keepalive() {
    let Some(namespace) = Namespace::new() else {
        eprintln!("skipped: network namespaces cannot be made here");
        return;
    };
    let homes = Homes::new();
    let prefix = format!("exec ip netns exec {}", namespace.name);
    let dpm = homes.start(
        "dpm",
        &prefix,
        &[
            &format!("countersign.server.address={THERE}"),
            "countersign.server.allow-plaintext=true",
        ],
    );
    let mut raw = Raw::http2(dpm.address, &[]);
    raw.send(&call(1));
    raw.until(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0);
    assert_eq!(dpm.connections(), 1);
    let begun = Instant::now();

    let cut = ip(&format!("link set {}a down", namespace.name)).unwrap();
    assert!(cut.status.success());

    while dpm.connections() > 0 {
        assert!(begun.elapsed() < DETECTED, "still there");
        // The kernel does not notify; it has to be asked.
        std::thread::sleep(Duration::from_millis(100));
    }
}
