//! The demo: two fresh homes, two real processes, from a pair of keys to READY, and three calls
//! that are refused.

use std::error::Error;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use super::error::{Kind, Refused};
use super::pairing::{self, Member, Options};
use crate::config::{self, Home, ModuleKind, Settings};
use crate::grpc::{Connection, ConnectionOptions, Target, code_name, reason_of};
use crate::identity::ModuleType;
use crate::jose::SigningKey;
use crate::proto::identity::WhoAmIRequest;
use crate::proto::identity::identity_service_client::IdentityServiceClient;
use crate::token::Reason;

/// The time limit of a step: more than any step takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The modules log JSON on their consoles, and take ports that are free.
const SETTINGS: [&str; 4] = [
    "ataccama.logging.json-console-appender=true",
    "ataccama.logging.plain-text-console-appender=false",
    "ataccama.server.grpc.port=0",
    "server.port=0",
];

/// What is wrong with each of the [`bad_tokens`], and the reason for which it must be refused.
const BAD_TOKENS: [(&str, Reason); 3] = [
    ("token with one byte changed", Reason::SignatureInvalid),
    ("key that was never paired", Reason::KeyUnknown),
    ("token for another module", Reason::AudienceMismatch),
];

type AnyError = Box<dyn Error + Send + Sync>;

/// One step, once it is over.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What it is called.
    pub name: &'static str,
    /// Its result, one line or more.
    pub lines: Vec<String>,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// Whether the result was as expected.
    pub held: bool,
}

/// Runs the demo of the program `binary`, with two homes in `folder`, and hands each step to
/// `report` when it is over. Returns how long it took until the engine was READY.
///
/// If the returned future is dropped before its end, the modules are killed. The files in the
/// folder are kept.
///
/// # Errors
///
/// When a step cannot run. An unexpected result is not an error: its step did not hold.
pub async fn run(
    binary: &Path,
    folder: &Path,
    report: &mut (dyn FnMut(&Step) + Send),
) -> Result<Duration, Refused> {
    let started = Instant::now();
    let mut demo = Demo {
        binary,
        folder,
        report,
        lap: started,
    };
    demo.pair()?;
    let (mut dpm, address) = demo.start_dpm().await?;
    let dpe = demo.start_dpe(&mut dpm, &address).await?;
    let ready_after = started.elapsed();
    demo.refused(&address).await?;
    demo.stop(dpe, dpm).await?;
    Ok(ready_after)
}

struct Demo<'a> {
    binary: &'a Path,
    folder: &'a Path,
    report: &'a mut (dyn FnMut(&Step) + Send),
    lap: Instant,
}

