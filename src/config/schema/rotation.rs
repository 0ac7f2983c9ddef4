//! Where `rotate` keeps how far it is.

use super::{Setting, Takes};

pub(super) const ROTATION: &[Setting] = &[
    Setting::new(
        "countersign.rotation.next-key",
        Takes::PrivateKey,
        "the next private key until it signs",
    ),
    Setting::new(
        "countersign.rotation.activated-at",
        Takes::Text,
        "since when the own key signs, until the one before it is revoked",
    ),
    Setting::new(
        "countersign.rotation.previous-fingerprint",
        Takes::Text,
        "the key that signed before, until it is revoked",
    ),
];
