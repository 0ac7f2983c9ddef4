//! A module: its own key, those it trusts, and the layers made of them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::identity::{DeploymentName, Role};
use crate::proto::identity::identity_service_server::IdentityServiceServer;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
#[cfg(feature = "actuator")]
use crate::telemetry::metrics::TrustedKeys;
use crate::token::proof::{ProofSigner, ProofVerifier};
use crate::token::{
    Policy, Reason, Replay, ReplayGuard, TokenIssuer, TokenVerifier, VerifiedCache,
};
use crate::trust::{Deployment, KeySet, OwnDeployment, TrustError, TrustStore};

use super::caller_tokens::CallerTokens;
use super::clock_skew::ClockSkews;
use super::pending_proof::Proofs;
use super::required_proof::RequiredProof;
use super::server::Gate;
use super::tls::{ClientTls, ClientTlsOptions, ServerTls, ServerTlsOptions, TlsError, TlsFiles};
use super::{
    AttachIdentityLayer, IdentityService, MethodRules, MetricsLayer, ProofMode, Rejections, Tokens,
    VerifyIdentityLayer,
};

/// One service's identity: who it is, which deployments it trusts, and the layers that carry both.
///
/// Made from a file by `Module::load`, or from keys by [`Module::builder`]. Cloning is cheap, and
/// all clones share one trust store.
#[derive(Clone, Debug)]
pub struct Module {
    trust: Arc<TrustStore>,
    tls_files: TlsFiles,
    policy: Policy,
    impersonation_role: Role,
    tokens: Tokens,
    proof_mode: ProofMode,
    replay: Option<Arc<ReplayGuard>>,
    verified: Arc<VerifiedCache>,
    health: Health,
    metrics: Arc<Metrics>,
    rejections: Arc<Rejections>,
    calls: MetricsLayer,
    skews: Arc<ClockSkews>,
    clock: Arc<dyn Clock>,
}

/// Why a module could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The deployments leave open who a caller is.
    #[error("the trusted deployments are ambiguous")]
    Trust(#[from] TrustError),
    /// The metrics cannot be registered.
    #[error("the metrics cannot be registered")]
    Metrics(#[source] Box<dyn Error + Send + Sync>),
}

/// No trusted deployment fits.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownDeployment {
    /// None has this name.
    #[error("no trusted deployment is called `{0}`")]
    Name(String),
    /// None has this module type.
    #[error("no trusted deployment has the module type `{0}`; pair the two modules")]
    Module(String),
    /// More than one has this module type.
    #[error(
        "deployments {names} all have the module type `{module}`; name one in `countersign.client.connection.{module}.deployment`"
    )]
    Several {
        /// The module type.
        module: String,
        /// Their names.
        names: String,
    },
}

/// Makes a [`Module`] from keys.
#[derive(Debug)]
pub struct ModuleBuilder {
    own: Arc<OwnDeployment>,
    deployments: Vec<Deployment>,
    policy: Policy,
    impersonation_role: Role,
    tokens: Tokens,
    proof_mode: ProofMode,
    replay: Replay,
    clock: Arc<dyn Clock>,
}

impl ModuleBuilder {
    /// Trusts `deployment`.
    #[must_use]
    pub fn trust(mut self, deployment: Deployment) -> Self {
        self.deployments.push(deployment);
        self
    }

    /// Uses other times than the default: lifetime 300 s, leeway 30 s, accepted lifetime 900 s.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Requires this role in place of `IMPERSONATION` if a method needs the impersonation role.
    #[must_use]
    pub fn impersonation_role(self, role: Role) -> Self {
        Self {
            impersonation_role: role,
            ..self
        }
    }

    /// Lets callers over loopback do without a token. See [`Tokens::OptionalOnLoopback`].
    #[must_use]
    pub fn dangerous_tokens(self, tokens: Tokens) -> Self {
        Self { tokens, ..self }
    }

    /// Asks callees for their proof on other calls than `RegisterEngine` and `WhoAmI`.
    #[must_use]
    pub fn proof_mode(self, proof_mode: ProofMode) -> Self {
        Self { proof_mode, ..self }
    }

    /// Takes each token once, or for as long as it lives.
    #[must_use]
    pub fn replay(self, replay: Replay) -> Self {
        Self { replay, ..self }
    }

