//! The files and commands that correct what is wrong between this module and a peer.

use std::path::PathBuf;
use std::time::Duration;

use crate::admin::error::{Kind, Refused};
use crate::admin::pairing::{self, Member};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{ConnectionSettings, Settings};
use crate::identity::{ModuleType, Role};

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
    /// What to do about the peer of `connection`.
    pub(super) fn of_connection(
        connection: &ConnectionSettings,
        settings: &Settings,
        options: &Options,
    ) -> Self {
        let name = &connection.name;
        let own = settings.home.file.display();
        let home = options.home.with_file_name(name);
        // The other home often lies beside this one; else it is on another machine.
        let at_hand = home.join("etc/application.properties");
        let at_hand = at_hand.is_file().then_some(at_hand);
        let usual = match name.as_str() {
            "dpm" => "; the default port of a DPM is 8531",
            "dpe" => "; the default port of a DPE is 8532",
            _ => "",
        };
        Self {
            host: format!("`ataccama.client.connection.{name}.host` in {own} names it"),
            port: format!(
                "`ataccama.client.connection.{name}.grpc.port` in {own} must be the peer's \
                 `ataccama.server.grpc.port`{usual}"
            ),
            file: match &at_hand {
                Some(file) => file.display().to_string(),
                None => format!("<the {name}'s file>"),
            },
            at_hand,
            home: if home.is_dir() {
                home.display().to_string()
            } else {
                "<its home>".to_owned()
            },
            run: name.clone(),
            kind: name.clone(),
            own: own_file(settings),
        }
    }

    /// What to do about the module itself.
    pub(super) fn of_itself(settings: &Settings, options: &Options) -> Self {
        let file = settings.home.file.display();
        Self {
            host: format!("`countersign.server.address` in {file} says where it listens"),
            port: format!("`ataccama.server.grpc.port` in {file} says where it listens"),
            own: own_file(settings),
            kind: "<its peer>".to_owned(),
            file: "<the peer's file>".to_owned(),
            at_hand: None,
            run: settings.own.module.to_string(),
            home: options.home.display().to_string(),
        }
    }

    /// What to do about an engine.
    pub(super) fn of_engine(settings: &Settings) -> Self {
        Self {
            host: "the engine advertises it: `ataccama.one.dpe.service.hostname` there".to_owned(),
            port: "the engine advertises it: `ataccama.one.dpe.service.port` there".to_owned(),
            own: own_file(settings),
            kind: "dpe".to_owned(),
            file: "<the engine's file>".to_owned(),
            at_hand: None,
            run: "dpe".to_owned(),
            home: "<its home>".to_owned(),
        }
    }

    /// Says how the peer is started.
    pub(super) fn start(&self) -> String {
        let Self { run, home, .. } = self;
        format!("start it with: countersign {run} run --home {home}")
    }

    /// Says how the peer lists the deployments that it trusts.
    pub(super) fn list(&self) -> String {
        format!("countersign deployment list --home {}", self.home)
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
    /// Where both files are at hand it is planned first: what is printed is what `pair` accepts.
    pub(super) fn pair(&self, tls: bool) -> String {
        let (kind, module) = (&self.kind, &self.own.0);
        let tls_option = if tls { " --tls" } else { "" };
        let command = format!(
            "countersign pair {kind}={} {module}={}{tls_option}",
            self.file,
            self.own_file()
        );
        let Some(members) = self.members() else {
            return command;
        };
        for key in [None, Some("key2"), Some("key3"), Some("key4")] {
            let options = pairing::Options {
                environment: None,
                role: Role::impersonation(),
                key_name: key.map(str::to_owned),
                tls,
                now: SystemClock.now(),
            };
            let plan = pairing::plan(&members, None, &options);
            match (plan.as_ref().map_err(Refused::kind), key) {
                (Ok(_), Some(key)) => {
                    return format!(
                        "if it is the same module with another key: {command} --key-name {key}"
                    );
                }
                (Err(Kind::OtherKey), _) => {}
                (Err(Kind::OtherOwner { path, found }), _) => {
                    let [peer, this] = &members;
                    let named = if *path == this.path { peer } else { this };
                    let named = named.path.display();
                    return format!("write into {named}: countersign.deployment.name={found}");
                }
                _ => return command,
            }
        }
        command
    }

    /// Says how this module gets a new key.
    pub(super) fn rotate_own(&self) -> String {
        rotate(&self.own_file(), &self.file)
    }

    /// Says how the peer gets a new key.
    pub(super) fn rotate_peer(&self) -> String {
        rotate(&self.file, &self.own_file())
    }

    fn members(&self) -> Option<[Member; 2]> {
        let (module, own) = self.own.clone();
        let peer = ModuleType::new(&self.kind).ok()?;
        Some(
            [(peer, self.at_hand.clone()?), (module, own)].map(|(module, path)| Member {
                module,
                path,
                name: None,
                key: None,
            }),
        )
    }
}

fn own_file(settings: &Settings) -> (ModuleType, PathBuf) {
    (settings.own.module.clone(), settings.home.file.clone())
}

/// No peer accepts the old key any more, so there is nothing to wait for.
fn rotate(file: &str, peer: &str) -> String {
    format!("countersign rotate run --file {file} --peer-file {peer} --now")
}
