//! Engines in a file, which outlast the process.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::changes::Changes;
use super::memory::{MemoryStore, Unkept};
use super::record;
use super::{Condition, Counts, EngineStore, Expected, Revision, StoreFuture, Stored};
use crate::engine::{Engine, EngineId};
use crate::failure::cause;
use crate::files;
use crate::storage::StorageError;

/// Keeps engines in a [redb] file. All reads are from memory.
///
/// A thread writes what has changed, all of it in one commit, so registrations that arrive together
/// share one. While the file cannot be written the store serves on from memory, and tries again
/// each second; then it writes everything. When an engine was last seen is written once a minute.
///
/// One process may have the file at a time. It holds no key and nothing secret. Who can write
/// to it decides which engines there are, and which deployment owns an id; one that it makes READY is
/// suspect, and is so for as long as its checks take to fail.
#[derive(Debug)]
pub struct FileStore {
    memory: Arc<MemoryStore>,
    kept: watch::Receiver<Kept>,
    condition: watch::Sender<Condition>,
}

/// How far changes are kept.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// The number of the last change that is.
    change: u64,
    /// Whether later ones cannot be for now.
    is_failing: bool,
}

impl FileStore {
    /// Opens the file at `path`, and makes it if it does not exist.
    ///
    /// A file that cannot be read, as one that is damaged or of a later version, is renamed, and
    /// the store starts empty: the engines register again. [`Condition::set_aside`] says so.
    ///
    /// # Errors
    ///
    /// When another process has the file, or the system refuses to open, read or write it.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let (of, at) = (path.to_owned(), path.to_owned());
        let source = Source(Box::new(move |builder| {
            let is_new = !at.try_exists()?;
            let mut options = File::options();
            let file = files::open_own(&at, options.read(true).write(true).create(true))?;
            // The name of a new file outlasts a crash only once its folder is written.
            if let Some(folder) = at.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                File::open(folder)?.sync_all()?;
            }
            let made = builder.create_with_backend(FileBackend::new(file)?);
            made.map_err(redb::Error::from).inspect_err(|error| {
                // What a full disk has of it is not a registry. Another process's file stays.
                if is_new && matches!(error, redb::Error::Io(error) if is_about_space(error)) {
                    let _ = fs::remove_file(&at);
                }
            })
        }));
        let is_empty = fs::metadata(path).is_ok_and(|about| about.len() == 0);
        let opened = if is_empty {
            Err(Fault::Unreadable("it is empty".to_owned()))
        } else {
            source.open()
        };
        let (file, set_aside) = match opened {
            Err(Fault::Unreadable(why)) => {
                let aside = set_aside(path).map_err(|error| StorageError::of(&of, &error))?;
                let (path, aside) = (path.display(), aside.display());
                let said = format!("{path} cannot be read: {why}; it is kept as {aside}");
                (source.open(), Some(said.into()))
            }
            opened => (opened, None),
        };
        let is_full = matches!(&file, Err(Fault::Io(error)) if is_about_space(error));
        if is_full && !path.try_exists().unwrap_or(true) {
            // There is nothing to be lost: the engines are in memory until there is room.
            return Ok(Self::start(source, None, Vec::new(), set_aside));
        }
        let (file, engines) = file.map_err(|fault| match fault {
            Fault::InUse => StorageError::InUse {
                folder: of,
                pid: None,
            },
            Fault::Io(error) => StorageError::of(&of, &error),
            Fault::Unreadable(why) => StorageError::of(&of, &io::Error::other(why)),
        })?;
        Ok(Self::start(source, Some(file), engines, set_aside))
    }

    fn start(
        source: Source,
        file: Option<Database>,
        engines: Vec<Engine>,
        set_aside: Option<Arc<str>>,
    ) -> Self {
        let memory = Arc::new(MemoryStore::noting(engines));
        let kept = watch::Sender::new(Kept::default());
        let condition = watch::Sender::new(Condition {
            set_aside,
            ..Condition::default()
        });
        let store = Self {
            memory: Arc::clone(&memory),
            kept: kept.subscribe(),
            condition: condition.clone(),
        };
        let writer = Writer {
            source,
            memory,
            kept,
            condition,
            seen: Revision(0),
        };
        thread::spawn(move || writer.run(file));
        store
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.memory.end();
    }
}

/// Opens the file, as often as that is needed.
struct Source(Box<Opener>);

