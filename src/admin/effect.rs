//! Whether a module reads what is to be written: another document, file or variable may decide.

use std::path::{Path, PathBuf};

use super::error::{Kind, Refused};
use super::setting::Setting;
use crate::config::{self, is_service_link};
use crate::diagnostic::{Origin, redact_name};
use crate::properties::FileText;
use crate::properties::name::variable_for;

/// Checks that every setting in `wanted`, which is for the file at `path`, takes effect where files
/// hold `texts`. Variables count only for a file that is there: no running module has a new one.
///
/// # Errors
///
/// When a module would read another value.
pub(super) fn check(
    path: &Path,
    wanted: &[Setting],
    texts: &[(PathBuf, FileText)],
    is_there: bool,
) -> Result<(), Refused> {
    if wanted.is_empty() {
        return Ok(());
    }
    let environment = config::environment();
    let found = config::main_of(path, &environment);
    let main = found.as_deref().unwrap_or(path);
    let settings: Vec<_> = wanted.iter().map(|one| (&*one.key, one.text())).collect();
    let decides = match config::overruled(main, texts, &environment, &settings)? {
        None if is_there => overridden(&settings, &environment),
        found => found,
    };
    let Some((key, origin)) = decides else {
        return Ok(());
    };
    let (name, file) = (redact_name(key), path.display());
    let message = format!("a change of `{name}` in `{file}` has no effect: {origin} decides");
    let help = match origin {
        Origin::Environment(_) => {
            "start the module without it, unset it here too, and run this command again; nothing is \
             written"
        }
        _ => "change it there; nothing is written",
    };
    Err(Refused::new(Kind::Conflict, message).with_help(help))
}

/// Finds a setting that does not get its value because of a variable.
fn overridden<'w>(
    settings: &[(&'w str, Option<&str>)],
    environment: &[(String, String)],
) -> Option<(&'w str, Origin)> {
    settings.iter().find_map(|(key, value)| {
        let (variable, _) =
            variable_above(key, environment).filter(|(_, other)| Some(&**other) != *value)?;
        Some((*key, Origin::Environment(variable.into())))
    })
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
