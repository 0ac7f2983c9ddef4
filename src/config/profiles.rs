//! Spring's profiles: which are active, and the files that they bring.
//!
//! `application-<profile>.properties` beside the main file stands above it and below the
//! environment, as in Spring Boot; of several active profiles the later wins. Profiles are made
//! active by `spring.profiles.active` in the main file, the environment or `--set`, whichever
//! stands highest; one profile's file activates no other.

use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Origin, Severity, quote};
use crate::properties::name::{Name, variable_for};
use crate::properties::placeholder::{self, Looked};
use crate::properties::{Document, FileText, ReadError, ReadFault, Sourced, bind, indexed};

use super::read::Reader;
use super::schema::{self, Known};
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
    for profile in active(text, above).iter().take(MOST) {
        if let Some(file) = file_of(main, profile).filter(|file| !files.contains(file)) {
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
pub(super) fn check(reader: &mut Reader<'_>) {
    let Some(view) = reader.view() else {
        return;
    };
    absent(reader, view);
    for (at, entry) in view.entries().iter().enumerate() {
        if view.document().file_of_entry(at) == 0 || !is_active(entry.key()) {
            continue;
        }
        let origin = view.document().origin(entry.value_span().start);
        let value = Sourced::new(entry.value(), origin).with_entry(at);
        let message = "the file of a profile makes no profile active";
        let found = finding(Some(view), Code::Cs0305, &value, Part::Name, message);
        reader.findings.push(
            found
                .with_severity(Severity::Warning)
                .with_key(ACTIVE)
                .with_help(format!(
                    "write it into `{}`, or set it as an environment variable",
                    view.document().path().display()
                )),
        );
    }
}

/// Notes the active profiles whose file is not there: that is allowed, and often a mistake.
fn absent(reader: &mut Reader<'_>, view: &View) {
    let document = view.document();
    let starts = document.file_starts();
    let read: Vec<_> = starts.map(|start| document.path_at(start)).collect();
    for (profile, at) in listed(reader).iter().take(MOST) {
        let file = file_of(document.path(), profile);
        let Some(file) = file.filter(|file| !read.contains(&file.as_path())) else {
            continue;
        };
        let (profile, file) = (quote(profile), file.display());
        let message = format!("profile {profile} is active and `{file}` is not there");
        let found = finding(Some(view), Code::Cs0305, at, Part::Value, message);
        reader.findings.push(
            found
                .with_key(ACTIVE)
                .with_help("write that file, correct the profile's name, or take it from the list"),
        );
    }
}

/// Lists the active profiles and where each is named: for `check` a variable is in no layer.
fn listed(reader: &mut Reader<'_>) -> Vec<(String, Sourced)> {
    let mut values = reader.list(ACTIVE, &[]);
    let file_of = |value: &Sourced| {
        let entry = value.entry()?;
        Some(reader.view()?.document().file_of_entry(entry))
    };
    let variable = variable_for(ACTIVE);
    let set = reader.resolve(&format!("${{{variable}:}}"));
    if let Some(set) = set.filter(|set| !set.is_empty())
        && values.iter().all(|value| file_of(value).is_some())
    {
        let origin = Origin::Environment(variable.into());
        values = vec![Sourced::new(&set, origin)];
    }
    // The file of a profile activates none.
    values.retain(|value| file_of(value).is_none_or(|file| file == 0));
    let listed = values.iter().flat_map(|value| {
        let profiles = bind::list(value.text()).into_iter();
        profiles.map(|profile| (profile.to_owned(), value.clone()))
    });
    listed.collect()
}

/// Lists the active profiles: those of `--set`, else of the environment, else of the file.
fn active(text: &FileText, above: Above<'_>) -> Vec<String> {
    let Above { environment, sets } = above;
    let set = sets.iter().rev().find(|(name, _)| is_active(name));
    let variable = variable_for(ACTIVE);
    let mut variables = environment.iter();
    let variable = variables.find(|(name, _)| name.eq_ignore_ascii_case(&variable));
    let word = text.text().contains("profiles");
    if set.is_none() && variable.is_none() && !word {
        return Vec::new();
    }
    let document = Document::parse(Path::new(""), text.text());
    let given = match set.or(variable) {
        Some((_, value)) => vec![value.as_str()],
        None => in_file(&document),
    };
    let look_up = |name: &str| look_up(&document, environment, name);
    let resolved = |value: &str| placeholder::resolve(value, &look_up).ok();
    let texts: Vec<_> = given.into_iter().filter_map(resolved).collect();
    let profiles = texts.iter().flat_map(|text| bind::list(text));
    profiles.map(str::to_owned).collect()
}

fn is_active(name: &str) -> bool {
    matches!(schema::find(&Name::parse(name)), Known::Setting(placed) if placed.setting.name() == ACTIVE)
}

/// Returns what the file says: the last value, or the elements of a list in their order.
fn in_file(document: &Document) -> Vec<&str> {
    let mut elements = Vec::new();
    let mut last = None;
    for entry in document.entries() {
        match schema::find(&Name::parse(entry.key())) {
            Known::Setting(placed) if placed.setting.name() == ACTIVE => match placed.index {
                Some(index) => elements.push((index, entry.value())),
                None => last = Some(entry.value()),
            },
            _ => {}
        }
    }
    let elements = elements
        .iter()
        .map(|(index, value)| (index.as_str(), *value));
    match last {
        Some(value) => vec![value],
        // Where the indices are wrong, that is CS0109.
        None => indexed(elements.collect()).unwrap_or_default(),
    }
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
    let mut entries = document.entries().iter().rev();
    let entry = entries.find(|entry| Name::parse(entry.key()).uniform() == parsed.uniform())?;
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

/// More profiles than anybody activates.
const MOST: usize = 64;
