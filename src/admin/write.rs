//! Writing files that hold keys: whole or not at all, and never open to others on the way.
//!
//! A new text is written to a file of its own beside the old one, mode 0600 before its first byte,
//! flushed to the disk, then renamed over the old one; a crash leaves the old or the new text.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::error::{Kind, Refused};

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Privacy {
    /// A private key goes in among its settings: a new file is 0600; an old one keeps what its group may
    /// read, and loses what its group may write and what others may do with it.
    Private,
    /// It is a private key: 0600, whatever an old one was.
    Owner,
    /// It holds public things: a new file is 0644; an old one keeps its mode.
    Public,
}

/// Writes `bytes` to `path`, whole or not at all. Symbolic links are followed.
///
/// With `force` a file that is there is replaced, keeping its owner, and its mode as far as
/// [`Privacy`] lets it.
///
/// # Errors
///
/// When the file is there and must not be replaced, or the system refuses.
pub fn write(path: &Path, bytes: &[u8], privacy: Privacy, force: bool) -> Result<(), Refused> {
    let _lock = FolderLock::acquire(&follow(path)?)?;
    let staged = Staged::new(path, bytes, privacy)?;
    if force {
        staged.commit().map(drop)
    } else {
        staged.commit_new()
    }
}

/// Writes several files so that either all of them have their new text or none.
///
/// Every text is on the disk under another name before the first file is replaced. If a later
/// one cannot be replaced, the earlier ones are put back.
///
/// # Errors
///
/// When a file cannot be replaced, or an earlier one could not be put back.
pub fn commit_all(staged: Vec<Staged>) -> Result<(), Refused> {
    let mut done: Vec<Committed> = Vec::new();
    kill_point();
    for file in staged {
        match file.commit() {
            Ok(committed) => {
                done.push(committed);
                kill_point();
            }
            Err(error) => {
                for committed in done.into_iter().rev() {
                    committed.undo()?;
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// A new text that lies beside the file it will replace. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    new: NamedTempFile,
}

impl Staged {
    /// Writes `bytes` beside `path` and flushes them to the disk.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written to, or the file's owner cannot be kept.
    pub fn new(path: &Path, bytes: &[u8], privacy: Privacy) -> Result<Self, Refused> {
        let target = follow(path)?;
        let new = write_beside(&target, bytes, privacy).map_err(Refused::not_written(&target))?;
        kill_point();
        Ok(Self { target, new })
    }

    /// Puts the text in place if nothing is there.
    fn commit_new(self) -> Result<(), Refused> {
        let Self { target, new } = self;
        new.persist_noclobber(&target)
            .map_err(|error| match error.error.kind() {
                ErrorKind::AlreadyExists => Refused::exists(&target),
                _ => Refused::not_written(&target)(error.error),
            })?;
        sync_folder(&target).map_err(Refused::not_written(&target))
    }

    /// Puts the text in place of what is there.
    fn commit(self) -> Result<Committed, Refused> {
        let Self { target, new } = self;
        let old = keep(&target).map_err(Refused::not_written(&target))?;
        kill_point();
        new.persist(&target)
            .map_err(|error| Refused::not_written(&target)(error.error))?;
        let committed = Committed { target, old };
        if let Err(error) = sync_folder(&committed.target) {
            let error = Refused::not_written(&committed.target)(error);
            committed.undo()?;
            return Err(error);
        }
        Ok(committed)
    }
}

/// A file that has its new text, and the way back.
struct Committed {
    target: PathBuf,
    /// Another name of the old file; `None` if there was no file.
    old: Option<TempPath>,
}

impl Committed {
    /// Puts the old file back.
    fn undo(self) -> Result<(), Refused> {
        let result = match self.old {
            Some(old) => old.persist(&self.target).map_err(|error| error.error),
            None => fs::remove_file(&self.target),
        };
        result.map_err(|error| {
            let path = self.target.display();
            let message = format!(
                "`{path}` was written, the other file could not be, and the old text could not be \
                 put back"
            );
            Refused::caused(Kind::NotWritten, message)(error)
        })
    }
}

/// A folder in which no other countersign writes until this is dropped.
#[derive(Debug)]
pub struct FolderLock(File);

impl FolderLock {
    /// Locks the folder of `target`, for as long as the value lives.
    ///
    /// # Errors
    ///
    /// When another process holds it, or the folder cannot be opened.
    pub fn acquire(target: &Path) -> Result<Self, Refused> {
        let folder = folder_of(target);
        let file = File::open(folder).map_err(Refused::not_written(target))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                let shown = folder.display();
                let message = format!("another countersign process is writing in `{shown}`");
                Err(Refused::new(Kind::Busy, message).with_help("run the command again"))
            }
            Err(TryLockError::Error(error)) => Err(Refused::not_written(target)(error)),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // A process that was just started shares the file until it runs its own program. Closing it
        // says the same, if later.
        let _ = self.0.unlock();
    }
}

/// Returns the folder of `target`.
pub fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Follows symbolic links, to a file that need not be there.
///
/// # Errors
///
/// When the links do not end.
pub fn follow(path: &Path) -> Result<PathBuf, Refused> {
    const MOST_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            Ok(next) => target = folder_of(&target).join(next),
            Err(_) => return Ok(target),
        }
    }
    let message = format!(
        "`{}` is a symbolic link that leads to no file",
        path.display()
    );
    Err(Refused::new(Kind::NotWritten, message))
}

/// Returns where `path` leads to: two paths to one file, which need not be there, nor its folder, lead
/// to the same place.
///
/// # Errors
///
/// When symbolic links do not end.
pub fn place_of(path: &Path) -> Result<PathBuf, Refused> {
    let mut place = fs::canonicalize(".").unwrap_or_default();
    for part in follow(path)?.components() {
        // `..` leaves a folder that is not there, too.
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
        // Links are followed as far as there is something.
        if let Ok(found) = fs::canonicalize(&place) {
            place = found;
        }
    }
    Ok(place)
}

/// Writes `bytes` to a file in the folder of `target`, readable by its owner alone until it takes
/// over the mode of the file at `target`.
fn write_beside(target: &Path, bytes: &[u8], privacy: Privacy) -> io::Result<NamedTempFile> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut new = named_beside(target, |name| options.open(name))?;
    // Not by way of `NamedTempFile`, which adds its own path to errors.
    new.as_file_mut().write_all(bytes)?;
    take_over(new.as_file(), target, privacy)?;
    new.as_file().sync_all()?;
    Ok(new)
}

