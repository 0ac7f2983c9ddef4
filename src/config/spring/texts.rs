//! The texts of a module's files: the main file, then what it brings in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::switches::Fault;
use crate::config::question::is_same;
use crate::properties::{ContentDigest, Document, FileText};

/// The texts of a module's files, read one after the other.
#[derive(Debug)]
pub struct Texts {
    /// All texts together.
    pub document: Arc<Document>,
    /// The numbers of the documents that are active, the lowest first.
    pub order: Vec<usize>,
    /// What is wrong with the switches that decide this.
    pub faults: Vec<Fault>,
    /// The files that were looked for; no text where one is not there, or is a folder. Those with a
    /// text are the files of `document`, in its order.
    pub(super) files: Vec<(PathBuf, Option<FileText>)>,
    /// Those of them that are the main file's, for an active profile.
    pub of_profiles: Vec<PathBuf>,
}

impl Texts {
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
        let mut others = self.texts().into_iter().skip(1);
        others.any(|(other, _)| is_same(other, path))
    }

    /// Finds a file that is to be read, was there among the files `before` and no longer exists.
    pub fn gone_since(&self, before: &[(PathBuf, bool)]) -> Option<PathBuf> {
        let files = self.files().into_iter();
        let mut gone = files
            .filter(|(_, is_there)| !is_there)
            .map(|(path, _)| path);
        gone.find(|path| before.contains(&(path.clone(), true)))
    }

    /// Returns what differs where any byte or permission bit does, or a file cannot be read.
    pub fn digest(&self) -> ContentDigest {
        let mut all = Sha256::new();
        for (path, text) in self.texts() {
            all.update(Sha256::digest(path.as_os_str().as_encoded_bytes()));
            all.update(text.mode.unwrap_or_default().to_le_bytes());
            all.update(text.digest);
        }
        for fault in &self.faults {
            all.update(&fault.message);
        }
        all.finalize().into()
    }
}
