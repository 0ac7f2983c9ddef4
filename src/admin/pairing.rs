//! Pairing: the vendor guide's procedure for two modules, as one plan for both files, or for the
//! one file that is on this machine.
//!
//! Both sides exchange the same [`HandOver`], whether both files are here or a block goes from one
//! machine to the other. A plan changes nothing, can be shown, and is then carried out whole or not
//! at all.

mod tls;

use std::path::{Path, PathBuf};

use tls::Certificate;

use super::change::{Change, EditedFile, PAIRED};
use super::deployments::{Peer, Trusts, revoked, trusting_too};
use super::error::{Kind, Refused};
use super::handover::{HandOver, Introduction, Purpose};
use super::setting::{
    Setting, as_a_module_reads, is_not_remembered, new_key, own_key, private_key,
};
use super::source::{SettingsFile, is_main};
use super::write::place_of;
use crate::clock::{Clock as _, SystemClock};
use crate::config::names::{OWN_KEY, OWN_NAME};
use crate::diagnostic::Findings;
use crate::identity::{DeploymentName, Environment, ModuleType, NameError, Role};
use crate::jose::{Fingerprint, KeyId, KeyMaterial, SigningKey};
use crate::properties::FileText;
use crate::properties::name::same;

/// How many faults of a text are shown.
const MOST_FAULTS: usize = 20;

/// One of the two modules.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its type, such as `dpm`.
    pub module: ModuleType,
    /// Its file, which may not exist yet.
    pub path: PathBuf,
    /// Its name; by default what the files say, else `<module>-<environment>`.
    pub name: Option<DeploymentName>,
    /// Its private key; by default the one in its file, else a new one.
    pub key: Option<(SigningKey, KeyId)>,
}

impl Member {
    /// Names the module of type `module` whose file is at `path`.
    pub fn new(module: ModuleType, path: PathBuf) -> Self {
        Self {
            module,
            path,
            name: None,
            key: None,
        }
    }
}

/// What applies to both sides.
#[derive(Clone, Debug)]
pub struct Options {
    /// The environment; by default what the files say, else `dev`.
    pub environment: Option<Environment>,
    /// The role each side gives the other.
    pub role: Role,
    /// The name of the keys below `jwt-keys`; by default the first free of `key`, `key2`, ….
    pub key_name: Option<String>,
    /// Whether both sides use TLS: each gets a certificate, and the other side's pin.
    pub tls: bool,
}

/// What pairing would change.
#[derive(Debug)]
pub struct Plan {
    /// The sides, in the order of the arguments; empty if only a key is accepted.
    pub sides: Vec<Side>,
    /// What would change, in the order of the sides.
    pub change: Change,
}

/// A module that is paired.
#[derive(Debug)]
pub struct Side {
    /// Its file.
    pub file: PathBuf,
    /// What the other side needs to trust it.
    pub hand_over: HandOver,
    /// Whether its key is made by the plan.
    pub is_key_new: bool,
    certificate: Option<Certificate>,
    /// What its file must say of the module itself.
    own: Vec<Setting>,
}

