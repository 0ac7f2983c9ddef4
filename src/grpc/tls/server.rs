//! The server's side of TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ALL_VERSIONS, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::files::{Content, NO_CERTIFICATE, Own, list, parse};
use super::live::{Live, TlsFiles};
use super::pins::PinnedClients;
use super::{ALPN, ONLY_TLS13, OwnFiles, PemFile, TlsError, provider};
use crate::trust::{KeySet, TrustStore};

/// Whether callers show a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// They are not asked for one.
    None,
    /// They are asked; who shows none is let in, who shows a wrong one is not.
    Optional,
    /// A caller without an accepted one is not let in.
    Require,
}

/// The parts of a server's TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServerTlsOptions {
    /// The server's certificate and key.
    pub own: OwnFiles,
    /// Whether callers show a certificate. Without a word: [`ClientAuth::Require`] from when any
    /// trusted deployment's certificate is pinned, as long as the server runs; before that
    /// [`ClientAuth::None`].
    pub client_auth: Option<ClientAuth>,
    /// The authorities whose client certificates are accepted, besides pinned ones.
    pub trust: Option<PemFile>,
    /// The common start of the settings, such as `ataccama.server.grpc.tls`, for messages.
    pub settings: String,
}

impl ServerTlsOptions {
    /// Returns a server that shows `own` and asks clients for no certificate.
    pub fn new(own: OwnFiles, settings: &str) -> Self {
        Self {
            own,
            client_auth: None,
            trust: None,
            settings: settings.to_owned(),
        }
    }
}

/// A server's TLS, which follows the current pins, and its files when the module reads them again.
/// Cloning is cheap.
///
/// TLS 1.2 and 1.3, HTTP/2 only, no resumption: each connection shows its certificate, so that one
/// that is no longer trusted cannot open a connection. While any trusted deployment's certificate
/// is pinned: TLS 1.3 only.
#[derive(Clone, Debug)]
pub struct ServerTls {
    configs: Arc<Live<Configs>>,
    trust: Arc<TrustStore>,
    /// Whether pins made certificates mandatory, of which no setting speaks; `None` if one does.
    mandatory: Option<Arc<AtomicBool>>,
}

/// What is served while there are pins, and while there are none.
#[derive(Debug)]
struct Configs {
    pinned: Arc<ServerConfig>,
    /// `None` if clients must present a certificate and only pins would accept one.
    unpinned: Option<Arc<ServerConfig>>,
}

impl ServerTls {
    /// Reads the files of `options` and adds them to `all`, which a reload reads again. The pins
    /// are those in `trust`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used, or clients must show a certificate and none would be
    /// accepted.
    pub(crate) fn load(
        options: ServerTlsOptions,
        trust: Arc<TrustStore>,
        all: &TlsFiles,
    ) -> Result<Self, TlsError> {
        let files = list(Some(&options.own), options.trust.as_ref());
        let pins = Arc::clone(&trust);
        let settings = options.settings.clone();
        let mandatory = options
            .client_auth
            .is_none()
            .then(|| Arc::new(AtomicBool::new(has_pins(&trust.current()))));
        let live = Live::new(all, files, move |all| Configs::make(&options, &pins, all));
        let configs = Arc::new(live?);
        if configs.current().unpinned.is_none() && !has_pins(&trust.current()) {
            return Err(TlsError::no_client_accepted(&settings));
        }
        Ok(Self {
            configs,
            trust,
            mandatory,
        })
    }

    /// Returns what the next connection is served with.
    ///
    /// Certificates that pins made mandatory stay so when the last pin is gone: taking a pin back
    /// opens no door.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        let configs = self.configs.current();
        let is_pinned = has_pins(&self.trust.current());
        let stays = self
            .mandatory
            .as_ref()
            .is_some_and(|mandatory| mandatory.fetch_or(is_pinned, Ordering::SeqCst));
        match &configs.unpinned {
            Some(config) if !is_pinned && !stays => Arc::clone(config),
            _ => Arc::clone(&configs.pinned),
        }
    }
}

fn has_pins(trust: &KeySet) -> bool {
    let mut deployments = trust.deployments().iter();
    deployments.any(|deployment| !deployment.tls_pins.is_empty())
}

impl Configs {
    fn make(
        options: &ServerTlsOptions,
        trust: &Arc<TrustStore>,
        contents: &[Content],
    ) -> Result<Self, TlsError> {
        let (own, roots) = parse(Some(&options.own), options.trust.as_ref(), contents)?;
        // The own files were asked for.
        let own = own.ok_or_else(|| TlsError::of_file(&options.own.cert_chain, NO_CERTIFICATE))?;
        let roots = roots.as_ref();
        let unpinned = match options.client_auth {
            None | Some(ClientAuth::None) => Some(None),
            Some(ClientAuth::Optional) => Some(verifier(roots, ClientAuth::Optional)?),
            Some(ClientAuth::Require) => verifier(roots, ClientAuth::Require)?.map(Some),
        };
        let unpinned = unpinned.map(|clients| config(&own, clients, ALL_VERSIONS));
        let pinned: Option<Arc<dyn ClientCertVerifier>> = match options.client_auth {
            Some(ClientAuth::None) => None,
            auth => Some(Arc::new(PinnedClients {
                trust: Arc::clone(trust),
                own: own.shown.fingerprint,
                otherwise: verifier(roots, ClientAuth::Require)?,
                mandatory: auth != Some(ClientAuth::Optional),
            })),
        };
        Ok(Self {
            pinned: config(&own, pinned, ONLY_TLS13)?,
            unpinned: unpinned.transpose()?,
        })
    }
}

/// Accepts certificates by the authorities `roots`, if there are any.
fn verifier(
    roots: Option<&Arc<RootCertStore>>,
    auth: ClientAuth,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(roots) = roots else {
        return Ok(None);
    };
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
    let builder = match auth {
        ClientAuth::Require => builder,
        ClientAuth::None | ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    Ok(Some(builder.build().map_err(TlsError::internal)?))
}

fn config(
    own: &Own,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::internal)?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let own = SingleCertAndKey::from(Arc::clone(&own.key));
    let mut config = builder.with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
