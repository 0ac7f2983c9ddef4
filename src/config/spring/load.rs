//! The documents that count, in the order in which Spring Boot puts them on top of each other.
//!
//! As Spring's `ConfigDataEnvironment` does it: first everything that depends on no profile, then
//! the profiles that this makes active, then what depends on them. A document that imports others
//! stands below what it imports.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{iter, mem};

use super::files::{self, Location, Target, Texts};
use super::switches::{
    ACTIVE, ADDITIONAL, DEFAULT, Expression, Fault, GROUP, IMPORT, INCLUDE, LEGACY, LOCATION, NAME,
    ON_CLOUD, ON_PROFILE, PROFILES, Switches, application_json,
};
use crate::config::question::{Question, home_of};
use crate::diagnostic::{Code, Origin, quote};
use crate::properties::{Document, FileText, ReadError, Sourced, bind};

/// Profiles, each with the place that names it.
pub(super) type Profiles = Vec<(String, Sourced)>;

/// The last entry of each name: of the active documents, and of the others.
pub(super) type Names = [HashMap<String, usize>; 2];

const MOST_FILES: usize = 1024;
const MOST_BYTES: usize = 16 * 1024 * 1024;
const MOST_IMPORTS: usize = 256;
const TOO_MUCH: &str = "the imports go beyond 256, or 1024 files, or 16 MiB";
const REFUSED: &str = "countersign would ignore what it sets; put the settings into the module's file, or into a file that `spring.config.import` names";

/// A document, the values of a configuration tree, or a place that only imports.
#[derive(Default)]
pub(super) struct Part {
    pub(super) documents: Range<usize>,
    pub(super) switches: Switches,
    /// The profiles that it depends on; `None` without a condition.
    pub(super) conditions: Option<Vec<Expression>>,
    pub(super) is_active: bool,
    /// What it imports is not loaded yet.
    imports: Vec<(Location, Sourced)>,
    is_loaded: bool,
    /// How many imports lead to it. What a part imports follows it in the list, up to the next part
    /// that is no deeper.
    depth: usize,
    /// Whether it is the file of a profile, and not lifted above others yet.
    is_specific: bool,
}

pub(super) struct Loader<'q> {
    pub(super) question: &'q Question,
    pub(super) home: PathBuf,
    pub(super) document: Document,
    pub(super) files: Vec<(PathBuf, Option<FileText>)>,
    /// Those of them that are the main file's, for a profile.
    of_profiles: Vec<PathBuf>,
    pub(super) faults: Vec<Fault>,
    /// The lowest first.
    pub(super) parts: Vec<Part>,
    /// Where the next parts come in, and how many imports lead to them.
    next: usize,
    depth: usize,
    /// The files and folders that were read, links followed.
    seen: HashSet<PathBuf>,
    /// The active profiles, once they are known.
    pub(super) active: Option<Profiles>,
    pub(super) names: OnceCell<Names>,
}

/// Reads the file at `main`, and every file that it or the environment brings in.
///
/// # Errors
///
/// When the main file cannot be read. What is wrong with another is a fault.
pub fn read(main: &Path, question: &Question) -> Result<Texts, ReadError> {
    Ok(read_around(main, question.read(main)?, question))
}

/// Takes `text` for the content of `main`, and reads the rest.
pub fn read_around(main: &Path, text: FileText, question: &Question) -> Texts {
    let mut loader = Loader {
        question,
        home: question.home.clone().unwrap_or_else(|| home_of(main)),
        document: Document::of([]),
        files: Vec::new(),
        of_profiles: Vec::new(),
        faults: Vec::from_iter(application_json(question)),
        parts: Vec::new(),
        next: 1,
        depth: 1,
        seen: HashSet::from([canonical(main)]),
        active: None,
        names: OnceCell::new(),
    };
    let given = [
        Switches::of_options(question),
        Switches::of_environment(question),
    ];
    for switches in &given {
        loader.unsupported(switches, &[LOCATION, ADDITIONAL, NAME]);
    }
    let imports = given.iter().find_map(|switches| switches.list(IMPORT));
    let others = loader.locations(imports, &(0..0), None);
    let start = (Location::file(main), Sourced::new("", Origin::Default));
    loader
        .parts
        .extend([start].into_iter().chain(others).map(|import| Part {
            imports: vec![import],
            is_active: true,
            ..Part::default()
        }));
    if let Some(start) = loader.parts.first_mut() {
        start.is_loaded = true;
    }
    loader.add(main, text, false);
    loader.imports();
    loader.active = Some(loader.profiles(given));
    loader.activate();
    loader.imports();
    loader.without_file(main);
    let active = loader.parts.iter().filter(|part| part.is_active);
    Texts {
        order: active.flat_map(|part| part.documents.clone()).collect(),
        document: Arc::new(loader.document),
        files: loader.files,
        of_profiles: loader.of_profiles,
        faults: loader.faults,
    }
}

