//! The files that settings are read from, and how changes of them are noticed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::parts::ReadKey;
use super::question::{Question, home_of, is_same};
use super::spring::{self, Fault};
use crate::diagnostic::Origin;
use crate::jose::Fingerprint;
use crate::properties::name::Name;
use crate::properties::{ContentDigest, Document, FileText, ReadError};
use crate::storage::revoked_keys::Remembered;

/// Where loaded settings come from, and what of it only a reload asks.
#[derive(Clone)]
pub struct Source {
    pub question: Arc<Question>,
    /// The content that they were read from.
    pub digest: Digest,
    /// The files to look at, and whether they were there.
    pub files: Vec<(PathBuf, bool)>,
    /// Every value that only a restart changes, by name.
    pub cold: BTreeMap<String, String>,
    /// The trusted keys, each with the places where it is written.
    pub keys: HashMap<Fingerprint, ReadKey>,
    /// The revoked keys that the home remembers.
    pub remembered: Remembered,
}

impl Source {
    /// Names the settings that only a restart changes and that are others than in `before`.
    pub fn differing(&self, before: &Self) -> BTreeSet<String> {
        let names = self.cold.keys().chain(before.cold.keys());
        let differing = names.filter(|name| self.cold.get(*name) != before.cold.get(*name));
        differing.cloned().collect()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold a private key.
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// The texts of a module's files, read one after the other: the main file, then what it brings in.
#[derive(Debug)]
pub struct Texts {
    /// All texts together.
    pub document: Arc<Document>,
    /// The numbers of the documents that are active, the lowest first.
    pub order: Vec<usize>,
    /// What is wrong with the switches that decide this.
    pub faults: Vec<Fault>,
    /// The files that were looked for; no text where one is not there, or is a folder.
    files: Vec<(PathBuf, Option<FileText>)>,
}

/// Identifies one content of the files.
pub type Digest = ContentDigest;

impl Texts {
    /// Reads the file at `main`, and every file that it or the environment brings in.
    ///
    /// # Errors
    ///
    /// When the main file cannot be read. What is wrong with another is a fault.
    pub fn read(main: &Path, question: &Question) -> Result<Self, ReadError> {
        Ok(Self::around(main, question.read(main)?, question))
    }

    /// Takes `text` for the content of `main`, and reads the rest.
    pub fn around(main: &Path, text: FileText, question: &Question) -> Self {
        let home = question.home.clone().unwrap_or_else(|| home_of(main));
        let tree = spring::read(main, text, &home, question);
        Self {
            document: Arc::new(tree.document),
            order: tree.order,
            faults: tree.faults,
            files: tree.files,
        }
    }

    /// Returns the files that are there with their texts, the main one first.
    pub fn texts(&self) -> Vec<(&Path, &FileText)> {
        let files = self.files.iter();
        files
            .filter_map(|(path, text)| Some((path.as_path(), text.as_ref()?)))
            .collect()
    }

    /// Returns the files to look at, and whether they are there.
    pub fn files(&self) -> Vec<(PathBuf, bool)> {
        let files = self.files.iter();
        files
            .map(|(path, text)| (path.clone(), text.is_some()))
            .collect()
    }

    /// Returns `true` if `path` is a file that the main file brings in.
    pub fn brings_in(&self, path: &Path) -> bool {
        let mut others = self.files.iter().skip(1).filter(|(_, text)| text.is_some());
        others.any(|(other, _)| is_same(other, path))
    }

    /// Finds a file that is to be read, was there for `before` and no longer exists.
    pub fn gone_since(&self, before: &Source) -> Option<PathBuf> {
        let mut gone = self.files.iter().filter(|(_, text)| text.is_none());
        let was_read = gone.find(|(path, _)| before.files.contains(&(path.clone(), true)));
        was_read.map(|(path, _)| path.clone())
    }

    /// Returns what differs where any byte or permission bit does.
    pub fn digest(&self) -> Digest {
        let mut all = Sha256::new();
        for (path, text) in self.texts() {
            all.update(Sha256::digest(path.as_os_str().as_encoded_bytes()));
            all.update(text.mode.unwrap_or_default().to_le_bytes());
            all.update(text.digest);
        }
        all.finalize().into()
    }
}

/// Returns `true` if `path` has the name of a profile's file beside `main`.
pub fn is_of_profile(main: &Path, path: &Path) -> bool {
    let [stem, name] = [main.file_stem(), path.file_stem()]
        .map(|stem| stem.and_then(|stem| stem.to_str()).unwrap_or_default());
    let rest = name.strip_prefix(stem).unwrap_or_default();
    main.parent() == path.parent() && rest.starts_with('-')
}

/// The documents of one file that are active, and the one for new settings.
#[derive(Clone, Debug, Default)]
pub struct ActiveDocuments {
    /// Their numbers in the file.
    pub numbers: Vec<usize>,
    /// The first that depends on no profile.
    pub home: Option<usize>,
}

/// Finds the active documents of the file at `path`, which holds `text`: as a main file, or in the
/// one that brings it in.
pub fn active_documents(
    path: &Path,
    text: &FileText,
    environment: &[(String, String)],
) -> ActiveDocuments {
    let main = main_of(path, environment).unwrap_or_else(|| path.to_owned());
    let question = Question {
        texts: vec![(path.to_owned(), text.clone())],
        ..Question::check(environment)
    };
    let Ok(texts) = Texts::read(&main, &question) else {
        return ActiveDocuments::default();
    };
    let mut there = texts.texts().into_iter();
    let file = there.position(|(file, _)| is_same(file, path));
    let all = file
        .map(|file| texts.document.documents_of(file))
        .unwrap_or_default();
    let active = all
        .clone()
        .filter(|document| texts.order.contains(document));
    let mut free = active
        .clone()
        .filter(|one| !spring::is_conditional(&texts.document, *one));
    let first = all.start;
    ActiveDocuments {
        home: free.next().map(|document| document.saturating_sub(first)),
        numbers: active
            .map(|document| document.saturating_sub(first))
            .collect(),
    }
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
    let read = Texts::read(main, &question)?;
    let document = &read.document;
    let active = read
        .order
        .iter()
        .rev()
        .flat_map(|one| document.entries_of(*one).rev());
    let entries: Vec<_> = active.filter_map(|at| document.entries().get(at)).collect();
    let mut by_name = HashMap::new();
    for entry in entries {
        by_name
            .entry(Name::parse(entry.key()).uniform())
            .or_insert(entry);
    }
    let mut others = wanted.iter().filter_map(|(key, value)| {
        let entry = by_name.get(&Name::parse(key).uniform())?;
        let differs = value.is_none_or(|value| value != entry.value());
        differs.then(|| (*key, document.origin(entry.key_span.start)))
    });
    Ok(others.next())
}

/// Reads the files that `main`, which holds `text`, brings in.
pub fn active_files(
    main: &Path,
    text: &FileText,
    environment: &[(String, String)],
) -> Vec<(PathBuf, FileText)> {
    let texts = Texts::around(main, text.clone(), &Question::check(environment));
    let more = texts.files.into_iter().skip(1);
    more.filter_map(|(path, text)| Some((path, text?)))
        .collect()
}

/// Finds the main file that brings in `file`, which is another one: as the file of a profile, or as an
/// import.
pub fn main_of(file: &Path, environment: &[(String, String)]) -> Option<PathBuf> {
    let question = Question::check(environment);
    let stem = file.file_stem()?.to_str()?;
    let stems = stem.match_indices('-').filter_map(|(at, _)| stem.get(..at));
    let own = stems.map(|stem| file.with_file_name(format!("{stem}.properties")));
    let mains = own.chain([file.with_file_name("application.properties")]);
    let mut others = mains.filter(|main| !is_same(main, file));
    others.find(|main| {
        let texts = Texts::read(main, &question).ok();
        texts.is_some_and(|texts| texts.brings_in(file))
    })
}

/// The metadata of a file that changes with its content; a link is followed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp(Option<(u64, Option<SystemTime>, [i128; 4])>);

impl Stamp {
    pub fn of(path: &Path) -> Self {
        let about = fs::metadata(path).ok();
        Self(about.map(|about| (about.len(), about.modified().ok(), identity(&about))))
    }
}

/// Returns which file it is, and when it changed. A writer may set the time of its change, but not this
/// one.
#[cfg(unix)]
fn identity(about: &fs::Metadata) -> [i128; 4] {
    use std::os::unix::fs::MetadataExt as _;

    [
        about.dev().into(),
        about.ino().into(),
        about.ctime().into(),
        about.ctime_nsec().into(),
    ]
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> [i128; 4] {
    [0; 4]
}