/// Makes something with a new name in the folder of `target`.
///
/// The error is the system's: the one of `tempfile` names a file that does not exist.
fn named_beside<T>(
    target: &Path,
    mut create: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<NamedTempFile<T>> {
    let mut failed = None;
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).rand_bytes(RANDOM);
    let made = builder.make_in(folder_of(target), |name| {
        create(name).inspect_err(|error| failed = error.raw_os_error())
    });
    made.map_err(|error| failed.map_or(error, io::Error::from_raw_os_error))
}

/// Gives the file at `target` a second name, so that it outlives being replaced.
fn keep(target: &Path) -> io::Result<Option<TempPath>> {
    match named_beside(target, |name| fs::hard_link(target, name)) {
        Ok(second) => Ok(Some(second.into_temp_path())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Prefix of the names that exist only while something is being written.
const PREFIX: &str = ".countersign-";

/// How many random characters follow.
const RANDOM: usize = 6;

/// Removes what a process that was killed while it wrote in `folder` left behind: a new text that
/// was not put in place, or the second name of an old one. Either may hold a private key.
///
/// The caller holds the folder's lock. What cannot be removed stays.
pub(super) fn sweep(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten();
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let is_ours = random.is_some_and(|random| {
            random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if is_file && is_ours {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Gives `new` the owner and mode of the file at `target`, or the mode of a new file.
fn take_over(new: &File, target: &Path, privacy: Privacy) -> io::Result<()> {
    let mode = match fs::metadata(target) {
        Ok(old) => {
            let own = new.metadata()?;
            if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                fchown(new, Some(old.uid()), Some(old.gid()))?;
            }
            mode_after(old.mode(), privacy)
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Err(_) if privacy == Privacy::Public => 0o644,
        Err(_) => 0o600,
    };
    new.set_permissions(Permissions::from_mode(mode))
}

/// Returns the permission bits of a file after it was written.
pub fn mode_after(mode: u32, privacy: Privacy) -> u32 {
    match privacy {
        Privacy::Private => mode & 0o740,
        Privacy::Owner => 0o600,
        Privacy::Public => mode & 0o777,
    }
}

/// Makes the names in the folder of `target` survive a crash.
fn sync_folder(target: &Path) -> io::Result<()> {
    File::open(folder_of(target))?.sync_all()
}

/// Where a test may kill the process; nothing else can.
#[cfg(not(test))]
fn kill_point() {}

#[cfg(test)]
use kill::kill_point;

#[cfg(test)]
#[path = "write/tests/kill.rs"]
pub(crate) mod kill;

#[cfg(test)]
mod tests;
