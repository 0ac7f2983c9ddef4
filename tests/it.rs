#![cfg(test)]
//! Behaviour seen from outside, over real sockets: in-process modules on loopback, fresh keys.

#[path = "it/carrier.rs"]
mod carrier;
#[path = "it/catalogue/mod.rs"]
mod catalogue;
#[path = "it/clock_skew.rs"]
mod clock_skew;
#[path = "it/clones.rs"]
mod clones;
#[path = "it/compose.rs"]
mod compose;
#[path = "it/dial_back.rs"]
mod dial_back;
#[path = "it/dial_policy.rs"]
mod dial_policy;
#[path = "it/failover.rs"]
mod failover;
#[path = "it/http.rs"]
mod http_port;
#[path = "it/interop.rs"]
mod interop;
#[path = "it/layers.rs"]
mod layers;
#[path = "it/lifecycle.rs"]
mod lifecycle;
#[path = "it/listener.rs"]
mod listener;
#[path = "it/networks.rs"]
mod networks;
#[path = "it/one_way.rs"]
mod one_way;
#[path = "it/oracles.rs"]
mod oracles;
#[path = "it/ownership.rs"]
mod ownership;
#[path = "it/proof.rs"]
mod proof;
#[path = "it/proxies.rs"]
mod proxies;
#[path = "it/registration.rs"]
mod registration;
#[path = "it/reload.rs"]
mod reload;
#[path = "it/replay.rs"]
mod replay;
#[path = "it/services.rs"]
mod services;
#[path = "it/shutdown.rs"]
mod shutdown;
#[path = "it/streams.rs"]
mod streams;
#[path = "it/support/mod.rs"]
mod support;
#[path = "it/tls.rs"]
mod tls;
#[path = "it/vouched.rs"]
mod vouched;
#[path = "it/watch.rs"]
mod watch;
