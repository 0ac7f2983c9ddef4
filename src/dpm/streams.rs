//! The streams of one-way engines: where they are asked, since they are never dialled.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::failures::{not_dialled, not_proved};
use super::options::MonitorOptions;
use crate::engine::{DialBackFailure, Engine, EngineId, FailureKind, Instance};
use crate::grpc::{CONNECT_ENGINE, Module};
use crate::proto::registry as wire;
use crate::proto::registry::connect_engine_request::Message as Said;
use crate::proto::registry::connect_engine_response::Message as Asked;
use crate::secret::Secret;
use crate::token::Nonce;
use crate::token::proof::{EngineClaim, Exchange, ExpectedProof};
use crate::trust::Deployment;

/// What the registry sends over a stream.
pub(super) type Reply = Result<wire::ConnectEngineResponse, Status>;

/// The streams that are open, and those of them that are proved: one of each engine at most.
#[derive(Debug, Default)]
pub(super) struct Streams {
    table: Mutex<Table>,
    opened: AtomicU64,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<EngineId, Slot>,
    /// How many are open, by deployment.
    open: HashMap<Arc<str>, usize>,
}

#[derive(Debug, Default)]
struct Slot {
    proved: watch::Sender<Option<Stream>>,
    /// Why its last stream did not become a proved one.
    fault: Option<DialBackFailure>,
}

impl Streams {
    /// Returns the place of one more stream of `deployment`, which may have `most`.
    pub(super) fn place(self: &Arc<Self>, deployment: &str, most: usize) -> Option<Place> {
        let mut table = self.lock();
        let name = Arc::<str>::from(deployment);
        let open = table.open.entry(Arc::clone(&name)).or_default();
        if *open >= most {
            return None;
        }
        *open += 1;
        drop(table);
        Some(Place {
            streams: Arc::clone(self),
            deployment: name,
        })
    }

    /// Makes the stream of the process `instance` of an engine, opened with `token`, whose `iss` is
    /// `issuer`; returns also what it is asked by.
    pub(super) fn open(
        &self,
        instance: Instance,
        token: Secret<String>,
        issuer: &str,
    ) -> (Stream, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(1);
        let stream = Stream(Arc::new(Shared {
            number: self.opened.fetch_add(1, Ordering::Relaxed),
            instance,
            token,
            issuer: issuer.to_owned(),
            asks,
            life: self.stop.child_token(),
            why: OnceLock::new(),
            round_trip: AtomicU64::new(u64::MAX),
        }));
        (stream, asked)
    }

    /// Asks `engine`, which is one of `owner`'s, over its stream, which is returned. One that
    /// `is_awaited` has as long to come as a connection.
    pub(super) async fn ask(
        &self,
        engine: &Engine,
        owner: &Deployment,
        (module, options, checking): (&Module, &MonitorOptions, &Semaphore),
        is_awaited: bool,
    ) -> (Option<Stream>, Result<(), DialBackFailure>) {
        let to_connect = options.connection.connect_timeout;
        let patience = if is_awaited {
            to_connect
        } else {
            Duration::ZERO
        };
        let Some(stream) = self.of(engine, patience).await else {
            return (None, Err(self.fault(engine)));
        };
        let _place = checking.acquire().await;
        let way = stream.round_trip().unwrap_or(to_connect).min(to_connect);
        let limit = options.checker_timeout.saturating_add(way);
        let proved = stream.prove(engine, owner, module, limit).await;
        // One that was closed for a newer one says nothing of the engine.
        if let Err(failure) = &proved
            && failure.kind == FailureKind::ConnectionLost
            && let Some(newer) = self.of(engine, Duration::ZERO).await
        {
            let proved_again = newer.prove(engine, owner, module, limit).await;
            return (Some(newer), proved_again);
        }
        (Some(stream), proved)
    }

    /// Returns the proved stream of the recorded process of `engine`, and waits for `patience` where
    /// it holds no such stream.
    async fn of(&self, engine: &Engine, patience: Duration) -> Option<Stream> {
        let mut held = self.slot(engine.id, |slot| slot.proved.subscribe());
        let found = {
            let fits = held.wait_for(|held| {
                let of_process = held.as_ref().filter(|held| held.is_open());
                of_process.is_some_and(|held| Some(held.0.instance) == engine.instance)
            });
            timeout(patience, fits)
                .await
                .ok()
                .and_then(|held| held.ok()?.clone())
        };
        drop(held);
        self.tidy(engine.id);
        found
    }

