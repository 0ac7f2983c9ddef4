//! The module to call: where and which one it should be, and what an operator does about it.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::{Layer, Row, Side};
use crate::admin::error::{Kind, Refused};
use crate::admin::pairing::{self, Member};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{ConnectionSettings, DIAL_BACK, Settings};
use crate::engine::EngineAddress;
use crate::grpc::tls::TlsError;
use crate::grpc::{AttachIdentityLayer, ConnectionOptions, Module, Target, cause};
use crate::identity::{DeploymentName, ModuleType, Role};
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
        let found = self.module.deployment_of(&connection.name);
        let name = match &connection.deployment {
            Some(name) => name.clone(),
            None => found.map_err(|error| unusable(&error).help(remedy.pair(false)))?,
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

/// This module's file and a peer's, and what an operator does about the peer.
#[derive(Clone, Debug)]
pub(super) struct Remedy {
    /// Where the peer's host is set.
    pub(super) host: String,
    /// Where its port is set.
    pub(super) port: String,
    /// This module's type and file.
    pub(super) own: (ModuleType, PathBuf),
    /// The peer's type, as `pair` takes it.
    pub(super) kind: String,
    /// The peer's file, in words if it is on another machine.
    pub(super) file: String,
    /// The peer's file, if it is on this machine.
    pub(super) at_hand: Option<PathBuf>,
    /// The command that starts the peer.
    pub(super) run: String,
    /// The peer's home.
    pub(super) home: String,
}

impl Remedy {
    /// What to do about the peer of the connection `name`.
    pub(super) fn of_connection(name: &str, settings: &Settings, own_home: &Path) -> Self {
        let own = settings.home.file.display();
        let home = own_home.with_file_name(name);
        // The other home often lies beside this one; else it is on another machine.
        let beside = home.join("etc/application.properties");
        let at_hand = beside.is_file().then_some(beside);
        let usual = match name {
            "dpm" => "; the default port of a DPM is 8531",
            "dpe" => "; the default port of a DPE is 8532",
            _ => "",
        };
        let file = at_hand.as_ref().map(|file| file.display().to_string());
        Self {
            host: format!("`ataccama.client.connection.{name}.host` in {own} names it"),
            port: format!(
                "`ataccama.client.connection.{name}.grpc.port` in {own} must be the peer's \
                 `ataccama.server.grpc.port`{usual}"
            ),
            kind: name.to_owned(),
            file: file.unwrap_or_else(|| format!("<the {name}'s file>")),
            at_hand,
            run: name.to_owned(),
            home: if home.is_dir() {
                home.display().to_string()
            } else {
                "<its home>".to_owned()
            },
            ..Self::of_itself(settings, own_home)
        }
    }

    /// What to do about the module itself.
    pub(super) fn of_itself(settings: &Settings, home: &Path) -> Self {
        let (module, file) = (&settings.own.module, &settings.home.file);
        let [host, port] = ["countersign.server.address", "ataccama.server.grpc.port"]
            .map(|name| format!("`{name}` in {} says where it listens", file.display()));
        Self {
            host,
            port,
            own: (module.clone(), file.clone()),
            kind: "<its peer>".to_owned(),
            file: "<the peer's file>".to_owned(),
            at_hand: None,
            run: module.to_string(),
            home: home.display().to_string(),
        }
    }

    /// What to do about an engine.
    pub(super) fn of_engine(settings: &Settings) -> Self {
        let [host, port] = ["hostname", "port"].map(|name| {
            format!("the engine advertises it: `ataccama.one.dpe.service.{name}` there")
        });
        Self {
            host,
            port,
            kind: "dpe".to_owned(),
            file: "<the engine's file>".to_owned(),
            run: "dpe".to_owned(),
            ..Self::of_itself(settings, Path::new("<its home>"))
        }
    }

    /// Says how the peer is started.
    pub(super) fn start(&self) -> String {
        let Self { run, home, .. } = self;
        format!("start it with: countersign {run} run --home {home}")
    }

    /// Says how both files are compared.
    pub(super) fn check(&self) -> String {
        format!("countersign check {} {}", self.own_file(), self.file)
    }

    /// Returns this module's file.
    pub(super) fn own_file(&self) -> String {
        self.own.1.display().to_string()
    }

    /// Says how to pair the two.
    ///
    /// If both files are here, the pairing is planned first: `pair` accepts the printed command.
    pub(super) fn pair(&self, tls: bool) -> String {
        let ((module, own), kind) = (&self.own, &self.kind);
        let (own, peer) = (own.display(), &self.file);
        let option = if tls { " --tls" } else { "" };
        let command = format!("countersign pair {kind}={peer} {module}={own}{option}");
        self.planned(&command, tls).unwrap_or(command)
    }

    /// Returns what corrects the two files in place of the pairing `command`, if that is refused.
    fn planned(&self, command: &str, tls: bool) -> Option<String> {
        let members = [
            (ModuleType::new(&self.kind).ok()?, self.at_hand.clone()?),
            self.own.clone(),
        ]
        .map(|(module, path)| Member {
            module,
            path,
            name: None,
            key: None,
        });
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
                    return key.map(|key| {
                        format!(
                            "if it is the same module with another key: {command} --key-name {key}"
                        )
                    });
                }
                Err(Kind::OtherKey) => {}
                Err(Kind::OtherOwner { path, found }) => {
                    let other = members.iter().find(|member| member.path != *path)?;
                    return Some(format!(
                        "write into {}: countersign.deployment.name={found}",
                        other.path.display()
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
