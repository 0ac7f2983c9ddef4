//! A module as a child process, and the events that it logs.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::admin::error::{Kind, Refused};
use crate::config;

/// Longer than any step takes on a slow machine; a step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// One running module. When this is dropped it is killed and has ended; when this process is killed
/// it ends by itself.
#[derive(Debug)]
pub(super) struct ChildModule {
    name: &'static str,
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl ChildModule {
    /// Starts `binary <name> run --home <home>` with JSON on its console and `settings` on top, and
    /// without the settings of this process's environment.
    pub(super) fn start(
        binary: &Path,
        name: &'static str,
        home: &Path,
        settings: &[String],
    ) -> Result<Self, Refused> {
        let console = [
            "ataccama.logging.json-console-appender=true",
            "ataccama.logging.plain-text-console-appender=false",
        ];
        let mut command = Command::new(binary);
        command.arg(name).arg("run").arg("--home").arg(home);
        command.arg("--until-stdin-ends");
        for (variable, _) in config::environment() {
            if config::may_be_setting(&variable) {
                command.env_remove(variable);
            }
        }
        let settings = settings.iter().map(String::as_str);
        for setting in console.into_iter().chain(settings) {
            command.arg("--set").arg(setting);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = command.kill_on_drop(true).spawn();
        let mut child = started.map_err(|error| cannot_run(name, error))?;
        let log = child.stderr.take().ok_or_else(|| ended_early(name, ""))?;
        Ok(Self {
            name,
            child,
            log: BufReader::new(log).lines(),
        })
    }

    /// Waits for the next event called `event` of which `wanted` is true.
    pub(super) async fn event(
        &mut self,
        event: &'static str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, Refused> {
        let name = self.name;
        let found = timeout(PATIENCE, async {
            let mut last = String::new();
            while let Ok(Some(line)) = self.log.next_line().await {
                let logged: Value = serde_json::from_str(&line).unwrap_or_default();
                if logged.get("eventId").is_some_and(|id| id == event) && wanted(&logged) {
                    return Ok(logged);
                }
                last = line;
            }
            Err(ended_early(name, &last))
        });
        found
            .await
            .unwrap_or_else(|_elapsed| Err(late(name, event)))
    }

    /// Asks the process to stop and waits for it.
    pub(super) async fn stop(mut self) -> Result<ExitStatus, Refused> {
        let name = self.name;
        if let Some(id) = self.id() {
            // A process that ended already cannot be asked; its status is still there.
            let _ = kill_process(id, Signal::TERM);
        }
        let ended = timeout(PATIENCE, async {
            // A full pipe must not keep the process from ending.
            while let Ok(Some(_)) = self.log.next_line().await {}
            self.child.wait().await
        });
        let ended = ended.await.map_err(|_elapsed| late(name, "exit"))?;
        ended.map_err(|error| cannot_run(name, error))
    }

    /// Returns the process's id, until it was waited for.
    fn id(&self) -> Option<Pid> {
        let id = self.child.id()?;
        Pid::from_raw(i32::try_from(id).ok()?)
    }
}

impl Drop for ChildModule {
    /// Waits for the end, so that nothing is written into a folder that is about to be removed.
    fn drop(&mut self) {
        if let Some(id) = self.id()
            && self.child.start_kill().is_ok()
        {
            // The status is left for the child handle to collect.
            let _ = waitid(
                WaitId::Pid(id),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            );
        }
    }
}

/// Returns a member's text.
pub(super) fn text<'a>(event: &'a Value, member: &str) -> &'a str {
    event
        .get(member)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn cannot_run(name: &str, error: io::Error) -> Refused {
    Refused::new(Kind::Conflict, format!("cannot run {name}")).caused_by(error)
}

/// The child `name` ended or fell silent.
pub(super) fn ended_early(name: &str, last: &str) -> Refused {
    let message = format!("{name} ended early; its last line: {last}");
    Refused::new(Kind::Conflict, message)
}

/// The child `name` did not do what it must in time.
fn late(name: &str, event: &str) -> Refused {
    let seconds = PATIENCE.as_secs();
    let message = format!("no `{event}` from {name} within {seconds} s");
    Refused::new(Kind::Conflict, message)
}
