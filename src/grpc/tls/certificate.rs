//! The certificate that one side shows in a handshake: until when it is valid, and why a peer that
//! does not pin it would refuse it. webpki answers both, as it does in the handshake.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

use super::pins::certificate_fingerprint;
use super::words;
use crate::clock::seconds_after;
use crate::jose::Fingerprint;

/// A certificate in short.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shown {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) not_after: SystemTime,
}

/// The start of the year 10000: every certificate has expired.
const END: Duration = Duration::from_secs(253_402_300_800);

impl Shown {
    /// With fewer days left, a certificate is to be renewed.
    pub(crate) const SOON: i64 = 30;

    /// Reads the certificate that is the first of `chain`.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Result<Self, &'static str> {
        let first = chain.first().ok_or("no certificate was presented")?;
        let seconds = match fault_at(first, END, KeyUsage::client_auth()) {
            Some(Error::CertExpired { not_after, .. }) => not_after.as_secs(),
            _ => 0,
        };
        Ok(Self {
            fingerprint: certificate_fingerprint(first).map_err(|error| words::of(&error))?,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        })
    }

    /// Returns the whole days that are left at `now`; negative once it has expired.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "no certificate outlives the year 9999"
    )]
    pub(crate) fn days_left(self, now: SystemTime) -> i64 {
        (seconds_after(self.not_after, now) / 86_400.0).floor() as i64
    }

    /// Says when it expires or expired, seen from `now`.
    pub(crate) fn validity(self, now: SystemTime) -> String {
        let left = self.days_left(now);
        let days = if left.abs() == 1 { "day" } else { "days" };
        match left {
            36_500.. => "does not expire".to_owned(),
            0.. => format!("expires in {left} {days}"),
            _ => format!("expired {} {days} ago", left.unsigned_abs()),
        }
    }
}

/// Returns why a peer that trusts the authority of `chain` would refuse it at `now`: as a server's
/// that `serves`, or as a client's.
pub(super) fn fault(
    chain: &[CertificateDer<'_>],
    now: SystemTime,
    serves: bool,
) -> Option<&'static str> {
    let first = chain.first()?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let usage = if serves {
        KeyUsage::server_auth()
    } else {
        KeyUsage::client_auth()
    };
    let certificate = EndEntityCert::try_from(first).ok()?;
    let host = ServerName::try_from("countersign.invalid").ok()?;
    let named = certificate.verify_is_valid_for_subject_name(&host);
    match (fault_at(first, since, usage), named) {
        (Some(error), _) => Some(words::of_webpki(&error)),
        (None, Err(Error::CertNotValidForName(found))) if serves && found.presented.is_empty() => {
            Some("it names no host (subjectAltName)")
        }
        _ => None,
    }
}

/// Judges a certificate by itself: webpki does so before it looks for the authority.
fn fault_at(der: &CertificateDer<'_>, at: Duration, usage: KeyUsage) -> Option<Error> {
    let certificate = EndEntityCert::try_from(der).ok()?;
    let time = UnixTime::since_unix_epoch(at);
    let judged = certificate.verify_for_usage(&[], &[], &[], time, usage, None, None);
    judged.err().filter(|error| *error != Error::UnknownIssuer)
}
