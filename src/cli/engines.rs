//! `countersign engines`: what the DPM knows of its engines.

mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use prost_types::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::input::{HomeArguments, TIMEOUT, kind_of, seconds};
use super::output::{Answer, Console, Exit, Format, Kind, Refused, example, serialized, table};
use super::runtime::{Patience, runtime};
use crate::admin::greeting::{self, Callee, Doubt, Found, PATIENCE};
use crate::admin::watch::News;
use crate::clock::{Age, Clock as _, SystemClock};
use crate::config::ModuleKind;
use crate::diagnostic::CommandLine;
use crate::engine::EngineStatus;
use crate::grpc::{cause, failure_of};
use crate::properties::name::same;
use crate::proto::convert::status_word;
use crate::proto::registry as wire;
use crate::telemetry::{Untrusted, UntrustedReason};
use crate::token::Reason;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the engines, asking the DPM as the module at --home
    #[command(after_help = example("engines list --home dpm"))]
    List(HomeArguments),
    /// Show one engine, and why it is not READY
    #[command(after_help = example("engines show dpe-dev --home dpm"))]
    Show(Named),
    /// Show each engine, and then each change as it happens
    ///
    /// Goes on until it is interrupted; where the DPM stops, until it is there again. With -o json
    /// each line is an object with either `engine` or `removed_id`.
    #[command(after_help = example("engines watch --home dpm"))]
    Watch(HomeArguments),
    /// Wait until one engine has a status
    ///
    /// It also waits for the DPM and for the engine to be there. Exit code 1 after --timeout.
    #[command(after_help = example("engines wait dpe-dev --home dpm"))]
    Wait(Wait),
    /// Take an engine out of service that does not run any more
    ///
    /// Its record stays, INACTIVE. An engine that runs registers again: stop it first. Allowed to
    /// the DPM itself and to the deployment that owns the engine.
    #[command(after_help = example("engines inactivate 0031debd --home dpm"))]
    Inactivate(Named),
    /// Remove the record of an engine that does not come back
    ///
    /// Refused for an engine that is NEW or READY: stop it, or inactivate it first. Allowed to the
    /// DPM itself and to the deployment that owns the engine.
    #[command(after_help = example("engines forget 0031debd --home dpm"))]
    Forget(Named),
}

#[derive(Args, Debug)]
pub(super) struct Wait {
    #[command(flatten)]
    engine: Named,
    /// The status to wait for
    #[arg(long, value_name = "STATUS", default_value = "READY", value_parser = status)]
    status: EngineStatus,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value = TIMEOUT, value_parser = seconds)]
    timeout: Duration,
}

fn status(word: &str) -> Result<EngineStatus, String> {
    let mut all = EngineStatus::ALL.into_iter();
    let found = all.find(|status| status.as_str().eq_ignore_ascii_case(word));
    found.ok_or_else(|| "it is NEW, READY, DISCONNECTED or INACTIVE".to_owned())
}

