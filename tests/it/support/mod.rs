//! Worlds to test in.

pub(crate) mod draft;
pub(crate) mod echo;
pub(crate) mod http;
pub(crate) mod impostor;
pub(crate) mod logs;
pub(crate) mod middlebox;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod world;
