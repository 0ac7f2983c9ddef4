//! The answer in JSON.

use serde::Serialize;

use crate::admin::pairing::{Plan, PlannedSide};
use crate::admin::{ChangeKind, SettingChange};

#[derive(Serialize)]
pub(super) struct Report<'a> {
    written: bool,
    deployments: Vec<Paired<'a>>,
}

#[derive(Serialize)]
struct Paired<'a> {
    name: &'a str,
    fingerprint: String,
    new_key: bool,
    file: String,
    new_file: bool,
    changes: Vec<Change<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_fingerprint: Option<String>,
}

#[derive(Serialize)]
struct Change<'a> {
    key: &'a str,
    value: &'a str,
    replaces: bool,
}

impl<'a> Report<'a> {
    pub(super) fn of(plan: &'a Plan, is_dry: bool) -> Self {
        let paired = |side: &'a PlannedSide| Paired {
            name: side.name().as_str(),
            fingerprint: side.fingerprint().to_string(),
            new_key: side.is_key_new(),
            file: side.file().path().display().to_string(),
            new_file: !side.file().is_there(),
            changes: side.file().changes().iter().map(Change::of).collect(),
            tls_fingerprint: side.tls_fingerprint().map(|pin| pin.to_string()),
        };
        Self {
            written: !is_dry && !plan.is_empty(),
            deployments: plan.sides().iter().map(paired).collect(),
        }
    }
}

impl<'a> Change<'a> {
    fn of(change: &'a SettingChange) -> Self {
        Self {
            key: &change.key,
            value: &change.shown,
            replaces: change.kind != ChangeKind::Added,
        }
    }
}