    /// Reads the time from `clock` instead of the machine.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Makes the module.
    ///
    /// # Errors
    ///
    /// If a key or name occurs twice among the deployments, or one holds the module's own key.
    pub fn build(self) -> Result<Module, ModuleError> {
        let sent = Reason::ALL
            .iter()
            .filter(|reason| !reason.is_raised_by_caller());
        let metrics = Metrics::new(self.own.module.as_str(), sent.map(|reason| reason.as_str()));
        let metrics = Arc::new(metrics.map_err(ModuleError::Metrics)?);
        let keys = KeySet::new(self.deployments, self.own)?;
        let replay = match self.replay {
            Replay::Off => None,
            Replay::Strict => Some(ReplayGuard::new(self.policy, Arc::clone(&self.clock))),
        };
        Ok(Module {
            skews: Arc::new(ClockSkews::new(Arc::clone(&metrics))),
            replay: replay.map(Arc::new),
            verified: Arc::default(),
            trust: Arc::new(TrustStore::new(keys)),
            tls_files: TlsFiles::default(),
            policy: self.policy,
            impersonation_role: self.impersonation_role,
            tokens: self.tokens,
            proof_mode: self.proof_mode,
            health: Health::default(),
            calls: MetricsLayer::of_calls(&metrics),
            rejections: Arc::default(),
            metrics,
            clock: self.clock,
        })
    }
}

