//! One side of a pairing: what its file says, and what it must say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::member::{self, Member, Options};
use crate::admin::certificate::{self, Certificate};
use crate::admin::change::{EditedFile, PAIRED};
use crate::admin::deployments::{Peer, Trusts};
use crate::admin::error::{Kind, Refused};
use crate::admin::handover::{HandOver, Introduction, Purpose};
use crate::admin::setting::{Setting, as_a_module_reads, new_key, own_key, private_key};
use crate::admin::source::is_main;
use crate::clock::{Clock as _, SystemClock};
use crate::config::names::{DEPLOYMENTS, OWN_KEY, OWN_NAME, PINS};
use crate::config::{TlsEnd, replacing};
use crate::diagnostic::{CommandLine, Findings};
use crate::identity::{DeploymentName, Environment, NameError};
use crate::jose::{Fingerprint, KeyId, KeyMaterial, SigningKey, VerifyingKey};
use crate::properties::FileText;
use crate::properties::name::{same, uniform};

/// How many faults of a text are shown.
const MOST_FAULTS: usize = 20;

/// A module that is paired.
#[derive(Debug)]
pub struct Side {
    /// Its file.
    pub file: PathBuf,
    /// What the other side needs to trust it.
    pub hand_over: HandOver,
    /// Whether its key is made by the plan.
    pub is_key_new: bool,
    /// Whether it listens for its own host alone.
    pub is_local: bool,
    pub(super) certificate: Option<Certificate>,
    /// What its file must say of the module itself.
    pub(super) own: Vec<Setting>,
}

impl Side {
    /// Returns the fingerprint of its TLS certificate, and whether that is new; `None` without TLS.
    pub fn tls(&self) -> Option<(Fingerprint, bool)> {
        let own = self.certificate.as_ref()?;
        Some((own.fingerprint, !own.new.is_empty()))
    }
}

/// A module's file, and what it says.
pub(super) struct View<'a> {
    pub(super) member: &'a Member,
    text: Option<FileText>,
    pub(super) trusts: Trusts,
    /// The module's own key, if its file has one.
    key: Option<(SigningKey, KeyId)>,
}

impl<'a> View<'a> {
    /// Reads the file of `member`, which is paired with `peers`, if it exists.
    pub(super) fn read(member: &'a Member, peers: &[&Member]) -> Result<Self, Refused> {
        is_main(&member.path)?;
        let text = FileText::read_if_there(&member.path)?;
        let trusts = Trusts::of(as_a_module_reads(&member.path, text.as_ref())?, &[]);
        let document = trusts.file.document();
        let faults = document.faults().iter().take(MOST_FAULTS);
        let findings = Findings(faults.map(|fault| document.describe(fault)).collect());
        if findings.errors() > 0 {
            let message = "a file has faults that must be fixed first";
            return Err(Refused::new(Kind::Unreadable, message).with_findings(findings));
        }
        let mut view = Self {
            member,
            text,
            trusts,
            key: None,
        };
        let key = view.own_key();
        view.key = key.map_err(|refused| view.without_key(refused, peers))?;
        Ok(view)
    }

    /// Returns the key that the module has or gets.
    fn settle_key(&self) -> Result<(SigningKey, KeyId), Refused> {
        match (&self.member.key, &self.key) {
            (Some((wanted, _)), Some((found, _)))
                if wanted.verifying_key() != found.verifying_key() =>
            {
                let path = self.member.path.display();
                let message = format!("`{path}` already has a different private key");
                Err(Refused::new(Kind::Taken, message).with_help(
                    "a private key is never replaced; leave out `--key`, or remove it by hand",
                ))
            }
            (_, Some(key)) | (Some(key), None) => Ok(key.clone()),
            (None, None) => new_key(SystemClock.now()),
        }
    }

