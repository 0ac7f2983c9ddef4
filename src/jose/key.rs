//! ES256 keys: a private one that signs, a public one that verifies.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::pkcs8::der::pem::encode_string;
use p256::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    LineEnding,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::KeyError;
use super::fingerprint::Fingerprint;
use crate::secret::Secret;

/// Bytes of an ES256 signature: r and s, 32 each ([RFC 7518, 3.4]).
///
/// [RFC 7518, 3.4]: https://www.rfc-editor.org/rfc/rfc7518#section-3.4
const SIGNATURE_BYTES: usize = 64;

/// A private P-256 key.
///
/// Cloning is cheap. The private bytes are wiped when the last clone is dropped; `Debug` shows the
/// fingerprint only. Whichever way it was made, it has proved itself once: it signed, verified,
/// and refused an altered signature.
#[derive(Clone)]
pub struct SigningKey {
    private: Arc<Private>,
    made_at: Option<SystemTime>,
}

struct Private {
    secret: p256::SecretKey,
    encoding: EncodingKey,
    public: VerifyingKey,
}

impl SigningKey {
    /// Makes a new key from the operating system's random numbers.
    ///
    /// # Errors
    ///
    /// When the operating system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let secret = p256::SecretKey::try_generate().map_err(|_cause| KeyError::Random)?;
        Self::from_secret(secret)
    }

    /// Reads PKCS#8 DER ([RFC 5958]).
    ///
    /// # Errors
    ///
    /// When `der` is no P-256 key.
    ///
    /// [RFC 5958]: https://www.rfc-editor.org/rfc/rfc5958
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let secret = p256::SecretKey::from_pkcs8_der(der).map_err(|_cause| KeyError::Der)?;
        Self::from_secret(secret)
    }

    /// Reads SEC1 DER, `ECPrivateKey` ([RFC 5915]).
    ///
    /// # Errors
    ///
    /// When `der` is no P-256 key.
    ///
    /// [RFC 5915]: https://www.rfc-editor.org/rfc/rfc5915
    pub fn from_sec1_der(der: &[u8]) -> Result<Self, KeyError> {
        let secret = p256::SecretKey::from_sec1_der(der).map_err(|_cause| KeyError::Der)?;
        Self::from_secret(secret)
    }

    /// Takes the 32 bytes of a JWK's `d`; `None` when they are zero or not below the order.
    pub(super) fn from_scalar(d: &[u8; 32]) -> Option<Result<Self, KeyError>> {
        let secret = p256::SecretKey::from_slice(d).ok()?;
        Some(Self::from_secret(secret))
    }

    fn from_secret(secret: p256::SecretKey) -> Result<Self, KeyError> {
        let public = VerifyingKey::from_public(secret.public_key())?;
        let der = secret.to_pkcs8_der().map_err(|_cause| KeyError::Encode)?;
        let encoding = EncodingKey::from_ec_der(der.as_bytes());
        let private = Private {
            secret,
            encoding,
            public,
        };
        let key = Self {
            private: Arc::new(private),
            made_at: None,
        };
        key.prove()?;
        Ok(key)
    }

    /// Sets when the key was made; a JWK has it in whole seconds, PEM and DER do not.
    #[must_use]
    pub fn with_made_at(self, made_at: SystemTime) -> Self {
        let made_at = Some(made_at);
        Self { made_at, ..self }
    }

    /// Returns when the key was made, as its file says; `None` if that is unknown.
    pub fn made_at(&self) -> Option<SystemTime> {
        self.made_at
    }

    /// Signs, verifies, and sees an altered signature refused.
    fn prove(&self) -> Result<(), KeyError> {
        const MESSAGE: &[u8] = b"countersign self-test";
        let mut signature = self.sign(MESSAGE)?;
        let accepted = self.verifying_key().verify(MESSAGE, &signature);
        if let Some(byte) = signature.last_mut() {
            *byte ^= 1;
        }
        let altered = self.verifying_key().verify(MESSAGE, &signature);
        if accepted && !altered {
            Ok(())
        } else {
            Err(KeyError::SelfTest)
        }
    }

    /// Signs `message` with ES256.
    ///
    /// # Errors
    ///
    /// When the signing library fails, which it does only without random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], KeyError> {
        let signer = (DEFAULT_PROVIDER.signer_factory)(&Algorithm::ES256, &self.private.encoding)
            .map_err(|_cause| KeyError::Sign)?;
        let signature = signer.try_sign(message).map_err(|_cause| KeyError::Sign)?;
        signature.try_into().map_err(|_bytes| KeyError::Sign)
    }

    /// Returns the public half.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.private.public
    }

    /// Returns the public half's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.private.public.fingerprint()
    }

    /// Returns the 32 bytes of `d`.
    pub(super) fn scalar(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.private.secret.to_bytes().into())
    }

    /// Writes PKCS#8 DER.
    pub fn to_pkcs8_der(&self) -> Secret<Vec<u8>> {
        Secret::new(self.private.encoding.as_bytes().to_vec())
    }

    /// Writes PKCS#8 PEM, `PRIVATE KEY`.
    ///
    /// # Errors
    ///
    /// When the key cannot be encoded, which no P-256 key causes.
    pub fn to_pkcs8_pem(&self) -> Result<Secret<String>, KeyError> {
        let pem = self.private.secret.to_pkcs8_pem(LineEnding::LF);
        let text = pem.map(|pem| Secret::new(String::clone(&pem)));
        text.map_err(|_cause| KeyError::Encode)
    }

    /// Writes SEC1 DER.
    ///
    /// # Errors
    ///
    /// When the key cannot be encoded, which no P-256 key causes.
    pub fn to_sec1_der(&self) -> Result<Secret<Vec<u8>>, KeyError> {
        let der = self.private.secret.to_sec1_der();
        let bytes = der.map(|der| Secret::new(Vec::clone(&der)));
        bytes.map_err(|_cause| KeyError::Encode)
    }

    /// Writes SEC1 PEM, `EC PRIVATE KEY`, as `openssl ecparam -genkey -noout` does.
    ///
    /// # Errors
    ///
    /// When the key cannot be encoded, which no P-256 key causes.
    pub fn to_sec1_pem(&self) -> Result<Secret<String>, KeyError> {
        let pem = self.private.secret.to_sec1_pem(LineEnding::LF);
        let text = pem.map(|pem| Secret::new(String::clone(&pem)));
        text.map_err(|_cause| KeyError::Encode)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.fingerprint())
    }
}

