//! The demo: two fresh homes, two real processes, from a pair of keys to READY, and three calls
//! that are refused.

mod child;
mod refused;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use child::{ChildModule, ended_early, text};

use super::error::{Kind, Refused};
use super::pairing::{self, Member, Options};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{ModuleKind, Settings, check};
use crate::grpc::Target;
use crate::identity::{ModuleType, Role};
use crate::jose::Fingerprint;

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
) -> Result<Outcome, Refused> {
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
    fn pair(&mut self) -> Result<(), Refused> {
        let member = |module: &str| -> Result<Member, Refused> {
            Ok(Member {
                module: ModuleType::new(module).map_err(failed)?,
                path: self.file(module),
                name: None,
                key: None,
            })
        };
        let members = [member("dpm")?, member("dpe")?];
        let options = Options {
            environment: None,
            role: Role::impersonation(),
            key_name: None,
            tls: false,
            now: SystemClock.now(),
        };
        let plan = pairing::plan(&members, None, &options)?;
        plan.change.carry_out().map_err(Refused::from)?;
        let sides = plan.sides.iter();
        let keys = sides.map(|side| format!("{} {}", side.name(), short(side.fingerprint())));
        let keys: Vec<_> = keys.collect();
        self.step("pair", vec![keys.join("   ")], true);
        Ok(())
    }

    fn check(&mut self) -> Result<(), Refused> {
        let report = check(&[self.file("dpm"), self.file("dpe")], &[])?;
        let (errors, warnings) = (report.findings.errors(), report.findings.warnings());
        let line =
            format!("2 files compared with each other: {errors} errors, {warnings} warnings");
        let found = report.findings.iter().map(ToString::to_string);
        let lines = std::iter::once(line).chain(found).collect();
        self.step("check", lines, errors == 0 && warnings == 0);
        Ok(())
    }

    async fn start_dpm(&mut self) -> Result<(ChildModule, Target), Refused> {
        let settings = ANY_PORT.map(str::to_owned);
        let home = self.options.folder.join("dpm");
        let mut dpm = ChildModule::start(&self.options.binary, "dpm", &home, &settings)?;
        let started = dpm.event("startup", |_| true).await?;
        let address = text(&started, "address").to_owned();
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let port = port.ok_or_else(|| ended_early("dpm", &address))?;
        self.step("dpm", vec![format!("listens on {address}")], true);
        Ok((dpm, Target::new("127.0.0.1", port)))
    }

    async fn start_dpe(
        &mut self,
        dpm: &mut ChildModule,
        address: &Target,
    ) -> Result<ChildModule, Refused> {
        let port = address.port();
        let mut settings = vec![
            "ataccama.client.connection.dpm.host=127.0.0.1".to_owned(),
            format!("ataccama.client.connection.dpm.grpc.port={port}"),
        ];
        settings.extend(ANY_PORT.map(str::to_owned));
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

    async fn ready(&mut self, dpm: &mut ChildModule) -> Result<(), Refused> {
        let ready = |event: &Value| text(event, "newStatus") == "READY";
        let event = dpm.event("setEngineStatus", ready).await?;
        let change = format!("{} → READY", text(&event, "oldStatus"));
        let line = format!("{change}: the dpm dialled back, the dpe proved to be that engine");
        self.step("status", vec![line], text(&event, "oldStatus") == "NEW");
        Ok(())
    }

    async fn refused(&mut self, address: &Target) -> Result<(), Refused> {
        let home = self.options.folder.join("dpe");
        let dpe = Settings::load(&home, &ModuleKind::Dpe, [], &[]).map_err(failed)?;
        let dpe = dpe.module().map_err(failed)?;
        let (lines, held) = refused::calls(&dpe, address).await?;
        self.step("refused", lines, held);
        Ok(())
    }

    async fn stop(&mut self, dpe: ChildModule, mut dpm: ChildModule) -> Result<(), Refused> {
        let dpe = dpe.stop().await?;
        dpm.event("deregisterEngine", |_| true).await?;
        let dpm = dpm.stop().await?;
        let line = format!("dpe deregistered and ended ({dpe}), then dpm ({dpm})");
        self.step("stopped", vec![line], dpe.success() && dpm.success());
        Ok(())
    }

    fn file(&self, module: &str) -> PathBuf {
        let home = self.options.folder.join(module);
        home.join("etc/application.properties")
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

/// A demo takes ports that are free.
const ANY_PORT: [&str; 2] = ["ataccama.server.grpc.port=0", "server.port=0"];

/// The beginning of a fingerprint: enough to tell two apart.
fn short(fingerprint: Fingerprint) -> String {
    let text: String = fingerprint.to_string().chars().take(12).collect();
    format!("{text}…")
}

fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Refused {
    Refused::new(Kind::Conflict, "cannot use what was paired").caused_by(error)
}
