//! What every [`EngineStore`] must do: one suite, run against each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Counts, EngineStore, Expected, FileStore, MemoryStore, Revision};
use crate::engine::{
    DialBackFailure, Engine, EngineAddress, EngineConstraints, EngineId, EngineStatus, FailureKind,
    Instance, Owner,
};

/// Checks the stores that `empty` makes against the contract of [`EngineStore`].
pub(super) async fn conforms<F>(empty: F)
where
    F: Fn() -> Arc<dyn EngineStore>,
{
    a_record_comes_back_as_it_was_written(&*empty()).await;
    only_the_expected_revision_is_replaced(&*empty()).await;
    pages_follow_the_ids(&*empty()).await;
    counts_follow_the_owner(&*empty()).await;
    the_stalest_is_the_inactive_one_not_seen_for_longest(&*empty()).await;
    only_the_expected_revision_is_removed(&*empty()).await;
    of_many_writers_one_wins(empty()).await;
}

#[tokio::test]
async fn memory_store_conforms() {
    conforms(|| Arc::new(MemoryStore::default())).await;
}

#[tokio::test]
async fn file_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let files = std::sync::atomic::AtomicUsize::new(0);
    conforms(|| {
        let number = files.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = folder.path().join(number.to_string());
        Arc::new(FileStore::open(&path).unwrap())
    })
    .await;
}

pub(super) fn id(n: u8) -> EngineId {
    EngineId::from_random([n; 16])
}

pub(super) fn engine(n: u8, deployment: &str) -> Engine {
    let pair = |key: &str| BTreeMap::from([(key.to_owned(), "välue".to_owned())]);
    Engine {
        id: id(n),
        address: EngineAddress::new("2001:db8::1", 65_535).unwrap(),
        constraints: EngineConstraints::new(pair("a"), pair("b"), vec!["c".into()]).unwrap(),
        status: EngineStatus::Disconnected,
        suspect: false,
        status_reason: Some("refused".into()),
        dial_back_failure: Some(DialBackFailure::new(FailureKind::Refused, "välue")),
        owner: Owner {
            deployment: deployment.into(),
            module: "dpe".into(),
            environment: Some("dev".into()),
            fingerprint: "kHSzWkPiZKfSKAgdIkCdXfAAKs7x23jszQLkTOzQTEM".into(),
        },
        over_loopback: true,
        instance: Some(Instance::from_random([n; 16])),
        heartbeat_interval: Some(Duration::from_secs(5)),
        held: None,
        registered_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567),
        last_seen_at: SystemTime::UNIX_EPOCH + Duration::from_millis(2_345_678),
    }
}

async fn a_record_comes_back_as_it_was_written(store: &dyn EngineStore) {
    let bare = Engine {
        constraints: EngineConstraints::default(),
        status_reason: None,
        dial_back_failure: None,
        over_loopback: false,
        instance: None,
        heartbeat_interval: None,
        owner: Owner {
            environment: None,
            ..engine(2, "dpe-dev").owner
        },
        ..engine(2, "dpe-dev")
    };
    for written in [engine(1, "dpe-dev"), bare] {
        store
            .replace(written.clone(), Expected::Absent)
            .await
            .unwrap()
            .unwrap();

        let found = store.find(written.id).await.unwrap().unwrap();

        assert_eq!(*found.engine, written);
    }
    assert!(store.find(id(3)).await.unwrap().is_none());
}

async fn only_the_expected_revision_is_replaced(store: &dyn EngineStore) {
    let absent = Expected::At(Revision(1));
    assert!(
        store
            .replace(engine(1, "a"), absent)
            .await
            .unwrap()
            .is_none()
    );
    assert!(store.find(id(1)).await.unwrap().is_none());

    let first = store
        .replace(engine(1, "a"), Expected::Absent)
        .await
        .unwrap()
        .unwrap();
    assert!(
        store
            .replace(engine(1, "b"), Expected::Absent)
            .await
            .unwrap()
            .is_none()
    );
    let at_first = Expected::At(first.revision);
    let second = store
        .replace(engine(1, "c"), at_first)
        .await
        .unwrap()
        .unwrap();

    assert_ne!(first.revision, second.revision);
    assert!(
        store
            .replace(engine(1, "d"), at_first)
            .await
            .unwrap()
            .is_none()
    );
    let found = store.find(id(1)).await.unwrap().unwrap();
    assert_eq!(
        (&*found.engine, found.revision),
        (&engine(1, "c"), second.revision)
    );
}

