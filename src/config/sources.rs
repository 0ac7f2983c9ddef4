//! The files that settings are read from, and how changes of them are noticed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::parts::ReadKey;
use super::profiles;
use super::question::Question;
use crate::jose::Fingerprint;
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

/// The texts of a module's files, read one after the other: the main file, then those of the active
/// profiles; no text where a file is not there.
#[derive(Debug)]
pub struct Texts(Vec<(PathBuf, Option<FileText>)>);

/// Identifies one content of the files.
pub type Digest = ContentDigest;

impl Texts {
    /// Reads the file at `main`, and those of the profiles that are active there.
    ///
    /// # Errors
    ///
    /// When the main file is missing, or one that is there cannot be read.
    pub fn read(main: &Path, question: &Question) -> Result<Self, ReadError> {
        Self::around(main, FileText::read(main)?, question)
    }

    /// Takes `text` for the content of `main`, and reads the rest.
    pub fn around(main: &Path, text: FileText, question: &Question) -> Result<Self, ReadError> {
        let more = profiles::files(main, &text, question);
        let mut files = vec![(main.to_owned(), Some(text))];
        for file in more {
            let read = FileText::read_if_there(&file)?;
            files.push((file, read));
        }
        Ok(Self(files))
    }

    /// Returns the files that are there with their texts, the main one first.
    pub fn texts(&self) -> Vec<(&Path, &FileText)> {
        let files = self.0.iter();
        files
            .filter_map(|(path, text)| Some((path.as_path(), text.as_ref()?)))
            .collect()
    }

    /// Returns the files to look at, and whether they are there.
    pub fn files(&self) -> Vec<(PathBuf, bool)> {
        let files = self.0.iter();
        files
            .map(|(path, text)| (path.clone(), text.is_some()))
            .collect()
    }

    /// Finds the file of a profile that is active, was read for `before` and no longer exists.
    pub fn gone_since(&self, before: &Source) -> Option<PathBuf> {
        let mut gone = self.0.iter().filter(|(_, text)| text.is_none());
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
    let texts = Texts::around(main, text.clone(), &Question::check(environment))?;
    let more = texts.0.into_iter().skip(1);
    let there = more.filter_map(|(path, text)| Some((path, text?)));
    Ok(there.collect())
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
