//! The stream of an engine that takes no calls: its DPM asks over it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use super::status_checker::{
    FIRST_PAUSE, JITTER, LONGEST_UNREACHED, OLDER_DPM, Registration, StatusChecker,
};
use crate::engine::EngineId;
use crate::grpc::{
    AttachIdentity, CallToken, Connection, Module, StreamToken, Target, code_name, refusal_of,
    summary_and_detail, up_to,
};
use crate::proto::registry as wire;
use crate::proto::registry::connect_engine_request::Message as Said;
use crate::proto::registry::connect_engine_response::Message as Asked;
use crate::proto::registry::engine_registry_service_client::EngineRegistryServiceClient;
use crate::telemetry::{Ledger, Untrusted, events};
use crate::token::proof::EngineClaim;

/// Holds a stream to the DPM while the engine is registered there.
///
/// The next one is opened once half of the life of the token is over with which this one was: the
/// DPM then has always one that is proved. It closes the older one of two. A stream that ends is
/// replaced at once, and with a growing pause where that happens again.
#[derive(Debug)]
pub(super) struct StreamHolder {
    engine: EngineId,
    claim: Arc<EngineClaim>,
    client: EngineRegistryServiceClient<AttachIdentity<Connection>>,
    module: Module,
    registration: watch::Receiver<Registration>,
    dpm: Target,
    call_timeout: Duration,
    interval: Duration,
    pause: Duration,
    /// One line a minute of each kind, of which a DPM may choose the text.
    logged: Ledger<String>,
}

/// A stream that the DPM has taken.
struct Opened {
    challenges: Streaming<wire::ConnectEngineResponse>,
    answers: mpsc::Sender<wire::ConnectEngineRequest>,
    token: StreamToken,
    /// In what time the next one is to be opened.
    next: Duration,
}

impl StreamHolder {
    /// Holds the stream of the engine that `checker` keeps registered.
    pub(super) fn of(checker: &StatusChecker) -> Self {
        let (engine, options) = (&checker.engine, &checker.options);
        let claim = EngineClaim::new(engine.id, &engine.address, Some(engine.instance));
        let client = checker.client.clone();
        Self {
            engine: engine.id,
            claim: Arc::new(claim),
            client: client.max_decoding_message_size(MAX_CHALLENGE_BYTES),
            module: checker.module.clone(),
            registration: checker.registration(),
            dpm: options.dpm.clone(),
            call_timeout: options.call_timeout,
            interval: options.check_connection_interval,
            pause: FIRST_PAUSE,
            logged: Ledger::new(16, 1),
        }
    }

    /// Holds a stream as long as the engine runs.
    pub(super) async fn run(mut self) {
        let mut changes = self.module.trust().subscribe();
        // The stream before this one answers until the DPM closes it.
        let mut before = JoinSet::new();
        loop {
            let mut registration = self.registration.clone();
            let registered = registration.wait_for(|now| *now != Registration::Absent);
            if registered.await.is_err() {
                return;
            }
            let began = Instant::now();
            let ended = match self.open().await {
                Err(status) => status,
                Ok(opened) => {
                    let mut current = JoinSet::new();
                    let next = opened.next;
                    current.spawn(opened.answer(Arc::clone(&self.claim)));
                    let ended = tokio::select! {
                        ended = current.join_next() => ended.and_then(Result::ok),
                        () = sleep(next) => None,
                        // The token of this one may be that of a key that is no longer used.
                        _ = changes.changed() => None,
                    };
                    let Some(ended) = ended else {
                        before = current;
                        sleep(up_to(FIRST_PAUSE)).await;
                        continue;
                    };
                    ended
                }
            };
            if began.elapsed() >= self.interval {
                self.pause = FIRST_PAUSE;
            }
            self.log(&ended);
            let pause = self.growing(&ended);
            // A registration may be why, and be there now.
            tokio::select! {
                () = sleep(pause / 2 + up_to(pause.max(JITTER) / 2)) => {}
                _ = registration.changed() => sleep(up_to(FIRST_PAUSE)).await,
            }
            while before.try_join_next().is_some() {}
        }
    }

