//! Calls that are open to everyone, on connections that have shown no verified token.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::request::Parts;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::{metadata, peer};
use crate::admission::{Network, Standing};

/// How many such calls may be open on one connection.
const MOST: usize = 4;

/// How many watches of the health may stay open: in all, and from one network.
const MOST_WATCHES: usize = 256;
const MOST_WATCHES_OF_ONE: usize = 8;

/// By one part in so many of its time a call may run over, while its end cannot be sent.
pub(super) const SLACK: u32 = 12;

/// The bound of a watch that has no end: longer than any connection lives.
const NO_END: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// How long `grpc.health.v1.Health/Watch` may go on where the caller has shown no token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum HealthWatch {
    /// As long as any other call that is open to everyone.
    #[default]
    Bounded,
    /// Without end: 256 in all, 8 from one address.
    Open,
}

/// What such calls may do.
#[derive(Clone, Debug)]
pub(super) struct Visits {
    longest: Duration,
    watches: Option<Arc<Watches>>,
}

/// The watches that stay open, and where they come from.
type Watches = Mutex<Vec<(Network, Weak<()>)>>;

impl Visits {
    pub(super) fn new(longest: Duration, health_watch: HealthWatch) -> Self {
        let is_open = health_watch == HealthWatch::Open;
        Self {
            longest,
            watches: is_open.then(Arc::default),
        }
    }

    /// Begins a call, if there is something to bound: nothing where the connection has shown a
    /// token, or is not our listener's.
    pub(super) fn begin(&self, head: &Parts) -> Result<Option<Arc<Visit>>, Status> {
        let standing = head.extensions.get::<Arc<Standing>>();
        let Some(standing) = standing.filter(|standing| !standing.is_verified()) else {
            return Ok(None);
        };
        let (begun, watch) = (Instant::now(), self.watch(head)?);
        // Where it cannot say that it ended, the connection is cut a little later.
        let lasts = match watch {
            Some(_) => NO_END,
            None => self.longest + self.longest / SLACK,
        };
        let due = begun + lasts;
        let others = standing.begin_visit(due);
        let visit = Visit {
            standing: Arc::clone(standing),
            longest: self.longest,
            begun,
            due,
            watch,
        };
        if others >= MOST {
            let most = "at most 4 calls at once on a connection without a verified token";
            return Err(Status::resource_exhausted(most));
        }
        Ok(Some(Arc::new(visit)))
    }

    /// Returns what holds the place of a watch that stays open, if the call is one.
    fn watch(&self, head: &Parts) -> Result<Option<Arc<()>>, Status> {
        let address = peer::address_in(&head.extensions);
        let Some((watches, address)) = self.watches.as_ref().zip(address) else {
            return Ok(None);
        };
        if metadata::path(&head.uri) != WATCH {
            return Ok(None);
        }
        let network = Network::of(address.ip());
        let mut open = watches.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, watch)| watch.strong_count() > 0);
        let of_one = open.iter().filter(|(other, _)| *other == network).count();
        if open.len() >= MOST_WATCHES || of_one >= MOST_WATCHES_OF_ONE {
            let many = "too many watches without a verified token are open";
            return Err(Status::resource_exhausted(many));
        }
        let place = Arc::new(());
        open.push((network, Arc::downgrade(&place)));
        Ok(Some(place))
    }
}

/// One such call, as long as it is open.
#[derive(Debug)]
pub(super) struct Visit {
    standing: Arc<Standing>,
    longest: Duration,
    begun: Instant,
    due: Instant,
    /// Its place, if it is a watch that stays open.
    watch: Option<Arc<()>>,
}

impl Visit {
    pub(super) fn in_time(&self) -> Result<(), Status> {
        let is_late = self.watch.is_none() && self.begun.elapsed() >= self.longest;
        if !is_late || self.standing.is_verified() {
            return Ok(());
        }
        let seconds = self.longest.as_secs();
        Err(Status::unavailable(format!(
            "a call without a token ends after {seconds} s; send a call with a token on this connection, or call again"
        )))
    }

    /// Completes once the call may not go on.
    pub(super) async fn over(self: Arc<Self>) -> Status {
        loop {
            // Later, the token may no longer be trusted.
            sleep(self.longest).await;
            if let Err(status) = self.in_time() {
                return status;
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.standing.end_visit(self.due);
    }
}
