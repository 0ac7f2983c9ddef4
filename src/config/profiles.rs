//! Spring's profiles: which are active, and the files that they bring.
//!
//! `application-<profile>.properties` beside the main file stands above it and below the
//! environment, as in Spring Boot; of several active profiles the later wins. Profiles are made
//! active by `spring.profiles.active` in the main file, the environment or `--set`, whichever
//! stands highest; one profile's file activates no other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Origin, Severity, quote, redact};
use crate::properties::name::{Name, variable_for};
use crate::properties::placeholder::{self, Looked};
use crate::properties::{Document, Entry, FileText, ReadError, ReadFault, Sourced, bind, indexed};

use super::read::Reader;
use super::schema::{self, Known, Placed};
use super::view::{Part, View, finding};

const ACTIVE: &str = "spring.profiles.active";

/// What stands above a main file and says which profiles are active.
#[derive(Clone, Copy, Debug)]
pub(super) struct Above<'a> {
    pub(super) environment: &'a [(String, String)],
    pub(super) sets: &'a [(String, String)],
}

/// Names the files of the profiles that are active beside the file `main`, which holds `text`: the
/// one that wins last, whether they are there or not.
pub(super) fn files(main: &Path, text: &FileText, above: Above<'_>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    if above.given().is_none() && !may_name_profiles(text.text()) {
        return files;
    }
    let document = Document::parse(main, text.text());
    for (profile, _) in active(&document, above).iter().take(MOST) {
        let file = file_of(main, profile).filter(|file| !files.contains(file));
        // No system has a file with a longer name.
        let length = |file: &PathBuf| file.file_name().map_or(0, OsStr::len);
        if let Some(file) = file.filter(|file| length(file) <= 255) {
            files.push(file);
        }
    }
    files
}

/// Reads the files of the profiles that are active beside `main`, which holds `text`: those that are
/// there, the one that wins last.
///
/// # Errors
///
/// When one is there and cannot be read.
pub fn active_files(
    main: &Path,
    text: &FileText,
    environment: &[(String, String)],
) -> Result<Vec<(PathBuf, FileText)>, ReadError> {
    let sets = &[];
    read(&files(main, text, Above { environment, sets }))
}

/// Finds the main file that `file` belongs to as the file of an active profile.
pub fn main_of(file: &Path, environment: &[(String, String)]) -> Option<PathBuf> {
    let sets = &[];
    let above = Above { environment, sets };
    let stem = file.file_stem()?.to_str()?;
    let stems = stem.match_indices('-').filter_map(|(at, _)| stem.get(..at));
    let mut mains = stems.map(|stem| file.with_file_name(format!("{stem}.properties")));
    mains.find(|main| {
        let text = FileText::read(main);
        text.is_ok_and(|text| files(main, &text, above).iter().any(|path| path == file))
    })
}

