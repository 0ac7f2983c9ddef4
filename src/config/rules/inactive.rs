//! Documents that are not active: what they say has no effect, which is worth knowing.

use std::collections::BTreeSet;

use crate::config::gather::Gathered;
use crate::config::parts::ReadDeployment;
use crate::config::read::Reader;
use crate::diagnostic::{Code, Severity, quote};
use crate::properties::name::same;

use super::trusted_keys::REVOKED;

const HELP: &str =
    "make one of its profiles active, or move the lines to a document that is always active";

/// Notes each document without an effect, and warns of revocations there that do not hold.
pub fn check(reader: &mut Reader<'_>, gathered: &Gathered, deployments: &[ReadDeployment]) {
    let mut noted = BTreeSet::new();
    for (at, placed) in &gathered.inactive {
        let document = reader.view.document.document_of_entry(*at);
        let Some((entry, value)) = reader.view.entry(*at).zip(reader.view.value(*at)) else {
            continue;
        };
        if noted.insert(document) && !reader.question.is_run() {
            let message = "this document is not active: nothing in it has an effect";
            let found = reader.view.finding(Code::Cs0305, entry.key_span, message);
            reader.push(found.with_help(HELP));
        }
        let [.., name, _, _, key, _] = &*placed.path else {
            continue;
        };
        let is_revocation = placed.setting.name == REVOKED && value.text().trim() == "true";
        let keys = deployments.iter().filter(|one| same(&one.name, name));
        let mut trusted = keys
            .flat_map(|one| &one.keys)
            .filter(|key| !key.trusted.revoked);
        if is_revocation && trusted.any(|one| same(&one.trusted.name, key)) {
            let (key, name) = (quote(key), quote(name));
            let message = format!(
                "key {key} of {name} is trusted: the document that revokes it is not active"
            );
            let found = reader.view.finding(Code::Cs0305, entry.value_span, message);
            let warning = found
                .with_severity(Severity::Warning)
                .with_key(placed.name());
            reader.push(warning.with_help(HELP));
        }
    }
}
