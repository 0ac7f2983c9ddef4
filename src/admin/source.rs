//! A settings file, and what a module reads in it.

use std::path::{Path, PathBuf};

use super::change::Change;
use super::edited::{EditedFile, Setting};
use super::error::{Kind, Refused};
use super::profiles::is_main;
use crate::config::{self, Checked, check_texts};
use crate::diagnostic::Findings;
use crate::identity::DeploymentName;
use crate::properties::FileText;
use crate::trust::Deployment;

/// A settings file, and what a module reads in it.
#[derive(Debug)]
pub struct SettingsFile {
    /// The file.
    pub path: PathBuf,
    pub(super) text: FileText,
    /// What it says, as far as it can be read; a deployment with a fault is left out.
    pub checked: Checked,
    /// What is wrong with it.
    pub findings: Findings,
}

impl SettingsFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is the file of an active profile.
    pub fn read(path: &Path) -> Result<Self, Refused> {
        is_main(path, Kind::Usage)?;
        Self::of(path, FileText::read(path)?)
    }

    /// Reads `text` as if it were the file at `path`.
    pub(super) fn of(path: &Path, text: FileText) -> Result<Self, Refused> {
        let texts = [(path.to_owned(), text)];
        let report = check_texts(&texts, &config::environment(), &[])?;
        let [(path, text)] = texts;
        let checked = report.files.into_iter().next();
        Ok(Self {
            checked: checked.ok_or_else(|| Refused::internal(&path))?,
            findings: report.findings,
            path,
            text,
        })
    }

    /// Returns the trusted deployments, in the order of the file.
    pub fn deployments(&self) -> &[Deployment] {
        &self.checked.deployments
    }

    /// Finds the deployment called `name`, in whatever spelling.
    pub fn find(&self, name: &DeploymentName) -> Option<&Deployment> {
        let mut all = self.deployments().iter();
        all.find(|deployment| deployment.name.uniform() == name.uniform())
    }

    /// Plans that the file says what `settings` say.
    pub(super) fn edited(&self, settings: &[Setting]) -> EditedFile {
        EditedFile::plan(&self.path, Some(self.text.clone()), settings, None)
    }

    /// Plans the change of `file`, this one with other settings; refuses where the new text has a
    /// fault that the file does not have.
    pub(super) fn change(&self, file: EditedFile) -> Result<Change, Refused> {
        let change = Change::checked(vec![file], None, Vec::new())?;
        if change.findings().errors() > self.findings.errors() {
            return Err(Refused::new(Kind::Conflict, "the file would have faults")
                .with_help("nothing was written; `countersign explain CODE` says more")
                .with_findings(change.findings().clone()));
        }
        Ok(change)
    }
}
