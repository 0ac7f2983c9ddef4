//! Settings that stand above a file, or beside it: those of active profiles and of the environment.

use std::path::Path;

use super::error::{Kind, Refused};
use crate::config::{self, AsWritten};
use crate::diagnostic::{Origin, redact_name};
use crate::properties::name::{Name, Pattern, uniform, variable_for};
use crate::properties::{Document, Entry, FileText};

/// A deployment that a file trusts.
pub(super) const DEPLOYMENT: &str = "ataccama.one.platform.deployments.<name>";

/// Returns `true` if the name of `entry` begins as `pattern` does, with the map keys `keys`.
pub(super) fn is_of(entry: &Entry, pattern: &'static str, keys: &[&str]) -> bool {
    let found = Pattern::new(pattern).matches(&Name::parse(entry.key()));
    let wanted = keys.iter().map(|key| uniform(key));
    found.is_some_and(|found| found.keys.iter().map(|key| uniform(key)).eq(wanted))
}

/// Refuses where the file of an active profile has a setting that `is_meant`: only the file `main`
/// is changed, which holds `text`.
pub(super) fn are_in_main(
    main: &Path,
    text: &FileText,
    is_meant: impl Fn(&Entry) -> bool,
) -> Result<(), Refused> {
    for (path, text) in config::active_files(main, text, &config::environment())? {
        let document = Document::parse(&path, text.text());
        let Some(entry) = document.entries().iter().find(|entry| is_meant(entry)) else {
            continue;
        };
        let line = match document.origin(entry.key_span().start) {
            Origin::File { line, .. } => line,
            _ => 0,
        };
        let (setting, path) = (redact_name(entry.key()), path.display());
        let message = format!(
            "`{setting}` is set at {path}:{line}, in the file of an active profile, where this \
             changes the main file alone"
        );
        let help = format!(
            "move these settings from `{path}` into `{}`",
            main.display()
        );
        return Err(Refused::new(Kind::Conflict, message).with_help(help));
    }
    Ok(())
}

/// Reads the file `main` and those of its active profiles; none where one cannot be read.
pub(super) fn read_with_profiles(main: &Path) -> Option<AsWritten> {
    let text = FileText::read(main).ok()?;
    let profiles = config::active_files(main, &text, &config::environment()).ok()?;
    let profiles = profiles
        .iter()
        .map(|(path, text)| (path.as_path(), text.text()));
    Some(AsWritten::of(
        std::iter::once((main, text.text())).chain(profiles),
    ))
}

/// Makes sure that `path` is not the file of an active profile; refuses it as `kind`.
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
    let list = setting.split('[').next().unwrap_or_default();
    let wanted = [setting, list].map(|name| without_underscores(&variable_for(name)));
    let mut variables = config::environment().into_iter().map(|(name, _)| name);
    variables.find(|name| wanted.contains(&without_underscores(name)))
}

/// An underscore may stand for a dash, which a variable may also leave out.
fn without_underscores(name: &str) -> String {
    name.replace('_', "").to_ascii_uppercase()
}