impl Demo<'_> {
    /// Pairs two new homes and checks their files.
    fn pair(&mut self) -> Result<(), Refused> {
        let (mut members, mut files) = (Vec::new(), Vec::new());
        for module in ["dpm", "dpe"] {
            let home = self.folder.join(module);
            let path = home.join(Home::FILE);
            files.push(path.clone());
            members.push(Member::new(
                ModuleType::new(module).map_err(cannot("use what was paired"))?,
                path,
            ));
        }
        let plan = pairing::plan(&members, None, &Options::default())?;
        plan.change.carry_out()?;
        let keys = plan.sides.iter().map(|side| {
            // Enough to tell two apart.
            let key = side.hand_over.key.fingerprint().to_string();
            let start: String = key.chars().take(12).collect();
            format!("{} {start}…", side.hand_over.deployment)
        });
        let line = keys.collect::<Vec<_>>().join("   ");
        self.step("pair", vec![line], true);
        let found = config::check(&files, &[])?.findings;
        let (errors, warnings) = (found.errors(), found.warnings());
        let mut lines = vec![format!(
            "2 files compared with each other: {errors} errors, {warnings} warnings"
        )];
        lines.extend(found.iter().map(ToString::to_string));
        self.step("check", lines, errors == 0 && warnings == 0);
        Ok(())
    }

    /// Starts the module `name` with the `extra` settings on top, and without those of this
    /// process's environment.
    fn start(&self, name: &'static str, extra: &[String]) -> Result<ChildModule, Refused> {
        let mut command = Command::new(self.binary);
        command.args([name, "run", "--until-stdin-ends", "--home"]);
        command.arg(self.folder.join(name));
        let more = extra.iter().map(String::as_str);
        for setting in SETTINGS.into_iter().chain(more) {
            command.args(["--set", setting]);
        }
        command
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = command.kill_on_drop(true).spawn();
        let run = format!("run {name}");
        let mut child = started.map_err(cannot(&run))?;
        let log = child.stderr.take().ok_or("its log is not open");
        Ok(ChildModule {
            name,
            child,
            log: BufReader::new(log.map_err(cannot(&run))?).lines(),
        })
    }

    async fn start_dpm(&mut self) -> Result<(ChildModule, Target), Refused> {
        let mut dpm = self.start("dpm", &[])?;
        let started = dpm.event("startup", "").await?;
        let address = text(&started, "address");
        let listens = vec![format!("listens on {address}")];
        let parts = address.rsplit_once(':');
        let Some(Ok(port)) = parts.map(|(_, port)| port.parse()) else {
            return Err(dpm.ended_early(address));
        };
        self.step("dpm", listens, true);
        Ok((dpm, Target::new("127.0.0.1", port)))
    }

    /// Starts the DPE and waits until it is READY.
    async fn start_dpe(
        &mut self,
        dpm: &mut ChildModule,
        address: &Target,
    ) -> Result<ChildModule, Refused> {
        let port = address.port();
        let settings = [
            "ataccama.client.connection.dpm.host=127.0.0.1".to_owned(),
            format!("ataccama.client.connection.dpm.grpc.port={port}"),
        ];
        let dpe = self.start("dpe", &settings)?;
        let registered = dpm.event("registerEngine", "").await?;
        let caller = text(&registered, "authenticatedUser");
        let lines = vec![
            format!("registered engine {}", text(&registered, "engineId")),
            "the dpm saw".to_owned(),
            caller.to_owned(),
        ];
        let expected = "ServiceIdentity(module=dpe, id=dpe-dev, roles=[IMPERSONATION])";
        self.step("dpe", lines, caller == expected);
        let event = dpm.event("setEngineStatus", "READY").await?;
        let old = text(&event, "oldStatus");
        let lines = vec![
            format!("{old} → READY"),
            "the dpm dialled back, the dpe proved to be that engine".to_owned(),
        ];
        self.step("status", lines, old == "NEW");
        Ok(dpe)
    }

    /// Calls the DPM with each of the bad tokens.
    async fn refused(&mut self, address: &Target) -> Result<(), Refused> {
        let found = answers(&self.folder.join("dpe"), address).await;
        let answers = found.map_err(cannot("call the DPM"))?;
        let held = answers.iter().all(|(_, held)| *held);
        let mut lines = vec!["calls with bad tokens".to_owned()];
        lines.extend(answers.into_iter().map(|(line, _)| line));
        self.step("refused", lines, held);
        Ok(())
    }

    async fn stop(&mut self, dpe: ChildModule, mut dpm: ChildModule) -> Result<(), Refused> {
        let first = dpe.stop().await?;
        dpm.event("deregisterEngine", "").await?;
        let last = dpm.stop().await?;
        let lines = vec![
            format!("dpe deregistered and ended ({first})"),
            format!("then dpm ({last})"),
        ];
        self.step("stopped", lines, first.success() && last.success());
        Ok(())
    }

    fn step(&mut self, name: &'static str, lines: Vec<String>, held: bool) {
        let took = self.lap.elapsed();
        self.lap += took;
        (self.report)(&Step {
            name,
            lines,
            took_ms: took.as_secs_f64() * 1000.0,
            held,
        });
    }
}

/// Calls the DPM with each of the bad tokens of the DPE at `home`; returns what became of each, and
/// whether it was refused for the expected reason.
async fn answers(home: &Path, address: &Target) -> Result<Vec<(String, bool)>, AnyError> {
    let settings = Settings::load(home, &ModuleKind::Dpe, [], &[])?;
    let channel = Connection::open(address, ConnectionOptions::default()).await?;
    let mut client = IdentityServiceClient::new(channel);
    let mut answers = Vec::new();
    let tokens = bad_tokens(&settings)?;
    for ((what, expected), token) in BAD_TOKENS.into_iter().zip(tokens) {
        let bearer = MetadataValue::<Ascii>::try_from(format!("Bearer {token}"))?;
        let mut request = Request::new(WhoAmIRequest {});
        request.metadata_mut().insert("authorization", bearer);
        let refusal = client.who_am_i(request).await.err();
        let reason = refusal.as_ref().and_then(reason_of);
        let answer = match refusal {
            None => "accepted".to_owned(),
            Some(status) => {
                let word = reason.map_or("no reason", Reason::as_str);
                format!("{} {word}", code_name(status.code()))
            }
        };
        let is_expected = reason == Some(expected);
        let verdict = if is_expected { "ok" } else { "FAILED" };
        answers.push((format!("{what:<27} {answer:<33} {verdict}"), is_expected));
    }
    Ok(answers)
}

