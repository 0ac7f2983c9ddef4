//! Which engines a DPM holds, and of which deployments it holds none.

use super::report::{Fault, Found, Side};
use crate::config::Settings;
use crate::proto::registry as wire;
use crate::telemetry::Untrusted;

/// More engines than this that left are not named.
const MOST_NAMED: usize = 8;

/// What the registry lists.
#[derive(Debug)]
pub(super) struct Roll {
    /// Those that are registered.
    pub(super) active: Vec<wire::Engine>,
    /// Those that left.
    gone: Vec<wire::Engine>,
    /// The trusted deployments of DPEs without a registered engine.
    without: Vec<String>,
}

impl Roll {
    pub(super) fn of(engines: Vec<wire::Engine>, settings: &Settings) -> Self {
        let left = |engine: &wire::Engine| engine.status() == wire::EngineStatus::Inactive;
        let (gone, active): (Vec<_>, Vec<_>) = engines.into_iter().partition(left);
        let is_held = |name: &str| active.iter().any(|engine| engine.deployment == name);
        let without = dpes(settings).filter(|name| !is_held(name));
        Self {
            without: without.map(str::to_owned).collect(),
            gone,
            active,
        }
    }

    /// Fails where no engine is registered at all, or none of the `wanted` deployment.
    pub(super) fn judge(&self, wanted: Option<&str>, most: usize) -> Result<Found<()>, Fault> {
        let detail = self.detail(most);
        let lacks = match wanted {
            Some(wanted) => self.without.iter().any(|name| name == wanted),
            None => self.active.is_empty() && !self.without.is_empty(),
        };
        if !lacks {
            return Ok(Found::skipped((), detail));
        }
        let fault = Fault::new(Side::Peer, detail);
        let fault = fault.help("start the engine: countersign dpe run --home <its home>");
        Err(fault.help("where it runs, it says more: countersign doctor --home <its home>"))
    }

    fn detail(&self, most: usize) -> String {
        let count = self.active.len();
        let mut parts = vec![format!("registered engines: {count}")];
        if count > most {
            parts.push(format!(
                "the first {most} are looked at, others with --peer ID"
            ));
        }
        if !self.without.is_empty() {
            parts.push(format!("none of {}", self.without.join(", ")));
        }
        parts.extend(self.gone.iter().take(MOST_NAMED).map(|engine| {
            let (id, owner) = (Untrusted(&engine.id), Untrusted(&engine.deployment));
            format!("engine {id} of {owner} is INACTIVE")
        }));
        let more = self.gone.len().saturating_sub(MOST_NAMED);
        if more > 0 {
            parts.push(format!("{more} more are INACTIVE"));
        }
        parts.join("; ")
    }
}

/// Goes through the trusted deployments whose engines may register.
pub(super) fn dpes(settings: &Settings) -> impl Iterator<Item = &str> {
    let trusted = settings.deployments.iter();
    let dpes = trusted.filter(|deployment| deployment.module.as_str() == "dpe");
    dpes.map(|deployment| deployment.name.as_str())
}
