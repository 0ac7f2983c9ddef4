//! What changes among a registry's engines, for as long as the caller wants to know.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Status, Streaming};

use super::greeting::{Callee, Doubt, Found, PATIENCE, Registry, list_with_revision};
use crate::clock::{Clock as _, SystemClock};
use crate::engine::EngineId;
use crate::grpc::{AttachIdentity, CallToken, Connection};
use crate::proto::registry::watch_engines_response::Change;
use crate::proto::registry::{
    Engine, ListEnginesRequest, WatchEnginesRequest, WatchEnginesResponse,
};

/// What there is to say.
#[derive(Clone, Debug)]
pub enum News {
    /// An engine that was not known, or differs from what was said of it last.
    Engine(Box<Engine>),
    /// The engine of this id is not recorded any more.
    Removed(String),
    /// The registry does not answer, for this reason; it is asked again until it does.
    Lost(String),
}

/// Sends what each engine is, and then each change, until `news` is not received any more.
///
/// If the connection is lost, or the registry does not know any more what changed, this begins
/// again and sends what differs.
///
/// # Errors
///
/// What was found in place of the registry, unless it answered before and may do so again.
pub async fn watch(callee: &Callee, news: Sender<News>) -> Result<(), Doubt> {
    let (mut known, mut from) = (Known::default(), None);
    let (mut is_lost, mut pause) = (false, SHORTEST);
    loop {
        let last = from.clone();
        let opening = callee.ask(Instant::now() + PATIENCE, async move |channel| {
            open(channel, last).await
        });
        let opened = match opening.await {
            Ok(opened) => opened,
            Err(doubt) if from.is_none() || !passes(doubt.found) => return Err(doubt),
            Err(doubt) => {
                let said = (!is_lost).then_some(News::Lost(doubt.why));
                is_lost = true;
                if !sent(&news, said).await {
                    return Ok(());
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
                continue;
            }
        };
        (is_lost, pause) = (false, SHORTEST);
        if let Some((engines, revision)) = opened.listed {
            if !sent(&news, known.listed(engines)).await {
                return Ok(());
            }
            from = Some(revision);
        }
        let mut changes = opened.changes;
        // The next stream begins where this one ends, with a new token.
        let renewal = Instant::now() + opened.lasts;
        loop {
            match timeout_at(renewal, changes.message()).await {
                Ok(Ok(Some(next))) => {
                    if !sent(&news, known.changed(next.change)).await {
                        return Ok(());
                    }
                    from = Some(next.revision);
                }
                Ok(_) => break sleep(SHORTEST).await,
                Err(_elapsed) => break,
            }
        }
    }
}

/// Returns `false` if they are not received.
async fn sent(news: &Sender<News>, all: impl IntoIterator<Item = News>) -> bool {
    for one in all {
        if news.send(one).await.is_err() {
            return false;
        }
    }
    true
}

/// Between two questions to a registry that is gone: at first, and at most.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// How long a stream is read whose token does not say how long it lasts.
const LASTS: Duration = Duration::from_secs(15);

/// Returns `true` if the registry may be there again soon.
fn passes(found: Found) -> bool {
    matches!(found, Found::Silent | Found::NotReached | Found::NotGrpc)
}

/// A stream of changes, and what it begins with.
struct Opened {
    /// All engines, with their revision, if there was none from which to go on.
    listed: Option<(Vec<Engine>, String)>,
    changes: Streaming<WatchEnginesResponse>,
    /// How long the stream should be read.
    lasts: Duration,
    /// The stream ends with its connection.
    _channel: AttachIdentity<Connection>,
}

/// Watches from the revision `from`, or from a list where it is absent or not known.
async fn open(
    channel: AttachIdentity<Connection>,
    mut from: Option<String>,
) -> Result<Opened, Status> {
    loop {
        let given = from.take();
        let is_listed = given.is_none();
        let (engines, from_revision, until) = match given {
            Some(revision) => (Vec::new(), revision.clone(), revision),
            None => list(channel.clone()).await?,
        };
        let at = from_revision.clone();
        let request = WatchEnginesRequest { from_revision };
        let answer = match Registry::new(channel.clone()).watch_engines(request).await {
            Err(status) if status.code() == Code::OutOfRange => continue,
            answer => answer?,
        };
        let renewed = answer.extensions().get::<CallToken>();
        let left = renewed.map(|token| token.renewed_at.duration_since(SystemClock.now()));
        let mut changes = answer.into_inner();
        let engines = match caught_up(engines, &mut changes, (at, &until)).await {
            Err(status) if status.code() == Code::OutOfRange => continue,
            engines => engines?,
        };
        return Ok(Opened {
            listed: is_listed.then_some((engines, until)),
            lasts: left.map_or(LASTS, Result::unwrap_or_default),
            changes,
            _channel: channel,
        });
    }
}

/// Lists all engines; returns also the revisions before the first page and after the last one.
async fn list(
    channel: AttachIdentity<Connection>,
) -> Result<(Vec<Engine>, String, String), Status> {
    let (engines, before) = list_with_revision(channel.clone()).await?;
    let request = ListEnginesRequest {
        page_size: 1,
        ..ListEnginesRequest::default()
    };
    let last = Registry::new(channel).list_engines(request).await?;
    Ok((engines, before, last.into_inner().revision))
}

/// Returns `engines` as they all were at the revision `until`: their pages are of different times,
/// none of them earlier than `at`, where `changes` begin, or later than `until`.
async fn caught_up(
    engines: Vec<Engine>,
    changes: &mut (impl Stream<Item = Result<WatchEnginesResponse, Status>> + Unpin),
    (mut at, until): (String, &str),
) -> Result<Vec<Engine>, Status> {
    let listed = engines
        .into_iter()
        .map(|engine| (engine.id.clone(), engine));
    let mut all: BTreeMap<_, _> = listed.collect();
    while at != *until {
        let next = changes.next().await.transpose()?;
        let WatchEnginesResponse { revision, change } = next.ok_or_else(|| {
            Status::unavailable("the watch ended before it had what the list shows")
        })?;
        match change {
            Some(Change::Engine(engine)) => drop(all.insert(engine.id.clone(), *engine)),
            Some(Change::RemovedId(id)) => drop(all.remove(&id)),
            None => {}
        }
        at = revision;
    }
    Ok(all.into_values().collect())
}

/// What was said of each engine, in short.
#[derive(Debug, Default)]
struct Known(HashMap<EngineId, u64>);

impl Known {
    /// Returns what differs in a list of all engines.
    fn listed(&mut self, engines: Vec<Engine>) -> Vec<News> {
        let mut gone = std::mem::take(&mut self.0);
        let mut news = Vec::new();
        for engine in engines {
            let before = engine.id.parse().ok().and_then(|id| gone.remove(&id));
            let now = self.note(&engine);
            if before.is_none_or(|before| before != now) {
                news.push(News::Engine(Box::new(engine)));
            }
        }
        let mut gone: Vec<_> = gone.into_keys().collect();
        gone.sort_unstable();
        news.extend(gone.into_iter().map(|id| News::Removed(id.to_string())));
        news
    }

    /// Returns what to say of a change, if it shows and is of a kind that this version knows.
    fn changed(&mut self, change: Option<Change>) -> Option<News> {
        match change? {
            Change::Engine(engine) => {
                let before = engine
                    .id
                    .parse()
                    .ok()
                    .and_then(|id| self.0.get(&id).copied());
                let differs = before != Some(self.note(&engine));
                differs.then_some(News::Engine(engine))
            }
            Change::RemovedId(id) => {
                let was = id.parse().ok().and_then(|id| self.0.remove(&id));
                was.map(|_| News::Removed(id))
            }
        }
    }

    /// Notes what is said of an engine; returns it in short.
    fn note(&mut self, engine: &Engine) -> u64 {
        let mut shown = engine.clone();
        shown.last_seen_at = None;
        // Maps have no order of their own, and an engine's constraints are not shown.
        shown.constraints = None;
        let mut hasher = DefaultHasher::new();
        shown.encode_to_vec().hash(&mut hasher);
        let short = hasher.finish();
        if let Ok(id) = engine.id.parse()
            && (self.0.len() < MOST_KNOWN || self.0.contains_key(&id))
        {
            self.0.insert(id, short);
        }
        short
    }
}

/// How many engines are remembered: as many as a registry may have.
const MOST_KNOWN: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(n: u8, status_reason: &str) -> Engine {
        Engine {
            id: EngineId::from_random([n; 16]).to_string(),
            status_reason: status_reason.to_owned(),
            ..Engine::default()
        }
    }

    fn short(id: &str) -> String {
        id.chars().take(2).collect()
    }

    fn shown(news: impl IntoIterator<Item = News>) -> Vec<String> {
        let words = |news| match news {
            News::Engine(engine) => format!("{} {}", short(&engine.id), engine.status_reason),
            News::Removed(id) => format!("{} is gone", short(&id)),
            News::Lost(why) => why,
        };
        news.into_iter().map(words).collect()
    }

    #[test]
    fn of_another_list_only_what_differs_is_said() {
        let mut known = Known::default();
        let seen = Some(prost_types::Timestamp::default());
        let all = [engine(1, "a"), engine(2, "a"), engine(3, "a")];

        let first = known.listed(all.to_vec());
        let [one, two, _] = all;
        let seen = Engine {
            last_seen_at: seen,
            ..one
        };
        let second = known.listed(vec![seen, two.clone(), engine(4, "b")]);

        assert_eq!(shown(first), ["01 a", "02 a", "03 a"]);
        assert_eq!(shown(second), ["04 b", "03 is gone"]);
        let changed = known.changed(Some(Change::Engine(Box::new(engine(2, "c")))));
        assert_eq!(shown(changed), ["02 c"]);
        let same = known.changed(Some(Change::Engine(Box::new(engine(2, "c")))));
        assert!(same.is_none());
        let removed = known.changed(Some(Change::RemovedId(two.id)));
        assert_eq!(shown(removed), ["02 is gone"]);
        let third = known.listed(vec![engine(1, "a"), engine(2, "c"), engine(4, "b")]);
        assert_eq!(shown(third), ["02 c"]);
        assert!(known.changed(None).is_none());
    }

    #[test]
    fn engine_without_a_proper_id_is_said_and_not_remembered() {
        let mut known = Known::default();
        let odd = Engine {
            id: "x".repeat(50),
            ..engine(1, "a")
        };

        for _ in 0..2 {
            assert_eq!(known.listed(vec![odd.clone()]).len(), 1);
        }
        assert!(known.0.is_empty());
        assert!(known.changed(Some(Change::RemovedId(odd.id))).is_none());
    }

    #[test]
    fn removal_of_an_engine_that_was_not_shown_is_not_said() {
        let mut known = Known::default();
        known.listed(vec![engine(1, "a")]);
        let removed = |n| Some(Change::RemovedId(engine(n, "").id));

        assert!(known.changed(removed(2)).is_none());
        assert_eq!(shown(known.changed(removed(1))), ["01 is gone"]);
        assert!(known.changed(removed(1)).is_none());
    }

    fn changes(
        all: impl IntoIterator<Item = (&'static str, Change)>,
    ) -> Vec<Result<WatchEnginesResponse, Status>> {
        let sent = all.into_iter().map(|(revision, change)| {
            Ok(WatchEnginesResponse {
                revision: revision.to_owned(),
                change: Some(change),
            })
        });
        sent.collect()
    }

    #[tokio::test]
    async fn list_whose_pages_are_of_different_times_is_shown_as_it_was_after_the_last() {
        let put = |n, why| Change::Engine(Box::new(engine(n, why)));
        // The second page has the change of "r2" already; the first one has none of them.
        let listed = vec![engine(1, "old"), engine(2, "old"), engine(8, "newer")];
        let sent = changes([
            ("r1", put(8, "older")),
            ("r2", put(8, "newer")),
            ("r3", put(1, "new")),
            ("r4", Change::RemovedId(engine(2, "").id)),
            ("r5", put(3, "passing")),
            ("r6", Change::RemovedId(engine(3, "").id)),
            ("r7", put(4, "new")),
            ("r8", put(4, "later")),
        ]);
        let mut sent = tokio_stream::iter(sent);

        let all = caught_up(listed, &mut sent, ("r0".to_owned(), "r7")).await;

        let first = Known::default().listed(all.unwrap());
        assert_eq!(shown(first), ["01 new", "04 new", "08 newer"]);
        let next = sent.next().await.unwrap().unwrap();
        assert_eq!(next.revision, "r8");
    }

    #[tokio::test]
    async fn list_that_its_watch_does_not_reach_is_not_shown() {
        let change = Change::Engine(Box::new(engine(1, "a")));
        let mut sent = tokio_stream::iter(changes([("r1", change)]));

        let ended = caught_up(Vec::new(), &mut sent, ("r0".to_owned(), "r2")).await;

        assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
        let mut nothing = tokio_stream::iter(changes([]));
        let same = caught_up(Vec::new(), &mut nothing, ("r0".to_owned(), "r0")).await;
        assert!(same.unwrap().is_empty());
    }
}
