//! A setting that a procedure writes.

use crate::secret::Secret;
use crate::storage::revoked_keys::Record;

/// A setting with the value that it must have.
#[derive(Clone, Debug, Default)]
pub(super) struct Setting {
    pub(super) key: String,
    /// `None` if it must not be there.
    pub(super) value: Option<Secret<String>>,
    /// The value with a remark in place of a private key.
    pub(super) shown: String,
    /// What the file's home is to remember with it.
    pub(super) record: Option<Record>,
}

impl Setting {
    pub(super) fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        let shown = value.into();
        Self {
            key: key.into(),
            value: Some(Secret::new(shown.clone())),
            shown,
            record: None,
        }
    }

    /// Returns the value; `None` if it must not be there.
    pub(super) fn text(&self) -> Option<&str> {
        self.value.as_ref().map(|value| value.expose().as_str())
    }

    pub(super) fn removed(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ..Self::default()
        }
    }
}
