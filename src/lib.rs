//! Mutual service identity for gRPC.

pub mod clock;
pub mod diagnostic;
pub mod engine;
pub mod grpc;
pub mod identity;
pub mod jose;
pub mod properties;
pub mod proto;
pub mod registry;
pub mod secret;
pub mod telemetry;
pub mod token;
pub mod trust;
