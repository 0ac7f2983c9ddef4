//! Whom to look at, and the commands that mend things there.

use std::path::Path;

use super::both_files::BothFiles;
use super::report::{Layer, Row};
use super::{Options, tls};
use crate::config::{ConnectionSettings, Settings};
use crate::grpc::tls::ClientTls;
use crate::grpc::{AttachIdentityLayer, Module, Target, cause};
use crate::identity::DeploymentName;

use super::report::{Fault, Side};

/// A module that is called: where it should be, and as whom.
#[derive(Debug)]
pub(super) struct Peer {
    /// What it is called.
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) tls: Option<ClientTls>,
    pub(super) allow_plaintext: bool,
    pub(super) identity: AttachIdentityLayer,
    pub(super) module: Module,
    pub(super) words: Words,
    deployment: Option<DeploymentName>,
}

/// What an operator does about a peer.
#[derive(Clone, Debug)]
pub(super) struct Words {
    /// Where its host is set.
    pub(super) host: String,
    /// Where its port is set.
    pub(super) port: String,
    /// How it is started.
    pub(super) start: String,
    /// How it says whom it trusts.
    pub(super) list: String,
    /// How both files are held against each other.
    pub(super) check: String,
    /// Whose files `pair` and `rotate` change.
    pub(super) both: BothFiles,
    /// This module's file.
    pub(super) file: String,
}

impl Peer {
    /// Takes the peer of `connection`.
    pub(super) fn at(
        connection: &ConnectionSettings,
        settings: &Settings,
        module: &Module,
        options: &Options,
    ) -> Result<Self, Row> {
        let unusable = |error: &dyn std::error::Error| {
            let words = words_of_connection(connection, settings, options);
            let fault = Fault::new(Side::Here, cause(error)).help(words.both.pair(false));
            Row::fail(Layer::Config, fault)
        };
        let named = connection.deployment.clone();
        let name = named.map_or_else(|| module.deployment_of(&connection.name), Ok);
        let name = name.map_err(|error| unusable(&error))?;
        let identity = module.client_layer(name.as_str());
        let tls = connection.tls.clone();
        let tls = tls.map(|options| module.client_tls(options)).transpose();
        let tls = tls.map_err(|error| Row::fail(Layer::Config, tls::unusable(&error)))?;
        Ok(Self {
            name: name.to_string(),
            target: Target::new(&connection.host, connection.port),
            tls: tls.map(|tls| tls.towards(&name)),
            allow_plaintext: settings.client.allow_plaintext,
            identity: identity.map_err(|error| unusable(&error))?,
            module: module.clone(),
            words: words_of_connection(connection, settings, options),
            deployment: Some(name),
        })
    }

    /// Takes the module of `settings` itself, as its operator calls it.
    pub(super) fn itself(
        settings: &Settings,
        module: &Module,
        options: &Options,
    ) -> Result<Self, Fault> {
        let host = settings.server.own_host().to_string();
        let tls = settings.server.tls.clone();
        let tls = tls.map(|server| module.own_module_tls(server)).transpose();
        let (home, file) = (options.home.display(), settings.home.file.display());
        let kind = &settings.own.module;
        Ok(Self {
            name: settings.own.issuer().to_owned(),
            target: Target::new(&host, settings.server.port),
            tls: tls.map_err(|error| tls::unusable(&error))?,
            allow_plaintext: true,
            identity: module.own_module_layer(),
            module: module.clone(),
            words: Words {
                host: format!("`countersign.server.address` in {file} says where it listens"),
                port: format!("`ataccama.server.grpc.port` in {file} says where it listens"),
                start: format!("start it with: countersign {kind} run --home {home}"),
                list: format!("countersign deployment list --home {home}"),
                check: format!("countersign check {file}"),
                both: BothFiles {
                    own: (kind.clone(), settings.home.file.clone()),
                    peer: ("<its peer>".to_owned(), "<the peer's file>".to_owned()),
                    at_hand: None,
                },
                file: file.to_string(),
            },
            deployment: None,
        })
    }

