//! The files and commands that correct what is wrong between this module and a peer.

use std::path::{Path, PathBuf};

use crate::admin::error::{Kind, Refused};
use crate::admin::pairing::{self, Member};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Settings;
use crate::identity::{ModuleType, Role};

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
