//! A value made of files, and made again when they change.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::files::Content;
use super::{PemFile, TlsError};
use crate::grpc::cause;
use crate::telemetry::events;

type Make<T> = dyn Fn(&[Content]) -> Result<T, TlsError> + Send + Sync;

/// A value made of the contents of `files`.
///
/// Each access looks at the files first: at once where one was replaced or rewritten, and
/// once a second at the contents themselves. Contents that make no value leave the old one in
/// use, and are logged once.
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
    /// The fault that was logged, while it lasts.
    logged: Option<String>,
}

/// What changes with a file, as the system reports it without reading the file.
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
            logged: None,
        };
        Ok(Self {
            files,
            make: Box::new(make),
            current: ArcSwap::from_pointee(value),
            seen: Mutex::new(seen),
        })
    }

    /// Returns the current value, after a look at the files.
    pub(super) fn current(&self) -> Arc<T> {
        // While another call is looking, this one takes what is there.
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
        match self.remake(seen) {
            Ok(true) => {
                seen.logged = None;
                events::config_reloaded(&self.names());
            }
            Ok(false) => {}
            Err(error) => {
                let fault = cause(&error);
                if seen.logged.as_deref() != Some(&fault) {
                    events::config_reload_failed(&self.names(), &fault);
                    seen.logged = Some(fault);
                }
            }
        }
    }

    /// Makes the value again if the contents differ from those seen last.
    fn remake(&self, seen: &mut Seen) -> Result<bool, TlsError> {
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

/// Distinguishes a replaced file from the one before it.
#[cfg(unix)]
fn number(about: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(about)
}

#[cfg(not(unix))]
fn number(_: &fs::Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::telemetry::Format;
    use crate::telemetry::capture;

    fn file(path: &Path) -> PemFile {
        PemFile {
            path: path.to_owned(),
            setting: "a.setting".to_owned(),
        }
    }

    /// Makes the text of a file; one that begins with `bad` makes nothing.
    fn text(file: &PemFile, contents: &[Content]) -> Result<String, TlsError> {
        let text = String::from_utf8_lossy(&contents[0]).into_owned();
        if text.starts_with("bad") {
            return Err(TlsError::NoCertificate(file.clone()));
        }
        Ok(text)
    }

    fn watched(path: &Path) -> Watched<String> {
        let file = file(path);
        Watched::new(vec![file.clone()], move |contents| text(&file, contents)).unwrap()
    }

    #[test]
    fn changed_contents_are_in_force_at_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        fs::write(&path, "one").unwrap();
        let watched = watched(&path);

        fs::write(&path, "another").unwrap();

        assert_eq!(*watched.current(), "another");
        fs::write(&path, "ANOTHER").unwrap();
        watched.reload();
        assert_eq!(*watched.current(), "ANOTHER");
    }

    #[test]
    fn contents_that_cannot_be_used_leave_the_old_in_force_and_are_told_once() {
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let (dispatch, lines) = capture::subscriber(Format::Plain, clock);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        fs::write(&path, "good").unwrap();
        let watched = watched(&path);

        tracing::dispatcher::with_default(&dispatch, || {
            for broken in ["bad 1", "bad 22", "bad 333"] {
                fs::write(&path, broken).unwrap();
                watched.reload();
                assert_eq!(*watched.current(), "good");
            }
            let told = lines.take();
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains("configReloadFailed"), "{told:?}");
            assert!(told[0].contains("a.setting"), "{told:?}");

            fs::remove_file(&path).unwrap();
            watched.reload();
            watched.reload();
            assert_eq!(*watched.current(), "good");
            assert_eq!(lines.take().len(), 1);

            fs::write(&path, "good").unwrap();
            watched.reload();
            let told = lines.take();
            assert!(told[0].contains("configReloaded"), "{told:?}");
        });
    }

    #[test]
    fn file_that_is_missing_or_too_large_at_first_is_an_error_with_its_setting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        let made = |path: &Path| {
            let made = Watched::new(vec![file(path)], |_| Ok(()));
            cause(&made.unwrap_err())
        };

        let missing = made(&path);
        fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        let large = made(&path);

        assert!(
            missing.contains("(`a.setting`) cannot be read: "),
            "{missing}"
        );
        assert!(large.contains("is larger than 1 MiB"), "{large}");
    }
}
