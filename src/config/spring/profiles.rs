//! The values of switches, and the profiles that they make active.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use super::expression::Expression;
use super::location::Location;
use super::switches::{ACTIVE, DEFAULT, GROUP, INCLUDE, Switches, group_of_environment};
use super::tree::{Loader, Names, Profiles};
use crate::config::schema;
use crate::diagnostic::{Code, Origin, quote, redact};
use crate::properties::name::Name;
use crate::properties::placeholder::{self, Looked};
use crate::properties::{Sourced, bind};

const MOST_PROFILES: usize = 64;

impl Loader<'_> {
    /// Reads profile expressions; `None` if there are none. One that cannot be read never holds.
    pub(super) fn expressions(
        &mut self,
        given: &[Sourced],
        of: Range<usize>,
    ) -> Option<Vec<Expression>> {
        let (mut read, mut is_conditional) = (Vec::new(), false);
        for at in given {
            let text = self.resolve(at, &of);
            is_conditional |= text.is_none();
            for one in bind::list(&text.unwrap_or_default()) {
                is_conditional = true;
                match Expression::parse(one) {
                    Ok(expression) => read.push(expression),
                    Err((code, why)) => {
                        let message = format!("the profile expression {} {why}", quote(one));
                        self.fault(code, at, message, EXPRESSION);
                    }
                }
            }
        }
        is_conditional.then_some(read)
    }

    /// Reads the imports of a document of the file `path`.
    pub(super) fn locations(
        &mut self,
        given: &[Sourced],
        of: Range<usize>,
        path: Option<&Path>,
    ) -> Vec<(Location, Sourced)> {
        let mut read = Vec::new();
        for at in given {
            let text = self.resolve(at, &of).unwrap_or_default();
            let named = bind::list(&text).into_iter().filter(|one| !one.is_empty());
            read.extend(named.map(|one| {
                let named = at.clone().with_text(one.to_owned().into());
                (Location::parse(one, path, &self.home), named)
            }));
        }
        read
    }

    /// Resolves the placeholders of a switch in the documents `of`; reports why it cannot.
    fn resolve(&mut self, at: &Sourced, of: &Range<usize>) -> Option<String> {
        if !placeholder::has_placeholder(at.text()) {
            return Some(at.text().trim().to_owned());
        }
        let is_hidden = Cell::new(false);
        let resolved = placeholder::resolve(at.text(), &|name| self.look_up(name, of, &is_hidden));
        let name = at.setting().unwrap_or_default();
        let error = match resolved {
            _ if is_hidden.get() => {
                let what = "a placeholder names what a document that is not active sets";
                self.refuse(at, format!("Spring Boot refuses `{name}`: {what}"));
                return None;
            }
            Ok(text) => return Some(text.trim().to_owned()),
            Err(error) => error,
        };
        let message = format!("the placeholder in `{name}` cannot be resolved: {error}");
        self.fault(Code::Cs0111, at, message, "write the value itself");
        None
    }

    /// Finds what a placeholder stands for: an option, a variable, or a value of an active document.
    fn look_up(&self, name: &str, of: &Range<usize>, is_hidden: &Cell<bool>) -> Option<Looked> {
        let parsed = Name::parse(name);
        if schema::find(&parsed).is_private() {
            return Some(Looked::Private);
        }
        let mut sets = self.question.sets.iter().rev();
        let set = sets.find(|(set, _)| Name::parse(set) == parsed);
        let given = set.map(|(_, value)| value.as_str());
        if let Some(text) = given.or_else(|| self.question.variable(name)) {
            return Some(Looked::Text(text.to_owned()));
        }
        let names = self.names.get_or_init(|| self.names());
        let (at, is_active) = *names.get(&parsed.uniform())?;
        if !is_active && !of.contains(&self.document.document_of_entry(at)) {
            is_hidden.set(true);
            return None;
        }
        let entry = self.document.entries().get(at)?;
        Some(Looked::Text(entry.value().to_owned()))
    }

    fn names(&self) -> Names {
        let mut order = self.active_in_order(&self.roots);
        order.reverse();
        let active: BTreeSet<_> = order.iter().copied().collect();
        // What nothing imports yet stands above; what is not active hides all others.
        order.extend((0..self.nodes.len()).filter(|id| !active.contains(id)));
        let nodes = order.iter().filter_map(|id| self.nodes.get(*id));
        let documents = nodes.flat_map(|node| {
            let is_active = self.is_active(node);
            node.documents
                .clone()
                .map(move |document| (document, is_active))
        });
        let entries = documents.flat_map(|(document, is_active)| {
            let entries = self.document.entries_of(document);
            entries.map(move |at| (at, is_active))
        });
        let named = entries.filter_map(|(at, is_active)| {
            let name = Name::parse(self.document.entries().get(at)?.key()).uniform();
            Some((name, (at, is_active)))
        });
        named.collect()
    }

    /// Finds the active profiles, each with the place that names it.
    pub(super) fn profiles(&mut self, options: &Switches, variables: &Switches) -> Profiles {
        let active = self.active_in_order(&self.roots);
        let nodes = active.iter().filter_map(|id| self.nodes.get(*id));
        let files = nodes.map(|node| &node.switches);
        let sources: Vec<_> = [options, variables].into_iter().chain(files).collect();
        let lists = sources.iter().filter_map(|source| source.list(INCLUDE));
        let included: Vec<_> = lists.flatten().collect();
        let [wanted, default] =
            [ACTIVE, DEFAULT].map(|name| sources.iter().find_map(|source| source.list(name)));
        let mut named = self.names_of(&included);
        named.extend(self.names_of(&wanted.unwrap_or_default()));
        if named.is_empty() {
            let nothing = Sourced::new("default", Origin::Default);
            named = self.names_of(&default.unwrap_or_else(|| vec![nothing]));
        }
        let mut expanded = Profiles::new();
        named.reverse();
        while let Some((name, at)) = named.pop() {
            if expanded.iter().any(|(known, _)| *known == name) {
                continue;
            }
            if expanded.len() == MOST_PROFILES {
                self.refuse(&at, "more than 64 profiles are active".to_owned());
                break;
            }
            let nodes = active.iter().filter_map(|id| self.nodes.get(*id));
            let mut groups = nodes.map(|node| node.switches.group(&name));
            let members = options
                .group(&name)
                .or_else(|| group_of_environment(self.question, &name))
                .or_else(|| groups.find_map(|group| group));
            let members = self.names_of(&members.unwrap_or_default());
            named.extend(members.into_iter().rev());
            expanded.push((name, at));
        }
        expanded
    }

    /// Reads lists of profiles; reports what is no profile's name.
    fn names_of(&mut self, lists: &[Sourced]) -> Profiles {
        let mut names = Profiles::new();
        for at in lists {
            let text = self.resolve(at, &(0..0)).unwrap_or_default();
            for name in bind::list(&text) {
                if is_profile(name) {
                    names.push((name.to_owned(), at.clone()));
                } else if !name.is_empty() {
                    let message = format!("{} is not a profile's name", quote(name));
                    let help = "use letters, digits and `-_.+@`, a letter or digit at each end";
                    self.fault(Code::Cs0306, at, message, help);
                }
            }
        }
        names
    }

    /// Reports documents that depend on a profile and name profiles: Spring refuses them.
    pub(super) fn misplaced(&mut self) {
        let names = [ACTIVE, INCLUDE, DEFAULT, GROUP];
        let depending = self
            .nodes
            .iter()
            .filter(|node| node.is_late || node.on_profile.is_some());
        let found = depending.flat_map(|node| node.switches.any(&names));
        let found: Vec<_> = found.map(|(_, at)| at.clone()).collect();
        for at in found {
            let setting = at.setting().unwrap_or_default();
            let message = format!("`{setting}` stands in a document that depends on a profile");
            let help = "move it to a document that is always active, or to a variable";
            self.fault(Code::Cs0306, &at, message, help);
        }
    }

    /// Notes the profiles that have no file and that no document asks for.
    pub(super) fn without_file(&mut self, main: &Path) {
        for (profile, at) in self.active.clone().unwrap_or_default() {
            let end = format!("-{profile}");
            let mut there = self.files.iter().filter(|(_, text)| text.is_some());
            let has_file = there.any(|(path, _)| {
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                stem.is_some_and(|stem| stem.ends_with(&end))
            });
            let is_known = has_file
                || *at.origin() == Origin::Default
                || group_of_environment(self.question, &profile).is_some()
                || self.nodes.iter().any(|node| {
                    let mut conditions = node.on_profile.iter().flatten();
                    conditions.any(|condition| condition.names(&profile))
                        || node.switches.group(&profile).is_some()
                });
            if let Some(file) = Location::file(main)
                .for_profile(&profile)
                .filter(|_| !is_known)
            {
                let whole = file.display().to_string();
                let path = whole.replace(profile.as_str(), &redact(&profile));
                let name = quote(&profile);
                let message = format!("profile {name} is active, but `{path}` does not exist");
                self.fault(Code::Cs0305, &at, message, NO_FILE);
            }
        }
    }
}

const EXPRESSION: &str = "write names with `!`, `&`, `|` and parentheses, such as `prod & !eu`";
const NO_FILE: &str = "create the file, correct the profile's name, or remove it from the list";

/// Returns `true` if `name` has the form that Spring Boot takes.
fn is_profile(name: &str) -> bool {
    let mut characters = name.chars();
    characters.all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '@'))
        && name.starts_with(char::is_alphanumeric)
        && name.ends_with(char::is_alphanumeric)
}
