//! Opens files without waiting, and makes those of a module's folders for its user alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;

/// Opens a regular file to read it; links are followed.
///
/// # Errors
///
/// When the system refuses. The kind is [`ErrorKind::IsADirectory`] for a folder, and
/// [`ErrorKind::Unsupported`] for a pipe, socket or device, which is never waited for.
pub fn open(path: &Path) -> io::Result<File> {
    regular(path, OpenOptions::new().read(true), true)
}

/// Opens a file that countersign alone makes and uses, to read it; a link is not followed.
/// One that others may write gets mode 0600.
///
/// # Errors
///
/// When the system refuses, or something other than a regular file has the name.
pub fn read_own(path: &Path) -> io::Result<File> {
    let file = regular(path, OpenOptions::new().read(true), false)?;
    if file.metadata()?.mode() & 0o022 != 0 {
        // On a read-only volume it cannot be, and no one can write there.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
    }
    Ok(file)
}

/// Opens a file that countersign alone makes and uses, to write it, with mode 0600; a link is not
/// followed.
///
/// What root makes belongs to the owner of its folder: the module's user must be able to use it.
///
/// # Errors
///
/// When the system refuses, or something other than a regular file has the name.
pub fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = regular(path, options.mode(0o600), false)?;
    let about = file.metadata()?;
    if about.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    if about.nlink() == 1 {
        give_to_owner_of_folder(&file, path);
    }
    Ok(file)
}

/// Makes a folder and those above it, 0750 or tighter.
///
/// # Errors
///
/// When the system refuses.
pub fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|error| explained(path, error))?;
    give_to_owner_of_folder(&File::open(path)?, path);
    Ok(())
}

/// Opens a file as [`open_own`] does, made if need be, and locks it until the file is closed. While
/// another holder has it, tries again every 20 ms, `patience` times.
///
/// # Errors
///
/// When the system refuses; with the kind [`ErrorKind::WouldBlock`] if another process holds it.
pub fn lock_own(path: &Path, mut patience: u32) -> io::Result<File> {
    let mut options = File::options();
    let file = open_own(path, options.read(true).write(true).create(true))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if patience > 0 => patience -= 1,
            Err(error) => return Err(error.into()),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Opens a regular file as `options` say, and waits for nothing else.
///
/// # Errors
///
/// As [`open`]; where links are not followed, one is of the kind [`ErrorKind::Unsupported`] too.
pub fn regular(path: &Path, options: &mut OpenOptions, follows_links: bool) -> io::Result<File> {
    let mut flags = OFlags::NONBLOCK;
    flags.set(OFlags::NOFOLLOW, !follows_links);
    let opened = options.custom_flags(flags.bits().cast_signed()).open(path);
    let what = match &opened {
        Ok(file) if file.metadata()?.is_file() => return opened,
        Ok(file) if file.metadata()?.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(_) => "a pipe, socket or device",
        Err(error) => match Errno::from_io_error(error) {
            // What a socket says, and a pipe that is to be written and has no reader.
            Some(Errno::NXIO) => "a pipe, socket or device",
            Some(Errno::LOOP) if !follows_links => "a symbolic link, which is not followed here",
            _ => return opened.map_err(|error| explained(path, error)),
        },
    };
    let what = format!("it is {what}; only a regular file is used");
    Err(io::Error::new(ErrorKind::Unsupported, what))
}

/// Adds to `error` which file or folder on the way to `path` refuses this process, if permissions or
/// a read-only file system are the cause.
pub fn explained(path: &Path, error: io::Error) -> io::Error {
    let user = geteuid();
    // Itself, or the last folder on the way to it that can be seen.
    let mut seen = path.ancestors().map(|place| match place.to_str() {
        Some("") => Path::new("."),
        _ => place,
    });
    let found = seen.find_map(|place| Some((place.display(), fs::metadata(place).ok()?)));
    let text = match (Errno::from_io_error(&error), found) {
        (Some(Errno::ACCESS), Some((place, about))) => format!(
            "permission denied to user {user}: `{place}` belongs to user {} and group {} and has mode {:04o}; \
             give user {user} access, or run as the owner",
            about.uid(),
            about.gid(),
            about.mode() & 0o7777
        ),
        (Some(Errno::ROFS), Some((place, _))) => format!(
            "`{place}` is on a read-only file system; mount a volume that user {user} may write"
        ),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

/// Does nothing unless root made `file`; where root may not give it away, it stays root's.
fn give_to_owner_of_folder(file: &File, path: &Path) {
    let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
    if let (Some(folder), Ok(own)) = (folder, file.metadata())
        && own.uid() == 0
        && folder.uid() != 0
    {
        let _ = fchown(file, Some(folder.uid()), Some(folder.gid()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_pipe_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let writing = open_own(&pipe, File::options().write(true));
        for opened in [open(&pipe), read_own(&pipe), writing] {
            assert_eq!(opened.unwrap_err().kind(), ErrorKind::Unsupported);
        }
        assert_eq!(
            open(folder.path()).unwrap_err().kind(),
            ErrorKind::IsADirectory
        );
    }

    #[test]
    fn a_link_is_no_file_of_ours_and_a_file_that_is_open_to_others_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&file, "kept").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        symlink(&file, &link).unwrap();

        for refused in [lock_own(&link, 0), read_own(&link)] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("symbolic link"), "{refused}");
        }
        lock_own(&file, 0).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }

    #[test]
    fn a_file_that_is_only_read_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "kept").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();

        let text = io::read_to_string(read_own(&file).unwrap()).unwrap();

        assert_eq!(text, "kept");
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o444);
    }

    #[test]
    fn a_file_that_others_may_write_is_tightened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "kept").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();

        read_own(&file).unwrap();

        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_lock_is_waited_for_as_long_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock_own(&path, 0).unwrap();

        let refused = lock_own(&path, 2).unwrap_err();

        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        drop(held);
        lock_own(&path, 0).unwrap();
    }
}
