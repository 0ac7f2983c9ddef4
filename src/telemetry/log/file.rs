//! The log file: appended to, rolled, opened again after it was moved away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file of log lines.
///
/// Opened for appending with mode 0640. Rolled to `….1` before it passes 10 MB, with 7 rolled
/// files kept. Each line goes to the file that has the name now, so a renamed or removed
/// file is followed by a new one. Writing never fails: a line that cannot be written, as on a full
/// disk, is dropped, and the next one tries again.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    most_bytes: u64,
    most_rolled: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    /// The last write ended within a line.
    torn: bool,
}

impl LogFile {
    /// Opens the file at `path`, and makes its folder if it does not exist.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made or the file not be opened.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        Self::with_limits(path, 10 * 1024 * 1024, 7)
    }

    fn with_limits(path: PathBuf, most_bytes: u64, most_rolled: u32) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = Some(append(&path)?);
        Ok(Self {
            path,
            most_bytes,
            most_rolled,
            state: Mutex::new(State {
                file,
                ..State::default()
            }),
        })
    }

    /// Appends `line` and a line end.
    pub fn write_line(&self, line: &str) {
        // A line that cannot be written is dropped; the next one opens the file again.
        let _ = self.write(&mut self.state(), line);
    }

    /// Opens the file again at the next line.
    pub fn reopen(&self) {
        self.state().file = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the open file out of `state`, and puts it back once the line is written.
    fn write(&self, state: &mut State, line: &str) -> io::Result<()> {
        let open = match state.file.take() {
            Some(file) if stands_at(&file, &self.path) => file,
            _ => append(&self.path)?,
        };
        let size = open.metadata()?.len();
        let grown = size.saturating_add(line.len() as u64 + 1);
        let mut file = match size {
            1.. if grown > self.most_bytes => self.roll(open),
            _ => open,
        };
        let mut text = String::with_capacity(line.len() + 2);
        if state.torn {
            text.push('\n');
        }
        text.push_str(line);
        text.push('\n');
        // Until the whole line is out, whatever comes next begins with a line end.
        state.torn = true;
        file.write_all(text.as_bytes())?;
        state.torn = false;
        state.file = Some(file);
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

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn stands_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn file_is_appended_to_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/a.log");

        LogFile::open(path.clone()).unwrap().write_line("one");
        LogFile::open(path.clone()).unwrap().write_line("two");

        assert_eq!(lines(&path), ["one", "two"]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o007, 0);
    }

    #[test]
    fn renamed_or_removed_file_is_followed_by_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let moved = dir.path().join("b.log");
        let log = LogFile::open(path.clone()).unwrap();

        log.write_line("one");
        fs::rename(&path, &moved).unwrap();
        log.write_line("two");
        assert_eq!(
            (lines(&moved), lines(&path)),
            (vec!["one".into()], vec!["two".into()])
        );

        fs::remove_file(&path).unwrap();
        log.write_line("three");
        log.reopen();
        log.write_line("four");
        assert_eq!(lines(&path), ["three", "four"]);
    }

    #[test]
    fn full_file_is_rolled_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let log = LogFile::with_limits(path.clone(), 10, 2).unwrap();

        for line in [
            "1111",
            "2222",
            "3333",
            "4444",
            "5555",
            "6666",
            "7777 is too long",
        ] {
            log.write_line(line);
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
        let log = LogFile::open(path.clone()).unwrap();

        fs::remove_dir_all(dir.path().join("log")).unwrap();
        log.write_line("lost");
        assert!(log.write(&mut log.state(), "lost").is_err());

        fs::create_dir(dir.path().join("log")).unwrap();
        log.write_line("kept");
        assert_eq!(lines(&path), ["kept"]);
    }

    #[test]
    fn full_disk_is_survived() {
        let log = LogFile {
            path: PathBuf::from("/dev/full"),
            most_bytes: 10,
            most_rolled: 2,
            state: Mutex::default(),
        };

        for line in ["one", "two"] {
            log.write_line(line);
            assert!(log.write(&mut log.state(), line).is_err());
        }
    }
}
