//! The module to call: where and which one it should be, and what an operator does about it.

use std::error::Error;
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::report::{Help, Layer, Row, Side};
use crate::admin::error::Kind;
use crate::admin::pairing::{self, Member};
use crate::config::names::OWN_NAME;
use crate::config::{
    ConnectionSettings, DIAL_BACK, Home, ModuleKind, Settings, default_grpc_port, replacing,
};
use crate::diagnostic::CommandLine;
use crate::engine::EngineAddress;
use crate::grpc::{
    AttachIdentityLayer, ConnectionOptions, Module, Target, UnknownDeployment, cause,
};
use crate::identity::{DeploymentName, ModuleType};
use crate::properties::name::same;
use crate::proto::registry::Engine;
use crate::registry::{AddressPolicy, Destination};
use crate::token::Reason;
use crate::trust::Deployment;

/// How to examine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The module's home, as the user named it: for the commands that the doctor suggests.
    pub home: PathBuf,
    /// The one peer to examine, in any spelling: the name, deployment or `host:port` of a connection
    /// or of this module; or an engine's id, its beginning, or its deployment, module or
    /// `host:port`. All if it is `None`.
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
    /// Returns `true` if `name` is that of `connection`, its deployment or `host:port`.
    pub(super) fn is_called(&self, connection: &ConnectionSettings, name: &str) -> bool {
        let deployment = self.deployment_of(connection);
        let mut targets = connection.targets();
        same(&connection.name, name)
            || deployment.is_ok_and(|deployment| same(deployment.as_str(), name))
            || targets.any(|target| is_target(target, name))
    }

    fn deployment_of(
        &self,
        connection: &ConnectionSettings,
    ) -> Result<DeploymentName, UnknownDeployment> {
        let named = connection.deployment.clone();
        named.map_or_else(|| self.module.deployment_of(&connection.name), Ok)
    }

    /// Returns the peer of `connection` at `target`, one of its own.
    pub(super) fn to(
        &self,
        connection: &ConnectionSettings,
        target: &Target,
    ) -> Result<Peer<'_>, Row> {
        let (name, settings) = (&connection.name, self.settings);
        let own = settings.home.file.display();
        // The other home often lies beside this one; else it is on another machine.
        let home = &self.options.home;
        let beside = match home.file_name() {
            Some(_) => home.with_file_name(name),
            None => home.join("..").join(name),
        };
        let is_here = beside.join(FILE).is_file();
        let kind = ModuleType::new(name)
            .map(|module| ModuleKind::of(&module))
            .ok();
        let default = kind.as_ref().and_then(default_grpc_port);
        let usual = default.map_or_else(String::new, |port| {
            format!("; the default port of a {} is {port}", name.to_uppercase())
        });
        let [host, port] = if connection.others.is_empty() {
            [".host", ".grpc.port"].map(|end| format!("ataccama.client.connection.{name}{end}"))
        } else {
            [(); 2].map(|()| format!("countersign.client.connection.{name}.addresses"))
        };
        let remedy = Remedy {
            settings,
            host: format!("`{host}` in {own} names it"),
            port: format!(
                "`{port}` in {own} must be the peer's `ataccama.server.grpc.port`{usual}"
            ),
            kind: name.clone(),
            other: if is_here {
                Other::Here(beside)
            } else {
                Other::There
            },
        };
        let known = self.deployment_of(connection);
        let deployment = known.map_err(|error| unusable(&error).helps(remedy.pair(false)))?;
        self.peer(deployment, target.clone(), name, remedy)
    }

    /// Returns `engine` as its DPM dials it back.
    pub(super) fn engine(&self, engine: &Engine) -> Result<Peer<'_>, Row> {
        let owner = DeploymentName::new(&engine.deployment).map_err(|error| unusable(&error))?;
        let advertised = engine.address.clone().unwrap_or_default();
        let address = EngineAddress::try_from(&advertised).map_err(|error| unusable(&error))?;
        let remedy = self.remedy_of_engine();
        let target = Target::new(address.hostname(), address.port());
        Ok(Peer {
            engine: Some(address),
            ..self.peer(owner, target, DIAL_BACK, remedy)?
        })
    }

    /// Returns what is done about an engine.
    pub(super) fn remedy_of_engine(&self) -> Remedy<'_> {
        Remedy {
            settings: self.settings,
            host: "the engine advertises it: `ataccama.one.dpe.service.hostname` there".to_owned(),
            port: "the engine advertises it: `ataccama.one.dpe.service.port` there".to_owned(),
            kind: "dpe".to_owned(),
            other: Other::There,
        }
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
            identity: identity.map_err(|error| unusable(&error).helps(remedy.pair(false)))?,
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
                kind: settings.own.module.to_string(),
                other: Other::Itself(self.options.home.clone()),
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
        let server = &options.server;
        let own = [
            (server.address, server.port),
            (server.http_address, server.http_port),
        ];
        let destination = Destination {
            deployment: &self.name,
            address,
            // Only the registry knows, and it did not refuse.
            over_loopback: true,
        };
        let addresses: Vec<_> = resolved.iter().map(SocketAddr::ip).collect();
        let policy = AddressPolicy::new(
            own.map(SocketAddr::from).to_vec(),
            options.addresses.clone(),
        );
        let judged = policy.check(&destination, &addresses, |_| false);
        judged.map_err(|refusal| {
            let detail = format!("ADDRESS_NOT_ALLOWED: {refusal}");
            Row::fail(Layer::Name, Side::Between, detail).help(Reason::AddressNotAllowed.explain())
        })
    }

    /// Returns what is trusted here of its deployment; `None` for this module itself.
    pub(super) fn trusted(&self) -> Option<Arc<Deployment>> {
        let name = self.deployment.as_ref()?;
        let trust = self.doctor.module.trust().current();
        trust.deployment(name.as_str()).cloned()
    }
}

