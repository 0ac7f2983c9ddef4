//! CS0308: the module's own certificates that peers refuse, or soon will, unless they pin them.

use crate::clock::{Clock as _, SystemClock};
use crate::config::inspect::Inspected;
use crate::config::schema::TlsEnd;
use crate::diagnostic::{Code, Finding, Severity};
use crate::grpc::tls::Shown;
use crate::jose::Fingerprint;

/// Checks the certificates of `files`; no finding is more severe than `most`.
pub fn check(files: &[Inspected], most: Severity) -> Vec<Finding> {
    let now = SystemClock.now();
    let mut all = Vec::new();
    for file in files {
        for (end, own, at) in file.options.tls.own() {
            // One that cannot be read is CS0306.
            let judged = own.judge(now, end == TlsEnd::Server);
            let (shown, severity, why) = match judged {
                Ok((shown, Some(fault))) => (shown, Severity::Error, fault),
                Ok((shown, None)) if shown.days_left(now) < Shown::SOON => {
                    (shown, Severity::Warning, "it must be renewed soon")
                }
                _ => continue,
            };
            let (key, validity) = (shown.fingerprint, shown.validity(now));
            let message = format!("the certificate in {}: {why} ({validity})", own.cert_chain);
            let help = format!(
                "peers refuse it unless they pin it: make another, as `countersign explain CS0308` shows, or write at every peer `countersign.deployments.<this module>.tls-keys.key.fingerprint={key}`"
            );
            let most_here = if is_pinned(file, files, key) {
                Severity::Note
            } else {
                most
            };
            let found = file.report(Code::Cs0308, at, message, help);
            all.push(found.with_severity(severity.min(most_here)));
        }
    }
    all
}

/// Returns `true` if every peer among `files` pins the certificate of `file` with this `key`;
/// without a peer, if `file` pins every peer's: `pair --tls` pins both.
fn is_pinned(file: &Inspected, files: &[Inspected], key: Fingerprint) -> bool {
    let own = file.own.as_ref();
    let peers: Vec<_> = files
        .iter()
        .filter_map(|other| other.trusted(own?))
        .collect();
    if peers.is_empty() {
        let known = &file.deployments;
        return !known.is_empty() && known.iter().all(|peer| !peer.pins.is_empty());
    }
    let mut pins = peers.iter().map(|(known, _)| known.pins.iter());
    pins.all(|mut pins| pins.any(|(pin, _)| *pin == key))
}
