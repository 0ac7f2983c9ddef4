//! `SPRING_APPLICATION_JSON`: settings as JSON, which are refused where they could matter here.

use serde_json::{Map, Value};

use super::switches::Fault;
use crate::config::question::Question;
use crate::config::schema;
use crate::diagnostic::{Code, Origin, Severity, quote};
use crate::jose::json;
use crate::properties::Sourced;
use crate::properties::name::{Name, uniform};

const NAME: &str = "spring.application.json";
const HELP: &str = "put the settings into the module's file";

/// Reports JSON that Spring Boot would read settings of ours from, or could not read.
pub fn check(question: &Question) -> Option<Fault> {
    let mut sets = question.sets.iter().rev();
    let set = sets.find(|(name, _)| Name::parse(name) == Name::parse(NAME));
    let (text, origin) = if let Some((_, text)) = set {
        (text.as_str(), Origin::SetOption)
    } else {
        let (name, text) = question.named(NAME)?;
        (text, Origin::Environment(name.into()))
    };
    if text.trim().is_empty() {
        return None;
    }
    let message = match json::object(text.as_bytes()) {
        Err(error) => format!("`{NAME}` is not a JSON object: {error}"),
        Ok(object) => match ours(&object, "") {
            Some(name) => format!(
                "`{NAME}` sets {}, which countersign does not apply",
                quote(&name)
            ),
            None => return None,
        },
    };
    Some(Fault {
        code: Code::Cs0112,
        severity: Severity::Error,
        at: Sourced::new("", origin),
        message,
        help: HELP,
    })
}

/// Finds a name of ours, or of Spring's, in `object`, whose members stand below `prefix`.
fn ours(object: &Map<String, Value>, prefix: &str) -> Option<String> {
    object.iter().find_map(|(member, value)| {
        let name = format!("{prefix}{member}");
        let first = name
            .split(['.', '['])
            .next()
            .map(uniform)
            .unwrap_or_default();
        let is_family = ["ataccama", "countersign", "spring"].contains(&first.as_str());
        let parsed = Name::parse(&name);
        let is_ours = schema::exact(&parsed).is_some_and(|placed| placed.setting.is_used());
        if is_family || is_ours {
            return Some(name);
        }
        ours(value.as_object()?, &format!("{name}."))
    })
}
