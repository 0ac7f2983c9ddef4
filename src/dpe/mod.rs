//! The DPE: an engine that registers with its DPM and answers its dial-back.

mod engine_id;
mod error;
mod server;
mod service;
mod status_checker;

pub(crate) use engine_id::stored_engine_id;
pub use error::StartError;
pub use server::{Dpe, Options};
pub use service::EngineService;
pub use status_checker::{Registration, StatusChecker, StatusCheckerOptions};
