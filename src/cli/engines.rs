//! `countersign engines`: what the DPM knows of its engines.

use std::path::Path;

use clap::{Args, Subcommand};
use prost_types::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::input::{HomeArguments, kind_of};
use super::output::{Answer, Console, Kind, Refused, example, table};
use super::runtime::runtime;
use crate::admin::greeting::{self, Callee, Doubt, Found, PATIENCE};
use crate::config::ModuleKind;
use crate::diagnostic::CommandLine;
use crate::grpc::{Target, UnknownDeployment, cause, failure_of};
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
    Show(Show),
}

#[derive(Args, Debug)]
pub(super) struct Show {
    /// The engine's id, the beginning of it, or its deployment
    #[arg(value_name = "ENGINE")]
    name: String,
    #[command(flatten)]
    home: HomeArguments,
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    let home = match command {
        Command::List(home) => home,
        Command::Show(show) => &show.home,
    };
    let of = &home.module.home;
    let callee = dpm(home, console)?;
    let asked = callee.ask(Instant::now() + PATIENCE, greeting::list_engines);
    let answered = runtime()?.block_on(asked);
    let listed = answered.map_err(|doubt| refused(doubt, of))?;
    let engines: Vec<_> = listed.into_iter().map(Shown::from).collect();
    match command {
        Command::List(_) => console.reply(in_columns(&engines), &json!({ "engines": engines })),
        Command::Show(show) => {
            let engine = named(engines, &show.name, of)?;
            console.reply(engine.in_words(), &engine)
        }
    }
}

/// Returns how to ask the DPM: as a module that trusts it, or as the DPM itself.
fn dpm(home: &HomeArguments, console: &Console) -> Result<Callee, Refused> {
    let settings = home.load(&ModuleKind::Dpm, console)?;
    let made = settings.module();
    let module = made.map_err(|error| Refused::new(Kind::Unreadable, cause(&error)))?;
    let dpm = settings.options.client.connection("dpm");
    let named = dpm.and_then(|dpm| dpm.deployment.clone());
    let known = named.map_or_else(|| module.deployment_of("dpm"), Ok);
    let found = match (known, dpm) {
        (Err(UnknownDeployment::Module(_)), _) => Callee::itself(&settings, &module),
        (Err(error), _) => Err(Found::NotAsked.because(cause(&error))),
        (Ok(_), None) => Err(Found::NotAsked.because("no connection to a DPM is set")),
        (Ok(name), Some(dpm)) => {
            let target = Target::new(&dpm.host, dpm.port);
            Callee::of((&settings, &module), &name, target, "dpm")
        }
    };
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
fn named(engines: Vec<Shown>, name: &str, home: &Path) -> Result<Shown, Refused> {
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
        }
    }
}

impl Shown {
    fn in_words(&self) -> String {
        let [registered, seen] =
            [&self.registered_at, &self.last_seen].map(|time| time.as_deref().unwrap_or("never"));
        let lines = [
            ("id", self.id.as_str()),
            ("address", &format!("{}:{}", self.hostname, self.port)),
            ("status", self.status),
            ("why", &self.status_reason),
            ("deployment", &self.deployment),
            ("module", &self.module),
            ("environment", &self.environment),
            ("fingerprint", &self.fingerprint),
            ("registered", registered),
            ("last seen", seen),
        ];
        let known = lines.iter().filter(|(_, value)| !value.is_empty());
        let lines = known.map(|(name, value)| format!("{name:<14} {value}\n"));
        lines.collect()
    }
}

fn in_columns(engines: &[Shown]) -> String {
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
    rows.extend(engines.iter().map(|engine| {
        [
            engine.id.clone(),
            format!("{}:{}", engine.hostname, engine.port),
            engine.status.to_owned(),
            engine.deployment.clone(),
            engine.module.clone(),
            engine.environment.clone(),
            engine.last_seen.clone().unwrap_or_default(),
            engine.why.clone(),
        ]
    }));
    table(&rows)
}

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
                named(engines(), name, Path::new("dpm")).unwrap().id,
                "0031debd-61",
                "{name}"
            );
        }
        for (name, kind) in [("00", "Conflict"), ("dpe", "NotThere"), ("5", "NotThere")] {
            let refused = named(engines(), name, Path::new("dpm")).err().unwrap();
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
            let shown = in_columns(&[Shown {
                last_seen: Some("never".to_owned()),
                ..engine
            }]);
            assert!(shown.trim_end().ends_with(why), "{shown}");
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
