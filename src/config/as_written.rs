//! What a module's files say as they are written, and which parts of them are active, for
//! procedures that change a file.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::question::{Question, is_same};
use super::schema::{self, Placed, TlsEnd};
use super::spring;
use crate::properties::name::{Name, uniform};
use crate::properties::{Document, Entry, FileText, ReadError};

/// The settings of a module's files, found by their canonical names whatever their spelling and
/// whatever else may be wrong with the file.
///
/// This is the reader for code that edits files: it returns entries with the names as they are
/// written. Placeholders are not resolved, the environment is not read, and no value is checked;
/// that is what [`Settings::load`](super::Settings::load) does.
#[derive(Debug)]
pub struct AsWritten {
    document: Arc<Document>,
    /// The documents that are read.
    active: BTreeSet<usize>,
    /// The files of active profiles.
    of_profiles: Vec<PathBuf>,
    /// The settings, the lowest first, each with the number of its entry.
    settings: Vec<(usize, Placed)>,
    /// The numbers in `settings` of what is set below each path, in the form in which spellings
    /// agree.
    below: HashMap<Vec<String>, Vec<usize>>,
}

impl AsWritten {
    /// Reads all documents of `text`, the content of `path`.
    pub fn parse(path: &Path, text: &str) -> Self {
        let document = Document::parse(path, text);
        let all: Vec<_> = document.documents_of(0).collect();
        Self::of(document.into(), &all, Vec::new())
    }

    /// Reads what a module reads: the active documents of the file at `main` and of those that it
    /// brings in, where files hold `texts`.
    ///
    /// # Errors
    ///
    /// When `main` is not in `texts` and cannot be read.
    pub fn of_module(
        main: &Path,
        texts: &[(PathBuf, FileText)],
        environment: &[(String, String)],
    ) -> Result<Self, ReadError> {
        let question = Question {
            texts: texts.to_owned(),
            ..Question::check(environment)
        };
        let read = spring::read(main, &question)?;
        Ok(Self::of(read.document, &read.order, read.of_profiles))
    }

    fn of(document: Arc<Document>, order: &[usize], of_profiles: Vec<PathBuf>) -> Self {
        let mut settings = Vec::new();
        let mut below: HashMap<_, Vec<_>> = HashMap::new();
        for at in order.iter().flat_map(|one| document.entries_of(*one)) {
            let entry = document.entries().get(at);
            let Some(placed) = entry.and_then(|entry| schema::exact(&Name::parse(entry.key())))
            else {
                continue;
            };
            let path: Vec<_> = placed.path.iter().map(|segment| uniform(segment)).collect();
            for length in 1..=path.len() {
                let above = path.iter().take(length).cloned().collect();
                below.entry(above).or_default().push(settings.len());
            }
            settings.push((at, placed));
        }
        Self {
            document,
            active: order.iter().copied().collect(),
            of_profiles,
            settings,
            below,
        }
    }

    /// Returns the files that may be changed: the main file and those of active profiles.
    pub fn own_files(&self) -> impl Iterator<Item = &Path> {
        let main = self.document.path();
        iter::once(main).chain(self.of_profiles.iter().map(|of| &**of))
    }

    /// Returns the file of `entry`, and whether that may be changed: the main file, or the file of
    /// an active profile. An import may belong to others.
    pub fn file_of(&self, entry: &Entry) -> (&Path, bool) {
        let path = self.document.path_at(entry.key_span.start);
        let is_own = self.own_files().any(|own| own == path);
        (path, is_own)
    }

    /// Finds the active documents of the file at `path`: their numbers in that file, and the first
    /// that depends on no profile, the one for new settings.
    pub fn documents_in(&self, path: &Path) -> (BTreeSet<usize>, Option<usize>) {
        let starts = self.document.file_starts();
        let mut files = starts.map(|start| is_same(self.document.path_at(start), path));
        let file = files.position(|is_meant| is_meant);
        let all = file.map_or(0..0, |file| self.document.documents_of(file));
        let active = self.active.range(all.clone());
        let mut free = active.clone();
        let home = free.find(|document| !spring::is_conditional(&self.document, **document));
        let first = home.map(|document| document.saturating_sub(all.start));
        let numbers = active.map(|document| document.saturating_sub(all.start));
        (numbers.collect(), first)
    }

    /// Returns the files as entries, with their syntax errors.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Returns `true` if a document is read.
    pub fn reads(&self, document: usize) -> bool {
        self.active.contains(&document)
    }

