//! The registry of engines.