impl Module {
    /// Starts a module that is `own` and trusts no deployment yet.
    pub fn builder(own: impl Into<Arc<OwnDeployment>>) -> ModuleBuilder {
        ModuleBuilder {
            own: own.into(),
            deployments: Vec::new(),
            policy: Policy::default(),
            impersonation_role: Role::impersonation(),
            tokens: Tokens::Required,
            proof_mode: ProofMode::default(),
            replay: Replay::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Returns who this module is now; a reload may swap its key.
    pub fn own(&self) -> Arc<OwnDeployment> {
        self.trust.own()
    }

    /// Returns who it is and which deployments it trusts; a change applies to every layer at once.
    pub fn trust(&self) -> &TrustStore {
        &self.trust
    }

    /// Returns its health, which all clones share: the code that runs a part reports how that part
    /// is.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Loads TLS for this module's server: the pins are those of the deployments that it trusts.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used, or clients must show a certificate and none would be
    /// accepted.
    pub fn server_tls(&self, options: ServerTlsOptions) -> Result<ServerTls, TlsError> {
        ServerTls::load(options, Arc::clone(&self.trust), &self.tls_files)
    }

    /// Loads TLS for this module's connections: the pins are those of the deployments that it
    /// trusts.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used.
    pub fn client_tls(&self, options: ClientTlsOptions) -> Result<ClientTls, TlsError> {
        ClientTls::load(options, Arc::clone(&self.trust), &self.tls_files)
    }

    /// Loads TLS for this module's calls of its own server, which has TLS by `server`: it shows the
    /// server's own certificate, and accepts no other.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used.
    pub fn own_module_tls(&self, server: ServerTlsOptions) -> Result<ClientTls, TlsError> {
        ClientTls::own_module(server, Arc::clone(&self.trust), &self.tls_files)
    }

    /// Reads the PEM files of its TLS again: the next connections use them. A
    /// [`Reloader`](crate::Reloader) does it whenever they change.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used; all TLS stays as it was.
    pub fn reload_tls(&self) -> Result<(), TlsError> {
        let swap = self.tls_files.read().make()?;
        swap();
        Ok(())
    }

    /// Returns the PEM files of its TLS.
    pub(crate) fn tls_files(&self) -> &TlsFiles {
        &self.tls_files
    }

    /// Returns its times.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Returns the role that lets a service act for users, and register engines.
    pub fn impersonation_role(&self) -> &Role {
        &self.impersonation_role
    }

    /// Returns its clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Returns a verifier of tokens for this module. Those that take each token once share one
    /// memory.
    pub fn verifier(&self) -> TokenVerifier {
        let (trust, clock) = (Arc::clone(&self.trust), Arc::clone(&self.clock));
        let verifier = TokenVerifier::new(trust, self.policy, clock);
        match &self.replay {
            Some(replay) => verifier.with_replay_guard(Arc::clone(replay)),
            None => verifier,
        }
    }

    /// Completes once the module can accept tokens: at once, unless it takes each token once. Then
    /// it waits for the leeway to pass after the start, since a token from before may have been
    /// used.
    pub async fn ready(&self) {
        // The clock may step where the timer does not.
        while let Some(left) = self.not_ready_for() {
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    /// Returns how long the module cannot accept tokens yet; see [`ready`](Self::ready).
    pub fn not_ready_for(&self) -> Option<Duration> {
        let ready_at = self.replay.as_ref()?.ready_at();
        let left = ready_at.duration_since(self.clock.now()).ok()?;
        (!left.is_zero()).then_some(left)
    }

    /// Returns an issuer of this module's tokens.
    pub fn issuer(&self) -> TokenIssuer {
        let (trust, clock) = (Arc::clone(&self.trust), Arc::clone(&self.clock));
        TokenIssuer::new(trust, self.policy, clock)
    }

    /// Returns a verifier of the proofs of callees.
    pub fn proof_verifier(&self) -> ProofVerifier {
        ProofVerifier::new(self.policy, Arc::clone(&self.clock))
    }

    /// Returns the layer that lets only verified callers in, by `rules`, and proves this module to
    /// callers that ask.
    pub fn server_layer(&self, rules: MethodRules) -> VerifyIdentityLayer {
        let gate = Gate {
            verifier: self.verifier().with_cache(Arc::clone(&self.verified)),
            rules,
            tokens: self.tokens,
            rejections: Arc::clone(&self.rejections),
            metrics: Arc::clone(&self.metrics),
        };
        VerifyIdentityLayer {
            gate: Arc::new(gate),
            proofs: Proofs {
                signer: ProofSigner::new(Arc::clone(&self.trust), Arc::clone(&self.clock)),
                engine: None,
            },
            counted: None,
        }
    }

    /// Returns the layer that attaches this module's identity to calls of the deployment `name`,
    /// and asks for its proof as the module's [`ProofMode`] says.
    ///
    /// # Errors
    ///
    /// When no trusted deployment is called `name`.
    pub fn client_layer(&self, name: &str) -> Result<AttachIdentityLayer, UnknownDeployment> {
        let proof = RequiredProof {
            mode: self.proof_mode,
            verifier: self.proof_verifier(),
            engine: None,
        };
        match self.trust.current().deployment(name) {
            None => Err(UnknownDeployment::Name(name.to_owned())),
            Some(callee) => Ok(self.calls(Some(callee.name.clone()), Some(proof))),
        }
    }

    /// Returns the layer with which this module's operator calls the module itself, over loopback.
    ///
    /// It asks for no proof: the module would only prove that it has its own key.
    pub fn own_module_layer(&self) -> AttachIdentityLayer {
        self.calls(None, None)
    }

    /// Returns the one trusted deployment whose module type is `module`.
    ///
    /// # Errors
    ///
    /// When none or more than one has it.
    pub fn deployment_of(&self, module: &str) -> Result<DeploymentName, UnknownDeployment> {
        let trust = self.trust.current();
        let all = trust.deployments().iter();
        let fits: Vec<_> = all.filter(|d| d.module.as_str() == module).collect();
        match fits.as_slice() {
            [one] => Ok(one.name.clone()),
            [] => Err(UnknownDeployment::Module(module.to_owned())),
            several => {
                let names: Vec<_> = several.iter().map(|d| format!("`{}`", d.name)).collect();
                Err(UnknownDeployment::Several {
                    module: module.to_owned(),
                    names: names.join(", "),
                })
            }
        }
    }

    /// Returns the service that shows callers how this module sees them.
    pub fn identity_service(&self) -> IdentityServiceServer<IdentityService> {
        IdentityServiceServer::new(IdentityService {
            trust: Arc::clone(&self.trust),
            clock: Arc::clone(&self.clock),
        })
    }

    /// Counts whether a reload of the files succeeded.
    pub(crate) fn count_reload(&self, successful: bool) {
        self.metrics.config_reload(successful);
    }

    fn calls(
        &self,
        callee: Option<DeploymentName>,
        proof: Option<RequiredProof>,
    ) -> AttachIdentityLayer {
        let tokens = CallerTokens::new(self.issuer(), Arc::clone(&self.skews), callee);
        AttachIdentityLayer {
            tokens: Arc::new(tokens),
            proof: proof.map(Arc::new),
            calls: self.calls.clone(),
        }
    }
}

#[cfg(feature = "registry")]
impl Module {
    /// Returns what decides which refused calls are logged.
    pub(crate) fn rejections(&self) -> &Arc<Rejections> {
        &self.rejections
    }
}

/// The metrics of a module.
#[cfg(feature = "actuator")]
impl Module {
    /// Returns the metrics, which all clones share.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Writes all metrics in Prometheus's text format, with the current keys and health.
    pub fn metrics_text(&self) -> String {
        let trust = self.trust.load();
        let own = trust.own();
        let trusted = trust.deployments().iter().map(|deployment| {
            let active = deployment.active_keys().count();
            TrustedKeys {
                deployment: deployment.name.as_str(),
                module: deployment.module.as_str(),
                active,
                revoked: deployment.keys.len().saturating_sub(active),
            }
        });
        self.metrics.trusted(trusted);
        let made_at = own.key.made_at();
        self.metrics.signs_with(own.key_id.as_str(), made_at);
        self.metrics.ready(self.health.is_ready());
        self.metrics.render()
    }

    /// Returns the layer that counts the calls of a server with `rules`. Put it before the
    /// [`server_layer`](Self::server_layer), or refused calls do not count.
    ///
    /// `descriptors` are encoded `FileDescriptorSet`s of the services that are served; methods that
    /// they do not describe count with the type `unknown`.
    pub fn metrics_layer(&self, rules: &MethodRules, descriptors: &[&[u8]]) -> MetricsLayer {
        MetricsLayer::new(&self.metrics, rules, descriptors)
    }
}
