//! A module's storage folder: one process at a time, and what it remembers.

pub(crate) mod replay;
pub(crate) mod revoked_keys;

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::files;

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

#[cfg(test)]
mod tests {
    use std::fs;

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
}
