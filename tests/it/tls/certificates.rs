//! Certificates made for one test.

use std::fs;
use std::path::PathBuf;

use countersign::grpc::tls::{ClientAuth, ClientTlsOptions, OwnFiles, PemFile, ServerTlsOptions};
use countersign::jose::Fingerprint;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PublicKeyData as _, date_time_ymd,
};
use tempfile::TempDir;

/// A certificate and its key.
pub(crate) struct Pem {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) fingerprint: Fingerprint,
}

/// How long a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    Now,
    Over,
    NotYet,
}

fn params(names: &[&str], validity: Validity) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let (from, to) = match validity {
        Validity::Now => (2020, 4000),
        Validity::Over => (2020, 2021),
        Validity::NotYet => (3999, 4000),
    };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}

/// Makes a certificate that vouches for itself.
pub(crate) fn self_signed(names: &[&str]) -> Pem {
    self_signed_for(names, Validity::Now)
}

pub(crate) fn self_signed_for(names: &[&str], validity: Validity) -> Pem {
    let key = KeyPair::generate().unwrap();
    let certificate = params(names, validity).self_signed(&key).unwrap();
    Pem {
        fingerprint: Fingerprint::of_spki(&key.subject_public_key_info()),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&[], Validity::Now);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(crate) fn issue(&self, names: &[&str], validity: Validity) -> Pem {
        self.sign(&params(names, validity))
    }

    /// Issues a certificate that may issue others, as `openssl req -x509` makes by default.
    pub(crate) fn issue_authority(&self, names: &[&str]) -> Pem {
        let mut params = params(names, Validity::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.sign(&params)
    }

    /// Issues a certificate that no server may show.
    pub(crate) fn issue_for_clients(&self, names: &[&str]) -> Pem {
        let mut params = params(names, Validity::Now);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pem {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pem {
            fingerprint: Fingerprint::of_spki(&key.subject_public_key_info()),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A folder for PEM files.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Makes a folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Puts a file in place of another, as tools that renew certificates do.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let new = self.write("new", text);
        fs::rename(new, self.0.path().join(name)).unwrap();
    }

    pub(crate) fn pem(&self, name: &str, text: &str, setting: &str) -> PemFile {
        PemFile::new(self.write(name, text), setting)
    }

    pub(crate) fn own(&self, name: &str, pem: &Pem, settings: &str) -> OwnFiles {
        let cert_chain = format!("{settings}.cert-chain");
        let private_key = format!("{settings}.private-key");
        OwnFiles::new(
            self.pem(&format!("{name}.pem"), &pem.certificate, &cert_chain),
            self.pem(&format!("{name}-key.pem"), &pem.key, &private_key),
        )
    }

    pub(crate) fn server(
        &self,
        name: &str,
        pem: &Pem,
        client_auth: Option<ClientAuth>,
        trust: Option<&str>,
    ) -> ServerTlsOptions {
        let mut options = ServerTlsOptions::new(self.own(name, pem, SERVER), SERVER);
        options.client_auth = client_auth;
        options.trust = trust.map(|trust| {
            let setting = format!("{SERVER}.trust-cert-collection");
            self.pem(&format!("{name}-trust.pem"), trust, &setting)
        });
        options
    }

    pub(crate) fn client(
        &self,
        name: &str,
        pem: Option<&Pem>,
        trust: Option<&str>,
    ) -> ClientTlsOptions {
        let mut options = ClientTlsOptions::new(CLIENT);
        options.own = pem.map(|pem| self.own(name, pem, CLIENT));
        options.trust = trust.map(|trust| {
            let setting = format!("{CLIENT}.trust-cert-collection");
            self.pem(&format!("{name}-client-trust.pem"), trust, &setting)
        });
        options
    }
}

pub(crate) const SERVER: &str = "ataccama.server.grpc.tls";
pub(crate) const CLIENT: &str = "ataccama.client.connection.dpm.grpc.tls";
