//! Identity on gRPC calls: the layers, their rules, and the one place where channels and servers
//! are put together.

pub(crate) mod authorize;
mod body;
mod call;
mod caller_tokens;
pub(crate) mod carrier;
mod client;
mod clock_skew;
mod connect;
mod gate;
#[cfg(feature = "actuator")]
mod health;
mod identity_service;
mod listener;
mod metadata;
mod metrics;
pub(crate) mod module;
mod peer;
mod pending_proof;
#[cfg(feature = "actuator")]
mod readiness;
mod rejections;
mod required_proof;
mod serve;
mod server;
mod session;
mod standard;
mod status;
pub mod tls;
mod unknown;
mod visit;
mod vouched;
mod wiring;

pub use crate::failure::cause;
pub(crate) use authorize::{MethodRules, Rule};
pub(crate) use call::{call, call_over, is_late, up_to};
pub(crate) use carrier::Plaintext;
pub use client::{AttachIdentity, AttachIdentityLayer, CallToken};
pub use connect::{ConnectError, Connection, ConnectionOptions, Target};
pub(crate) use connect::{KeepAlive, channel_over};
pub use gate::Tokens;
#[cfg(feature = "actuator")]
pub use health::Health;
pub use identity_service::IdentityService;
pub use listener::ConnectionLimits;
pub use metadata::{NONCE, PROOF, is_proved};
pub(crate) use module::Module;
pub use module::{ModuleBuilder, ModuleError};
pub(crate) use peer::is_loopback;
pub use peer::{PeerInfo, caller, verified_token};
#[cfg(feature = "actuator")]
pub(crate) use readiness::Readiness;
pub(crate) use rejections::Rejections;
pub use required_proof::{ProofMode, Proved};
pub use serve::{Drained, ServeError, ServerOptions, serve};
pub use server::{VerifyIdentity, VerifyIdentityLayer};
pub(crate) use standard::Standard;
pub(crate) use status::callee_time;
pub(crate) use status::code_name;
pub use status::{DOMAIN, reason_of, refusal_of, refuse};
#[cfg(feature = "registry")]
pub(crate) use status::{OwnKey, failure_of, kind_of, summary_and_detail};
pub use unknown::UnknownDeployment;
pub use visit::HealthWatch;
pub(crate) use wiring::{Route, Wiring};
