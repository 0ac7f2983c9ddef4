//! One step of a reload: from what the files hold to what is current, or why not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;
use std::{mem, thread};

use sha2::{Digest as _, Sha256};

use super::changes::{self, Expiry, Stamp};
use crate::clock::to_rfc3339;
use crate::config::load::LoadError;
use crate::config::settings::{Settings, Source};
use crate::config::spring::{self, Texts};
use crate::files;
use crate::grpc::tls::ChangedTlsFiles;
use crate::grpc::{Module, cause};
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;
use crate::properties::{self, ContentDigest, ReadError};
use crate::registry::AddressBook;
use crate::storage::revoked_keys::{self, Record, Remembered, Standing};
use crate::trust::{KeySet, TrustedKey};

/// Follows the files of one module, on a thread that may block.
#[derive(Debug)]
pub struct Follower {
    module: Module,
    addresses: AddressBook,
    current: Settings,
    /// What holds since the start, whatever the files say now. Not the settings themselves: the own
    /// key of the start is not to be kept.
    since_start: Source,
    /// Keys that were revoked since the start and that only this process remembers: what is to be
    /// stored of each, and what the home's memory said of it when it was revoked.
    unsaved: BTreeMap<Fingerprint, (Record, Option<Standing>)>,
    /// Why the home's memory cannot be read, if it cannot; until it can, what was read last holds.
    unread: Option<String>,
    pub revocations: Revocations,
    /// The own keys before the current one, the latest first.
    earlier: Vec<Fingerprint>,
    /// The files of the settings, and whether they were there.
    files: Vec<(PathBuf, bool)>,
    /// What was seen of the files last.
    stamps: Vec<Stamp>,
    digest: ContentDigest,
    /// The content that cannot be used and was reported.
    reported: Option<ContentDigest>,
    restart: BTreeSet<String>,
    expiry: Expiry,
    ticks: u32,
    /// For how many more ticks contents are compared now and then even though the stamps are the
    /// same: a file system's clock may be coarse.
    rechecks: u32,
    /// The files are to be read whatever their stamps say.
    is_due: bool,
}

/// The result of a check of the files.
#[derive(Debug)]
pub enum Looked {
    /// Nothing new.
    Same,
    /// They are being written.
    Unsettled,
    /// They are applied.
    Applied(Applied),
    /// They cannot be used.
    Failed {
        error: String,
        /// The same content has not been reported before.
        is_news: bool,
    },
}

/// What a reload did.
#[derive(Debug, Default)]
pub struct Applied {
    pub changes: Vec<String>,
    /// Keys that are newly revoked, and those that no longer are.
    pub revoked: [Vec<Fingerprint>; 2],
    /// No deployment is trusted any more.
    pub is_alone: bool,
    /// Settings that differ from the current ones and need a restart, if they are news.
    pub restart: Option<Vec<String>>,
    /// How many of those there are, news or not.
    pub waiting: usize,
    pub warnings: usize,
}

/// The files as they were read once.
#[derive(Debug)]
pub struct Read {
    pub remembered: Result<Remembered, ReadError>,
    pub texts: Result<Texts, ReadError>,
    pub tls: ChangedTlsFiles,
}

impl Read {
    /// Returns what identifies the contents: that of the settings alone, unless PEM files changed.
    fn digest(&self) -> ContentDigest {
        let texts = match &self.texts {
            Ok(texts) => texts.digest(),
            Err(error) => Sha256::digest(error.to_string()).into(),
        };
        let settings = content(texts, self.remembered.as_ref().ok());
        match self.tls.digest() {
            Some(changed) => Sha256::digest([settings, changed].concat()).into(),
            None => settings,
        }
    }
}

impl Follower {
    /// Follows what `settings` were loaded from, for the `module` that was made of them.
    pub fn new(settings: &Settings, module: &Module, addresses: AddressBook) -> Self {
        let mut follower = Self {
            module: module.clone(),
            addresses,
            current: settings.clone(),
            since_start: settings.source.clone(),
            unsaved: BTreeMap::new(),
            unread: None,
            revocations: Revocations::default(),
            earlier: Vec::new(),
            files: settings.source.files.clone(),
            // The files may have changed since they were read.
            stamps: Vec::new(),
            digest: ContentDigest::default(),
            reported: None,
            restart: BTreeSet::new(),
            expiry: Expiry::of(settings.options.tls.clone(), module),
            ticks: 0,
            rechecks: 0,
            is_due: false,
        };
        follower.remember();
        follower.digest = follower.applied();
        follower
    }

