//! The settings of Spring Boot that decide which texts count: `spring.profiles.*` and
//! `spring.config.*`, of one document, of the environment or of `--set`.

use std::ops::Range;

use crate::config::question::Question;
use crate::config::schema::{self, Known, Placed};
use crate::diagnostic::{Code, Origin, Severity};
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
    pub severity: Severity,
    pub at: Sourced,
    pub message: String,
    pub help: &'static str,
}

/// The switches of one place, in its order.
#[derive(Debug, Default)]
pub struct Switches(Vec<(Placed, Sourced)>);

impl Switches {
    /// Collects those among the `entries` of a document.
    pub fn of_document(document: &Document, entries: Range<usize>) -> Self {
        let all = document.entries().get(entries.clone()).unwrap_or_default();
        let found = entries.zip(all).filter_map(|(at, entry)| {
            let placed = as_switch(entry.key())?;
            let origin = document.origin(entry.value_span.start);
            let value = Sourced::new(entry.value(), origin).with_entry(at);
            Some((placed.clone(), value.of(&placed.path)))
        });
        Self(found.collect())
    }

    /// Collects those of `--set`.
    pub fn of_options(question: &Question) -> Self {
        let found = question.sets.iter().filter_map(|(name, value)| {
            let placed = as_switch(name)?;
            let given = Sourced::new(value, Origin::SetOption).of(&placed.path);
            Some((placed, given))
        });
        Self(found.collect())
    }

    /// Collects those of the environment, without groups.
    pub fn of_environment(question: &Question) -> Self {
        let mut found = Vec::new();
        for (name, value) in question.settings() {
            if let Some(placed) = schema::switch_of(&Variable::parse(name)) {
                let given = Sourced::new(value, Origin::Environment(name.into()));
                // A variable with the name itself comes first, as in Spring: the last one counts.
                let at = if name.contains('.') { found.len() } else { 0 };
                found.insert(at, (placed.clone(), given.of(&placed.path)));
            }
        }
        Self(found)
    }

    /// Returns the value of the setting `name`, or the elements of the list there in their order;
    /// `None` if it is not set.
    pub fn list(&self, name: &str) -> Option<Vec<Sourced>> {
        listed(
            self.0
                .iter()
                .filter(|(placed, _)| placed.setting.name == name),
        )
    }

    /// Returns the members of the group `name`.
    pub fn group(&self, name: &str) -> Option<Vec<Sourced>> {
        listed(self.0.iter().filter(|(placed, _)| {
            placed.setting.name == GROUP && placed.path.last().is_some_and(|key| key == name)
        }))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the values of the settings `names`.
    pub fn any<'a>(
        &'a self,
        names: &'a [&str],
    ) -> impl Iterator<Item = (&'static str, &'a Sourced)> {
        let all = self
            .0
            .iter()
            .map(|(placed, value)| (placed.setting.name, value));
        all.filter(|(name, _)| names.contains(name))
    }
}

/// Returns `true` if a document depends on a profile.
pub fn is_conditional(document: &Document, number: usize) -> bool {
    let switches = Switches::of_document(document, document.entries_of(number));
    switches.any(&[ON_PROFILE, ON_CLOUD]).next().is_some()
}

/// Returns the last value without an index, or else those with one in their order. CS0109 reports
/// wrong indices.
fn listed<'a>(given: impl Iterator<Item = &'a (Placed, Sourced)>) -> Option<Vec<Sourced>> {
    let (whole, elements): (Vec<_>, Vec<_>) = given.partition(|(placed, _)| placed.index.is_none());
    if let Some((_, last)) = whole.last() {
        return Some(vec![last.clone()]);
    }
    let numbered = elements.iter();
    let values: Vec<_> = numbered
        .filter_map(|(placed, value)| Some((placed.index.as_deref()?, value.clone())))
        .collect();
    (!values.is_empty()).then(|| indexed(values).unwrap_or_default())
}

/// Returns the members that variables give the group `name`.
pub fn group_of_environment(question: &Question, name: &str) -> Option<Vec<Sourced>> {
    let wanted = format!("springprofilesgroup{}", uniform(name));
    let (mut whole, mut elements) = (None, Vec::new());
    for (variable, value) in question.settings() {
        let words = Variable::parse(variable).words;
        let given = Sourced::new(value, Origin::Environment(variable.into()));
        match words.split_last() {
            _ if words.concat() == wanted => whole = Some(vec![given]),
            // With another last word it is the variable of another group.
            Some((index, name)) if name.concat() == wanted => {
                elements.extend(index.parse::<usize>().ok().map(|index| (index, given)));
            }
            _ => {}
        }
    }
    elements.sort_by_key(|(index, _)| *index);
    let listed: Vec<_> = elements.into_iter().map(|(_, given)| given).collect();
    whole.or_else(|| (!listed.is_empty()).then_some(listed))
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
