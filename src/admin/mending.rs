//! `check --fix`: repairs that verify, shown before they are written, all files or none.

use std::path::{Path, PathBuf};

use super::edited::{EditedFile, write_all};
use super::error::WriteError;
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
        let repaired = self.files.iter().filter_map(|(path, text, mended)| {
            let mended = mended.as_ref()?;
            Some(EditedFile::replaced(path, text.clone(), mended.text()))
        });
        write_all(&repaired.collect::<Vec<_>>())
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
