//! The DPE: an engine that registers with its DPM and answers its dial-back.

mod server;
mod status_checker;

pub(crate) use server::stored_engine_id;
pub use server::{Dpe, EngineService, Options, StartError};
pub use status_checker::{Registration, StatusChecker, StatusCheckerOptions};
