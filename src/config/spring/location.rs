//! Where the values of `spring.config.import` lead.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// A value of `spring.config.import`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// Whether it may be missing.
    pub optional: bool,
    /// Where it leads.
    pub target: Target,
}

/// What an import names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// A properties file.
    File(PathBuf),
    /// A properties file whose name does not say so, `name[.properties]`.
    Bare(PathBuf),
    /// A folder in which each file is a value.
    Tree(PathBuf),
    /// A folder of such folders.
    Trees(PathBuf),
    /// A file on this machine that is not read here, such as YAML.
    Unread(PathBuf),
    /// Anything else.
    Unknown,
}

impl Location {
    /// Reads `written`. A path without `file:` starts in the folder of the file `declaring` it, any
    /// other in the module's folder, `home`.
    pub fn parse(written: &str, declaring: Option<&Path>, home: &Path) -> Self {
        let (optional, text) = match written.trim().strip_prefix("optional:") {
            Some(rest) => (true, rest),
            None => (false, written.trim()),
        };
        let target = if text.is_empty() || text.contains([';', '\0']) {
            None
        } else if let Some(tree) = text.strip_prefix("configtree:") {
            tree_of(tree, home)
        } else if let Some(path) = text.strip_prefix("file:") {
            path_of(path, home).and_then(target)
        } else {
            let folder = declaring.and_then(Path::parent).unwrap_or(home);
            path_of(text, folder).and_then(target)
        };
        Self {
            optional,
            target: target.unwrap_or(Target::Unknown),
        }
    }

    /// Returns the properties file at `path`.
    pub fn file(path: &Path) -> Self {
        Self {
            optional: false,
            target: Target::File(path.to_owned()),
        }
    }

    /// Returns the file beside this one for `profile`.
    pub fn for_profile(&self, profile: &str) -> Option<PathBuf> {
        let path = match &self.target {
            Target::File(path) => path,
            Target::Bare(path) => {
                let name = path.file_name()?.to_str()?;
                return Some(path.with_file_name(format!("{name}-{profile}")));
            }
            _ => return None,
        };
        let stem = path.file_stem().unwrap_or_default().to_str()?;
        let end = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        let is_usual = end.eq_ignore_ascii_case("properties");
        let usual = if is_usual { end } else { "properties" };
        Some(path.with_file_name(format!("{stem}-{profile}.{usual}")))
    }
}

/// Returns the text and the path in `folder` that it means; `None` if it is no path.
fn path_of(text: &str, folder: &Path) -> Option<(String, PathBuf)> {
    let path = match text.strip_prefix("//") {
        // `file:///x`; a host comes before any other path.
        Some(rest) => rest.starts_with('/').then_some(rest)?,
        None => text,
    };
    let scheme = path.split_once(':').map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| !scheme.contains('/')) || path.contains('*') {
        return None;
    }
    let whole = folder.join(path);
    let parts = whole.components().filter(|part| *part != Component::CurDir);
    Some((path.to_owned(), parts.collect()))
}

fn target((text, path): (String, PathBuf)) -> Option<Target> {
    let name = path.file_name()?.to_str()?;
    let bare = name.strip_suffix("[.properties]").unwrap_or_default();
    if !matches!(bare, "" | "." | "..") && text.ends_with(']') {
        return Some(Target::Bare(path.with_file_name(bare)));
    }
    // A folder, or a file with another reader.
    if text.ends_with(['/', ']']) {
        return None;
    }
    let (_, end) = name.rsplit_once('.')?;
    match end.to_ascii_lowercase().as_str() {
        "properties" => Some(Target::File(path)),
        "yml" | "yaml" | "xml" => Some(Target::Unread(path)),
        _ => None,
    }
}

fn tree_of(text: &str, home: &Path) -> Option<Target> {
    let folder = text.strip_suffix('/')?;
    match folder.strip_suffix("/*") {
        Some(above) => Some(Target::Trees(path_of(above, home)?.1)),
        None => Some(Target::Tree(path_of(folder, home)?.1)),
    }
}
