//! Something made of files, made anew when they change.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::files::Content;
use super::{PemFile, TlsError};
use crate::telemetry::events;

type Make<T> = dyn Fn(&[Content]) -> Result<T, TlsError> + Send + Sync;

/// A value made of the contents of `files`.
///
/// Whoever asks for it looks at the files first: at once where one was replaced or rewritten, and
/// once a second at the contents themselves. Contents that make no value leave the old one in
/// force, and are told once.
pub(super) struct Watched<T> {
    files: Vec<PemFile>,
    make: Box<Make<T>>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
}

/// What was seen of the files last.
#[derive(Debug)]
struct Seen {
    stamps: Vec<Option<Stamp>>,
    /// None where a file could not be read.
    digest: Option<[u8; 32]>,
    read_at: Instant,
    /// The fault that was told, while it lasts.
    told: Option<String>,
}

/// What changes with a file, as the system tells it without reading the file.
type Stamp = (Option<SystemTime>, u64, u64);

const RECHECK: Duration = Duration::from_secs(1);

impl<T> Watched<T> {
    pub(super) fn new(
        files: Vec<PemFile>,
        make: impl Fn(&[Content]) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let contents = read(&files)?;
        let value = make(&contents)?;
        let seen = Seen {
            stamps,
            digest: Some(digest(&contents)),
            read_at: Instant::now(),
            told: None,
        };
        Ok(Self {
            files,
            make: Box::new(make),
            current: ArcSwap::from_pointee(value),
            seen: Mutex::new(seen),
        })
    }

    /// Returns the value in force, after a look at the files.
    pub(super) fn current(&self) -> Arc<T> {
        // Whoever finds another one looking takes what is there.
        if let Ok(mut seen) = self.seen.try_lock() {
            let stamps = stamps(&self.files);
            if stamps != seen.stamps || seen.read_at.elapsed() >= RECHECK {
                self.look(&mut seen, stamps);
            }
        }
        self.current.load_full()
    }

    /// Looks at the files now.
    pub(super) fn reload(&self) {
        let mut seen = self.lock();
        self.look(&mut seen, stamps(&self.files));
    }

    fn look(&self, seen: &mut Seen, stamps: Vec<Option<Stamp>>) {
        seen.stamps = stamps;
        seen.read_at = Instant::now();
        match self.make_anew(seen) {
            Ok(true) => {
                seen.told = None;
                events::config_reloaded(&self.names());
            }
            Ok(false) => {}
            Err(error) => {
                let fault = super::super::cause(&error);
                if seen.told.as_deref() != Some(&fault) {
                    events::config_reload_failed(&self.names(), &fault);
                    seen.told = Some(fault);
                }
            }
        }
    }

    /// Makes the value anew where the contents are others than those seen last.
    fn make_anew(&self, seen: &mut Seen) -> Result<bool, TlsError> {
        let before = seen.digest.take();
        let contents = read(&self.files)?;
        let now = Some(digest(&contents));
        seen.digest = now;
        if now == before {
            return Ok(false);
        }
        let value = (self.make)(&contents)?;
        self.current.store(Arc::new(value));
        Ok(true)
    }

    fn names(&self) -> String {
        let names: Vec<_> = self
            .files
            .iter()
            .map(|file| file.path.display().to_string())
            .collect();
        names.join(", ")
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn read(files: &[PemFile]) -> Result<Vec<Content>, TlsError> {
    files.iter().map(PemFile::read).collect()
}

fn digest(contents: &[Content]) -> [u8; 32] {
    let mut all = Sha256::new();
    for content in contents {
        all.update(Sha256::digest(content.as_slice()));
    }
    all.finalize().into()
}

fn stamps(files: &[PemFile]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PemFile| {
        let about = fs::metadata(&file.path).ok()?;
        Some((about.modified().ok(), about.len(), number(&about)))
    };
    files.iter().map(stamp).collect()
}

/// Tells a replaced file from the one before it.
#[cfg(unix)]
fn number(about: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(about)
}

#[cfg(not(unix))]
fn number(_: &fs::Metadata) -> u64 {
    0
}
