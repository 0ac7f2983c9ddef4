//! The keys that a module's home remembers as revoked, whatever its files say later.
//!
//! `<storage>/revoked-keys` has one line each: `revoked|undone <SPKI hash> <time> <deployment>`. Of
//! one key the last line decides. Lines are only ever added, under the lock `revoked-keys.lock`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::clock::from_rfc3339;
use crate::files;
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;

/// What a line says of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is revoked.
    Revoked,
    /// It is trusted again where a file says so.
    Undone,
}

/// A line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    pub standing: Standing,
    pub key: Fingerprint,
    /// As RFC 3339 specifies.
    pub time: String,
    /// The deployment that had the key; nothing is decided by it.
    pub deployment: String,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standing = match self.standing {
            Standing::Revoked => "revoked",
            Standing::Undone => "undone",
        };
        let (key, time, deployment) = (self.key, &self.time, &self.deployment);
        writeln!(f, "{standing} {key} {time} {deployment}")
    }
}

/// Reads the lines of `text`. A last line that a crash cut off was never confirmed: it is passed
/// over.
///
/// # Errors
///
/// The number of a line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Record>, usize> {
    let mut records = Vec::new();
    for (at, line) in (1..).zip(text.split_inclusive('\n')) {
        match record(line.strip_suffix('\n').unwrap_or(line)) {
            Some(read) => records.push(read),
            None if !line.ends_with('\n') && is_cut_off(line) => {}
            None => return Err(at),
        }
    }
    Ok(records)
}

fn record(line: &str) -> Option<Record> {
    let fields: Vec<_> = line.split(' ').collect();
    let &[standing, key, time, deployment] = fields.as_slice() else {
        return None;
    };
    from_rfc3339(time)?;
    Some(Record {
        standing: match standing {
            "revoked" => Standing::Revoked,
            "undone" => Standing::Undone,
            _ => return None,
        },
        key: key.parse().ok()?,
        time: time.to_owned(),
        deployment: DeploymentName::new(deployment).ok()?.to_string(),
    })
}

/// Returns `true` if `line` is the beginning of a line that can be read.
fn is_cut_off(line: &str) -> bool {
    const TIME: &str = "2026-01-31T12:00:00Z";
    let whole = match line.split(' ').collect::<Vec<_>>().as_slice() {
        [word] => {
            return ["revoked", "undone"]
                .iter()
                .any(|one| one.starts_with(word));
        }
        [word, key] => format!("{word} {key:A<43} {TIME} x"),
        [word, key, time] if time.bytes().all(|byte| b"0123456789-+:.TZ".contains(&byte)) => {
            format!("{word} {key} {TIME} x")
        }
        _ => format!("{line}x"),
    };
    record(&whole).is_some()
}

/// The keys of a home's memory, each with what its last line says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Remembered(BTreeMap<Fingerprint, Standing>);

