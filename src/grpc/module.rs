//! A module: its own key, those it trusts, and the layers made of them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::identity::{DeploymentName, Role};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::token::proof::{ProofSigner, ProofVerifier};
use crate::token::{
    Policy, Reason, Replay, ReplayGuard, TokenIssuer, TokenVerifier, VerifiedCache,
};
use crate::trust::{Deployment, KeySet, OwnDeployment, TrustError, TrustStore};

use super::callee::{CallerTokens, ClockSkews, UnknownDeployment};
use super::carrier::{Plaintext, Transport};
use super::gate::Gate;
use super::metrics::Counters;
use super::proof::{Proofs, RequiredProof};
use super::serve::{Route, TONICS_BYTES, Wiring};
use super::session::{HealthWatch, Visits};
use super::tls::{ClientTls, ClientTlsOptions, ServerTls, ServerTlsOptions, TlsError, TlsFiles};
use super::{
    AttachIdentityLayer, ConnectError, ConnectionLimits, MethodRules, ProofMode, Rejections,
    Tokens, VerifyIdentityLayer,
};

/// One service's identity: who it is, which deployments it trusts, and the layers that carry both.
///
/// Made from a file by `Module::open`, or from keys by [`Module::builder`]. Clones share all of it.
#[derive(Clone, Debug)]
pub struct Module {
    pub(super) trust: Arc<TrustStore>,
    /// The PEM files of its TLS.
    pub(crate) tls_files: TlsFiles,
    policy: Policy,
    impersonation_role: Role,
    pub(crate) tokens: Tokens,
    proof_mode: ProofMode,
    pub(crate) replay: Option<Arc<ReplayGuard>>,
    verified: Arc<VerifiedCache>,
    health: Health,
    pub(crate) metrics: Arc<Metrics>,
    /// What decides which refused calls are logged.
    pub(crate) rejections: Arc<Rejections>,
    calls: Counters,
    skews: Arc<ClockSkews>,
    clock: Arc<dyn Clock>,
    pub(crate) plaintext: Plaintext,
    wiring: Option<Arc<Wiring>>,
}

