//! A module's storage folder: one process at a time, up to when it may have taken tokens, and the
//! keys that it remembers as revoked.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::files;

pub(crate) mod revoked_keys;

/// Locks a storage folder for this process, until dropped or until the process ends.
///
/// The lock is the system's advisory lock on `<folder>/lock`, so it never outlives its process; the
/// holder's process ID is in the file. It does not stop programs that ignore the lock.
#[derive(Debug)]
pub struct Storage {
    pub(crate) folder: PathBuf,
    _lock: File,
}

/// Why a storage folder cannot be used.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process holds it.
    #[error("{} is in use by {}", folder.display(), holder(*pid))]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The holder's process ID, if its file has it.
        pid: Option<u32>,
    },
    /// The folder or its lock file cannot be made or read.
    #[error("cannot use the storage folder {}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

crate::failure::debug_as_text!(StorageError);

impl Storage {
    /// Takes `folder`, and makes it if it does not exist.
    ///
    /// # Errors
    ///
    /// When another process holds the folder, or it cannot be made or written to.
    pub fn lock(folder: &Path) -> Result<Self, StorageError> {
        Self::lock_as(folder, "lock")
    }

    /// Takes the lock `name` in `folder`, and makes the folder if it does not exist.
    fn lock_as(folder: &Path, name: &str) -> Result<Self, StorageError> {
        let failed = |source| StorageError::Io {
            folder: folder.to_owned(),
            source,
        };
        files::make_folder(folder).map_err(failed)?;
        let path = folder.join(name);
        let mut lock = files::lock_own(&path, 0).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => StorageError::InUse {
                folder: folder.to_owned(),
                pid: pid_in(&path),
            },
            _ => StorageError::of(&path, &error),
        })?;
        let pid = format!("{}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(pid.as_bytes()))
            .map_err(failed)?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }
}

impl StorageError {
    /// Reports `error` of the file at `path` in the folder.
    pub(crate) fn of(path: &Path, error: &io::Error) -> Self {
        let text = format!("`{}`: {error}", path.display());
        Self::Io {
            folder: path.parent().unwrap_or(path).to_owned(),
            source: io::Error::new(error.kind(), text),
        }
    }
}

fn pid_in(path: &Path) -> Option<u32> {
    let mut text = String::new();
    files::open(path)
        .ok()?
        .take(MAX_PID_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    text.trim().parse().ok()
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

const MAX_PID_BYTES: u64 = 32;

/// The watermark in `<storage>/replay-watermark`: milliseconds since 1970. One process holds it.
#[derive(Debug)]
pub(crate) struct Watermark {
    file: File,
    /// What the file has.
    pub kept: SystemTime,
    _lock: Storage,
}

/// How far beyond the time it must cover a watermark is written. It is written again once half of
/// that is left.
const AHEAD: Duration = Duration::from_secs(2);

impl Watermark {
    /// Takes the watermark in the folder `storage`; it is 1970 if the file is new.
    ///
    /// # Errors
    ///
    /// When another process holds it, or it cannot be read or written.
    pub fn hold(storage: &Path) -> Result<Self, StorageError> {
        let lock = Storage::lock_as(storage, "replay-watermark.lock")?;
        let path = storage.join("replay-watermark");
        let held = kept(&path).and_then(|kept| {
            // Written beside and then renamed: a crash leaves no empty file in its place.
            let beside = storage.join("replay-watermark.new");
            let mut options = File::options();
            options.write(true).create(true).truncate(true);
            let mut watermark = Self {
                file: files::open_own(&beside, &mut options)?,
                kept,
                _lock: lock,
            };
            // A full disk is found now.
            watermark.write(kept)?;
            fs::rename(&beside, &path)?;
            File::open(storage)?.sync_all()?;
            Ok(watermark)
        });
        held.map_err(|error| StorageError::of(&path, &error))
    }

    /// Returns `true` if a file that has `kept` is to be written, so that it soon covers more than
    /// `time`.
    pub fn is_due(time: SystemTime, kept: SystemTime) -> bool {
        time + AHEAD / 2 > kept
    }

    /// Makes it cover `time`, and what comes soon after it.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn cover(&mut self, time: SystemTime) -> io::Result<()> {
        if !Self::is_due(time, self.kept) {
            return Ok(());
        }
        self.write(time + AHEAD)
    }

    fn write(&mut self, kept: SystemTime) -> io::Result<()> {
        let since = kept.duration_since(SystemTime::UNIX_EPOCH);
        let milliseconds = since.map_err(io::Error::other)?.as_millis();
        // Always of one length, so that one write replaces the old one.
        let text = format!("{milliseconds:020}\n");
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.sync_data()?;
        self.kept = kept;
        Ok(())
    }
}

#[cfg(test)]
impl Watermark {
    /// Has every write fail, as on a broken disk.
    pub fn break_for_tests(&mut self) {
        self.file = File::open("/dev/null").unwrap();
    }
}

/// A use of a token, claimed among several processes that take each token once.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "etcd"),
    expect(dead_code, reason = "only etcd is shared")
)]
pub(crate) struct Claim {
    /// A hash of the key that signed and of the `jti`.
    pub id: UseId,
    /// Takes `true` if no process claimed it before.
    pub done: oneshot::Sender<Result<bool, Box<dyn Error + Send + Sync>>>,
}

