//! The changes of a procedure: the settings that it writes, planned and shown first, then all
//! written or none.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::{Kind, Refused};
use super::setting::{
    Setting, as_a_module_reads, by_name, deciding, no_effect, places, variable_above,
};
use super::write::{
    FolderLock, Privacy, Staged, commit_all, folder_of, follow, is_mount_point, mode_after, sweep,
};
use crate::config::{self, AsWritten, Home, holds_private_key};
use crate::diagnostic::{Findings, redact_name};
use crate::files;
pub use crate::properties::ChangeKind;
use crate::properties::{Edit, FileText};
use crate::secret::Secret;
use crate::storage::revoked_keys::{self, Record};

/// The comment above the settings that pairing writes.
pub(super) const PAIRED: &str =
    "Written by `countersign pair`: this module's key, and the modules it trusts.";

/// The comment above a deployment that is added.
pub(super) const ADDED: &str =
    "Written by `countersign deployment add`: a module that this one trusts.";

/// What would change in some files.
#[derive(Debug, Default)]
pub struct Change {
    /// The files, in the order in which they are written.
    pub files: Vec<EditedFile>,
    /// What is written before the rest: new files that the settings refer to, and one of the files
    /// with a part of its new text.
    first: Vec<EditedFile>,
    /// What `check` finds in the new texts; empty if they were not checked.
    pub findings: Findings,
}

impl Change {
    /// Plans to write `files`, without checking their new texts.
    pub(super) fn of(files: Vec<EditedFile>) -> Self {
        Self {
            files,
            ..Self::default()
        }
    }

    /// Plans to write `first`, then `files`, and checks the new texts as if they were the files.
    ///
    /// # Errors
    ///
    /// As [`effective`](Self::effective).
    pub(super) fn checked(files: Vec<EditedFile>, first: Vec<EditedFile>) -> Result<Self, Refused> {
        let texts = effective_texts(&files)?;
        let new = first.iter().filter(|file| file.is_created());
        let made: Vec<_> = new.map(|file| file.path.clone()).collect();
        let report = config::check_texts(&texts, &HashMap::new(), &config::environment(), &made)?;
        Ok(Self {
            files,
            first,
            findings: report.findings,
        })
    }

    /// Returns what `check` finds in `files` as they are.
    pub(super) fn checked_before(files: &[EditedFile]) -> Result<Findings, Refused> {
        let there = files.iter().filter_map(|file| {
            let text = file.before.clone()?;
            Some((file.path.clone(), text))
        });
        let texts: Vec<_> = there.collect();
        if texts.is_empty() {
            return Ok(Findings::default());
        }
        let report = config::check_texts(&texts, &HashMap::new(), &config::environment(), &[])?;
        Ok(report.findings)
    }

    /// Plans to write `files`, as [`of`](Self::of) does.
    ///
    /// # Errors
    ///
    /// When a module would not read what is written: another file or a variable decides.
    pub(super) fn effective(files: Vec<EditedFile>) -> Result<Self, Refused> {
        effective_texts(&files)?;
        Ok(Self::of(files))
    }