    /// Settles the name and the key of the module, for its file and for those of its `peers`.
    ///
    /// By default it has a name that is not `taken`.
    pub(super) fn settle(
        &self,
        peers: &[&View<'_>],
        taken: &BTreeSet<String>,
        options: &Options,
    ) -> Result<Side, Refused> {
        let member = self.member;
        let module = &member.module;
        let (key, key_id) = self.settle_key()?;
        let mut own = Vec::new();
        if self.key.is_none() {
            own.push(own_key(OWN_KEY, &key, &key_id));
        }
        let key_of = key.verifying_key();
        let (deployment, environment) = self.settle_name(peers, taken, options, key_of)?;
        if self.text(OWN_NAME).is_none() {
            own.push(Setting::new(OWN_NAME, deployment.as_str()));
        }
        let file = &self.trusts.file;
        if options.plaintext && self.has_tls() {
            let path = member.path.display();
            let message = format!("`{path}` has TLS on, which `--plaintext` does not turn off");
            return Err(Refused::new(Kind::Conflict, message).with_help("leave out `--plaintext`"));
        }
        let certificate = if options.tls {
            Some(Certificate::settle(&member.path, &deployment, file)?)
        } else {
            None
        };
        let address = member.address.as_ref();
        own.extend(address.iter().flat_map(|address| {
            address.settings(module, file, member.listen, certificate.is_some())
        }));
        let of = Introduction {
            module: module.clone(),
            environment,
            role: options.role.clone(),
            tls: certificate.as_ref().map(|own| own.fingerprint),
            address: address
                .map(|address| address.target(module, file))
                .transpose()?,
        };
        Ok(Side {
            file: member.path.clone(),
            hand_over: HandOver {
                purpose: Purpose::Pair(of),
                deployment,
                key_id,
                key: key_of.clone(),
            },
            is_key_new: member.key.is_none() && self.key.is_none(),
            is_local: !member.is_remote() && !member::is_open(file),
            certificate,
            own,
        })
    }

    /// Settles the name and the environment of the module with `key`.
    fn settle_name(
        &self,
        peers: &[&View<'_>],
        taken: &BTreeSet<String>,
        options: &Options,
        key: &VerifyingKey,
    ) -> Result<(DeploymentName, Environment), Refused> {
        let (member, module) = (self.member, &self.member.module);
        let path = member.path.display();
        let mut known = peers.iter().filter_map(|peer| {
            let owner = peer.trusts.owner_of(key)?;
            Some((owner, peer.trusts.environment(owner)))
        });
        let (owner, written) = known.next().unzip();
        let theirs = written
            .flatten()
            .and_then(|name| Environment::new(name).ok());
        let environment = match options.environment.clone().or(theirs) {
            Some(environment) => environment,
            None => Environment::new("dev").map_err(|error| no_name(member, error))?,
        };
        let found = self.text(OWN_NAME);
        let mut default = format!("{module}-{environment}");
        let mut number = 1;
        while taken.contains(&uniform(&default)) {
            number += 1;
            default = format!("{module}-{number}-{environment}");
        }
        let known = found.or(owner);
        let deployment = match &member.name {
            Some(name) if !known.is_some_and(|known| same(known, name.as_str())) => name.clone(),
            _ => DeploymentName::new(known.unwrap_or(&default))
                .map_err(|error| no_name(member, error))?,
        };
        match found {
            Some(found) if found != deployment.as_str() => {
                let message =
                    format!("`{path}` says that it is called `{found}`, not `{deployment}`");
                let help = format!("use that name: `--name {module}={found}`");
                Err(Refused::new(Kind::Taken, message).with_help(help))
            }
            _ => Ok((deployment, environment)),
        }
    }

    /// Returns the file of `side` as it must be, to trust `peers`, whose files may be here. They
    /// must have names and keys of their own.
    pub(super) fn trusting(
        &self,
        side: &Side,
        peers: &[(&HandOver, Option<&Path>)],
        options: &Options,
    ) -> Result<Vec<EditedFile>, Refused> {
        let mut settings = side.own.clone();
        let introduced: Vec<_> = peers
            .iter()
            .filter_map(|(peer, file)| match &peer.purpose {
                Purpose::Pair(of) => Some((*peer, of, *file)),
                Purpose::Rotate { .. } | Purpose::Replace => None,
            })
            .collect();
        for (peer, of, file) in &introduced {
            settings.extend(self.trust(side, (peer, of), *file, options)?);
        }
        let (file, path) = (&self.trusts.file, &self.member.path);
        if let Some(own) = &side.certificate {
            let modules = introduced.iter().map(|(_, of, _)| of.module.as_str());
            let has_others = !self.others(peers).is_empty();
            settings.extend(own.settings(file, &modules.collect(), has_others));
        }
        for (peer, of, _) in &introduced {
            let name = options.key_name.as_deref();
            if let Some(pin) = of.tls {
                settings.extend(certificate::pin(path, file, &peer.deployment, pin, name)?);
            }
        }
        let mut values = BTreeMap::new();
        for Setting { key, shown, .. } in &settings {
            if *values.entry(key).or_insert(shown) != shown {
                let message = format!("several modules would set `{key}` in `{}`", path.display());
                let help = "the file has one connection for each type: give the modules different types, or leave out their addresses";
                return Err(Refused::new(Kind::Usage, message).with_help(help));
            }
        }
        self.edited(&settings)
    }

    /// Returns what the file lacks to trust `peer`, and to call it.
    fn trust(
        &self,
        side: &Side,
        (peer, of): (&HandOver, &Introduction),
        file: Option<&Path>,
        options: &Options,
    ) -> Result<Vec<Setting>, Refused> {
        let (own, trusts) = (&side.hand_over, &self.trusts);
        if own.key == peer.key {
            let message = "both modules have the same private key; each needs its own";
            return Err(Refused::new(Kind::Unreadable, message));
        }
        if own.deployment.uniform() == peer.deployment.uniform() {
            let message = format!("both deployments would be called `{}`", own.deployment);
            return Err(Refused::new(Kind::Usage, message));
        }
        let is_set = trusts.environment(peer.deployment.as_str()).is_some();
        let given = (!is_set).then_some(&of.environment);
        let mut settings = trusts.settings_for(&Peer {
            name: &peer.deployment,
            module: &of.module,
            environment: options.environment.as_ref().or(given),
            key: &peer.key,
            key_id: &peer.key_id,
            key_name: options.key_name.as_deref(),
            roles: std::slice::from_ref(&options.role),
            file,
        })?;
        settings.extend(member::connection(
            self.member,
            &trusts.file,
            of,
            file.is_some(),
        ));
        Ok(settings)
    }

    /// Returns those that it trusts beside `peers`, and whose certificates it does not pin.
    fn others(&self, peers: &[(&HandOver, Option<&Path>)]) -> Vec<&str> {
        let file = &self.trusts.file;
        let mut others = file.names(DEPLOYMENTS, &[]);
        others.retain(|name| {
            let mut named = peers.iter().map(|(peer, _)| peer.deployment.as_str());
            !named.any(|peer| same(peer, name)) && file.names(PINS, &[name]).is_empty()
        });
        others
    }

    /// Fails if TLS would be turned on, and shut out a module that is not one of `peers`. They are
    /// those of `members`.
    pub(super) fn has_no_other_in_plaintext(
        &self,
        peers: &[(&HandOver, Option<&Path>)],
        members: &[&Member],
    ) -> Result<(), Refused> {
        let others = self.others(peers);
        let (Some(first), false) = (others.first(), self.has_tls()) else {
            return Ok(());
        };
        if peers.is_empty() && others.len() == 1 {
            // The one for which the block is made.
            return Ok(());
        }
        let mut command = CommandLine::new("countersign pair");
        for member in std::iter::once(&self.member).chain(members) {
            let module = &member.module;
            let named = member.name.as_ref().map(|name| format!("{name}:{module}"));
            command = command.named(named.unwrap_or_else(|| module.to_string()), &member.path);
        }
        for other in &others {
            let module = self.trusts.module(other).unwrap_or_default();
            command = command.named(module, format!("FILE-OF-{other}"));
        }
        let mut reached = std::iter::once(&self.member).chain(members);
        let addresses = reached.clone().filter_map(|member| {
            let address = member.address.as_ref()?;
            let name = member.name.as_ref().map(DeploymentName::as_str);
            let of = name.unwrap_or(member.module.as_str());
            Some(format!("{of}={address}"))
        });
        command = addresses.fold(command, |line, address| line.option("address", address));
        command = command.flag_if(!reached.any(|member| member.is_remote()), "tls");
        let path = self.member.path.display();
        let message =
            format!("`{path}` is paired with `{first}` in plaintext, which TLS would end");
        let help = "pair all of them with TLS in one command; those on other hosts first, with `--one-side`:";
        Err(Refused::new(Kind::Conflict, message)
            .with_help(help)
            .with_commands([command]))
    }

    /// Returns `true` if its listener has TLS.
    pub(super) fn has_tls(&self) -> bool {
        certificate::is_on(&self.trusts.file, TlsEnd::Server)
    }

    /// Returns `true` if it listens beyond its own host.
    pub(super) fn is_open(&self) -> bool {
        member::is_open(&self.trusts.file)
    }

    pub(super) fn edited(&self, settings: &[Setting]) -> Result<Vec<EditedFile>, Refused> {
        EditedFile::plan(&self.member.path, self.text.clone(), settings, Some(PAIRED))
    }

    /// Returns the value of `setting`, if it is set to anything.
    pub(super) fn text(&self, setting: &str) -> Option<&str> {
        member::value(&self.trusts.file, setting)
    }

    /// Reads the module's own key; `None` if it is not set, or is the guide's `<generated_key>`.
    fn own_key(&self) -> Result<Option<(SigningKey, KeyId)>, Refused> {
        let value = self.text(OWN_KEY).filter(|value| !value.starts_with('<'));
        let Some(value) = value else {
            return Ok(None);
        };
        let path = self.member.path.display();
        let cannot = format!("cannot use the module's own key in `{path}`");
        if value.contains("${") {
            let why = "it is a placeholder, which only the module resolves";
            let refused = Refused::new(Kind::Unreadable, format!("{cannot}: {why}"));
            return Err(refused.with_help("write the key itself there"));
        }
        let read = KeyMaterial::read(value.as_bytes());
        let (material, format) = read.map_err(Refused::caused(Kind::Unreadable, &*cannot))?;
        if !format.fits_a_setting() {
            let why = "it is neither a JWK nor base64 of one";
            return Err(Refused::new(Kind::Unreadable, format!("{cannot}: {why}")));
        }
        private_key(material, &cannot).map(Some)
    }

    /// Adds to `refused` how the module, whose key is broken, gets another.
    fn without_key(&self, refused: Refused, peers: &[&Member]) -> Refused {
        if refused.help.is_some() {
            return refused;
        }
        if self.trusts.keys.is_empty() {
            return refused.with_help(format!(
                "remove the line `{OWN_KEY}`, and run this command again: it makes a key"
            ));
        }
        let files: Vec<_> = peers.iter().map(|peer| &*peer.path).collect();
        refused
            .with_help("put the key back from a copy or, if it is lost, replace it:")
            .with_commands([replacing(&self.member.path, &files)])
    }
}

fn no_name(member: &Member, error: NameError) -> Refused {
    let path = member.path.display();
    let message = format!("`countersign.deployment.name` in `{path}` is not a name");
    Refused::caused(Kind::Unreadable, message)(error)
}