    /// Takes the engine of `owner` at `target`, as its DPM dials it back.
    pub(super) fn engine(
        owner: &DeploymentName,
        target: Target,
        settings: &Settings,
        module: &Module,
    ) -> Result<Self, Fault> {
        let here = |error: &dyn std::error::Error| Fault::new(Side::Here, cause(error));
        let identity = module.client_layer(owner.as_str());
        let tls = settings.client.dial_back_tls.clone();
        let tls = tls.map(|options| module.client_tls(options)).transpose();
        let file = settings.home.file.display();
        let kind = &settings.own.module;
        Ok(Self {
            name: owner.to_string(),
            target,
            tls: tls
                .map_err(|error| tls::unusable(&error))?
                .map(|tls| tls.towards(owner)),
            allow_plaintext: settings.client.allow_plaintext,
            identity: identity.map_err(|error| here(&error))?,
            module: module.clone(),
            words: Words {
                host: "the engine advertises it: `ataccama.one.dpe.service.hostname` there"
                    .to_owned(),
                port: "the engine advertises it: `ataccama.one.dpe.service.port` there".to_owned(),
                start: "start it with: countersign dpe run --home <its home>".to_owned(),
                list: "countersign deployment list --home <its home>".to_owned(),
                check: format!("countersign check {file} <the engine's file>"),
                both: BothFiles {
                    own: (kind.clone(), settings.home.file.clone()),
                    peer: ("dpe".to_owned(), "<the engine's file>".to_owned()),
                    at_hand: None,
                },
                file: file.to_string(),
            },
            deployment: Some(owner.clone()),
        })
    }

    /// Says who it is, and where.
    pub(super) fn title(&self) -> String {
        format!("{} at {}", self.name, self.target)
    }

    /// Returns on which side it is.
    pub(super) fn side(&self) -> Side {
        match self.deployment {
            Some(_) => Side::Peer,
            None => Side::Here,
        }
    }

    /// Returns its keys where each of them is revoked here: then no call can be made.
    pub(super) fn revoked_keys(&self) -> Option<Vec<String>> {
        let name = self.deployment.as_ref()?;
        let trust = self.module.trust().load();
        let deployment = trust.deployment(name.as_str())?;
        let names = deployment.keys.iter().map(|key| key.name.clone());
        deployment
            .active_keys()
            .next()
            .is_none()
            .then(|| names.collect())
    }

    /// Tells whether its certificate is pinned; the module's own is.
    pub(super) fn is_pinned(&self) -> bool {
        let Some(name) = &self.deployment else {
            return true;
        };
        let trust = self.module.trust().load();
        let deployment = trust.deployment(name.as_str());
        deployment.is_some_and(|found| !found.tls_pins.is_empty())
    }
}

fn words_of_connection(
    connection: &ConnectionSettings,
    settings: &Settings,
    options: &Options,
) -> Words {
    let name = &connection.name;
    let (own, kind) = (settings.home.file.display(), &settings.own.module);
    let home = options.home.with_file_name(name);
    let theirs = home.join("etc/application.properties");
    // The other home often lies beside this one; else it is on another machine.
    let at_hand = theirs.is_file().then_some(theirs);
    let theirs = match &at_hand {
        Some(file) => file.display().to_string(),
        None => format!("<the {name}'s file>"),
    };
    let usual = match name.as_str() {
        "dpm" => "; a DPM listens on 8531 where its file says nothing else",
        "dpe" => "; a DPE listens on 8532 where its file says nothing else",
        _ => "",
    };
    let shown = shown_home(&home);
    Words {
        host: format!("`ataccama.client.connection.{name}.host` in {own} names it"),
        port: format!(
            "`ataccama.client.connection.{name}.grpc.port` in {own} must be the peer's \
             `ataccama.server.grpc.port`{usual}"
        ),
        start: format!("start it with: countersign {name} run --home {shown}"),
        list: format!("countersign deployment list --home {shown}"),
        check: format!("countersign check {own} {theirs}"),
        both: BothFiles {
            own: (kind.clone(), settings.home.file.clone()),
            peer: (name.clone(), theirs),
            at_hand,
        },
        file: own.to_string(),
    }
}

fn shown_home(home: &Path) -> String {
    if home.is_dir() {
        home.display().to_string()
    } else {
        "<its home>".to_owned()
    }
}