/// Makes a token of the DPE with these `settings` for each of [`BAD_TOKENS`].
fn bad_tokens(settings: &Settings) -> Result<[String; 3], AnyError> {
    let dpe = settings.module()?;
    let trust = dpe.trust().load();
    let trusted = trust.deployments().first();
    let dpm = trusted.ok_or("the demo's dpe trusts no deployment")?;
    let good = dpe.issuer().issue(dpm)?;
    let parts = good.expose().rsplit_once('.');
    let (signed, signature) = parts.ok_or("a token has three parts")?;
    // Not the last character, whose low bits carry nothing.
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let rest = signature.get(1..).unwrap_or_default();

    let key = SigningKey::generate()?;
    let mut stranger = settings.clone();
    stranger.own.key_id = key.fingerprint().into();
    stranger.own.key = key;
    let unpaired = stranger.module()?.issuer().issue(dpm)?;

    let audience = ["dpm-elsewhere".to_owned()];
    let misdirected = dpe.issuer().issue_for(&audience, dpe.policy().lifetime())?;
    Ok([
        format!("{signed}.{flipped}{rest}"),
        unpaired.expose().to_owned(),
        misdirected.expose().to_owned(),
    ])
}

/// A module as a child process. Dropping this kills it and waits for its end; if this process is
/// killed, it ends by itself.
#[derive(Debug)]
struct ChildModule {
    name: &'static str,
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl ChildModule {
    /// Waits for the next event called `event`, with the new status `status` unless that is empty.
    async fn event(&mut self, event: &'static str, status: &str) -> Result<Value, Refused> {
        let mut last = String::new();
        let seen = timeout(PATIENCE, async {
            while let Ok(Some(line)) = self.log.next_line().await {
                let logged: Value = serde_json::from_str(&line).unwrap_or_default();
                let is_meant = status.is_empty() || text(&logged, "newStatus") == status;
                if is_meant && text(&logged, "eventId") == event {
                    return Some(logged);
                }
                last = line;
            }
            None
        });
        let found = seen.await.map_err(|_elapsed| late(self.name, event))?;
        found.ok_or_else(|| self.ended_early(&last))
    }

    /// Asks the process to stop and waits for it.
    async fn stop(mut self) -> Result<ExitStatus, Refused> {
        if let Some(id) = self.id() {
            // A process that ended already cannot be asked; its status is still there.
            let _ = kill_process(id, Signal::TERM);
        }
        let ending = timeout(PATIENCE, async {
            // A full pipe must not keep the process from ending.
            while let Ok(Some(_)) = self.log.next_line().await {}
            self.child.wait().await
        });
        let ended = ending.await.map_err(|_elapsed| late(self.name, "exit"))?;
        ended.map_err(cannot(&format!("run {}", self.name)))
    }

    /// Returns the process's id, until it was waited for.
    fn id(&self) -> Option<Pid> {
        let id = self.child.id()?;
        Pid::from_raw(i32::try_from(id).ok()?)
    }

    /// The process ended, or closed its log.
    fn ended_early(&self, last: &str) -> Refused {
        let what = format!("{} ended early; its last line: {last}", self.name);
        Refused::new(Kind::Conflict, what)
    }
}

impl Drop for ChildModule {
    /// Waits for its end, so that it writes nothing into a folder that is about to be removed.
    fn drop(&mut self) {
        if let Some(id) = self.id()
            && self.child.start_kill().is_ok()
        {
            // The status is left for the child handle to collect.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let _ = waitid(WaitId::Pid(id), options);
        }
    }
}

/// Returns a member's text.
fn text<'a>(event: &'a Value, member: &str) -> &'a str {
    let member = event.get(member).and_then(Value::as_str);
    member.unwrap_or_default()
}

/// The module `name` did not log `event` in time.
fn late(name: &str, event: &str) -> Refused {
    let seconds = PATIENCE.as_secs();
    let what = format!("no `{event}` from {name} within {seconds} s");
    Refused::new(Kind::Conflict, what)
}

/// Makes the error of a step that cannot do `what`.
fn cannot<E: Into<AnyError>>(what: &str) -> impl FnOnce(E) -> Refused + use<E> {
    Refused::caused(Kind::Conflict, format!("cannot {what}"))
}