#[derive(Args, Debug)]
pub(super) struct Named {
    /// The engine's id, the beginning of it, or its deployment
    #[arg(value_name = "ENGINE")]
    name: String,
    #[command(flatten)]
    home: HomeArguments,
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    let home = match command {
        Command::List(home) | Command::Watch(home) => home,
        Command::Show(named) | Command::Inactivate(named) | Command::Forget(named) => &named.home,
        Command::Wait(wait) => &wait.engine.home,
    };
    let of = &home.module.home;
    let callee = dpm(home, console)?;
    let executor = runtime()?;
    if let Command::Wait(wait) = command {
        let engine = executor.block_on(waited(&callee, wait))?;
        return console.reply(engine.in_words(), &engine);
    }
    if let Command::Watch(_) = command {
        return watch::run(&callee, console, &executor, write_one, |doubt| {
            refused(doubt, of)
        });
    }
    let engines = executor.block_on(listed(&callee, of))?;
    let named = match command {
        Command::List(_) | Command::Watch(_) | Command::Wait(_) => {
            let text = in_columns(&engines, SystemClock.now());
            return console.reply(text, &json!({ "engines": engines }));
        }
        Command::Show(named) => {
            let engine = find(engines, &named.name, of)?;
            return console.reply(engine.in_words(), &engine);
        }
        Command::Inactivate(named) | Command::Forget(named) => named,
    };
    let engine = find(engines, &named.name, of)?;
    let end = Instant::now() + PATIENCE;
    if let Command::Inactivate(_) = command {
        let asked = callee.ask(end, async |channel| {
            greeting::inactivate_engine(channel, &engine.id).await
        });
        let answered = executor.block_on(asked);
        let engine = Shown::from(answered.map_err(|doubt| refused(doubt, of))?);
        return console.reply(engine.in_words(), &engine);
    }
    if engine.status == "NEW" || engine.status == "READY" {
        let message = format!("engine {} is {}", engine.id, engine.status);
        let failed = Refused::new(Kind::Conflict, message).with_help("stop it, or first:");
        let inactivate = CommandLine::new("countersign engines inactivate").arg(&engine.id);
        return Err(failed.with_commands([inactivate.option("home", of)]));
    }
    let asked = callee.ask(end, async |channel| {
        greeting::forget_engine(channel, &engine.id).await
    });
    let answered = executor.block_on(asked);
    answered.map_err(|doubt| refused(doubt, of))?;
    let text = format!("forgot engine {} of {}\n", engine.id, engine.deployment);
    console.reply(text, &json!({ "forgotten": engine }))
}

async fn listed(callee: &Callee, home: &Path) -> Result<Vec<Shown>, Refused> {
    let asked = callee.ask(Instant::now() + PATIENCE, greeting::list_engines);
    let engines = asked.await.map_err(|doubt| refused(doubt, home))?;
    Ok(engines.into_iter().map(Shown::from).collect())
}

/// Waits for the DPM, for the engine, and for its status.
async fn waited(callee: &Callee, wait: &Wait) -> Result<Shown, Refused> {
    let (name, home) = (&wait.engine.name, &wait.engine.home.module.home);
    let mut patience = Patience::new(wait.timeout, PAUSES.0, PAUSES.1);
    loop {
        let found = listed(callee, home)
            .await
            .and_then(|all| find(all, name, home));
        let failed = match found {
            Ok(engine) if engine.status == wait.status.as_str() && !engine.suspect => {
                return Ok(engine);
            }
            Ok(engine) => {
                let (wanted, limit) = (wait.status, wait.timeout.as_secs());
                let why = match engine.status_reason.as_str() {
                    "" => String::new(),
                    reason => format!(": {reason}"),
                };
                let message = format!("not {wanted} within {limit} s, but {}{why}", engine.status);
                Refused::new(Kind::Conflict, message)
            }
            Err(failed) if matches!(failed.kind(), Kind::NotThere | Kind::Unreachable) => failed,
            Err(failed) => return Err(failed),
        };
        if !patience.again().await {
            return Err(failed);
        }
    }
}

/// Writes what a watch says.
fn write_one(console: &Console, news: News) -> Answer {
    let (engine, answer) = match news {
        News::Lost(why) => {
            console.note(&format!("{why}; asking again until it answers"));
            return Ok(Exit::Done);
        }
        News::Removed(id) => {
            let gone = Shown::from(wire::Engine {
                id,
                ..wire::Engine::default()
            });
            let answer = json!({ "removed_id": gone.id });
            let status = "REMOVED";
            (Shown { status, ..gone }, answer)
        }
        News::Engine(engine) => {
            let engine = Shown::from(*engine);
            let answer = json!({ "engine": engine });
            (engine, answer)
        }
    };
    if console.format == Format::Json {
        return console.answer(serialized(serde_json::to_string(&answer))? + "\n");
    }
    console.answer(watch::line(&[
        time(&SystemClock.now().into()).unwrap_or_default(),
        engine.id.chars().take(SHORTEST_ID).collect(),
        match engine.port {
            0 => engine.hostname,
            port => format!("{}:{port}", engine.hostname),
        },
        engine.status.to_owned(),
        engine.deployment,
        engine.module,
        engine.environment,
        engine.why,
    ]))
}

