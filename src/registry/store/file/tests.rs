#![expect(
    clippy::unwrap_in_result,
    reason = "a disk of a test, whose functions return results"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;
use crate::engine::EngineStatus;
use crate::registry::store::tests::{engine, id};

/// A disk that loses at a power cut what was not synced, or a part of it.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// What was written since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// How many more writes the disk does before the cut, if there is to be one.
    left: Option<usize>,
}

/// What reaches the disk of the writes that were not synced.
#[derive(Clone, Copy, Debug)]
enum Cut {
    None,
    Every,
    EverySecond,
    Last,
}

impl Content {
    /// Does one more write, unless the power is cut.
    fn act(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk {
    /// The disk as it is after the power came back.
    fn after(&self, cut: Cut) -> Self {
        let content = self.0.lock().unwrap();
        let mut bytes = content.synced.clone();
        let count = content.unsynced.len();
        for (n, (at, data)) in content.unsynced.iter().enumerate() {
            let reached = match cut {
                Cut::None => false,
                Cut::Every => true,
                Cut::EverySecond => n % 2 == 0,
                Cut::Last => n + 1 == count,
            };
            let end = at + data.len();
            if reached {
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(data);
            }
        }
        let content = Content {
            now: bytes.clone(),
            synced: bytes,
            ..Content::default()
        };
        Self(Arc::new(Mutex::new(content)))
    }

    /// Opens the store on it; `None` if the power is cut.
    fn store(&self) -> Option<FileStore> {
        let disk = self.clone();
        try_open(move || disk.clone()).ok()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len().try_into().unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let content = self.0.lock().unwrap();
        let read = content.now.get(at..at + out.len());
        out.copy_from_slice(read.ok_or_else(|| io::Error::from(ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.0.lock().unwrap();
        content.act()?;
        let len = len.try_into().unwrap();
        content.now.resize(len, 0);
        // A file system keeps the length in its journal, whatever it does of the data.
        content.synced.resize(len, 0);
        content.unsynced.retain(|(at, data)| at + data.len() <= len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.0.lock().unwrap();
        content.act()?;
        content.synced = content.now.clone();
        content.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let mut content = self.0.lock().unwrap();
        content.act()?;
        content.now[at..at + data.len()].copy_from_slice(data);
        content.unsynced.push((at, data.to_vec()));
        Ok(())
    }
}

/// Opens a store over what `backend` returns.
fn opened<B: StorageBackend>(backend: impl Fn() -> B + Send + 'static) -> FileStore {
    try_open(backend).unwrap()
}

fn try_open<B: StorageBackend>(
    backend: impl Fn() -> B + Send + 'static,
) -> Result<FileStore, Fault> {
    let source = Source(Box::new(move |builder| {
        Ok(builder.create_with_backend(backend())?)
    }));
    let (file, engines) = source.open()?;
    Ok(FileStore::start(source, Some(file), engines, None))
}

async fn add(store: &FileStore, engine: Engine) -> bool {
    let added = store.replace(engine, Expected::Absent).await.unwrap();
    assert!(added.is_some());
    store.flush().await.unwrap()
}

async fn change(store: &FileStore, changed: Engine) {
    let at = store.find(changed.id).await.unwrap().unwrap().revision;
    let done = store.replace(changed, Expected::At(at)).await.unwrap();
    assert!(done.is_some());
}

fn ids(store: &FileStore) -> BTreeSet<EngineId> {
    let all = store.memory.after(None, usize::MAX);
    all.iter().map(|stored| stored.engine.id).collect()
}

fn ready(n: u8) -> Engine {
    Engine {
        status: EngineStatus::Ready,
        status_reason: None,
        dial_back_failure: None,
        ..engine(n, "dpe-dev")
    }
}

#[tokio::test]
async fn engines_outlast_the_store_and_those_that_were_ready_are_suspect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    let store = FileStore::open(&path).unwrap();
    assert!(add(&store, ready(1)).await);
    assert!(add(&store, engine(2, "dpe-two")).await);
    assert!(add(&store, engine(3, "dpe-two")).await);
    let third = store.find(id(3)).await.unwrap().unwrap();
    assert!(store.remove(id(3), third.revision).await.unwrap());
    store.close().await.unwrap();
    assert!(!store.flush().await.unwrap() || ids(&store).len() == 2);

    let store = FileStore::open(&path).unwrap();

    assert_eq!(ids(&store), [id(1), id(2)].into());
    let first = store.find(id(1)).await.unwrap().unwrap();
    let expected = Engine {
        suspect: true,
        status_reason: Some("not checked since the registry started".into()),
        ..ready(1)
    };
    assert_eq!(*first.engine, expected);
    let second = store.find(id(2)).await.unwrap().unwrap().engine;
    let expected = Engine {
        status_reason: Some("not checked since the registry started".into()),
        dial_back_failure: None,
        ..engine(2, "dpe-two")
    };
    assert_eq!(*second, expected);
    let counts = store.count("dpe-two").await.unwrap();
    assert_eq!((counts.total, counts.of_deployment), (2, 1));
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn no_acknowledged_registration_is_lost_wherever_the_power_is_cut() {
    for cut in [Cut::None, Cut::Every, Cut::EverySecond, Cut::Last] {
        for writes in 0.. {
            let disk = Disk::default();
            disk.store().unwrap().close().await.unwrap();
            disk.0.lock().unwrap().left = Some(writes);
            let Some(store) = disk.store() else {
                continue;
            };
            let mut acknowledged = BTreeSet::new();
            let mut tried = BTreeSet::new();
            for n in 1..=4 {
                tried.insert(id(n));
                if add(&store, engine(n, "dpe-dev")).await {
                    acknowledged.insert(id(n));
                }
            }
            let is_uncut = acknowledged.len() == 4;

            let kept = ids(&disk.after(cut).store().unwrap());

            assert!(kept.is_superset(&acknowledged), "{cut:?} after {writes}");
            assert!(kept.is_subset(&tried), "{cut:?} after {writes}");
            if is_uncut {
                break;
            }
        }
    }
}

#[tokio::test]
async fn power_that_is_cut_while_everything_is_written_again_loses_nothing() {
    for cut in [Cut::None, Cut::Every, Cut::EverySecond, Cut::Last] {
        for writes in 0.. {
            let disk = Disk::default();
            let store = disk.store().unwrap();
            let mut condition = store.condition().unwrap();
            let acknowledged: BTreeSet<_> = (1..=4).map(id).collect();
            for n in 1..=4 {
                assert!(add(&store, engine(n, "dpe-dev")).await);
            }
            let is_failing = |condition: &Condition| condition.failing.is_some();
            disk.0.lock().unwrap().left = Some(0);
            assert!(!add(&store, engine(5, "dpe-dev")).await);
            condition.wait_for(is_failing).await.unwrap();

            // The disk is back for so many writes.
            disk.0.lock().unwrap().left = Some(writes);
            let mut ended = store.kept.clone();
            store.memory.end();
            while ended.changed().await.is_ok() {}
            let is_whole = disk.0.lock().unwrap().left != Some(0);

            let kept = ids(&disk.after(cut).store().unwrap());

            assert!(kept.is_superset(&acknowledged), "{cut:?} after {writes}");
            if is_whole {
                break;
            }
        }
    }
}

#[tokio::test]
async fn file_that_cannot_be_read_is_kept_beside_and_the_store_starts_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    let whole = {
        let store = FileStore::open(&path).unwrap();
        for n in 1..=20 {
            add(&store, engine(n, "dpe-dev")).await;
        }
        store.close().await.unwrap();
        fs::read(&path).unwrap()
    };
    let other_format = {
        let file = Database::create(&path).unwrap();
        let writing = file.begin_write().unwrap();
        writing.open_table(META).unwrap().insert(FORMAT, 2).unwrap();
        writing.commit().unwrap();
        drop(file);
        fs::read(&path).unwrap()
    };
    let foreign = {
        fs::remove_file(&path).unwrap();
        let file = Database::create(&path).unwrap();
        let writing = file.begin_write().unwrap();
        let table = TableDefinition::<u64, u64>::new("engines");
        writing.open_table(table).unwrap().insert(1, 2).unwrap();
        writing.commit().unwrap();
        drop(file);
        fs::read(&path).unwrap()
    };
    let mut bad = vec![
        other_format,
        foreign,
        Vec::new(),
        b"no database".to_vec(),
        vec![0; 100_000],
        vec![0xff; 5_000],
    ];
    bad.extend((1..8).map(|eighths| whole[..whole.len() * eighths / 8].to_vec()));
    for bytes in bad {
        let case = (bytes.len(), bytes.get(..16).map(<[u8]>::to_vec));
        for old in fs::read_dir(folder.path()).unwrap() {
            fs::remove_file(old.unwrap().path()).unwrap();
        }
        fs::write(&path, &bytes).unwrap();

        let store = FileStore::open(&path).unwrap();

        let said = store.condition.borrow().set_aside.clone();
        let said = said.unwrap_or_else(|| panic!("{case:?}"));
        let aside = folder.path().join("registry.redb.set-aside");
        assert!(said.ends_with(&*aside.to_string_lossy()), "{said}");
        // What is a database was opened, and may have been written.
        let is_same = fs::read(&aside).unwrap() == bytes;
        assert!(is_same || bytes.starts_with(b"redb"), "{said}");
        assert!(ids(&store).is_empty());
        assert!(add(&store, engine(1, "dpe-dev")).await, "{said}");
    }
}

#[tokio::test]
async fn a_flipped_byte_is_noticed_or_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    let store = FileStore::open(&path).unwrap();
    add(&store, engine(1, "dpe-dev")).await;
    let all = ids(&store);
    store.close().await.unwrap();
    let whole = fs::read(&path).unwrap();
    let filled = whole.iter().enumerate().filter(|(_, byte)| **byte != 0);
    for (at, _) in filled.step_by(101) {
        for old in fs::read_dir(folder.path()).unwrap() {
            fs::remove_file(old.unwrap().path()).unwrap();
        }
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, &bytes).unwrap();

        let store = FileStore::open(&path).unwrap();

        let is_aside = store.condition.borrow().set_aside.is_some();
        assert_eq!(
            ids(&store),
            if is_aside {
                BTreeSet::new()
            } else {
                all.clone()
            },
            "{at}"
        );
    }
}

#[tokio::test]
async fn files_that_were_set_aside_before_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    for n in 0..3 {
        fs::write(&path, format!("bad {n}")).unwrap();
        FileStore::open(&path).unwrap().close().await.unwrap();
    }

    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("registry.redb.set-aside"), "bad 0");
    assert_eq!(read("registry.redb.set-aside-2"), "bad 1");
    assert_eq!(read("registry.redb.set-aside-3"), "bad 2");
}

#[tokio::test]
async fn second_holder_of_a_file_is_refused_and_a_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    let first = FileStore::open(&path).unwrap();

