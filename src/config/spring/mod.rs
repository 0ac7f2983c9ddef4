//! Which texts count, as Spring Boot decides it: documents, profiles and imports.

mod expression;
mod json;
mod load;
mod location;
mod profiles;
mod switches;
mod texts;
mod values;

#[cfg(feature = "testing")]
pub use expression::Expression;
pub use load::{read, read_around};
#[cfg(feature = "testing")]
pub use location::{Location, Target};
pub use switches::is_conditional;
pub use texts::Texts;
