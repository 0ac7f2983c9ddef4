//! Whether what a running module and its file say shows that it accepts a key.

use std::path::PathBuf;

use super::Answer;
use crate::admin::error::{Kind, Refused};
use crate::admin::rotation::Trust;
use crate::identity::DeploymentName;

/// What shows that a peer accepts the next key, or that it does not.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The peer.
    pub deployment: DeploymentName,
    /// How its file stands to the next key, where it was named.
    pub file: Option<(PathBuf, Trust)>,
    /// What the running module said.
    pub live: Answer,
}

impl Evidence {
    /// Returns how the peer is known to accept the key.
    ///
    /// A running module has the last word: a file that it has not read yet is not active.
    ///
    /// # Errors
    ///
    /// When it is not known to.
    pub fn verdict(&self) -> Result<String, Refused> {
        let name = &self.deployment;
        let (why, help) = match (&self.live, &self.file) {
            (Answer::Accepted(at), _) => {
                return Ok(format!("the running module accepts it, {at}"));
            }
            (Answer::NotAsked(_), Some((path, Trust::Trusted))) => {
                return Ok(format!("not asked; `{}` trusts it", path.display()));
            }
            (Answer::NotReached(why), Some((path, Trust::Trusted))) => {
                let path = path.display();
                return Ok(format!("not reached; `{path}` trusts it ({why})"));
            }
            (Answer::Silent(why), Some((path, Trust::Trusted))) => (
                format!("`{}` trusts it, but {why}", path.display()),
                format!(
                    "fix or stop that module, rely on its file with `--offline`, or skip it: \
                     `--except {name}`"
                ),
            ),
            (Answer::Refused(why), Some((path, Trust::Trusted))) => (
                format!(
                    "`{}` trusts it: written, not yet active; {why}",
                    path.display()
                ),
                "a module follows its file within 2 s, or logs `configReloadFailed`; what else is \
                 between the two says `countersign doctor --home HOME`, with this module's home"
                    .to_owned(),
            ),
            (Answer::Refused(why), _) => (
                why.clone(),
                format!("let the file of `{name}` trust the key: `countersign rotate prepare`"),
            ),
            (
                Answer::Silent(why) | Answer::NotReached(why) | Answer::NotAsked(why),
                Some((path, _)),
            ) => (
                format!("`{}` does not trust it, and {why}", path.display()),
                "write the key there: `countersign rotate prepare`".to_owned(),
            ),
            (Answer::Silent(why) | Answer::NotReached(why) | Answer::NotAsked(why), None) => (
                why.clone(),
                format!(
                    "name its file with `--peer-file`, where it listens with `--peer-address \
                     {name}=HOST:PORT`, or do without it: `--except {name}`"
                ),
            ),
        };
        let message = format!("`{name}` is not shown to accept the new key: {why}");
        Err(Refused::new(Kind::Conflict, message).with_help(help))
    }
}
