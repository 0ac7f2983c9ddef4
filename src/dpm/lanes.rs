//! Whose turn it is to dial: 8 engines of a deployment at once, first attempts before retries.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The places to dial from, by deployment. Cloning is cheap.
///
/// First attempts, and those for engines that were READY, take any place, the last to come and the
/// first to come in turns: addresses that never answer so keep no newcomer waiting for long, and none
/// waits for ever. Retries take half of the places,
/// in turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes(Arc<Mutex<HashMap<Arc<str>, Lane>>>);

#[derive(Debug, Default)]
struct Lane {
    taken: usize,
    /// How many of them by retries.
    retrying: usize,
    first: VecDeque<oneshot::Sender<Place>>,
    /// Whether the next of them is the first to have come.
    is_oldest_next: bool,
    retries: VecDeque<oneshot::Sender<Place>>,
}

/// A place to dial from, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    lanes: Lanes,
    deployment: Arc<str>,
    is_retry: bool,
}

impl Lanes {
    /// Waits for a place of `deployment`; `None` would say that there are none to be had.
    pub(super) async fn take(&self, deployment: &Arc<str>, is_retry: bool) -> Option<Place> {
        let (sender, granted) = oneshot::channel();
        {
            // As many entries as deployments were ever trusted.
            let mut all = self.lock();
            let lane = all.entry(Arc::clone(deployment)).or_default();
            let queue = if is_retry {
                &mut lane.retries
            } else {
                &mut lane.first
            };
            if queue.len() == queue.capacity() {
                queue.retain(|waiting| !waiting.is_closed());
                queue.reserve(queue.len());
            }
            queue.push_back(sender);
        }
        self.grant(deployment);
        granted.await.ok()
    }

    /// Gives the free places of `deployment` to those who wait.
    fn grant(&self, deployment: &Arc<str>) {
        while let Some((waiting, is_retry)) = self.next(deployment) {
            // If it waits no longer, the place is free again.
            let _ = waiting.send(Place {
                lanes: self.clone(),
                deployment: Arc::clone(deployment),
                is_retry,
            });
        }
    }