/// Returns how to ask the DPM: as a module that trusts it, or as the DPM itself.
fn dpm(home: &HomeArguments, console: &Console) -> Result<Callee, Refused> {
    let settings = home.load(&ModuleKind::Dpm, console)?;
    let made = settings.module();
    let module = made.map_err(|error| Refused::new(Kind::Unreadable, cause(&error)))?;
    let found = Callee::registry(&settings, &module);
    found.map_err(|doubt| refused(doubt, &home.module.home))
}

/// Says why the DPM did not answer the module at `home` as asked.
fn refused(doubt: Doubt, home: &Path) -> Refused {
    let (kind, help) = match (doubt.found, doubt.reason) {
        (Found::NotAsked, _) => return Refused::new(Kind::Unreadable, doubt.why),
        (Found::Refused, Some(reason)) => {
            return Refused::new(Kind::Denied, doubt.why).with_help(reason.help());
        }
        (Found::Refused, None) => (Kind::Denied, "for more:"),
        (Found::NotReached, _) => {
            let (help, its) = match kind_of(home) {
                ModuleKind::Dpm => ("start it:", home),
                _ => ("start it, in its home folder:", Path::new(".")),
            };
            let start = CommandLine::new("countersign dpm run").option("home", its);
            let failed = Refused::new(Kind::Unreachable, doubt.why);
            return failed.with_help(help).with_commands([start]);
        }
        (Found::NotGrpc | Found::Tls | Found::Silent, _) => (
            Kind::Unreachable,
            "check that the DPM listens at this port; for more:",
        ),
    };
    let failed = Refused::new(kind, doubt.why).with_help(help);
    failed.with_commands([CommandLine::new("countersign doctor").option("home", home)])
}

/// Finds the one engine whose id is or begins as `name`, or whose deployment has that name.
fn find(engines: Vec<Shown>, name: &str, home: &Path) -> Result<Shown, Refused> {
    let id = name.to_ascii_lowercase();
    let mut fitting = engines
        .into_iter()
        .filter(|engine| engine.id.starts_with(&id) || same(&engine.deployment, name));
    match (fitting.next(), fitting.next()) {
        (Some(engine), None) => Ok(engine),
        (Some(one), Some(other)) => {
            let message = format!("several engines fit `{name}`: {}, {}", one.id, other.id);
            Err(Refused::new(Kind::Conflict, message).with_help("give more of the id"))
        }
        (None, _) => {
            let message = format!("no registered engine has the id or the deployment `{name}`");
            let list = CommandLine::new("countersign engines list").option("home", home);
            let failed = Refused::new(Kind::NotThere, message);
            Err(failed.with_help("all engines:").with_commands([list]))
        }
    }
}

/// A DPM is a peer like any other: what it sends must not steer a terminal.
fn harmless(text: &str) -> String {
    Untrusted(text).to_string()
}

#[derive(Serialize)]
struct Shown {
    id: String,
    hostname: String,
    port: i32,
    status: &'static str,
    suspect: bool,
    status_reason: String,
    /// The same in a few words.
    #[serde(skip)]
    why: String,
    deployment: String,
    module: String,
    environment: String,
    fingerprint: String,
    registered_at: Option<String>,
    last_seen: Option<String>,
    #[serde(skip)]
    seen: Option<SystemTime>,
}

impl From<wire::Engine> for Shown {
    fn from(engine: wire::Engine) -> Self {
        let address = engine.address.unwrap_or_default();
        let status_reason = UntrustedReason(&engine.status_reason).to_string();
        let failure = engine.dial_back_failure.as_ref().and_then(failure_of);
        let why = failure.map(|(kind, word)| word.map_or_else(|| kind.summary(), Reason::as_str));
        Self {
            id: harmless(&engine.id),
            hostname: harmless(&address.hostname),
            port: address.port,
            status: status_word(engine.status),
            suspect: engine.suspect,
            why: why.unwrap_or(&status_reason).to_owned(),
            status_reason,
            deployment: harmless(&engine.deployment),
            module: harmless(&engine.module),
            environment: harmless(&engine.environment),
            fingerprint: harmless(&engine.fingerprint),
            registered_at: engine.registered_at.as_ref().and_then(time),
            last_seen: engine.last_seen_at.as_ref().and_then(time),
            seen: engine
                .last_seen_at
                .and_then(|at| SystemTime::try_from(at).ok()),
        }
    }
}

