//! Which texts count, as Spring Boot decides it: documents, profiles and imports.

mod expression;
mod json;
mod location;
mod profiles;
mod switches;
mod tree;
mod values;

#[cfg(feature = "testing")]
pub use expression::Expression;
#[cfg(feature = "testing")]
pub use location::{Location, Target};
pub use switches::{Fault, is_conditional};
pub use tree::read;
