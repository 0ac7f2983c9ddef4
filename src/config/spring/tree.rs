//! The documents that count, in the order in which Spring Boot puts them on top of each other.
//!
//! As Spring's `ConfigDataEnvironment` does it: first everything that depends on no profile, then the
//! profiles that this makes active, then what depends on them. A document that imports others stands
//! below what it imports.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::expression::Expression;
use super::location::{Location, Target};
use super::switches::{
    ADDITIONAL, Fault, IMPORT, LEGACY, LOCATION, NAME, ON_CLOUD, ON_PROFILE, PROFILES, Switches,
};
use super::{json, values};
use crate::config::question::Question;
use crate::diagnostic::{Code, Origin, quote};
use crate::properties::{Document, FileText, Sourced, bind};

/// Every document of the files, and which of them count.
#[derive(Debug)]
pub struct Tree {
    pub document: Document,
    /// The files that were looked for, with their texts where they are there. Those with a text are the
    /// files of `document`, in its order.
    pub files: Vec<(PathBuf, Option<FileText>)>,
    /// The numbers of the active documents, the lowest first.
    pub order: Vec<usize>,
    pub faults: Vec<Fault>,
}

const MOST_FILES: usize = 1024;
const MOST_BYTES: usize = 16 * 1024 * 1024;
const MOST_IMPORTS: usize = 256;
const TOO_MUCH: &str = "the imports go beyond 256, or 1024 files, or 16 MiB";
const REFUSED: &str = "countersign would pass over what it says; put the settings into the module's file, or into one that `spring.config.import` names";

/// A document, the values of a configuration tree, or a place that only imports.
#[derive(Default)]
pub(super) struct Node {
    pub(super) documents: Range<usize>,
    pub(super) imports: Vec<(Location, Sourced)>,
    /// `None` without a condition.
    pub(super) on_profile: Option<Vec<Expression>>,
    /// Whether it is the file of a profile, and not lifted above others yet.
    pub(super) is_specific: bool,
    /// Whether it was loaded when the profiles were known.
    pub(super) is_late: bool,
    pub(super) switches: Switches,
    /// What it imports, the highest first.
    pub(super) before: Option<Vec<usize>>,
    pub(super) after: Option<Vec<usize>>,
}

pub(super) struct Loader<'q> {
    pub(super) question: &'q Question,
    pub(super) home: PathBuf,
    pub(super) document: Document,
    pub(super) files: Vec<(PathBuf, Option<FileText>)>,
    pub(super) faults: Vec<Fault>,
    pub(super) nodes: Vec<Node>,
    /// The places where it all begins, the highest first.
    pub(super) roots: Vec<usize>,
    /// The files and folders that were read, links followed.
    pub(super) seen: HashSet<PathBuf>,
    /// The active profiles, once they are known.
    pub(super) active: Option<Profiles>,
    pub(super) names: OnceCell<Names>,
}

/// Profiles, each with the place that names it.
pub(super) type Profiles = Vec<(String, Sourced)>;

/// The last entry of each name, and whether its document is active.
pub(super) type Names = HashMap<String, (usize, bool)>;

