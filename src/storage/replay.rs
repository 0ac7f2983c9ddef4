//! The time up to which a module may have taken tokens, kept from run to run.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Storage, StorageError};
use crate::files;

/// The watermark in `<storage>/replay-watermark`: milliseconds since 1970. One process holds it.
#[derive(Debug)]
pub struct Watermark {
    file: File,
    /// What the file has.
    pub kept: SystemTime,
    _lock: Storage,
}

/// How far beyond the time it must cover a watermark is written, so that it is not written more
/// often.
const AHEAD: Duration = Duration::from_secs(1);

impl Watermark {
    /// Takes the watermark in the folder `storage`; it is 1970 if the file is new.
    ///
    /// # Errors
    ///
    /// When another process holds it, or it cannot be read or written.
    pub fn hold(storage: &Path) -> Result<Self, StorageError> {
        let lock = Storage::lock_as(storage, "replay-watermark.lock")?;
        let path = storage.join("replay-watermark");
        let held = open(&path).and_then(|(file, kept)| {
            let mut watermark = Self {
                file,
                kept,
                _lock: lock,
            };
            // A full disk is found now.
            watermark.write(kept)?;
            Ok(watermark)
        });
        held.map_err(|error| StorageError::of(&path, &error))
    }

    /// Makes it cover `time`.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn cover(&mut self, time: SystemTime) -> io::Result<()> {
        if time <= self.kept {
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
        self.kept = kept;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, SystemTime)> {
    let mut options = File::options();
    options.read(true).write(true).create(true);
    let file = files::open_own(path, &mut options)?;
    let mut text = String::new();
    (&file).take(64).read_to_string(&mut text)?;
    let milliseconds = match text.trim_end() {
        "" => Some(0),
        text => text.parse().ok(),
    };
    let since = milliseconds.map(Duration::from_millis);
    match since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)) {
        Some(kept) => Ok((file, kept)),
        None => Err(io::Error::other("it is not a time in milliseconds")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

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
        assert_eq!(watermark.kept, at(1_001.5));
        let about = fs::metadata(home.path().join("replay-watermark")).unwrap();
        assert_eq!(about.mode() & 0o777, 0o600);
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
        for text in ["yesterday", "-1", "99999999999999999999999"] {
            fs::write(home.path().join("replay-watermark"), text).unwrap();

            let refused = Watermark::hold(home.path()).unwrap_err();

            assert!(matches!(refused, StorageError::Io { .. }), "{refused}");
        }
    }
}