/// Returns `true` if `name` is `target`.
pub(super) fn is_target(target: &Target, name: &str) -> bool {
    target.to_string().eq_ignore_ascii_case(name)
}

/// Makes the row of settings that cannot be used.
pub(super) fn unusable(error: &(dyn Error + 'static)) -> Row {
    Row::fail(Layer::Config, Side::Here, cause(error))
}

/// A module's file in its home.
const FILE: &str = Home::FILE;

/// The files that two machines exchange.
const OFFER: &str = "offer.block";
const REPLY: &str = "reply.block";

/// Where a peer's home is.
#[derive(Debug)]
enum Other {
    /// One with its home on this machine.
    Here(PathBuf),
    /// One on another machine.
    There,
    /// The module that is examined, with its home.
    Itself(PathBuf),
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
    other: Other,
}

impl Remedy<'_> {
    /// Says how both files are compared.
    pub(super) fn check(&self) -> Vec<Help> {
        let check = CommandLine::new("countersign check").arg(&self.settings.home.file);
        match &self.other {
            Other::Here(home) => vec![check.arg(home.join(FILE)).into()],
            Other::Itself(_) => vec![check.into()],
            Other::There => {
                let there = CommandLine::new("countersign check").arg(FILE);
                vec![check.into(), on_its_host(there)]
            }
        }
    }

    /// Returns this module's file.
    pub(super) fn own_file(&self) -> String {
        self.settings.home.file.display().to_string()
    }

    /// Says how the peer is started.
    pub(super) fn start(&self) -> Help {
        if !["dpm", "dpe"].contains(&self.kind.as_str()) {
            return "start it".into();
        }
        let run = CommandLine::new("countersign").arg(&self.kind).arg("run");
        let words = match self.other {
            Other::There => "start it",
            Other::Here(_) | Other::Itself(_) => "start it with:",
        };
        self.at_peer(|home| run.option("home", home)).after(words)
    }

    /// Returns a command for the peer's home; for one on another machine it says where to run it.
    pub(super) fn at_peer(&self, command: impl FnOnce(&Path) -> CommandLine) -> Help {
        match &self.other {
            Other::Here(home) | Other::Itself(home) => command(home).into(),
            Other::There => on_its_host(command(Path::new("."))),
        }
    }

    /// Says how to pair the two.
    ///
    /// If both files are here, the pairing is planned first: `pair` accepts the printed command.
    pub(super) fn pair(&self, tls: bool) -> Vec<Help> {
        let own = &self.settings.own.module;
        let home = match &self.other {
            Other::Here(home) => home,
            Other::There => return self.exchange(tls),
            Other::Itself(_) => return Vec::new(),
        };
        let pair = CommandLine::new("countersign pair").named(&self.kind, home.join(FILE));
        let both = pair.named(own, &self.settings.home.file);
        let command = both.flag_if(tls, "tls");
        let planned = self.planned(home, &command, tls);
        planned.unwrap_or_else(|| vec![command.into()])
    }

    /// Says how the peer comes to listen for others than its own host, which dial it at `host`.
    pub(super) fn listen(&self, host: &str) -> Vec<Help> {
        let setting = "`countersign.server.address` in its file says where it listens";
        let words = "`countersign pair --address` has it listen for other hosts";
        let Other::Here(home) = &self.other else {
            return vec![setting.into(), words.into()];
        };
        let (own, file) = (&self.settings.own.module, &self.settings.home.file);
        let pair = CommandLine::new("countersign pair").named(&self.kind, home.join(FILE));
        let both = pair.named(own, file);
        let command = both.option("address", format!("{}={host}", self.kind));
        vec![setting.into(), Help::new(format!("{words}:"), command)]
    }

    /// Says how to pair the two over two machines.
    fn exchange(&self, tls: bool) -> Vec<Help> {
        let (own, file) = (&self.settings.own.module, &self.settings.home.file);
        let pair = CommandLine::new("countersign pair --one-side");
        let offer = pair.named(own, file).flag_if(tls, "tls");
        let accept = CommandLine::new("countersign pair accept");
        let first = accept
            .clone()
            .named(&self.kind, FILE)
            .option("block", OFFER);
        let back = accept.named(own, file).option("block", REPLY);
        let there = on_its_host(first.into_file(REPLY));
        vec![
            offer.into_file(OFFER).into(),
            there.after(format!("copy `{OFFER}` there;")),
            Help::new(format!("copy `{REPLY}` back; here:"), back),
        ]
    }

    /// Returns what corrects the two files in place of the pairing `command`, if that is refused.
    /// The peer's home is `home`.
    fn planned(&self, home: &Path, command: &CommandLine, tls: bool) -> Option<Vec<Help>> {
        let settings = self.settings;
        let members = [
            Member::new(ModuleType::new(&self.kind).ok()?, home.join(FILE)),
            Member::new(settings.own.module.clone(), settings.home.file.clone()),
        ];
        let options = pairing::Options {
            tls,
            ..pairing::Options::default()
        };
        let refused = pairing::plan(&members, None, &options).err()?;
        match refused.kind() {
            Kind::OtherKey(free) => {
                let with_key = command.clone().option("key-name", free);
                let words = "if it is the same module with another key:";
                let with_both = Help::new(words, with_key);
                let replace = refused.commands.iter();
                let lost = replace.map(|command| Help::new("if the first key is lost:", command));
                Some(iter::once(with_both).chain(lost).collect())
            }
            Kind::OtherOwner { path, found } => {
                let other = members.iter().find(|member| member.path != *path)?;
                let file = other.path.display();
                let line = format!("{OWN_NAME}={found}");
                Some(vec![Help::new(format!("write into {file}:"), line)])
            }
            _ => None,
        }
    }

    /// Says how this module, or else the peer, gets a new key.
    ///
    /// No peer still accepts the old key, so there is nothing to wait for.
    pub(super) fn rotate(&self, is_own: bool) -> Vec<Help> {
        let own = &self.settings.home.file;
        let Other::Here(home) = &self.other else {
            return self.replace_over_two(is_own);
        };
        let peer = &home.join(FILE);
        let (file, other) = if is_own { (own, peer) } else { (peer, own) };
        vec![replacing(file, &[other]).into()]
    }

    /// Says how one of the two gets a new key if they are on two machines.
    fn replace_over_two(&self, is_own: bool) -> Vec<Help> {
        let (own, file) = (&self.settings.own.module, &self.settings.home.file);
        let accept = CommandLine::new("countersign pair accept");
        if is_own {
            let replace = replacing(file, &[]).into_file(OFFER);
            let there = on_its_host(accept.named(&self.kind, FILE).option("block", OFFER));
            return vec![
                replace.into(),
                there.after(format!("copy `{OFFER}` there;")),
            ];
        }
        let there = on_its_host(replacing(Path::new("."), &[]).into_file(REPLY));
        let here = accept.named(own, file).option("block", REPLY);
        vec![
            there,
            Help::new(format!("copy `{REPLY}` here, then:"), here),
        ]
    }
}

/// Says where a command for another machine is run.
fn on_its_host(command: CommandLine) -> Help {
    Help::new("on its host, in its home folder:", command)
}
