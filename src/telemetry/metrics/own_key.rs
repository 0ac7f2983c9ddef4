//! The key that the module signs with: one series, which names it.

use std::time::SystemTime;

use arc_swap::ArcSwapOption;

use super::family::Family;

const CREATED: &str = "countersign_signing_key_created_timestamp_seconds";

/// Which key signs, and when it was made.
#[derive(Debug, Default)]
pub(super) struct OwnKey(ArcSwapOption<(Box<str>, f64)>);

impl OwnKey {
    pub(super) fn set(&self, kid: &str, made_at: Option<SystemTime>) {
        let since = made_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let seconds = since.map_or(f64::NAN, |since| since.as_secs_f64());
        self.0.store(Some((kid.into(), seconds).into()));
    }

    /// Writes the family, with a blank line after it, as the exporter does.
    pub(super) fn write(&self, text: &mut String) {
        let current = self.0.load();
        let Some((kid, seconds)) = current.as_deref() else {
            return;
        };
        let help =
            "When the key was made that signs, in seconds since 1970; NaN where it does not tell.";
        let mut created = Family::new(text, CREATED, "gauge", help);
        created.series(&[("kid", kid)], seconds);
        created.end();
    }
}
