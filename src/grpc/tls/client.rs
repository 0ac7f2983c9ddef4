//! The client's side of TLS.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ALL_VERSIONS, ClientConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{Content, Own, list, parse};
use super::live::{Live, TlsFiles};
use super::pins::{Callee, PinnedServer};
use super::{
    ALPN, ClientFailure, ONLY_TLS13, OwnFiles, PemFile, ServerTlsOptions, TlsError, provider,
};
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;
use crate::trust::TrustStore;

/// The parts of a client's TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClientTlsOptions {
    /// The certificate that the client presents if the server requests one.
    pub own: Option<OwnFiles>,
    /// The authorities whose server certificates are accepted, for callees without a pin.
    pub trust: Option<PemFile>,
    /// The common start of the settings, such as `ataccama.client.connection.dpm.grpc.tls`, for
    /// messages.
    pub settings: String,
}

impl ClientTlsOptions {
    /// Returns a client without certificate and authorities, for callees with a pin.
    pub fn new(settings: &str) -> Self {
        Self {
            own: None,
            trust: None,
            settings: settings.to_owned(),
        }
    }
}

/// A client's TLS, which follows the current pins, and its files when the module reads them again.
/// Cloning is cheap.
///
/// For a callee with a pin only the pin counts, and only TLS 1.3 is used: no authority
/// and no name is asked. Any other callee must show a certificate of its name by one of the
/// configured authorities. The system's own authorities are never asked, and nothing is resumed.
#[derive(Clone, Debug)]
pub struct ClientTls {
    source: Arc<Source>,
    callee: Callee,
}

#[derive(Debug)]
struct Source {
    material: Live<Material>,
    trust: Arc<TrustStore>,
    settings: String,
}

type Versions = &'static [&'static SupportedProtocolVersion];

#[derive(Debug)]
struct Material {
    own: Option<Own>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
}

impl ClientTls {
    /// Reads the files of `options` and adds them to `all`, which a reload reads again. The pins
    /// are those in `trust`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used.
    pub(crate) fn load(
        options: ClientTlsOptions,
        trust: Arc<TrustStore>,
        all: &TlsFiles,
    ) -> Result<Self, TlsError> {
        let files = list(options.own.as_ref(), options.trust.as_ref());
        let settings = options.settings.clone();
        let material = Live::new(all, files, move |all| Material::make(&options, all))?;
        let source = Source {
            material,
            trust,
            settings,
        };
        Ok(Self {
            source: Arc::new(source),
            callee: Callee::Anyone,
        })
    }

    /// Reads what a module needs to call its own server: it shows the server's own certificate, and
    /// accepts no other.
    ///
    /// # Errors
    ///
    /// As [`ClientTls::load`].
    pub(crate) fn own_module(
        options: ServerTlsOptions,
        trust: Arc<TrustStore>,
        all: &TlsFiles,
    ) -> Result<Self, TlsError> {
        let options = ClientTlsOptions {
            own: Some(options.own),
            trust: None,
            settings: options.settings,
        };
        let callee = Callee::OwnModule;
        Self::load(options, trust, all).map(|tls| Self { callee, ..tls })
    }

    /// Returns the same for calls of the deployment `name`: only its pins count, if it has any.
    #[must_use]
    pub fn towards(&self, name: &DeploymentName) -> Self {
        Self {
            source: Arc::clone(&self.source),
            callee: Callee::Deployment(name.clone()),
        }
    }

    /// Returns what the next connection is made with.
    ///
    /// # Errors
    ///
    /// When the callee has no pin and no authority is configured.
    pub(crate) fn current(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let material = self.source.material.current();
        let (verifier, versions) = self.verifier(&material)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(TlsError::internal)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &material.own {
            Some(own) => {
                let own = SingleCertAndKey::from(Arc::clone(&own.key));
                builder.with_client_cert_resolver(Arc::new(own))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn verifier(
        &self,
        material: &Material,
    ) -> Result<(Arc<dyn ServerCertVerifier>, Versions), TlsError> {
        let own = material.own.as_ref().map(|own| own.shown.fingerprint);
        let keys = self.callee.keys(own, &self.source.trust.current());
        if !keys.is_empty() {
            let pinned = PinnedServer {
                trust: Arc::clone(&self.source.trust),
                callee: self.callee.clone(),
                own,
            };
            return Ok((Arc::new(pinned), ONLY_TLS13));
        }
        match &material.authorities {
            Some(authorities) => Ok((Arc::clone(authorities) as _, ALL_VERSIONS)),
            None => Err(TlsError::nothing_trusted(
                &self.callee.to_string(),
                &self.source.settings,
            )),
        }
    }

    /// Returns what a connection that is made now is made with.
    pub(crate) fn made(&self) -> Made {
        Made {
            source: Arc::clone(&self.source),
            material: self.source.material.current(),
        }
    }

    /// Returns `true` if the callee's certificate is pinned now.
    pub(crate) fn is_pinned(&self) -> bool {
        let trust = self.source.trust.current();
        !self.callee.keys(None, &trust).is_empty()
    }

    /// Completes when the callee's certificate, whose key is `shown`, would no longer be accepted:
    /// its pin was removed, or pins were added where none decided before.
    pub(crate) fn repinned(
        &self,
        was_pinned: bool,
        shown: Option<Fingerprint>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let Self { source, callee } = self.clone();
        let mut changes = source.trust.subscribe();
        async move {
            loop {
                let keys = callee.keys(None, &source.trust.current());
                let still = match shown {
                    Some(shown) if was_pinned => keys.contains(&shown),
                    _ => keys.is_empty() != was_pinned,
                };
                if !still || changes.changed().await.is_err() {
                    break;
                }
            }
        }
    }

    /// Shakes hands with `host` over `stream`.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>, ClientFailure> {
        let config = self.current()?;
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_invalid| ClientFailure::Name(host.to_owned()))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(|error| ClientFailure::of(&error, &self.source.settings))?;
        match stream.get_ref().1.alpn_protocol() {
            Some(ALPN) => Ok(stream),
            _ => Err(ClientFailure::NotHttp2),
        }
    }

    /// Says why a read or write after the handshake failed, if TLS is the cause.
    pub(crate) fn explain_later(&self, error: &std::io::Error) -> Option<ClientFailure> {
        ClientFailure::of_tls(error, &self.source.settings)
    }
}

/// The certificate and the authorities that a connection is made with.
#[derive(Debug)]
pub(crate) struct Made {
    source: Arc<Source>,
    material: Arc<Material>,
}

impl Made {
    /// Returns `true` unless the files were read again since.
    pub(crate) fn is_current(&self) -> bool {
        Arc::ptr_eq(&self.material, &self.source.material.current())
    }
}

impl Material {
    fn make(options: &ClientTlsOptions, contents: &[Content]) -> Result<Self, TlsError> {
        let (own, roots) = parse(options.own.as_ref(), options.trust.as_ref(), contents)?;
        let authorities = roots.map(|roots| {
            let built = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
            built.map_err(TlsError::internal)
        });
        Ok(Self {
            own,
            authorities: authorities.transpose()?,
        })
    }
}