    /// Returns `true` if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let mut files = self.files.iter();
        files.all(|file| file.is_empty() && file.records.is_empty())
    }

    /// Iterates over all files: the new ones to which settings refer, then those with the settings.
    pub fn all(&self) -> impl Iterator<Item = &EditedFile> {
        let new = self.first.iter().filter(|file| file.is_created());
        new.chain(&self.files)
    }

    /// Writes the files in order, or none of them if one cannot be written; then what their homes
    /// are to remember of revoked keys.
    ///
    /// Removes what an earlier run left behind when it was killed, even if there is nothing to
    /// write.
    ///
    /// # Errors
    ///
    /// When a file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses. When a home's memory cannot be written, all else is.
    pub fn carry_out(&self) -> Result<(), Refused> {
        self.write()?;
        // Last, so that a key whose revocation is being taken back stays refused until then.
        let changed = self.files.iter().filter(|file| !file.records.is_empty());
        changed.map(EditedFile::remember).fold(Ok(()), Result::and)
    }

    fn write(&self) -> Result<(), Refused> {
        let mut folders = BTreeSet::new();
        for file in &self.files {
            let target = follow(&file.path)?;
            let folder = folder_of(&target);
            if file.is_in_place() {
                // It is locked itself: its folder may be read-only.
                continue;
            }
            if !file.is_empty() {
                files::make_folder(folder).map_err(Refused::not_written(folder))?;
            }
            folders.extend(fs::canonicalize(folder));
        }
        let files = folders.iter().map(|folder| folder.join("x"));
        let locks = files.map(|file| FolderLock::acquire(&file));
        let _locks = match locks.collect::<Result<Vec<_>, _>>() {
            // Another process is at work, or the folder is read-only, and there is nothing to
            // write.
            Err(_) if self.files.iter().all(EditedFile::is_empty) => return Ok(()),
            locks => locks?,
        };
        for folder in &folders {
            sweep(folder);
        }
        // Another file may have changed since the plan was made.
        effective_texts(&self.files)?;
        // A file that was created since the plan was made stays, even if it is a broken link.
        let mut new = self.first.iter().rev().filter(|file| file.is_created());
        if let Some(file) = new.find(|file| file.path.symlink_metadata().is_ok()) {
            return Err(Refused::exists(&file.path));
        }
        let mut staged = Vec::new();
        for file in self.first.iter().chain(&self.files) {
            staged.extend(file.staged()?);
        }
        commit_all(staged)
    }
}

/// What would change in one file.
#[derive(Clone, Debug, Default)]
pub struct EditedFile {
    /// The file.
    pub path: PathBuf,
    /// The main file of its module.
    pub main: PathBuf,
    before: Option<FileText>,
    after: Option<Secret<String>>,
    /// What would change, in the order in which it is written.
    pub changes: Vec<SettingChange>,
    /// What its module is to read; empty for the file of a profile.
    wanted: Vec<Setting>,
    /// Who may read it, if its settings do not decide that: a new file or a repair.
    privacy: Option<Privacy>,
    /// What the home of the file does not remember of revoked keys yet.
    pub records: Vec<Record>,
}

/// A setting that would change.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SettingChange {
    /// The setting, without anything that looks like a private key.
    pub key: String,
    /// Its new value, with a placeholder instead of a private key. Empty if it is removed.
    #[serde(rename = "value")]
    pub shown: String,
    /// What becomes of it.
    #[serde(rename = "change")]
    pub kind: ChangeKind,
}

impl EditedFile {
    /// Plans that the module of the file at `path`, which is `before` or not there yet, reads what
    /// `settings` say. Each is written where its value takes effect: there, or in the file of an
    /// active profile. The file itself comes first.
    ///
    /// # Errors
    ///
    /// When an import decides on a setting: it may belong to others, and is not changed.
    pub(super) fn plan(
        path: &Path,
        before: Option<FileText>,
        settings: &[Setting],
        heading: Option<&str>,
    ) -> Result<Vec<Self>, Refused> {
        let read = as_a_module_reads(path, before.as_ref())?;
        let names = by_name(&read);
        let mut parts: Vec<(&Path, Vec<&Setting>)> = vec![(path, Vec::new())];
        for setting in settings {
            for file in places(&read, &names, path, setting)? {
                match parts.iter_mut().find(|(part, _)| *part == file) {
                    Some((_, part)) => part.push(setting),
                    None => parts.push((file, vec![setting])),
                }
            }
        }
        let mut texts = vec![before];
        for (file, _) in parts.iter().skip(1) {
            texts.push(Some(FileText::read(file)?));
        }
        let given = parts.iter().zip(texts);
        let mut files: Vec<_> = given
            .map(|((file, part), text)| {
                let documents = text.is_some().then(|| read.documents_in(file));
                let above = heading.filter(|_| *file == path);
                Self {
                    main: path.to_owned(),
                    ..Self::edited(file, text, part, above, documents)
                }
            })
            .collect();
        if let Some(main) = files.first_mut() {
            let records = settings.iter().filter_map(|setting| setting.record.clone());
            // What cannot be read here cannot be written later: that is when it is reported.
            let home = Home::new(path);
            let mut remembered = home.remembered().unwrap_or_default();
            let new = records.filter(|record| home.memory().is_some() && remembered.add(record));
            main.records = new.collect();
            main.wanted = settings.to_vec();
        }
        Ok(files)
    }

