//! Where the value of a setting takes effect: another document, file or variable may decide.

use std::collections::HashMap;
use std::path::Path;

use super::error::{Kind, Refused};
use super::setting::Setting;
use crate::config::names::OWN_KEY;
use crate::config::{self, AsWritten, is_service_link};
use crate::diagnostic::{Origin, redact_name};
use crate::properties::name::{Name, variable_for};
use crate::properties::{Entry, FileText, ReadError};

/// What the names of a rotation's settings begin with.
const ROTATION: &str = "countersign.rotation.";

/// Returns what the module of the file at `path`, which holds `text` or is not there, reads.
pub(super) fn as_a_module_reads(
    path: &Path,
    text: Option<&FileText>,
) -> Result<AsWritten, ReadError> {
    match text {
        Some(text) => {
            let texts = [(path.to_owned(), text.clone())];
            AsWritten::of_module(path, &texts, &config::environment())
        }
        None => Ok(AsWritten::parse(path, "")),
    }
}

/// The entries of each name, in the form in which spellings agree; the last one decides.
pub(super) type ByName<'a> = HashMap<String, Vec<&'a Entry>>;

pub(super) fn by_name(read: &AsWritten) -> ByName<'_> {
    let mut all = ByName::new();
    for entry in read.active_entries() {
        let name = Name::parse(entry.key()).uniform();
        all.entry(name).or_default().push(entry);
    }
    all
}

/// Finds the files in which `setting` is written for the module of the file at `main`: a revocation
/// or a removal everywhere, so that it holds without the active profiles too.
pub(super) fn places<'a>(
    read: &'a AsWritten,
    names: &ByName<'a>,
    main: &'a Path,
    setting: &Setting,
) -> Result<Vec<&'a Path>, Refused> {
    let name = Name::parse(&setting.key).uniform();
    let mut there = names.get(&name).cloned().unwrap_or_default();
    let revokes = setting.record.is_some();
    if there.is_empty() && setting.key.starts_with(ROTATION) {
        // With the key, so that a step of a rotation writes one file.
        let own = names.get(&Name::parse(OWN_KEY).uniform());
        there.extend(own.and_then(|own| own.last()));
    } else if there.is_empty() && (revokes || setting.key.ends_with(']')) {
        // Without the rest of its key, or of its list, it would be a fault, or have no effect.
        let above = name.rsplit_once('.').map_or("", |(above, _)| above);
        let mut beside = read.active_entries().filter(|entry| {
            let name = Name::parse(entry.key()).uniform();
            name.strip_prefix(above)
                .is_some_and(|rest| rest.starts_with('.'))
        });
        there.extend(if revokes {
            beside.next()
        } else {
            beside.next_back()
        });
    } else if !revokes && setting.value.is_some() {
        there.drain(..there.len().saturating_sub(1));
    }
    if there.is_empty() {
        return Ok(vec![main]);
    }
    let mut files = Vec::new();
    for entry in there {
        match read.file_of(entry) {
            (file, true) => files.push(file),
            (_, false) if Some(entry.value()) == setting.text() => {}
            (_, false) => {
                let origin = read.document().origin(entry.key_span.start);
                return Err(no_effect(main, setting, &origin));
            }
        }
    }
    Ok(files)
}

/// Finds what decides on the setting `key` of a module: a variable, or the last entry. Returns its
/// place and value.
pub(super) fn deciding(
    read: &AsWritten,
    names: &ByName<'_>,
    key: &str,
    environment: &[(String, String)],
) -> Option<(Origin, String)> {
    if let Some((variable, value)) = variable_above(key, environment) {
        return Some((Origin::Environment(variable.into()), value));
    }
    let entry = names.get(&Name::parse(key).uniform())?.last()?;
    let origin = read.document().origin(entry.key_span.start);
    Some((origin, entry.value().to_owned()))
}

/// Finds the place that decides on the setting `key` of the module of the file at `main`.
pub(super) fn origin_of(main: &Path, key: &str) -> Result<Option<Origin>, Refused> {
    let environment = config::environment();
    let read = AsWritten::of_module(main, &[], &environment)?;
    let found = deciding(&read, &by_name(&read), key, &environment);
    Ok(found.map(|(origin, _)| origin))
}

/// What is written in the file at `path` would not take effect: `origin` decides on `setting`.
pub(super) fn no_effect(path: &Path, setting: &Setting, origin: &Origin) -> Refused {
    let (name, file) = (redact_name(&setting.key), path.display());
    let message = format!("a change of `{name}` in `{file}` has no effect: {origin} decides");
    let help = match (origin, &setting.value) {
        (Origin::Environment(_), _) => {
            "start the module without it, unset it here too, and run this command again; nothing is \
             written"
                .to_owned()
        }
        (_, Some(_)) if setting.shown.starts_with('«') => {
            format!("have the own key in `{file}` alone; nothing is written")
        }
        (_, Some(_)) => format!("write `{name}={}` there; nothing is written", setting.shown),
        (_, None) => "remove it there; nothing is written".to_owned(),
    };
    Refused::new(Kind::Conflict, message).with_help(help)
}

/// Finds a variable of `environment` that overrides `setting` in any file; returns it with its
/// value.
pub(super) fn variable_above(
    setting: &str,
    environment: &[(String, String)],
) -> Option<(String, String)> {
    let list = setting.split('[').next().unwrap_or_default();
    let wanted = [setting, list].map(|name| letters(&variable_for(name)));
    let mut variables = environment
        .iter()
        .filter(|(name, value)| !is_service_link(name, value, environment));
    let found = variables.find(|(name, _)| wanted.contains(&letters(name)));
    found.cloned()
}

/// Returns the part of a variable's name that all its spellings share: an underscore may replace a
/// dash or be left out, and dots and brackets may stand for themselves.
fn letters(name: &str) -> String {
    name.replace(['_', '-', '.', '[', ']'], "")
        .to_ascii_uppercase()
}
