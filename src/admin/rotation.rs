//! Changing a module's key while it and its peers run: two keys overlap, and no call is refused.
//!
//! The files themselves say how far a rotation is. A step is planned without touching anything, can
//! be shown, and ends in the phase it is for or leaves every file as it was. Killed between two files
//! it leaves a key that both sides have, and made again it is completed.

mod files;
pub mod live;
pub(super) mod phase;
mod plan;

pub use files::Rotation;
pub use phase::{Phase, Step};
pub use plan::Plan;

#[cfg(test)]
mod tests;
