//! Watches of the engines: each reads the registry's changes from a position of its own.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use crate::engine::Engine;
use crate::proto::registry as wire;
use crate::proto::registry::watch_engines_response::Change as Shown;
use crate::registry::store::changes::{Change, Changes};

/// How many watches may be open: in all, and of one deployment.
const MOST: usize = 1024;
const MOST_OF_ONE: usize = 64;

/// A watch that is open, and its deployment.
type Open = (Arc<str>, Weak<()>);

/// The watches that are open. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches {
    open: Arc<Mutex<Vec<Open>>>,
    stop: CancellationToken,
}

impl Watches {
    /// Ends all watches, and those that are opened later.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns a place for one more watch of `deployment`.
    pub(super) fn place(&self, deployment: &str) -> Result<Place, Status> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, watch)| watch.strong_count() > 0);
        let of_one = open.iter().filter(|(other, _)| **other == *deployment);
        if open.len() >= MOST || of_one.count() >= MOST_OF_ONE {
            let many = format!("at most {MOST_OF_ONE} watches of a deployment, {MOST} in all");
            return Err(Status::resource_exhausted(many));
        }
        let place = Arc::new(());
        open.push((deployment.into(), Arc::downgrade(&place)));
        Ok(Place {
            _open: place,
            stopped: Box::pin(self.stop.clone().cancelled_owned()),
        })
    }
}

/// The place of one watch, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _open: Arc<()>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Place {
    /// Watches `changes` after the revision `from`, or from now on where it is empty; `view` is how
    /// the caller sees an engine.
    pub(super) fn watch<V>(
        self,
        changes: Arc<Changes>,
        from: &str,
        view: V,
    ) -> Result<Watching<V>, Status>
    where
        V: Fn(&Engine) -> wire::Engine,
    {
        let position = match from {
            "" => changes.now(),
            revision => changes.position(revision).ok_or_else(behind)?,
        };
        Ok(Watching {
            position,
            news: WatchStream::from_changes(changes.subscribe()),
            changes,
            view,
            place: self,
        })
    }
}

/// One watch. What its caller does not read waits in the registry's changes, not here.
#[derive(Debug)]
pub(super) struct Watching<V> {
    changes: Arc<Changes>,
    /// Up to which change it has come.
    position: u64,
    news: WatchStream<u64>,
    view: V,
    place: Place,
}

impl<V: Fn(&Engine) -> wire::Engine + Unpin> Stream for Watching<V> {
    type Item = Result<wire::WatchEnginesResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.place.stopped.as_mut().poll(cx).is_ready() {
            let stops = "the registry stops; watch again from the last revision";
            return Poll::Ready(Some(Err(Status::unavailable(stops))));
        }
        loop {
            let Ok(next) = self.changes.after(self.position) else {
                return Poll::Ready(Some(Err(behind())));
            };
            let Some(change) = next else {
                // The changes outlive their watch, which holds them.
                ready!(Pin::new(&mut self.news).poll_next(cx));
                continue;
            };
            self.position += 1;
            let shown = match change {
                Change::Put(engine) => Shown::Engine(Box::new((self.view)(&engine))),
                Change::Removed(id) => Shown::RemovedId(id.to_string()),
            };
            return Poll::Ready(Some(Ok(wire::WatchEnginesResponse {
                revision: self.changes.revision(self.position),
                change: Some(shown),
            })));
        }
    }
}

fn behind() -> Status {
    Status::out_of_range(
        "what changed after this revision is not known any more; list the engines, and watch from the revision of its first page",
    )
}
