//! How far the change of this module's own key is: `countersign.rotation.*`.

use std::time::SystemTime;

use crate::diagnostic::Code;
use crate::jose::{Fingerprint, KeyId, SigningKey};
use crate::telemetry::from_rfc3339;

use super::parts::{OwnKey, ReadDeployment};
use super::read::Reader;
use super::rules::keys;

pub const NEXT_KEY: &str = "countersign.rotation.next-key";
pub const ACTIVATED_AT: &str = "countersign.rotation.activated-at";
pub const PREVIOUS: &str = "countersign.rotation.previous-fingerprint";

/// How far the change of a module's own key is, as `countersign rotate` left it.
#[derive(Clone, Debug, Default)]
pub struct RotationSettings {
    /// The key that is to sign next, and its `kid`: peers may trust it already.
    pub next: Option<(SigningKey, KeyId)>,
    /// Since when the own key signs, until the one before it is revoked.
    pub activated_at: Option<SystemTime>,
    /// The keys before it that are not yet revoked, the last one at the end: computed fingerprints.
    pub previous: Vec<Fingerprint>,
}

impl RotationSettings {
    /// Returns the other keys that a token may be addressed to: the next one, which peers may know
    /// already, and those before, which they may know still.
    pub(super) fn accepted(&self) -> Vec<Fingerprint> {
        let next = self.next.as_ref().map(|(key, _)| key.fingerprint());
        let previous = self.previous.iter().copied();
        next.into_iter().chain(previous).collect()
    }
}

/// Reads the settings, and reports a next key that could never take the own key's place.
pub(super) fn read(
    reader: &mut Reader<'_>,
    own: Option<&OwnKey>,
    deployments: &[ReadDeployment],
) -> RotationSettings {
    let next = keys::private(reader, NEXT_KEY);
    if let Some(next) = &next {
        let public = next.key.verifying_key();
        if own.is_some_and(|own| own.key.verifying_key() == public) {
            let message = "the next key is the current key; a rotation would change nothing";
            reader.report(Code::Cs0204, &next.at, message, keys::discard(&next.at));
        }
        let mut keys = deployments.iter().flat_map(|deployment| &deployment.keys);
        if let Some(key) = keys.find(|key| key.trusted.key == *public) {
            let message = format!("the next key is a peer's, at {}", key.at.origin());
            reader.report(Code::Cs0207, &next.at, message, keys::discard(&next.at));
        }
    }
    let activated_at = reader.parsed(ACTIVATED_AT, &[], |text| {
        from_rfc3339(text).ok_or("is not a time such as `2026-01-31T12:00:00Z`")
    });
    let previous = reader.named(PREVIOUS, &[], "a fingerprint", |text| {
        let keys = text.split(',').map(|key| key.trim().parse());
        keys.collect::<Result<Vec<Fingerprint>, _>>()
    });
    RotationSettings {
        next: next.map(|next| (next.key, next.key_id)),
        activated_at: activated_at.map(|(time, _)| time),
        previous: previous.map(|(keys, _)| keys).unwrap_or_default(),
    }
}
