//! Changes of a module's files, applied while it runs.

mod changes;
mod follower;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::follower::{Applied, Follower, Looked, Revocations};
use super::Settings;
use super::load::shortened;
use crate::grpc::Module;
use crate::registry::AddressBook;
use crate::telemetry::events;
use crate::telemetry::health::Setter;

/// Follows the files that a module's [`Settings`] were loaded from.
///
/// Looks at them every 250 ms, links followed, so that a rewrite, a rename over the file and the
/// swap of a link on the way to it all count. Files that were found the same in two reads 50 ms
/// apart are checked as at a start, environment and `--set` on top. With any error in them nothing
/// changes and `configReloadFailed` says why, once for each content; else the module's own key, the
/// deployments it trusts, their keys, roles and rules take effect together, and `configReloaded`
/// says what changed. Settings that need a restart are named there. Files that do not stand still
/// for 5 s are reported once, `configUnsettled`, and shown in the health until they do.
///
/// A key that was revoked once stays revoked, whatever a file says later: the home remembers it in
/// `storage/revoked-keys`, and `countersign revoke --undo` takes it back. Files are read and
/// checked on a thread that may block, not on one of the runtime's workers.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use countersign::{ModuleKind, Reloader, Settings};
///
/// let settings = Settings::load("greeter".as_ref(), &ModuleKind::Dpe, std::env::vars(), &[])?;
/// let module = settings.module()?;
/// tokio::spawn(Reloader::new(&settings, &module).run());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Reloader {
    follower: Arc<Mutex<Follower>>,
    module: Module,
    health: Setter,
    asked: Arc<Notify>,
    status: watch::Sender<ReloadStatus>,
}

/// How the last look at the files ended that had something to say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ReloadStatus {
    /// When files were applied last; `None` since the start.
    pub succeeded_at: Option<SystemTime>,
    /// Why what the files hold now is not applied, if it is not: one line, no secret in it.
    pub failure: Option<String>,
    /// How many settings of the files need a restart.
    pub waiting: usize,
}

/// Asks a [`Reloader`] to look at once, as SIGHUP does. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ReloadHandle {
    asked: Arc<Notify>,
    status: watch::Receiver<ReloadStatus>,
}

impl ReloadHandle {
    /// Has the files looked at now, whether or not they are watched, and the outcome logged even
    /// where nothing changed.
    pub fn reload(&self) {
        self.asked.notify_one();
    }

    /// Follows how reloads end from now on.
    pub fn status(&self) -> watch::Receiver<ReloadStatus> {
        let mut status = self.status.clone();
        status.mark_unchanged();
        status
    }
}

impl Reloader {
    /// Follows the files of `settings` for `module`, which was made of them.
    pub fn new(settings: &Settings, module: &Module) -> Self {
        Self::with_addresses(settings, module, AddressBook::default())
    }

    /// Follows them for a DPM, whose dial-back goes by `addresses`.
    pub fn with_addresses(settings: &Settings, module: &Module, addresses: AddressBook) -> Self {
        let follower = Follower::new(settings, module, addresses);
        let health = module.health().shown("configReload");
        health.up("the files were applied at startup");
        Self {
            follower: Arc::new(Mutex::new(follower)),
            module: module.clone(),
            health,
            asked: Arc::default(),
            status: watch::Sender::default(),
        }
    }

    /// Returns the module that follows the files.
    pub(crate) fn module(&self) -> &Module {
        &self.module
    }

    /// Returns the way to ask for a look, and to follow how it ends.
    pub fn handle(&self) -> ReloadHandle {
        ReloadHandle {
            asked: Arc::clone(&self.asked),
            status: self.status.subscribe(),
        }
    }

    /// Follows the files until it is dropped.
    pub async fn run(self) -> Infallible {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // An answer that is still owed: the files were being written.
        let mut owed = false;
        let mut unsettled = Unsettled::default();
        let mut reported = Revocations::default();
        loop {
            let asked = tokio::select! {
                () = self.asked.notified() => true,
                _ = ticks.tick() => owed,
            };
            let (looked, files, revocations) = self.look(asked).await;
            self.report_revocations(&revocations, &mut reported);
            owed = matches!(looked, Looked::Unsettled) && asked;
            self.report(&looked, &files, asked, &mut unsettled);
        }
    }