    /// Returns the entries with names of ours that are read, the lowest first.
    pub fn active_entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        let all = self.settings.iter();
        all.filter_map(|(at, _)| self.document.entries().get(*at))
    }

    /// Returns the entry that decides `setting`, the last one; `keys` replace its names in angle
    /// brackets.
    ///
    /// An entry that holds one element of a list is not the setting: see [`all`](Self::all).
    pub fn get(&self, setting: &str, keys: &[&str]) -> Option<&Entry> {
        let mut whole = self.all(setting, keys).filter(|(index, _)| index.is_none());
        whole.next_back().map(|(_, entry)| entry)
    }

    /// Returns the value that decides `setting`, without the blanks around it.
    pub fn text(&self, setting: &str, keys: &[&str]) -> Option<&str> {
        Some(self.get(setting, keys)?.value().trim())
    }

    /// Returns every entry of `setting` in the document that decides it, each with the index in its
    /// name: a list replaces those of lower documents.
    pub fn all(
        &self,
        setting: &str,
        keys: &[&str],
    ) -> impl DoubleEndedIterator<Item = (Option<&str>, &Entry)> {
        let depth = setting.split('.').count();
        let below = self.below(setting, keys);
        let settings: Vec<_> = below
            .filter(|(_, placed)| placed.path.len() == depth)
            .map(|(at, placed)| (self.document.document_of_entry(*at), at, placed))
            .collect();
        let last = settings.last().map(|(document, ..)| *document);
        let decide = settings
            .into_iter()
            .filter(move |(document, ..)| Some(*document) == last);
        decide.filter_map(|(_, at, placed)| {
            let entry = self.document.entries().get(*at)?;
            Some((placed.index.as_deref(), entry))
        })
    }

    /// Returns the names below `path`, such as those of the deployments, each as it is written
    /// first.
    pub fn names(&self, path: &str, keys: &[&str]) -> Vec<&str> {
        let depth = path.split('.').count();
        let mut seen = HashSet::new();
        let below = self.below(path, keys);
        let names = below.filter_map(|(_, placed)| placed.path.get(depth).map(|name| &**name));
        names.filter(|name| seen.insert(uniform(name))).collect()
    }

    /// Returns what is set at or below `path`.
    fn below(
        &self,
        path: &str,
        keys: &[&str],
    ) -> impl DoubleEndedIterator<Item = &(usize, Placed)> {
        let path: Vec<_> = schema::path(path, keys).into_iter().map(uniform).collect();
        let below = self.below.get(&path).into_iter().flatten();
        below.filter_map(|at| self.settings.get(*at))
    }

    /// Returns the entry that decides `property` for `end`: the most specific one that is not
    /// empty.
    pub fn tls(&self, end: TlsEnd<'_>, property: &str) -> Option<&Entry> {
        end.settings(property).find_map(|setting| {
            let entry = self.get(&setting, &[end.key()])?;
            (!entry.value().trim().is_empty()).then_some(entry)
        })
    }
}

/// Finds the main file that brings in `file`, which is another one: as the file of a profile, or as
/// an import.
pub fn main_of(file: &Path, environment: &[(String, String)]) -> Option<PathBuf> {
    let question = Question::check(environment);
    let stem = file.file_stem()?.to_str()?;
    let stems = stem.match_indices('-').filter_map(|(at, _)| stem.get(..at));
    let own = stems.map(|stem| file.with_file_name(format!("{stem}.properties")));
    let mains = own.chain([file.with_file_name("application.properties")]);
    let mut others = mains.filter(|main| !is_same(main, file));
    others.find(|main| {
        let texts = spring::read(main, &question).ok();
        texts.is_some_and(|texts| texts.brings_in(file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: &str = "ataccama.one.platform.deployments.<name>.security.roles";

    fn read(text: &str) -> AsWritten {
        AsWritten::parse(Path::new("application.properties"), text)
    }

    #[test]
    fn names_are_listed_once_as_they_are_written_first() {
        let file = read(
            "ataccama.one.platform.deployments.dpe-Dev.module=dpe\n\
             ataccama.one.platform.deployments.DPE_DEV.environment=dev\n\
             ataccama.one.platform.deployments.mmm.module=mmm\n",
        );

        let names = file.names("ataccama.one.platform.deployments", &[]);

        assert_eq!(names, ["dpe-Dev", "mmm"]);
        let environment = "ataccama.one.platform.deployments.<name>.environment";
        assert_eq!(file.get(environment, &["dpedev"]).unwrap().value(), "dev");
    }

    #[test]
    fn settings_are_found_whatever_their_spelling() {
        let file = read("countersign.deployment.NAME=dpm-dev\nataccama.server.tls.on=true\n");

        let name = file.get("countersign.deployment.name", &[]).unwrap();
        let on = file.tls(TlsEnd::Server, "enabled").unwrap();

        let found = (name.key(), name.value());
        assert_eq!(found, ("countersign.deployment.NAME", "dpm-dev"));
        assert_eq!(on.key(), "ataccama.server.tls.on");
    }

    #[test]
    fn elements_of_a_list_come_with_their_indices() {
        let file = read(
            "ataccama.one.platform.deployments.a.security.roles[1]=B\n\
             ataccama.one.platform.deployments.a.security.roles=A\n",
        );

        let all: Vec<_> = file
            .all(ROLES, &["a"])
            .map(|(i, e)| (i, e.value()))
            .collect();

        assert_eq!(all, [(Some("1"), "B"), (None, "A")]);
        assert_eq!(file.get(ROLES, &["a"]).unwrap().value(), "A");
    }

    #[test]
    fn last_entry_decides_and_an_empty_tls_property_falls_back() {
        let file = read(
            "ataccama.client.tls.cert-chain=a.pem\ncountersign.deployment.name=one\n\
             ataccama.client.connection.dpm.tls.cert-chain= \n\
             countersign.deployment.name=two\n",
        );

        let chain = file.tls(TlsEnd::Client("dpm"), "cert-chain").unwrap();

        assert_eq!(chain.value(), "a.pem");
        assert_eq!(
            file.get("countersign.deployment.name", &[])
                .unwrap()
                .value(),
            "two"
        );
        assert_eq!(
            TlsEnd::Client("dpm").setting("enabled"),
            "ataccama.client.connection.dpm.grpc.tls.enabled"
        );
    }
}