    /// Plans that the file at `path`, which is `before` or not there yet, says what `settings` say:
    /// in the first of its `documents`, where it has some, new settings in the second.
    fn edited(
        path: &Path,
        before: Option<FileText>,
        settings: &[&Setting],
        heading: Option<&str>,
        documents: Option<(BTreeSet<usize>, Option<usize>)>,
    ) -> Self {
        let mut planned = Self {
            path: path.to_owned(),
            before,
            ..Self::default()
        };
        let mut edit = Edit::new();
        if let Some(heading) = heading {
            edit.heading(heading);
        }
        if let Some((active, home)) = documents {
            edit.within(active, home);
        }
        for setting in settings {
            edit.give(&setting.key, setting.value.clone());
        }
        let Some(edited) = edit.apply(planned.text()) else {
            return planned;
        };
        planned.after = Some(Secret::new(edited.text().to_owned()));
        let changes = edited.changes.into_iter();
        let shown = changes.filter_map(|(key, kind)| {
            let setting = settings.iter().find(|setting| setting.key == key)?;
            Some(SettingChange {
                key: redact_name(&key),
                shown: setting.shown.clone(),
                kind,
            })
        });
        planned.changes = shown.collect();
        planned
    }

    /// Plans that the file at `path`, which is `before`, becomes `after`.
    pub(super) fn replaced(path: &Path, before: FileText, after: &str, privacy: Privacy) -> Self {
        Self {
            path: path.to_owned(),
            before: Some(before),
            after: Some(Secret::new(after.to_owned())),
            privacy: Some(privacy),
            ..Self::default()
        }
    }

    /// Plans to create the file at `path`, to which settings refer.
    pub(super) fn created(path: PathBuf, text: String, privacy: Privacy) -> Self {
        Self {
            path,
            after: Some(Secret::new(text)),
            privacy: Some(privacy),
            ..Self::default()
        }
    }

    /// Returns `true` if nothing would change.
    pub fn is_empty(&self) -> bool {
        self.after.is_none()
    }

    /// Returns `true` if the file exists already.
    pub fn is_there(&self) -> bool {
        self.before.is_some()
    }

    /// Returns `true` if a revocation is written where no home remembers it.
    pub fn is_forgetful(&self) -> bool {
        let mut wanted = self.wanted.iter();
        wanted.any(|one| one.revokes) && Home::new(&self.path).memory().is_none()
    }

    /// Names the variables of this process that override what a new file says, each with the
    /// setting. For a file that is there they are an error.
    pub fn overridden(&self) -> Vec<(String, String)> {
        let environment = config::environment();
        let wanted = self.wanted.iter().filter(|_| !self.is_there());
        let above = wanted.filter_map(|setting| {
            let (variable, value) = variable_above(&setting.key, &environment)?;
            (Some(&*value) != setting.text()).then(|| (variable, redact_name(&setting.key)))
        });
        above.collect()
    }

    /// Returns `true` if it is a new file to which settings refer.
    fn is_created(&self) -> bool {
        self.before.is_none() && self.privacy.is_some()
    }

    /// Returns `true` if the file is a mount point: it is written in place, and is cut off if the
    /// machine stops meanwhile.
    pub fn is_in_place(&self) -> bool {
        self.before.is_some() && files::open(&self.path).is_ok_and(|file| is_mount_point(&file))
    }

