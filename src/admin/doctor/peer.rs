//! The module to call: where and which one it should be, and what an operator does about it.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::report::{Layer, Row, Side};
use crate::admin::error::{Kind, Refused};
use crate::admin::pairing::{self, Member};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{ConnectionSettings, DIAL_BACK, Settings};
use crate::engine::EngineAddress;
use crate::grpc::{AttachIdentityLayer, ConnectionOptions, Module, Target, cause};
use crate::identity::{DeploymentName, ModuleType, Role};
use crate::proto::registry::Engine;
use crate::registry::{AddressPolicy, Destination};
use crate::trust::Deployment;

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
pub(super) struct Peer<'a> {
    /// The module that calls, and how.
    pub(super) doctor: &'a Doctor<'a>,
    pub(super) name: String,
    /// Its deployment; `None` for this module itself.
    pub(super) deployment: Option<DeploymentName>,
    pub(super) target: Target,
    pub(super) connection: ConnectionOptions,
    pub(super) identity: AttachIdentityLayer,
    pub(super) remedy: Remedy<'a>,
    /// What it advertises, if it is an engine.
    engine: Option<EngineAddress>,
}

impl Doctor<'_> {
    /// Returns the peer of `connection`.
    pub(super) fn to(&self, connection: &ConnectionSettings) -> Result<Peer<'_>, Row> {
        let (name, settings) = (&connection.name, self.settings);
        let own = settings.home.file.display();
        // The other home often lies beside this one; else it is on another machine.
        let home = self.options.home.with_file_name(name);
        let beside = home.join("etc/application.properties");
        let at_hand = beside.is_file().then_some(beside);
        let file = at_hand.as_ref().map(|file| file.display().to_string());
        let usual = match name.as_str() {
            "dpm" => "; the default port of a DPM is 8531",
            "dpe" => "; the default port of a DPE is 8532",
            _ => "",
        };
        let remedy = Remedy {
            settings,
            host: format!("`ataccama.client.connection.{name}.host` in {own} names it"),
            port: format!(
                "`ataccama.client.connection.{name}.grpc.port` in {own} must be the peer's \
                 `ataccama.server.grpc.port`{usual}"
            ),
            kind: name.clone(),
            file: file.unwrap_or_else(|| format!("<the {name}'s file>")),
            at_hand,
            home: if home.is_dir() {
                home.display().to_string()
            } else {
                "<its home>".to_owned()
            },
        };
        let known = match &connection.deployment {
            Some(deployment) => Ok(deployment.clone()),
            None => self.module.deployment_of(name),
        };
        let deployment = known.map_err(|error| unusable(&error).help(remedy.pair(false)))?;
        let target = Target::new(&connection.host, connection.port);
        self.peer(deployment, target, name, remedy)
    }

    /// Returns `engine` as its DPM dials it back.
    pub(super) fn engine(&self, engine: &Engine) -> Result<Peer<'_>, Row> {
        let owner = DeploymentName::new(&engine.deployment).map_err(|error| unusable(&error))?;
        let advertised = engine.address.clone().unwrap_or_default();
        let address = EngineAddress::try_from(&advertised).map_err(|error| unusable(&error))?;
        let remedy = Remedy {
            settings: self.settings,
            host: "the engine advertises it: `ataccama.one.dpe.service.hostname` there".to_owned(),
            port: "the engine advertises it: `ataccama.one.dpe.service.port` there".to_owned(),
            kind: "dpe".to_owned(),
            file: "<the engine's file>".to_owned(),
            at_hand: None,
            home: "<its home>".to_owned(),
        };
        let target = Target::new(address.hostname(), address.port());
        Ok(Peer {
            engine: Some(address),
            ..self.peer(owner, target, DIAL_BACK, remedy)?
        })
    }

    fn peer<'a>(
        &'a self,
        name: DeploymentName,
        target: Target,
        connection: &str,
        remedy: Remedy<'a>,
    ) -> Result<Peer<'a>, Row> {
        let identity = self.module.layer_for(name.as_str());
        let options = self.settings.connection(&self.module, connection);
        Ok(Peer {
            doctor: self,
            name: name.to_string(),
            target,
            connection: options.map_err(|error| unusable(&error))?.towards(&name),
            identity: identity.map_err(|error| unusable(&error).help(remedy.pair(false)))?,
            remedy,
            deployment: Some(name),
            engine: None,
        })
    }

    /// Returns the module itself, as its operator calls it.
    pub(super) fn itself(&self) -> Result<Peer<'_>, Row> {
        let settings = self.settings;
        let (server, file) = (&settings.options.server, settings.home.file.display());
        let options = settings.own_connection(&self.module);
        Ok(Peer {
            doctor: self,
            name: settings.own.issuer().to_owned(),
            deployment: None,
            target: Target::new(&server.own_host().to_string(), server.port),
            connection: options.map_err(|error| unusable(&error))?,
            identity: self.module.own_module_layer(),
            remedy: Remedy {
                settings,
                host: format!("`countersign.server.address` in {file} says where it listens"),
                port: format!("`ataccama.server.grpc.port` in {file} says where it listens"),
                kind: "<its peer>".to_owned(),
                file: "<the peer's file>".to_owned(),
                at_hand: None,
                home: self.options.home.display().to_string(),
            },
            engine: None,
        })
    }
}