    /// Has `stream`, which was proved, be the one of the engine. Of two of one process the older one
    /// is closed.
    pub(super) fn install(&self, id: EngineId, stream: Stream) {
        self.slot(id, |slot| {
            slot.fault = None;
            slot.proved.send_modify(|held| {
                let newer = held.as_ref().is_some_and(|held| {
                    let is_same = held.0.instance == stream.0.instance;
                    is_same && held.is_open() && held.0.number > stream.0.number
                });
                let older = if newer {
                    Some(stream)
                } else {
                    held.replace(stream)
                };
                if let Some(older) = older {
                    older.cut(None);
                }
            });
        });
    }

    /// Notes why a stream of an engine did not become a proved one.
    pub(super) fn note(&self, id: EngineId, fault: DialBackFailure) {
        self.slot(id, |slot| slot.fault = Some(fault));
    }

    /// Says why `engine`, which has no proved stream, is not reached.
    fn fault(&self, engine: &Engine) -> DialBackFailure {
        let table = self.lock();
        let slot = table.slots.get(&engine.id);
        slot.and_then(|slot| slot.fault.clone()).unwrap_or_else(|| {
            let host = engine.address.hostname();
            let detail =
                format!("the one-way engine on {host} holds no stream to this DPM; is it running?");
            DialBackFailure::new(FailureKind::NotReached, detail)
        })
    }

    /// Notes that `stream` has ended; returns `true` if that leaves the engine without one.
    pub(super) fn left(&self, id: EngineId, stream: &Stream) -> bool {
        let was_held = self.slot(id, |slot| {
            slot.proved.send_if_modified(|held| {
                let was = held.take_if(|held| Arc::ptr_eq(&held.0, &stream.0));
                was.is_some()
            })
        });
        self.tidy(id);
        was_held && !self.stop.is_cancelled()
    }

    /// Ends the stream of an engine that has left, or has proved itself to another DPM since.
    pub(super) fn forget(&self, id: EngineId) {
        let slot = self.lock().slots.remove(&id);
        if let Some(stream) = slot.and_then(|slot| slot.proved.send_replace(None)) {
            stream.cut(None);
        }
    }

    /// Ends every stream, also those that come later.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }

    fn slot<T>(&self, id: EngineId, with: impl FnOnce(&mut Slot) -> T) -> T {
        with(self.lock().slots.entry(id).or_default())
    }

