//! Documents that are not active: what they say has no effect, which is worth knowing.

use std::collections::HashSet;

use crate::config::gather::Gathered;
use crate::config::read::Reader;
use crate::diagnostic::Code;

const HELP: &str =
    "make one of its profiles active, or move the lines to a document that is always active";

/// Notes each document without an effect.
pub fn check(reader: &mut Reader<'_>, gathered: &Gathered) {
    let mut noted = HashSet::new();
    for (at, _) in &gathered.inactive {
        let document = reader.view.document.document_of_entry(*at);
        if let Some(entry) = reader.view.entry(*at)
            && !reader.question.is_run()
            && noted.insert(document)
        {
            let message = "this document is not active, so its settings are not applied";
            let found = reader.view.finding(Code::Cs0305, entry.key_span, message);
            reader.push(found.with_help(HELP));
        }
    }
}