/// A public P-256 key: a point of the curve that was checked to be one.
///
/// Cloning is cheap. Two keys are equal when their points are.
#[derive(Clone)]
pub struct VerifyingKey(Arc<Public>);

struct Public {
    /// SEC1 uncompressed: 4, x, y.
    point: [u8; 65],
    spki: Vec<u8>,
    decoding: DecodingKey,
    fingerprint: Fingerprint,
}

impl VerifyingKey {
    /// Reads DER `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    ///
    /// When `der` is no P-256 key.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let key = p256::PublicKey::from_public_key_der(der).map_err(|_cause| KeyError::Der)?;
        Self::from_public(key)
    }

    /// Takes coordinates; `None` when they are no point of the curve.
    pub(super) fn from_coordinates(x: &[u8; 32], y: &[u8; 32]) -> Option<Result<Self, KeyError>> {
        let point = [&[4], x.as_slice(), y.as_slice()].concat();
        let key = p256::PublicKey::from_sec1_bytes(&point).ok()?;
        Some(Self::from_public(key))
    }

    /// Returns the public half of a JWK's `d`; `None` when that is zero or not below the order.
    pub(crate) fn of_scalar(d: &[u8; 32]) -> Option<Self> {
        let secret = p256::SecretKey::from_slice(d).ok()?;
        Self::from_public(secret.public_key()).ok()
    }

    fn from_public(key: p256::PublicKey) -> Result<Self, KeyError> {
        let spki = key.to_public_key_der().map_err(|_cause| KeyError::Encode)?;
        let point: [u8; 65] = key
            .to_sec1_point(false)
            .as_bytes()
            .try_into()
            .map_err(|_cause| KeyError::Encode)?;
        Ok(Self(Arc::new(Public {
            decoding: DecodingKey::from_ec_der(&point),
            fingerprint: Fingerprint::of_spki(spki.as_bytes()),
            spki: spki.into_vec(),
            point,
        })))
    }

    /// Returns `true` if `signature` is this key's ES256 signature of `message`.
    ///
    /// Checks: 64 bytes, r and s in range, the equation. High and low `s` are both accepted.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        if signature.len() != SIGNATURE_BYTES {
            return false;
        }
        #[cfg(test)]
        super::checks::count();
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&Algorithm::ES256, &self.0.decoding);
        verifier.is_ok_and(|verifier| verifier.verify(message, &signature.to_vec()).is_ok())
    }

    /// Returns the fingerprint, which was computed when the key was made.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// Returns the other name of this key: the [RFC 7638] thumbprint, 43 characters.
    ///
    /// [RFC 7638]: https://www.rfc-editor.org/rfc/rfc7638
    pub fn thumbprint(&self) -> String {
        let (x, y) = (self.x(), self.y());
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(members))
    }

    /// Returns the JWK member `x`.
    pub fn x(&self) -> String {
        self.coordinate(1..33)
    }

    /// Returns the JWK member `y`.
    pub fn y(&self) -> String {
        self.coordinate(33..65)
    }

    fn coordinate(&self, range: std::ops::Range<usize>) -> String {
        let bytes = self.0.point.get(range).unwrap_or_default();
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Writes DER `SubjectPublicKeyInfo`, 91 bytes.
    pub fn to_spki_der(&self) -> &[u8] {
        &self.0.spki
    }

    /// Writes PEM, `PUBLIC KEY`.
    pub fn to_spki_pem(&self) -> String {
        // Neither the label nor the length can be wrong.
        encode_string("PUBLIC KEY", LineEnding::LF, &self.0.spki).unwrap_or_default()
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.point == other.0.point
    }
}

impl Eq for VerifyingKey {}

impl Hash for VerifyingKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.point.hash(state);
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests;
