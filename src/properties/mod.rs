//! `.properties` text: reading it as Java does and naming every byte's place, layering, typed
//! values, placeholders, and edits that do not change the rest. It does not know our settings.

pub mod bind;
mod document;
mod edit;
mod file;
pub mod name;
mod parse;
mod source;

#[cfg(test)]
mod tests;

pub use document::{Document, MAX_VALUE};
pub use edit::{ChangeKind, Edit, replace};
pub use file::{ContentDigest, Encoding, FileText, ReadError, digest, mode};
#[cfg(feature = "testing")]
pub use parse::looks;
pub use parse::{Entry, Reading, Span, SyntaxFault, look};
pub use source::{Content, Layered, Path, Sourced, give_way, indexed};
