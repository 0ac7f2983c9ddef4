//! What running modules and their files show: whether a peer accepts a key or no longer does, and
//! whether the module signs with its own.

use std::path::{Path, PathBuf};

use tokio::time::Instant;
use tonic::Status;

use super::{Rotation, Step};
use crate::admin::error::{Kind, Refused};
use crate::admin::greeting::{
    Callee, Doubt, Found, PATIENCE, Registry, no_port, takes_calls, unknown_at, unusable,
};
use crate::admin::source::home_of;
use crate::config::{self, ModuleKind, Settings};
use crate::diagnostic::CommandLine;
use crate::dpe::stored_engine_id;
use crate::grpc::{AttachIdentity, Connection, ProofMode, Target, cause};
use crate::identity::DeploymentName;
use crate::jose::{Fingerprint, KeyId, SigningKey};
use crate::proto::identity::identity_service_client::IdentityServiceClient;
use crate::proto::identity::{WhoAmIRequest, WhoAmIResponse};
use crate::proto::registry::{Engine, EngineStatus, GetEngineRequest};
use crate::telemetry::Untrusted;
use crate::trust::Deployment;

/// Where a running module was asked, which accepts the key and proved who it is; or why nothing
/// shows that it does.
pub type Answer = Result<String, Doubt>;

/// Where and how running modules are asked.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// Where peers listen, by the name of their deployment.
    pub addresses: Vec<(DeploymentName, Target)>,
    /// Peers that are not asked: they are cut off until their files trust the key.
    pub except: Vec<DeploymentName>,
    /// Whether to ask no running module.
    pub offline: bool,
    /// What is set over the owner's file: its next certificate.
    pub sets: Vec<(String, String)>,
}

/// Asks the running module of each owner's file whether it signs with the file's key; returns the
/// first doubt.
pub async fn own_in_force(rotation: &Rotation, kind: &ModuleKind) -> Result<(), Doubt> {
    for owner in rotation.owners() {
        let Ok(settings) = load(&owner.path, kind) else {
            continue;
        };
        let (who, key) = match signs_with(&settings).await {
            Ok(answered) => answered,
            Err(doubt) if matches!(doubt.found, Found::Refused | Found::Tls) => {
                return Err(doubt);
            }
            // It may not run here, and the next replica may.
            Err(_) => continue,
        };
        if key != settings.own.key_id.as_str() {
            let why = format!("{who} signs with `{}`", Untrusted(&key));
            return Err(Found::Refused.because(why));
        }
    }
    Ok(())
}

/// Asks with which key the running module of `settings` signs: the module itself, or the DPM of a
/// one-way engine. Returns also who that is.
async fn signs_with(settings: &Settings) -> Result<(String, String), Doubt> {
    if takes_calls(settings).is_ok() {
        let (at, answer) = ask_own_module(settings).await?;
        return Ok((format!("the module at {at}"), answer.callee_fingerprint));
    }
    let engine = recorded(settings).await;
    // That the DPM does not answer says nothing of the engine.
    let (at, engine) = engine.map_err(|doubt| Found::NotAsked.because(doubt.why))?;
    let who = format!("the one-way engine, as the DPM at {at} knows it,");
    Ok((who, engine.fingerprint))
}

/// Asks the DPM for the running engine of `settings`.
async fn recorded(settings: &Settings) -> Result<(Target, Engine), Doubt> {
    let id = stored_engine_id(&settings.home.storage()).map_err(unusable)?;
    let engine_id = id.ok_or_else(not_running)?.to_string();
    let module = settings.module().map_err(unusable)?;
    let callee = Callee::registry(settings, &module)?;
    let asking = async |channel| {
        let mut client = Registry::new(channel);
        client.get_engine(GetEngineRequest { engine_id }).await
    };
    let answer = callee.ask(Instant::now() + PATIENCE, asking).await?;
    let engine = answer.into_inner().engine.filter(|engine| {
        let runs = [EngineStatus::New, EngineStatus::Ready].contains(&engine.status());
        let name = settings.own.name.as_ref();
        runs && name.is_none_or(|name| engine.deployment == name.as_str())
    });
    Ok((callee.target, engine.ok_or_else(not_running)?))
}

fn not_running() -> Doubt {
    Found::NotAsked.because("the engine does not run")
}

