//! The measured tables of what Java and Spring Boot do, row by row. Where ours differs, the row
//! holds ours and says so in words.

mod binding;
mod edits;
mod files;
mod grammar;
mod layers;
mod names;
mod placeholders;
