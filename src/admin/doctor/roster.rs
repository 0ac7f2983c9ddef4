//! The engines that a registry lists, as `doctor` names and chooses them.

use crate::properties::name::same;
use crate::proto::registry::{Engine, EngineStatus};
use crate::telemetry::Untrusted;

/// More engines than this are not visited: they are all visited at once.
pub(super) const MOST_VISITED: usize = 50;

/// More engines than this that left are not named.
pub(super) const MOST_NAMED: usize = 8;

/// Which engines the registry lists, and which deployments have none.
#[derive(Debug)]
pub(super) struct Roster {
    /// All of them: first those that are not READY.
    engines: Vec<Engine>,
    /// The trusted deployments of DPEs without a registered engine.
    without: Vec<String>,
}

impl Roster {
    pub(super) fn new(mut engines: Vec<Engine>, mut without: Vec<String>) -> Self {
        engines.sort_by_key(is_ready);
        without.retain(|name| {
            let mut active = engines.iter().filter(|engine| is_active(engine));
            !active.any(|engine| engine.deployment == *name)
        });
        Self { engines, without }
    }

    /// Goes through the registered engines that `wanted` names.
    pub(super) fn wanted(&self, wanted: Option<&str>) -> impl Iterator<Item = &Engine> {
        let active = self.engines.iter().filter(|engine| is_active(engine));
        active.filter(move |engine| wanted.is_none_or(|name| is_called(engine, name)))
    }

    /// Returns `true` if an engine is missing: one of the `wanted` deployment, or any at all.
    pub(super) fn lacks(&self, wanted: Option<&str>) -> bool {
        match wanted.filter(|wanted| !same(wanted, "dpe")) {
            Some(wanted) => self.without.iter().any(|name| same(name, wanted)),
            None => self.wanted(None).next().is_none() && !self.without.is_empty(),
        }
    }

    pub(super) fn detail(&self, wanted: Option<&str>) -> String {
        let mut parts = vec![format!("registered engines: {}", self.wanted(None).count())];
        let left: Vec<_> = self.wanted(wanted).skip(MOST_VISITED).collect();
        if !left.is_empty() {
            let (count, ready) = (left.len(), left.iter().filter(|e| is_ready(e)).count());
            parts.push(format!(
                "{MOST_VISITED} of them are examined, {count} are not, {ready} of which are READY: \
                 name one with --peer ID"
            ));
        }
        if !self.without.is_empty() {
            parts.push(format!("none of {}", self.without.join(", ")));
        }
        let all = self.engines.iter();
        let gone: Vec<_> = all.filter(|engine| !is_active(engine)).collect();
        parts.extend(gone.iter().take(MOST_NAMED).map(|engine| {
            let (id, owner) = (Untrusted(&engine.id), Untrusted(&engine.deployment));
            format!("engine {id} of {owner} is INACTIVE")
        }));
        let more = gone.len().saturating_sub(MOST_NAMED);
        if more > 0 {
            parts.push(format!("{more} more are INACTIVE"));
        }
        parts.join("; ")
    }
}

pub(super) fn is_ready(engine: &Engine) -> bool {
    engine.status() == EngineStatus::Ready
}

/// Returns `true` if the engine has not left.
pub(super) fn is_active(engine: &Engine) -> bool {
    engine.status() != EngineStatus::Inactive
}

/// Returns `true` if `name` is the engine's id, the beginning of it, or the engine's deployment,
/// module or `host:port`.
pub(super) fn is_called(engine: &Engine, name: &str) -> bool {
    engine.id.starts_with(&name.to_ascii_lowercase())
        || address_of(engine).eq_ignore_ascii_case(name)
        || [&engine.deployment, &engine.module]
            .iter()
            .any(|known| same(known, name))
}

/// Returns the host and port that `engine` advertises. They are untrusted.
pub(super) fn address_of(engine: &Engine) -> String {
    let address = engine.address.clone().unwrap_or_default();
    let host = Untrusted(&address.hostname);
    if is_one_way(engine) {
        return format!("{host} (one-way)");
    }
    format!("{host}:{}", address.port)
}

/// Returns `true` if the engine takes no calls.
pub(super) fn is_one_way(engine: &Engine) -> bool {
    engine.address.as_ref().is_some_and(|it| it.port == 0)
}
