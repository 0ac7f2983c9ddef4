//! Pairing: what the vendor's guide does by hand for two modules, as one plan for two files, or for
//! the one of them that is here.
//!
//! Both sides exchange the same [`HandOver`], whether both files are here or a block goes from one
//! machine to the other. A plan is made without touching anything, can be shown, and is then carried
//! out whole or not at all. Made again from its own result it is empty; that is checked before
//! anything is written.

mod tls;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::change::Change;
use super::edited::{EditedFile, OWN_KEY, PAIRED, Setting, new_key, own_key, read};
use super::error::{Kind, Refused};
use super::handover::{HandOver, Introduction, Purpose};
use super::source::SettingsFile;
use super::trusts::{Peer, Trusts, revoked, trusting_too};
use super::write::same_file;
use crate::config::AsWritten;
use crate::identity::{DeploymentName, Environment, ModuleType, NameError, Role};
use crate::jose::{Fingerprint, KeyId, KeyMaterial, SigningKey, published};
use crate::properties::FileText;
use tls::Certificate;

const OWN_NAME: &str = "countersign.deployment.name";
const GRPC_PORT: &str = "ataccama.server.grpc.port";

/// One of the two modules.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its type, such as `dpm`.
    pub module: ModuleType,
    /// Its file, which need not be there yet.
    pub path: PathBuf,
    /// What it is to be called; by default what the files say, else `<module>-<environment>`.
    pub name: Option<DeploymentName>,
    /// The private key it is to use; by default the one its file has, else a new one.
    pub key: Option<(SigningKey, KeyId)>,
}

/// What the two sides have in common.
#[derive(Clone, Debug)]
pub struct Options {
    /// The environment; by default what the files say, else `dev`.
    pub environment: Option<Environment>,
    /// The role each side gives the other.
    pub role: Role,
    /// The name of the keys below `jwt-keys`; by default the first free of `key`, `key2`, ….
    pub key_name: Option<String>,
    /// Whether both sides talk TLS: each gets a certificate, and the other one's pin.
    pub tls: bool,
    /// What time it is: a new key says when it was made.
    pub now: SystemTime,
}

/// What pairing would change.
#[derive(Debug)]
pub struct Plan {
    sides: Vec<Side>,
    change: Change,
}

/// A module that is paired.
#[derive(Debug)]
pub struct Side {
    /// What the other side needs to trust it.
    pub hand_over: HandOver,
    /// Whether its key is made by the plan.
    pub is_key_new: bool,
    /// The gRPC port that it listens on.
    pub port: u16,
    certificate: Option<Certificate>,
}

/// Plans the pairing of one or two modules whose files are here. Nothing is written.
///
/// One module gets its own part, its key and its name. With what was handed over, `theirs`, it also
/// trusts that: another module, or another key of a module that it trusts. New keys are made only
/// where there is none. See [`Refused`] for what stands in the way; a private key, a name, or a
/// trusted key that is there already is never replaced.
///
/// # Errors
///
/// When a file cannot be read, or holds something that pairing would have to replace; when the file
/// does not trust the key that hands over.
pub fn plan(
    members: &[Member],
    theirs: Option<&HandOver>,
    options: &Options,
) -> Result<Plan, Refused> {
    if let [first, second] = members
        && same_file(&first.path, &second.path)?
    {
        let message = "both modules have the same file";
        return Err(Refused::new(Kind::Usage, message));
    }
    let mut options = options.clone();
    match theirs.map(|theirs| (theirs, &theirs.purpose)) {
        None => {}
        Some((theirs, Purpose::Rotate { signs })) => {
            if let Some(member) = members.first() {
                return accept_key(&member.path, theirs, *signs);
            }
        }
        Some((_, Purpose::Pair(theirs))) => {
            let environment = || Some(theirs.environment.clone());
            options.environment = options.environment.or_else(environment);
            options.tls |= theirs.tls.is_some();
        }
    }
    let views = members
        .iter()
        .map(|member| View::read(member, read(&member.path)?));
    let views: Vec<_> = views.collect::<Result<_, Refused>>()?;
    let mut drafts = drafted(&views, &options)?;
    for draft in &mut drafts {
        draft.certify(&options)?;
    }
    let files = edited(&drafts, theirs, &options)?;
    let after = members.iter().zip(&files);
    let after = after.map(|(member, file)| View::read(member, Some(file.after()?)));
    let after: Vec<_> = after.collect::<Result<_, Refused>>()?;
    let mut again = drafted(&after, &options)?;
    for (again, draft) in again.iter_mut().zip(&drafts) {
        again.take_certificate(draft.side.certificate.clone());
    }
    let again = edited(&again, theirs, &options)?;
    if let Some(file) = again.iter().find(|file| !file.is_empty()) {
        return Err(Refused::internal(file.path()));
    }
    // No file names a key that could still be lost: the second side's new key is written before the
    // first file, which trusts it, and that side's before the second file trusts it.
    let first = match drafts.as_slice() {
        [_, second] if second.side.is_key_new => Some(second.edited(&second.own_settings()?)),
        _ => None,
    };
    let sides: Vec<_> = drafts.into_iter().map(|draft| draft.side).collect();
    let certificates = sides.iter().filter_map(|side| side.certificate.as_ref());
    let new_files = certificates.flat_map(|own| own.new.clone());
    let change = Change::checked(files, first, new_files.collect())?;
    Ok(Plan { sides, change })
}

