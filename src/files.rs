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

/// Opens a regular file to read it; links are followed.
///
/// # Errors
///
/// When the system refuses. The kind is [`ErrorKind::IsADirectory`] for a folder, and
/// [`ErrorKind::Unsupported`] for a pipe, socket or device, which is never waited for.
pub fn open(path: &Path) -> io::Result<File> {
    regular(path, OpenOptions::new().read(true), OFlags::NONBLOCK)
}

/// Opens a file that countersign alone makes and uses, with mode 0600; a link is not followed.
///
/// What root makes belongs to the owner of its folder: the module's user must be able to use it.
///
/// # Errors
///
/// When the system refuses, or something other than a regular file has the name.
pub fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = regular(path, options.mode(0o600), flags).map_err(|error| {
        if Errno::from_io_error(&error) == Some(Errno::LOOP) {
            io::Error::other("it is a symbolic link, which is not followed here; remove it")
        } else {
            error
        }
    })?;
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
    DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    give_to_owner_of_folder(&File::open(path)?, path);
    Ok(())
}

/// Opens a file as [`open_own`] does, made if need be, and locks it until the file is closed. Another
/// holder is waited for so many times 20 ms.
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

fn regular(path: &Path, options: &mut OpenOptions, flags: OFlags) -> io::Result<File> {
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let opened = options.custom_flags(flags).open(path);
    let kind = match &opened {
        Ok(file) => file.metadata()?.file_type(),
        // What a socket says, and a pipe that is to be written and has no reader.
        Err(error) if Errno::from_io_error(error) == Some(Errno::NXIO) => {
            fs::metadata(path)?.file_type()
        }
        Err(_) => return opened,
    };
    if kind.is_dir() {
        Err(ErrorKind::IsADirectory.into())
    } else if kind.is_file() {
        opened
    } else {
        let what = "it is a pipe, socket or device";
        Err(io::Error::new(ErrorKind::Unsupported, what))
    }
}

/// Does nothing unless root made `file`; where root may not give it away, it stays root's.
fn give_to_owner_of_folder(file: &File, path: &Path) {
    let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
    if let (Some(folder), Ok(own)) = (folder, file.metadata())
        && (own.uid(), folder.uid() == 0) == (0, false)
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
        for opened in [open(&pipe), open_own(&pipe, File::options().write(true))] {
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

        let refused = lock_own(&link, 0).unwrap_err();

        assert!(refused.to_string().contains("symbolic link"), "{refused}");
        lock_own(&file, 0).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&file).unwrap(), b"kept");
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