impl Peer<'_> {
    /// Returns how long each layer may take.
    pub(super) fn limit(&self) -> Duration {
        self.doctor.options.timeout
    }

    /// Checks that a DPM with these settings may dial it at `resolved`.
    pub(super) fn judge(&self, resolved: &[SocketAddr]) -> Result<(), Row> {
        let Some(address) = &self.engine else {
            return Ok(());
        };
        let options = &self.doctor.settings.options;
        let own = SocketAddr::new(options.server.address, options.server.port);
        let destination = Destination {
            deployment: &self.name,
            address,
            // Only the registry knows, and it did not refuse.
            over_loopback: true,
        };
        let addresses: Vec<_> = resolved.iter().map(SocketAddr::ip).collect();
        let policy = AddressPolicy::new(vec![own], options.addresses.clone());
        let judged = policy.check(&destination, &addresses, |_| false);
        judged.map_err(|refusal| {
            let detail = format!("ADDRESS_NOT_ALLOWED: {refusal}");
            Row::fail(Layer::Name, Side::Between, detail)
                .help("countersign explain ADDRESS_NOT_ALLOWED")
        })
    }

    /// Returns what is trusted here of its deployment; `None` for this module itself.
    pub(super) fn trusted(&self) -> Option<Arc<Deployment>> {
        let name = self.deployment.as_ref()?;
        let trust = self.doctor.module.trust().current();
        trust.deployment(name.as_str()).cloned()
    }

    /// Says how it is started.
    pub(super) fn start(&self) -> String {
        let Remedy { kind, home, .. } = &self.remedy;
        let own = &self.doctor.settings.own.module;
        let module = self.deployment.as_ref().map_or(own.as_str(), |_| kind);
        format!("start it with: countersign {module} run --home {home}")
    }
}

/// Makes the row of settings that cannot be used.
pub(super) fn unusable(error: &(dyn Error + 'static)) -> Row {
    Row::fail(Layer::Config, Side::Here, cause(error))
}

/// This module's file and a peer's, and what an operator does about the peer.
#[derive(Debug)]
pub(super) struct Remedy<'a> {
    settings: &'a Settings,
    /// Where the peer's host is set.
    pub(super) host: String,
    /// Where its port is set.
    pub(super) port: String,
    /// The peer's type, as `pair` takes it.
    kind: String,
    /// The peer's file, in words if it is on another machine.
    file: String,
    /// The peer's file, if it is on this machine.
    at_hand: Option<PathBuf>,
    /// The peer's home, in words if it is on another machine.
    pub(super) home: String,
}

impl Remedy<'_> {
    /// Says how both files are compared.
    pub(super) fn check(&self) -> String {
        format!("countersign check {} {}", self.own_file(), self.file)
    }

    /// Returns this module's file.
    pub(super) fn own_file(&self) -> String {
        self.settings.home.file.display().to_string()
    }

    /// Says how to pair the two.
    ///
    /// If both files are here, the pairing is planned first: `pair` accepts the printed command.
    pub(super) fn pair(&self, tls: bool) -> String {
        let (Self { kind, file, .. }, own) = (self, self.own_file());
        let module = &self.settings.own.module;
        let option = if tls { " --tls" } else { "" };
        let command = format!("countersign pair {kind}={file} {module}={own}{option}");
        self.planned(&command, tls).unwrap_or(command)
    }

    /// Returns what corrects the two files in place of the pairing `command`, if that is refused.
    fn planned(&self, command: &str, tls: bool) -> Option<String> {
        let Settings { own, home, .. } = self.settings;
        let members = [
            Member::new(ModuleType::new(&self.kind).ok()?, self.at_hand.clone()?),
            Member::new(own.module.clone(), home.file.clone()),
        ];
        for key in [None, Some("key2"), Some("key3"), Some("key4")] {
            let options = pairing::Options {
                environment: None,
                role: Role::impersonation(),
                key_name: key.map(str::to_owned),
                tls,
                now: SystemClock.now(),
            };
            let plan = pairing::plan(&members, None, &options);
            match plan.as_ref().map_err(Refused::kind) {
                Ok(_) => {
                    let same = "if it is the same module with another key";
                    return Some(format!("{same}: {command} --key-name {}", key?));
                }
                Err(Kind::OtherKey) => {}
                Err(Kind::OtherOwner { path, found }) => {
                    let other = members.iter().find(|member| member.path != *path)?;
                    let file = other.path.display();
                    return Some(format!(
                        "write into {file}: countersign.deployment.name={found}"
                    ));
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// Says how this module, or else the peer, gets a new key.
    ///
    /// No peer still accepts the old key, so there is nothing to wait for.
    pub(super) fn rotate(&self, is_own: bool) -> String {
        let (own, peer) = (&self.own_file(), &self.file);
        let (file, other) = if is_own { (own, peer) } else { (peer, own) };
        format!("countersign rotate run --file {file} --peer-file {other} --now")
    }
}
