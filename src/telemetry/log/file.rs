//! The log file: appended to, rolled, opened again after it was moved away.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::files;

/// A file of log lines.
///
/// Opened for appending with mode 0640; a symbolic link, a pipe or a device is refused. Rolled to
/// `….1` before it passes 10 MB, with 7 rolled files kept. Each line goes to the file that has the
/// name now, so a renamed or removed file is followed by a new one. A line that cannot be written
/// whole, as on a full disk, leaves nothing behind, and the next one tries again.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    most_bytes: u64,
    most_rolled: u32,
    file: Option<File>,
}

impl LogFile {
    /// Opens the file at `path`, and makes its folder if it does not exist.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made, or the file cannot be opened or is no regular file.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Self::with_limits(path, 10 * 1024 * 1024, 7)
    }

    fn with_limits(path: PathBuf, most_bytes: u64, most_rolled: u32) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            files::make_folder(folder)?;
        }
        Ok(Self {
            file: Some(append(&path)?),
            path,
            most_bytes,
            most_rolled,
        })
    }

    /// Appends `line`, which has its line end.
    ///
    /// # Errors
    ///
    /// When the line cannot be written whole, or the file is no regular file any more.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        // It is put back once the line is written.
        let open = match self.file.take() {
            Some(file) if stands_at(&file, &self.path) => file,
            _ => append(&self.path)?,
        };
        let size = open.metadata()?.len();
        let mut file = match size {
            1.. if size.saturating_add(line.len() as u64) > self.most_bytes => self.roll(open),
            _ => open,
        };
        let size = file.metadata()?.len();
        if let Err(error) = file.write_all(line.as_bytes()) {
            // Where even this fails, the next line begins on a line of its own.
            let _ = file.set_len(size);
            return Err(error);
        }
        self.file = Some(file);
        Ok(())
    }

    /// Renames the full file and opens a new one. If that fails, it continues with the full one.
    fn roll(&self, full: File) -> File {
        for n in (1..self.most_rolled).rev() {
            // A missing file leaves a gap, no more.
            let _ = fs::rename(self.rolled(n), self.rolled(n + 1));
        }
        match fs::rename(&self.path, self.rolled(1)) {
            Ok(()) => append(&self.path).unwrap_or(full),
            Err(_) => full,
        }
    }

    fn rolled(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }
}

/// Opens the regular file at `path` for appending. What is left there of a line gets an end.
fn append(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).create(true).mode(0o640);
    let mut file = files::regular(path, &mut options, false)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if let Some(before) = length.checked_sub(1) {
        file.read_exact_at(&mut last, before)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

fn stands_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn file_is_appended_to_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/a.log");

        for line in ["one\n", "two\n"] {
            LogFile::open(path.clone()).unwrap().write(line).unwrap();
        }

        assert_eq!(lines(&path), ["one", "two"]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o007, 0);
    }

    #[test]
    fn renamed_or_removed_file_is_followed_by_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let moved = dir.path().join("b.log");
        let mut log = LogFile::open(path.clone()).unwrap();

        log.write("one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        log.write("two\n").unwrap();
        assert_eq!(
            (lines(&moved), lines(&path)),
            (vec!["one".into()], vec!["two".into()])
        );

        fs::remove_file(&path).unwrap();
        log.write("three\n").unwrap();
        log.write("four\n").unwrap();
        assert_eq!(lines(&path), ["three", "four"]);
    }

    #[test]
    fn full_file_is_rolled_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = LogFile::with_limits(path.clone(), 10, 2).unwrap();

        for line in [
            "1111\n",
            "2222\n",
            "3333\n",
            "4444\n",
            "5555\n",
            "6666\n",
            "7777 is too long\n",
        ] {
            log.write(line).unwrap();
        }

        assert_eq!(lines(&path), ["7777 is too long"]);
        assert_eq!(lines(&log.rolled(1)), ["5555", "6666"]);
        assert_eq!(lines(&log.rolled(2)), ["3333", "4444"]);
        assert!(!log.rolled(3).exists());
    }

    #[test]
    fn lost_folder_costs_lines_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/a.log");
        let mut log = LogFile::open(path.clone()).unwrap();

        fs::remove_dir_all(dir.path().join("log")).unwrap();
        for _ in 0..2 {
            log.write("lost\n").unwrap_err();
        }

        fs::create_dir(dir.path().join("log")).unwrap();
        log.write("kept\n").unwrap();
        assert_eq!(lines(&path), ["kept"]);
    }

    #[test]
    fn symlink_pipe_or_device_in_place_of_the_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.log"), dir.path().join("other"));
        fs::write(&other, "not a log\n").unwrap();
        let mut log = LogFile::open(path.clone()).unwrap();
        let mut refused = || {
            let at_start = LogFile::open(path.clone()).unwrap_err();
            let later = log.write("lost\n").unwrap_err();
            for error in [at_start, later] {
                assert!(error.to_string().contains("regular file"), "{error}");
            }
            fs::remove_file(&path).unwrap();
        };

        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        refused();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        refused();
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        refused();

        log.write("kept\n").unwrap();
        assert_eq!(lines(&path), ["kept"]);
        assert_eq!(lines(&other), ["not a log"]);
    }

    #[test]
    fn line_after_half_a_line_stands_on_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "whole\nhal").unwrap();

        let mut log = LogFile::open(path.clone()).unwrap();
        log.write("next\n").unwrap();

        assert_eq!(lines(&path), ["whole", "hal", "next"]);
    }
}
