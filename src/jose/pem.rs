//! PEM ([RFC 7468]), read with patience: what stands around the blocks and how lines are broken
//! does not matter.
//!
//! [RFC 7468]: https://www.rfc-editor.org/rfc/rfc7468

use base64::decoded_len_estimate;
use base64::engine::GeneralPurpose;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use zeroize::Zeroizing;

/// One block: its label and the text between its lines.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    body: &'a str,
}

impl Block<'_> {
    /// Returns `true` if the body is encrypted the old way ([RFC 1421] headers).
    ///
    /// [RFC 1421]: https://www.rfc-editor.org/rfc/rfc1421
    pub(super) fn is_encrypted(&self) -> bool {
        self.label.starts_with("ENCRYPTED") || self.body.contains("ENCRYPTED")
    }

    /// Decodes the body.
    pub(super) fn der(&self) -> Option<Zeroizing<Vec<u8>>> {
        let mut text = Zeroizing::new(Vec::with_capacity(self.body.len()));
        text.extend(self.body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
        decoded(&BASE64_STANDARD, &text)
    }
}

/// Decodes `text` without leaving a part of it in freed memory, as a buffer does that grows.
pub(super) fn decoded(base64: &GeneralPurpose, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; decoded_len_estimate(text.len())]);
    let length = base64.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// Finds the blocks of `text`; a block without its end line is given an empty body.
pub(super) fn blocks(text: &str) -> Vec<Block<'_>> {
    const BEGIN: &str = "-----BEGIN ";
    const DASHES: &str = "-----";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let Some((label, after)) = after.split_once(DASHES) else {
            break;
        };
        let end = format!("-----END {label}{DASHES}");
        let (body, after) = after.split_once(&end).unwrap_or(("", after));
        found.push(Block { label, body });
        rest = after;
    }
    found
}