/// Why a module could not be made.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The deployments leave open who a caller is.
    #[error("the trusted deployments are ambiguous")]
    Trust(#[from] TrustError),
    /// The metrics cannot be registered.
    #[error("the metrics cannot be registered")]
    Metrics(#[source] Box<dyn Error + Send + Sync>),
}

crate::failure::debug_as_text!(ModuleError);

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
    plaintext: Plaintext,
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

    /// Lets calls arrive and leave without TLS beyond loopback, where tokens can be read and used.
    #[must_use]
    pub fn dangerous_plaintext(self) -> Self {
        self.plaintext(Plaintext {
            calls: true,
            server: true,
            server_has_tls: false,
        })
    }

    /// Says where there may be plaintext.
    pub(crate) fn plaintext(self, plaintext: Plaintext) -> Self {
        Self { plaintext, ..self }
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
            calls: Counters::of_calls(&metrics),
            rejections: Arc::default(),
            metrics,
            clock: self.clock,
            plaintext: self.plaintext,
            wiring: None,
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
            plaintext: Plaintext::default(),
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

    /// Returns the same module, served and called as its file says.
    pub(crate) fn wired(self, wiring: Wiring) -> Self {
        Self {
            wiring: Some(Arc::new(wiring)),
            ..self
        }
    }

    /// Returns what its file says of its server and connections, if it has a file.
    pub(crate) fn wiring(&self) -> Option<&Wiring> {
        self.wiring.as_deref()
    }

    /// Returns the same module for what changes its trust: it keeps no task going.
    pub(crate) fn for_follower(&self) -> Self {
        Self {
            trust: Arc::new(self.trust.twin()),
            wiring: None,
            ..self.clone()
        }
    }

    /// Returns the largest message that its file allows a caller, in bytes: 4 MiB without a file.
    /// The server's layer refuses what is larger, by its compressed length.
    ///
    /// tonic has a limit of 4 MB, also of what it decompresses: give this number to
    /// `max_decoding_message_size` of the generated server.
    pub fn max_message_size(&self) -> usize {
        let wiring = self.wiring();
        wiring.map_or(TONICS_BYTES, |wiring| wiring.server.max_message_bytes)
    }

    /// Returns the largest message that its file allows a callee, as
    /// [`max_message_size`](Self::max_message_size) does a caller: for the generated client.
    pub fn max_reply_size(&self) -> usize {
        let wiring = self.wiring();
        wiring.map_or(TONICS_BYTES, |wiring| wiring.client_bytes)
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
            plaintext: self.plaintext,
            metrics: Arc::clone(&self.metrics),
        };
        VerifyIdentityLayer {
            gate: Arc::new(gate),
            proofs: Proofs {
                signer: ProofSigner::new(Arc::clone(&self.trust), Arc::clone(&self.clock)),
                engine: None,
            },
            counters: None,
            largest: self.wiring().map(|wiring| wiring.server.largest()),
            is_any_transport: false,
            visits: Visits::new(ConnectionLimits::default().visit, HealthWatch::Bounded),
        }
    }

    /// Returns the layer that attaches this module's identity to calls of the deployment `name`,
    /// and asks for its proof as the module's [`ProofMode`] says.
    ///
    /// The layer does not see what its channel goes `over`; [`channel`](Self::channel) does.
    ///
    /// # Errors
    ///
    /// When no trusted deployment is called `name`, or the file contradicts `over`: TLS is on for
    /// the connection or its certificates are pinned, or `countersign.client.allow-plaintext` is
    /// not `true`.
    pub fn client_layer(
        &self,
        name: &str,
        over: Transport,
    ) -> Result<AttachIdentityLayer, ConnectError> {
        let (layer, callee) = (self.layer_for(name)?, self.callee(name)?);
        let has_tls = !callee.tls_pins.is_empty()
            || self
                .routes_to(&callee)
                .any(|route| route.options.tls.is_some());
        match over.contradiction(has_tls, self.plaintext.calls) {
            None => Ok(layer),
            Some(why) => Err(ConnectError::Refused(format!("deployment `{name}`: {why}"))),
        }
    }

    /// Returns the layer for calls of `name` over a channel that judges its connections itself.
    pub(crate) fn layer_for(&self, name: &str) -> Result<AttachIdentityLayer, UnknownDeployment> {
        let proof = RequiredProof {
            mode: self.proof_mode,
            verifier: self.proof_verifier(),
            engine: None,
        };
        let callee = self.callee(name)?;
        Ok(self.calls(Some(callee.name.clone()), Some(proof)))
    }

    /// Returns the trusted deployment that is called `name`.
    pub(crate) fn callee(&self, name: &str) -> Result<Arc<Deployment>, UnknownDeployment> {
        let trust = self.trust.current();
        let callee = trust.deployment(name).map(Arc::clone);
        callee.ok_or_else(|| UnknownDeployment::Name(name.to_owned()))
    }

    /// Returns the connections that lead to `callee`: they name it, or its module type is
    /// unambiguous.
    pub(crate) fn routes_to<'a>(
        &'a self,
        callee: &'a Deployment,
    ) -> impl Iterator<Item = &'a Route> {
        let routes = self.wiring.iter().flat_map(|wiring| &wiring.routes);
        routes.filter(|route| match &route.deployment {
            Some(named) => *named == callee.name,
            None => self
                .deployment_of(&route.name)
                .is_ok_and(|only| only == callee.name),
        })
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

    /// Returns the metrics, which all clones share.
    #[cfg(feature = "actuator")]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Writes all metrics in Prometheus's text format, with the current keys and health.
    #[cfg(feature = "actuator")]
    pub fn metrics_text(&self) -> String {
        let trust = self.trust.load();
        let own = trust.own();
        let trusted = trust.deployments().iter().map(|deployment| {
            let active = deployment.active_keys().count();
            let revoked = deployment.keys.len().saturating_sub(active);
            let (name, module) = (deployment.name.as_str(), deployment.module.as_str());
            (name, module, [active, revoked])
        });
        self.metrics.trusted(trusted);
        let made_at = own.key.made_at();
        self.metrics.signs_with(own.key_id.as_str(), made_at);
        self.metrics.ready(self.health.is_ready());
        self.metrics.render()
    }

    fn calls(
        &self,
        callee: Option<DeploymentName>,
        proof: Option<RequiredProof>,
    ) -> AttachIdentityLayer {
        let skews = Arc::clone(&self.skews);
        AttachIdentityLayer {
            tokens: Arc::new(CallerTokens::new(self.issuer(), skews, callee)),
            proof: proof.map(Arc::new),
            calls: self.calls.clone(),
            largest: self.wiring().map(Wiring::largest_reply),
        }
    }
}