type Opener = dyn Fn(&Builder) -> Result<Database, redb::Error> + Send;

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// Why a file is not opened.
#[derive(Debug)]
enum Fault {
    InUse,
    Io(io::Error),
    /// It is not a registry's file, or not all of it can be read.
    Unreadable(String),
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::InUse,
            redb::Error::Io(error) if !is_about_content(&error) => Self::Io(error),
            error => Self::Unreadable(cause(&error)),
        }
    }
}

/// Returns `true` if there is no room on the disk.
fn is_about_space(error: &io::Error) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};

    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Returns `true` for what redb says of a file that is cut off or another program's.
fn is_about_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    )
}

impl Source {
    fn file(&self) -> Result<Database, redb::Error> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        builder.set_check_integrity_on_open(true);
        (self.0)(&builder)
    }

    /// Opens the file and reads all of it.
    fn open(&self) -> Result<(Database, Vec<Engine>), Fault> {
        // redb refuses what it finds damaged, and may panic at what it does not expect.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let file = self.file()?;
            let engines = read(&file)??;
            Ok((file, engines))
        }));
        opened.unwrap_or_else(|_panic| Err(Fault::Unreadable("it is damaged".to_owned())))
    }
}

const ENGINES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("engines");
/// When engines were last seen, in milliseconds since 1970.
const SEEN: TableDefinition<'_, u128, u64> = TableDefinition::new("seen");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The key of the format's version.
const FORMAT: &str = "format";
const OWN_FORMAT: u64 = 1;

/// Reads every engine; a new file has none.
fn read(file: &Database) -> Result<Result<Vec<Engine>, Fault>, redb::Error> {
    let tables = file.begin_read()?;
    if tables.list_tables()?.next().is_none() {
        return Ok(Ok(Vec::new()));
    }
    let format = tables.open_table(META)?.get(FORMAT)?;
    let number = format.map_or(0, |format| format.value());
    if number != OWN_FORMAT {
        let why = format!("its format is {number}, and this version reads {OWN_FORMAT}");
        return Ok(Err(Fault::Unreadable(why)));
    }
    let times = tables.open_table(SEEN)?;
    let mut read = Vec::new();
    for record in tables.open_table(ENGINES)?.iter()? {
        let (id, bytes) = record?;
        let seen = times.get(id.value())?.and_then(|seen| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(seen.value()))
        });
        match record::decode(bytes.value(), seen) {
            Ok(engine) if engine.id.as_u128() == id.value() => read.push(engine),
            decoded => {
                let why =
                    decoded.map_or_else(|error| cause(&error), |_| "of another id".to_owned());
                let why = format!("the record of an engine in it: {why}");
                return Ok(Err(Fault::Unreadable(why)));
            }
        }
    }
    Ok(Ok(read))
}

/// Renames the file at `path`; returns its new name.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".set-aside");
    let mut number = 1;
    let mut free = PathBuf::from(&aside);
    while free.symlink_metadata().is_ok() {
        number += 1;
        let mut numbered = aside.clone();
        numbered.push(format!("-{number}"));
        free = numbered.into();
    }
    fs::rename(path, &free)?;
    Ok(free)
}

/// What is written in one commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Extent {
    Changes,
    /// Also when engines were last seen.
    ChangesAndTimes,
    /// In place of all that the file has.
    Everything,
}

/// Writes what changes, on a thread of its own.
struct Writer {
    source: Source,
    memory: Arc<MemoryStore>,
    kept: watch::Sender<Kept>,
    condition: watch::Sender<Condition>,
    /// Up to which revision it is kept when engines were last seen.
    seen: Revision,
}

impl Writer {
    /// Writes to `file` until the store is closed, then closes it.
    fn run(mut self, mut file: Option<Database>) {
        let mut due = Instant::now() + SEEN_EVERY;
        loop {
            let patience = match file {
                Some(_) => due.duration_since(Instant::now()),
                None => RETRY,
            };
            let unkept = self.memory.changed(patience, file.is_some());
            let wants_seen = unkept.is_last || Instant::now() >= due;
            if wants_seen {
                due = Instant::now() + SEEN_EVERY;
            }
            let extent = if wants_seen {
                Extent::ChangesAndTimes
            } else {
                Extent::Changes
            };
            let round = catch_unwind(AssertUnwindSafe(|| match file.take() {
                Some(open) => self.write(&open, &unkept, extent).map(|()| open),
                None => self.write_all(),
            }));
            match round {
                Ok(Ok(open)) => {
                    self.succeeded(unkept.changes);
                    file = Some(open);
                }
                Ok(Err(error)) => self.failed(&cause(&error)),
                Err(_panic) => self.failed("the file is damaged"),
            }
            if unkept.is_last {
                return;
            }
        }
    }

