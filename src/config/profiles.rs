//! Spring's profiles: their files are not read, so an active one must not go unnoticed.

use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Finding, Origin, quote};
use crate::properties::name::Name;
use crate::properties::{Sourced, bind};

use super::check::Question;
use super::read::Reader;
use super::view::{Part, finding};

const ACTIVE: &str = "spring.profiles.active";
const VARIABLE: &str = "SPRING_PROFILES_ACTIVE";

/// Reports the files of active profiles: what they set would be missing.
pub(super) fn check(reader: &mut Reader<'_>, question: &Question<'_>) {
    let Some(active) = active(reader, question) else {
        return;
    };
    let text = reader.resolve(active.text());
    for profile in bind::list(text.as_deref().unwrap_or_default()) {
        let Some(file) = file_of(question.file, profile).filter(|file| file.exists()) else {
            continue;
        };
        let message = format!(
            "profile {} is active, but its file `{}` is not read",
            quote(profile),
            file.display()
        );
        let found: Finding = finding(reader.view(), Code::Cs0305, &active, Part::Value, message);
        reader.findings.push(
            found
                .with_severity(question.purpose.strict())
                .with_key(ACTIVE)
                .with_help(format!(
                    "write its settings into `{}`, or set them as environment variables",
                    question.file.display()
                )),
        );
    }
}

/// Finds where profiles are made active; the environment overrides the file.
fn active(reader: &Reader<'_>, question: &Question<'_>) -> Option<Sourced> {
    let mut variables = question.environment.iter();
    if let Some((name, value)) = variables.find(|(name, _)| name == VARIABLE) {
        return Some(Sourced::new(
            value,
            Origin::Environment(name.as_str().into()),
        ));
    }
    let view = reader.view()?;
    let meant = Name::parse(ACTIVE);
    let mut entries = view.entries().iter().enumerate().rev();
    let (at, entry) = entries.find(|(_, entry)| Name::parse(entry.key()) == meant)?;
    let origin = view.document().origin(entry.value_span().start);
    Some(Sourced::new(entry.value(), origin).with_entry(at))
}

/// Returns `application-<profile>.properties` beside `application.properties`.
fn file_of(file: &Path, profile: &str) -> Option<PathBuf> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+');
    if profile.is_empty() || !profile.chars().all(is_name) {
        return None;
    }
    let stem = file.file_stem()?.to_str()?;
    Some(file.with_file_name(format!("{stem}-{profile}.properties")))
}
