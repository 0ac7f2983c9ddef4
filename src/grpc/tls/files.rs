//! PEM files and what they must hold.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use webpki::{EndEntityCert, KeyUsage};
use zeroize::{Zeroize as _, Zeroizing};

use super::pins::certificate_fingerprint;
use super::{PemFile, TlsError, words};
use crate::clock::seconds_after;
use crate::files;
use crate::jose::Fingerprint;

/// A certificate chain, the own certificate first, and the private key of the first.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct OwnFiles {
    /// The certificates.
    pub cert_chain: PemFile,
    /// The key: PKCS#8, SEC1 or PKCS#1, not encrypted. May be the same file.
    pub private_key: PemFile,
}

impl OwnFiles {
    /// Returns the files of one certificate.
    pub fn new(cert_chain: PemFile, private_key: PemFile) -> Self {
        Self {
            cert_chain,
            private_key,
        }
    }

    /// Reads and checks both files; returns the fingerprint of the certificate's key, which is what
    /// peers pin.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, holds something else, or the two do not belong together.
    pub fn check(&self) -> Result<Fingerprint, TlsError> {
        let own = Own::parse(self, &self.cert_chain.read()?, &self.private_key.read()?)?;
        Ok(own.shown.fingerprint)
    }

    /// Reads only the certificate; returns the fingerprint of its key.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or holds no certificate.
    pub fn fingerprint(&self) -> Result<Fingerprint, TlsError> {
        let chain = certificates(&self.cert_chain, &self.cert_chain.read()?)?;
        Ok(in_short(&self.cert_chain, &chain)?.fingerprint)
    }

    /// Returns the key that belongs to the certificate, of those in the file, as it is there.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub(crate) fn key_in_use(&self) -> Result<String, TlsError> {
        let (chain, content) = (self.cert_chain.read()?, self.private_key.read()?);
        let text = str::from_utf8(&content).unwrap_or_default();
        let mut keys = sections(text, PRIVATE_KEY);
        let own = keys.find(|key| Own::parse(self, &chain, key.as_bytes()).is_ok());
        own.map(|key| format!("{key}\n"))
            .ok_or_else(|| TlsError::of_file(&self.private_key, NO_PRIVATE_KEY))
    }

    /// Reads only the certificate, and returns why a peer that does not pin it would refuse it at
    /// `now`: as a server's that `serves`, or as a client's.
    pub(crate) fn judge(
        &self,
        now: SystemTime,
        serves: bool,
    ) -> Result<(Shown, Option<&'static str>), TlsError> {
        let chain = certificates(&self.cert_chain, &self.cert_chain.read()?)?;
        let shown = in_short(&self.cert_chain, &chain)?;
        Ok((shown, fault(&chain, now, serves)))
    }
}

/// The content of a file, wiped when dropped: it may be a private key.
pub(crate) type Content = Zeroizing<Vec<u8>>;

const MOST_BYTES: u64 = 1024 * 1024;
/// More keys of a file are not tried.
const MOST_KEYS: usize = 4;
const CUT_OFF: &str = "is not valid PEM: a section in it is cut off, or is not base64";
pub(super) const NO_CERTIFICATE: &str = "holds no PEM certificate (`-----BEGIN CERTIFICATE-----`)";
const NO_PRIVATE_KEY: &str = "holds no unencrypted PEM private key (`-----BEGIN PRIVATE KEY-----`)";
const UNUSABLE_KEY: &str = "it is not an RSA, ECDSA or Ed25519 key that TLS can use";

impl PemFile {
    /// Reads and checks a file of trusted certificates.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds no certificate that can be trusted.
    pub fn check_trusted(&self) -> Result<(), TlsError> {
        roots(self, &self.read()?).map(drop)
    }

    pub(crate) fn read(&self) -> Result<Content, TlsError> {
        let mut content = Content::default();
        files::open(&self.path)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut content))
            .map_err(|error| TlsError::Read(self.clone(), error))?;
        if u64::try_from(content.len()).unwrap_or(u64::MAX) > MOST_BYTES {
            return Err(TlsError::of_file(self, "is larger than 1 MiB"));
        }
        // Byte order marks, which editors and `cat` leave at the starts of lines: rustls passes
        // over such a line. PEM itself has none of these bytes.
        content.retain(|byte| !matches!(byte, 0xEF | 0xBB | 0xBF));
        Ok(content)
    }
}

/// Lists the files of one side's TLS, in the order in which [`parse`] takes their contents.
pub(super) fn list(own: Option<&OwnFiles>, trust: Option<&PemFile>) -> Vec<PemFile> {
    let own = own.map(|own| [own.cert_chain.clone(), own.private_key.clone()]);
    let own = own.into_iter().flatten();
    own.chain(trust.cloned()).collect()
}

