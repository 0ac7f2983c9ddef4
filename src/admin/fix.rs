//! `check --fix`: repairs that verify, shown before they are written, all files or none.

use std::path::{Path, PathBuf};

use super::change::{Change, EditedFile};
use crate::config::{self, Repair, Report};
use crate::properties::{FileText, ReadError};

/// What would be repaired in some files, and what `check` reports of them afterwards.
#[derive(Debug)]
pub struct Fix {
    /// What is written.
    pub change: Change,
    /// The repairs, in the order of the files and of their lines.
    pub repairs: Vec<Repair>,
    /// What `check` reports of the files as they will be.
    pub report: Report,
}

impl Fix {
    /// Plans the repairs of `files`.
    ///
    /// A file whose repairs leave it with more errors than before is not changed.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn plan(files: &[PathBuf], environment: &[(String, String)]) -> Result<Self, ReadError> {
        let (mut edited, mut repairs, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for path in files {
            let before = FileText::read(path)?;
            let mut text = before.clone();
            if let Some(fixed) = config::fix(path, &before) {
                let after = before.edited(fixed.text.expose());
                if errors(path, &after, environment)? <= errors(path, &before, environment)? {
                    edited.push(EditedFile::fixed(path, before, fixed.text.expose()));
                    repairs.extend(fixed.repairs);
                    text = after;
                }
            }
            texts.push((path.clone(), text));
        }
        Ok(Self {
            report: config::check_texts(&texts, environment, &[])?,
            change: Change::of(edited),
            repairs,
        })
    }
}

fn errors(
    path: &Path,
    text: &FileText,
    environment: &[(String, String)],
) -> Result<usize, ReadError> {
    let file = (path.to_owned(), text.clone());
    let report = config::check_texts(&[file], environment, &[])?;
    Ok(report.findings.errors())
}
