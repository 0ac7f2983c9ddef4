//! The settings of Spring Boot that decide which texts count.

use crate::config::question::Question;
use crate::config::schema::{self, Known, Placed};
use crate::diagnostic::{Code, Origin, quote};
use crate::properties::name::{Name, Variable};
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
            Some((placed, Sourced::new(entry.value(), origin).with_entry(at)))
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