    /// Takes a place for the next who waits, if there is one for it.
    fn next(&self, deployment: &str) -> Option<(oneshot::Sender<Place>, bool)> {
        let mut all = self.lock();
        let lane = all.get_mut(deployment)?;
        if lane.taken >= AT_ONCE {
            return None;
        }
        let first = open(&mut lane.first, lane.is_oldest_next);
        lane.is_oldest_next ^= first.is_some();
        let attempt = first.map(|first| (first, false));
        let next = attempt.or_else(|| {
            if lane.retrying >= RETRIES_AT_ONCE {
                return None;
            }
            let retry = open(&mut lane.retries, true)?;
            lane.retrying += 1;
            Some((retry, true))
        })?;
        lane.taken += 1;
        Some(next)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the oldest or the newest of those who still wait.
fn open(
    queue: &mut VecDeque<oneshot::Sender<Place>>,
    is_oldest: bool,
) -> Option<oneshot::Sender<Place>> {
    loop {
        let next = if is_oldest {
            queue.pop_front()
        } else {
            queue.pop_back()
        };
        if next.as_ref().is_none_or(|waiting| !waiting.is_closed()) {
            return next;
        }
    }
}

impl Place {
    /// Makes it one of a retry, if there is room for that; returns whether it is one.
    pub(super) fn is_now_a_retrys(&mut self) -> bool {
        let mut all = self.lanes.lock();
        if let Some(lane) = all.get_mut(&self.deployment)
            && !self.is_retry
            && lane.retrying < RETRIES_AT_ONCE
        {
            lane.retrying += 1;
            self.is_retry = true;
        }
        self.is_retry
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(lane) = self.lanes.lock().get_mut(&self.deployment) {
            lane.taken = lane.taken.saturating_sub(1);
            lane.retrying = lane.retrying.saturating_sub(self.is_retry.into());
        }
        self.lanes.grant(&self.deployment);
    }
}

const AT_ONCE: usize = 8;
const RETRIES_AT_ONCE: usize = AT_ONCE / 2;

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;

    fn owner() -> Arc<str> {
        "dpe-dev".into()
    }

    /// Lanes of which `count` places are taken.
    async fn taken(count: usize, is_retry: bool) -> (Lanes, Vec<Place>) {
        let (lanes, mut places) = (Lanes::default(), Vec::new());
        for _ in 0..count {
            places.push(lanes.take(&owner(), is_retry).await.unwrap());
        }
        (lanes, places)
    }

    /// Has `count` takers wait.
    async fn waiting(lanes: &Lanes, count: usize, is_retry: bool) {
        for _ in 0..count {
            let lanes = lanes.clone();
            tokio::spawn(async move {
                let _place = lanes.take(&owner(), is_retry).await;
                std::future::pending::<()>().await;
            });
        }
        yield_now().await;
    }

    #[tokio::test]
    async fn ninth_dial_back_of_a_deployment_waits_for_a_place() {
        let (lanes, mut places) = taken(8, false).await;

        let mine = owner();
        let mut ninth = std::pin::pin!(lanes.take(&mine, false));
        let others = "dpe-other".into();
        tokio::select! {
            biased;
            _ = &mut ninth => panic!("nine at once"),
            other = lanes.take(&others, false) => assert!(other.is_some()),
        }

        places.pop();
        assert!(ninth.await.is_some());
    }

    #[tokio::test]
    async fn first_attempt_waits_for_none_of_900_retries() {
        let (lanes, _places) = taken(4, true).await;
        waiting(&lanes, 896, true).await;

        let place = lanes.take(&owner(), false).await;

        assert!(place.is_some());
    }

    #[tokio::test]
    async fn newest_first_attempt_goes_before_900_others_that_wait() {
        let (lanes, mut places) = taken(8, false).await;
        waiting(&lanes, 900, false).await;
        let mine = owner();
        let newest = lanes.take(&mine, false);
        let mut newest = std::pin::pin!(newest);
        assert!(polled(&mut newest).await.is_none());

        places.pop();

        assert!(newest.await.is_some());
    }

    #[tokio::test]
    async fn oldest_first_attempt_has_its_turn_however_many_come_after_it() {
        let (lanes, mut places) = taken(8, false).await;
        let mine = owner();
        let oldest = lanes.take(&mine, false);
        let mut oldest = std::pin::pin!(oldest);
        assert!(polled(&mut oldest).await.is_none());
        waiting(&lanes, 900, false).await;

        places.truncate(6);

        assert!(oldest.await.is_some());
    }

    #[tokio::test]
    async fn queue_does_not_grow_by_takers_that_gave_up() {
        let (lanes, _places) = taken(8, false).await;
        let mine = owner();

        for _ in 0..10_000 {
            let given_up = lanes.take(&mine, false);
            assert!(polled(&mut std::pin::pin!(given_up)).await.is_none());
        }

        let all = lanes.lock();
        assert!(all[&mine].first.capacity() < 64);
    }

    #[tokio::test]
    async fn retry_that_waits_no_longer_takes_no_place() {
        let (lanes, mut places) = taken(4, true).await;
        {
            let mine = owner();
            let gone = lanes.take(&mine, true);
            let mut gone = std::pin::pin!(gone);
            assert!(polled(&mut gone).await.is_none());
        }
        places.clear();

        for _ in 0..4 {
            places.push(lanes.take(&owner(), true).await.unwrap());
        }
    }

    #[tokio::test]
    async fn first_attempt_goes_on_as_a_retry_while_there_is_room() {
        let (_lanes, mut places) = taken(5, false).await;

        let became: Vec<_> = places.iter_mut().map(Place::is_now_a_retrys).collect();

        assert_eq!(became, [true, true, true, true, false]);
    }

    /// Polls `future` once.
    async fn polled<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
