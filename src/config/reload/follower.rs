//! One step of a reload: from what the files hold to what is current, or why not.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::changes;
use crate::config::load::LoadError;
use crate::config::settings::Settings;
use crate::config::sources::{Digest, Source, Stamp, Texts};
use crate::diagnostic::Origin;
use crate::grpc::tls::ChangedTlsFiles;
use crate::grpc::{Module, cause};
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;
use crate::properties::ReadError;
use crate::properties::placeholder::has_placeholder;
use crate::registry::AddressBook;
use crate::trust::{Deployment, KeySet, TrustedKey};

/// Follows the files of one module, on a thread that may block.
#[derive(Debug)]
pub struct Follower {
    module: Module,
    addresses: AddressBook,
    current: Settings,
    /// What holds since the start, whatever the files say now. Not the settings themselves: the own
    /// key of the start is not to be kept.
    since_start: Source,
    revoked: Revoked,
    /// The own keys before the current one, the latest first.
    earlier: Vec<Fingerprint>,
    /// The files of the settings, and whether they were there.
    files: Vec<(PathBuf, bool)>,
    /// What was seen of the files last.
    stamps: Vec<Stamp>,
    digest: Digest,
    /// When contents are to be compared though the stamps are the same, the next time last: empty once
    /// a change would show in the stamps.
    rechecks: Vec<Instant>,
    /// The content that cannot be used and was reported.
    reported: Option<Digest>,
    restart: BTreeSet<String>,
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
    /// Keys that stay revoked although their file does not say so any more.
    pub still_revoked: Vec<(DeploymentName, TrustedKey)>,
    /// Settings that differ from the current ones and need a restart, if they are news.
    pub restart: Option<Vec<String>>,
    /// How many of those there are, news or not.
    pub waiting: usize,
    pub warnings: usize,
}

/// The files as they were read once.
#[derive(Debug)]
pub struct Read {
    pub texts: Result<Texts, ReadError>,
    pub tls: ChangedTlsFiles,
}

impl Read {
    /// Returns what identifies the contents: that of the settings alone, unless PEM files changed.
    fn digest(&self) -> Digest {
        let texts = match &self.texts {
            Ok(texts) => texts.digest(),
            Err(error) => Sha256::digest(error.to_string()).into(),
        };
        match self.tls.digest() {
            Some(changed) => Sha256::digest([texts, changed].concat()).into(),
            None => texts,
        }
    }
}

impl Follower {
    /// Follows what `settings` were loaded from, for the `module` that was made of them.
    pub fn new(settings: &Settings, module: &Module, addresses: AddressBook) -> Self {
        let mut revoked = Revoked::default();
        let mut deployments = settings.deployments.clone();
        revoked.apply(&mut deployments, &settings.source);
        Self {
            module: module.clone(),
            addresses,
            current: settings.clone(),
            since_start: settings.source.clone(),
            revoked,
            earlier: Vec::new(),
            files: settings.source.files.clone(),
            // The files may have changed since they were read.
            stamps: Vec::new(),
            digest: settings.source.digest,
            rechecks: Vec::new(),
            reported: None,
            restart: BTreeSet::new(),
        }
    }

    /// Returns `true` if changes take effect without being asked for.
    pub fn is_watching(&self) -> bool {
        self.current.options.reload
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
        files.chain(self.module.tls_files().paths()).collect()
    }

    /// Looks at the files, and applies them if they changed and are whole. Blocks.
    ///
    /// They are read twice, [`SETTLE`] apart, and count where both times agree in every byte and in
    /// what the system says of the files. `asked` wants an answer even where nothing changed.
    pub fn look(&mut self, asked: bool) -> Looked {
        let (now, time) = (self.stamps(), Instant::now());
        let unchanged = now == self.stamps;
        let rechecks = self.rechecks.len();
        self.rechecks.retain(|next| *next > time);
        if !asked && unchanged && self.rechecks.len() == rechecks {
            return Looked::Same;
        }
        let first = self.read().digest();
        if !asked && unchanged && first == self.digest {
            return Looked::Same;
        }
        thread::sleep(SETTLE);
        let second = self.read();
        let digest = second.digest();
        if first != digest || now != self.stamps() {
            self.stamps.clear();
            return Looked::Unsettled;
        }
        if !unchanged {
            self.rechecks = RECHECKS.map(|after| time + after).to_vec();
        }
        self.stamps = now;
        let same = digest == std::mem::replace(&mut self.digest, digest);
        if same && !asked {
            return Looked::Same;
        }
        self.step(second)
    }