    /// Returns `true` if changes take effect without being asked for.
    pub fn is_watching(&self) -> bool {
        self.current.options.reload
    }

    /// Logs which certificates of the module expire soon, and tries from time to time to store what
    /// could not be stored, and to read what could not be read.
    pub fn tick(&mut self) {
        self.expiry.note(&self.module);
        self.ticks = self.ticks.wrapping_add(1);
        if !self.unsaved.is_empty() && self.ticks.is_multiple_of(TICKS_TO_STORE) {
            self.remember();
            if self.reported.is_none() {
                self.digest = self.applied();
            }
        }
        let is_open = self.rechecks > 0 || self.reported.is_some() || self.unread.is_some();
        self.is_due |= is_open && self.ticks.is_multiple_of(TICKS_TO_READ);
        self.rechecks = self.rechecks.saturating_sub(1);
    }

    /// Names the files.
    pub fn names(&self) -> String {
        let paths = self.paths().into_iter();
        let names = paths.map(|path| path.display().to_string());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Lists the files: those of the settings, then those of TLS.
    fn paths(&self) -> Vec<PathBuf> {
        let files = self.files.iter().map(|(path, _)| path.clone());
        files.chain(self.module.tls_files.paths()).collect()
    }

    fn stamps(&self) -> Vec<Stamp> {
        let storage = self.current.home.memory();
        let memory = storage.map(|folder| revoked_keys::path(&folder));
        let paths = self.paths().into_iter().chain(memory);
        paths.map(|path| Stamp::of(&path)).collect()
    }

    /// Looks at the files, and applies them if they changed and are whole. Blocks.
    ///
    /// A file counts if it still has every byte that was read [`SETTLE`] later, whatever file has
    /// its name by then. `asked` wants an answer even where nothing changed.
    pub fn look(&mut self, asked: bool) -> Looked {
        self.look_after(asked, || thread::sleep(SETTLE))
    }

    /// Looks at the files, and at what `settle` leaves of them.
    pub fn look_after(&mut self, asked: bool, settle: impl FnOnce()) -> Looked {
        let now = self.stamps();
        let is_due = mem::take(&mut self.is_due);
        let unchanged = now == self.stamps;
        if !asked && unchanged && !is_due {
            return Looked::Same;
        }
        let mut read = self.read();
        let mut held = Self::hold(&read);
        for _again in 0..MOST_RENAMES {
            if held.is_none() && read.texts.is_ok() {
                read = self.read();
                held = Self::hold(&read);
            }
        }
        let digest = read.digest();
        if !asked && unchanged && digest == self.digest {
            return Looked::Same;
        }
        settle();
        let is_settled = match held {
            Some(mut held) => {
                let mut files = held.iter_mut();
                files.all(|(file, read)| properties::digest(file).is_ok_and(|now| now == *read))
                    && self.module.tls_files.read().digest() == read.tls.digest()
            }
            None => self.read().digest() == digest,
        };
        if !is_settled {
            self.stamps.clear();
            return Looked::Unsettled;
        }
        if !unchanged {
            self.rechecks = RECHECKS;
        }
        self.stamps = now;
        if !asked && digest == self.digest {
            return Looked::Same;
        }
        self.step(read)
    }

    /// Applies `read`, all of it or nothing.
    pub fn step(&mut self, read: Read) -> Looked {
        let digest = read.digest();
        self.digest = digest;
        if let Ok(texts) = &read.texts {
            // Whatever comes of it, these files are what decides from now on.
            self.files = texts.files();
        }
        let (remembered, unread) = match read.remembered {
            Ok(remembered) => (remembered, None),
            // A revocation in a file must not wait for the memory.
            Err(error) => (
                self.current.source.remembered.clone(),
                Some(error.to_string()),
            ),
        };
        self.unread = unread;
        let applied = read
            .texts
            .map_err(LoadError::Read)
            .and_then(|texts| Settings::from_texts(&self.current, remembered, &texts))
            .map_err(|error| cause(&error))
            .and_then(|settings| self.apply(settings, read.tls));
        match applied {
            Ok(applied) => {
                self.reported = None;
                Looked::Applied(applied)
            }
            Err(error) => {
                let is_news = self.reported.replace(digest) != Some(digest);
                Looked::Failed { error, is_news }
            }
        }
    }

    fn apply(&mut self, mut settings: Settings, tls: ChangedTlsFiles) -> Result<Applied, String> {
        if let Some(why) = another_module(&self.current, &settings) {
            return Err(format!("this is the file of another module: {why}"));
        }
        // What the memory has said of a key since then counts.
        let stored = &settings.source.remembered;
        self.unsaved
            .retain(|key, (_, before)| is_open(*before, stored.standing(*key)));
        for key in settings.deployments.iter_mut().flat_map(|of| &mut of.keys) {
            key.revoked |= self.unsaved.contains_key(&key.key.fingerprint());
        }
        let own = &self.current.own;
        let mut earlier = self.earlier.clone();
        if own.key.verifying_key() != settings.own.key.verifying_key() {
            earlier.retain(|key| *key != own.fingerprint());
            earlier.insert(0, own.fingerprint());
            earlier.truncate(MOST_EARLIER);
        }
        settings.own.accepted.extend(&earlier);
        let made = KeySet::new(settings.deployments.clone(), settings.own.clone());
        let keys = made.map_err(|error| cause(&error))?;
        let tls_changed = tls.digest().is_some();
        let swap_tls = tls.make().map_err(|error| cause(&error))?;
        let mut changed = changes::between(&self.current, &settings);
        let restart = settings.source.differing(&self.since_start);
        let news = !restart.is_subset(&self.restart);
        // Where an engine may be dialled counts before its owner is looked at again.
        self.addresses.replace(settings.options.addresses.clone());
        swap_tls();
        if self.module.trust().update(keys) && changed.is_empty() {
            changed.push("trusted keys changed".to_owned());
        }
        if tls_changed {
            changed.push("TLS certificates and keys read again".to_owned());
            self.expiry = self.expiry.again(&self.module);
        }
        let warnings = settings.findings.warnings();
        let was = self.revoked();
        let is_alone = settings.deployments.is_empty() && !self.current.deployments.is_empty();
        self.current = settings;
        self.remember();
        self.digest = self.applied();
        let now = self.revoked();
        let revoked = [&now - &was, &was - &now];
        self.earlier = earlier;
        self.restart.clone_from(&restart);
        Ok(Applied {
            changes: changed,
            revoked: revoked.map(Vec::from_iter),
            is_alone,
            waiting: restart.len(),
            restart: news.then(|| restart.into_iter().collect()),
            warnings,
        })
    }

    fn read(&self) -> Read {
        let (home, source) = (&self.current.home, &self.current.source);
        Read {
            // First: a revocation that is taken back is taken out of the file before the memory.
            remembered: home.remembered(),
            texts: spring::read(&home.file, &source.question),
            tls: self.module.tls_files.read(),
        }
    }

    /// Lists every key that is known to be revoked.
    fn revoked(&self) -> BTreeSet<Fingerprint> {
        let stored = self.current.source.remembered.revoked().into_iter();
        stored.chain(self.unsaved.keys().copied()).collect()
    }

    /// Opens the files that `read` was read from; `None` if others have their names by now.
    fn hold(read: &Read) -> Option<Vec<(File, ContentDigest)>> {
        let texts = read.texts.as_ref().ok()?.texts().into_iter();
        let held = texts.map(|(path, text)| {
            let mut file = files::open(path).ok()?;
            (properties::digest(&mut file).ok()? == text.digest).then_some((file, text.digest))
        });
        held.collect()
    }

    /// Writes the keys that the files revoke to the home's memory; what cannot be written is
    /// remembered here.
    fn remember(&mut self) {
        let source = &mut self.current.source;
        let time = to_rfc3339(self.module.clock().now()).unwrap_or_default();
        let mut trusted_again = Vec::new();
        for deployment in &self.current.deployments {
            for key in deployment.keys.iter().filter(|key| key.revoked) {
                let fingerprint = key.key.fingerprint();
                let read = source.keys.get(&fingerprint);
                if read.is_none_or(|read| read.remembered || !read.trusted.revoked) {
                    trusted_again.push((deployment.name.clone(), key.clone()));
                }
                let standing = source.remembered.standing(fingerprint);
                if standing != Some(Standing::Revoked) {
                    let record = Record {
                        standing: Standing::Revoked,
                        key: fingerprint,
                        time: time.clone(),
                        deployment: deployment.name.to_string(),
                    };
                    self.unsaved
                        .entry(fingerprint)
                        .or_insert((record, standing));
                }
            }
        }
        let mut not_stored = self.unread.clone();
        let storage = self.current.home.memory();
        if let Some(storage) = storage.filter(|_| !self.unsaved.is_empty()) {
            let all = self.unsaved.values().map(|(record, _)| record.clone());
            let records: Vec<_> = all.collect();
            let unsaved = &self.unsaved;
            let stored = revoked_keys::remember_where(&storage, &records, |record, now| {
                let of_key = unsaved.get(&record.key);
                of_key.is_some_and(|(_, before)| is_open(*before, now))
            });
            match stored {
                Ok(()) => {
                    self.unsaved.clear();
                    for record in &records {
                        source.remembered.add(record);
                    }
                }
                Err(error) => {
                    let path = revoked_keys::path(&storage);
                    not_stored = Some(format!("{}: {error}", path.display()));
                }
            }
        }
        self.revocations = Revocations {
            trusted_again,
            not_stored,
        };
    }

    /// Returns what identifies the content that is applied.
    fn applied(&self) -> ContentDigest {
        let source = &self.current.source;
        let remembered = Some(&source.remembered).filter(|_| self.unread.is_none());
        content(source.digest, remembered)
    }
}

/// Returns `true` if a revocation still counts: the memory said `before` of the key, and says
/// `now`. A memory that says nothing of it takes no revocation back.
fn is_open(before: Option<Standing>, now: Option<Standing>) -> bool {
    now == before || now.is_none()
}

/// Returns why `after` is the file of another module than `before`, if it is.
fn another_module(before: &Settings, after: &Settings) -> Option<String> {
    let [was, now] = [before, after].map(|settings| {
        let name = settings.own.name.as_ref();
        name.map_or("none", DeploymentName::as_str)
    });
    if before.own.name.is_some() && was != now {
        let what = "countersign.deployment.name";
        return Some(format!("`{what}` would change from {was} to {now}"));
    }
    let deployments = before.deployments.iter();
    let mut keys = deployments.flat_map(|deployment| &deployment.keys);
    let is_other = before.own.key.verifying_key() != after.own.key.verifying_key()
        && !before.deployments.is_empty()
        && !keys.any(|key| after.source.keys.contains_key(&key.key.fingerprint()));
    is_other.then(|| "the own key and every trusted key would change at once".to_owned())
}

/// Returns what identifies the content of files and memory, but for PEM files; `None` is a memory
/// that cannot be read.
fn content(texts: ContentDigest, remembered: Option<&Remembered>) -> ContentDigest {
    let all = Sha256::new_with_prefix(texts).chain_update(format!("{remembered:?}"));
    all.finalize().into()
}

/// What there is to report of the revoked keys that the home remembers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Revocations {
    /// Keys that stay revoked although their file trusts them.
    pub trusted_again: Vec<(DeploymentName, TrustedKey)>,
    /// Why not all of them can be stored.
    pub not_stored: Option<String>,
}

/// For how long nothing may change between the two reads of a file.
pub const SETTLE: Duration = Duration::from_millis(50);
const MOST_EARLIER: usize = 32;
/// Between two tries to store: 10 s.
const TICKS_TO_STORE: u32 = 40;
/// Between two reads without a sign of a change: 1 s.
const TICKS_TO_READ: u32 = 4;
/// After a change: 3 s, so that the last of these reads is more than 2 s after it.
const RECHECKS: u32 = 12;
/// How often files are read again that were renamed over meanwhile.
const MOST_RENAMES: usize = 4;