impl Remembered {
    /// Reads the memory in the folder `storage`: nothing if it does not exist.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read.
    pub fn read(storage: &Path) -> io::Result<Self> {
        match files::read_own(&path(storage)) {
            Ok(file) => Ok(Self::of(&parsed(&text(&file)?)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn of(records: &[Record]) -> Self {
        let mut all = Self::default();
        for record in records {
            all.add(record);
        }
        all
    }

    /// Returns `true` if `key` is remembered as revoked.
    pub fn has(&self, key: Fingerprint) -> bool {
        self.standing(key) == Some(Standing::Revoked)
    }

    /// Returns what the memory says of `key`, if anything.
    pub fn standing(&self, key: Fingerprint) -> Option<Standing> {
        self.0.get(&key).copied()
    }

    /// Lists the keys that are remembered as revoked, in order.
    pub fn revoked(&self) -> Vec<Fingerprint> {
        let keys = self.0.keys().copied();
        keys.filter(|key| self.has(*key)).collect()
    }

    /// Returns what a memory of `length` bytes takes, with a line for each revocation that can be
    /// taken back.
    fn room(&self, length: usize) -> usize {
        let lines = self.revoked().len().saturating_mul(LONGEST);
        length.saturating_add(lines)
    }

    /// Adds what `record` says; returns `true` if that is news.
    pub fn add(&mut self, record: &Record) -> bool {
        let standing = Some(record.standing);
        self.0.insert(record.key, record.standing) != standing
    }
}

/// Adds those of `records` that say something new to the memory in the folder `storage`, which is
/// made if need be. They are on the disk when this returns.
///
/// # Errors
///
/// When the memory cannot be read or written, or is full.
pub fn remember(storage: &Path, records: &[Record]) -> io::Result<()> {
    remember_where(storage, records, |_, _| true)
}

/// Adds as [`remember`] does, but only records that are wanted above what the memory says of their
/// key.
///
/// # Errors
///
/// As [`remember`].
pub fn remember_where(
    storage: &Path,
    records: &[Record],
    is_wanted: impl Fn(&Record, Option<Standing>) -> bool,
) -> io::Result<()> {
    files::make_folder(storage)?;
    let _lock = files::lock_own(&storage.join("revoked-keys.lock"), PATIENCE)?;
    let mut appending = File::options();
    appending.read(true).append(true).create(true);
    let mut file = files::open_own(&path(storage), &mut appending)?;
    let old = text(&file)?;
    let known = parsed(&old)?;
    let mut all = Remembered::of(&known);
    let before = all.room(old.len());
    let mut new = String::new();
    for record in records {
        if is_wanted(record, all.standing(record.key)) && all.add(record) {
            // Writing to a string cannot fail.
            let _ = write!(new, "{record}");
        }
    }
    let length = old.len().saturating_add(new.len());
    // What is taken back has its room.
    let is_more = all.room(length) > before;
    let full = if is_more && all.revoked().len() > MOST_KEYS {
        "it is full: 10000 keys"
    } else if length > MOST_BYTES || is_more && all.room(length) > MOST_BYTES {
        "it is full: 4 MiB"
    } else {
        ""
    };
    if !full.is_empty() {
        return Err(io::Error::new(ErrorKind::StorageFull, full));
    }
    if new.is_empty() {
        return Ok(());
    }
    // The last line may be one that a crash cut off.
    let whole: String = known.iter().map(ToString::to_string).collect();
    if whole.len() < old.len() {
        file.set_len(u64::try_from(whole.len()).map_err(io::Error::other)?)?;
    } else if whole.len() > old.len() {
        new.insert(0, '\n');
    }
    file.write_all(new.as_bytes())?;
    file.sync_all()?;
    File::open(storage)?.sync_all()
}

fn text(file: &File) -> io::Result<String> {
    let most = u64::try_from(MOST_BYTES).map_err(io::Error::other)?;
    let mut text = String::new();
    file.take(most.saturating_add(1))
        .read_to_string(&mut text)?;
    if text.len() > MOST_BYTES {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    Ok(text)
}

fn parsed(text: &str) -> io::Result<Vec<Record>> {
    parse(text).map_err(|line| {
        let form = "`revoked|undone <fingerprint> <time> <deployment>`";
        io::Error::other(format!("line {line} is not {form}"))
    })
}

/// Returns where the memory in the folder `storage` is.
pub fn path(storage: &Path) -> PathBuf {
    storage.join("revoked-keys")
}

/// How often the lock is asked for: for 2 s.
const PATIENCE: u32 = 100;
const MOST_KEYS: usize = 10_000;
/// The longest line that is written.
const LONGEST: usize = 128;
const MOST_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::slice;

    use super::*;

    const A: &str = "vcjAli5Xm_pvtE8ItBkd3aT_FWi_23WieMf5f-lppBI";
    const B: &str = "KBv0lrEO88ISAnmwXn6Y5jYjG9TvemuZA0yQlq7QpG0";

    fn record(standing: Standing, key: &str) -> Record {
        Record {
            standing,
            key: key.parse().unwrap(),
            time: "2027-01-15T08:00:00.250Z".to_owned(),
            deployment: "dpe-dev".to_owned(),
        }
    }

    fn remembers(folder: &Path, key: &str) -> bool {
        Remembered::read(folder).unwrap().has(key.parse().unwrap())
    }

    #[test]
    fn the_last_line_of_a_key_decides_and_what_is_known_adds_nothing() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("storage");
        let text = || fs::read_to_string(path(&folder)).unwrap();
        assert!(!remembers(&folder, A));
        // A module may have a revocation of it that it could not store.
        let undone = record(Standing::Undone, A);
        remember(&folder, slice::from_ref(&undone)).unwrap();
        assert_eq!(text(), undone.to_string());

        for _twice in 0..2 {
            remember(&folder, &[record(Standing::Revoked, A)]).unwrap();
            assert_eq!(
                text(),
                format!("{undone}revoked {A} 2027-01-15T08:00:00.250Z dpe-dev\n")
            );
        }
        remember(&folder, &[record(Standing::Revoked, B)]).unwrap();
        remember(&folder, &[record(Standing::Undone, A)]).unwrap();

        assert_eq!(text().lines().count(), 4);
        assert!(!remembers(&folder, A) && remembers(&folder, B));
        remember(&folder, &[record(Standing::Revoked, A)]).unwrap();
        assert!(remembers(&folder, A));
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_cut_away_and_any_other_is_named() {
        let home = tempfile::tempdir().unwrap();
        let whole = record(Standing::Revoked, A).to_string();
        for end in 0..whole.len() {
            fs::write(
                path(home.path()),
                format!("{whole}{}", whole.replace(A, B).get(..end).unwrap()),
            )
            .unwrap();
            assert!(remembers(home.path(), A));
            remember(home.path(), &[record(Standing::Undone, A)]).unwrap();

            assert!(!remembers(home.path(), A), "{end}");
            // A line that names the key and when counts.
            let is_readable = end > whole.len() - "dpe-dev\n".len();
            assert_eq!(remembers(home.path(), B), is_readable, "{end}");
        }
        for line in [
            "revoked",
            "",
            "lost K T dpe-dev",
            "revoked K T dpe-dev",
            &format!("revoked {A} yesterday dpe-dev"),
            &format!("revoked {A}  2027-01-15T08:00:00Z dpe-dev"),
            &format!("revoked {A} 2027-01-15T08:00:00Z dpe/dev"),
            &format!("revoked {A} 2027-01-15T08:00:00Z dpe-dev\r"),
        ] {
            fs::write(path(home.path()), format!("{whole}{line}\n{whole}")).unwrap();
            for error in [
                Remembered::read(home.path()).unwrap_err(),
                remember(home.path(), &[record(Standing::Undone, A)]).unwrap_err(),
            ] {
                assert!(
                    error.to_string().starts_with("line 2 is not"),
                    "{line}: {error}"
                );
            }
        }
    }

    #[test]
    fn times_of_any_offset_are_read_and_kept_as_they_are_written() {
        for time in [
            "2026-01-31T12:00:00.5Z",
            "2026-01-31T14:00:00+02:00",
            "2026-01-31t10:00:00-02:00",
        ] {
            let line = format!("revoked {A} {time} dpe-dev\n");
            let read = parse(&line).unwrap();
            assert_eq!(
                read.iter().map(ToString::to_string).collect::<String>(),
                line
            );
        }
        for time in [
            "Z",
            "2026-01-31",
            "2026-13-31T12:00:00Z",
            "2026-01-31T12:00:00",
        ] {
            assert_eq!(
                parse(&format!("revoked {A} {time} dpe-dev\n")),
                Err(1),
                "{time}"
            );
        }
    }

    #[test]
    fn a_last_line_without_an_end_that_no_crash_leaves_is_named() {
        let whole = record(Standing::Revoked, A).to_string();
        for last in [
            "revoke",
            "# why",
            "revoked  x",
            &format!("revoked {A} now dpe-dev"),
            &format!("revoked {A} 2026-01-31T12:00:00Z dpe dev"),
        ] {
            let expected = if last == "revoke" { Ok(1) } else { Err(2) };
            let read = parse(&format!("{whole}{last}"));
            assert_eq!(read.map(|all| all.len()), expected, "{last}");
        }
    }

    #[test]
    fn a_full_memory_takes_a_revocation_back_and_then_has_room_for_another() {
        let home = tempfile::tempdir().unwrap();
        let one = |number: usize| {
            let key = Fingerprint::of_spki(&number.to_le_bytes()).to_string();
            record(Standing::Revoked, &key)
        };
        let undone = |record: Record| Record {
            standing: Standing::Undone,
            ..record
        };
        let all: Vec<_> = (0..MOST_KEYS).map(one).collect();
        remember(home.path(), &all).unwrap();

        // A module may have a revocation of it that it could not store.
        remember(home.path(), &[undone(one(MOST_KEYS))]).unwrap();
        remember(home.path(), &[one(MOST_KEYS)]).unwrap_err();
        remember(home.path(), &[undone(one(0))]).unwrap();
        remember(home.path(), &[one(MOST_KEYS)]).unwrap();
        remember(home.path(), &[one(0)]).unwrap_err();

        let pair = format!(
            "{}{}",
            record(Standing::Undone, A),
            record(Standing::Revoked, A)
        );
        fs::write(
            path(home.path()),
            pair.repeat((MOST_BYTES - 300) / pair.len()),
        )
        .unwrap();
        let mut others = (0..10).map(one);
        let full = others.find_map(|other| remember(home.path(), &[other]).err());
        assert!(full.unwrap().to_string().contains("full"));
        remember(home.path(), &[undone(record(Standing::Revoked, A))]).unwrap();
        assert!(!remembers(home.path(), A));
    }

    #[test]
    fn a_full_memory_says_so_and_a_link_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let one = |number: usize| {
            let key = Fingerprint::of_spki(&number.to_le_bytes()).to_string();
            record(Standing::Revoked, &key)
        };
        let all: Vec<_> = (0..MOST_KEYS).map(one).collect();
        remember(home.path(), &all).unwrap();

        let full = remember(home.path(), &[one(MOST_KEYS)]).unwrap_err();

        assert!(full.to_string().contains("full"), "{full}");
        remember(home.path(), &all).unwrap();
        fs::rename(path(home.path()), home.path().join("other")).unwrap();
        std::os::unix::fs::symlink(home.path().join("other"), path(home.path())).unwrap();
        assert!(Remembered::read(home.path()).is_err());
    }
}
