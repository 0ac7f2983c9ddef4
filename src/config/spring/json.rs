//! `SPRING_APPLICATION_JSON`: settings as JSON, which are refused where they could matter here.

use serde_json::{Map, Value};

use super::switches::Fault;
use crate::config::question::Question;
use crate::config::schema;
use crate::diagnostic::{Code, Origin, quote};
use crate::jose::json;
use crate::properties::Sourced;
use crate::properties::name::{Name, uniform};

const NAME: &str = "spring.application.json";

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
    let what = match json::object(text.as_bytes()) {
        _ if text.trim().is_empty() => return None,
        Err(error) => format!("is not a JSON object: {error}"),
        Ok(object) => {
            let name = quote(&ours(&object, "")?);
            format!("sets {name}, which countersign does not apply")
        }
    };
    Some(Fault {
        code: Code::Cs0112,
        at: Sourced::new("", origin),
        message: format!("`{NAME}` {what}"),
        help: "put the settings into the module's file",
    })
}

/// Finds a name of ours, or of Spring's, in `object`, whose members stand below `prefix`.
fn ours(object: &Map<String, Value>, prefix: &str) -> Option<String> {
    object.iter().find_map(|(member, value)| {
        let name = format!("{prefix}{member}");
        let first = name.split(['.', '[']).next().map(uniform);
        let is_family = ["ataccama", "countersign", "spring"]
            .map(Some)
            .contains(&first.as_deref());
        let found = schema::exact(&Name::parse(&name));
        if is_family || found.is_some_and(|placed| placed.setting.is_used()) {
            return Some(name);
        }
        ours(value.as_object()?, &format!("{name}."))
    })
}