/// Reads everything that the environment and the file `main` bring in, which holds `text`.
pub fn read(main: &Path, text: FileText, home: &Path, question: &Question) -> Tree {
    let mut loader = Loader {
        question,
        home: home.to_owned(),
        document: Document::of([]),
        files: Vec::new(),
        faults: Vec::new(),
        nodes: Vec::new(),
        roots: Vec::new(),
        seen: HashSet::new(),
        active: None,
        names: OnceCell::new(),
    };
    let options = Switches::of_options(question);
    let variables = Switches::of_environment(question);
    loader.faults.extend(json::check(question));
    loader.unsupported(&options);
    loader.unsupported(&variables);
    let given = options.list(IMPORT).or_else(|| variables.list(IMPORT));
    let mut starts = loader.locations(&given.unwrap_or_default(), 0..0, None);
    starts.reverse();
    starts.push((Location::file(main), Sourced::new("", Origin::Default)));
    loader.roots = (0..starts.len()).collect();
    loader.nodes.extend(starts.into_iter().map(|import| Node {
        imports: vec![import],
        ..Node::default()
    }));
    let root = loader.nodes.len().saturating_sub(1);
    loader.seen.insert(canonical(main));
    let documents = loader.add(main, text, false);
    if let Some(root) = loader.nodes.get_mut(root) {
        root.before = Some(documents);
    }
    loader.imports();
    loader.active = Some(loader.profiles(&options, &variables));
    loader.names = OnceCell::new();
    loader.imports();
    loader.misplaced();
    loader.without_file(main);
    let active = loader.active_in_order(&loader.roots);
    let nodes = active.iter().rev().filter_map(|id| loader.nodes.get(*id));
    Tree {
        order: nodes.flat_map(|node| node.documents.clone()).collect(),
        document: loader.document,
        files: loader.files,
        faults: loader.faults,
    }
}

