//! `check --fix`: repairs that verify, shown before they are written, all files or none.

use std::path::{Path, PathBuf};

use super::change::{Change, EditedFile};
use crate::config::{self, Repair, Report};
use crate::properties::{FileText, ReadError};

/// What would be repaired in some files, and what `check` reports of them afterwards.
#[derive(Debug)]
pub struct Fix {
    change: Change,
    repairs: Vec<Repair>,
    report: Report,
}

impl Fix {
    /// Plans the repairs of `files`.
    ///
    /// A file whose repairs leave it with more errors than it had is left alone.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn plan(files: &[PathBuf], environment: &[(String, String)]) -> Result<Self, ReadError> {
        let errors = |path: &Path, text: &FileText| {
            let file = (path.to_owned(), text.clone());
            let report = config::check_texts(&[file], environment, &[]);
            report.map(|report| report.findings.errors())
        };
        let mut edited = Vec::new();
        let mut repairs = Vec::new();
        let mut texts = Vec::new();
        for path in files {
            let before = FileText::read(path)?;
            let fixed = config::fix(path, &before);
            let after = fixed
                .as_ref()
                .map(|fixed| before.edited(fixed.text.expose()));
            match (fixed, after) {
                (Some(fixed), Some(after)) if errors(path, &after)? <= errors(path, &before)? => {
                    edited.push(EditedFile::fixed(path, before, fixed.text.expose()));
                    repairs.extend(fixed.repairs);
                    texts.push((path.clone(), after));
                }
                _ => texts.push((path.clone(), before)),
            }
        }
        Ok(Self {
            report: config::check_texts(&texts, environment, &[])?,
            change: Change::of(edited),
            repairs,
        })
    }

    /// Returns what `check` reports of the files as they will be.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Returns the repairs, in the order of the files and of their lines.
    pub fn repairs(&self) -> &[Repair] {
        &self.repairs
    }

    /// Returns what is written.
    pub fn change(&self) -> &Change {
        &self.change
    }
}
