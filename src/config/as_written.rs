//! What a module's files say as they are written, and which parts of them are active, for
//! procedures that change a file.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::question::{Question, is_same};
use super::schema::{self, Placed, TlsEnd};
use super::spring;
use crate::diagnostic::Origin;
use crate::properties::name::{Name, uniform};
use crate::properties::{Document, Entry, FileText, ReadError};

/// The settings of a file, found by their canonical names whatever their spelling and
/// whatever else may be wrong with the file.
///
/// This is the reader for code that edits files: it returns entries with the names as they are
/// written. Placeholders are not resolved, the environment is not read, and no value is checked;
/// that is what [`Settings::load`](super::Settings::load) does.
#[derive(Debug)]
pub struct AsWritten {
    document: Document,
    /// The documents that are read, if not all are.
    active: Option<BTreeSet<usize>>,
    /// The settings in the order of their entries, each with the number of its entry.
    settings: Vec<(usize, Placed)>,
    /// The numbers in `settings` of what is set below each path, in the form in which spellings
    /// agree.
    below: HashMap<Vec<String>, Vec<usize>>,
}

impl AsWritten {
    /// Reads `text`, the content of `path`.
    pub fn parse(path: &Path, text: &str) -> Self {
        Self::of(path, text, None)
    }

    /// Reads the `active` documents of `text`, the content of `path`.
    pub fn active(path: &Path, text: &str, active: BTreeSet<usize>) -> Self {
        Self::of(path, text, Some(active))
    }

    fn of(path: &Path, text: &str, active: Option<BTreeSet<usize>>) -> Self {
        let mut read = Self {
            document: Document::parse(path, text),
            active,
            settings: Vec::new(),
            below: HashMap::new(),
        };
        for (at, entry) in read.document.entries().iter().enumerate() {
            let document = read.document.document_of_entry(at);
            let placed = schema::exact(&Name::parse(entry.key()));
            let Some(placed) = placed.filter(|_| read.reads(document)) else {
                continue;
            };
            let path: Vec<_> = placed.path.iter().map(|segment| uniform(segment)).collect();
            for length in 1..=path.len() {
                let above = path.iter().take(length).cloned().collect();
                let below = read.below.entry(above).or_default();
                below.push(read.settings.len());
            }
            read.settings.push((at, placed));
        }
        read
    }

    /// Returns the file as entries, with its syntax errors.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Returns `true` if a document is read.
    pub fn reads(&self, document: usize) -> bool {
        self.active
            .as_ref()
            .is_none_or(|active| active.contains(&document))
    }

    /// Returns the entries with names of ours that are read.
    pub fn active_entries(&self) -> impl Iterator<Item = &Entry> {
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

    /// Returns every entry of `setting` in the order of the file, each with the index in its name.
    pub fn all(
        &self,
        setting: &str,
        keys: &[&str],
    ) -> impl DoubleEndedIterator<Item = (Option<&str>, &Entry)> {
        let depth = setting.split('.').count();
        let below = self.below(setting, keys);
        let settings = below.filter(move |(_, placed)| placed.path.len() == depth);
        settings.filter_map(|(entry, placed)| {
            let entry = self.document.entries().get(*entry)?;
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

/// Finds the active documents of the file at `path`, which holds `text`: as a main file, or in the
/// one that brings it in. Returns their numbers in the file, and the first that depends on no
/// profile, the one for new settings.
pub fn active_documents(
    path: &Path,
    text: &FileText,
    environment: &[(String, String)],
) -> (BTreeSet<usize>, Option<usize>) {
    let main = main_of(path, environment).unwrap_or_else(|| path.to_owned());
    let question = Question {
        texts: vec![(path.to_owned(), text.clone())],
        ..Question::check(environment)
    };
    let Ok(texts) = spring::read(&main, &question) else {
        return (BTreeSet::new(), None);
    };
    let mut there = texts.texts().into_iter();
    let file = there.position(|(file, _)| is_same(file, path));
    let all = file
        .map(|file| texts.document.documents_of(file))
        .unwrap_or_default();
    let active: BTreeSet<_> = texts.order.iter().filter(|one| all.contains(one)).collect();
    let mut free = active.iter().copied();
    let home = free.find(|document| !spring::is_conditional(&texts.document, **document));
    let numbers = active
        .iter()
        .map(|document| document.saturating_sub(all.start));
    let first = home.map(|document| document.saturating_sub(all.start));
    (numbers.collect(), first)
}

/// Finds a setting of `wanted` that would not have its value, or would still be there, if the files
/// held `texts`: returns its name and the place that decides.
pub fn overruled<'w>(
    main: &Path,
    texts: &[(PathBuf, FileText)],
    environment: &[(String, String)],
    wanted: &[(&'w str, Option<&str>)],
) -> Result<Option<(&'w str, Origin)>, ReadError> {
    let question = Question {
        texts: texts.to_owned(),
        ..Question::check(environment)
    };
    let read = spring::read(main, &question)?;
    let document = &read.document;
    let by_name = document.last_of_names(read.order.iter().copied());
    let mut others = wanted.iter().filter_map(|(key, value)| {
        let at = by_name.get(&Name::parse(key).uniform())?;
        let entry = document.entries().get(*at)?;
        let differs = value.is_none_or(|value| value != entry.value());
        differs.then(|| (*key, document.origin(entry.key_span.start)))
    });
    Ok(others.next())
}

/// Reads the files that `main`, which holds `text`, brings in, each with whether it is the main
/// file's for an active profile and no import.
pub fn active_files(
    main: &Path,
    text: &FileText,
    environment: &[(String, String)],
) -> Vec<(PathBuf, FileText, bool)> {
    let texts = spring::read_around(main, text.clone(), &Question::check(environment));
    let more = texts.texts().into_iter().skip(1);
    more.map(|(path, text)| {
        let is_of_profile = texts.of_profiles.iter().any(|of| of == path);
        (path.to_owned(), text.clone(), is_of_profile)
    })
    .collect()
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
