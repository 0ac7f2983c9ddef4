//! What would be written into each of the two files.

use super::settle::{Setting, Side};
use super::tls::{Certificate, TlsView};
use super::view::View;
use super::{Member, Options, PlannedChange, PlannedSide};
use crate::admin::error::PairError;
use crate::config::{self, Report};
use crate::properties::{Change, Edit, FileText, Outcome};
use crate::secret::Secret;

/// What would be written into one file.
pub(super) struct Draft<'a> {
    member: &'a Member,
    side: Side,
    tls: TlsView,
    settings: Vec<Setting>,
    pub(super) outcome: Outcome,
    /// The text with the side's new key alone; none where it has its key.
    pub(super) own_only: Option<Secret<String>>,
}

impl Draft<'_> {
    /// Finds or makes the side's certificate.
    pub(super) fn certificate(&self) -> Result<Certificate, PairError> {
        Certificate::settle(self.member, &self.side.name, &self.tls)
    }

    pub(super) fn shown(self) -> PlannedSide {
        let changes = match &self.outcome {
            Outcome::Unchanged => &[],
            Outcome::Changed(edited) => edited.changes(),
        };
        let shown = |change: &Change| {
            let (key, replaces) = match change {
                Change::Added(key) => (key, false),
                Change::Replaced(key) | Change::Removed(key) => (key, true),
            };
            let setting = self.settings.iter().find(|setting| setting.key == *key);
            PlannedChange {
                key: key.clone(),
                shown: setting.map_or_else(String::new, Setting::shown),
                replaces,
            }
        };
        PlannedSide {
            path: self.member.path.clone(),
            changes: changes.iter().map(shown).collect(),
            fingerprint: self.side.key.fingerprint(),
            is_key_new: self.side.is_key_new,
            port: self.side.port,
            name: self.side.name,
            before: None,
            own_only: self.own_only,
            after: None,
            certificate: None,
        }
    }
}

/// Decides what both files must say.
pub(super) fn draft<'a>(
    members: &'a [Member; 2],
    options: &Options,
    texts: [&str; 2],
    certificates: &[Option<Certificate>; 2],
) -> Result<[Draft<'a>; 2], PairError> {
    let [first, second] = members;
    let [first_text, second_text] = texts;
    let first_view = View::read(&first.path, first_text)?;
    let second_view = View::read(&second.path, second_text)?;
    let one = Side::settle(first, &first_view, &second_view, options)?;
    let other = Side::settle(second, &second_view, &first_view, options)?;
    if one.key.verifying_key() == other.key.verifying_key() {
        return Err(PairError::SharedKey);
    }
    if one.name.uniform() == other.name.uniform() {
        return Err(PairError::SameName(one.name));
    }
    let mut first_settings = one.own_settings(first, &first_view)?;
    let first_own = own_only(&one, &first_settings, first_text);
    first_settings.extend(other.trusted_by(&first.path, &first_view, options)?);
    let mut second_settings = other.own_settings(second, &second_view)?;
    let second_own = own_only(&other, &second_settings, second_text);
    second_settings.extend(one.trusted_by(&second.path, &second_view, options)?);
    if let [Some(mine), Some(theirs)] = certificates {
        first_settings.extend(mine.own_settings(&first_view.tls, &other.module));
        first_settings.extend(theirs.pin(&other, &first.path, &first_view.tls, options)?);
        second_settings.extend(theirs.own_settings(&second_view.tls, &one.module));
        second_settings.extend(mine.pin(&one, &second.path, &second_view.tls, options)?);
    }
    Ok([
        Draft {
            member: first,
            outcome: apply(&first_settings, first_text),
            own_only: first_own,
            side: one,
            tls: first_view.tls,
            settings: first_settings,
        },
        Draft {
            member: second,
            outcome: apply(&second_settings, second_text),
            own_only: second_own,
            side: other,
            tls: second_view.tls,
            settings: second_settings,
        },
    ])
}

fn own_only(side: &Side, settings: &[Setting], text: &str) -> Option<Secret<String>> {
    match apply(settings, text) {
        Outcome::Changed(edited) if side.is_key_new => Some(Secret::new(edited.text().to_owned())),
        _ => None,
    }
}

fn apply(settings: &[Setting], text: &str) -> Outcome {
    let mut edit = Edit::new();
    edit.heading("Written by `countersign pair`: this module's key, and the modules it trusts.");
    for setting in settings {
        edit.set(&setting.key, setting.value.expose());
    }
    edit.apply(text)
}

/// Reads both new texts as if they were the files: pairing them again must change nothing, and
/// neither may find a fault with the other.
pub(super) fn confirm(
    members: &[Member; 2],
    options: &Options,
    before: [&str; 2],
    (after, certificates): (&[Option<Secret<String>>; 2], &[Option<Certificate>; 2]),
) -> Result<Report, PairError> {
    let [first, second] = before;
    let [first_after, second_after] = after;
    let text = |after: &'_ Option<Secret<String>>| after.as_ref().map(|text| text.expose().clone());
    let first_text = text(first_after).unwrap_or_else(|| first.to_owned());
    let second_text = text(second_after).unwrap_or_else(|| second.to_owned());
    for draft in draft(members, options, [&first_text, &second_text], certificates)? {
        if matches!(draft.outcome, Outcome::Changed(_)) {
            return Err(PairError::Internal(draft.member.path.clone()));
        }
    }
    let mut files = Vec::new();
    for (member, text) in members.iter().zip([first_text, second_text]) {
        let text = FileText::from_bytes(text.as_bytes());
        let text = text.map_err(|_fault| PairError::Internal(member.path.clone()))?;
        files.push((member.path.clone(), text));
    }
    let made = certificates.iter().flatten();
    let made: Vec<_> = made.flat_map(Certificate::paths).collect();
    Ok(config::check_texts(&files, &config::environment(), &made)?)
}
