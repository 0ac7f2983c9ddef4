//! The module to call: where it should be, and which one it should be.

use std::error::Error;
use std::time::Duration;

use super::remedy::{Options, Remedy};
use super::report::{Layer, Row, Side};
use crate::config::{ConnectionSettings, Settings};
use crate::grpc::tls::{ClientTls, ClientTlsOptions};
use crate::grpc::{AttachIdentityLayer, Module, Target, cause};
use crate::identity::DeploymentName;

/// A module that is called.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) tls: Option<ClientTls>,
    pub(super) allow_plaintext: bool,
    pub(super) identity: AttachIdentityLayer,
    pub(super) module: Module,
    pub(super) remedy: Remedy,
    /// How long each layer may take.
    pub(super) limit: Duration,
    /// Its deployment; `None` for this module itself.
    pub(super) deployment: Option<DeploymentName>,
}

impl Peer {
    /// Returns the peer of `connection`.
    pub(super) fn at(
        connection: &ConnectionSettings,
        settings: &Settings,
        module: &Module,
        options: &Options,
    ) -> Result<Self, Row> {
        let remedy = Remedy::of_connection(connection, settings, options);
        let name = match &connection.deployment {
            Some(name) => name.clone(),
            None => module
                .deployment_of(&connection.name)
                .map_err(|error| unusable(&error).help(remedy.pair(false)))?,
        };
        let target = Target::new(&connection.host, connection.port);
        let peer = Self::unencrypted(&name, target, remedy, settings, module, options)?;
        peer.with_tls(connection.tls.as_ref())
    }

    /// Returns the engine of `owner` at `target`, as its DPM dials it back.
    pub(super) fn engine(
        owner: &DeploymentName,
        target: Target,
        settings: &Settings,
        module: &Module,
        options: &Options,
    ) -> Result<Self, Row> {
        let remedy = Remedy::of_engine(settings);
        let peer = Self::unencrypted(owner, target, remedy, settings, module, options)?;
        peer.with_tls(settings.client.dial_back_tls.as_ref())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each comes from a different place"
    )]
    fn unencrypted(
        name: &DeploymentName,
        target: Target,
        remedy: Remedy,
        settings: &Settings,
        module: &Module,
        options: &Options,
    ) -> Result<Self, Row> {
        let identity = module.client_layer(name.as_str());
        Ok(Self {
            name: name.to_string(),
            target,
            tls: None,
            allow_plaintext: settings.client.allow_plaintext,
            identity: identity.map_err(|error| unusable(&error).help(remedy.pair(false)))?,
            module: module.clone(),
            remedy,
            limit: options.timeout,
            deployment: Some(name.clone()),
        })
    }

    fn with_tls(mut self, tls: Option<&ClientTlsOptions>) -> Result<Self, Row> {
        if let (Some(options), Some(name)) = (tls, &self.deployment) {
            let tls = self.module.client_tls(options.clone());
            self.tls = Some(tls.map_err(|error| unusable(&error))?.towards(name));
        }
        Ok(self)
    }

    /// Returns the module of `settings` itself, as its operator calls it.
    pub(super) fn itself(
        settings: &Settings,
        module: &Module,
        options: &Options,
    ) -> Result<Self, Row> {
        let host = settings.server.own_host().to_string();
        let tls = settings.server.tls.clone();
        let tls = tls.map(|server| module.own_module_tls(server)).transpose();
        Ok(Self {
            name: settings.own.issuer().to_owned(),
            target: Target::new(&host, settings.server.port),
            tls: tls.map_err(|error| unusable(&error))?,
            allow_plaintext: true,
            identity: module.own_module_layer(),
            module: module.clone(),
            remedy: Remedy::of_itself(settings, options),
            limit: options.timeout,
            deployment: None,
        })
    }

    /// Returns the side on which it is.
    pub(super) fn side(&self) -> Side {
        match self.deployment {
            Some(_) => Side::Peer,
            None => Side::Here,
        }
    }

    /// Returns its keys if each of them is revoked here: then no call can be made.
    pub(super) fn revoked_keys(&self) -> Option<Vec<String>> {
        let name = self.deployment.as_ref()?;
        let trust = self.module.trust().load();
        let deployment = trust.deployment(name.as_str())?;
        if deployment.active_keys().next().is_some() {
            return None;
        }
        let names = deployment.keys.iter().map(|key| key.name.clone());
        Some(names.collect())
    }

    /// Returns `true` if its certificate is pinned; the module's own is.
    pub(super) fn is_pinned(&self) -> bool {
        let Some(name) = &self.deployment else {
            return true;
        };
        let trust = self.module.trust().load();
        let deployment = trust.deployment(name.as_str());
        deployment.is_some_and(|found| !found.tls_pins.is_empty())
    }
}

/// Says that settings of this module cannot be used.
pub(super) fn unusable(error: &(dyn Error + 'static)) -> Row {
    Row::fail(Layer::Config, Side::Here, cause(error))
}
