//! The settings of Spring Boot that decide which texts count, and profile expressions such as
//! `prod & !eu`.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config::question::Question;
use crate::config::schema::{self, Known, Placed};
use crate::diagnostic::{Code, Origin, quote};
use crate::jose::json;
use crate::properties::name::{Name, Variable, uniform};
use crate::properties::{Document, Sourced, indexed};

pub const IMPORT: &str = "spring.config.import";
pub const ON_PROFILE: &str = "spring.config.activate.on-profile";
pub const ON_CLOUD: &str = "spring.config.activate.on-cloud-platform";
pub const ACTIVE: &str = "spring.profiles.active";
pub const INCLUDE: &str = "spring.profiles.include";
pub const DEFAULT: &str = "spring.profiles.default";
pub const GROUP: &str = "spring.profiles.group.<name>";
pub const LOCATION: &str = "spring.config.location";
pub const ADDITIONAL: &str = "spring.config.additional-location";
pub const NAME: &str = "spring.config.name";
pub const LEGACY: &str = "spring.config.use-legacy-processing";
pub const PROFILES: &str = "spring.profiles";

/// What is wrong with a switch, or with what it names.
#[derive(Debug)]
pub struct Fault {
    pub code: Code,
    pub at: Sourced,
    pub message: String,
    pub help: &'static str,
}

/// The switches of one place, in its order.
#[derive(Clone, Debug, Default)]
pub struct Switches(Vec<(Placed, Sourced)>);

impl Switches {
    /// Collects those among the `entries` of a document.
    pub fn of_document(document: &Document, entries: impl IntoIterator<Item = usize>) -> Self {
        let found = entries.into_iter().filter_map(|at| {
            let entry = document.entries().get(at)?;
            let placed = as_switch(entry.key())?;
            let origin = document.origin(entry.value_span.start);
            let value = Arc::clone(&entry.value);
            Some((placed, Sourced::of_entry(at, value, origin)))
        });
        Self::of(found)
    }

    /// Collects those of `--set`.
    pub fn of_options(question: &Question) -> Self {
        let sets = question.sets.iter();
        Self::of(sets.filter_map(|(name, value)| {
            Some((as_switch(name)?, Sourced::new(value, Origin::SetOption)))
        }))
    }

    /// Collects those of the environment, without groups.
    pub fn of_environment(question: &Question) -> Self {
        let mut found: Vec<_> = question.settings().collect();
        // A variable with the name itself comes first, as in Spring: the last one counts.
        found.sort_by_key(|(name, _)| name.contains('.'));
        Self::of(found.into_iter().filter_map(|(name, value)| {
            let placed = schema::switch_of(&Variable::parse(name))?;
            let origin = Origin::Environment(name.into());
            Some((placed, Sourced::new(value, origin)))
        }))
    }

    fn of(found: impl Iterator<Item = (Placed, Sourced)>) -> Self {
        let named = found.map(|(placed, value)| {
            let named = value.of(&placed.path);
            (placed, named)
        });
        Self(named.collect())
    }

    /// Returns the value of the setting `name`, or the elements of the list there in their order;
    /// `None` if it is not set.
    pub fn list(&self, name: &str) -> Option<Vec<Sourced>> {
        self.listed(|placed| placed.setting.name == name)
    }

    /// Returns the members of the group `name`.
    pub fn group(&self, name: &str) -> Option<Vec<Sourced>> {
        self.listed(|placed| {
            placed.setting.name == GROUP && placed.path.last().is_some_and(|key| key == name)
        })
    }

    /// Returns the last value without an index, or else those with one in their order. CS0109
    /// reports wrong indices.
    fn listed(&self, is_meant: impl Fn(&Placed) -> bool) -> Option<Vec<Sourced>> {
        let given: Vec<_> = self
            .0
            .iter()
            .filter(|(placed, _)| is_meant(placed))
            .collect();
        let mut whole = given
            .iter()
            .rev()
            .filter(|(placed, _)| placed.index.is_none());
        if let Some((_, last)) = whole.next() {
            return Some(vec![last.clone()]);
        }
        let elements = given
            .iter()
            .filter_map(|(placed, value)| Some((placed.index.as_deref()?, value.clone())));
        (!given.is_empty()).then(|| indexed(elements.collect()).unwrap_or_default())
    }

    /// Returns the values of the settings `names`.
    pub fn any(&self, names: &[&str]) -> Vec<(&'static str, Sourced)> {
        let all = self
            .0
            .iter()
            .filter(|(placed, _)| names.contains(&placed.setting.name));
        all.map(|(placed, value)| (placed.setting.name, value.clone()))
            .collect()
    }
}

/// Returns `true` if a document depends on a profile.
pub fn is_conditional(document: &Document, number: usize) -> bool {
    let switches = Switches::of_document(document, document.entries_of(number));
    !switches.any(&[ON_PROFILE, ON_CLOUD]).is_empty()
}

/// Variables whose index is wrong, each with what is wrong.
type Wrong = Vec<(Sourced, String)>;

