//! `countersign engines`: what the DPM knows of its engines.

use std::error::Error;
use std::time::Duration;

use clap::{Args, Subcommand};
use prost_types::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;
use tonic::{Code, Status};
use tower_layer::Layer as _;

use super::input::HomeArguments;
use super::output::{Answer, Console, Kind, Refused, example, table};
use super::runtime::runtime;
use crate::admin::greeting;
use crate::config::ModuleKind;
use crate::diagnostic::CommandLine;
use crate::grpc::{
    AttachIdentityLayer, ConnectError, Connection, ConnectionOptions, Target, UnknownDeployment,
    cause, code_name, reason_of,
};
use crate::proto::registry as wire;
use crate::proto::status_word;
use crate::telemetry::{Untrusted, UntrustedReason};

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
    let (target, layer, options) = dpm(home, console)?;
    runtime()?.block_on(async {
        let opened = within(&target, Connection::open(&target, options.clone())).await?;
        let connection = opened.map_err(|error| {
            let why = cause(error.as_ref());
            let message = format!("cannot reach the DPM at {target}: {why}");
            let failure = Refused::new(Kind::Unreachable, message);
            match ConnectError::find_in(error.as_ref()) {
                Some(ConnectError::Tls(..)) => failure,
                _ => failure
                    .with_help("start it, in its home folder:")
                    .with_commands([CommandLine::new("countersign dpm run --home .")]),
            }
        })?;
        let listed = match within(&target, greeting::list_engines(layer.layer(connection))).await? {
            Ok(listed) => listed,
            Err(status) => return Err(failed(&status, &target, &options).await),
        };
        let engines: Vec<_> = listed.into_iter().map(Shown::from).collect();
        match command {
            Command::List(_) => console.reply(in_columns(&engines), &json!({ "engines": engines })),
            Command::Show(show) => {
                let engine = named(engines, &show.name)?;
                console.reply(engine.in_words(), &engine)
            }
        }
    })
}

/// Longer than any DPM takes that answers at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Awaits what the DPM at `target` has to say, but not for ever.
async fn within<T>(target: &Target, answer: impl Future<Output = T>) -> Result<T, Refused> {
    timeout(PATIENCE, answer).await.map_err(|_elapsed| {
        let message = format!("the DPM at {target} does not answer within {PATIENCE:?}");
        Refused::new(Kind::Unreachable, message)
            .with_help("a program listens there; check that it is the DPM and that it responds")
    })
}

/// Where the DPM is, and how to call it: as a module that trusts it, or as the DPM itself.
fn dpm(
    home: &HomeArguments,
    console: &Console,
) -> Result<(Target, AttachIdentityLayer, ConnectionOptions), Refused> {
    let settings = home.load(&ModuleKind::Dpm, console)?;
    let module = settings.module().map_err(|error| unusable(&error))?;
    let connection = settings.options.client.connection("dpm");
    let named = connection.and_then(|dpm| dpm.deployment.clone());
    let known = named.map_or_else(|| module.deployment_of("dpm"), Ok);
    let no_tls = "cannot set up TLS";
    if let Err(UnknownDeployment::Module(_)) = known {
        let target = settings.options.server.own_target().ok_or_else(|| {
            let message = "this DPM's port changes at each start";
            Refused::new(Kind::Unreadable, message)
                .with_help("use the port in its log: --set ataccama.server.grpc.port=PORT")
        })?;
        let loaded = settings.own_connection(&module);
        let options = loaded.map_err(Refused::caused(Kind::Unreadable, no_tls))?;
        return Ok((target, module.own_module_layer(), options));
    }
    let deployment = known.map_err(|error| unusable(&error))?;
    let missing = "no connection to a DPM is set";
    let dpm = connection.ok_or_else(|| Refused::new(Kind::Unreadable, missing))?;
    let target = Target::new(&dpm.host, dpm.port);
    let found = module.layer_for(deployment.as_str());
    let layer = found.map_err(|error| unusable(&error))?;
    let loaded = settings.connection(&module, "dpm");
    let options = loaded.map_err(Refused::caused(Kind::Unreadable, no_tls))?;
    Ok((target, layer, options.towards(&deployment)))
}

fn unusable(error: &dyn Error) -> Refused {
    Refused::new(Kind::Unreadable, cause(&error))
}

/// Finds the one engine whose id is or begins as `name`, or whose deployment has that name.
fn named(engines: Vec<Shown>, name: &str) -> Result<Shown, Refused> {
    let id = name.to_ascii_lowercase();
    let mut fitting = engines
        .into_iter()
        .filter(|engine| engine.id.starts_with(&id) || engine.deployment == name);
    match (fitting.next(), fitting.next()) {
        (Some(engine), None) => Ok(engine),
        (Some(one), Some(other)) => {
            let message = format!("several engines fit `{name}`: {}, {}", one.id, other.id);
            Err(Refused::new(Kind::Conflict, message).with_help("give more of the id"))
        }
        (None, _) => {
            let message = format!("no registered engine has the id or the deployment `{name}`");
            Err(Refused::new(Kind::NotThere, message)
                .with_help("`countersign engines list` shows all engines"))
        }
    }
}

/// Says why the DPM at `target` did not answer as asked, or what listens there in its place.
async fn failed(status: &Status, target: &Target, options: &ConnectionOptions) -> Refused {
    let (code, reason) = (status.code(), reason_of(status));
    if reason.is_none()
        && let Some(why) = greeting::look(target, options).await
    {
        return Refused::new(Kind::Unreachable, format!("{target} {why}"))
            .with_help("check that the DPM listens at this port; `countersign doctor` says more");
    }
    let kind = match code {
        Code::Unavailable | Code::DeadlineExceeded => Kind::Unreachable,
        // The connection broke: it is no answer.
        _ if status.source().is_some() => Kind::Unreachable,
        _ => Kind::Denied,
    };
    let (name, message) = (code_name(code), harmless(status.message()));
    let failure = Refused::new(kind, format!("{name}: {message}"));
    match reason {
        Some(reason) => failure.with_help(reason.help()),
        None => failure,
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
    status_reason: String,
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
        Self {
            id: harmless(&engine.id),
            hostname: harmless(&address.hostname),
            port: address.port,
            status: status_word(engine.status),
            status_reason: UntrustedReason(&engine.status_reason).to_string(),
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
        return "no engines; start one with: countersign dpe run --home dpe\n".to_owned();
    }
    let head = [
        "ID",
        "ADDRESS",
        "STATUS",
        "DEPLOYMENT",
        "MODULE",
        "ENV",
        "LAST SEEN",
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
        for name in ["0031debd-61", "0031DEBD", "003", "dpe-dev"] {
            assert_eq!(named(engines(), name).unwrap().id, "0031debd-61", "{name}");
        }
        for (name, kind) in [("00", "Conflict"), ("dpe", "NotThere"), ("5", "NotThere")] {
            let refused = named(engines(), name).err().unwrap();
            assert_eq!(format!("{:?}", refused.kind()), kind, "{name}");
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
