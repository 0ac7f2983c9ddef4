//! The files of a configuration tree, each of which is a value.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

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
