//! Trust by fingerprint: only the key in a certificate decides, not who signed it, for which name
//! or until when.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};

use super::provider;
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;
use crate::trust::{KeySet, TrustStore};

/// Computes the fingerprint of the public key in a DER certificate.
///
/// # Errors
///
/// When `der` is no X.509 v3 certificate.
pub fn certificate_fingerprint(der: &[u8]) -> Result<Fingerprint, Error> {
    let der = CertificateDer::from(der);
    let certificate = ParsedCertificate::try_from(&der)?;
    Ok(Fingerprint::of_spki(&certificate.subject_public_key_info()))
}

/// Who is called.
#[derive(Clone, Debug)]
pub(super) enum Callee {
    Anyone,
    Deployment(DeploymentName),
    OwnModule,
}

impl Callee {
    /// Returns the keys of which its certificate must have one: the deployment's pins, or the key
    /// of this module's `own` certificate. Empty if authorities decide.
    pub(super) fn keys(&self, own: Option<Fingerprint>, trust: &KeySet) -> Vec<Fingerprint> {
        match self {
            Self::Anyone => Vec::new(),
            Self::Deployment(name) => {
                let found = trust.deployment(name.as_str());
                found.map_or_else(Vec::new, |found| found.tls_pins.clone())
            }
            Self::OwnModule => own.into_iter().collect(),
        }
    }
}

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("the callee"),
            Self::Deployment(name) => write!(f, "deployment `{name}`"),
            Self::OwnModule => f.write_str("this module itself"),
        }
    }
}

/// A certificate with a key that is not pinned for the deployment that is meant.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the key `{fingerprint}` is not pinned for {whose}")]
pub struct NotPinned {
    /// Whose pins do not hold it.
    pub(super) whose: String,
    /// The key.
    pub(super) fingerprint: Fingerprint,
}

impl NotPinned {
    fn refuse(whose: String, fingerprint: Fingerprint) -> Error {
        let error = Arc::new(Self { whose, fingerprint });
        CertificateError::Other(OtherError(error)).into()
    }
}

/// The caller's side: accepts the certificate of the callee that is meant, and no other.
#[derive(Debug)]
pub(super) struct PinnedServer {
    pub(super) trust: Arc<TrustStore>,
    pub(super) callee: Callee,
    /// The key of this module's own certificate.
    pub(super) own: Option<Fingerprint>,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = certificate_fingerprint(end_entity)?;
        let accepted = self.callee.keys(self.own, &self.trust.current());
        if accepted.contains(&shown) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(NotPinned::refuse(self.callee.to_string(), shown))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// The callee's side: accepts the certificates that are pinned for any trusted deployment, and its
/// own, with which its operator calls. `otherwise` may accept more, by authority.
#[derive(Debug)]
pub(super) struct PinnedClients {
    pub(super) trust: Arc<TrustStore>,
    pub(super) own: Fingerprint,
    pub(super) otherwise: Option<Arc<dyn ClientCertVerifier>>,
    pub(super) mandatory: bool,
}

impl ClientCertVerifier for PinnedClients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A hint would keep callers with a self-signed certificate from showing it.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let shown = certificate_fingerprint(end_entity)?;
        if shown == self.own || self.trust.current().pin_owner(shown).is_some() {
            return Ok(ClientCertVerified::assertion());
        }
        if let Some(authority) = &self.otherwise {
            return authority.verify_client_cert(end_entity, intermediates, now);
        }
        let whose = "any trusted deployment".to_owned();
        Err(NotPinned::refuse(whose, shown))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Pins need TLS 1.3; a configuration with pins offers no other version.
fn too_old() -> Error {
    PeerIncompatible::Tls12NotOfferedOrEnabled.into()
}
