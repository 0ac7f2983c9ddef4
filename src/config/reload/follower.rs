//! One step of a reload: from what the files hold to what is current, or why not.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::changes;
use super::revoked::{Revoked, StillRevoked};
use crate::config::load::LoadError;
use crate::config::settings::Settings;
use crate::config::sources::{Digest, Source, Stamp, Texts, digest_of_error};
use crate::grpc::{Module, cause};
use crate::jose::Fingerprint;
use crate::properties::ReadError;
use crate::registry::AddressBook;
use crate::trust::KeySet;

/// Follows the files of one module, on a thread that may block.
#[derive(Debug)]
pub(super) struct Follower {
    module: Module,
    addresses: AddressBook,
    current: Settings,
    /// What holds since the start, whatever the files say now. Not the settings themselves: the own
    /// key of the start is not to be kept.
    since_start: Source,
    revoked: Revoked,
    /// The own keys before the current one, the latest last.
    earlier: VecDeque<Fingerprint>,
    /// The files, those of active profiles that are not there included.
    paths: Vec<PathBuf>,
    seen: Seen,
    /// The content that cannot be used and was reported.
    reported: Option<Digest>,
    restart: BTreeSet<String>,
}

/// What was seen of the files last.
#[derive(Debug)]
struct Seen {
    stamps: Vec<Stamp>,
    digest: Digest,
    /// When contents are to be compared though the stamps are the same, the next time last: empty once
    /// a change would show in the stamps.
    rechecks: Vec<Instant>,
}

/// What a look at the files came to.
#[derive(Debug)]
pub(super) enum Looked {
    /// Nothing new.
    Same,
    /// They are being written.
    Unsettled,
    /// They are applied.
    Applied(Applied),
    /// They cannot be used.
    Failed(Failed),
}

/// What a reload did.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) changes: Vec<String>,
    pub(super) still_revoked: Vec<StillRevoked>,
    /// Settings that differ from the current ones and need a restart, if they are news.
    pub(super) restart: Option<Vec<String>>,
    /// How many of those there are, news or not.
    pub(super) waiting: usize,
    pub(super) warnings: usize,
}

/// Why a reload did nothing.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: String,
    /// The same content has not been reported before.
    pub(super) is_news: bool,
}

impl Follower {
    /// Follows what `settings` were loaded from, for the `module` that was made of them.
    pub(super) fn new(settings: &Settings, module: &Module, addresses: AddressBook) -> Self {
        let mut revoked = Revoked::default();
        let mut deployments = settings.deployments.clone();
        revoked.apply(&mut deployments, &settings.source);
        Self {
            module: module.clone(),
            addresses,
            current: settings.clone(),
            since_start: settings.source.clone(),
            revoked,
            earlier: VecDeque::new(),
            paths: settings.source.paths.clone(),
            seen: Seen {
                // The files may have changed since they were read.
                stamps: Vec::new(),
                digest: settings.source.digest,
                rechecks: Vec::new(),
            },
            reported: None,
            restart: BTreeSet::new(),
        }
    }

    /// Returns `true` if changes take effect without being asked for.
    pub(super) fn is_watching(&self) -> bool {
        self.current.reload
    }

    /// Names the files.
    pub(super) fn files(&self) -> String {
        let names: Vec<_> = self
            .paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        names.join(", ")
    }

    /// Looks at the files, and applies them if they changed and are whole. Blocks.
    ///
    /// They are read twice, [`SETTLE`] apart, and count where both times agree in every byte and in
    /// what the system says of the files. `asked` wants an answer even where nothing changed.
    pub(super) fn look(&mut self, asked: bool) -> Looked {
        let (now, time) = (self.stamps(), Instant::now());
        let unchanged = now == self.seen.stamps;
        let is_due = |next: &Instant| *next <= time;
        if !asked && unchanged && !self.seen.rechecks.last().is_some_and(is_due) {
            return Looked::Same;
        }
        self.seen.rechecks.retain(|next| !is_due(next));
        let first = digest(&self.read());
        if !asked && unchanged && first == self.seen.digest {
            return Looked::Same;
        }
        thread::sleep(SETTLE);
        let second = self.read();
        let digest = digest(&second);
        if first != digest || now != self.stamps() {
            self.seen.stamps.clear();
            return Looked::Unsettled;
        }
        let same = digest == self.seen.digest;
        if !unchanged {
            self.seen.rechecks = RECHECKS.map(|after| time + after).to_vec();
        }
        self.seen.stamps = now;
        self.seen.digest = digest;
        if same && !asked {
            return Looked::Same;
        }
        self.step(second)
    }