fn accept_key(path: &Path, theirs: &HandOver, signs: Fingerprint) -> Result<Plan, Refused> {
    let file = SettingsFile::read(path)?;
    let deployment = file.find(&theirs.deployment).filter(|known| {
        let mut keys = known.active_keys();
        keys.any(|key| key.key.fingerprint() == signs)
    });
    let deployment = deployment.ok_or_else(|| {
        let (path, name) = (path.display(), &theirs.deployment);
        let message = format!("`{path}` does not trust `{signs}` as a key of `{name}`");
        Refused::new(Kind::Conflict, message)
            .with_help("pair the two first; a key is handed over by the module that is trusted")
    })?;
    let known = deployment.keys.iter().find(|key| key.key == theirs.key);
    let settings = match known {
        None => trusting_too(deployment, &theirs.key, &theirs.key_id),
        Some(key) if key.revoked => return Err(revoked(path, &theirs.deployment)),
        Some(_) => Vec::new(),
    };
    Ok(Plan {
        sides: Vec::new(),
        change: file.change(&settings, None)?,
    })
}

impl Plan {
    /// Returns the sides, in the order of the arguments; none where only a key is accepted.
    pub fn sides(&self) -> &[Side] {
        &self.sides
    }

    /// Returns what would change: a file for each of the sides, in their order.
    pub fn change(&self) -> &Change {
        &self.change
    }
}

impl Side {
    /// Returns the deployment's name.
    pub fn name(&self) -> &str {
        self.hand_over.deployment.as_str()
    }

    /// Returns the fingerprint of its key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.hand_over.key.fingerprint()
    }

    /// Returns the fingerprint of its TLS certificate, where it gets one or the other side its pin.
    pub fn tls_fingerprint(&self) -> Option<Fingerprint> {
        Some(self.certificate.as_ref()?.fingerprint)
    }

    /// Returns the TLS files that would be made, the certificate first.
    pub fn tls_files(&self) -> impl Iterator<Item = &Path> {
        let files = self.certificate.iter().flat_map(|own| &own.new);
        files.map(|file| file.path.as_path())
    }
}

/// A module's file, and what it says.
struct View<'a> {
    member: &'a Member,
    text: Option<FileText>,
    file: AsWritten,
    trusts: Trusts,
    key: Option<(SigningKey, KeyId)>,
}

/// One side: its name and key, wherever they came from.
struct Draft<'a> {
    view: &'a View<'a>,
    key: SigningKey,
    side: Side,
}

