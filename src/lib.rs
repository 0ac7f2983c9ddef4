//! Mutual service identity for gRPC: ES256 deployment keys in Java `.properties` files, a signed
//! identity on every call, and a callee that proves itself too.
//!
//! A [`Module`] is one service's side: its own key and the deployments it trusts, from
//! `<home>/etc/application.properties` or from keys in code. It gives two tower layers:
//!
//! - [`Module::server_layer`] verifies every caller, applies a [`MethodRules`] table with default
//!   deny, and puts a [`ServiceIdentity`] into the request's extensions;
//! - [`Module::client_layer`] attaches this module's identity to the calls of a client, for one
//!   named callee.
//!
//! [`Module::open`] follows the file; [`Module::serve`] and [`Module::channel`] also take from it
//! where to serve and to connect, TLS and limits.
//!
//! ```
//! use countersign::{MethodRules, Rule, Transport, testing};
//! use tower_layer::Layer as _;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pair = testing::pair(); // or Module::open("dpm")?
//!
//! // The callee: `Server::builder().layer(layer).add_service(…)`.
//! let rules = MethodRules::deny_all().allow("/greeter.v1.GreeterService/*", Rule::any_identity())?;
//! let layer = pair.dpm.server_layer(rules);
//!
//! // The caller: `GreeterServiceClient::new(channel)`.
//! # async fn call(pair: testing::Pair) -> Result<(), Box<dyn std::error::Error>> {
//! let channel = tonic::transport::Channel::from_static("http://127.0.0.1:8531").connect_lazy();
//! let channel = pair.dpe.client_layer("dpm-dev", Transport::loopback())?.layer(channel);
//! # Ok(())
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The README says what a token protects and what it does not. ARCHITECTURE.md says how the code
//! is laid out. Modules are on floors: each uses only those below it.

#![cfg_attr(
    not(feature = "cli"),
    expect(
        dead_code,
        unused_imports,
        reason = "some items are for the registry and the commands"
    )
)]

#[cfg(feature = "cli")]
mod admin;
mod admission;
#[cfg(feature = "cli")]
mod cli;
pub mod clock;
mod config;
mod diagnostic;
#[cfg(feature = "registry")]
pub mod dpe;
#[cfg(feature = "registry")]
pub mod dpm;
#[cfg(not(feature = "registry"))]
#[path = "dpm/options.rs"]
mod dpm;
pub mod engine;
mod failure;
mod files;
pub mod grpc;
#[cfg(feature = "actuator")]
mod http;
pub mod identity;
pub mod jose;
mod library;
mod program;
mod properties;
pub mod proto;
#[cfg(feature = "registry")]
pub mod registry;
#[cfg(not(feature = "registry"))]
mod registry;
mod secret;
pub mod storage;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;
pub mod trust;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::main;
#[cfg(feature = "registry")]
pub use config::StartError;
pub use config::{LoadError, ModuleKind, ReloadHandle, ReloadStatus, Reloader, Settings};
pub use grpc::authorize::{MethodRules, Rule, RuleError};
pub use grpc::carrier::Transport;
pub use grpc::module::Module;
pub use identity::ServiceIdentity;
pub use library::{OpenError, OpenOptions};
pub use token::Reason;

/// Parts that the package's own tests and fuzz targets drive directly. Not an interface.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "cli")]
    pub use crate::admin::demo::run as run_demo;
    pub use crate::config::{Expression, Location, Target};
    pub use crate::diagnostic::{Code, Finding};
    pub use crate::grpc::tls::failure::ServerFailure;
    #[cfg(feature = "actuator")]
    pub use crate::http::{About, Access, Site, serve as serve_site};
    pub use crate::properties::looks;
    pub use crate::properties::name::Name;
    pub use crate::properties::{Document, Edit, Entry};
    #[cfg(feature = "etcd")]
    pub use crate::registry::store::etcd::record::{
        open as open_etcd_record, seal as seal_etcd_record,
    };
    #[cfg(feature = "registry")]
    pub use crate::registry::store::record::{decode as decode_record, encode as encode_record};
    pub use crate::storage::revoked_keys::parse as parse_revoked_keys;
    #[cfg(feature = "cli")]
    pub use crate::telemetry::{Format, LogLayer};

    /// Returns what the next connection is served with.
    pub fn server_config(
        tls: &crate::grpc::tls::ServerTls,
    ) -> std::sync::Arc<rustls::ServerConfig> {
        tls.current()
    }
}

/// The Rust code of README and of the library's page, compiled by `cargo test`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/library.md")]
#[derive(Debug)]
pub struct Readme;
