//! The module to call: where it should be, and which one it should be.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::remedy::Remedy;
use super::report::{Layer, Row, Side};
use crate::config::{ConnectionSettings, DIAL_BACK, Settings};
use crate::engine::EngineAddress;
use crate::grpc::tls::TlsError;
use crate::grpc::{AttachIdentityLayer, ConnectionOptions, Module, Target, cause};
use crate::identity::DeploymentName;
use crate::registry::{AddressPolicy, Destination};

/// How to examine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The module's home, as the user named it: for the commands that the doctor suggests.
    pub home: PathBuf,
    /// The one peer to examine: a connection's name, or an engine's id, deployment or `host:port`.
    /// All if it is `None`.
    pub peer: Option<String>,
    /// How long each layer may take.
    pub timeout: Duration,
}

/// The input of an examination.
#[derive(Debug)]
pub(super) struct Doctor<'a> {
    pub(super) settings: &'a Settings,
    /// The module of the settings.
    pub(super) module: Module,
    pub(super) options: &'a Options,
}

/// A module that is called.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    /// Its deployment; `None` for this module itself.
    pub(super) deployment: Option<DeploymentName>,
    pub(super) target: Target,
    pub(super) connection: ConnectionOptions,
    pub(super) identity: AttachIdentityLayer,
    /// The module that calls.
    pub(super) module: Module,
    pub(super) remedy: Remedy,
    /// Of an engine: what it advertises, and where it may be dialled.
    pub(super) dial_back: Option<(EngineAddress, AddressPolicy)>,
}

impl Doctor<'_> {
    /// Returns the peer of `connection`.
    pub(super) fn to(&self, connection: &ConnectionSettings) -> Result<Peer, Row> {
        let remedy = Remedy::of_connection(&connection.name, self.settings, &self.options.home);
        let name = match &connection.deployment {
            Some(name) => name.clone(),
            None => self
                .module
                .deployment_of(&connection.name)
                .map_err(|error| unusable(&error).help(remedy.pair(false)))?,
        };
        let target = Target::new(&connection.host, connection.port);
        self.peer(name, target, &connection.name, remedy)
    }

    /// Returns the engine of `owner` at `address`, as its DPM dials it back.
    pub(super) fn engine(
        &self,
        owner: DeploymentName,
        address: EngineAddress,
    ) -> Result<Peer, Row> {
        let server = &self.settings.options.server;
        let own = SocketAddr::new(server.address, server.port);
        let policy = AddressPolicy::new(vec![own], self.settings.options.addresses.clone());
        let target = Target::new(address.hostname(), address.port());
        let remedy = Remedy::of_engine(self.settings);
        let peer = self.peer(owner, target, DIAL_BACK, remedy)?;
        Ok(Peer {
            dial_back: Some((address, policy)),
            ..peer
        })
    }

    fn peer(
        &self,
        name: DeploymentName,
        target: Target,
        connection: &str,
        remedy: Remedy,
    ) -> Result<Peer, Row> {
        let identity = self.module.client_layer(name.as_str());
        let options = self.settings.connection(&self.module, connection);
        Ok(Peer {
            name: name.to_string(),
            target,
            connection: self.patient(options)?.towards(&name),
            identity: identity.map_err(|error| unusable(&error).help(remedy.pair(false)))?,
            module: self.module.clone(),
            remedy,
            deployment: Some(name),
            dial_back: None,
        })
    }

    /// Sets the time limit that each layer has.
    fn patient(
        &self,
        options: Result<ConnectionOptions, TlsError>,
    ) -> Result<ConnectionOptions, Row> {
        Ok(ConnectionOptions {
            connect_timeout: self.options.timeout,
            ..options.map_err(|error| unusable(&error))?
        })
    }

    /// Returns the module itself, as its operator calls it.
    pub(super) fn itself(&self) -> Result<Peer, Row> {
        let (own, server) = (&self.settings.own, &self.settings.options.server);
        let options = self.settings.own_connection(&self.module);
        Ok(Peer {
            name: own.issuer().to_owned(),
            deployment: None,
            target: Target::new(&server.own_host().to_string(), server.port),
            connection: self.patient(options)?,
            identity: self.module.own_module_layer(),
            module: self.module.clone(),
            remedy: Remedy::of_itself(self.settings, &self.options.home),
            dial_back: None,
        })
    }
}

impl Peer {
    /// Returns how long each layer may take.
    pub(super) fn limit(&self) -> Duration {
        self.connection.connect_timeout
    }

    /// Returns the side on which it is.
    pub(super) fn side(&self) -> Side {
        match self.deployment {
            Some(_) => Side::Peer,
            None => Side::Here,
        }
    }

    /// Checks that a DPM with these settings may dial it at `resolved`.
    pub(super) fn judge(&self, resolved: &[SocketAddr]) -> Result<(), Row> {
        let Some((address, policy)) = &self.dial_back else {
            return Ok(());
        };
        let destination = Destination {
            deployment: &self.name,
            address,
            // Only the registry knows, and it did not refuse.
            over_loopback: true,
        };
        let addresses: Vec<_> = resolved.iter().map(SocketAddr::ip).collect();
        let judged = policy.check(&destination, &addresses, |_| false);
        judged.map_err(|refusal| {
            let detail = format!("ADDRESS_NOT_ALLOWED: {refusal}");
            Row::fail(Layer::Name, Side::Between, detail)
                .help("countersign explain ADDRESS_NOT_ALLOWED")
        })
    }

    /// Returns its keys if each of them is revoked here: then no call can be made.
    pub(super) fn revoked_keys(&self) -> Option<Vec<String>> {
        let name = self.deployment.as_ref()?;
        let trust = self.module.trust().load();
        let deployment = trust.deployment(name.as_str())?;
        let keys = deployment.keys.iter().map(|key| key.name.clone());
        let is_usable = deployment.active_keys().next().is_some();
        (!is_usable).then(|| keys.collect())
    }

    /// Returns `true` if its certificate is pinned; the module's own is.
    pub(super) fn is_pinned(&self) -> bool {
        let trust = self.module.trust().load();
        self.deployment.as_ref().is_none_or(|name| {
            let deployment = trust.deployment(name.as_str());
            deployment.is_some_and(|found| !found.tls_pins.is_empty())
        })
    }
}

/// Makes the row of settings that cannot be used.
pub(super) fn unusable(error: &(dyn Error + 'static)) -> Row {
    Row::fail(Layer::Config, Side::Here, cause(error))
}
