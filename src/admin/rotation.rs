//! Changing a module's key while it and its peers run: two keys overlap, and no call is refused.
//!
//! The files themselves record the progress of a rotation. Planning a step changes nothing, and the
//! plan can be shown. A step ends in its phase, or leaves every file as it was. If it is killed
//! between two files, both sides still share a key, and running it again completes it.

mod files;
pub mod live;
pub(super) mod phase;

pub use files::{Plan, Rotation};
pub use phase::{Phase, Step};

#[cfg(test)]
mod tests;