    /// Applies `read`, all of it or nothing.
    pub fn step(&mut self, read: Read) -> Looked {
        let digest = read.digest();
        if let Ok(texts) = &read.texts {
            // Whatever comes of it, these files are what decides from now on.
            self.files = texts.files();
        }
        let texts = read.texts.map_err(LoadError::Read);
        let applied = texts
            .and_then(|texts| Settings::from_texts(&self.current, &texts))
            .map_err(|error| cause(&error))
            .and_then(|settings| self.apply(settings, read.tls));
        match applied {
            Ok(applied) => {
                self.reported = None;
                self.digest = self.current.source.digest;
                Looked::Applied(applied)
            }
            Err(error) => {
                let is_news = self.reported.replace(digest) != Some(digest);
                Looked::Failed { error, is_news }
            }
        }
    }

    fn apply(&mut self, mut settings: Settings, tls: ChangedTlsFiles) -> Result<Applied, String> {
        let mut revoked = self.revoked.clone();
        let still_revoked = revoked.apply(&mut settings.deployments, &settings.source);
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
        if !changed.is_empty() {
            self.module.trust().replace(keys);
        }
        if tls_changed {
            changed.push("TLS certificates and keys read again".to_owned());
        }
        let warnings = settings.findings.warnings();
        self.current = settings;
        self.revoked = revoked;
        self.earlier = earlier;
        self.restart.clone_from(&restart);
        Ok(Applied {
            changes: changed,
            still_revoked,
            waiting: restart.len(),
            restart: news.then(|| restart.into_iter().collect()),
            warnings,
        })
    }

    fn read(&self) -> Read {
        let source = &self.current.source;
        Read {
            texts: Texts::read(&self.current.home.file, &source.question),
            tls: self.module.tls_files().read(),
        }
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.paths().iter().map(|path| Stamp::of(path)).collect()
    }
}

/// Remembers every key that was ever revoked and which file or variable revoked it, whatever the files
/// contain later.
///
/// A file that was cut off, or restored from before the revocation, holds the key without its
/// `is-revoked=true`, and lets that of a lower file or a placeholder's default come through. Only
/// `is-revoked=false`, written out where the revocation was or above it, takes it back.
#[derive(Clone, Debug, Default)]
struct Revoked(HashMap<Fingerprint, Option<Origin>>);

impl Revoked {
    /// Notes what `deployments` revoke and take back, as `source` says; revokes what they forget to.
    fn apply(
        &mut self,
        deployments: &mut [Deployment],
        source: &Source,
    ) -> Vec<(DeploymentName, TrustedKey)> {
        let mut kept = Vec::new();
        for deployment in deployments {
            for key in &mut deployment.keys {
                let fingerprint = key.key.fingerprint();
                let read = source.keys.get(&fingerprint);
                let at = read.and_then(|read| read.revoked_at.as_ref());
                if key.revoked {
                    let origin = at.map(|at| at.origin().clone());
                    self.0.insert(fingerprint, origin);
                } else if let Some(revoked) = self.0.get(&fingerprint) {
                    let above = revoked.as_ref().and_then(|origin| source.rank(origin));
                    let literal = at.filter(|at| !has_placeholder(at.text()));
                    let rank = literal.and_then(|at| source.rank(at.origin()));
                    if rank.is_some_and(|rank| rank >= above.unwrap_or(usize::MAX)) {
                        self.0.remove(&fingerprint);
                        continue;
                    }
                    key.revoked = true;
                    kept.push((deployment.name.clone(), key.clone()));
                }
            }
        }
        kept
    }
}

/// For how long nothing may change between the two reads of a file.
pub const SETTLE: Duration = Duration::from_millis(50);
/// How long after a change contents are compared too, the next time last: a file system's clock may be
/// coarse.
const RECHECKS: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(1),
    Duration::ZERO,
];
const MOST_EARLIER: usize = 32;
