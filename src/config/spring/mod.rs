//! Which texts count, as Spring Boot decides it: documents, profiles and imports.

mod files;
mod load;
mod profiles;
mod switches;

pub use files::Texts;
#[cfg(feature = "testing")]
pub use files::{Location, Target};
pub use load::read;
#[cfg(test)]
pub use load::read_around;
#[cfg(feature = "testing")]
pub use switches::Expression;
pub use switches::is_conditional;
