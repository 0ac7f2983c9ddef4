//! `check --fix`: repairs that verify, shown before they are written, all files or none.

use std::collections::HashMap;
use std::path::PathBuf;
use std::slice;

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
        let remembered = config::remembered(files)?;
        for path in files {
            let mut text = (path.clone(), FileText::read(path)?);
            if let Some(fixed) = config::fix(path, &text.1) {
                let after = (path.clone(), text.1.edited(fixed.text.expose()));
                if errors(&after, environment)? <= errors(&text, environment)? {
                    edited.push(EditedFile::fixed(path, text.1, fixed.text.expose()));
                    repairs.extend(fixed.repairs);
                    text = after;
                }
            }
            texts.push(text);
        }
        Ok(Self {
            report: config::check_texts(&texts, &remembered, environment, &[])?,
            change: Change::of(edited),
            repairs,
        })
    }
}

fn errors(
    file: &(PathBuf, FileText),
    environment: &[(String, String)],
) -> Result<usize, ReadError> {
    let report = config::check_texts(slice::from_ref(file), &HashMap::new(), environment, &[])?;
    Ok(report.findings.errors())
}
