//! The files of a module: where the values of `spring.config.import` lead, what a configuration tree
//! holds, and the texts that were read.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::switches::Fault;
use crate::config::question::is_same;
use crate::properties::{ContentDigest, Document, FileText};

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

const MOST_DEPTH: usize = 32;

/// Lists the folders in the folder `path`, by name.
///
/// # Errors
///
/// When it does not exist, or cannot be read.
pub fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = paths(path)?;
    folders.retain(|path| path.is_dir());
    Ok(folders)
}

/// Lists the files below `path`, each with the name of its value, up to a few more than `most`.
///
/// # Errors
///
/// `NotFound` when `path` does not exist; otherwise when a folder cannot be read, or there are more
/// than `most`, as where links lead back.
pub fn list(path: &Path, most: usize) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    let mut left = vec![(String::new(), path.to_owned(), 0)];
    let mut visited = 0..most;
    while let Some((prefix, folder, depth)) = left.pop() {
        if visited.next().is_none() {
            return Err(io::Error::other("it holds too many folders"));
        }
        let found = paths(&folder).map_err(|error| match error.kind() {
            // It was there a moment ago.
            ErrorKind::NotFound if depth > 0 => io::Error::other(error),
            _ => error,
        });
        for path in found? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let key = format!("{prefix}{name}");
            if path.is_dir() && depth < MOST_DEPTH {
                left.push((format!("{key}."), path, depth.saturating_add(1)));
            } else if files.len() <= most {
                files.push((key, path));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Lists what is in a folder by name, without what Kubernetes keeps there for itself, such as
/// `..data`.
fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let all: Result<Vec<_>, _> = fs::read_dir(folder)?.collect();
    let mut paths: Vec<_> = all?.into_iter().map(|one| one.path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default();
        !name.as_encoded_bytes().starts_with(b"..")
    });
    paths.sort();
    Ok(paths)
}

/// The texts of a module's files, read one after the other.
#[derive(Debug)]
pub struct Texts {
    /// All texts together.
    pub document: Arc<Document>,
    /// The numbers of the documents that are active, the lowest first.
    pub order: Vec<usize>,
    /// What is wrong with the switches that decide this.
    pub faults: Vec<Fault>,
    /// The files that were looked for; no text where one is not there, or is a folder. Those with a
    /// text are the files of `document`, in its order.
    pub(super) files: Vec<(PathBuf, Option<FileText>)>,
    /// Those of them that are the main file's, for an active profile.
    pub of_profiles: Vec<PathBuf>,
}

impl Texts {
    /// Returns the files that are there with their texts, the main one first.
    pub fn texts(&self) -> Vec<(&Path, &FileText)> {
        let files = self.files.iter();
        files
            .filter_map(|(path, text)| Some((path.as_path(), text.as_ref()?)))
            .collect()
    }

    /// Returns the files to look at, and whether they are there.
    pub fn files(&self) -> Vec<(PathBuf, bool)> {
        let files = self.files.iter();
        files
            .map(|(path, text)| (path.clone(), text.is_some()))
            .collect()
    }

    /// Returns `true` if `path` is a file that the main file brings in.
    pub fn brings_in(&self, path: &Path) -> bool {
        let mut others = self.texts().into_iter().skip(1);
        others.any(|(other, _)| is_same(other, path))
    }

    /// Finds a file that is to be read, was there among the files `before` and no longer exists.
    pub fn gone_since(&self, before: &[(PathBuf, bool)]) -> Option<PathBuf> {
        let files = self.files().into_iter();
        let mut gone = files
            .filter(|(_, is_there)| !is_there)
            .map(|(path, _)| path);
        gone.find(|path| before.contains(&(path.clone(), true)))
    }

    /// Returns what differs where any byte or permission bit does, or a file cannot be read.
    pub fn digest(&self) -> ContentDigest {
        let mut all = Sha256::new();
        for (path, text) in self.texts() {
            all.update(Sha256::digest(path.as_os_str().as_encoded_bytes()));
            all.update(text.mode.unwrap_or_default().to_le_bytes());
            all.update(text.digest);
        }
        for fault in &self.faults {
            all.update(&fault.message);
        }
        all.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_lead_back_end_the_search() {
        let tree = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            symlink(".", tree.path().join(name)).unwrap();
        }

        let error = list(tree.path(), 100).unwrap_err();

        assert_eq!(error.to_string(), "it holds too many folders");
    }
}