impl Shown {
    fn address(&self) -> String {
        match self.port {
            0 => format!("{} (one-way)", self.hostname),
            port => format!("{}:{port}", self.hostname),
        }
    }

    fn in_words(&self) -> String {
        let [registered, seen] =
            [&self.registered_at, &self.last_seen].map(|time| time.as_deref().unwrap_or("never"));
        let ago = self.seen.map(|seen| age(SystemClock.now(), seen));
        let seen = ago.map_or_else(|| seen.to_owned(), |ago| format!("{seen}, {ago}"));
        let lines = [
            ("id", self.id.as_str()),
            ("address", &self.address()),
            ("status", self.status),
            ("why", &self.status_reason),
            ("deployment", &self.deployment),
            ("module", &self.module),
            ("environment", &self.environment),
            ("fingerprint", &self.fingerprint),
            ("registered", registered),
            ("last seen", &seen),
        ];
        let known = lines.iter().filter(|(_, value)| !value.is_empty());
        let lines = known.map(|(name, value)| format!("{name:<14} {value}\n"));
        lines.collect()
    }
}

fn in_columns(engines: &[Shown], now: SystemTime) -> String {
    if engines.is_empty() {
        return "no engines; start one, in its home folder: countersign dpe run --home .\n"
            .to_owned();
    }
    let head = [
        "ID",
        "ADDRESS",
        "STATUS",
        "DEPLOYMENT",
        "MODULE",
        "ENV",
        "LAST SEEN",
        "WHY",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let ids = prefixes(engines);
    rows.extend(engines.iter().zip(ids).map(|(engine, id)| {
        [
            id,
            engine.address(),
            engine.status.to_owned(),
            engine.deployment.clone(),
            engine.module.clone(),
            engine.environment.clone(),
            engine
                .seen
                .map_or_else(|| "never".to_owned(), |seen| age(now, seen)),
            engine.why.clone(),
        ]
    }));
    table(&rows)
}

/// Returns of each id the shortest beginning that no other id has, of 8 characters at least.
fn prefixes(engines: &[Shown]) -> Vec<String> {
    let mut sorted: Vec<_> = engines.iter().map(|engine| engine.id.as_str()).collect();
    sorted.sort_unstable();
    let mut lengths: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in sorted.windows(2) {
        let [one, next] = pair else { continue };
        let same = one
            .chars()
            .zip(next.chars())
            .take_while(|(a, b)| a == b)
            .count();
        for id in [one, next] {
            let length = lengths.entry(id).or_default();
            *length = (*length).max(same + 1);
        }
    }
    let ids = engines.iter().map(|engine| {
        let length = lengths.get(engine.id.as_str()).copied().unwrap_or_default();
        engine.id.chars().take(length.max(SHORTEST_ID)).collect()
    });
    ids.collect()
}

const SHORTEST_ID: usize = 8;

fn age(now: SystemTime, then: SystemTime) -> String {
    // The DPM's clock may be ahead.
    Age::between(then.min(now), now).map_or_else(String::new, |age| format!("{age} ago"))
}

/// Between two questions while a command waits: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

fn time(time: &Timestamp) -> Option<String> {
    let time = jiff::Timestamp::new(time.seconds, time.nanos).ok()?;
    Some(format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{DialBackFailure, FailureKind};

    #[test]
    fn an_engine_is_named_by_its_id_the_beginning_of_it_or_its_deployment() {
        let engines = || {
            let ids = [("0031debd-61", "dpe-dev"), ("0044aaaa-61", "dpe-two")];
            let engines = ids.map(|(id, deployment)| {
                Shown::from(wire::Engine {
                    id: id.to_owned(),
                    deployment: deployment.to_owned(),
                    ..wire::Engine::default()
                })
            });
            Vec::from(engines)
        };
        for name in ["0031debd-61", "0031DEBD", "003", "dpe-dev", "DPE_dev"] {
            assert_eq!(
                find(engines(), name, Path::new("dpm")).unwrap().id,
                "0031debd-61",
                "{name}"
            );
        }
        for (name, kind) in [("00", "Conflict"), ("dpe", "NotThere"), ("5", "NotThere")] {
            let refused = find(engines(), name, Path::new("dpm")).err().unwrap();
            assert_eq!(format!("{:?}", refused.kind()), kind, "{name}");
        }
    }

    #[test]
    fn list_of_engines_says_in_a_few_words_why_one_is_not_ready() {
        let failed = |kind: FailureKind, reason: &str| {
            let failure = DialBackFailure::new(kind, "long ".repeat(50)).with_reason(reason);
            (failure.to_string(), Some((&failure).into()))
        };
        for ((status_reason, dial_back_failure), why) in [
            (failed(FailureKind::Refused, "KEY_UNKNOWN"), "KEY_UNKNOWN"),
            (
                failed(FailureKind::NotReached, ""),
                "the engine cannot be reached",
            ),
            (
                ("registered; not checked yet".to_owned(), None),
                "registered; not checked yet",
            ),
            ((String::new(), None), "never"),
        ] {
            let engine = Shown::from(wire::Engine {
                status_reason,
                dial_back_failure,
                last_seen_at: None,
                ..wire::Engine::default()
            });
            let shown = in_columns(&[engine], SystemTime::UNIX_EPOCH);
            assert!(shown.trim_end().ends_with(why), "{shown}");
        }
    }

    #[test]
    fn list_of_engines_has_ages_and_the_shortest_beginnings_that_fit_one_id() {
        let second = Duration::from_secs(1);
        let now = SystemTime::UNIX_EPOCH + 1_000_000 * second;
        for (seconds, expected) in [
            (0, "0 s ago"),
            (12, "12 s ago"),
            (119, "1 min ago"),
            (7_199, "1 h ago"),
            (172_800, "2 d ago"),
        ] {
            assert_eq!(age(now, now - seconds * second), expected);
        }
        assert_eq!(age(now, now + 5 * second), "0 s ago");
        for seconds in [i64::MIN, i64::MAX] {
            let nanos = i32::MIN;
            let odd = wire::Engine {
                last_seen_at: Some(Timestamp { seconds, nanos }),
                ..wire::Engine::default()
            };
            assert!(in_columns(&[odd.into()], now).contains("STATUS"));
        }
        let engines = |ids: &[&str]| -> Vec<Shown> {
            let engine = |id: &&str| wire::Engine {
                id: (*id).to_owned(),
                ..wire::Engine::default()
            };
            ids.iter().map(|id| engine(id).into()).collect()
        };
        let ids = ["0031debd-6130", "0031debd-6140", "1131debd-6130", "x", ""];
        let short = ["0031debd-613", "0031debd-614", "1131debd", "x", ""];
        assert_eq!(prefixes(&engines(&ids)), short);
        assert_eq!(
            prefixes(&engines(&["0031debd-6130"; 2])),
            ["0031debd-6130"; 2]
        );
    }

    #[test]
    fn engine_that_is_never_dialled_has_a_host_and_no_port() {
        for (port, expected) in [(0, "a.example (one-way)"), (8532, "a.example:8532")] {
            let hostname = "a.example".to_owned();
            let shown = Shown::from(wire::Engine {
                address: Some(wire::EngineAddress { hostname, port }),
                ..wire::Engine::default()
            });

            assert!(shown.in_words().contains(expected), "{}", shown.in_words());
            let list = in_columns(&[shown], SystemTime::UNIX_EPOCH);
            assert!(list.contains(&format!("{expected}  ")), "{list}");
        }
    }

    #[test]
    fn why_an_engine_is_not_ready_is_shown_to_its_end() {
        let reason = format!("{}; add `roles[0]=IMPERSONATION` there", "why ".repeat(150));
        let engine = wire::Engine {
            status_reason: reason.clone(),
            ..wire::Engine::default()
        };

        let shown = Shown::from(engine);

        assert!(shown.in_words().contains(&reason), "{}", shown.in_words());
    }
}
