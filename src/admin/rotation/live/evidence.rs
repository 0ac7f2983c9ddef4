//! Whether what running modules and their files say shows that they accept a key, or no longer do.

use tokio::time::Instant;

use super::{Answer, Asking, Callee, DoubtKind, PATIENCE, accepts_one, kind_of, load};
use crate::admin::error::{Kind, Refused};
use crate::admin::rotation::Rotation;
use crate::config::ModuleKind;
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;

/// What shows that a peer accepts the next key, or that it does not.
#[derive(Debug)]
pub struct Evidence {
    /// The peer.
    pub deployment: DeploymentName,
    /// Whether a server is there that does not accept the key yet.
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
        Err(DoubtKind::NotAsked.because("no module was asked"))
    } else {
        load(&rotation.owner.path, kind)
    };
    let mut all = Vec::new();
    for (deployment, file) in rotation.deployments() {
        if asking.except.contains(&deployment.name) {
            continue;
        }
        let path = file.map(|file| file.path.as_path());
        let live = async {
            let settings = loaded.as_ref().map_err(Clone::clone)?;
            let callee = Callee::find(settings, deployment, path, asking)?;
            callee.accepts(key).await
        };
        let answer = live.await;
        let standing = file.map(|file| {
            let trusts = rotation.trusts(file, key.0.verifying_key());
            (file.path.display().to_string(), trusts)
        });
        let kind = answer.as_ref().err().map(|doubt| doubt.kind);
        all.push(Evidence {
            may_follow: matches!(kind, Some(DoubtKind::Refused | DoubtKind::Silent)),
            verdict: verdict(&deployment.name, standing, answer),
            deployment: deployment.name.clone(),
        });
    }
    all
}

/// Judges what the peer `name` said, whose `file` trusts the key or does not.
fn verdict(
    name: &DeploymentName,
    file: Option<(String, bool)>,
    live: Answer,
) -> Result<String, Refused> {
    let doubt = match live {
        Ok(at) => return Ok(format!("the running module accepts it, {at}")),
        Err(doubt) => doubt,
    };
    let why = doubt.why;
    let (why, help) = match (doubt.kind, file) {
        (DoubtKind::NotAsked, Some((path, true))) => {
            return Ok(format!("not asked; `{path}` trusts it"));
        }
        (DoubtKind::NotReached, Some((path, true))) => {
            return Ok(format!("not reached; `{path}` trusts it ({why})"));
        }
        (DoubtKind::Silent, Some((path, true))) => (
            format!("`{path}` trusts it, but {why}"),
            format!(
                "fix or stop that module, rely on its file with `--offline`, or skip it: \
                 `--except {name}`"
            ),
        ),
        (DoubtKind::Refused, Some((path, true))) => (
            format!("`{path}` trusts it: written, not yet active; {why}"),
            "a module follows its file within 2 s, or logs `configReloadFailed`; what else is \
             between the two says `countersign doctor --home HOME`, with this module's home"
                .to_owned(),
        ),
        (DoubtKind::Refused, _) => (
            why,
            format!("let the file of `{name}` trust the key: `countersign rotate prepare`"),
        ),
        (_, Some((path, _))) => (
            format!("`{path}` does not trust it, and {why}"),
            "write the key there: `countersign rotate prepare`".to_owned(),
        ),
        (_, None) => (
            why,
            format!(
                "name its file with `--peer-file`, where it listens with `--peer-address \
                 {name}=HOST:PORT`, or do without it: `--except {name}`"
            ),
        ),
    };
    let message = format!("`{name}` is not shown to accept the new key: {why}");
    Err(Refused::new(Kind::Conflict, message).with_help(help))
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
}

/// Finds a peer that may still accept the previous key of `rotation` after its file has revoked it;
/// `rotation` is as it was before that. Either the peer says so, or it does not answer and its file
/// turns reloads off.
///
/// If `rotation` has no previous key, finds a peer that says so of any revoked key.
pub async fn holdout(rotation: &Rotation, kind: &ModuleKind, asking: &Asking) -> Option<Holdout> {
    let previous = rotation.state().previous;
    let own = (!asking.offline).then(|| load(&rotation.owner.path, kind));
    for peer in &rotation.peers {
        let keys = rotation.deployment(peer)?.keys.iter();
        let old: Vec<_> = keys
            .filter(|key| previous.map_or(key.revoked, |old| key.key.fingerprint() == old))
            .collect();
        let Some(one) = old.first() else {
            continue;
        };
        let mut all = rotation.deployments().into_iter();
        let its = all.find(|(_, file)| file.is_some_and(|file| std::ptr::eq(file, peer)));
        let known = its.map(|(deployment, _)| deployment);
        let settings = known.map(|known| load(&peer.path, &kind_of(&known.module)));
        let reloads = !matches!(&settings, Some(Ok(settings)) if !settings.options.reload);
        let said = async {
            let asked = known.filter(|known| !asking.except.contains(&known.name))?;
            let settings = own.as_ref()?.as_ref().ok()?;
            let callee = Callee::find(settings, asked, Some(&peer.path), asking).ok()?;
            let deadline = Instant::now() + PATIENCE;
            let answer = callee.who_am_i(&rotation.own, deadline).await.ok()?;
            let ids: Vec<_> = old.iter().map(|key| &key.key_id).collect();
            Some((accepts_one(&answer, &ids)?, callee.target))
        };
        let why = match said.await {
            Some((true, at)) => format!("the module at {at} still accepts the key"),
            None if !reloads && previous.is_some() => {
                format!("`{}` says `countersign.reload=false`", peer.path.display())
            }
            Some((false, _)) | None => continue,
        };
        return Some(Holdout {
            why,
            may_follow: reloads,
            key: one.key.fingerprint(),
        });
    }
    None
}