/// Returns the members that variables give the group `name`, and which of their indices are wrong.
pub fn group_of_environment(question: &Question, name: &str) -> Option<(Vec<Sourced>, Wrong)> {
    let group = format!("spring.profiles.group.{name}");
    let wanted = Variable::parse(&group).words.concat();
    if let Some((variable, value)) = question.named(&group) {
        let whole = Sourced::new(value, Origin::Environment(variable.into()));
        return Some((vec![whole], Vec::new()));
    }
    let mut elements: Vec<(String, Sourced)> = question
        .settings()
        .filter_map(|(variable, value)| {
            let words = Variable::parse(variable).words;
            // `PROD0` is a group, `PROD_0` the first of another.
            let (index, name) = words.split_last()?;
            let is_index = index.bytes().all(|byte| byte.is_ascii_digit());
            let at = Sourced::new(value, Origin::Environment(variable.into()));
            (is_index && name.concat() == wanted).then(|| (index.clone(), at))
        })
        .collect();
    elements.sort_by_key(|(index, _)| index.parse().unwrap_or(usize::MAX));
    let listed = elements.iter().map(|(index, at)| (index.as_str(), at));
    let wrong = indexed(listed.collect()).err().unwrap_or_default();
    let faults = wrong
        .into_iter()
        .filter_map(|(number, why)| {
            let (index, at) = elements.get(number)?;
            Some((at.clone(), format!("index {} {why}", quote(index))))
        })
        .collect();
    let members: Vec<_> = elements.into_iter().map(|(_, at)| at).collect();
    (!members.is_empty()).then_some((members, faults))
}

/// Takes `name` for a switch.
fn as_switch(name: &str) -> Option<Placed> {
    // Most names are none, at little cost.
    let letters = name.trim_start_matches(['-', '_']);
    if !letters.starts_with(['s', 'S']) {
        return None;
    }
    match schema::find(&Name::parse(name)) {
        Known::Setting(placed) if placed.setting.name.starts_with("spring.") => Some(placed),
        _ => None,
    }
}

/// A condition on the active profiles: a text that was read once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expression(String);

/// Why an expression is refused: the code of the finding, and how its message goes on after the
/// value.
pub type Refused = (Code, &'static str);

const MIXED: Refused = (
    Code::Cs0306,
    "mixes `&` and `|`; put one of the two in parentheses",
);
const MISSING: Refused = (Code::Cs0306, "lacks a profile's name");
// Spring reads these, each in another way than they look.
const MISREAD: Refused = (
    Code::Cs0112,
    "has an open parenthesis, two parts without an operator, or `!` twice, which Spring Boot misreads",
);
const LONG: Refused = (
    Code::Cs0306,
    "is longer than 1 KiB or nested more than 32 deep",
);
const MOST_BYTES: usize = 1024;
const MOST_DEPTH: usize = 32;

impl Expression {
    /// Reads `text`.
    ///
    /// # Errors
    ///
    /// When it has another form than Spring's manual gives.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        if text.len() > MOST_BYTES {
            return Err(LONG);
        }
        holds(text, &|_| false)?;
        Ok(Self(text.to_owned()))
    }

    /// Returns `true` if it holds where `is_active` says which profiles are active.
    pub fn matches(&self, is_active: &dyn Fn(&str) -> bool) -> bool {
        holds(&self.0, is_active) == Ok(true)
    }

    /// Returns `true` if it names the profile `name`.
    pub fn names(&self, name: &str) -> bool {
        self.0.split(is_mark).any(|part| part.trim() == name)
    }
}

fn is_mark(character: char) -> bool {
    matches!(character, '(' | ')' | '&' | '|' | '!')
}

fn holds(text: &str, is_active: &dyn Fn(&str) -> bool) -> Result<bool, Refused> {
    let mut reader = Reader {
        rest: text,
        is_active,
    };
    let whole = reader.any(0)?;
    if reader.rest.trim_start().is_empty() {
        Ok(whole)
    } else {
        Err(MISREAD)
    }
}

/// Reads a text from its start.
struct Reader<'a> {
    rest: &'a str,
    is_active: &'a dyn Fn(&str) -> bool,
}

impl Reader<'_> {
    fn takes(&mut self, mark: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads parts with one operator between them.
    fn any(&mut self, depth: usize) -> Result<bool, Refused> {
        let mut whole = self.part(depth)?;
        let mut before = None;
        loop {
            let operator = ['&', '|'].into_iter().find(|mark| self.takes(*mark));
            let Some(operator) = operator else {
                return Ok(whole);
            };
            if *before.get_or_insert(operator) != operator {
                return Err(MIXED);
            }
            let part = self.part(depth)?;
            whole = if operator == '&' {
                whole && part
            } else {
                whole || part
            };
        }
    }

    fn part(&mut self, depth: usize) -> Result<bool, Refused> {
        let below = depth.saturating_add(1);
        if below > MOST_DEPTH {
            return Err(LONG);
        }
        if self.takes('(') {
            let inner = self.any(below)?;
            return if self.takes(')') {
                Ok(inner)
            } else {
                Err(MISREAD)
            };
        }
        if self.takes('!') {
            if self.takes('!') {
                return Err(MISREAD);
            }
            return Ok(!self.part(below)?);
        }
        let end = self.rest.find(is_mark).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at_checked(end).ok_or(MISSING)?;
        self.rest = rest;
        match name.trim() {
            "" => Err(MISSING),
            name => Ok((self.is_active)(name)),
        }
    }
}

const JSON: &str = "spring.application.json";

/// Reports JSON that Spring Boot would read settings of ours from, or could not read.
pub fn application_json(question: &Question) -> Option<Fault> {
    let mut sets = question.sets.iter().rev();
    let set = sets.find(|(name, _)| Name::parse(name) == Name::parse(JSON));
    let (text, origin) = if let Some((_, text)) = set {
        (text.as_str(), Origin::SetOption)
    } else {
        let (name, text) = question.named(JSON)?;
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
        message: format!("`{JSON}` {what}"),
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