/// Settles the names and keys of the sides with these files.
fn drafted<'a>(views: &'a [View<'a>], options: &Options) -> Result<Vec<Draft<'a>>, Refused> {
    let drafts = views.iter().enumerate();
    let drafts = drafts.map(|(at, view)| Draft::settle(view, other(views, at), options));
    drafts.collect()
}

/// Returns the one of two that is not at `at`.
fn other<T>(both: &[T], at: usize) -> Option<&T> {
    let mut all = both.iter().enumerate();
    all.find_map(|(here, one)| (here != at).then_some(one))
}

/// Plans what the files of `drafts` must say, so that they trust each other, or what `theirs` says.
fn edited(
    drafts: &[Draft<'_>],
    theirs: Option<&HandOver>,
    options: &Options,
) -> Result<Vec<EditedFile>, Refused> {
    let hand_overs: Vec<_> = drafts.iter().map(|draft| &draft.side.hand_over).collect();
    let mut files = Vec::new();
    for (at, draft) in drafts.iter().enumerate() {
        let mut settings = draft.own_settings()?;
        let View { member, file, .. } = draft.view;
        let peer = other(&hand_overs, at).copied().or(theirs);
        let peer = peer.and_then(|peer| Some((peer, peer.introduction()?)));
        if let Some((peer, introduction)) = peer {
            settings.extend(draft.trusting(peer, introduction, options)?);
        }
        let introduction = peer.map(|(_, introduction)| introduction);
        if let Some(own) = &draft.side.certificate {
            let module = introduction.map(|of| of.module.as_str());
            settings.extend(own.settings(file, module));
        }
        let pin = introduction.and_then(|of| of.tls);
        if let (Some((peer, _)), Some(pin)) = (peer, pin) {
            let name = options.key_name.as_deref();
            settings.extend(tls::pin(&member.path, file, &peer.deployment, pin, name)?);
        }
        files.push(draft.edited(&settings));
    }
    Ok(files)
}

impl<'a> Draft<'a> {
    fn settle(
        view: &'a View<'a>,
        peer: Option<&View<'_>>,
        options: &Options,
    ) -> Result<Self, Refused> {
        let (member, no_name) = (view.member, |error| no_name(&view.member.path, error));
        let (key, key_id, is_key_new) = match (&member.key, &view.key) {
            (Some((wanted, _)), Some((found, _)))
                if wanted.verifying_key() != found.verifying_key() =>
            {
                let path = member.path.display();
                let message = format!("`{path}` has a private key already, and it is another one");
                return Err(Refused::new(Kind::Taken, message).with_help(
                    "a private key is never replaced; leave out `--key`, or remove it by hand",
                ));
            }
            (_, Some((key, kid))) | (Some((key, kid)), None) => (key.clone(), kid.clone(), false),
            (None, None) => {
                let key = new_key(options.now)?;
                let kid = KeyId::from(key.fingerprint());
                (key, kid, true)
            }
        };
        let owner = peer.and_then(|peer| peer.trusts.owner_of(key.verifying_key()));
        let known = owner.and_then(|owner| Environment::new(owner.environment.as_deref()?).ok());
        let environment = match options.environment.clone().or(known) {
            Some(environment) => environment,
            None => Environment::new("dev").map_err(no_name)?,
        };
        let own = view.text(OWN_NAME);
        let name = match (&member.name, own.or_else(|| Some(owner?.name.as_str()))) {
            (Some(name), _) => name.clone(),
            (None, Some(known)) => DeploymentName::new(known).map_err(no_name)?,
            (None, None) => {
                let name = format!("{}-{environment}", member.module);
                DeploymentName::new(&name).map_err(no_name)?
            }
        };
        let port = view.text(GRPC_PORT).and_then(|port| port.parse().ok());
        let default_port = match member.module.as_str() {
            "dpe" => 8532,
            _ => 8531,
        };
        let hand_over = HandOver {
            purpose: Purpose::Pair(Introduction {
                module: member.module.clone(),
                environment,
                role: options.role.clone(),
                tls: None,
            }),
            deployment: name,
            key_id,
            key: key.verifying_key().clone(),
        };
        let side = Side {
            hand_over,
            is_key_new,
            port: port.unwrap_or(default_port),
            certificate: None,
        };
        Ok(Self { view, key, side })
    }

    /// Finds or makes the certificate, where the sides talk TLS.
    fn certify(&mut self, options: &Options) -> Result<(), Refused> {
        let View { member, file, .. } = self.view;
        let name = &self.side.hand_over.deployment;
        let own = options
            .tls
            .then(|| Certificate::settle(&member.path, name, file));
        self.take_certificate(own.transpose()?);
        Ok(())
    }

    fn take_certificate(&mut self, own: Option<Certificate>) {
        if let Purpose::Pair(of) = &mut self.side.hand_over.purpose {
            of.tls = own.as_ref().map(|own| own.fingerprint);
        }
        self.side.certificate = own;
    }

    fn edited(&self, settings: &[Setting]) -> EditedFile {
        let View { member, text, .. } = self.view;
        EditedFile::plan(&member.path, text.clone(), settings, Some(PAIRED))
    }

    /// Returns what the file must say of the module itself.
    fn own_settings(&self) -> Result<Vec<Setting>, Refused> {
        let own = &self.side.hand_over;
        let mut settings = Vec::new();
        if self.view.key.is_none() {
            settings.push(own_key(OWN_KEY, &self.key, &own.key_id));
        }
        match self.view.text(OWN_NAME) {
            Some(found) if found != own.deployment.as_str() => {
                let (path, wanted) = (self.view.member.path.display(), &own.deployment);
                let message = format!("`{path}` says that it is called `{found}`, not `{wanted}`");
                return Err(Refused::new(Kind::Taken, message)
                    .with_help("give the name that is there with `--name`"));
            }
            Some(_) => {}
            None => settings.push(Setting::new(OWN_NAME, own.deployment.as_str())),
        }
        Ok(settings)
    }

    /// Returns what the file must say to trust the other side, which must have a name and a key of
    /// its own.
    fn trusting(
        &self,
        peer: &HandOver,
        introduction: &Introduction,
        options: &Options,
    ) -> Result<Vec<Setting>, Refused> {
        let own = &self.side.hand_over;
        if own.key == peer.key {
            let message = "both modules have the same private key; each needs its own";
            return Err(Refused::new(Kind::Unreadable, message));
        }
        if own.deployment.uniform() == peer.deployment.uniform() {
            let message = format!("both deployments would be called `{}`", own.deployment);
            return Err(Refused::new(Kind::Usage, message));
        }
        let known = self.view.trusts.find(&peer.deployment);
        let kept = known.is_some_and(|known| known.environment.is_some());
        let environment = match &options.environment {
            None if kept => None,
            None => Some(&introduction.environment),
            chosen => chosen.as_ref(),
        };
        let peer = Peer {
            name: &peer.deployment,
            module: &introduction.module,
            environment,
            key: &peer.key,
            key_id: &peer.key_id,
            key_name: options.key_name.as_deref(),
            roles: std::slice::from_ref(&options.role),
        };
        peer.trusted_by(&self.view.member.path, &self.view.trusts)
    }
}

impl<'a> View<'a> {
    /// Reads `text`, that of the file of `member`, or the absence of it.
    fn read(member: &'a Member, text: Option<FileText>) -> Result<Self, Refused> {
        let content = text.as_ref().map_or("", FileText::text);
        let file = AsWritten::parse(&member.path, content);
        let findings = file.document().findings();
        if findings.errors() > 0 {
            let message = "a file has faults that must be fixed first";
            return Err(Refused::new(Kind::Unreadable, message).with_findings(findings));
        }
        let mut view = Self {
            trusts: Trusts::read(&file),
            key: None,
            member,
            text,
            file,
        };
        view.key = view.read_own_key()?;
        Ok(view)
    }

    /// Returns the value of `setting`, if it is set to anything.
    fn text(&self, setting: &str) -> Option<&str> {
        let value = self.file.get(setting, &[])?.value().trim();
        (!value.is_empty()).then_some(value)
    }

    /// Reads the module's own key; none where it is not set, or the guide's `<generated_key>`.
    fn read_own_key(&self) -> Result<Option<(SigningKey, KeyId)>, Refused> {
        let value = self.text(OWN_KEY).filter(|value| !value.starts_with('<'));
        let Some(value) = value else {
            return Ok(None);
        };
        let unusable = |why: &str| {
            let path = self.member.path.display();
            let message = format!("the module's own key in `{path}` {why}");
            Refused::new(Kind::Unreadable, message)
        };
        if value.contains("${") {
            return Err(unusable("is a placeholder, which only the module resolves"));
        }
        match KeyMaterial::read(value.as_bytes()) {
            Err(error) => Err(unusable("cannot be read").caused_by(error)),
            Ok((KeyMaterial::Public(..), _)) => Err(unusable("is a public key")),
            Ok((KeyMaterial::Private(key, _), _)) if published(key.fingerprint()) => Err(unusable(
                "is printed in a public guide and protects nothing",
            )),
            Ok((KeyMaterial::Private(key, kid), _)) => {
                let kid = kid.unwrap_or_else(|| key.fingerprint().into());
                Ok(Some((key, kid)))
            }
        }
    }
}

fn no_name(path: &Path, error: NameError) -> Refused {
    let path = path.display();
    let message = format!("`countersign.deployment.name` in `{path}` is not a name");
    Refused::new(Kind::Unreadable, message).caused_by(error)
}

#[cfg(test)]
mod tests;