/// The own certificate, and the authorities that are trusted.
type Parsed = (Option<Own>, Option<Arc<RootCertStore>>);

pub(super) fn parse(
    own: Option<&OwnFiles>,
    trust: Option<&PemFile>,
    contents: &[Content],
) -> Result<Parsed, TlsError> {
    let mut left = contents.iter().map(|content| content.as_slice());
    let certificate = own.map(|files| {
        let cert_chain = left.next().unwrap_or_default();
        Own::parse(files, cert_chain, left.next().unwrap_or_default())
    });
    let trusted = trust.map(|file| roots(file, left.next().unwrap_or_default()));
    Ok((certificate.transpose()?, trusted.transpose()?))
}

/// The own certificate with its key, ready to be shown.
pub(super) struct Own {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) shown: Shown,
}

impl Own {
    fn parse(files: &OwnFiles, cert_chain: &[u8], private_key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(&files.cert_chain, cert_chain)?;
        let shown = in_short(&files.cert_chain, &chain)?;
        let file = &files.private_key;
        let mut found = None;
        // While a certificate is replaced, the file has the keys of both.
        for read in PrivateKeyDer::pem_slice_iter(private_key).take(MOST_KEYS) {
            let tried = read.map_err(|error| not_read(file, private_key, &error));
            found = Some(tried.and_then(|der| Self::with(files, &chain, der)));
            if matches!(found, Some(Ok(_))) {
                break;
            }
        }
        let key =
            found.unwrap_or_else(|| Err(not_read(file, private_key, &pem::Error::NoItemsFound)))?;
        Ok(Self {
            key: Arc::new(key),
            shown,
        })
    }

    /// Combines `chain` with its key.
    fn with(
        files: &OwnFiles,
        chain: &[CertificateDer<'static>],
        mut der: PrivateKeyDer<'static>,
    ) -> Result<CertifiedKey, TlsError> {
        let file = &files.private_key;
        let signing = any_supported_type(&der);
        der.zeroize();
        let signing = signing.map_err(|_other| TlsError::PrivateKey(file.clone(), UNUSABLE_KEY))?;
        let key = CertifiedKey::new(chain.to_vec(), signing);
        match key.keys_match() {
            // Some keys cannot be compared.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(key),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let chain = &files.cert_chain;
                let why = format!(
                    "the private key in {file} does not belong to the first certificate in {chain}"
                );
                Err(TlsError::File(file.clone(), why))
            }
            Err(error) => Err(TlsError::PrivateKey(file.clone(), words::of(&error))),
        }
    }
}

/// Explains why no key can be read from `content`, the content of `file`.
fn not_read(file: &PemFile, content: &[u8], error: &pem::Error) -> TlsError {
    match error {
        // In the first line of one kind, in the second of the other.
        _ if content.windows(9).any(|part| part == b"ENCRYPTED") => {
            TlsError::PrivateKey(file.clone(), "it is encrypted")
        }
        pem::Error::NoItemsFound => TlsError::of_file(file, NO_PRIVATE_KEY),
        _ => TlsError::of_file(file, CUT_OFF),
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Own").field(&self.shown).finish()
    }
}

/// Reads every certificate of a file. One that begins and cannot be read is an error: rustls passes
/// over it.
fn certificates(file: &PemFile, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let all = all.map_err(|_cut_off| TlsError::of_file(file, CUT_OFF))?;
    let lines = content.split(|byte| matches!(byte, b'\n' | b'\r'));
    let begun = lines.filter(|line| begins_certificate(line)).count();
    if begun > all.len() {
        let why = format!(
            "is not valid PEM: {begun} certificates begin in it, {} can be read: each needs the line `-----BEGIN CERTIFICATE-----` with nothing before it",
            all.len()
        );
        return Err(TlsError::of_file(file, &why));
    }
    if all.is_empty() {
        return Err(TlsError::of_file(file, NO_CERTIFICATE));
    }
    Ok(all)
}

/// The end of the line with which a certificate begins in PEM.
pub(crate) const CERTIFICATE: &str = "CERTIFICATE-----";
/// The end of the line with which a private key begins.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// Iterates over the sections of a PEM `text` whose first line ends with `kind`.
pub(crate) fn sections<'a>(text: &'a str, kind: &'static str) -> impl Iterator<Item = &'a str> {
    let starts = text.match_indices("-----BEGIN ").map(|(at, _)| at);
    starts.filter_map(move |at| {
        let rest = text.get(at..)?;
        let end = rest.find("-----END ")?;
        let length = rest
            .get(end..)?
            .find('\n')
            .map_or(rest.len(), |line| end + line);
        let is_kind = rest.lines().next()?.trim_end().ends_with(kind);
        rest.get(..length).filter(|_| is_kind)
    })
}