    /// Returns the permission bits of a file that does not exist yet.
    pub fn new_mode(&self) -> u32 {
        match self.privacy {
            Some(Privacy::Public) => 0o644,
            _ => 0o600,
        }
    }

    /// Returns the permission bits before and after, if writing takes some away.
    pub fn mode_change(&self) -> Option<(u32, u32)> {
        let before = self.before.as_ref()?.mode? & 0o777;
        let after = mode_after(before, self.privacy());
        (before != after && self.after.is_some()).then_some((before, after))
    }

    /// Returns the file as it will be.
    pub(super) fn after(&self) -> Result<FileText, Refused> {
        let text = FileText::from_bytes(self.text().as_bytes());
        text.map_err(|_fault| Refused::internal(&self.path))
    }

    /// Returns the text as it will be.
    fn text(&self) -> &str {
        let before = self.before.as_ref().map_or("", FileText::text);
        self.after.as_ref().map_or(before, |after| after.expose())
    }

    /// Writes what the file's home is to remember, once the file itself is written.
    fn remember(&self) -> Result<(), Refused> {
        let Some(storage) = Home::new(&self.path).memory() else {
            return Ok(());
        };
        revoked_keys::remember(&storage, &self.records).map_err(|error| {
            let (path, memory) = (self.path.display(), revoked_keys::path(&storage));
            let message = format!(
                "`{path}` is written, but its home cannot remember that in `{}`",
                memory.display()
            );
            Refused::caused(Kind::NotWritten, message)(error)
                .with_help("make that file and its lock writable, then run the command again")
        })
    }

    /// Writes the new text beside the file, if it changes.
    fn staged(&self) -> Result<Option<Staged>, Refused> {
        let Some(after) = &self.after else {
            return Ok(None);
        };
        let now = FileText::read_if_there(&self.path).ok();
        let expected = self.before.as_ref().map(|file| file.digest);
        if now.is_none_or(|now| now.map(|file| file.digest) != expected) {
            return Err(Refused::changed(&self.path));
        }
        let bytes = match &self.before {
            // A repair removes a byte order mark.
            Some(file) if self.privacy.is_some() => file.edited("").encode(after.expose()),
            Some(file) => file.encode(after.expose()),
            None => after.expose().clone().into_bytes().into(),
        };
        Staged::new(&self.path, &bytes, self.privacy(), expected).map(Some)
    }

    /// Unless it is given, an existing file keeps its mode until it gets its first private key.
    fn privacy(&self) -> Privacy {
        let keeps_mode = self
            .before
            .as_ref()
            .is_some_and(|file| holds_private_key(file.text()) || !holds_private_key(self.text()));
        match self.privacy {
            Some(privacy) => privacy,
            None if keeps_mode => Privacy::Public,
            None => Privacy::Private,
        }
    }
}

/// Returns the new texts of `files`, after checking that modules will read them so. Variables count
/// only for a file that is there: no running module has a new one.
///
/// # Errors
///
/// When a module would read another value.
fn effective_texts(files: &[EditedFile]) -> Result<Vec<(PathBuf, FileText)>, Refused> {
    let known = files
        .iter()
        .filter(|file| file.is_there() || !file.is_empty());
    let new = known.map(|file| Ok((file.path.clone(), file.after()?)));
    let texts = new.collect::<Result<Vec<_>, Refused>>()?;
    let all = config::environment();
    for file in files.iter().filter(|file| !file.wanted.is_empty()) {
        let environment = if file.is_there() { &*all } else { &[] };
        let read = AsWritten::of_module(&file.path, &texts, &all)?;
        let names = by_name(&read);
        for setting in &file.wanted {
            let found = deciding(&read, &names, &setting.key, environment);
            if let Some((origin, _)) = found.filter(|(_, found)| Some(&**found) != setting.text()) {
                return Err(no_effect(&file.path, setting, &origin));
            }
        }
    }
    Ok(texts)
}
