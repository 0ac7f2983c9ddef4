//! A settings file, and what a module reads in it.

use std::path::{Path, PathBuf};

use super::change::Change;
use super::edited::{EditedFile, Setting};
use super::error::{Kind, Refused};
use super::profiles::is_main;
use super::trusts::Trusts;
use crate::config::{self, AsWritten, Checked, check_texts};
use crate::diagnostic::Findings;
use crate::identity::DeploymentName;
use crate::properties::FileText;
use crate::trust::Deployment;

/// A settings file, and what a module reads in it.
#[derive(Debug)]
pub struct SettingsFile {
    pub(super) path: PathBuf,
    pub(super) text: FileText,
    pub(super) checked: Checked,
    findings: Findings,
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

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what is wrong with it; a deployment with a fault is not among the
    /// [deployments](Self::deployments).
    pub fn findings(&self) -> &Findings {
        &self.findings
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

    /// Returns the trusted deployments as they are written, those with faults too, and resolved
    /// where a module takes them.
    pub(super) fn trusts(&self) -> Trusts {
        let file = AsWritten::parse(&self.path, self.text.text());
        Trusts::read(&file).resolved(self.deployments())
    }

    /// Plans that the file says what `settings` say.
    pub(super) fn edited(&self, settings: &[Setting], heading: Option<&str>) -> EditedFile {
        EditedFile::plan(&self.path, Some(self.text.clone()), settings, heading)
    }

    /// As [`edited`](Self::edited), and refuses where the new text has a fault that the file does not
    /// have.
    pub(super) fn change(
        &self,
        settings: &[Setting],
        heading: Option<&str>,
    ) -> Result<Change, Refused> {
        let file = self.edited(settings, heading);
        let change = Change::checked(vec![file], None, Vec::new())?;
        if change.findings().errors() > self.findings.errors() {
            return Err(Refused::new(Kind::Conflict, "the file would have faults")
                .with_help("nothing was written; `countersign explain CODE` says more")
                .with_findings(change.findings().clone()));
        }
        Ok(change)
    }
}
