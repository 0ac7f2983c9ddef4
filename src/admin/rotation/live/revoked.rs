//! Whether the running peers let the old key go once their files have revoked it.

use tokio::time::Instant;

use super::{Asking, PATIENCE, address, call_peer, kind_of, load};
use crate::admin::rotation::Rotation;
use crate::admin::source::SettingsFile;
use crate::config::ModuleKind;
use crate::jose::Fingerprint;
use crate::trust::{Deployment, TrustedKey};

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

/// Finds a peer whose file revoked the previous key of `rotation`, as it was before that, and that
/// may accept it still: it says so, or it does not say and its file says that it follows no change.
///
/// Where no key is before the one that signs, a peer is found that says it of any revoked one.
pub async fn holdout(rotation: &Rotation, kind: &ModuleKind, asking: &Asking) -> Option<Holdout> {
    let previous = rotation.previous();
    for peer in &rotation.peers {
        let keys = rotation.deployment(peer)?.keys.iter();
        let old = keys.filter(|key| match previous {
            Some(previous) => key.key.fingerprint() == previous,
            None => key.revoked,
        });
        let old: Vec<_> = old.collect();
        let Some(one) = old.first() else {
            continue;
        };
        let peers = rotation.peers().into_iter();
        let is_its = |file: &SettingsFile| std::ptr::eq(file, peer);
        let mut named = peers.filter(|(_, file)| file.is_some_and(is_its));
        let known = named.next().map(|(deployment, _)| deployment);
        let said = match known.filter(|peer| !asking.offline && !asking.except.contains(&peer.name))
        {
            Some(known) => accepts(rotation, kind, asking, (known, peer), &old).await,
            None => None,
        };
        let module = known.map(|known| kind_of(&known.module));
        let settings = module.and_then(|module| load(&peer.path, &module).ok());
        let reloads = settings.is_none_or(|settings| settings.reload);
        let why = match said {
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

/// Asks a running peer whether it accepts one of `old`, and where it was asked; none where it does not say.
async fn accepts(
    rotation: &Rotation,
    kind: &ModuleKind,
    asking: &Asking,
    (deployment, peer): (&Deployment, &SettingsFile),
    old: &[&TrustedKey],
) -> Option<(bool, String)> {
    let settings = load(&rotation.owner.path, kind).ok()?;
    let key = rotation.owner.checked.own.as_ref()?;
    let place = address(&settings, deployment, Some(peer), asking).ok()?;
    let deadline = Instant::now() + PATIENCE;
    let answer = call_peer(&settings, key, deployment, &place, deadline).await;
    let known = answer.ok()?.trusted_keys;
    let mut accepted = known.iter().filter(|key| !key.revoked);
    let is_old = |listed: &str| old.iter().any(|old| old.key_id.as_str() == listed);
    let accepts = accepted.any(|key| is_old(&key.fingerprint));
    (!known.is_empty()).then(|| (accepts, place.0.to_string()))
}