    /// Looks at the files, names them, and says how the memory of revoked keys is.
    async fn look(&self, asked: bool) -> (Looked, String, Revocations) {
        let follower = Arc::clone(&self.follower);
        let looked = spawn_blocking(move || {
            let mut follower = follower.lock().unwrap_or_else(PoisonError::into_inner);
            follower.tick();
            if !asked && !follower.is_watching() {
                return (Looked::Same, String::new(), follower.revocations.clone());
            }
            let looked = follower.look(asked);
            (looked, follower.names(), follower.revocations.clone())
        });
        looked.await.unwrap_or_else(|died| {
            let error = format!("a fault of this program: {died}");
            let is_news = true;
            let failed = Looked::Failed { error, is_news };
            (failed, String::new(), Revocations::default())
        })
    }

    /// Reports what is new of the memory of revoked keys in log and health.
    fn report_revocations(&self, now: &Revocations, before: &mut Revocations) {
        if now == before {
            return;
        }
        let mut details = Vec::new();
        for (deployment, key) in &now.trusted_again {
            let fingerprint = key.key.fingerprint();
            if !before
                .trusted_again
                .contains(&(deployment.clone(), key.clone()))
            {
                events::revoked_key_trusted(deployment.as_str(), &key.name, fingerprint);
            }
            details.push(format!(
                "the file trusts {fingerprint} of {deployment}, which is revoked"
            ));
        }
        if let Some(cause) = &now.not_stored {
            if before.not_stored.as_ref() != Some(cause) {
                events::revocations_not_stored(cause);
            }
            details.push(format!("revoked keys cannot be stored: {cause}"));
        }
        let health = self.module.health().shown("revocations");
        if details.is_empty() {
            health.up("revoked keys are stored, and no file trusts one");
        } else {
            health.down(shortened(details, MOST_CHANGES, "keys"));
        }
        before.clone_from(now);
    }

    /// Reports the result of a check in log, health and metrics.
    fn report(&self, looked: &Looked, files: &str, asked: bool, unsettled: &mut Unsettled) {
        let was_unsettled = !matches!(looked, Looked::Unsettled) && unsettled.end();
        match looked {
            Looked::Unsettled => {
                if unsettled.go_on(Instant::now()) {
                    events::config_unsettled(files, PATIENCE);
                    self.health.down(UNSETTLED);
                }
                return;
            }
            Looked::Same if was_unsettled => {}
            Looked::Same => return,
            Looked::Applied(applied) => {
                log(files, applied);
                self.module.metrics.config_reload(true);
                self.status.send_replace(ReloadStatus {
                    succeeded_at: Some(self.module.clock().now()),
                    failure: None,
                    waiting: applied.waiting,
                });
            }
            Looked::Failed { error, is_news } => {
                if *is_news || asked {
                    events::config_reload_failed(files, error);
                }
                self.module.metrics.config_reload(false);
                self.status
                    .send_modify(|status| status.failure = Some(error.clone()));
            }
        }
        let status = self.status.borrow();
        match &status.failure {
            Some(error) => self.health.down(error.clone()),
            None => self.health.up(applied_text(status.waiting)),
        }
    }
}

fn log(files: &str, applied: &Applied) {
    for (keys, is_revoked) in applied.revoked.iter().zip([true, false]) {
        for key in keys {
            events::key_revoked(is_revoked, key);
        }
    }
    let changes = shortened(applied.changes.clone(), MOST_CHANGES, "changes");
    events::settings_reloaded(files, &changes, applied.warnings, applied.is_alone);
    if let Some(restart) = &applied.restart {
        events::restart_needed(files, &restart.join(", "));
    }
}

/// For how long files may change without pause before that is reported.
const PATIENCE: Duration = Duration::from_secs(5);

/// Since when files have not stood still.
#[derive(Debug, Default)]
struct Unsettled {
    since: Option<Instant>,
    is_reported: bool,
}

impl Unsettled {
    /// Notes that they were being written at `now`; returns `true` once, after [`PATIENCE`]: report
    /// it then.
    fn go_on(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let is_long = now.saturating_duration_since(since) >= PATIENCE;
        is_long && !std::mem::replace(&mut self.is_reported, is_long)
    }

    /// Notes that they stood still; returns `true` if it was reported that they did not.
    fn end(&mut self) -> bool {
        std::mem::take(self).is_reported
    }
}

const UNSETTLED: &str = "the files change without pause: they are applied once they stop changing";

/// Returns the health's text for applied files with so many settings that need a restart.
fn applied_text(waiting: usize) -> String {
    match waiting {
        0 => "the files are applied".to_owned(),
        some => format!("the files are applied; settings that need a restart: {some}"),
    }
}

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_millis(250);
const MOST_CHANGES: usize = 50;