/// Returns `true` if a certificate of any kind begins in `line`, which is no comment.
fn begins_certificate(line: &[u8]) -> bool {
    let is_mark = line.trim_ascii_end().ends_with(b"CERTIFICATE-----");
    is_mark && !line.starts_with(b"-----END") && !line.starts_with(b"#")
}

fn in_short(file: &PemFile, chain: &[CertificateDer<'_>]) -> Result<Shown, TlsError> {
    Shown::of(chain).map_err(|why| TlsError::of_certificate(file, why))
}

/// Reads a file of trusted certificates.
fn roots(file: &PemFile, content: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, content)? {
        let added = roots.add(certificate);
        added.map_err(|error| TlsError::of_certificate(file, words::of(&error)))?;
    }
    Ok(Arc::new(roots))
}

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
            Some(webpki::Error::CertExpired { not_after, .. }) => not_after.as_secs(),
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
        (None, Err(webpki::Error::CertNotValidForName(found)))
            if serves && found.presented.is_empty() =>
        {
            Some("it names no host (subjectAltName)")
        }
        _ => None,
    }
}

/// Judges a certificate by itself: webpki does so before it looks for the authority.
fn fault_at(der: &CertificateDer<'_>, at: Duration, usage: KeyUsage) -> Option<webpki::Error> {
    let certificate = EndEntityCert::try_from(der).ok()?;
    let time = UnixTime::since_unix_epoch(at);
    let judged = certificate.verify_for_usage(&[], &[], &[], time, usage, None, None);
    judged
        .err()
        .filter(|error| *error != webpki::Error::UnknownIssuer)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::grpc::cause;

    use super::*;

    const MARK: &[u8] = "\u{feff}".as_bytes();

    /// How many certificates a file with `content` holds, or why it cannot be used.
    #[expect(clippy::unwrap_in_result, reason = "what the test itself prepares")]
    fn read(content: impl AsRef<[u8]>) -> Result<usize, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain.pem");
        fs::write(&path, content).unwrap();
        let file = PemFile::new(path, "a.cert-chain");
        let read = certificates(&file, &file.read().unwrap());
        read.map(|all| all.len()).map_err(|error| cause(&error))
    }

    fn pem() -> String {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        made.cert.pem()
    }

    #[test]
    fn byte_order_marks_anywhere_between_certificates_are_removed() {
        let (first, second) = (pem(), pem());
        let with_marks = [MARK, first.as_bytes(), MARK, second.as_bytes(), MARK].concat();

        assert_eq!(read(&with_marks), Ok(2));
        assert_eq!(read(first + &second), Ok(2));
    }

    #[test]
    fn private_key_behind_a_byte_order_mark_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, [MARK, text.as_bytes()].concat()).unwrap();
            PemFile::new(path, name)
        };
        let files = OwnFiles::new(
            file("cert-chain", made.cert.pem()),
            file("private-key", made.signing_key.serialize_pem()),
        );

        assert!(files.check().is_ok());
    }

    #[test]
    fn key_of_the_certificate_is_found_among_those_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let made = [(); 3].map(|()| rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap());
        let keys = made.each_ref().map(|made| made.signing_key.serialize_pem());
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            PemFile::new(path, name)
        };
        let both = file(
            "private-key",
            &(keys[0].clone() + "\n# the next one\n" + &keys[1]),
        );
        for (n, key) in [(0, &keys[0]), (1, &keys[1])] {
            let files = OwnFiles::new(file("cert-chain", &made[n].cert.pem()), both.clone());

            files.check().unwrap();
            assert_eq!(files.key_in_use().unwrap().trim(), key.trim());
        }
        let files = OwnFiles::new(file("cert-chain", &made[2].cert.pem()), both);
        let refused = cause(&files.check().unwrap_err());
        assert!(
            refused.contains("does not belong to the first certificate"),
            "{refused}"
        );
        files.key_in_use().unwrap_err();
    }

    #[test]
    fn certificate_that_cannot_be_read_is_named_not_skipped() {
        let (first, second) = (pem(), pem());
        let other = |kind: &str| second.replace("CERTIFICATE", kind);
        let cases = [
            first.clone() + "  " + &second,
            first.clone() + "subject=a " + &second,
            first.clone() + &other("TRUSTED CERTIFICATE"),
            first.clone() + &other("X509 CERTIFICATE"),
        ];
        for content in cases {
            let error = read(&content).unwrap_err();

            let expected =
                "(`a.cert-chain`) is not valid PEM: 2 certificates begin in it, 1 can be";
            assert!(error.contains(expected), "{content}\n{error}");
        }
        // What is no certificate, and what is commented out, is passed over.
        let beside = other("CERTIFICATE REQUEST");
        let hidden = second.replace("-----BEGIN", "#-----BEGIN");
        assert_eq!(read(format!("a comment\n{first}{beside}{hidden}")), Ok(1));
    }
}