    /// Writes what has changed.
    fn write(
        &mut self,
        file: &Database,
        unkept: &Unkept,
        extent: Extent,
    ) -> Result<(), redb::Error> {
        if unkept.engines.is_empty() && extent == Extent::Changes {
            return Ok(());
        }
        let writing = file.begin_write()?;
        if extent == Extent::Everything {
            // In the same commit: the old records stay until the new ones are written.
            writing.delete_table(ENGINES)?;
            writing.delete_table(SEEN)?;
        }
        {
            writing.open_table(META)?.insert(FORMAT, OWN_FORMAT)?;
            let mut engines = writing.open_table(ENGINES)?;
            let mut seen = writing.open_table(SEEN)?;
            for id in &unkept.engines {
                if let Some(stored) = self.memory.get(*id) {
                    let bytes = record::encode(&stored.engine);
                    engines.insert(id.as_u128(), bytes.as_slice())?;
                } else {
                    engines.remove(id.as_u128())?;
                    seen.remove(id.as_u128())?;
                }
            }
            if extent != Extent::Changes {
                let mut last = self.seen;
                for stored in self
                    .memory
                    .all()
                    .filter(|stored| stored.revision.0 > self.seen.0)
                {
                    seen.insert(
                        stored.engine.id.as_u128(),
                        record::milliseconds(stored.engine.last_seen_at),
                    )?;
                    last = Revision(last.0.max(stored.revision.0));
                }
                self.seen = last;
            }
        }
        Ok(writing.commit()?)
    }

    /// Opens the file again and writes everything.
    fn write_all(&mut self) -> Result<Database, redb::Error> {
        let file = self.source.file()?;
        self.seen = Revision(0);
        let engines = self.memory.all().map(|stored| stored.engine.id).collect();
        let all = Unkept {
            engines,
            ..Unkept::default()
        };
        self.write(&file, &all, Extent::Everything)?;
        Ok(file)
    }

    fn succeeded(&self, change: u64) {
        self.kept.send_replace(Kept {
            change,
            is_failing: false,
        });
        self.condition
            .send_if_modified(|condition| condition.failing.take().is_some());
    }

    fn failed(&self, why: &str) {
        self.kept.send_modify(|kept| kept.is_failing = true);
        fail(&self.condition, why);
    }
}

/// Says that changes are not kept, and why.
fn fail(condition: &watch::Sender<Condition>, why: &str) {
    condition.send_if_modified(|condition| {
        let is_new = condition.failing.as_deref() != Some(why);
        condition.failing = Some(why.into());
        is_new
    });
}

/// redb's own is 1 GiB; all that is read is in memory anyway.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
const SEEN_EVERY: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);

/// How long a caller waits for a disk that does not answer.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

impl EngineStore for FileStore {
    fn find(&self, id: EngineId) -> StoreFuture<'_, Option<Stored>> {
        self.memory.find(id)
    }

    fn page(&self, after: Option<EngineId>, limit: usize) -> StoreFuture<'_, Vec<Stored>> {
        self.memory.page(after, limit)
    }

    fn count<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Counts> {
        self.memory.count(deployment)
    }

    fn replace(&self, engine: Engine, expected: Expected) -> StoreFuture<'_, Option<Stored>> {
        self.memory.replace(engine, expected)
    }

    fn remove(&self, id: EngineId, revision: Revision) -> StoreFuture<'_, bool> {
        self.memory.remove(id, revision)
    }

    fn stalest<'a>(&'a self, deployment: &'a str) -> StoreFuture<'a, Option<Stored>> {
        self.memory.stalest(deployment)
    }

    fn flush(&self) -> StoreFuture<'_, bool> {
        Box::pin(async {
            let last = self.memory.last_change();
            let mut kept = self.kept.clone();
            let done = kept.wait_for(|kept| kept.is_failing || kept.change >= last);
            let Ok(done) = timeout(FLUSH_WITHIN, done).await else {
                fail(&self.condition, "the disk does not answer");
                return Ok(false);
            };
            Ok(done.is_ok_and(|kept| !kept.is_failing))
        })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.memory.end();
            // The file is closed once the writer is gone.
            let mut kept = self.kept.clone();
            let gone = async { while kept.changed().await.is_ok() {} };
            let _ = timeout(FLUSH_WITHIN, gone).await;
            Ok(())
        })
    }

    fn condition(&self) -> Option<watch::Receiver<Condition>> {
        Some(self.condition.subscribe())
    }

    fn changes(&self) -> Option<Arc<Changes>> {
        self.memory.changes()
    }
}

#[cfg(test)]
mod tests;
