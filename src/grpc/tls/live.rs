//! Values that are read from PEM files and replaced together.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};

use super::files::Content;
use super::{PemFile, TlsError};
use crate::grpc::cause;

type Digest = [u8; 32];

/// A value that is read from files.
#[derive(Debug)]
pub(super) struct Live<T> {
    current: Arc<ArcSwap<T>>,
    /// Kept for the files that are in use.
    _source: Arc<Source>,
}

/// Files, and how the value is made of them again.
struct Source {
    files: Vec<PemFile>,
    /// The contents that the current value was read from.
    read: ArcSwap<Digest>,
    make: Box<Make>,
}

type Make = dyn Fn(&[Content]) -> Result<Swap, TlsError> + Send + Sync;

/// Replaces the current value with a new one.
type Swap = Box<dyn FnOnce() + Send>;

impl<T: Send + Sync + 'static> Live<T> {
    /// Makes the value; `all` makes it again when its files change.
    pub(super) fn new(
        all: &TlsFiles,
        files: Vec<PemFile>,
        make: impl Fn(&[Content]) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let contents = read(&files)?;
        let current = Arc::new(ArcSwap::from_pointee(make(&contents)?));
        let target = Arc::clone(&current);
        let source = Arc::new(Source {
            files,
            read: ArcSwap::from_pointee(digest(&contents)),
            make: Box::new(move |contents| {
                let (value, target) = (Arc::new(make(contents)?), Arc::clone(&target));
                Ok(Box::new(move || target.store(value)))
            }),
        });
        let mut known = all.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.push(Arc::downgrade(&source));
        drop(known);
        Ok(Self {
            current,
            _source: source,
        })
    }

    /// Returns the current value.
    pub(super) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.files).finish()
    }
}

/// The PEM files of a module's TLS, as far as TLS is in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles(Arc<Mutex<Vec<Weak<Source>>>>);

impl TlsFiles {
    fn in_use(&self) -> Vec<Arc<Source>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|source| source.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns where the files are, each once.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let all = self.in_use();
        let files = all.iter().flat_map(|source| &source.files);
        let paths: BTreeSet<_> = files.map(|file| file.path.clone()).collect();
        paths.into_iter().collect()
    }

    /// Reads all files and returns those that changed or cannot be read.
    pub(crate) fn read(&self) -> ChangedTlsFiles {
        let all = self.in_use().into_iter();
        let read = all.map(|source| (read(&source.files), source));
        let changed = read.filter(|(contents, source)| match contents {
            Ok(contents) => **source.read.load() != digest(contents),
            Err(_) => true,
        });
        ChangedTlsFiles(changed.collect())
    }
}

/// The files that differ from those of the current TLS, as they were read.
#[derive(Debug)]
pub(crate) struct ChangedTlsFiles(Vec<(Contents, Arc<Source>)>);

type Contents = Result<Vec<Content>, TlsError>;

impl ChangedTlsFiles {
    /// Returns what identifies their contents; `None` if nothing changed.
    pub(crate) fn digest(&self) -> Option<Digest> {
        let mut all = Sha256::new();
        for (contents, _) in &self.0 {
            match contents {
                Ok(contents) => all.update(digest(contents)),
                Err(error) => all.update(cause(error)),
            }
        }
        (!self.0.is_empty()).then(|| all.finalize().into())
    }

    /// Makes TLS of them, all of it or nothing; it is current after the returned swap.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used.
    pub(crate) fn make(self) -> Result<impl FnOnce() + Send, TlsError> {
        let mut swaps = Vec::new();
        for (read, source) in self.0 {
            let contents = read?;
            swaps.push(((source.make)(&contents)?, digest(&contents), source));
        }
        Ok(move || {
            for (swap, digest, source) in swaps {
                swap();
                source.read.store(Arc::new(digest));
            }
        })
    }
}

fn read(files: &[PemFile]) -> Result<Vec<Content>, TlsError> {
    files.iter().map(PemFile::read).collect()
}

fn digest(contents: &[Content]) -> Digest {
    let mut all = Sha256::new();
    for content in contents {
        all.update(Sha256::digest(content.as_slice()));
    }
    all.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn file(path: &Path) -> PemFile {
        PemFile {
            path: path.to_owned(),
            setting: "a.setting".to_owned(),
        }
    }

    /// Makes the text of a file; one that begins with `bad` makes nothing.
    fn text(file: &PemFile, contents: &[Content]) -> Result<String, TlsError> {
        let text = String::from_utf8_lossy(&contents[0]).into_owned();
        if text.starts_with("bad") {
            return Err(TlsError::of_file(file, "is bad"));
        }
        Ok(text)
    }

    fn live(all: &TlsFiles, path: &Path) -> Live<String> {
        let file = file(path);
        Live::new(all, vec![file.clone()], move |contents| {
            text(&file, contents)
        })
        .unwrap()
    }

    #[test]
    fn changed_contents_are_current_after_the_swap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        fs::write(&path, "one").unwrap();
        let all = TlsFiles::default();
        let live = live(&all, &path);
        assert_eq!(all.paths(), std::slice::from_ref(&path));
        assert_eq!(all.read().digest(), None);

        fs::write(&path, "other").unwrap();
        let changed = all.read();
        assert!(changed.digest().is_some());
        let swap = changed.make().unwrap();

        assert_eq!(*live.current(), "one");
        swap();
        assert_eq!(*live.current(), "other");
        assert_eq!(all.read().digest(), None);
    }

    #[test]
    fn contents_that_cannot_be_used_leave_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a.pem", "b.pem"].map(|name| folder.path().join(name));
        for path in &paths {
            fs::write(path, "good").unwrap();
        }
        let all = TlsFiles::default();
        let [first, second] = [&paths[0], &paths[1]].map(|path| live(&all, path));

        fs::write(&paths[0], "better").unwrap();
        let mut seen = Vec::new();
        for broken in [Some("bad 1"), Some("bad 22"), None] {
            match broken {
                Some(text) => fs::write(&paths[1], text).unwrap(),
                None => fs::remove_file(&paths[1]).unwrap(),
            }
            let changed = all.read();
            seen.push(changed.digest());
            let error = cause(&changed.make().err().unwrap());
            assert!(error.contains("a.setting"), "{error}");
            assert_eq!(
                [&first, &second].map(|l| String::clone(&l.current())),
                ["good"; 2]
            );
        }
        seen.dedup();
        assert_eq!(seen.len(), 3);

        fs::write(&paths[1], "good").unwrap();
        all.read().make().unwrap()();
        assert_eq!(*first.current(), "better");
    }

    #[test]
    fn files_of_dropped_values_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        fs::write(&path, "one").unwrap();
        let all = TlsFiles::default();

        drop(live(&all, &path));

        assert!(all.paths().is_empty());
    }

    #[test]
    fn file_that_is_missing_or_too_large_at_first_is_an_error_with_its_setting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        let made = |path: &Path| {
            let made = Live::new(&TlsFiles::default(), vec![file(path)], |_| Ok(()));
            cause(&made.unwrap_err())
        };

        let missing = made(&path);
        fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        let large = made(&path);

        assert!(
            missing.contains("(`a.setting`) cannot be read: "),
            "{missing}"
        );
        assert!(large.contains("is larger than 1 MiB"), "{large}");
    }
}