    /// Forgets a slot that says nothing, for which no check waits.
    fn tidy(&self, id: EngineId) {
        let mut table = self.lock();
        let is_idle = table.slots.get(&id).is_some_and(|slot| {
            let is_held = slot.proved.borrow().is_some() || slot.proved.receiver_count() > 0;
            !is_held && slot.fault.is_none()
        });
        if is_idle {
            table.slots.remove(&id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one stream among those of its deployment, as long as it is open.
#[derive(Debug)]
pub(super) struct Place {
    streams: Arc<Streams>,
    deployment: Arc<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.streams.lock();
        if let Some(open) = table.open.get_mut(&self.deployment) {
            *open -= 1;
            if *open == 0 {
                table.open.remove(&self.deployment);
            }
        }
    }
}

/// One stream of one process of an engine. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Stream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The later it was opened, the larger.
    number: u64,
    instance: Instance,
    /// The token with which it was opened, and its `iss`.
    token: Secret<String>,
    issuer: String,
    asks: mpsc::Sender<Ask>,
    life: CancellationToken,
    /// What the engine reads of why it was ended, if that is a fault.
    why: OnceLock<Status>,
    /// The shortest time in which it answered, in nanoseconds.
    round_trip: AtomicU64,
}

/// A challenge to be sent, and where its answer goes.
#[derive(Debug)]
pub(super) struct Ask {
    nonce: Nonce,
    answer: oneshot::Sender<String>,
}

impl Stream {
    fn is_open(&self) -> bool {
        !self.0.life.is_cancelled()
    }

    /// Completes once it has ended.
    pub(super) async fn ended(&self) {
        self.0.life.cancelled().await;
    }

    /// Ends it; the engine reads `why`.
    pub(super) fn cut(&self, why: Option<Status>) {
        if let Some(why) = why {
            // The first reason stays.
            let _ = self.0.why.set(why);
        }
        self.0.life.cancel();
    }

    /// Returns the time in which an answer comes there and back, once there was one.
    fn round_trip(&self) -> Option<Duration> {
        match self.0.round_trip.load(Ordering::Relaxed) {
            u64::MAX => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Has `engine` prove within `limit` that it holds this stream, as one of `owner`'s.
    ///
    /// A failure quotes nothing that the far side sent but what the verifier escapes.
    pub(super) async fn prove(
        &self,
        engine: &Engine,
        owner: &Deployment,
        module: &Module,
        limit: Duration,
    ) -> Result<(), DialBackFailure> {
        let (verifier, began) = (module.proof_verifier(), Instant::now());
        let sent = verifier.clock().now();
        let nonce = Nonce::generate().map_err(|error| not_dialled(error.to_string()))?;
        let (answer, answered) = oneshot::channel();
        let asking = async {
            self.0.asks.send(Ask { nonce, answer }).await.ok()?;
            answered.await.ok()
        };
        let host = engine.address.hostname();
        let proof = match timeout(limit, asking).await {
            Ok(Some(proof)) => proof,
            Ok(None) => {
                let detail = format!("the stream of the one-way engine on {host} ended");
                return Err(DialBackFailure::new(FailureKind::ConnectionLost, detail));
            }
            Err(_elapsed) => {
                let detail = format!("no proof over the stream from {host} within {limit:?}");
                return Err(DialBackFailure::new(FailureKind::TimedOut, detail));
            }
        };
        let claim = EngineClaim::new(engine.id, &engine.address, engine.instance);
        let expected = ExpectedProof {
            exchange: Exchange {
                caller: &self.0.issuer,
                nonce,
                token: self.0.token.expose(),
                path: CONNECT_ENGINE,
            },
            callee: owner,
            engine: Some(&claim),
            sent,
        };
        let judged = verifier.verify(&proof, &expected);
        judged.map_err(|refusal| not_proved(&refusal, engine, module))?;
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.round_trip.fetch_min(took, Ordering::Relaxed);
        Ok(())
    }
}

/// One stream's messages, as long as it is open.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: Stream,
    pub(super) asked: mpsc::Receiver<Ask>,
    pub(super) said: Streaming<wire::ConnectEngineRequest>,
    /// Has room for [`MOST_MESSAGES`].
    pub(super) replies: mpsc::Sender<Reply>,
}

/// How many challenges may wait for their answers; more are not sent.
const MOST_PENDING: usize = 4;
/// As many, and the status at the end.
pub(super) const MOST_MESSAGES: usize = MOST_PENDING + 1;
/// The longest proof, as everywhere.
const MAX_PROOF_BYTES: usize = 2048;

impl Line {
    /// Passes challenges and answers until the stream ends. The engine answers each challenge once,
    /// in their order; it says nothing else.
    pub(super) async fn run(mut self) {
        let Shared { life, why, .. } = &*self.stream.0;
        let mut pending = VecDeque::<oneshot::Sender<String>>::new();
        let end = loop {
            tokio::select! {
                () = life.cancelled() => break why.get().cloned(),
                () = self.replies.closed() => break None,
                Some(Ask { nonce, answer }) = self.asked.recv(), if pending.len() < MOST_PENDING => {
                    if self.replies.try_send(Ok(challenge(nonce))).is_err() {
                        break None;
                    }
                    pending.push_back(answer);
                }
                said = self.said.message() => match said {
                    Ok(Some(wire::ConnectEngineRequest {
                        message: Some(Said::Proof(proof)),
                    })) if proof.jws.len() <= MAX_PROOF_BYTES => match pending.pop_front() {
                        // One that comes too late is not waited for.
                        Some(answer) => drop(answer.send(proof.jws)),
                        None => break Some(not_expected()),
                    },
                    Ok(Some(_)) => break Some(not_expected()),
                    Ok(None) | Err(_) => break None,
                },
            }
        };
        life.cancel();
        if let Some(status) = end {
            // Where it is full, the engine reads nothing.
            let _ = self.replies.try_send(Err(status));
        }
    }
}

fn challenge(nonce: Nonce) -> wire::ConnectEngineResponse {
    let nonce_text = nonce.to_string();
    let asked = Asked::Challenge(wire::Challenge { nonce: nonce_text });
    wire::ConnectEngineResponse {
        message: Some(asked),
    }
}

fn not_expected() -> Status {
    let most = "one proof, of 2048 bytes at most, answers one challenge; nothing else is sent";
    Status::invalid_argument(most)
}
