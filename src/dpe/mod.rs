//! The DPE: an engine that registers with its DPM and answers its dial-back.

mod one_way;
mod refused;
mod server;
mod status_checker;

pub use server::{Dpe, EngineService, Options, StartError};
pub(crate) use server::{make_engine_id, stored_engine_id};
pub use status_checker::{Registration, StatusChecker, StatusCheckerOptions};
