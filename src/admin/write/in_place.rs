//! A file that is itself a mount point, as a container's files often are: it is written in place.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::admin::error::Refused;

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
pub fn open(target: &Path) -> Result<File, Refused> {
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
pub fn copy(mut file: &File) -> io::Result<(File, Zeroizing<Vec<u8>>)> {
    let mut text = Zeroizing::new(Vec::new());
    file.read_to_end(&mut text)?;
    Ok((file.try_clone()?, text))
}

/// Replaces the text of `file`.
pub fn overwrite(mut file: &File, text: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text)?;
    file.set_len(u64::try_from(text.len()).map_err(io::Error::other)?)?;
    file.sync_all()
}