/// Plans the pairing of one or two modules whose files are here. Nothing is written.
///
/// One module gets its own settings: its key and its name. With `theirs`, the other machine's
/// block, it also trusts another module, or another key of a module that it trusts. A module that
/// has a key keeps it. An existing private key, name, or trusted key is never replaced.
///
/// # Errors
///
/// When a file cannot be read, or pairing would have to replace something in it; when the file does
/// not trust the key that signs for the module of a new key.
pub fn plan(
    members: &[Member],
    theirs: Option<&HandOver>,
    options: &Options,
) -> Result<Plan, Refused> {
    if let [first, second] = members
        && place_of(&first.path)? == place_of(&second.path)?
    {
        let message = "both modules have the same file";
        return Err(Refused::new(Kind::Usage, message));
    }
    let mut options = options.clone();
    match (theirs.map(|theirs| (theirs, &theirs.purpose)), members) {
        (Some((theirs, Purpose::Rotate { signs })), [member]) => {
            return accept_key(&member.path, theirs, *signs);
        }
        (Some((_, Purpose::Pair(theirs))), _) => {
            let environment = &mut options.environment;
            environment.get_or_insert_with(|| theirs.environment.clone());
            options.tls |= theirs.tls.is_some();
        }
        _ => {}
    }
    let views = members
        .iter()
        .map(View::read)
        .collect::<Result<Vec<_>, _>>()?;
    let mut sides = Vec::new();
    for (at, view) in views.iter().enumerate() {
        sides.push(view.settle(other(&views, at), &options)?);
    }
    let mut files = Vec::new();
    for (at, (view, side)) in views.iter().zip(&sides).enumerate() {
        let peer = other(&sides, at).map(|peer| &peer.hand_over);
        let file = other(members, at).map(|peer| peer.path.as_path());
        files.extend(view.trusting(side, peer.or(theirs), file, &options)?);
    }
    let certificates = sides.iter().filter_map(|side| side.certificate.as_ref());
    let mut first: Vec<_> = certificates.flat_map(|own| own.new.clone()).collect();
    // A certificate comes after its key.
    first.reverse();
    // No file names a key that could still be lost: the second side's new key is written before the
    // first file, which trusts it, and that side's before the second file trusts it.
    if let ([_, view], [_, side]) = (views.as_slice(), sides.as_slice())
        && side.is_key_new
    {
        first.extend(view.edited(&side.own)?);
    }
    let change = Change::checked(files, first)?;
    Ok(Plan { sides, change })
}

fn accept_key(path: &Path, theirs: &HandOver, signs: Fingerprint) -> Result<Plan, Refused> {
    is_not_remembered(path, &theirs.key)?;
    let file = SettingsFile::read(path)?;
    let known = file.find(&theirs.deployment);
    let trusting = known.filter(|known| known.key(signs).is_some_and(|key| !key.revoked));
    let deployment = trusting.ok_or_else(|| {
        let (path, name) = (path.display(), &theirs.deployment);
        let message = format!("`{path}` does not trust `{signs}` as a key of `{name}`");
        Refused::new(Kind::Conflict, message)
            .with_help("pair the two modules first; only a trusted module can hand over a new key")
    })?;
    let settings = match deployment.key(theirs.key.fingerprint()) {
        None => trusting_too(deployment, &theirs.key, &theirs.key_id),
        Some(key) if key.revoked => {
            let key = theirs.key.fingerprint();
            return Err(revoked(path, key, &theirs.deployment, None));
        }
        Some(_) => Vec::new(),
    };
    Ok(Plan {
        sides: Vec::new(),
        change: file.change(file.edited(&settings)?)?,
    })
}

impl Side {
    /// Returns the fingerprint of its TLS certificate, and whether that is new; `None` without TLS.
    pub fn tls(&self) -> Option<(Fingerprint, bool)> {
        let own = self.certificate.as_ref()?;
        Some((own.fingerprint, !own.new.is_empty()))
    }
}

/// A module's file, and what it says.
struct View<'a> {
    member: &'a Member,
    text: Option<FileText>,
    trusts: Trusts,
    /// The module's own key, if its file has one.
    key: Option<(SigningKey, KeyId)>,
}

/// Returns the one of two that is not at `at`.
fn other<T>(both: &[T], at: usize) -> Option<&T> {
    both.get(1_usize.checked_sub(at)?)
}

