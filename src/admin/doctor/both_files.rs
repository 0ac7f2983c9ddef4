//! The commands that change both modules' files, with the arguments that make them succeed.

use std::path::PathBuf;

use crate::admin::error::{Kind, Refused};
use crate::admin::pairing::{self, Member, Options};
use crate::clock::{Clock as _, SystemClock};
use crate::identity::{ModuleType, Role};

/// This module's file and the peer's, as commands name them.
#[derive(Clone, Debug)]
pub(super) struct BothFiles {
    pub(super) own: (ModuleType, PathBuf),
    /// The peer's type and file, in words where the file is elsewhere.
    pub(super) peer: (String, String),
    /// The peer's file, where it is at hand.
    pub(super) at_hand: Option<PathBuf>,
}

impl BothFiles {
    /// Says how to pair the two.
    ///
    /// Where both files are at hand it is planned first: what is printed is what `pair` accepts.
    pub(super) fn pair(&self, tls: bool) -> String {
        let ((module, own), (kind, theirs)) = (&self.own, &self.peer);
        let own = own.display();
        let mut command = format!("countersign pair {kind}={theirs} {module}={own}");
        if tls {
            command += " --tls";
        }
        let Some(members) = self.members() else {
            return command;
        };
        for key in [None, Some("key2"), Some("key3"), Some("key4")] {
            let options = Options {
                environment: None,
                role: Role::impersonation(),
                key_name: key.map(str::to_owned),
                tls,
                now: SystemClock.now(),
            };
            let plan = pairing::plan(&members, &options);
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

    /// Says how this module gets another key.
    pub(super) fn rotate_own(&self) -> String {
        rotate(&self.own.1.display().to_string(), &self.peer.1)
    }

    /// Says how the peer gets another key.
    pub(super) fn rotate_peer(&self) -> String {
        rotate(&self.peer.1, &self.own.1.display().to_string())
    }

    fn members(&self) -> Option<[Member; 2]> {
        let member = |module: ModuleType, path: PathBuf| Member {
            module,
            path,
            name: None,
            key: None,
        };
        let (module, own) = self.own.clone();
        let peer = ModuleType::new(&self.peer.0).ok()?;
        Some([member(peer, self.at_hand.clone()?), member(module, own)])
    }
}

/// Nobody accepts the old key any more, so nothing has to be waited for.
fn rotate(file: &str, peer: &str) -> String {
    format!("countersign rotate run --file {file} --peer-file {peer} --now")
}
