//! Writing files that hold keys: whole or not at all, and never open to others on the way.
//!
//! A new text is written to a file of its own beside the old one, mode 0600 before its first byte,
//! flushed to the disk, then renamed over the old one; a crash leaves the old or the new text. A
//! file that is itself a mount point cannot be renamed over: it is written in place.

mod rights;

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};
use zeroize::Zeroizing;

use super::error::{Kind, Refused};
use crate::files;
use crate::properties::{ContentDigest, digest};
use rights::carry_over;
pub use rights::{Privacy, mode_after};

/// Writes `bytes` to `path`, whole or not at all. Symbolic links are followed.
///
/// With `force` a file that is there is replaced, keeping its owner, and its mode as far as
/// [`Privacy`] lets it.
///
/// # Errors
///
/// When the file is there and must not be replaced, or the system refuses.
pub fn write(path: &Path, bytes: &[u8], privacy: Privacy, force: bool) -> Result<(), Refused> {
    let target = follow(path)?;
    // Only where changes of settings lock the folder does anything sweep it.
    let is_locked = folder_of(&target).join(LOCK).exists();
    let _lock = is_locked
        .then(|| FolderLock::acquire(&target))
        .transpose()?;
    let staged = Staged::new(path, bytes, privacy, None)?;
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
    for mut file in staged {
        if done.iter().any(|part| part.target == file.target) {
            // Its first part was written just now.
            file.expected = None;
        }
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
    new: New,
    /// The content that it may replace; any if it is not known.
    expected: Option<ContentDigest>,
}

#[derive(Debug)]
enum New {
    Beside(NamedTempFile),
    /// The file itself, its new text and its new mode.
    InPlace(File, Zeroizing<Vec<u8>>, Permissions),
}

impl Staged {
    /// Writes `bytes` beside `path` and flushes them to the disk. They will replace only the
    /// content that is `expected`, or any content if that is `None`.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written to, or the file's owner, ACL or another attribute cannot
    /// be kept.
    pub fn new(
        path: &Path,
        bytes: &[u8],
        privacy: Privacy,
        expected: Option<ContentDigest>,
    ) -> Result<Self, Refused> {
        let target = follow(path)?;
        let old = match files::open(&target) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            old => Some(old.map_err(Refused::not_written(&target))?),
        };
        let new = if let Some(file) = old.filter(is_mount_point) {
            let about = file.metadata().map_err(Refused::not_written(&target))?;
            let mode = Permissions::from_mode(mode_after(about.mode(), privacy));
            New::InPlace(open_in_place(&target)?, bytes.to_vec().into(), mode)
        } else {
            let new = write_beside(&target, bytes, privacy);
            New::Beside(new.map_err(Refused::not_written(&target))?)
        };
        kill_point();
        Ok(Self {
            target,
            new,
            expected,
        })
    }

    /// Puts the text in place if nothing is there.
    fn commit_new(self) -> Result<(), Refused> {
        let Self { target, new, .. } = self;
        let New::Beside(new) = new else {
            return Err(Refused::exists(&target));
        };
        new.persist_noclobber(&target)
            .map_err(|error| match error.error.kind() {
                ErrorKind::AlreadyExists => Refused::exists(&target),
                _ => Refused::not_written(&target)(error.error),
            })?;
        sync_folder(&target).map_err(Refused::not_written(&target))
    }

    /// Puts the text in place of what is there.
    fn commit(self) -> Result<Committed, Refused> {
        let (target, expected) = (self.target, self.expected);
        let kept = match &self.new {
            New::Beside(_) => keep(&target),
            New::InPlace(file, ..) => copy(file).map(|(file, old)| Old::InPlace(file, old)),
        };
        let unchanged = kept.and_then(|old| Ok(is_as_read(&target, expected)?.then_some(old)));
        let old = unchanged
            .map_err(Refused::not_written(&target))?
            .ok_or_else(|| Refused::changed(&target))?;
        kill_point();
        let written = match self.new {
            New::Beside(new) => new.persist(&target).map(drop).map_err(|error| error.error),
            New::InPlace(file, text, mode) => file
                .set_permissions(mode)
                .and_then(|()| overwrite(&file, &text)),
        }
        .and_then(|()| sync_folder(&target))
        .and_then(|()| match &old {
            // A line may have been appended to the old file until then.
            Old::Beside(old) => is_as_read(old, expected),
            Old::InPlace(..) | Old::None => Ok(true),
        });
        let committed = Committed { target, old };
        if let Ok(true) = written {
            return Ok(committed);
        }
        let refused = match written {
            Err(error) => Refused::not_written(&committed.target)(error),
            Ok(_) => Refused::changed(&committed.target),
        };
        committed.undo()?;
        Err(refused)
    }
}