impl<'a> View<'a> {
    /// Reads the file of `member`, if it exists.
    fn read(member: &'a Member) -> Result<Self, Refused> {
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
        view.key = view.own_key()?;
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

    /// Settles the name and the key of the module, for its file and for that of its `peer`.
    fn settle(&self, peer: Option<&View<'_>>, options: &Options) -> Result<Side, Refused> {
        let member = self.member;
        let path = member.path.display();
        let (key, key_id) = self.settle_key()?;
        let mut own = Vec::new();
        if self.key.is_none() {
            own.push(own_key(OWN_KEY, &key, &key_id));
        }
        let trusts = peer.map(|peer| &peer.trusts);
        let owner = trusts.and_then(|trusts| trusts.owner_of(key.verifying_key()));
        let theirs = trusts.and_then(|trusts| Environment::new(trusts.environment(owner?)?).ok());
        let environment = match options.environment.clone().or(theirs) {
            Some(environment) => environment,
            None => Environment::new("dev").map_err(|error| no_name(member, error))?,
        };
        let found = self.text(OWN_NAME);
        let default = format!("{}-{environment}", member.module);
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
                let help = format!("use that name: `--name {}={found}`", member.module);
                return Err(Refused::new(Kind::Taken, message).with_help(help));
            }
            Some(_) => {}
            None => own.push(Setting::new(OWN_NAME, deployment.as_str())),
        }
        let file = &self.trusts.file;
        let certificate = if options.tls {
            Some(Certificate::settle(&member.path, &deployment, file)?)
        } else {
            None
        };
        let of = Introduction {
            module: member.module.clone(),
            environment,
            role: options.role.clone(),
            tls: certificate.as_ref().map(|own| own.fingerprint),
        };
        Ok(Side {
            file: member.path.clone(),
            hand_over: HandOver {
                purpose: Purpose::Pair(of),
                deployment,
                key_id,
                key: key.verifying_key().clone(),
            },
            is_key_new: member.key.is_none() && self.key.is_none(),
            certificate,
            own,
        })
    }

    /// Returns the file of `side` as it must be, to trust `peer` if there is one, whose file may be
    /// here. The peer must have a name and a key of its own.
    fn trusting(
        &self,
        side: &Side,
        peer: Option<&HandOver>,
        file: Option<&Path>,
        options: &Options,
    ) -> Result<Vec<EditedFile>, Refused> {
        let (own, trusts) = (&side.hand_over, &self.trusts);
        let mut settings = side.own.clone();
        let introduced = peer.and_then(|peer| match &peer.purpose {
            Purpose::Pair(of) => Some((peer, of)),
            Purpose::Rotate { .. } => None,
        });
        if let Some((peer, of)) = introduced {
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
            settings.extend(trusts.settings_for(&Peer {
                name: &peer.deployment,
                module: &of.module,
                environment: options.environment.as_ref().or(given),
                key: &peer.key,
                key_id: &peer.key_id,
                key_name: options.key_name.as_deref(),
                roles: std::slice::from_ref(&options.role),
                file,
            })?);
        }
        if let Some(own) = &side.certificate {
            let module = introduced.map(|(_, of)| of.module.as_str());
            settings.extend(own.settings(&trusts.file, module));
        }
        if let Some((peer, of)) = introduced
            && let Some(pin) = of.tls
        {
            let (path, name) = (&self.member.path, options.key_name.as_deref());
            settings.extend(tls::pin(path, &trusts.file, &peer.deployment, pin, name)?);
        }
        self.edited(&settings)
    }

    fn edited(&self, settings: &[Setting]) -> Result<Vec<EditedFile>, Refused> {
        EditedFile::plan(&self.member.path, self.text.clone(), settings, Some(PAIRED))
    }

    /// Returns the value of `setting`, if it is set to anything.
    fn text(&self, setting: &str) -> Option<&str> {
        let value = self.trusts.file.text(setting, &[])?;
        (!value.is_empty()).then_some(value)
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
            return Err(Refused::new(Kind::Unreadable, format!("{cannot}: {why}")));
        }
        let read = KeyMaterial::read(value.as_bytes());
        let (material, _) = read.map_err(Refused::caused(Kind::Unreadable, &*cannot))?;
        private_key(material, &cannot).map(Some)
    }
}

fn no_name(member: &Member, error: NameError) -> Refused {
    let path = member.path.display();
    let message = format!("`countersign.deployment.name` in `{path}` is not a name");
    Refused::caused(Kind::Unreadable, message)(error)
}

#[cfg(test)]
mod tests;