/// Reads those of `files` that are there.
///
/// # Errors
///
/// When one is there and cannot be read.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<(PathBuf, FileText)>, ReadError> {
    let mut texts = Vec::new();
    for file in files {
        match FileText::read(file) {
            Ok(text) => texts.push((file.clone(), text)),
            Err(error) if matches!(error.fault(), ReadFault::Missing) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(texts)
}

/// Reports where a profile's file would make profiles active, which it cannot, and notes the active
/// profiles without a file.
pub(super) fn check(reader: &mut Reader<'_>, above: Above<'_>) {
    let view = reader.view();
    absent(reader, view, above);
    for (at, entry) in view.entries().iter().enumerate() {
        if view.document().file_of_entry(at) > 0 && is_active(entry.key()) {
            let at = at_entry(view.document(), at, entry);
            let message = "the file of a profile makes no profile active";
            let found = finding(view, Code::Cs0305, &at, Part::Name, message);
            let main = view.document().path().display();
            let help = format!("write it into `{main}`, or set it as an environment variable");
            let found = found.with_severity(Severity::Warning).with_key(ACTIVE);
            reader.push(found.with_help(help));
        }
    }
}

/// Notes the active profiles whose file is not there: that is allowed, and often a mistake.
fn absent(reader: &mut Reader<'_>, view: &View, above: Above<'_>) {
    let document = view.document();
    let starts = document.file_starts();
    let read: Vec<_> = starts.map(|start| document.path_at(start)).collect();
    for (profile, at) in active(document, above).iter().take(MOST) {
        let file = file_of(document.path(), profile);
        let Some(file) = file.filter(|file| !read.contains(&file.as_path())) else {
            continue;
        };
        let file = file.display().to_string();
        let file = file.replace(profile.as_str(), &redact(profile));
        let profile = quote(profile);
        let message = format!("profile {profile} is active and `{file}` is not there");
        let found = finding(view, Code::Cs0305, at, Part::Value, message).with_key(ACTIVE);
        let help = "write that file, correct the profile's name, or take it from the list";
        reader.push(found.with_help(help));
    }
}

/// Lists the active profiles, and where each is named: those of `--set`, else of the environment,
/// else of the main file.
fn active(document: &Document, above: Above<'_>) -> Vec<(String, Sourced)> {
    let given = match above.given() {
        Some(given) => vec![given],
        None => in_file(document),
    };
    let look_up = |name: &str| look_up(document, above.environment, name);
    let mut profiles = Vec::new();
    for given in given {
        let text = placeholder::resolve(given.text(), &look_up).unwrap_or_default();
        let names = bind::list(&text).into_iter();
        profiles.extend(names.map(|name| (name.to_owned(), given.clone())));
    }
    profiles
}

impl Above<'_> {
    /// Returns what stands above the file and names the active profiles.
    fn given(self) -> Option<Sourced> {
        let mut sets = self.sets.iter().rev();
        if let Some((_, value)) = sets.find(|(name, _)| is_active(name)) {
            return Some(Sourced::new(value, Origin::SetOption));
        }
        let wanted = variable_for(ACTIVE);
        let mut variables = self.environment.iter();
        let (name, value) = variables.find(|(name, _)| name.eq_ignore_ascii_case(&wanted))?;
        Some(Sourced::new(
            value,
            Origin::Environment(name.as_str().into()),
        ))
    }
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
    match schema::find(&Name::parse(name)) {
        Known::Setting(placed) if placed.setting.name() == ACTIVE => Some(placed),
        _ => None,
    }
}

fn is_active(name: &str) -> bool {
    as_active(name).is_some()
}

/// Returns what the main file says: the last value, or the elements of a list in their order.
fn in_file(document: &Document) -> Vec<Sourced> {
    let mut elements = Vec::new();
    let mut last = None;
    for (at, entry) in document.entries().iter().enumerate() {
        if document.file_of_entry(at) > 0 {
            break;
        }
        match as_active(entry.key()).map(|placed| placed.index) {
            Some(Some(index)) => elements.push((index, at_entry(document, at, entry))),
            Some(None) => last = Some(at_entry(document, at, entry)),
            None => {}
        }
    }
    let elements = elements.iter();
    let elements = elements.map(|(index, value)| (index.as_str(), value.clone()));
    match last {
        Some(value) => vec![value],
        // Where the indices are wrong, that is CS0109.
        None => indexed(elements.collect()).unwrap_or_default(),
    }
}

fn at_entry(document: &Document, at: usize, entry: &Entry) -> Sourced {
    let origin = document.origin(entry.value_span().start);
    Sourced::new(entry.value(), origin).with_entry(at)
}

/// Finds what a placeholder in the list of profiles stands for: a variable, or a value of the main
/// file, but no private one.
fn look_up(document: &Document, environment: &[(String, String)], name: &str) -> Option<Looked> {
    let parsed = Name::parse(name);
    if matches!(schema::find(&parsed), Known::Setting(placed) if placed.setting.is_private()) {
        return Some(Looked::Private);
    }
    let variable = variable_for(name);
    let named = |(other, _): &&(String, String)| other == name || *other == variable;
    if let Some((_, value)) = environment.iter().find(named) {
        return Some(Looked::Text(value.clone()));
    }
    let entries = document.entries().iter().enumerate().rev();
    let mut entries = entries.filter(|(at, _)| document.file_of_entry(*at) == 0);
    let is_named = |entry: &Entry| Name::parse(entry.key()) == parsed;
    let (_, entry) = entries.find(|(_, entry)| is_named(entry))?;
    Some(Looked::Text(entry.value().to_owned()))
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

/// The most profiles that are read.
const MOST: usize = 64;
