//! Removing keys that are revoked, once the module's home remembers that: no copy of an old file
//! brings them back.

use serde::Serialize;

use crate::admin::change::Change;
use crate::admin::error::{Kind, Refused};
use crate::admin::setting::{Setting, key_settings, record};
use crate::admin::source::SettingsFile;
use crate::config::Home;
use crate::diagnostic::redact_word;
use crate::storage::revoked_keys::{self, Record, Standing};

/// The keys that are removed.
#[derive(Debug)]
pub struct Pruning {
    /// What changes in the module's files.
    pub change: Change,
    /// The keys.
    pub removed: Vec<PrunedKey>,
    /// Keys that are revoked and stay: the last ones of their deployments.
    pub kept: Vec<PrunedKey>,
    /// What the home is to remember before that.
    records: Vec<Record>,
    home: Home,
}

/// A key that is revoked.
#[derive(Clone, Debug, Serialize)]
pub struct PrunedKey {
    /// Its deployment.
    pub deployment: String,
    /// What the file calls it.
    #[serde(rename = "key")]
    pub name: String,
    /// The configured fingerprint.
    pub fingerprint: String,
}

impl Pruning {
    /// Plans to remove from `file` the keys that it, or its home's memory, has revoked. Nothing is
    /// written. Of each deployment one key stays.
    ///
    /// # Errors
    ///
    /// When the memory cannot be read, or the file is in no home; when an import or a variable decides on a
    /// key, or the new text has a fault that the file does not have.
    pub fn plan(file: &SettingsFile) -> Result<Self, Refused> {
        let home = Home::new(&file.path);
        let remembered = home.remembered()?;
        let (mut removed, mut kept) = (Vec::new(), Vec::new());
        let (mut settings, mut records) = (Vec::new(), Vec::new());
        for deployment in &file.checked.deployments {
            let name = deployment.name.as_str();
            let keys = deployment.keys.iter();
            let revoked = keys.filter(|key| key.revoked || remembered.has(key.key.fingerprint()));
            let mut left = deployment.keys.len();
            for key in revoked {
                let pruned = PrunedKey {
                    deployment: name.to_owned(),
                    name: redact_word(&key.name),
                    fingerprint: key.key_id.to_string(),
                };
                if left == 1 {
                    kept.push(pruned);
                    continue;
                }
                left = left.saturating_sub(1);
                let hash = key.key.fingerprint();
                if !remembered.has(hash) {
                    records.push(record(Standing::Revoked, hash, name));
                }
                settings.extend(key_settings(name, &key.name).map(Setting::removed));
                removed.push(pruned);
            }
        }
        if !removed.is_empty() && home.memory().is_none() {
            let path = file.path.display();
            let message = format!("`{path}` is in no module's home: nothing remembers its keys");
            return Err(Refused::new(Kind::Conflict, message)
                .with_help("leave them there as they are: an old copy could bring them back"));
        }
        Ok(Self {
            change: file.change(file.edited(&settings)?)?,
            removed,
            kept,
            records,
            home,
        })
    }

    /// Has the home remember the keys, and then removes them.
    ///
    /// # Errors
    ///
    /// When the home cannot remember them: then nothing is removed. As [`Change::carry_out`].
    pub fn carry_out(&self) -> Result<(), Refused> {
        if let Some(storage) = self.home.memory().filter(|_| !self.records.is_empty()) {
            let remembered = revoked_keys::remember(&storage, &self.records);
            remembered.map_err(Refused::not_written(&revoked_keys::path(&storage)))?;
        }
        self.change.carry_out()
    }
}
