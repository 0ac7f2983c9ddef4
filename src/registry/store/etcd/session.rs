//! Holds this process's place among the replicas, and follows what changes in etcd.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, Identity, KeyValue, KvClient,
    LeaseKeepAliveStream, LeaseKeeper, PutOptions, TlsOptions, WatchOptions, WatchStream,
};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tonic::Code;

use super::keys::{Key, Keys};
use super::mirror::{Found, MOST_REPLICAS, Mirror, News};
use super::options::EtcdOptions;
use super::writer::{Away, Session};
use crate::registry::store::Condition;

/// Keeps a session with etcd, and begins another one where it ends.
pub struct Follower {
    pub options: EtcdOptions,
    pub mirror: Arc<Mirror>,
    pub keys: Keys,
    pub session: watch::Sender<Option<Session>>,
    pub condition: watch::Sender<Condition>,
    /// Notified when this process's presence key is gone.
    pub absent: Arc<Notify>,
    pub closing: watch::Receiver<bool>,
}

/// One session.
struct Held {
    client: Client,
    lease: i64,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    watch: WatchStream,
}

impl Follower {
    /// Runs until the store is closed.
    pub async fn run(self) {
        let mut closing = self.closing.clone();
        loop {
            let beginning = async {
                let begun = timeout(BEGIN_WITHIN, self.begin()).await;
                begun.unwrap_or(Err(Away::Silent))
            };
            let begun = tokio::select! {
                begun = beginning => begun,
                () = closed(&mut closing) => return,
            };
            let why = match begun {
                Ok(mut held) => match self.follow(&mut held).await {
                    Ok(()) => {
                        // Its share is the others' at once.
                        let leaving = held.client.lease_client().revoke(held.lease).await;
                        drop(leaving);
                        return;
                    }
                    Err(why) => why,
                },
                Err(why) => why,
            };
            self.session.send_replace(None);
            self.fail(&why);
            tokio::select! {
                () = sleep(RETRY) => {}
                () = closed(&mut closing) => return,
            }
        }
    }

    fn fail(&self, away: &Away) {
        let why = away.to_string();
        self.condition.send_if_modified(|condition| {
            let is_new = condition.failing.as_deref() != Some(&*why);
            condition.failing = Some(why.into());
            condition.is_stale = true;
            is_new
        });
    }

    /// Makes this process present, and reads everything.
    async fn begin(&self) -> Result<Held, Away> {
        let client =
            Client::connect(&self.options.endpoints, Some(connection(&self.options))).await?;
        let mut kv = client.kv_client().max_decoding_message_size(MOST_READ);
        let own = self.keys.replica(self.mirror.own);
        // A client whose members are all away waits for ever.
        let asked = timeout(CONNECT_WITHIN, kv.get(&*own, None)).await;
        asked.or(Err(Away::Unreached))??;
        // It may take longer than a presence lasts.
        let revision = self.read_all(&mut kv).await?;
        let mut leases = client.lease_client();
        let lease = leases.grant(PRESENT_FOR, None).await?.id();
        let (keeper, answers) = leases.keep_alive(lease).await?;
        let bound = PutOptions::new().with_lease(lease);
        kv.put(&*own, Vec::new(), Some(bound)).await?;
        let present = kv.get(own, None).await?;
        let created = present.kvs().first().map(KeyValue::create_revision);
        let presence = created.ok_or(Away::Absent)?;
        self.mirror.change_replicas(|replicas| {
            replicas.insert(self.mirror.own);
        });
        let later = WatchOptions::new()
            .with_range(after(self.keys.replicas()))
            .with_fragment()
            .with_start_revision(revision + 1);
        let mut watches = client.watch_client().max_decoding_message_size(MOST_READ);
        let watch = watches.watch(self.keys.engines(), Some(later)).await?;
        self.session.send_replace(Some(Session {
            kv,
            leases,
            presence,
        }));
        self.condition.send_if_modified(|condition| {
            condition.is_stale = false;
            condition.failing.take().is_some()
        });
        self.mirror.tell(None);
        Ok(Held {
            client,
            lease,
            keeper,
            answers,
            watch,
        })
    }