/// Asks the running module of `settings` who it is, as the module itself.
pub(in crate::admin) async fn ask_own_module(
    settings: &Settings,
) -> Result<(Target, WhoAmIResponse), Doubt> {
    let module = settings.module().map_err(unusable)?;
    let callee = Callee::itself(settings, &module)?;
    let answer = callee.ask(Instant::now() + PATIENCE, who_am_i).await?;
    Ok((callee.target, answer))
}

/// Loads the settings of a module, to ask as it or to find it.
pub(in crate::admin) fn load(file: &Path, kind: &ModuleKind) -> Result<Settings, Doubt> {
    load_with(file, kind, &[])
}

/// Loads them with `sets` over the file.
fn load_with(file: &Path, kind: &ModuleKind, sets: &[(String, String)]) -> Result<Settings, Doubt> {
    let settings = Settings::load(file, kind, config::environment(), sets);
    settings.map_err(|error| {
        let why = cause(&error);
        Found::NotAsked.because(format!("`{}` cannot be run here: {why}", file.display()))
    })
}

/// A peer: where it listens, how to talk to it, and the settings to do it with.
struct Peer<'a> {
    settings: &'a Settings,
    deployment: &'a Deployment,
    target: Target,
    /// The name of the connection that leads there.
    connection: &'a str,
}

impl<'a> Peer<'a> {
    /// Finds where `deployment` listens: at the address in `asking`, else at those of the owner's
    /// connection, else at that in its `file`.
    fn find(
        settings: &'a Settings,
        deployment: &'a Deployment,
        file: Option<&Path>,
        asking: &Asking,
    ) -> Result<Vec<Self>, Doubt> {
        let named = settings
            .options
            .client
            .connection(deployment.module.as_str());
        let connection = named.filter(|connection| {
            let chosen = connection.deployment.as_ref();
            chosen.is_none_or(|name| *name == deployment.name)
        });
        let mut given = asking.addresses.iter().rev();
        let targets = match (given.find(|(name, _)| *name == deployment.name), connection) {
            (Some((_, target)), _) => vec![target.clone()],
            (None, Some(connection)) => connection.targets().cloned().collect(),
            (None, None) => vec![listener_of(deployment, file)?],
        };
        let name = connection.map_or(config::DIAL_BACK, |connection| &connection.name);
        let peers = targets.into_iter().map(|target| Self {
            settings,
            deployment,
            target,
            connection: name,
        });
        Ok(peers.collect())
    }

    /// Asks `all`, which share one key, whether they accept `key`: one of them does, and those that
    /// do not show it are not there.
    async fn all_accept(all: &[Self], key: &(SigningKey, KeyId)) -> Answer {
        let mut accepting = Vec::new();
        let mut away = None;
        for peer in all {
            match peer.accepts(key).await {
                Ok(at) => accepting.push(at),
                Err(doubt) if doubt.found == Found::NotReached => away = Some(doubt),
                Err(doubt) => return Err(doubt),
            }
        }
        match away {
            Some(doubt) if accepting.is_empty() => Err(doubt),
            _ => Ok(accepting.join(", ")),
        }
    }

    /// Asks whether it accepts `key`, and has it prove who it is.
    ///
    /// The key that signs now asks first which keys are trusted there: a call of a key that is not
    /// yet would be reported there as a refusal. What counts is the call that `key` itself signs.
    async fn accepts(&self, key: &(SigningKey, KeyId)) -> Answer {
        let (own, key_id, target) = (&self.settings.own, &key.1, &self.target);
        let deadline = Instant::now() + PATIENCE;
        if own.key_id != *key_id {
            let current = (own.key.clone(), own.key_id.clone());
            match self.who_am_i(&current, deadline).await {
                Ok(answer) if accepts_one(&answer, &[key_id]) == Some(false) => {
                    return Err(unknown_at(target));
                }
                // Only the call itself shows which keys are trusted there.
                Ok(_)
                | Err(Doubt {
                    found: Found::Refused,
                    ..
                }) => {}
                Err(doubt) => return Err(doubt),
            }
        }
        let answer = self.who_am_i(key, deadline).await?;
        if answer.fingerprint == key_id.as_str() {
            return Ok(format!("asked at {target}"));
        }
        let seen = Untrusted(&answer.fingerprint);
        let why = format!("the module at {target} saw the key `{seen}`");
        Err(Found::Refused.because(why))
    }