async fn pages_follow_the_ids(store: &dyn EngineStore) {
    for n in [5, 1, 4, 2, 3] {
        store
            .replace(engine(n, "a"), Expected::Absent)
            .await
            .unwrap()
            .unwrap();
    }
    let page = async |after, limit| {
        let page = store.page(after, limit).await.unwrap();
        page.iter()
            .map(|stored| stored.engine.id)
            .collect::<Vec<_>>()
    };

    assert_eq!(page(None, 2).await, [id(1), id(2)]);
    assert_eq!(page(Some(id(2)), 2).await, [id(3), id(4)]);
    assert_eq!(page(Some(id(4)), 2).await, [id(5)]);
    assert!(page(Some(id(5)), 2).await.is_empty());
    assert!(page(None, 0).await.is_empty());
}

async fn counts_follow_the_owner(store: &dyn EngineStore) {
    store
        .replace(engine(1, "a"), Expected::Absent)
        .await
        .unwrap()
        .unwrap();
    let two = store
        .replace(engine(2, "a"), Expected::Absent)
        .await
        .unwrap()
        .unwrap();
    let at_two = Expected::At(two.revision);
    store
        .replace(engine(2, "b"), at_two)
        .await
        .unwrap()
        .unwrap();

    let counts = |total, of_deployment| Counts {
        total,
        of_deployment,
    };
    assert_eq!(store.count("a").await.unwrap(), counts(2, 1));
    assert_eq!(store.count("b").await.unwrap(), counts(2, 1));
    assert_eq!(store.count("c").await.unwrap(), counts(2, 0));
}

async fn the_stalest_is_the_inactive_one_not_seen_for_longest(store: &dyn EngineStore) {
    let seen = |n, status, seconds| Engine {
        status,
        last_seen_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        ..engine(n, "a")
    };
    let stalest = async |deployment| {
        let stalest = store.stalest(deployment).await.unwrap();
        stalest.map(|stored| stored.engine.id)
    };
    for new in [
        seen(1, EngineStatus::Inactive, 30),
        seen(2, EngineStatus::Inactive, 20),
        seen(3, EngineStatus::Ready, 10),
        Engine {
            status: EngineStatus::Inactive,
            ..engine(4, "aa")
        },
    ] {
        store.replace(new, Expected::Absent).await.unwrap().unwrap();
    }
    assert_eq!(stalest("a").await, Some(id(2)));
    assert_eq!(stalest("b").await, None);

    // It comes back, then it is removed.
    for (n, status) in [(2, EngineStatus::New), (1, EngineStatus::Ready)] {
        let found = store.find(id(n)).await.unwrap().unwrap();
        let back = seen(n, status, 40);
        let at = Expected::At(found.revision);
        store.replace(back, at).await.unwrap().unwrap();
        assert_eq!(stalest("a").await, (n == 2).then_some(id(1)));
    }
    let other = store.find(id(4)).await.unwrap().unwrap();
    assert!(store.remove(id(4), other.revision).await.unwrap());
    assert_eq!(stalest("aa").await, None);
}

async fn only_the_expected_revision_is_removed(store: &dyn EngineStore) {
    let first = store.replace(engine(1, "a"), Expected::Absent).await;
    let first = first.unwrap().unwrap().revision;
    assert!(!store.remove(id(2), first).await.unwrap());
    let second = store.replace(engine(1, "b"), Expected::At(first)).await;
    let second = second.unwrap().unwrap().revision;
    assert!(!store.remove(id(1), first).await.unwrap());
    assert!(store.find(id(1)).await.unwrap().is_some());

    assert!(store.remove(id(1), second).await.unwrap());

    assert!(store.find(id(1)).await.unwrap().is_none());
    assert_eq!(store.count("b").await.unwrap(), Counts::default());
    assert!(!store.remove(id(1), second).await.unwrap());
    let again = store.replace(engine(1, "a"), Expected::Absent).await;
    let again = again.unwrap().unwrap().revision;
    assert!(![first, second].contains(&again));
}

async fn of_many_writers_one_wins(store: Arc<dyn EngineStore>) {
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mine = engine(1, &format!("dpe-{n}"));
            store.replace(mine, Expected::Absent).await.unwrap()
        });
    }

    let won: Vec<_> = writers.join_all().await.into_iter().flatten().collect();

    assert_eq!(won.len(), 1);
    let found = store.find(id(1)).await.unwrap().unwrap();
    assert_eq!(found.engine, won[0].engine);
}
