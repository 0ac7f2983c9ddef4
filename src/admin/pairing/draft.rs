//! What would be written into each of the two files.

use super::settle::Side;
use super::tls::{Certificate, TlsView};
use super::view::View;
use super::{Member, Options, PlannedSide};
use crate::admin::edited::{EditedFile, PAIRED, Setting};
use crate::admin::error::Refused;
use crate::config::{self, Report};
use crate::properties::FileText;

/// What would be written into one file.
pub(super) struct Draft<'a> {
    member: &'a Member,
    side: Side,
    tls: TlsView,
    pub(super) file: EditedFile,
    /// The first file with its new key alone; none where it has its key.
    own_only: Option<EditedFile>,
}

impl Draft<'_> {
    /// Finds or makes the side's certificate.
    pub(super) fn certificate(&self) -> Result<Certificate, Refused> {
        Certificate::settle(self.member, &self.side.name, &self.tls)
    }

    pub(super) fn planned(self, certificate: Option<Certificate>) -> PlannedSide {
        PlannedSide {
            fingerprint: self.side.key.fingerprint(),
            is_key_new: self.side.is_key_new,
            port: self.side.port,
            name: self.side.name,
            file: self.file,
            own_only: self.own_only,
            certificate,
        }
    }
}

/// Decides what both files must say.
pub(super) fn draft<'a>(
    members: &'a [Member; 2],
    options: &Options,
    before: &[Option<FileText>; 2],
    certificates: &[Option<Certificate>; 2],
) -> Result<[Draft<'a>; 2], Refused> {
    let [first, second] = members;
    let [first_before, second_before] = before.each_ref().map(Option::as_ref);
    let first_view = View::read(&first.path, text(first_before))?;
    let second_view = View::read(&second.path, text(second_before))?;
    let one = Side::settle(first, &first_view, &second_view, options)?;
    let other = Side::settle(second, &second_view, &first_view, options)?;
    one.differs_from(&other.name, other.key.verifying_key())?;
    let mut first_settings = one.own_settings(first, &first_view)?;
    let first_own = own_only(&one, first, first_before, &first_settings);
    first_settings.extend(other.trusted_by(&first.path, &first_view, options)?);
    let mut second_settings = other.own_settings(second, &second_view)?;
    second_settings.extend(one.trusted_by(&second.path, &second_view, options)?);
    if let [Some(mine), Some(theirs)] = certificates {
        let pin = |view: &View, side: &Side, certificate: &Certificate, member: &Member| {
            view.tls
                .pin(&side.name, certificate.fingerprint, &member.path, options)
        };
        first_settings.extend(mine.own_settings(&first_view.tls, Some(&other.module)));
        first_settings.extend(pin(&first_view, &other, theirs, first)?);
        second_settings.extend(theirs.own_settings(&second_view.tls, Some(&one.module)));
        second_settings.extend(pin(&second_view, &one, mine, second)?);
    }
    Ok([
        Draft {
            member: first,
            file: edited(first, first_before, &first_settings),
            own_only: first_own,
            side: one,
            tls: first_view.tls,
        },
        Draft {
            member: second,
            file: edited(second, second_before, &second_settings),
            own_only: None,
            side: other,
            tls: second_view.tls,
        },
    ])
}

fn text(file: Option<&FileText>) -> &str {
    file.map_or("", FileText::text)
}

fn own_only(
    side: &Side,
    member: &Member,
    before: Option<&FileText>,
    settings: &[Setting],
) -> Option<EditedFile> {
    side.is_key_new.then(|| edited(member, before, settings))
}

fn edited(member: &Member, before: Option<&FileText>, settings: &[Setting]) -> EditedFile {
    EditedFile::plan(&member.path, before.cloned(), settings, Some(PAIRED))
}

/// Reads both new texts as if they were the files: pairing them again must change nothing, and
/// neither may find a fault with the other.
pub(super) fn confirm(
    members: &[Member; 2],
    options: &Options,
    drafts: &[Draft<'_>; 2],
    certificates: &[Option<Certificate>; 2],
) -> Result<Report, Refused> {
    let after = |draft: &Draft<'_>| {
        let text = FileText::from_bytes(draft.file.text().as_bytes());
        text.map_err(|_fault| Refused::internal(&draft.member.path))
    };
    let [first, second] = drafts;
    let texts = [Some(after(first)?), Some(after(second)?)];
    for draft in draft(members, options, &texts, certificates)? {
        if !draft.file.is_empty() {
            return Err(Refused::internal(&draft.member.path));
        }
    }
    let paths = members.iter().map(|member| member.path.clone());
    let files: Vec<_> = paths.zip(texts.into_iter().flatten()).collect();
    let made = certificates.iter().flatten();
    let made: Vec<_> = made.flat_map(Certificate::paths).collect();
    Ok(config::check_texts(&files, &config::environment(), &made)?)
}