    /// Reads all records and replicas as they are at one revision, and returns that.
    async fn read_all(&self, kv: &mut KvClient) -> Result<i64, Away> {
        let keys = GetOptions::new().with_prefix().with_keys_only();
        let some = keys.with_limit(i64::from(MOST_REPLICAS));
        let present = kv.get(self.keys.replicas(), Some(some)).await?;
        let header = present.header();
        let revision = header.map_or(0, etcd_client::ResponseHeader::revision);
        let mut ids = BTreeSet::new();
        let (mut from, end) = (self.keys.engines(), after(self.keys.engines()));
        let mut limit = PAGE;
        loop {
            let some = GetOptions::new()
                .with_range(&*end)
                .with_limit(limit)
                .with_revision(revision);
            let page = match timeout(PAGE_WITHIN, kv.get(&*from, Some(some))).await? {
                Err(error) if is_too_large(&error) && limit > 1 => {
                    limit /= 2;
                    continue;
                }
                page => page?,
            };
            for found in page.kvs() {
                if let Some(Key::Engine(id)) = self.keys.read(found.key()) {
                    let found = Found {
                        id,
                        value: Some(found.value()),
                        revision: found.mod_revision(),
                    };
                    self.mirror.apply(found, News::Read);
                    if self.mirror.is_known(id) {
                        ids.insert(id);
                    }
                }
                found.key().clone_into(&mut from);
                from.push(0);
            }
            if !page.more() || page.kvs().is_empty() {
                break;
            }
        }
        self.mirror.keep_only(&ids);
        let replicas = present.kvs().iter();
        let ids = replicas.filter_map(|found| match self.keys.read(found.key()) {
            Some(Key::Replica(replica)) => Some(replica),
            _ => None,
        });
        self.mirror.set_replicas(ids.collect());
        Ok(revision)
    }

    /// Follows what changes; returns once the store is closed.
    async fn follow(&self, held: &mut Held) -> Result<(), Away> {
        let mut closing = self.closing.clone();
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rounds = interval(EXPIRE_EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trust = self.mirror.trust.subscribe();
        let mut answered = Instant::now();
        loop {
            tokio::select! {
                () = closed(&mut closing) => return Ok(()),
                () = self.absent.notified() => return Err(Away::Absent),
                _ = beats.tick() => {
                    if answered.elapsed() > SILENT_FOR {
                        return Err(Away::Silent);
                    }
                    held.keeper.keep_alive().await?;
                }
                _ = rounds.tick() => self.mirror.expire(),
                Ok(()) = trust.changed() => self.mirror.trust_changed(),
                answer = held.answers.message() => {
                    if answer?.is_none_or(|answer| answer.ttl() <= 0) {
                        return Err(Away::Absent);
                    }
                    answered = Instant::now();
                }
                news = held.watch.message() => {
                    let changes = news?.ok_or(Away::Unreached)?;
                    if changes.canceled() {
                        // What was compacted meanwhile is read again.
                        return Err(Away::Refused(changes.cancel_reason().into()));
                    }
                    for change in changes.events() {
                        if let Some(change) = change.kv() {
                            self.take(change);
                        }
                    }
                }
            }
        }
    }

    /// Takes over one change.
    fn take(&self, change: &KeyValue) {
        // A key that was removed begins again.
        let is_gone = change.version() == 0;
        match self.keys.read(change.key()) {
            Some(Key::Engine(id)) => {
                let found = Found {
                    id,
                    value: (!is_gone).then(|| change.value()),
                    revision: change.mod_revision(),
                };
                if self.mirror.apply(found, News::Next) {
                    self.mirror.tell(Some(id));
                }
            }
            Some(Key::Replica(replica)) => self.mirror.change_replicas(|replicas| {
                if is_gone {
                    replicas.remove(&replica);
                    if replica == self.mirror.own {
                        // Its share is others' now.
                        self.absent.notify_one();
                    }
                } else {
                    replicas.insert(replica);
                }
            }),
            None => {}
        }
    }
}

/// Returns what follows all keys that begin with `prefix`.
fn after(mut prefix: Vec<u8>) -> Vec<u8> {
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

/// Returns `true` if a page has more bytes than are read at once; etcd bounds each value, and not all of
/// them together.
fn is_too_large(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else {
        return false;
    };
    matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted)
}

/// Waits until the store is closed.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

fn connection(options: &EtcdOptions) -> ConnectOptions {
    let mut connect = ConnectOptions::new()
        .with_connect_timeout(CONNECT_WITHIN)
        .with_keep_alive(KEEP_ALIVE, CONNECT_WITHIN)
        .with_require_leader(true);
    if let Some((user, password)) = &options.user {
        connect = connect
            .with_user(user.clone(), password.expose().clone())
            .with_auto_token_refresh(true);
    }
    if let Some(tls) = &options.tls {
        let mut config = TlsOptions::new();
        config = config.ca_certificate(Certificate::from_pem(&tls.trusted));
        if let Some((chain, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(chain, key.expose()));
        }
        connect = connect.with_tls(config);
    }
    connect
}

/// In seconds: how long the others wait before they take over.
const PRESENT_FOR: i64 = 3;
const BEAT: Duration = Duration::from_millis(700);
const SILENT_FOR: Duration = Duration::from_millis(2500);
const RETRY: Duration = Duration::from_millis(300);
const BEGIN_WITHIN: Duration = Duration::from_secs(600);
const PAGE_WITHIN: Duration = Duration::from_secs(20);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
const PAGE: i64 = 500;
/// A page of usual records.
const MOST_READ: usize = 64 * 1024 * 1024;
