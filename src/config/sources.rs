//! The files that settings are read from, and how changes of them are noticed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::profiles::{self, Above};
use super::question::ModuleKind;
use crate::diagnostic::Origin;
use crate::jose::Fingerprint;
use crate::properties::{Encoding, FileText, ReadError, Sourced};

/// How settings are loaded: what stands above and below the files, the same for the life of a
/// process.
pub(super) struct Asked {
    pub(super) kind: ModuleKind,
    pub(super) environment: Vec<(String, String)>,
    pub(super) sets: Vec<(String, String)>,
}

/// Where loaded settings come from, and what of it only a reload asks.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) asked: Arc<Asked>,
    /// The content that they were read from.
    pub(super) digest: Digest,
    /// The files to look at, whether they are there or not.
    pub(super) paths: Vec<PathBuf>,
    /// Those of them that were.
    pub(super) read: Vec<PathBuf>,
    /// Every value that only a restart changes, by name.
    pub(super) cold: BTreeMap<String, String>,
    /// The value that decides whether a key is revoked, as written.
    pub(super) revoked_at: HashMap<Fingerprint, Sourced>,
}

impl Source {
    /// Returns the position of `origin` among what was read, the lowest first: its file, or above all
    /// files; `None` if its file was not read.
    pub(super) fn rank(&self, origin: &Origin) -> Option<usize> {
        match origin {
            Origin::File { path, .. } => self.read.iter().position(|read| **read == **path),
            _ => Some(usize::MAX),
        }
    }

    /// Names the settings that only a restart changes and that are others than in `before`.
    pub(super) fn differing(&self, before: &Self) -> BTreeSet<String> {
        let names = self.cold.keys().chain(before.cold.keys());
        names
            .filter(|name| self.cold.get(*name) != before.cold.get(*name))
            .cloned()
            .collect()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold a private key.
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// The texts of a module's files, read one after the other: the main file, then those of the active
/// profiles that are there.
#[derive(Debug)]
pub(super) struct Texts {
    files: Vec<(PathBuf, FileText)>,
    paths: Vec<PathBuf>,
    digest: Digest,
}

/// Identifies one content of the files.
pub(super) type Digest = [u8; 32];

impl Texts {
    /// Reads the file at `main`, and those of the profiles that are active there.
    ///
    /// # Errors
    ///
    /// When the main file is missing, or one that is there cannot be read.
    pub(super) fn read(main: &Path, asked: &Asked) -> Result<Self, ReadError> {
        Self::around(main, FileText::read(main)?, asked)
    }

    /// Takes `text` for the content of `main`, and reads the rest.
    pub(super) fn around(main: &Path, text: FileText, asked: &Asked) -> Result<Self, ReadError> {
        let above = Above {
            environment: &asked.environment,
            sets: &asked.sets,
        };
        let profiles = profiles::files(main, &text, above);
        let mut files = vec![(main.to_owned(), text)];
        files.extend(profiles::read(&profiles)?);
        let mut paths = vec![main.to_owned()];
        paths.extend(profiles);
        Ok(Self {
            digest: digest(&files),
            files,
            paths,
        })
    }

    /// Returns the files with their texts, the main one first.
    pub(super) fn files(&self) -> Vec<(&Path, &FileText)> {
        let files = self.files.iter();
        files.map(|(path, text)| (path.as_path(), text)).collect()
    }

    /// Names the files to look at, those of active profiles that are not there included.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Finds the file of a profile that is active, was read for `before` and is not there any more.
    pub(super) fn gone_since<'a>(&'a self, before: &Source) -> Option<&'a Path> {
        let is_there = |path: &&PathBuf| self.files.iter().any(|(file, _)| file == *path);
        let mut active = self.paths.iter();
        let gone = active.find(|path| before.read.contains(path) && !is_there(path));
        gone.map(PathBuf::as_path)
    }

    /// Returns what differs where any byte or permission bit does.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }
}

fn digest(files: &[(PathBuf, FileText)]) -> Digest {
    let mut all = Sha256::new();
    for (path, text) in files {
        all.update(Sha256::digest(path.as_os_str().as_encoded_bytes()));
        add(&mut all, text);
    }
    all.finalize().into()
}

fn add(all: &mut Sha256, text: &FileText) {
    let latin1 = text.encoding() == Encoding::Latin1;
    all.update([u8::from(latin1), u8::from(text.has_mark())]);
    all.update(text.mode().unwrap_or_default().to_le_bytes());
    all.update(Sha256::digest(text.text().as_bytes()));
}

/// Returns what stands for a file that cannot be read, for one cause.
pub(super) fn digest_of_error(error: &ReadError) -> Digest {
    Sha256::digest(error.to_string().as_bytes()).into()
}

/// The metadata of a file that changes with its content; a link is followed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stamp(Option<[i128; 5]>);

impl Stamp {
    #[cfg(unix)]
    pub(super) fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;

        let about = fs::metadata(path).ok();
        Self(about.map(|about| {
            let nanos =
                |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            [
                about.dev().into(),
                about.ino().into(),
                about.len().into(),
                nanos(about.mtime(), about.mtime_nsec()),
                // A writer may set the time of its change, but not this one.
                nanos(about.ctime(), about.ctime_nsec()),
            ]
        }))
    }

    #[cfg(not(unix))]
    pub(super) fn of(path: &Path) -> Self {
        let about = fs::metadata(path).ok();
        Self(about.map(|about| {
            let changed = about.modified().ok();
            let since = changed.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            let nanos = since.and_then(|since| i128::try_from(since.as_nanos()).ok());
            [0, 0, about.len().into(), nanos.unwrap_or_default(), 0]
        }))
    }
}
