//! A settings file, what a module reads in it, the files of active profiles beside it, and the
//! repairs of `check --fix`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::change::{Change, EditedFile};
use super::error::{Kind, Refused};
use super::setting::Setting;
use super::write::Privacy;
use crate::config::{
    self, AsWritten, Checked, Home, Repair, Report, check_texts, environment, main_of, remembered,
};
use crate::diagnostic::Findings;
use crate::identity::DeploymentName;
use crate::properties::{FileText, ReadError};
use crate::storage::revoked_keys::Remembered;
use crate::trust::Deployment;

/// A settings file, and what a module reads in it.
#[derive(Debug)]
pub struct SettingsFile {
    /// The file.
    pub path: PathBuf,
    pub(super) text: FileText,
    /// The parsed settings, as far as they can be read. A deployment with a fault is omitted.
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
        is_main(path)?;
        let memories = remembered(&[path.to_owned()])?;
        Self::with(path, FileText::read(path)?, &memories)
    }

    /// Reads `text` as if it were the file at `path`.
    pub(super) fn of(path: &Path, text: FileText) -> Result<Self, Refused> {
        Self::with(path, text, &HashMap::new())
    }

    fn with(
        path: &Path,
        text: FileText,
        remembered: &HashMap<PathBuf, Remembered>,
    ) -> Result<Self, Refused> {
        let texts = [(path.to_owned(), text)];
        let report = check_texts(&texts, remembered, &environment(), &[])?;
        let [(path, text)] = texts;
        let checked = report.files.into_iter().next();
        Ok(Self {
            checked: checked.ok_or_else(|| Refused::internal(&path))?,
            findings: report.findings,
            path,
            text,
        })
    }

    /// Finds the deployment called `name`, in whatever spelling.
    pub fn find(&self, name: &DeploymentName) -> Option<&Deployment> {
        let mut all = self.checked.deployments.iter();
        all.find(|deployment| deployment.name.uniform() == name.uniform())
    }

    /// Plans that the module reads what `settings` say.
    pub(super) fn edited(&self, settings: &[Setting]) -> Result<Vec<EditedFile>, Refused> {
        EditedFile::plan(&self.path, Some(self.text.clone()), settings, None)
    }

    /// Plans the change of `files`, those of the module; refuses where the new texts have a fault
    /// that the module does not have.
    pub(super) fn change(&self, files: Vec<EditedFile>) -> Result<Change, Refused> {
        let change = Change::checked(files, Vec::new())?;
        if change.findings.errors() > self.findings.errors() {
            return Err(Refused::new(Kind::Conflict, "the file would have faults")
                .with_help("nothing was written")
                .with_findings(change.findings));
        }
        Ok(change)
    }
}

/// Returns how `--home` names the module of the file at `path`.
pub fn home_of(path: &Path) -> PathBuf {
    match Home::new(path).dir {
        _ if !path.ends_with(Home::FILE) => path.to_owned(),
        dir if dir.as_os_str().is_empty() => PathBuf::from("."),
        dir => dir,
    }
}

/// Returns what `check` finds in files that have these texts.
pub(super) fn findings_of(texts: &[(PathBuf, FileText)]) -> Result<Findings, Refused> {
    Ok(check_texts(texts, &HashMap::new(), &environment(), &[])?.findings)
}

/// Checks that `path` is not the file of an active profile.
pub(super) fn is_main(path: &Path) -> Result<(), Refused> {
    let Some(main) = main_of(path, &environment()) else {
        return Ok(());
    };
    let (path, main) = (path.display(), main.display());
    let message = format!("`{path}` is the file of an active profile of `{main}`");
    Err(Refused::new(Kind::Usage, message).with_help(format!("name the main file: `{main}`")))
}

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
    /// Plans the repairs of `files` and of the files of their active profiles, in the documents that
    /// are active.
    ///
    /// A file whose repairs leave its module with more errors than before is not changed.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn plan(files: &[PathBuf], environment: &[(String, String)]) -> Result<Self, ReadError> {
        let (mut edited, mut repairs) = (Vec::new(), Vec::new());
        let mut texts: Vec<(PathBuf, FileText)> = Vec::new();
        for file in files {
            let main = main_of(file, environment).unwrap_or_else(|| file.clone());
            let written = AsWritten::of_module(&main, &[], environment)?;
            let own = written.own_files();
            let new = own.filter(|path| texts.iter().all(|(there, _)| there != path));
            let read = new.map(|path| Ok((path.to_owned(), FileText::read(path)?)));
            let mut module = read.collect::<Result<Vec<_>, _>>()?;
            for (at, (path, text)) in module.clone().into_iter().enumerate() {
                let (active, _) = written.documents_in(&path);
                let Some(fixed) = config::fix(&path, &text, &active) else {
                    continue;
                };
                let mut after = module.clone();
                if let Some((_, new)) = after.get_mut(at) {
                    *new = text.edited(fixed.text.expose());
                }
                if errors(&after, environment)? <= errors(&module, environment)? {
                    edited.push(EditedFile::replaced(
                        &path,
                        text,
                        fixed.text.expose(),
                        Privacy::Public,
                    ));
                    repairs.extend(fixed.repairs);
                    module = after;
                }
            }
            texts.extend(module);
        }
        let paths: Vec<_> = texts.iter().map(|(path, _)| path.clone()).collect();
        Ok(Self {
            report: check_texts(&texts, &remembered(&paths)?, environment, &[])?,
            change: Change::of(edited),
            repairs,
        })
    }
}

fn errors(
    module: &[(PathBuf, FileText)],
    environment: &[(String, String)],
) -> Result<usize, ReadError> {
    let report = check_texts(module, &HashMap::new(), environment, &[])?;
    Ok(report.findings.errors())
}
