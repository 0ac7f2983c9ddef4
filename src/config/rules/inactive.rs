//! Documents that are not active: what they say has no effect, which is worth knowing.

use std::collections::HashSet;

use crate::config::gather::Gathered;
use crate::config::parts::ReadDeployment;
use crate::config::read::Reader;
use crate::diagnostic::{Code, Severity, quote};
use crate::properties::bind;
use crate::properties::name::uniform;

use super::trusted_keys::REVOKED;

const HELP: &str =
    "make one of its profiles active, or move the lines to a document that is always active";

/// Notes each document without an effect, and warns of revocations there that are not applied.
pub fn check(reader: &mut Reader<'_>, gathered: &Gathered, deployments: &[ReadDeployment]) {
    let mut noted = HashSet::new();
    let named = deployments.iter().flat_map(|one| {
        let trusted = one.keys.iter().filter(|key| !key.trusted.revoked);
        trusted.map(move |key| [&one.name, &key.trusted.name].map(|name| uniform(name)))
    });
    let trusted: HashSet<_> = named.collect();
    for (at, placed) in &gathered.inactive {
        let document = reader.view.document.document_of_entry(*at);
        let Some((entry, value)) = reader.view.entry(*at).zip(reader.view.value(*at)) else {
            continue;
        };
        if !reader.question.is_run() && noted.insert(document) {
            let message = "this document is not active, so its settings are not applied";
            let found = reader.view.finding(Code::Cs0305, entry.key_span, message);
            reader.push(found.with_help(HELP));
        }
        let [.., name, _, _, key, _] = &*placed.path else {
            continue;
        };
        let is_revocation =
            placed.setting.name == REVOKED && bind::switch(value.text()) == Ok(true);
        if is_revocation && trusted.contains(&[name, key].map(|name| uniform(name))) {
            let message = format!(
                "key {} of {} is trusted: the document that revokes it is not active",
                quote(key),
                quote(name)
            );
            let found = reader.view.finding(Code::Cs0305, entry.value_span, message);
            let warning = found
                .with_severity(Severity::Warning)
                .with_key(placed.name());
            reader.push(warning.with_help(HELP));
        }
    }
}