    let second = FileStore::open(&path).unwrap_err();
    assert!(matches!(second, StorageError::InUse { .. }), "{second}");
    add(&first, engine(1, "dpe-dev")).await;
    first.close().await.unwrap();
    assert_eq!(ids(&FileStore::open(&path).unwrap()).len(), 1);

    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let linked = FileStore::open(&link).unwrap_err();
    assert!(matches!(linked, StorageError::Io { .. }), "{linked}");
}

/// A disk in memory that fails on demand, counts, and holds syncs back.
#[derive(Clone, Debug)]
struct Tricky {
    memory: Arc<InMemoryBackend>,
    is_full: Arc<AtomicBool>,
    writes: Arc<AtomicUsize>,
    syncs: Arc<AtomicUsize>,
    held: Arc<(Mutex<bool>, Condvar)>,
}

impl Tricky {
    fn new() -> Self {
        Self {
            memory: Arc::new(InMemoryBackend::new()),
            is_full: Arc::default(),
            writes: Arc::default(),
            syncs: Arc::default(),
            held: Arc::default(),
        }
    }

    fn fault(&self) -> io::Result<()> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn hold(&self, is_held: bool) {
        *self.held.0.lock().unwrap() = is_held;
        self.held.1.notify_all();
    }
}

impl StorageBackend for Tricky {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fault()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fault()?;
        self.syncs.fetch_add(1, Ordering::SeqCst);
        let held = self.held.0.lock().unwrap();
        drop(self.held.1.wait_while(held, |held| *held).unwrap());
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fault()?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn full_disk_is_said_and_the_first_recovery_writes_everything() {
    let disk = Tricky::new();
    let backend = disk.clone();
    let store = opened(move || backend.clone());
    let mut condition = store.condition().unwrap();
    assert!(add(&store, engine(1, "dpe-dev")).await);
    disk.is_full.store(true, Ordering::SeqCst);

    assert!(!add(&store, engine(2, "dpe-dev")).await);
    assert!(!add(&store, engine(3, "dpe-dev")).await);
    let third = store.find(id(3)).await.unwrap().unwrap();
    assert!(store.remove(id(3), third.revision).await.unwrap());
    let is_failing = |condition: &Condition| condition.failing.is_some();
    condition.wait_for(is_failing).await.unwrap();
    assert_eq!(ids(&store), [id(1), id(2)].into());

    disk.is_full.store(false, Ordering::SeqCst);
    condition
        .wait_for(|condition| !is_failing(condition))
        .await
        .unwrap();
    assert!(add(&store, engine(4, "dpe-dev")).await);
    store.close().await.unwrap();
    drop(store);
    let store = opened(move || disk.clone());
    assert_eq!(ids(&store), [id(1), id(2), id(4)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_that_arrive_together_share_a_sync() {
    let disk = Tricky::new();
    let backend = disk.clone();
    let store = Arc::new(opened(move || backend.clone()));
    assert!(add(&store, engine(0, "dpe-dev")).await);
    let before = disk.syncs.load(Ordering::SeqCst);
    disk.hold(true);
    let mut registering = tokio::task::JoinSet::new();
    for n in 1..=64 {
        let added = store.replace(engine(n, "dpe-dev"), Expected::Absent);
        assert!(added.await.unwrap().is_some());
        let store = Arc::clone(&store);
        registering.spawn(async move { store.flush().await.unwrap() });
    }
    disk.hold(false);

    assert!(
        registering
            .join_all()
            .await
            .into_iter()
            .all(|durable| durable)
    );

    let syncs = disk.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs <= 4, "{syncs}");
}

#[tokio::test]
async fn being_seen_writes_nothing_until_the_store_is_closed() {
    let disk = Tricky::new();
    let backend = disk.clone();
    let store = opened(move || backend.clone());
    add(&store, ready(1)).await;
    let before = disk.writes.load(Ordering::SeqCst);
    let seen = |seconds| Engine {
        last_seen_at: ready(1).last_seen_at + Duration::from_secs(seconds),
        ..ready(1)
    };
    for seconds in 1..100 {
        change(&store, seen(seconds)).await;
        assert!(store.flush().await.unwrap());
    }
    assert_eq!(disk.writes.load(Ordering::SeqCst), before);

    store.close().await.unwrap();

    let store = opened(move || disk.clone());
    let found = store.find(id(1)).await.unwrap().unwrap().engine;
    assert_eq!(found.last_seen_at, seen(99).last_seen_at);
}

#[tokio::test]
async fn disk_that_does_not_answer_keeps_callers_waiting_for_seconds_at_most() {
    let disk = Tricky::new();
    let backend = disk.clone();
    let store = opened(move || backend.clone());
    disk.hold(true);
    let added = store.replace(engine(1, "dpe-dev"), Expected::Absent);
    assert!(added.await.unwrap().is_some());

    tokio::time::pause();
    assert!(!store.flush().await.unwrap());

    disk.hold(false);
    tokio::time::resume();
    assert!(store.flush().await.unwrap());
}
