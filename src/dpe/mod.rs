//! The DPE: an engine that registers with its DPM and answers its dial-back.

mod engine_id;
mod server;
mod service;
mod status_checker;

pub(crate) use engine_id::stored_engine_id;
pub use server::{Dpe, Options, StartError};
pub use service::EngineService;
pub use status_checker::{Registration, StatusChecker, StatusCheckerOptions};