impl Loader<'_> {
    pub(super) fn fault(&mut self, code: Code, at: &Sourced, message: String, help: &'static str) {
        self.faults.push(Fault {
            code,
            at: at.clone(),
            message,
            help,
        });
    }

    /// Reports a source that Spring would apply and countersign does not.
    pub(super) fn refuse(&mut self, at: &Sourced, message: String) {
        self.fault(Code::Cs0112, at, message, REFUSED);
    }

    /// Reports switches that are not applied, or not where they stand.
    fn unsupported(&mut self, given: &Switches, names: &[&str]) {
        for (name, at) in given.any(names) {
            let mut all = bind::list(at.text()).into_iter();
            match name {
                LEGACY if bind::switch(at.text()) != Ok(true) => {}
                LOCATION | ADDITIONAL if all.all(|one| one.starts_with("optional:")) => {
                    let message = format!("`{name}` is not applied: its locations are optional");
                    let help = "remove it; countersign reads one file and its imports";
                    self.fault(Code::Cs0305, &at, message, help);
                }
                ACTIVE | INCLUDE | DEFAULT | GROUP => {
                    let setting = at.setting().unwrap_or_default();
                    let message =
                        format!("`{setting}` stands in a document that depends on a profile");
                    let help = "move it to a document that is always active, or to a variable";
                    self.fault(Code::Cs0306, &at, message, help);
                }
                _ => self.refuse(&at, format!("countersign does not apply `{name}`")),
            }
        }
    }

    /// Appends a file, and puts its documents in their place.
    fn add(&mut self, path: &Path, text: FileText, is_specific: bool) {
        let file = self.document.file_starts().count();
        self.document.append(path, text.text());
        self.files.push((path.to_owned(), Some(text)));
        let documents = self.document.documents_of(file);
        let each = documents.map(|one| one..one.saturating_add(1));
        self.put(each.collect(), is_specific, Some(path));
    }

    /// Puts parts of the file `path` in their place, and reads their switches.
    fn put(&mut self, documents: Vec<Range<usize>>, is_specific: bool, path: Option<&Path>) {
        let new = self.next..self.next.saturating_add(documents.len());
        let read = documents.into_iter().map(|documents| {
            let entries = documents
                .clone()
                .flat_map(|one| self.document.entries_of(one));
            let switches = Switches::of_document(&self.document, entries);
            Part {
                documents,
                is_active: switches.any(&[ON_PROFILE, ON_CLOUD]).is_empty(),
                switches,
                depth: self.depth,
                is_specific,
                ..Part::default()
            }
        });
        let parts: Vec<_> = read.collect();
        self.parts.splice(self.next..self.next, parts);
        self.names = OnceCell::new();
        for number in new {
            let Some(part) = self.parts.get_mut(number) else {
                continue;
            };
            let (documents, switches) = (part.documents.clone(), mem::take(&mut part.switches));
            self.unsupported(&switches, &[ON_CLOUD, PROFILES, LEGACY]);
            let read = self.expressions(switches.list(ON_PROFILE), &documents);
            let conditions = read.or_else(|| switches.list(ON_CLOUD).map(|_| Vec::new()));
            if conditions.is_some() || self.active.is_some() {
                self.unsupported(&switches, &[ACTIVE, INCLUDE, DEFAULT, GROUP]);
            }
            let imports = self.locations(switches.list(IMPORT), &documents, path);
            let is_active = self.holds(conditions.as_deref());
            if let Some(part) = self.parts.get_mut(number) {
                (part.conditions, part.imports, part.switches) = (conditions, imports, switches);
                part.is_active = is_active;
            }
        }
        self.names = OnceCell::new();
    }

    fn holds(&self, conditions: Option<&[Expression]>) -> bool {
        let Some(conditions) = conditions else {
            return true;
        };
        let profiles = self.active.as_deref().unwrap_or_default();
        self.active.is_some()
            && conditions
                .iter()
                .any(|one| one.matches(&|name| profiles.iter().any(|(known, _)| known == name)))
    }

    /// Makes active what depends on the profiles, now that they are known, and has everything
    /// imported once more: for the files of profiles.
    fn activate(&mut self) {
        let mut parts = mem::take(&mut self.parts);
        for part in &mut parts {
            part.is_active = self.holds(part.conditions.as_deref());
            part.is_loaded = false;
        }
        self.parts = parts;
        self.names = OnceCell::new();
    }

    /// Loads what active documents import, the highest first, until nothing is left.
    fn imports(&mut self) {
        for _ in 0..=MOST_IMPORTS {
            let mut parts = self.parts.iter_mut().enumerate().rev();
            let next = parts
                .find(|(_, part)| part.is_active && !part.is_loaded && !part.imports.is_empty());
            let Some((at, part)) = next else { return };
            part.is_loaded = true;
            let (imports, depth) = (part.imports.clone(), part.depth);
            let own = self.end(at);
            (self.next, self.depth) = (own, depth.saturating_add(1));
            for (location, at) in imports.iter().rev() {
                self.import(location, at);
            }
            self.lift(at, own, depth);
        }
        self.refuse(&Sourced::new("", Origin::Default), TOO_MUCH.to_owned());
    }

    /// Returns the number of the next part after `at` that is no import of it.
    fn end(&self, at: usize) -> usize {
        let mut parts = self.parts.iter().skip(at);
        let depth = parts.next().map_or(0, |part| part.depth);
        let below = parts.take_while(|part| part.depth > depth).count();
        at.saturating_add(1).saturating_add(below)
    }

    /// Puts the profiles' files of what `at` imports above those that it has itself from `own` on,
    /// as Spring does: by one import at a time.
    fn lift(&mut self, at: usize, own: usize, depth: usize) {
        let child = depth.saturating_add(2);
        let below: Vec<_> = self.parts.drain(at.saturating_add(1)..own).collect();
        let mut is_lifted = false;
        let (mut lifted, kept): (Vec<_>, Vec<_>) = below.into_iter().partition(|part| {
            if part.depth <= child {
                is_lifted = part.depth == child && part.is_specific;
            }
            is_lifted
        });
        for part in &mut lifted {
            // Once only.
            part.is_specific &= part.depth > child;
            part.depth = part.depth.saturating_sub(1);
        }
        let first = at.saturating_add(1);
        self.parts.splice(first..first, kept);
        let end = self.end(at);
        self.parts.splice(end..end, lifted);
    }

    /// Loads what an import names, and the files of the active profiles beside it.
    fn import(&mut self, location: &Location, at: &Sourced) {
        let optional = location.optional;
        let text = quote(at.text());
        match &location.target {
            Target::File(path) | Target::Bare(path) => {
                for (profile, _) in self.active.clone().iter().flatten().rev() {
                    // No system has a file with a longer name.
                    let file = location
                        .for_profile(profile)
                        .filter(|file| file.file_name().is_some_and(|name| name.len() <= 255));
                    if let Some(file) = file {
                        self.file(&file, at, true, true);
                    }
                }
                self.file(path, at, optional, false);
            }
            Target::Tree(path) => self.tree(path, at, optional),
            Target::Trees(path) => {
                self.files.push((path.clone(), None));
                let folders = files::folders(path).unwrap_or_else(|error| {
                    self.unlisted(path, at, optional, &error);
                    Vec::new()
                });
                for folder in folders.iter().rev() {
                    self.tree(folder, at, true);
                }
            }
            Target::Unread(path) if optional && !path.exists() => {}
            Target::Unknown if optional => {
                let message = format!("{text} is not imported: it is optional");
                let help = "remove it if nothing in it matters here";
                self.fault(Code::Cs0305, at, message, help);
            }
            Target::Unread(_) | Target::Unknown => {
                self.refuse(at, format!("countersign cannot import {text}"));
            }
        }
    }

    fn missing(&mut self, path: &Path, at: &Sourced) {
        let message = format!("`{}` is imported, but does not exist", path.display());
        let help = "create it, correct the path, or write `optional:` before it";
        self.fault(Code::Cs0112, at, message, help);
    }

    /// Reports that the folder `path` cannot be listed. Only one that does not exist may be
    /// missing.
    fn unlisted(&mut self, path: &Path, at: &Sourced, optional: bool, error: &io::Error) {
        if error.kind() != ErrorKind::NotFound {
            let shown = path.display();
            let message = format!("`{shown}` is imported, but cannot be read: {error}");
            self.refuse(at, message);
        } else if !optional {
            self.missing(path, at);
        }
    }

    /// Loads the file at `path` once.
    fn file(&mut self, path: &Path, at: &Sourced, optional: bool, is_specific: bool) {
        if !self.seen.insert(canonical(path)) {
            return;
        }
        match self.question.read_if_there(path) {
            Ok(Some(text)) if self.has_room(&text) => {
                if *at.origin() == Origin::Default {
                    self.of_profiles.push(path.to_owned());
                }
                return self.add(path, text, is_specific);
            }
            Ok(Some(_)) => self.refuse(at, TOO_MUCH.to_owned()),
            Ok(None) if optional => {}
            Ok(None) => self.missing(path, at),
            Err(error) => self.refuse(at, error.to_string()),
        }
        self.files.push((path.to_owned(), None));
    }

    fn has_room(&self, text: &FileText) -> bool {
        let bytes = self.document.text().len().saturating_add(text.text().len());
        self.document.file_starts().count() < MOST_FILES && bytes <= MOST_BYTES
    }

    /// Loads the values of the configuration tree at `path` once.
    fn tree(&mut self, path: &Path, at: &Sourced, optional: bool) {
        if !self.seen.insert(canonical(path)) {
            return;
        }
        self.files.push((path.to_owned(), None));
        let files = match files::list(path, MOST_FILES) {
            Ok(files) => files,
            Err(error) => return self.unlisted(path, at, optional, &error),
        };
        let start = self.document.documents_of(usize::MAX).end;
        for (key, file) in files {
            match FileText::read(&file) {
                Ok(text) if self.has_room(&text) => {
                    self.document.append_value(&file, &key, text.text());
                    self.files.push((file, Some(text)));
                }
                Ok(_) => self.refuse(at, TOO_MUCH.to_owned()),
                Err(error) => self.refuse(at, error.to_string()),
            }
        }
        let end = self.document.documents_of(usize::MAX).end;
        self.put(iter::once(start..end).collect(), false, None);
    }
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
