//! What is left of the old key once the files have revoked it.

use std::time::Duration;

use tokio::time::Instant;

use super::arguments::{FileArguments, StepArguments};
use crate::admin::rotation::Rotation;
use crate::admin::rotation::live::{self, Holdout};
use crate::cli::change::BY_SIGNAL;
use crate::cli::output::{Console, Exit, Failure};
use crate::cli::runtime::runtime;
use crate::identity::DeploymentName;
use crate::jose::Fingerprint;

/// Between two questions to a running peer.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until the running peers follow their files, no longer than the time-out. `rotation` is as
/// it was before the last step.
pub(super) fn in_force(rotation: &Rotation, arguments: &StepArguments) -> Result<(), Failure> {
    let kind = arguments.files.kind(rotation);
    let asking = arguments.asking();
    let held = runtime()?.block_on(async {
        let end = Instant::now() + arguments.timeout;
        while let Some(holdout) = live::holdout(rotation, &kind, &asking).await {
            if !holdout.may_follow || Instant::now() >= end {
                return Err(holdout);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    });
    held.map_err(|Holdout { why, key: old, .. }| {
        Failure::new(Exit::No, format!("written, NOT in force: {why}")).with_help(format!(
            "see its log for `configReloadFailed`; {BY_SIGNAL}. It is done where `countersign revoke \
             --file HOME --fingerprint {old} --watch --yes`, with its home for HOME, says `in \
             force`"
        ))
    })
}

/// Says how the peers without a file here are to revoke `key`, which is `what` of the module's.
pub(super) fn still_trusting(
    rotation: &Rotation,
    (what, key): (&str, Option<Fingerprint>),
    files: &FileArguments,
    console: &Console,
) {
    let Some(key) = key else {
        return;
    };
    let names: Vec<_> = rotation.left_out().map(ToString::to_string).collect();
    let who = match names.as_slice() {
        _ if files.one_side => format!("the peers trust the {what} key until each revokes it"),
        [] => return,
        names => format!(
            "the {what} key may be trusted still by {}",
            names.join(", ")
        ),
    };
    console.note(&format!(
        "{who}; nothing here remembers that. At each of them, with its home for HOME:"
    ));
    let name = rotation.name().map_or("NAME", DeploymentName::as_str);
    console.say(&format!(
        "  countersign revoke --file HOME --fingerprint {key} --watch --yes\n  \
         countersign deployment show {name} --home HOME\n\
         It is done where the first says `in force` and the second `{key}  revoked`."
    ));
}
