//! The health of a module: its parts, and whether it is ready.
//!
//! The parts set themselves; who answers probes reads all of them at once. Nothing is served here.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::sync::watch;

/// The health of one module. Cloning is cheap, and all clones show the same parts.
///
/// A module is ready while every [required](Self::required) part is up, at least one, and it is not
/// [stopping](Self::stop).
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
}

/// Every part of a module's health at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    parts: Vec<Part>,
    stopping: bool,
}

/// How one part of a module is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    /// What it is called.
    pub name: &'static str,
    /// Whether it works.
    pub up: bool,
    /// Why it does not, or what there is to know. For operators of this machine; no secret.
    pub detail: Cow<'static, str>,
    /// Whether the module is not ready while this is not up.
    pub required: bool,
}

/// The one who sets a part. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Setter {
    health: Health,
    name: &'static str,
}

impl Health {
    /// Adds the part `name`, without which the module is not ready. It is down until it is set.
    ///
    /// A part that is there already is the same part, and stays as it is.
    pub fn required(&self, name: &'static str) -> Setter {
        self.part(name, true)
    }

    /// Adds the part `name`, which is shown and has no say in whether the module is ready.
    pub fn shown(&self, name: &'static str) -> Setter {
        self.part(name, false)
    }

    /// Says that the module is about to end: from now on it is not ready, whatever its parts say.
    pub fn stop(&self) {
        self.state
            .send_if_modified(|state| !std::mem::replace(&mut state.stopping, true));
    }

    /// Returns `true` if the module is ready.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Returns all parts as they are now.
    pub fn current(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows the state: woken after each change, several at once count as one.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    fn part(&self, name: &'static str, required: bool) -> Setter {
        self.state.send_if_modified(|state| {
            let missing = !state.parts.iter().any(|part| part.name == name);
            if missing {
                state.parts.push(Part {
                    name,
                    up: false,
                    detail: Cow::Borrowed("starting"),
                    required,
                });
            }
            missing
        });
        Setter {
            health: self.clone(),
            name,
        }
    }
}

impl State {
    /// Returns `true` if there is a required part, all of them are up, and the module is not
    /// stopping.
    pub fn is_ready(&self) -> bool {
        let mut required = self.parts.iter().filter(|part| part.required).peekable();
        !self.stopping && required.peek().is_some() && required.all(|part| part.up)
    }

    /// Returns the parts, in the order in which they were added.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl Setter {
    /// Says that the part works, and what there is to know.
    pub fn up(&self, detail: impl Into<Cow<'static, str>>) {
        self.set(true, detail.into());
    }

    /// Says that the part does not work, and why.
    pub fn down(&self, detail: impl Into<Cow<'static, str>>) {
        self.set(false, detail.into());
    }

    fn set(&self, up: bool, detail: Cow<'static, str>) {
        self.health.state.send_if_modified(|state| {
            let mut parts = state.parts.iter_mut();
            let part = parts.find(|part| part.name == self.name);
            let changed = part.filter(|part| part.up != up || part.detail != detail);
            let Some(part) = changed else {
                return false;
            };
            (part.up, part.detail) = (up, detail);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_is_ready_once_every_required_part_is_up() {
        let health = Health::default();
        let (keys, engine) = (health.required("keys"), health.required("engine"));
        let reload = health.shown("configReload");

        keys.up("2 keys");
        assert!(!health.is_ready());
        engine.up("registered");
        assert!(health.is_ready());
        reload.down("line 3");
        assert!(health.is_ready());
        engine.down("the DPM does not answer");
        assert!(!health.is_ready());
    }

    #[test]
    fn module_that_stops_is_never_ready_again() {
        let health = Health::default();
        let keys = health.required("keys");
        keys.up("2 keys");

        health.stop();
        keys.up("3 keys");

        assert!(!health.is_ready());
        assert!(health.current().stopping);
    }

    #[test]
    fn followers_are_woken_by_changes_alone() {
        let health = Health::default();
        let keys = health.required("keys");
        keys.up("2 keys");
        let mut changes = health.subscribe();
        changes.mark_unchanged();

        keys.up("2 keys");
        assert!(!changes.has_changed().unwrap());
        keys.up("3 keys");

        assert!(changes.has_changed().unwrap());
        assert_eq!(changes.borrow_and_update().parts()[0].detail, "3 keys");
    }

    #[test]
    fn part_that_is_added_twice_is_one_part() {
        let health = Health::default();
        health.required("keys").up("2 keys");

        health.required("keys");

        assert_eq!(health.current().parts().len(), 1);
        assert!(health.is_ready());
    }
}
