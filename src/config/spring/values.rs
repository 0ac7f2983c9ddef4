//! The files of a configuration tree, each of which is a value.

use std::fs;
use std::path::{Path, PathBuf};

const MOST_DEPTH: usize = 32;

/// Lists the folders in the folder `path`, by name; `None` if it cannot be read.
pub fn folders(path: &Path) -> Option<Vec<PathBuf>> {
    let mut folders = paths(path)?;
    folders.retain(|path| path.is_dir());
    Some(folders)
}

/// Lists the files below `path`, each with the name of its value, up to a few more than `most`; `None`
/// if it cannot be read.
pub fn list(path: &Path, most: usize) -> Option<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    let mut left = vec![(String::new(), path.to_owned(), 0)];
    while let Some((prefix, folder, depth)) = left.pop() {
        for path in paths(&folder)? {
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
    Some(files)
}

/// Lists what is in a folder by name, without what Kubernetes keeps there for itself, such as `..data`.
fn paths(folder: &Path) -> Option<Vec<PathBuf>> {
    let all: Result<Vec<_>, _> = fs::read_dir(folder).ok()?.collect();
    let mut paths: Vec<_> = all.ok()?.into_iter().map(|one| one.path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default();
        !name.as_encoded_bytes().starts_with(b"..")
    });
    paths.sort();
    Some(paths)
}
