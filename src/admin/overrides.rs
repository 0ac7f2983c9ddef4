//! What the files of active profiles set, which stands above the main file.

use std::path::{Path, PathBuf};

use super::error::{Kind, Refused};
use crate::config;
use crate::diagnostic::{Origin, redact_name};
use crate::properties::name::{Name, variable_for};
use crate::properties::{Document, FileText, ReadError};

/// A setting, and where it stands.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{setting}` is set at {}:{line}, in the file of an active profile", path.display())]
pub struct Overriding {
    /// The file.
    pub path: PathBuf,
    /// The line.
    pub line: u32,
    /// Its name, as it is written.
    pub setting: String,
}

/// Makes sure that `path` is no file of an active profile; refuses it as `kind`.
pub(super) fn is_main(path: &Path, kind: Kind) -> Result<(), Refused> {
    let Some(main) = config::main_of(path, &config::environment()) else {
        return Ok(());
    };
    let (path, main) = (path.display(), main.display());
    let message = format!("`{path}` is the file of an active profile of `{main}`");
    Err(Refused::new(kind, message).with_help(format!("name the main file: `{main}`")))
}

/// Names a variable of this process's environment that stands above `setting` in any file.
pub(super) fn variable_above(setting: &str) -> Option<String> {
    // An underscore may stand for a dash, which a variable may also leave out.
    let plain = |name: &str| name.replace('_', "").to_ascii_uppercase();
    let list = setting.split('[').next().unwrap_or_default();
    let wanted = [setting, list].map(|name| plain(&variable_for(name)));
    let environment = config::environment();
    let mut variables = environment.iter().map(|(name, _)| name);
    let found = variables.find(|name| wanted.contains(&plain(name)));
    found.cloned()
}

/// Which settings are meant, by name and value.
pub(super) type Meant<'a> = dyn Fn(&Name<'_>, &str) -> bool + 'a;

/// Finds the first setting that `is_meant` in the files of the profiles that are active beside
/// `main`, which holds `text`.
///
/// # Errors
///
/// When such a file is there and cannot be read.
pub(super) fn find(
    main: &Path,
    text: &FileText,
    is_meant: &Meant<'_>,
) -> Result<Option<Overriding>, ReadError> {
    let files = config::active_files(main, text, &config::environment())?;
    let mut found = files.iter().flat_map(|file| settings(file, is_meant));
    Ok(found.next().map(|(setting, _)| setting))
}

/// Returns the setting that `is_meant` which wins in the file `main` and those of its profiles, with
/// its value.
pub(super) fn winning(main: &Path, is_meant: &Meant<'_>) -> Option<(Overriding, String)> {
    let text = FileText::read(main).ok()?;
    let profiles = config::active_files(main, &text, &config::environment()).ok()?;
    let mut files = vec![(main.to_owned(), text)];
    files.extend(profiles);
    let found = files.iter().flat_map(|file| settings(file, is_meant));
    found.last()
}

fn settings((path, text): &(PathBuf, FileText), is_meant: &Meant<'_>) -> Vec<(Overriding, String)> {
    let document = Document::parse(path, text.text());
    let entries = document.entries().iter();
    let meant = entries.filter(|entry| is_meant(&Name::parse(entry.key()), entry.value()));
    let placed = meant.map(|entry| {
        let setting = Overriding {
            path: path.clone(),
            line: line(&document.origin(entry.key_span().start)),
            setting: redact_name(entry.key()),
        };
        (setting, entry.value().trim().to_owned())
    });
    placed.collect()
}

fn line(origin: &Origin) -> u32 {
    match origin {
        Origin::File { line, .. } => *line,
        _ => 0,
    }
}
