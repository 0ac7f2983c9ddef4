//! Whether a module reads what is to be written: another document or file may decide.

use std::path::{Path, PathBuf};

use super::error::{Kind, Refused};
use super::setting::Setting;
use crate::config;
use crate::diagnostic::redact_name;
use crate::properties::FileText;

/// Checks that every setting in `wanted`, which is for the file at `path`, takes effect where files hold
/// the texts `changed`.
///
/// # Errors
///
/// When a module would read another value.
pub(super) fn check(
    path: &Path,
    wanted: &[Setting],
    changed: &[(PathBuf, FileText)],
) -> Result<(), Refused> {
    if !changed.iter().any(|(file, _)| file == path) {
        return Ok(());
    }
    let environment = config::environment();
    let found = config::main_of(path, &environment);
    let main = found.as_deref().unwrap_or(path);
    let settings: Vec<_> = wanted.iter().map(|one| (&*one.key, one.text())).collect();
    let Some((key, origin)) = config::overruled(main, changed, &environment, &settings)? else {
        return Ok(());
    };
    let (name, file) = (redact_name(key), path.display());
    let message = format!("a change of `{name}` in `{file}` has no effect: {origin} decides");
    Err(Refused::new(Kind::Conflict, message).with_help("change it there; nothing is written"))
}
