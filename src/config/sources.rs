//! The files that settings are read from, and how changes of them are noticed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::parts::ReadKey;
use super::question::{Question, is_same};
use super::spring;
use crate::diagnostic::Origin;
use crate::jose::Fingerprint;
use crate::properties::name::Name;
use crate::properties::{ContentDigest, FileText, ReadError};
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

/// Identifies one content of the files.
pub type Digest = ContentDigest;

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

/// The metadata of a file that changes with its content; a link is followed: which file it is, its
/// size, and when it changed. A writer may set the first of the two times, but not the second.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp(Option<[i128; 7]>);

impl Stamp {
    pub fn of(path: &Path) -> Self {
        let about = fs::metadata(path).ok();
        Self(about.map(|about| {
            [
                about.dev().into(),
                about.ino().into(),
                about.len().into(),
                about.mtime().into(),
                about.mtime_nsec().into(),
                about.ctime().into(),
                about.ctime_nsec().into(),
            ]
        }))
    }
}