/// Returns `true` if the file at `path` has the content that is `expected`, if one is.
fn is_as_read(path: &Path, expected: Option<ContentDigest>) -> io::Result<bool> {
    let Some(expected) = expected else {
        return Ok(true);
    };
    Ok(digest(&mut files::open(path)?)? == expected)
}

/// A file that has its new text, and the way back.
struct Committed {
    target: PathBuf,
    old: Old,
}

/// The way back to an old text.
enum Old {
    /// There was no file.
    None,
    /// Another name of the old file.
    Beside(TempPath),
    /// The file itself, and its old text.
    InPlace(File, Zeroizing<Vec<u8>>),
}

impl Committed {
    /// Puts the old file back.
    fn undo(self) -> Result<(), Refused> {
        let result = match self.old {
            Old::Beside(old) => old.persist(&self.target).map_err(|error| error.error),
            Old::InPlace(file, old) => overwrite(&file, &old),
            Old::None => match fs::remove_file(&self.target) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
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
        let lock = folder.join(LOCK);
        // Not the folder itself: each of its readers could hold that.
        files::lock_own(&lock, 0)
            .map(Self)
            .map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => Refused::busy(folder),
                _ => Refused::not_written(&lock)(error),
            })
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

/// Returns where `path` leads to: two paths to one file, which need not be there, nor its folder,
/// lead to the same place.
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
/// over the rights of the file at `target`.
fn write_beside(target: &Path, bytes: &[u8], privacy: Privacy) -> io::Result<NamedTempFile> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut new = named_beside(target, |name| options.open(name))?;
    // Not by way of `NamedTempFile`, which adds its own path to errors.
    new.as_file_mut().write_all(bytes)?;
    match files::open(target) {
        Ok(old) => carry_over(&old, new.as_file(), privacy)?,
        Err(_) if privacy == Privacy::Public => {
            new.as_file()
                .set_permissions(Permissions::from_mode(0o644))?;
        }
        // As it was made.
        Err(_) => {}
    }
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
    let (mut failed, folder) = (None, folder_of(target));
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).rand_bytes(RANDOM);
    let made = builder.make_in(folder, |name| {
        create(name).inspect_err(|error| failed = error.raw_os_error())
    });
    made.map_err(|error| {
        let cause = failed.map_or(error, io::Error::from_raw_os_error);
        files::explained(folder, cause)
    })
}

/// Gives the file at `target` a second name, so that it outlives being replaced.
fn keep(target: &Path) -> io::Result<Old> {
    match named_beside(target, |name| fs::hard_link(target, name)) {
        Ok(second) => Ok(Old::Beside(second.into_temp_path())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Old::None),
        Err(error) => Err(error),
    }
}

/// The name of the file that is locked, in each folder.
const LOCK: &str = ".countersign.lock";

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

/// Returns `true` if `file` is the root of a mount.
#[cfg(target_os = "linux")]
pub fn is_mount_point(file: &File) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};

    statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|about| about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Returns `true` if `file` is the root of a mount.
#[cfg(not(target_os = "linux"))]
pub fn is_mount_point(_: &File) -> bool {
    false
}

/// Opens the file at `target` to write it in place, and locks it.
fn open_in_place(target: &Path) -> Result<File, Refused> {
    let opened = File::options().read(true).write(true).open(target);
    let file = opened.map_err(|error| {
        Refused::not_written(target)(error).with_help(
            "it is a mount point: write the lines that `--dry-run` shows where it comes from",
        )
    })?;
    file.try_lock().map_err(|_held| Refused::busy(target))?;
    Ok(file)
}

/// Returns the file once more, and its text.
fn copy(mut file: &File) -> io::Result<(File, Zeroizing<Vec<u8>>)> {
    let mut text = Zeroizing::new(Vec::new());
    file.read_to_end(&mut text)?;
    Ok((file.try_clone()?, text))
}

/// Replaces the text of `file`.
fn overwrite(mut file: &File, text: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text)?;
    file.set_len(u64::try_from(text.len()).map_err(io::Error::other)?)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