impl Loader<'_> {
    pub(super) fn fault(&mut self, code: Code, at: &Sourced, message: String, help: &'static str) {
        self.faults.push(Fault {
            code,
            severity: code.severity(),
            at: at.clone(),
            message,
            help,
        });
    }

    /// Reports a source that Spring would apply.
    pub(super) fn refuse(&mut self, at: &Sourced, message: String) {
        self.fault(Code::Cs0112, at, message, REFUSED);
    }

    /// Reports what would make Spring read other files.
    fn unsupported(&mut self, given: &Switches) {
        let places = [LOCATION, ADDITIONAL, NAME];
        let found: Vec<_> = given
            .any(&places)
            .map(|(name, at)| (name, at.clone()))
            .collect();
        for (name, at) in found {
            let mut all = bind::list(at.text()).into_iter();
            if name != NAME && all.all(|one| one.starts_with("optional:")) {
                let message = format!("`{name}` is not applied: its locations are optional");
                self.fault(
                    Code::Cs0305,
                    &at,
                    message,
                    "remove it; countersign reads one file and its imports",
                );
            } else {
                self.refuse(&at, format!("Spring Boot reads other files with `{name}`"));
            }
        }
    }

    /// Appends a file; returns its documents, the highest first.
    fn add(&mut self, path: &Path, text: FileText, is_specific: bool) -> Vec<usize> {
        let file = self.document.file_starts().count();
        self.document.append(path, text.text());
        self.files.push((path.to_owned(), Some(text)));
        let documents = self.document.documents_of(file);
        let first = self.nodes.len();
        for document in documents {
            self.push(document..document.saturating_add(1), is_specific);
        }
        self.bind(first, Some(path));
        (first..self.nodes.len()).rev().collect()
    }

    /// Adds a node for `documents`, which has a condition if they have one.
    fn push(&mut self, documents: Range<usize>, is_specific: bool) {
        let entries = documents.clone().map(|one| self.document.entries_of(one));
        let bounds = entries.fold(None, |whole: Option<Range<usize>>, next| {
            Some(whole.map_or(next.start, |whole| whole.start)..next.end)
        });
        let switches = Switches::of_document(&self.document, bounds.unwrap_or_default());
        let is_conditional = switches.any(&[ON_PROFILE, ON_CLOUD]).next().is_some();
        self.nodes.push(Node {
            documents,
            on_profile: is_conditional.then(Vec::new),
            is_specific,
            is_late: self.active.is_some(),
            switches,
            ..Node::default()
        });
        self.names = OnceCell::new();
    }

    /// Reads the switches of the nodes from `first` on.
    fn bind(&mut self, first: usize, path: Option<&Path>) {
        for id in first..self.nodes.len() {
            let Some(node) = self.nodes.get(id).filter(|node| !node.switches.is_empty()) else {
                continue;
            };
            let documents = node.documents.clone();
            let conditions = node.switches.list(ON_PROFILE).unwrap_or_default();
            let imports = node.switches.list(IMPORT).unwrap_or_default();
            let others = [ON_CLOUD, PROFILES, LEGACY];
            let refused = node
                .switches
                .any(&others)
                .map(|(name, at)| (name, at.clone()));
            let refused: Vec<_> = refused.collect();
            let is_on_cloud = refused.iter().any(|(name, _)| *name == ON_CLOUD);
            for (name, at) in refused {
                if name != LEGACY || bind::switch(at.text()) == Ok(true) {
                    self.refuse(&at, format!("countersign does not apply `{name}`"));
                }
            }
            let expressions = self.expressions(&conditions, documents.clone());
            let locations = self.locations(&imports, documents, path);
            if let Some(node) = self.nodes.get_mut(id) {
                node.on_profile = expressions.or_else(|| is_on_cloud.then(Vec::new));
                node.imports = locations;
            }
        }
        self.names = OnceCell::new();
    }

    pub(super) fn is_active(&self, node: &Node) -> bool {
        let Some(conditions) = &node.on_profile else {
            return true;
        };
        let profiles = self.active.as_deref().unwrap_or_default();
        self.active.is_some()
            && conditions
                .iter()
                .any(|one| one.matches(&|name| profiles.iter().any(|(known, _)| known == name)))
    }

    /// Lists the active nodes below `ids`, the highest first.
    pub(super) fn active_in_order(&self, ids: &[usize]) -> Vec<usize> {
        let mut found = Vec::new();
        for id in ids {
            let Some(node) = self.nodes.get(*id) else {
                continue;
            };
            for children in [&node.after, &node.before].into_iter().flatten() {
                found.extend(self.active_in_order(children));
            }
            if self.is_active(node) {
                found.push(*id);
            }
        }
        found
    }

    /// Loads what active documents import, until nothing is left: before the profiles are known, and
    /// again once they are.
    fn imports(&mut self) {
        let is_late = self.active.is_some();
        for _ in 0..MOST_IMPORTS {
            let mut active = self.active_in_order(&self.roots).into_iter();
            let next = active.find(|id| {
                self.nodes.get(*id).is_some_and(|node| {
                    let done = if is_late { &node.after } else { &node.before };
                    done.is_none() && !node.imports.is_empty()
                })
            });
            let Some(next) = next else { return };
            let children = self.import(next);
            if let Some(node) = self.nodes.get_mut(next) {
                let place = if is_late {
                    &mut node.after
                } else {
                    &mut node.before
                };
                *place = Some(children);
            }
            self.lift(next);
        }
        self.refuse(&Sourced::new("", Origin::Default), TOO_MUCH.to_owned());
    }

    /// Loads what the node imports; returns the nodes of that, the highest first.
    fn import(&mut self, id: usize) -> Vec<usize> {
        let imports = self.nodes.get(id).map(|node| node.imports.clone());
        let profiles = self.active.clone().unwrap_or_default();
        let mut children = Vec::new();
        for (location, at) in imports.iter().flatten().rev() {
            for (profile, _) in profiles.iter().rev() {
                // No system has a file with a longer name.
                let file = location
                    .for_profile(profile)
                    .filter(|file| file.file_name().is_some_and(|name| name.len() <= 255));
                if let Some(file) = file {
                    children.extend(self.file(&file, at, true, true));
                }
            }
            children.extend(self.load(location, at));
        }
        children
    }

    /// Puts the profiles' files of what `id` imports above its own, as Spring does.
    fn lift(&mut self, id: usize) {
        let imported = self.nodes.get(id).and_then(|node| node.before.clone());
        let mut lifted = Vec::new();
        for child in imported.unwrap_or_default() {
            let after = self.nodes.get(child).and_then(|child| child.after.clone());
            let (specific, kept): (Vec<_>, Vec<_>) = after
                .unwrap_or_default()
                .into_iter()
                .partition(|id| self.nodes.get(*id).is_some_and(|node| node.is_specific));
            for id in &specific {
                // Once only.
                self.nodes
                    .get_mut(*id)
                    .into_iter()
                    .for_each(|node| node.is_specific = false);
            }
            if let Some(child) = self.nodes.get_mut(child).filter(|_| !specific.is_empty()) {
                child.after = Some(kept);
            }
            lifted.extend(specific);
        }
        if let Some(node) = self.nodes.get_mut(id).filter(|_| !lifted.is_empty()) {
            lifted.extend(node.after.take().unwrap_or_default());
            node.after = Some(lifted);
        }
    }

    /// Loads what an import names; returns the nodes of that, the highest first.
    fn load(&mut self, location: &Location, at: &Sourced) -> Vec<usize> {
        let optional = location.optional;
        let text = quote(at.text());
        match &location.target {
            Target::File(path, _) => return self.file(path, at, optional, false),
            Target::Tree(path) => return self.tree(path, at, optional),
            Target::Trees(path) => {
                self.files.push((path.clone(), None));
                let folders = values::folders(path).unwrap_or_else(|error| {
                    self.unlisted(path, at, optional, &error);
                    Vec::new()
                });
                return folders
                    .into_iter()
                    .rev()
                    .flat_map(|folder| self.tree(&folder, at, true))
                    .collect();
            }
            Target::Unread(path) if optional && !path.exists() => {}
            Target::Unknown if optional => {
                let message = format!("{text} is not imported: it is optional");
                self.fault(
                    Code::Cs0305,
                    at,
                    message,
                    "remove it if nothing in it matters here",
                );
            }
            Target::Unread(_) | Target::Unknown => {
                self.refuse(at, format!("countersign cannot import {text}"));
            }
        }
        Vec::new()
    }

    fn missing(&mut self, path: &Path, at: &Sourced) {
        let message = format!("`{}` is imported, but does not exist", path.display());
        let help = "create it, correct the path, or write `optional:` before it";
        self.fault(Code::Cs0112, at, message, help);
    }

    /// Reports that the folder `path` cannot be listed. Only one that does not exist may be missing.
    fn unlisted(&mut self, path: &Path, at: &Sourced, optional: bool, error: &io::Error) {
        if error.kind() != ErrorKind::NotFound {
            let message = format!(
                "`{}` is imported, but cannot be read: {error}",
                path.display()
            );
            self.refuse(at, message);
        } else if !optional {
            self.missing(path, at);
        }
    }

    /// Loads the file at `path` once.
    fn file(&mut self, path: &Path, at: &Sourced, optional: bool, is_specific: bool) -> Vec<usize> {
        if !self.seen.insert(canonical(path)) {
            return Vec::new();
        }
        match self.question.read_if_there(path) {
            Ok(Some(text)) if self.has_room(&text) => return self.add(path, text, is_specific),
            Ok(Some(_)) => self.refuse(at, TOO_MUCH.to_owned()),
            Ok(None) if optional => {}
            Ok(None) => self.missing(path, at),
            Err(error) => self.refuse(at, error.to_string()),
        }
        self.files.push((path.to_owned(), None));
        Vec::new()
    }

    fn has_room(&self, text: &FileText) -> bool {
        let bytes = self.document.text().len().saturating_add(text.text().len());
        self.document.file_starts().count() < MOST_FILES && bytes <= MOST_BYTES
    }

    /// Loads the values of the configuration tree at `path` once.
    fn tree(&mut self, path: &Path, at: &Sourced, optional: bool) -> Vec<usize> {
        if !self.seen.insert(canonical(path)) {
            return Vec::new();
        }
        self.files.push((path.to_owned(), None));
        let start = self.document.documents_of(usize::MAX).end;
        match values::list(path, MOST_FILES) {
            Err(error) => {
                self.unlisted(path, at, optional, &error);
                return Vec::new();
            }
            Ok(files) => {
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
            }
        }
        let node = self.nodes.len();
        let end = self.document.documents_of(usize::MAX).end;
        self.push(start..end, false);
        self.bind(node, None);
        vec![node]
    }
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
