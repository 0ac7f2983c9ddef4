//! `check --fix`: repairs that verify, shown before they are written, all files or none.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::WriteError;
use super::write::{FolderLock, Privacy, Staged, commit_all, folder_of, follow};
use crate::config::{self, CheckError, Mended, Repair, Report};
use crate::properties::FileText;

/// What would be repaired in some files, and what `check` says of them afterwards.
#[derive(Debug)]
pub struct Mending {
    files: Vec<(PathBuf, FileText, Option<Mended>)>,
    report: Report,
}

/// The repairs of one file.
#[derive(Debug)]
pub struct MendedFile<'a> {
    /// The file.
    pub path: &'a PathBuf,
    /// Its repairs, in the order of the lines.
    pub repairs: &'a [Repair],
}

impl Mending {
    /// Plans the repairs of `files`.
    ///
    /// A file whose repairs leave it with more errors than it had is left alone.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn plan(files: &[PathBuf], environment: &[(String, String)]) -> Result<Self, CheckError> {
        let mut planned = Vec::new();
        for path in files {
            let text = FileText::read(path)?;
            let mended = config::mend(path, &text);
            let mended = match mended {
                Some(mended) if is_better(path, &text, &mended, environment)? => Some(mended),
                _ => None,
            };
            planned.push((path.clone(), text, mended));
        }
        let mut after = Vec::new();
        for (path, text, mended) in &planned {
            let mended = mended.as_ref();
            let text = mended.map_or_else(|| text.clone(), |mended| text.edited(mended.text()));
            after.push((path.clone(), text));
        }
        Ok(Self {
            report: config::check_texts(&after, environment, &[])?,
            files: planned,
        })
    }

    /// Returns what `check` says of the files as they will be.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Returns the files with repairs.
    pub fn repaired(&self) -> impl Iterator<Item = MendedFile<'_>> {
        let files = self.files.iter();
        files.filter_map(|(path, _, mended)| {
            let mended = mended.as_ref()?;
            Some(MendedFile {
                path,
                repairs: mended.repairs(),
            })
        })
    }

    /// Writes the repaired files, or none.
    ///
    /// # Errors
    ///
    /// When a file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses.
    pub fn carry_out(&self) -> Result<(), WriteError> {
        let files = self.files.iter();
        let changed: Vec<_> = files
            .filter_map(|(path, text, mended)| Some((path, text, mended.as_ref()?)))
            .collect();
        let mut folders = Vec::new();
        for (path, ..) in &changed {
            let target = follow(path)?;
            let folder = fs::canonicalize(folder_of(&target));
            folders.push(folder.map_err(WriteError::io(&target))?);
        }
        folders.sort();
        folders.dedup();
        let locks = folders
            .iter()
            .map(|folder| FolderLock::acquire(&folder.join("x")));
        let _locks: Vec<_> = locks.collect::<Result<_, _>>()?;
        let mut staged = Vec::new();
        for (path, text, mended) in changed {
            let now = FileText::read(path).ok();
            let same =
                |now: &FileText| now.text() == text.text() && now.has_mark() == text.has_mark();
            if !now.as_ref().is_some_and(same) {
                return Err(WriteError::Changed(path.clone()));
            }
            let new = text.edited(mended.text());
            staged.push(Staged::new(path, &new.encode(new.text()), Privacy::Public)?);
        }
        commit_all(staged)
    }
}

/// Tells whether the repairs remove what they are for, and bring nothing new.
fn is_better(
    path: &Path,
    text: &FileText,
    mended: &Mended,
    environment: &[(String, String)],
) -> Result<bool, CheckError> {
    let errors = |text: FileText| {
        let report = config::check_texts(&[(path.to_owned(), text)], environment, &[]);
        report.map(|report| report.findings.errors())
    };
    Ok(errors(text.edited(mended.text()))? <= errors(text.clone())?)
}