    /// Calls it with a token that `key` signed, and has it prove that it is the one.
    async fn who_am_i(
        &self,
        (key, key_id): &(SigningKey, KeyId),
        deadline: Instant,
    ) -> Result<WhoAmIResponse, Doubt> {
        let mut settings = self.settings.clone();
        settings.own.key = key.clone();
        settings.own.key_id = key_id.clone();
        settings.options.proof = ProofMode::EveryCall;
        let module = settings.module().map_err(unusable)?;
        let (name, target) = (&self.deployment.name, self.target.clone());
        let callee = Callee::of((&settings, &module), name, target, self.connection)?;
        callee.ask(deadline, who_am_i).await
    }
}

/// Returns where the module of `file` listens, which is `deployment`.
fn listener_of(deployment: &Deployment, file: Option<&Path>) -> Result<Target, Doubt> {
    let Some(file) = file else {
        return Err(Found::NotAsked.because("nothing says where it listens"));
    };
    let peer = load(file, &ModuleKind::of(&deployment.module))?;
    takes_calls(&peer)?;
    let bound = peer.options.server.listener().ok_or_else(no_port)?;
    Ok(match peer.options.engine.hostname {
        Some(hostname) => Target::new(&hostname, bound.port()),
        None => bound,
    })
}

/// Returns whether a module that says which of the caller's keys it knows accepts one of `keys`;
/// `None` if it does not say.
fn accepts_one(answer: &WhoAmIResponse, keys: &[&KeyId]) -> Option<bool> {
    let known = &answer.trusted_keys;
    let mut active = known.iter().filter(|key| !key.revoked);
    let accepts = active.any(|active| keys.iter().any(|key| key.as_str() == active.fingerprint));
    (!known.is_empty()).then_some(accepts)
}

/// Asks a module who it is.
async fn who_am_i(channel: AttachIdentity<Connection>) -> Result<WhoAmIResponse, Status> {
    let mut client = IdentityServiceClient::new(channel);
    Ok(client.who_am_i(WhoAmIRequest {}).await?.into_inner())
}

/// What shows that a peer accepts the next key, or that it does not.
#[derive(Debug)]
pub struct Evidence {
    /// The peer.
    pub deployment: DeploymentName,
    /// Whether a server is there that may accept the key later.
    pub may_follow: bool,
    /// How the peer is known to accept the key, or why it is not.
    ///
    /// A running module has the last word: a file that it has not read yet is not active.
    pub verdict: Result<String, Refused>,
}

/// Asks every peer whether it accepts the next key, or the current key if that signs already.
pub async fn evidence(rotation: &Rotation, kind: &ModuleKind, asking: &Asking) -> Vec<Evidence> {
    let key = rotation.next().unwrap_or(&rotation.own);
    let loaded = if asking.offline {
        Err(Found::NotAsked.because("no module was asked"))
    } else {
        load_with(&rotation.owner.path, kind, &asking.sets)
    };
    let mut all = Vec::new();
    for (deployment, file) in rotation.deployments() {
        if asking.except.contains(&deployment.name) {
            continue;
        }
        let path = file.map(|file| file.path.as_path());
        let live = async {
            let settings = loaded.as_ref().map_err(Clone::clone)?;
            let callees = Peer::find(settings, deployment, path, asking)?;
            Peer::all_accept(&callees, key).await
        };
        let answer = live.await;
        let found = answer.as_ref().err().map(|doubt| doubt.found);
        let standing = file.map(|file| {
            let trusts = rotation.trusts(file, key.0.fingerprint());
            (file.path.display().to_string(), trusts)
        });
        all.push(Evidence {
            may_follow: !matches!(
                found,
                None | Some(Found::NotReached | Found::NotAsked | Found::NotGrpc)
            ),
            verdict: verdict(rotation, &deployment.name, standing, answer),
            deployment: deployment.name.clone(),
        });
    }
    all
}

