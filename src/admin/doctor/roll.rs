//! Which engines a DPM holds, and of which deployments it holds none.

use super::report::{Fault, Found, Side};
use crate::config::Settings;
use crate::proto::registry as wire;
use crate::telemetry::Untrusted;

/// More engines than this are not visited: each may take its time.
const MOST_VISITED: usize = 50;

/// More engines than this that left are not named.
const MOST_NAMED: usize = 8;

/// What the registry lists.
#[derive(Debug)]
pub(super) struct Roll {
    /// Those that are registered: first those that are not READY.
    active: Vec<wire::Engine>,
    /// Those that left.
    gone: Vec<wire::Engine>,
    /// The trusted deployments of DPEs without a registered engine.
    without: Vec<String>,
}

impl Roll {
    pub(super) fn of(engines: Vec<wire::Engine>, settings: &Settings) -> Self {
        Self::with(engines, dpes(settings).map(str::to_owned).collect())
    }

    fn with(engines: Vec<wire::Engine>, mut without: Vec<String>) -> Self {
        let left = |engine: &wire::Engine| engine.status() == wire::EngineStatus::Inactive;
        let (gone, mut active): (Vec<_>, Vec<_>) = engines.into_iter().partition(left);
        active.sort_by_key(is_ready);
        without.retain(|name| !active.iter().any(|engine| engine.deployment == *name));
        Self {
            active,
            gone,
            without,
        }
    }

    /// Goes through the engines that are to be visited: the first of those that are `wanted`.
    pub(super) fn visited(&self, wanted: Option<&str>) -> impl Iterator<Item = &wire::Engine> {
        self.meant(wanted).take(MOST_VISITED)
    }

    fn meant(&self, wanted: Option<&str>) -> impl Iterator<Item = &wire::Engine> {
        let active = self.active.iter();
        active.filter(move |engine| wanted.is_none_or(|name| is_called(engine, name)))
    }

    /// Fails where no engine is registered at all, or none of the `wanted` deployment.
    pub(super) fn judge(&self, wanted: Option<&str>) -> Result<Found<()>, Fault> {
        let detail = self.detail(wanted);
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

    fn detail(&self, wanted: Option<&str>) -> String {
        let mut parts = vec![format!("registered engines: {}", self.active.len())];
        let left: Vec<_> = self.meant(wanted).skip(MOST_VISITED).collect();
        if !left.is_empty() {
            let (count, ready) = (left.len(), left.iter().filter(|e| is_ready(e)).count());
            parts.push(format!(
                "{MOST_VISITED} of them are looked at, {count} are not, {ready} of which are READY: \
                 name one with --peer ID"
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

fn is_ready(engine: &wire::Engine) -> bool {
    engine.status() == wire::EngineStatus::Ready
}

/// Tells whether `name` is the engine's id, deployment or `host:port`.
fn is_called(engine: &wire::Engine, name: &str) -> bool {
    let address = engine.address.clone().unwrap_or_default();
    let address = format!("{}:{}", address.hostname, address.port);
    [&*engine.id, &*engine.deployment, &*address].contains(&name)
}

/// Goes through the trusted deployments whose engines may register.
pub(super) fn dpes(settings: &Settings) -> impl Iterator<Item = &str> {
    let trusted = settings.deployments.iter();
    let dpes = trusted.filter(|deployment| deployment.module.as_str() == "dpe");
    dpes.map(|deployment| deployment.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(id: usize, status: wire::EngineStatus) -> wire::Engine {
        wire::Engine {
            id: id.to_string(),
            deployment: "dpe-dev".to_owned(),
            status: status.into(),
            ..wire::Engine::default()
        }
    }

    #[test]
    fn engines_that_are_not_ready_come_first_and_the_rest_is_counted() {
        let status = |id| match id {
            70.. => wire::EngineStatus::Disconnected,
            _ => wire::EngineStatus::Ready,
        };
        let engines = (0..80).map(|id| engine(id, status(id)));
        let roll = Roll::with(engines.collect(), Vec::new());

        let visited: Vec<_> = roll.visited(None).map(|engine| &*engine.id).collect();
        let one: Vec<_> = roll.visited(Some("42")).collect();

        assert_eq!(visited.len(), 50);
        assert_eq!(
            visited[..11],
            [
                "70", "71", "72", "73", "74", "75", "76", "77", "78", "79", "0"
            ]
        );
        let told = "registered engines: 80; 50 of them are looked at, 30 are not, 30 of which are READY: name one with --peer ID";
        assert_eq!(roll.detail(None), told);
        assert_eq!(roll.detail(Some("dpe-dev")), told);
        assert_eq!(
            (one.len(), &*roll.detail(Some("42"))),
            (1, "registered engines: 80")
        );
    }
}
