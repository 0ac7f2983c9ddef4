//! Identity on gRPC calls: the layers, their rules, and the one place where channels and servers
//! are put together.

pub(crate) mod authorize;
mod body;
mod callee;
pub(crate) mod carrier;
mod client;
mod connect;
mod gate;
#[cfg(feature = "actuator")]
mod health;
mod listener;
mod metadata;
mod metrics;
pub(crate) mod module;
pub(crate) mod network;
mod proof;
mod serve;
mod server;
mod session;
mod standard;
mod status;
pub mod tls;

pub use crate::failure::cause;
pub(crate) use authorize::{MethodRules, Rule};
pub use callee::UnknownDeployment;
pub use carrier::{PeerInfo, caller, verified_token};
pub(crate) use carrier::{Plaintext, is_loopback};
pub use client::{AttachIdentity, AttachIdentityLayer, CallToken};
pub(crate) use client::{call, call_over, is_late, up_to};
pub use connect::{ConnectError, Connection, ConnectionOptions, EndpointChannel, Target};
pub(crate) use connect::{KeepAlive, channel_over};
pub(crate) use gate::Rejections;
pub use gate::Tokens;
#[cfg(feature = "actuator")]
pub use health::Health;
#[cfg(feature = "actuator")]
pub(crate) use health::Readiness;
pub use listener::ConnectionLimits;
#[cfg(feature = "registry")]
pub(crate) use metadata::bearer;
pub use metadata::{NONCE, PROOF, is_proved};
pub(crate) use module::Module;
pub use module::{ModuleBuilder, ModuleError};
#[cfg(feature = "registry")]
pub(crate) use proof::CONNECT_ENGINE;
pub(crate) use proof::StreamToken;
pub use proof::{ProofMode, Proved};
pub use serve::{Drained, ServeError, ServerOptions, serve};
pub(crate) use serve::{Route, Wiring, serve_on};
pub use server::{VerifyIdentity, VerifyIdentityLayer};
pub use session::HealthWatch;
pub use standard::IdentityService;
pub(crate) use standard::Standard;
pub(crate) use status::callee_time;
pub(crate) use status::code_name;
pub use status::{DOMAIN, reason_of, refusal_of, refuse};
#[cfg(feature = "registry")]
pub(crate) use status::{OwnKey, exhausted_for, failure_of, kind_of, summary_and_detail};
