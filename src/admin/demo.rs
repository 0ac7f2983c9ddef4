//! The demo: two fresh homes, two real processes, from a pair of keys to READY, and three calls
//! that are refused.

mod child;
mod refused;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use child::{ChildModule, text};

use super::Refused;
use super::pairing::{self, Member, Options};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{LoadError, ModuleKind, Settings, check};
use crate::grpc::Target;
use crate::identity::{ModuleType, NameError, Role, RoleError};
use crate::jose::Fingerprint;
use crate::properties::ReadError;

/// How the demo runs.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// This program.
    pub binary: PathBuf,
    /// Where the two homes are made.
    pub folder: PathBuf,
}

/// One step, once it is over.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is called.
    pub name: &'static str,
    /// What came of it, one line or more.
    pub lines: Vec<String>,
    /// How long it took.
    pub took: Duration,
    /// Whether everything came as it must.
    pub held: bool,
}

/// How the demo ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// From the start of the demo until the engine was READY.
    pub ready_after: Duration,
    /// Whether every line held.
    pub held: bool,
}

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The two homes cannot be paired.
    #[error("cannot pair the two homes")]
    Pair(#[from] Refused),
    /// A name of the demo's own is none: a bug.
    #[error("a name of the demo is none")]
    Name(#[from] NameError),
    /// A role of the demo's own is none: a bug.
    #[error("a role of the demo is none")]
    Role(#[from] RoleError),
    /// The homes that were just paired cannot be read.
    #[error("cannot read what was paired")]
    Load(#[from] LoadError),
    /// What was paired cannot be checked.
    #[error("cannot check what was paired")]
    Check(#[from] ReadError),
    /// A child cannot be run.
    #[error("cannot run {name}")]
    Start {
        /// Which.
        name: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A child ended or fell silent.
    #[error("{name} ended early; its last line: {last}")]
    Silent {
        /// Which.
        name: &'static str,
        /// What it said last.
        last: String,
    },
    /// A child did not do what it must in 20 seconds.
    #[error("no `{event}` from {name} within 20 s")]
    Late {
        /// Which.
        name: &'static str,
        /// What did not come.
        event: &'static str,
    },
    /// A call that must be refused could not be made.
    #[error("cannot call the DPM")]
    Call(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs the demo and hands each step to `report` when it is over.
///
/// Where the returned future is dropped before its end, the modules are killed. What is in the
/// folder stays there.
///
/// # Errors
///
/// When a step cannot be taken at all. A step that was taken and did not hold is in the outcome.
pub async fn run(
    options: &DemoOptions,
    report: &mut (dyn FnMut(&Step) + Send),
) -> Result<Outcome, DemoError> {
    let started = Instant::now();
    let mut demo = Demo {
        options,
        report,
        held: true,
        lap: started,
    };
    demo.pair()?;
    demo.check()?;
    let (mut dpm, address) = demo.start_dpm().await?;
    let dpe = demo.start_dpe(&mut dpm, &address).await?;
    demo.ready(&mut dpm).await?;
    let ready_after = started.elapsed();
    demo.refused(&address).await?;
    demo.stop(dpe, dpm).await?;
    Ok(Outcome {
        ready_after,
        held: demo.held,
    })
}

struct Demo<'a> {
    options: &'a DemoOptions,
    report: &'a mut (dyn FnMut(&Step) + Send),
    held: bool,
    lap: Instant,
}

impl Demo<'_> {
    fn pair(&mut self) -> Result<(), DemoError> {
        let member = |module: &str| -> Result<Member, DemoError> {
            Ok(Member {
                module: ModuleType::new(module)?,
                path: self.file(module),
                name: None,
                key: None,
            })
        };
        let members = [member("dpm")?, member("dpe")?];
        let role = Role::new("IMPERSONATION")?;
        let options = Options {
            environment: None,
            role,
            key_name: None,
            tls: false,
            now: SystemClock.now(),
        };
        let plan = pairing::plan(&members, &options)?;
        plan.carry_out()?;
        let sides = plan.sides().each_ref();
        let keys = sides.map(|side| format!("{} {}", side.name(), short(side.fingerprint())));
        self.step("pair", vec![keys.join("   ")], true);
        Ok(())
    }

    fn check(&mut self) -> Result<(), DemoError> {
        let report = check(&[self.file("dpm"), self.file("dpe")], &[])?;
        let (errors, warnings) = (report.findings.errors(), report.findings.warnings());
        let line = format!("2 files held against each other: {errors} errors, {warnings} warnings");
        let found = report.findings.iter().map(ToString::to_string);
        let lines = std::iter::once(line).chain(found).collect();
        self.step("check", lines, errors == 0 && warnings == 0);
        Ok(())
    }

    async fn start_dpm(&mut self) -> Result<(ChildModule, Target), DemoError> {
        let settings = ANY_PORT.map(str::to_owned);
        let home = self.options.folder.join("dpm");
        let mut dpm = ChildModule::start(&self.options.binary, "dpm", &home, &settings)?;
        let started = dpm.event("startup", |_| true).await?;
        let address = text(&started, "address").to_owned();
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let port = port.ok_or(DemoError::Silent {
            name: "dpm",
            last: address.clone(),
        })?;
        self.step("dpm", vec![format!("listens on {address}")], true);
        Ok((dpm, Target::new("127.0.0.1", port)))
    }

    async fn start_dpe(
        &mut self,
        dpm: &mut ChildModule,
        address: &Target,
    ) -> Result<ChildModule, DemoError> {
        let settings = [
            "ataccama.client.connection.dpm.host=127.0.0.1".to_owned(),
            format!(
                "ataccama.client.connection.dpm.grpc.port={}",
                address.port()
            ),
        ];
        let settings: Vec<_> = ANY_PORT
            .map(str::to_owned)
            .into_iter()
            .chain(settings)
            .collect();
        let home = self.options.folder.join("dpe");
        let dpe = ChildModule::start(&self.options.binary, "dpe", &home, &settings)?;
        let registered = dpm.event("registerEngine", |_| true).await?;
        let caller = text(&registered, "authenticatedUser");
        let expected = "ServiceIdentity(module=dpe, id=dpe-dev, roles=[IMPERSONATION])";
        let lines = vec![
            format!("registered engine {}", text(&registered, "engineId")),
            format!("the dpm saw {caller}"),
        ];
        let held = caller == expected;
        self.step("dpe", lines, held);
        Ok(dpe)
    }

    async fn ready(&mut self, dpm: &mut ChildModule) -> Result<(), DemoError> {
        let ready = |event: &Value| text(event, "newStatus") == "READY";
        let event = dpm.event("setEngineStatus", ready).await?;
        let change = format!("{} → READY", text(&event, "oldStatus"));
        let line = format!("{change}: the dpm dialled back, the dpe proved to be that engine");
        self.step("status", vec![line], text(&event, "oldStatus") == "NEW");
        Ok(())
    }

    async fn refused(&mut self, address: &Target) -> Result<(), DemoError> {
        let home = self.options.folder.join("dpe");
        let dpe = Settings::load(&home, &ModuleKind::Dpe, [], &[])?;
        let dpe = dpe.module().map_err(LoadError::from)?;
        let calls = refused::calls(&dpe, address).await?;
        let held = calls.iter().all(refused::Refused::as_expected);
        let lines = calls.iter().map(ToString::to_string).collect();
        self.step("refused", lines, held);
        Ok(())
    }

    async fn stop(&mut self, dpe: ChildModule, mut dpm: ChildModule) -> Result<(), DemoError> {
        let dpe = dpe.stop().await?;
        dpm.event("deregisterEngine", |_| true).await?;
        let dpm = dpm.stop().await?;
        let line = format!("dpe deregistered and ended ({dpe}), then dpm ({dpm})");
        self.step("stopped", vec![line], dpe.success() && dpm.success());
        Ok(())
    }

    fn file(&self, module: &str) -> PathBuf {
        self.options
            .folder
            .join(module)
            .join("etc")
            .join("application.properties")
    }

    fn step(&mut self, name: &'static str, lines: Vec<String>, held: bool) {
        let now = Instant::now();
        let took = now - self.lap;
        self.lap = now;
        self.held &= held;
        (self.report)(&Step {
            name,
            lines,
            took,
            held,
        });
    }
}

/// The modules of a demo are nobody else's.
const ANY_PORT: [&str; 2] = ["ataccama.server.grpc.port=0", "server.port=0"];

/// The beginning of a fingerprint: enough to tell two apart.
fn short(fingerprint: Fingerprint) -> String {
    let text: String = fingerprint.to_string().chars().take(12).collect();
    format!("{text}…")
}
