//! What a procedure changes: planned and shown first, then written whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use super::edited::EditedFile;
use super::error::{Refused, WriteError};
use super::write::{FolderLock, Privacy, Staged, commit_all, folder_of, follow, sweep};
use crate::config;
use crate::diagnostic::Findings;
use crate::secret::Secret;

/// What would change in some files.
#[derive(Debug, Default)]
pub struct Change {
    /// In the order in which they are written.
    files: Vec<EditedFile>,
    /// One of the files with a part of its new text, which is written before the rest.
    first: Option<EditedFile>,
    new_files: Vec<NewFile>,
    findings: Findings,
}

/// A file that a change makes, and that its settings name.
#[derive(Clone, Debug)]
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) text: Secret<String>,
    pub(super) privacy: Privacy,
}

impl NewFile {
    pub(super) fn new(path: PathBuf, text: String, privacy: Privacy) -> Self {
        let text = Secret::new(text);
        Self {
            path,
            text,
            privacy,
        }
    }
}

impl Change {
    /// Plans to write `files`, without a look at what they would say.
    pub(super) fn of(files: Vec<EditedFile>) -> Self {
        Self {
            files,
            ..Self::default()
        }
    }

    /// Plans to write `new_files`, `first` and `files`, and checks the new texts as if they were the
    /// files.
    pub(super) fn checked(
        files: Vec<EditedFile>,
        first: Option<EditedFile>,
        new_files: Vec<NewFile>,
    ) -> Result<Self, Refused> {
        let mut texts = Vec::new();
        for file in &files {
            texts.push((file.path().to_owned(), file.after()?));
        }
        let made: Vec<_> = new_files.iter().map(|file| file.path.clone()).collect();
        let report = config::check_texts(&texts, &config::environment(), &made)?;
        Ok(Self {
            files,
            first,
            new_files,
            findings: report.findings,
        })
    }

    /// Returns the files, in the order in which they are written.
    pub fn files(&self) -> &[EditedFile] {
        &self.files
    }

    /// Returns what `check` finds in the files as they will be; nothing where they were not checked.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Returns `true` if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.files.iter().all(EditedFile::is_empty)
    }

    /// Writes the files in their order, or none of them where one cannot be written.
    ///
    /// What an earlier run left behind when it was killed is removed, also where nothing is to be
    /// written.
    ///
    /// # Errors
    ///
    /// When a file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses.
    pub fn carry_out(&self) -> Result<(), WriteError> {
        let mut folders = Vec::new();
        for file in &self.files {
            let target = follow(file.path())?;
            let folder = folder_of(&target);
            if !file.is_empty() {
                fs::create_dir_all(folder).map_err(WriteError::io(folder))?;
            }
            if let Ok(folder) = fs::canonicalize(folder) {
                folders.push(folder);
            }
        }
        folders.sort();
        folders.dedup();
        let locks = folders
            .iter()
            .map(|folder| FolderLock::acquire(&folder.join("x")));
        let _locks: Vec<_> = match locks.collect::<Result<_, _>>() {
            // Another process is at work, and there is nothing to write.
            Err(WriteError::Busy(_)) if self.is_empty() => return Ok(()),
            locks => locks?,
        };
        for folder in &folders {
            sweep(folder);
        }
        let mut edited = Vec::new();
        for file in self.first.iter().chain(&self.files) {
            edited.extend(file.staged()?);
        }
        let mut staged = self.staged_new_files()?;
        staged.extend(edited);
        commit_all(staged)
    }

    /// Stages the new files, the last one first: a certificate comes after its key. None of them may
    /// have come up since the plan was made.
    fn staged_new_files(&self) -> Result<Vec<Staged>, WriteError> {
        if let Some(file) = self.new_files.iter().find(|file| is_there(&file.path)) {
            return Err(WriteError::Exists(file.path.clone()));
        }
        let files = self.new_files.iter().rev();
        files
            .map(|file| Staged::new(&file.path, file.text.expose().as_bytes(), file.privacy))
            .collect()
    }
}

/// Returns `true` if there is something at `path`, a link without an end too.
pub(super) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