    /// Applies `read`, all of it or nothing.
    pub(super) fn step(&mut self, read: Result<Texts, ReadError>) -> Looked {
        let digest = digest(&read);
        if let Ok(texts) = &read {
            // Whatever comes of it, these files are what decides from now on.
            texts.paths().clone_into(&mut self.paths);
        }
        let applied = read
            .map_err(LoadError::Read)
            .and_then(|texts| Settings::from_texts(&self.current, &texts))
            .map_err(|error| reasons(&error))
            .and_then(|settings| self.apply(settings));
        match applied {
            Ok(applied) => {
                self.reported = None;
                Looked::Applied(applied)
            }
            Err(error) => {
                let is_news = self.reported.replace(digest) != Some(digest);
                Looked::Failed(Failed { error, is_news })
            }
        }
    }

    fn apply(&mut self, mut settings: Settings) -> Result<Applied, String> {
        let mut revoked = self.revoked.clone();
        let still_revoked = revoked.apply(&mut settings.deployments, &settings.source);
        let own = &self.current.own;
        let mut earlier = self.earlier.clone();
        if own.key.verifying_key() != settings.own.key.verifying_key() {
            earlier.retain(|key| *key != own.fingerprint());
            earlier.push_back(own.fingerprint());
            while earlier.len() > MOST_EARLIER {
                earlier.pop_front();
            }
        }
        settings.own.accepted.extend(&earlier);
        let keys = KeySet::new(settings.deployments.clone(), settings.own.clone());
        let keys = keys.map_err(|error| cause(&error))?;
        let changes = changes::between(&self.current, &settings);
        let restart = settings.source.differing(&self.since_start);
        let news = !restart.is_subset(&self.restart);
        // Where an engine may be dialled counts before its owner is looked at again.
        self.addresses.replace(settings.addresses.clone());
        if !changes.is_empty() {
            self.module.trust().replace(keys);
        }
        let warnings = settings.warnings();
        self.current = settings;
        self.revoked = revoked;
        self.earlier = earlier;
        self.restart.clone_from(&restart);
        Ok(Applied {
            changes,
            still_revoked,
            waiting: restart.len(),
            restart: news.then(|| restart.into_iter().collect()),
            warnings,
        })
    }

    fn read(&self) -> Result<Texts, ReadError> {
        Texts::read(&self.current.home.file, &self.current.source.asked)
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.paths.iter().map(|path| Stamp::of(path)).collect()
    }
}

fn digest(read: &Result<Texts, ReadError>) -> Digest {
    match read {
        Ok(texts) => texts.digest(),
        Err(error) => digest_of_error(error),
    }
}

/// Returns why settings cannot be used: every error finding, up to a readable number.
fn reasons(error: &LoadError) -> String {
    let Some(findings) = error.findings() else {
        return cause(error);
    };
    let errors = findings
        .iter()
        .filter(|found| found.severity() == crate::diagnostic::Severity::Error);
    let mut shown: Vec<_> = errors.map(ToString::to_string).collect();
    let more = shown.len().saturating_sub(MOST_TOLD);
    shown.truncate(MOST_TOLD);
    if more > 0 {
        shown.push(format!("and {more} more errors"));
    }
    shown.join("; ")
}

/// For how long nothing may change between the two reads of a file.
pub(super) const SETTLE: Duration = Duration::from_millis(50);
/// How long after a change contents are compared too, the next time last: a file system's clock may be
/// coarse.
const RECHECKS: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(1),
    Duration::ZERO,
];
const MOST_TOLD: usize = 10;
const MOST_EARLIER: usize = 32;
