//! What the TLS libraries report, in words: they themselves print the names of their types.

use rustls::{AlertDescription, CertificateError, Error, OtherError};

/// Covers what a later version of the libraries adds.
const UNKNOWN: &str = "the reason is unknown to this version";
const PURPOSE: &str = "its extended key usage does not include this use";

/// Says why TLS failed.
pub(crate) fn of(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::InconsistentKeys(_) => "the private key does not belong to the certificate",
        Error::DecryptError => "a message was changed on the way",
        Error::General(_) | Error::Other(_) => UNKNOWN,
        _ => "the two sides do not follow the same rules of TLS",
    }
}

/// Says why a certificate is refused.
pub(super) fn of_certificate(error: &CertificateError) -> &'static str {
    use CertificateError as E;

    match error {
        E::BadEncoding => "it is not a valid X.509 certificate",
        E::BadSignature => "a signature does not verify",
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => PURPOSE,
        E::UnsupportedSignatureAlgorithmContext { .. } => "its algorithm is not supported",
        E::Other(OtherError(other)) => other.downcast_ref().map_or(UNKNOWN, of_webpki),
        _ => UNKNOWN,
    }
}

/// Says what is wrong with a certificate itself.
pub(super) fn of_webpki(error: &webpki::Error) -> &'static str {
    use webpki::Error as E;

    match error {
        E::CaUsedAsEndEntity => "it is the certificate of an authority (CA:TRUE)",
        E::CertExpired { .. } | E::InvalidCertValidity => "it has expired",
        E::CertNotValidYet { .. } => "it is not valid yet",
        E::EmptyEkuExtension | E::RequiredEkuNotFoundContext(_) => PURPOSE,
        E::UnsupportedCertVersion => "it is not an X.509 certificate of version 3",
        _ => "it is not a valid X.509 certificate, or its authority may not issue it",
    }
}

/// Says why the other side ended the handshake.
pub(super) fn of_alert(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnknownCA => "it does not trust the authority",
        AlertDescription::CertificateExpired => "it has expired or is not valid yet",
        AlertDescription::UnsupportedCertificate => "it is not for this use",
        AlertDescription::HandshakeFailure => "the two sides have no algorithm in common",
        AlertDescription::InternalError => "it has an internal fault",
        _ => "it does not accept what this side sent",
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use regex::Regex;
    use rustls::{InconsistentKeys, InvalidMessage, PeerIncompatible, PeerMisbehaved};

    use super::*;
    use crate::grpc::tls::{ClientFailure, ServerFailure};

    fn certificate_errors() -> Vec<CertificateError> {
        let other = |error: webpki::Error| CertificateError::Other(OtherError(Arc::new(error)));
        vec![
            CertificateError::BadEncoding,
            CertificateError::Expired,
            CertificateError::NotValidYet,
            CertificateError::Revoked,
            CertificateError::UnhandledCriticalExtension,
            CertificateError::UnknownIssuer,
            CertificateError::UnknownRevocationStatus,
            CertificateError::ExpiredRevocationList,
            CertificateError::BadSignature,
            CertificateError::NotValidForName,
            CertificateError::InvalidPurpose,
            CertificateError::InvalidOcspResponse,
            CertificateError::ApplicationVerificationFailure,
            other(webpki::Error::BadDer),
            other(webpki::Error::CaUsedAsEndEntity),
            other(webpki::Error::CertDistrusted),
            other(webpki::Error::EmptyEkuExtension),
            other(webpki::Error::EndEntityUsedAsCa),
            other(webpki::Error::InvalidCertValidity),
            other(webpki::Error::MaximumPathDepthExceeded),
            other(webpki::Error::NameConstraintViolation),
            other(webpki::Error::UnsupportedCertVersion),
            other(webpki::Error::UnsupportedCriticalExtension),
            CertificateError::Other(OtherError(Arc::new(io::Error::other("SomeDebugWord")))),
        ]
    }

    fn errors() -> Vec<Error> {
        let mut all = vec![
            Error::InappropriateMessage {
                expect_types: Vec::new(),
                got_type: rustls::ContentType::Alert,
            },
            Error::InvalidMessage(InvalidMessage::MessageTooShort),
            Error::NoCertificatesPresented,
            Error::UnsupportedNameType,
            Error::DecryptError,
            Error::EncryptError,
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedKxGroup),
            Error::General("SomeDebugWord".to_owned()),
            Error::FailedToGetCurrentTime,
            Error::FailedToGetRandomBytes,
            Error::HandshakeNotComplete,
            Error::PeerSentOversizedRecord,
            Error::NoApplicationProtocol,
            Error::BadMaxFragmentSize,
            Error::InconsistentKeys(InconsistentKeys::Unknown),
            Error::Other(OtherError(Arc::new(io::Error::other("SomeDebugWord")))),
        ];
        all.extend((0..=u8::MAX).map(|alert| Error::AlertReceived(alert.into())));
        all.extend(certificate_errors().into_iter().map(Error::from));
        all
    }

    #[test]
    fn every_error_of_rustls_has_words() {
        // A name of a type: `CaUsedAsEndEntity`, `Other(OtherError(`.
        let library = Regex::new("[a-z][A-Z][a-z]|UnknownCA|Other|Error").unwrap();
        for error in errors() {
            let text = format!("{error:?}");
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            let client = ClientFailure::of(&error, "a.tls");
            let said = [
                client.to_string(),
                client.in_full(),
                client.in_own_words(),
                ServerFailure::of(&error).to_string(),
            ];
            for said in said {
                assert!(!library.is_match(&said), "{text}: {said}");
                assert!(!said.is_empty() && !said.contains('"'), "{text}: {said}");
            }
        }
    }
}