/// What a use is claimed by.
pub(crate) type UseId = [u8; 32];

/// Reads the time in the file at `path`; 1970 if the file does not exist. An empty file is not new.
fn kept(path: &Path) -> io::Result<SystemTime> {
    let mut text = String::new();
    match files::read_own(path) {
        Ok(file) => file.take(64).read_to_string(&mut text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(SystemTime::UNIX_EPOCH),
        Err(error) => return Err(error),
    };
    let since = text.trim_end().parse().ok().map(Duration::from_millis);
    let kept = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    kept.ok_or_else(|| {
        io::Error::other("it is not a time in milliseconds; if the clock is right, remove the file")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn second_holder_learns_the_first_ones_pid() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("storage");
        let first = Storage::lock(&folder).unwrap();

        let second = Storage::lock(&folder).unwrap_err();

        let expected = Some(std::process::id());
        assert!(
            matches!(second, StorageError::InUse { pid, .. } if pid == expected),
            "{second}"
        );
        drop(first);
        Storage::lock(&folder).unwrap();
    }

    #[test]
    fn lock_left_by_a_dead_process_is_taken_over() {
        let home = tempfile::tempdir().unwrap();
        fs::write(
            home.path().join("lock"),
            "999999999 and more than the new one",
        )
        .unwrap();

        let _held = Storage::lock(home.path()).unwrap();

        let text = fs::read_to_string(home.path().join("lock")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn folder_that_cannot_be_made_is_named() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("storage"), "a file").unwrap();

        let error = Storage::lock(&home.path().join("storage")).unwrap_err();

        assert!(error.to_string().contains("storage"), "{error}");
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_refused_and_its_target_is_untouched() {
        let home = tempfile::tempdir().unwrap();
        let other = home.path().join("other");
        fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, home.path().join("lock")).unwrap();

        let error = Storage::lock(home.path()).unwrap_err();

        assert!(matches!(error, StorageError::Io { .. }), "{error}");
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
    }

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn watermark_is_kept_from_run_to_run_and_never_lowered() {
        let home = tempfile::tempdir().unwrap();
        let mut watermark = Watermark::hold(home.path()).unwrap();
        assert_eq!(watermark.kept, SystemTime::UNIX_EPOCH);

        watermark.cover(at(1_000.5)).unwrap();
        watermark.cover(at(7.0)).unwrap();
        drop(watermark);

        let watermark = Watermark::hold(home.path()).unwrap();
        assert_eq!(watermark.kept, at(1_002.5));
        let about = fs::metadata(home.path().join("replay-watermark")).unwrap();
        assert_eq!(about.mode() & 0o777, 0o600);
    }

    #[test]
    fn an_emptied_watermark_is_not_a_new_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("replay-watermark");
        Watermark::hold(home.path())
            .unwrap()
            .cover(at(9.0))
            .unwrap();
        fs::write(&path, "").unwrap();

        let refused = Watermark::hold(home.path()).unwrap_err();

        let text = Error::source(&refused).unwrap().to_string();
        assert!(text.contains("remove the file"), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        fs::remove_file(&path).unwrap();
        assert_eq!(Watermark::hold(home.path()).unwrap().kept, at(0.0));
        // Nothing is left beside it.
        let names = fs::read_dir(home.path()).unwrap();
        assert_eq!(names.count(), 2);
    }

    #[test]
    fn watermark_is_written_at_once_so_that_a_full_disk_is_found_at_the_start() {
        let home = tempfile::tempdir().unwrap();

        let _held = Watermark::hold(home.path()).unwrap();

        let text = fs::read_to_string(home.path().join("replay-watermark")).unwrap();
        assert_eq!(text, "00000000000000000000\n");
    }

    #[test]
    fn second_holder_is_refused_with_the_first_ones_pid() {
        let home = tempfile::tempdir().unwrap();
        let _held = Watermark::hold(home.path()).unwrap();

        let refused = Watermark::hold(home.path()).unwrap_err();

        let pid = std::process::id();
        let expected = format!("{} is in use by process {pid}", home.path().display());
        assert_eq!(refused.to_string(), expected);
    }

    #[test]
    fn watermark_that_cannot_be_read_is_not_passed_over() {
        let home = tempfile::tempdir().unwrap();
        for text in ["", "\n", "yesterday", "-1", "99999999999999999999999"] {
            fs::write(home.path().join("replay-watermark"), text).unwrap();

            let refused = Watermark::hold(home.path()).unwrap_err();

            assert!(matches!(refused, StorageError::Io { .. }), "{refused}");
        }
    }
}
