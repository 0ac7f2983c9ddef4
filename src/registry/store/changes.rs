//! The last changes of a store, for those who follow them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use crate::engine::{Engine, EngineId};

/// The last changes of a store, in their order: as many as there is room for.
///
/// That an engine was seen again is no change. Who follows them keeps a position and reads on from
/// there, so one that is slow costs nothing: it is behind once the change after its position is gone.
#[derive(Debug)]
pub struct Changes {
    /// Differs from process to process: a position of another one means nothing here.
    epoch: u64,
    room: Room,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// The number of changes.
    pub(super) changes: usize,
    /// The bytes of constraints in them, which their engines choose.
    pub(super) bytes: usize,
}

const ROOM: Room = Room {
    changes: 65_536,
    bytes: 8 * 1024 * 1024,
};

#[derive(Debug, Default)]
struct Ring {
    /// The position before the first change that is kept.
    start: u64,
    changes: VecDeque<Change>,
    bytes: usize,
}

/// What became of one engine.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Its record, new or changed.
    Put(Arc<Engine>),
    /// Its record is gone.
    Removed(EngineId),
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Put(engine) => engine.constraints.bytes(),
            Self::Removed(_) => 0,
        }
    }
}

/// The change after a position is not kept any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Behind;

impl Default for Changes {
    fn default() -> Self {
        Self::with_room(ROOM)
    }
}

impl Changes {
    pub(super) fn with_room(room: Room) -> Self {
        Self {
            epoch: Uuid::new_v4().as_u64_pair().0,
            room,
            ring: Mutex::default(),
            last: watch::Sender::default(),
        }
    }

    /// Notes a change. The store does so while nothing else can change the engine.
    pub(super) fn note(&self, change: Change) {
        let mut ring = self.ring();
        ring.bytes += change.bytes();
        ring.changes.push_back(change);
        while ring.changes.len() > self.room.changes || ring.bytes > self.room.bytes {
            let Some(oldest) = ring.changes.pop_front() else {
                break;
            };
            ring.bytes -= oldest.bytes();
            ring.start += 1;
        }
        let last = ring.last();
        drop(ring);
        self.last.send_replace(last);
    }

    /// Returns the position of the last change.
    pub(crate) fn now(&self) -> u64 {
        self.ring().last()
    }

    /// Returns the change after `position`, unless there was none yet.
    ///
    /// # Errors
    ///
    /// When it is not kept any more.
    pub(crate) fn after(&self, position: u64) -> Result<Option<Change>, Behind> {
        let ring = self.ring();
        let index = position.checked_sub(ring.start).ok_or(Behind)?;
        let change = usize::try_from(index)
            .ok()
            .and_then(|i| ring.changes.get(i));
        Ok(change.cloned())
    }

    /// Follows the position of the last change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Returns `position` as a text, which no other process takes for one of its own.
    pub(crate) fn revision(&self, position: u64) -> String {
        format!("{:016x}-{position}", self.epoch)
    }

    /// Returns the position that `revision` names, if what follows it is known here.
    pub(crate) fn position(&self, revision: &str) -> Option<u64> {
        let (epoch, number) = revision.split_once('-')?;
        let position = number.parse().ok()?;
        let ring = self.ring();
        let is_known = u64::from_str_radix(epoch, 16) == Ok(self.epoch)
            && (ring.start..=ring.last()).contains(&position);
        is_known.then_some(position)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Returns the position of the last change.
    fn last(&self) -> u64 {
        self.start + self.changes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::store::tests::{engine, id};

    fn removed(change: Option<Change>) -> Option<EngineId> {
        change.map(|change| match change {
            Change::Put(engine) => engine.id,
            Change::Removed(id) => id,
        })
    }

    #[test]
    fn changes_are_read_in_their_order_from_any_position_that_is_kept() {
        let changes = Changes::with_room(Room {
            changes: 3,
            bytes: 1_000,
        });
        assert_eq!(removed(changes.after(0).unwrap()), None);
        for n in 1..=5 {
            changes.note(Change::Removed(id(n)));
        }

        assert_eq!(changes.now(), 5);
        assert!(changes.after(1).is_err());
        for (position, next) in [(2, Some(id(3))), (4, Some(id(5))), (5, None), (9, None)] {
            assert_eq!(removed(changes.after(position).unwrap()), next);
        }
        for (position, is_known) in [(0, false), (1, false), (2, true), (5, true), (6, false)] {
            let revision = changes.revision(position);
            assert_eq!(changes.position(&revision), is_known.then_some(position));
        }
    }

    #[test]
    fn large_constraints_leave_room_for_fewer_changes() {
        let large = Arc::new(engine(1, "a"));
        let bytes = large.constraints.bytes();
        assert!(bytes > 0);
        let changes = Changes::with_room(Room {
            changes: 100,
            bytes: 2 * bytes,
        });

        for _ in 0..10 {
            changes.note(Change::Put(Arc::clone(&large)));
            changes.note(Change::Removed(id(2)));
        }

        let ring = changes.ring();
        assert_eq!((ring.bytes, ring.start), (2 * bytes, 15));
        // One that has no room at all is behind for all who wait.
        let none = Changes::with_room(Room {
            changes: 100,
            bytes: 0,
        });
        none.note(Change::Put(large));
        assert_eq!((none.now(), none.after(0).err()), (1, Some(Behind)));
    }

    #[test]
    fn revision_of_another_process_or_no_revision_is_not_known() {
        let [changes, other] = [Changes::default(), Changes::default()];
        let own = changes.revision(0);

        assert_eq!(changes.position(&own), Some(0));
        assert_eq!(other.position(&own), None);
        let epoch = own.trim_end_matches("-0");
        for odd in ["", "-", "0", "0-0", epoch, &format!("{own}x"), "-1"] {
            assert_eq!(changes.position(odd), None, "{odd}");
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_next_change() {
        let changes = Changes::default();
        let mut news = changes.subscribe();

        changes.note(Change::Removed(id(1)));

        news.changed().await.unwrap();
        assert_eq!(removed(changes.after(0).unwrap()), Some(id(1)));
    }
}