/// Judges the answer of the peer `name`, whose `file` trusts the key or does not.
fn verdict(
    rotation: &Rotation,
    name: &DeploymentName,
    file: Option<(String, bool)>,
    live: Answer,
) -> Result<String, Refused> {
    let doubt = match live {
        Ok(at) => return Ok(format!("the running module accepts it, {at}")),
        Err(doubt) => doubt,
    };
    let why = doubt.why;
    Err(match (doubt.found, file) {
        (Found::NotAsked, Some((path, true))) => {
            return Ok(format!("not asked; `{path}` trusts it"));
        }
        (Found::NotReached, Some((path, true))) => {
            return Ok(format!("not reached; `{path}` trusts it ({why})"));
        }
        (Found::Silent, Some((path, true))) => {
            let shown = format!("`{path}` trusts it, but {why}");
            not_shown(name, Kind::Conflict, &shown).with_help(format!(
                "fix or stop that module, rely on its file with `--offline`, or skip it: \
                 `--except {name}`"
            ))
        }
        (Found::Refused | Found::Tls, Some((path, true))) => {
            let shown = format!("`{path}` trusts it: written, not yet active; {why}");
            let doctor = CommandLine::new("countersign doctor");
            not_shown(name, Kind::Conflict, &shown)
                .with_help(
                    "a module follows its file within 2 s, or logs `configReloadFailed`; what else \
                     is between the two:",
                )
                .with_commands([doctor.option("home", home_of(&rotation.owner.path))])
        }
        (Found::NotGrpc, _) => not_shown(name, Kind::Unreachable, &why).with_help(format!(
            "name where `{name}` listens: `--peer-address {name}=HOST:PORT`"
        )),
        (_, Some((path, _))) => {
            let shown = format!("`{path}` does not trust it, and {why}");
            not_shown(name, Kind::OutOfTurn(Step::Prepare), &shown)
        }
        (_, None) => not_shown(name, Kind::Conflict, &why).with_help(format!(
            "name its file with `--peer-file`, where it listens with `--peer-address \
             {name}=HOST:PORT`, or do without it: `--except {name}`"
        )),
    })
}

fn not_shown(name: &DeploymentName, kind: Kind, shown: &str) -> Refused {
    let message = format!("`{name}` is not shown to accept the new key: {shown}");
    Refused::new(kind, message)
}

/// A peer that may go on accepting a key that its file has revoked.
#[derive(Clone, Debug)]
pub struct Holdout {
    /// What was found.
    pub why: String,
    /// Whether a reload may change it.
    pub may_follow: bool,
    /// The key, or one of the keys.
    pub key: Fingerprint,
    /// The peer's file.
    pub file: PathBuf,
}

/// Finds a peer that may still accept the previous key of `rotation` after its file has revoked it;
/// `rotation` is as it was before that. Either the peer says so, or it does not answer and its file
/// turns reloads off.
///
/// If `rotation` has no previous keys, finds a peer that says so of any revoked key.
pub async fn holdout(rotation: &Rotation, kind: &ModuleKind, asking: &Asking) -> Option<Holdout> {
    let previous = &rotation.state().previous;
    let own = (!asking.offline).then(|| load(&rotation.owner.path, kind));
    let peers = rotation.deployments().into_iter();
    for (peer, file) in peers.filter_map(|(peer, file)| Some((peer, file?))) {
        let keys = rotation.deployment(file)?.keys.iter();
        let old: Vec<_> = keys
            .filter(|key| match previous.as_slice() {
                [] => key.revoked,
                previous => previous.contains(&key.key.fingerprint()),
            })
            .collect();
        let Some(one) = old.first() else {
            continue;
        };
        let settings = load(&file.path, &ModuleKind::of(&peer.module));
        let reloads = settings.map_or(true, |settings| settings.options.reload);
        let is_asked = !asking.except.contains(&peer.name);
        let answered = async {
            let asker = own.as_ref().filter(|_| is_asked)?.as_ref().ok()?;
            let callees = Peer::find(asker, peer, Some(&file.path), asking).ok()?;
            let ids: Vec<_> = old.iter().map(|key| &key.key_id).collect();
            let mut known = None;
            for callee in callees {
                let deadline = Instant::now() + PATIENCE;
                let answer = callee.who_am_i(&rotation.own, deadline).await.ok();
                let accepts = answer.and_then(|answer| accepts_one(&answer, &ids));
                known = accepts.map(|accepts| (accepts, callee.target)).or(known);
                if accepts == Some(true) {
                    break;
                }
            }
            known
        };
        let why = match answered.await {
            Some((true, at)) => format!("the module at {at} still accepts the key"),
            None if !reloads && !previous.is_empty() => {
                format!("`{}` says `countersign.reload=false`", file.path.display())
            }
            Some((false, _)) | None => continue,
        };
        return Some(Holdout {
            why,
            may_follow: reloads,
            key: one.key.fingerprint(),
            file: file.path.clone(),
        });
    }
    None
}
