//! The values of switches, and the profiles that they make active.

use std::cell::Cell;
use std::ops::Range;
use std::path::Path;

use super::files::Location;
use super::load::{Loader, Profiles};
use super::switches::{ACTIVE, DEFAULT, Expression, INCLUDE, Switches, group_of_environment};
use crate::config::schema;
use crate::diagnostic::{Code, Origin, quote, redact};
use crate::properties::Sourced;
use crate::properties::bind::{self, Looked};
use crate::properties::name::Name;

const MOST_PROFILES: usize = 64;

impl Loader<'_> {
    /// Reads profile expressions; `None` if there are none. One that cannot be read never holds.
    pub(super) fn expressions(
        &mut self,
        given: Option<Vec<Sourced>>,
        of: &Range<usize>,
    ) -> Option<Vec<Expression>> {
        let mut read = Vec::new();
        // A value without elements is no condition; one that cannot be resolved is.
        let texts = self.elements(given, of).map_or(Some(Vec::new()), |texts| {
            (!texts.is_empty()).then_some(texts)
        })?;
        for (text, at) in texts {
            match Expression::parse(&text) {
                Ok(expression) => read.push(expression),
                Err((code, why)) => {
                    let message = format!("the profile expression {} {why}", quote(&text));
                    self.fault(code, &at, message, EXPRESSION);
                }
            }
        }
        Some(read)
    }

    /// Reads the imports of a document of the file `path`.
    pub(super) fn locations(
        &mut self,
        given: Option<Vec<Sourced>>,
        of: &Range<usize>,
        path: Option<&Path>,
    ) -> Vec<(Location, Sourced)> {
        let texts = self.elements(given, of).unwrap_or_default().into_iter();
        let named = texts
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, at)| {
                let location = Location::parse(&text, path, &self.home);
                (location, at.with_text(text.into()))
            });
        named.collect()
    }

    /// Lists the elements of a switch of the documents `of`, placeholders resolved; `None` if one
    /// cannot be, which is reported.
    fn elements(&mut self, given: Option<Vec<Sourced>>, of: &Range<usize>) -> Option<Profiles> {
        let mut elements = Some(Profiles::new());
        for at in given.unwrap_or_default() {
            let is_hidden = Cell::new(false);
            let resolved = bind::resolve(at.text(), &|name| self.look_up(name, of, &is_hidden));
            let name = at.setting().unwrap_or_default();
            match resolved {
                Ok(text) if !is_hidden.get() => {
                    let texts = bind::list(text.trim()).into_iter();
                    let named = texts.map(|text| (text.to_owned(), at.clone()));
                    if let Some(all) = &mut elements {
                        all.extend(named);
                    }
                    continue;
                }
                Err(error) if !is_hidden.get() => {
                    let message =
                        format!("the placeholder in `{name}` cannot be resolved: {error}");
                    self.fault(Code::Cs0111, &at, message, "write the value itself");
                }
                _ => {
                    let what = "a placeholder names what a document that is not active sets";
                    self.refuse(&at, format!("Spring Boot refuses `{name}`: {what}"));
                }
            }
            elements = None;
        }
        elements
    }

    /// Finds what a placeholder stands for: an option, a variable, or a value of an active
    /// document.
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
        let [active, others] = self.names.get_or_init(|| {
            [true, false].map(|is_active| {
                let parts = self.parts.iter().filter(|part| part.is_active == is_active);
                self.document
                    .last_of_names(parts.flat_map(|part| part.documents.clone()))
            })
        });
        let uniform = parsed.uniform();
        // What is not active hides all others.
        let hidden = others.get(&uniform);
        if hidden.is_some_and(|at| !of.contains(&self.document.document_of_entry(*at))) {
            is_hidden.set(true);
            return None;
        }
        let at = hidden.or_else(|| active.get(&uniform))?;
        let entry = self.document.entries().get(*at)?;
        Some(Looked::Text(entry.value().to_owned()))
    }

    /// Finds the active profiles, each with the place that names it. What is `given` outside of
    /// files goes before the switches of active documents.
    pub(super) fn profiles(&mut self, given: [Switches; 2]) -> Profiles {
        let active = self.parts.iter().rev().filter(|part| part.is_active);
        let files = active.map(|part| part.switches.clone());
        let sources: Vec<_> = given.into_iter().chain(files).collect();
        let lists = sources.iter().filter_map(|source| source.list(INCLUDE));
        let mut named = self.names_of(Some(lists.flatten().collect()));
        let [wanted, default] =
            [ACTIVE, DEFAULT].map(|name| sources.iter().find_map(|source| source.list(name)));
        named.extend(self.names_of(wanted));
        if named.is_empty() {
            let nothing = Sourced::new("default", Origin::Default);
            named = self.names_of(default.or_else(|| Some(vec![nothing])));
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
            // A variable goes before the files, an option before both.
            let mut groups = sources.iter().map(|source| source.group(&name));
            let mut given = groups.next().flatten();
            if given.is_none()
                && let Some((listed, faults)) = group_of_environment(self.question, &name)
            {
                for (at, why) in faults {
                    let message = format!("{why} in the group of profile {}", quote(&name));
                    self.fault(Code::Cs0109, &at, message, NUMBERED);
                }
                given = Some(listed);
            }
            let members = given.or_else(|| groups.flatten().next());
            named.extend(self.names_of(members).into_iter().rev());
            expanded.push((name, at));
        }
        expanded
    }

    /// Reads lists of profiles; reports what is no profile's name.
    fn names_of(&mut self, lists: Option<Vec<Sourced>>) -> Profiles {
        let mut names = self.elements(lists, &(0..0)).unwrap_or_default();
        names.retain(|(name, at)| {
            let is_name = is_profile(name);
            if !is_name && !name.is_empty() {
                let message = format!("{} is not a profile's name", quote(name));
                let help = "use letters, digits and `-_.+@`, a letter or digit at each end";
                self.fault(Code::Cs0306, at, message, help);
            }
            is_name
        });
        names
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
                || self.parts.iter().any(|part| {
                    let mut conditions = part.conditions.iter().flatten();
                    conditions.any(|condition| condition.names(&profile))
                        || part.switches.group(&profile).is_some()
                });
            let file = Location::file(main).for_profile(&profile);
            if let Some(file) = file.filter(|_| !is_known) {
                let whole = file.display().to_string();
                let path = whole.replace(profile.as_str(), &redact(&profile));
                let name = quote(&profile);
                let message = format!("profile {name} is active, but `{path}` does not exist");
                self.fault(Code::Cs0305, &at, message, NO_FILE);
            }
        }
    }
}

const NO_FILE: &str = "create the file, correct the profile's name, or remove it from the list";
const NUMBERED: &str = "number the variables of a group `_0`, `_1` and so on, without a gap";
const EXPRESSION: &str = "write names with `!`, `&`, `|` and parentheses, such as `prod & !eu`";

/// Returns `true` if `name` has the form that Spring Boot takes.
fn is_profile(name: &str) -> bool {
    let mut characters = name.chars();
    characters.all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '@'))
        && name.starts_with(char::is_alphanumeric)
        && name.ends_with(char::is_alphanumeric)
}