    async fn open(&mut self) -> Result<Opened, Status> {
        let (answers, said) = mpsc::channel(1);
        let hello = wire::Hello {
            engine_id: self.claim.id.clone(),
            instance: self.claim.instance.clone().unwrap_or_default(),
        };
        let message = Some(Said::Hello(hello));
        let first = wire::ConnectEngineRequest { message };
        // There is room for it.
        let _ = answers.try_send(first);
        let opening = self.client.connect_engine(ReceiverStream::new(said));
        let opened = timeout(self.call_timeout, opening).await;
        let reply: Response<Streaming<_>> =
            opened.map_err(|_elapsed| Status::deadline_exceeded("no answer in time"))??;
        let known = reply.extensions();
        let tokens = known.get::<StreamToken>().zip(known.get::<CallToken>());
        let (token, times) = tokens.ok_or_else(|| {
            Status::internal("the client's layer says nothing of the stream's token")
        })?;
        let clock = self.module.clock();
        let half = times.renewed_at.duration_since(clock.now());
        let rest = times.expires_at.duration_since(times.renewed_at);
        Ok(Opened {
            token: token.clone(),
            next: half.unwrap_or_default().max(FIRST_PAUSE) + up_to(rest.unwrap_or_default() / 4),
            answers,
            challenges: reply.into_inner(),
        })
    }

    /// Returns the pause before the next attempt; the one after that is longer.
    fn growing(&mut self, ended: &Status) -> Duration {
        let is_lost = std::error::Error::source(ended).is_some() || ended.code() == Code::Ok;
        let most = if is_lost {
            self.interval.min(LONGEST_UNREACHED)
        } else {
            self.interval
        };
        let pause = self.pause.min(most);
        self.pause = (pause * 2).min(most);
        pause
    }

    /// Logs why the DPM takes no stream; where it cannot be reached, or does not know the engine,
    /// the registration says so.
    fn log(&mut self, ended: &Status) {
        let is_lost = std::error::Error::source(ended).is_some();
        let code = ended.code();
        let is_said = matches!(code, Code::Ok | Code::NotFound | Code::Cancelled);
        if is_lost || is_said || code == Code::Unavailable {
            return;
        }
        let detail = match refusal_of(ended) {
            Some(refusal) => summary_and_detail(&refusal),
            None if code == Code::Unimplemented => OLDER_DPM.to_owned(),
            None => format!("{}: {}", code_name(code), Untrusted(ended.message())),
        };
        let kind = format!("{code:?}");
        if let Some(suppressed) = self.logged.admit(kind, Instant::now()) {
            let status = self.registration.borrow().to_string();
            let texts = (status.as_str(), detail.as_str());
            events::engine_not_ready(self.engine, &self.dpm, texts, None, suppressed);
        }
    }
}

impl Opened {
    /// Answers challenges until the stream ends; returns how it ended.
    async fn answer(mut self, engine: Arc<EngineClaim>) -> Status {
        loop {
            let challenge = match self.challenges.message().await {
                Err(status) => return status,
                Ok(None) => return Status::ok("the DPM closed the stream"),
                Ok(Some(message)) => message.message,
            };
            // A newer DPM may say more.
            if let Some(Asked::Challenge(wire::Challenge { nonce })) = challenge {
                let Ok(nonce) = nonce.parse() else {
                    return Status::internal("the challenge is no nonce");
                };
                let proved = self.token.prove(nonce, &engine);
                let Ok(jws) = proved else {
                    return Status::internal("the proof could not be signed");
                };
                let message = Some(Said::Proof(wire::Proof { jws }));
                let answer = wire::ConnectEngineRequest { message };
                if self.answers.send(answer).await.is_err() {
                    return Status::ok("the stream ended");
                }
            }
            // A DPM that asks without end is not answered without end.
            sleep(BETWEEN_ANSWERS).await;
        }
    }
}

const MAX_CHALLENGE_BYTES: usize = 4096;
const BETWEEN_ANSWERS: Duration = Duration::from_millis(1);
