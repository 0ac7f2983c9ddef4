//! Spring's profiles: which are active, and the files that they bring.
//!
//! `application-<profile>.properties` beside the main file overrides it, and the environment
//! overrides both, as in Spring Boot; of several active profiles the later wins. Profiles are made
//! active by `spring.profiles.active` in the main file, the environment or `--set`, whichever
//! has the highest priority; one profile's file activates no other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Origin, Severity, quote, redact};
use crate::properties::name::{Name, variable_for};
use crate::properties::placeholder::{self, Looked};
use crate::properties::{Entry, FileText, Sourced, bind, indexed};

use super::question::Question;
use super::read::Reader;
use super::schema::{self, Placed};
use super::view::{Part, View};

const ACTIVE: &str = "spring.profiles.active";
/// The maximum number of profiles that are read.
const MOST: usize = 64;

/// Names the files of the profiles that are active beside the file `main`, which holds `text`: the
/// one that wins last, whether they are there or not.
pub fn files(main: &Path, text: &FileText, question: &Question) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    if given(question).is_none() && !may_name_profiles(text.text()) {
        return files;
    }
    for (profile, _) in active(&View::new(&[(main, text)]), question) {
        let file = file_of(main, &profile).filter(|file| !files.contains(file));
        // No system has a file with a longer name.
        files.extend(file.filter(|file| file.file_name().map_or(0, OsStr::len) <= 255));
    }
    files
}

/// Finds the main file that `file` belongs to as the file of an active profile.
pub fn main_of(file: &Path, environment: &[(String, String)]) -> Option<PathBuf> {
    let question = Question::check(environment);
    let stem = file.file_stem()?.to_str()?;
    let stems = stem.match_indices('-').filter_map(|(at, _)| stem.get(..at));
    let mut mains = stems.map(|stem| file.with_file_name(format!("{stem}.properties")));
    mains.find(|main| {
        let text = FileText::read(main).ok();
        let beside = text.map(|text| files(main, &text, &question));
        beside.is_some_and(|files| files.iter().any(|path| path == file))
    })
}

/// Reports a profile's file that tries to activate profiles, and notes the active
/// profiles without a file: that is allowed, and often a mistake.
pub fn check(reader: &mut Reader<'_>) {
    let view = reader.view;
    let document = &view.document;
    let main = document.path();
    let starts = document.file_starts();
    let read: Vec<_> = starts.map(|start| document.path_at(start)).collect();
    for (profile, at) in active(view, reader.question) {
        let file = file_of(main, &profile).filter(|file| !read.contains(&file.as_path()));
        let Some(file) = file else { continue };
        let shown = file.display().to_string();
        let message = format!(
            "profile {} is active, but `{}` does not exist",
            quote(&profile),
            shown.replace(profile.as_str(), &redact(&profile))
        );
        let found = view.about(Code::Cs0305, &at, Part::Value, message);
        let help = "create the file, correct the profile's name, or remove it from the list";
        reader.push(found.with_key(ACTIVE).with_help(help));
    }
    for (at, entry) in view.entries().iter().enumerate() {
        if document.file_of_entry(at) > 0 && as_active(entry.key()).is_some() {
            let message = "the file of a profile cannot activate a profile";
            let found = view.finding(Code::Cs0305, entry.key_span, message);
            let warning = found.with_severity(Severity::Warning).with_key(ACTIVE);
            let path = main.display();
            let help = format!("move the setting to `{path}` or to an environment variable");
            reader.push(warning.with_help(help));
        }
    }
}

/// Lists the active profiles, and where each is named: those of `--set`, else of the environment,
/// else of the main file.
fn active(view: &View, question: &Question) -> Vec<(String, Sourced)> {
    let lists = given(question).map_or_else(|| in_file(view), |given| vec![given]);
    let mut profiles = Vec::new();
    for at in lists {
        let resolved = placeholder::resolve(at.text(), &|name| look_up(view, question, name));
        let text = resolved.unwrap_or_default();
        let names = bind::list(&text).into_iter();
        profiles.extend(names.map(|name| (name.to_owned(), at.clone())));
    }
    profiles.truncate(MOST);
    profiles
}

/// Returns what overrides the file and names the active profiles.
fn given(question: &Question) -> Option<Sourced> {
    let mut sets = question.sets.iter().rev();
    if let Some((_, value)) = sets.find(|(name, _)| as_active(name).is_some()) {
        return Some(Sourced::new(value, Origin::SetOption));
    }
    let wanted = variable_for(ACTIVE);
    let mut variables = question.environment.iter();
    let (name, value) = variables.find(|(name, _)| name.eq_ignore_ascii_case(&wanted))?;
    let origin = Origin::Environment(name.as_str().into());
    Some(Sourced::new(value, origin))
}

/// Returns `true` if a text may name active profiles, in any spelling. Most do not, and are not parsed
/// for it.
fn may_name_profiles(text: &str) -> bool {
    let mut lines = text.split('\n').flat_map(|line| line.split('\r'));
    text.contains('\\') || lines.any(|line| may_be_active(line.trim_start()))
}

/// Returns `false`, at little cost, for most names that are not that of the active profiles.
fn may_be_active(name: &str) -> bool {
    let letters = name.trim_start_matches(['-', '_']);
    letters.starts_with(['s', 'S'])
}

/// Takes `name` for the list of the active profiles, or an element of it.
fn as_active(name: &str) -> Option<Placed> {
    if !may_be_active(name) {
        return None;
    }
    let placed = schema::exact(&Name::parse(name))?;
    (placed.setting.name == ACTIVE).then_some(placed)
}

/// Returns what the main file says: the last value, or the elements of a list in their order.
fn in_file(view: &View) -> Vec<Sourced> {
    let active = of_main(view)
        .filter_map(|(at, entry)| Some((as_active(entry.key())?.index, view.value(at)?)));
    let (whole, elements): (Vec<_>, Vec<_>) = active.partition(|(index, _)| index.is_none());
    if let Some((_, last)) = whole.last() {
        return vec![last.clone()];
    }
    let numbered = elements.iter();
    let values = numbered.filter_map(|(at, value)| Some((at.as_deref()?, value.clone())));
    // CS0109 reports wrong indices.
    indexed(values.collect()).unwrap_or_default()
}

/// Iterates over the entries of the main file, each with its number.
fn of_main(view: &View) -> impl Iterator<Item = (usize, &Entry)> {
    let entries = view.entries().iter().enumerate();
    entries.take_while(|(at, _)| view.document.file_of_entry(*at) == 0)
}

/// Finds what a placeholder in the list of profiles stands for: a variable, or a value of the main
/// file, but no private one.
fn look_up(view: &View, question: &Question, name: &str) -> Option<Looked> {
    let parsed = Name::parse(name);
    if schema::find(&parsed).is_private() {
        return Some(Looked::Private);
    }
    if let Some(value) = question.variable(name) {
        return Some(Looked::Text(value.to_owned()));
    }
    let named = of_main(view).filter(|(_, entry)| Name::parse(entry.key()) == parsed);
    let (_, entry) = named.last()?;
    Some(Looked::Text(entry.value().to_owned()))
}

/// Returns `application-<profile>.properties` beside `application.properties`.
fn file_of(file: &Path, profile: &str) -> Option<PathBuf> {
    let mut characters = profile.chars();
    let is_name =
        characters.all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+'));
    if profile.is_empty() || !is_name {
        return None;
    }
    let stem = file.file_stem()?.to_str()?;
    Some(file.with_file_name(format!("{stem}-{profile}.properties")))
}
