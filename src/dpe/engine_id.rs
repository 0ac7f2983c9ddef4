//! The engine's id, kept from run to run.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use uuid::Uuid;

use crate::engine::EngineId;
use crate::files;
use crate::storage::StorageError;

/// Reads the engine's id from `<storage>/engine-id`, if a DPE has made one.
///
/// # Errors
///
/// When the file cannot be read, or holds something else than an id.
pub fn stored_engine_id(storage: &Path) -> Result<Option<EngineId>, StorageError> {
    let path = storage.join("engine-id");
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::of(&path, &error)),
        Ok(id) => Ok(Some(id)),
    }
}

/// Reads the engine's id from `<storage>/engine-id`, or makes it there once.
///
/// The file is written whole or not at all, and one that holds anything else is kept: a new id
/// would be a new engine. The lock on the storage folder, which the caller holds, keeps a second
/// process out.
///
/// # Errors
///
/// When the file cannot be read or written, or holds something else than an id.
pub fn load_or_create(storage: &Path) -> Result<EngineId, StorageError> {
    if let Some(id) = stored_engine_id(storage)? {
        return Ok(id);
    }
    let id = EngineId::from_random(Uuid::new_v4().into_bytes());
    let path = storage.join("engine-id");
    let written = write(storage, &path, id);
    written.map_err(|error| StorageError::of(&path, &error))?;
    Ok(id)
}

fn read(path: &Path) -> io::Result<EngineId> {
    let mut text = Vec::new();
    let file = files::read_own(path)?;
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    let id = String::from_utf8_lossy(&text).trim().parse();
    id.map_err(|error| {
        let help = "restore the file, or remove it to become a new engine";
        io::Error::other(format!("it holds no engine id: {error}; {help}"))
    })
}

fn write(storage: &Path, path: &Path, id: EngineId) -> io::Result<()> {
    let half_written = storage.join("engine-id.new");
    if let Err(error) = fs::remove_file(&half_written)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = File::options();
    let mut file = files::open_own(&half_written, options.write(true).create_new(true))?;
    file.write_all(format!("{id}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&half_written, path)?;
    // The new name outlasts a crash only once its folder is written.
    File::open(storage)?.sync_all()
}

const MAX_BYTES: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_made_once_and_kept() {
        let storage = tempfile::tempdir().unwrap();

        let made = load_or_create(storage.path()).unwrap();
        let kept = load_or_create(storage.path()).unwrap();

        assert_eq!(made, kept);
        let names: Vec<_> = fs::read_dir(storage.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["engine-id"]);
    }

    #[test]
    fn two_folders_are_two_engines() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

        assert_ne!(
            load_or_create(a.path()).unwrap(),
            load_or_create(b.path()).unwrap()
        );
    }

    #[test]
    fn broken_file_is_named_and_left_alone() {
        let storage = tempfile::tempdir().unwrap();
        let path = storage.path().join("engine-id");
        for broken in ["", "no id", "\0\u{1}", &"x".repeat(100_000)] {
            fs::write(&path, broken).unwrap();

            let error = load_or_create(storage.path()).unwrap_err();

            let text = crate::failure::cause(&error);
            assert!(text.contains("engine-id`: it holds no engine id"), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), broken);
        }
        fs::write(&path, [0xff; 36]).unwrap();
        assert!(load_or_create(storage.path()).is_err());
    }

    #[test]
    fn half_written_id_of_a_crash_is_replaced() {
        let storage = tempfile::tempdir().unwrap();
        fs::write(storage.path().join("engine-id.new"), "0031de").unwrap();

        let made = load_or_create(storage.path()).unwrap();

        assert_eq!(load_or_create(storage.path()).unwrap(), made);
    }

    #[test]
    fn folder_in_place_of_the_file_is_an_error() {
        let storage = tempfile::tempdir().unwrap();
        fs::create_dir(storage.path().join("engine-id")).unwrap();

        let error = load_or_create(storage.path()).unwrap_err();

        assert!(matches!(error, StorageError::Io { .. }), "{error}");
    }

    #[test]
    fn a_link_or_a_pipe_is_refused_at_once_and_its_target_is_untouched() {
        let storage = tempfile::tempdir().unwrap();
        let [id, new, other] =
            ["engine-id", "engine-id.new", "other"].map(|name| storage.path().join(name));
        fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &new).unwrap();
        let made = load_or_create(storage.path()).unwrap();
        assert_eq!(stored_engine_id(storage.path()).unwrap(), Some(made));
        fs::remove_file(&id).unwrap();
        std::os::unix::fs::symlink(&other, &id).unwrap();
        let link = load_or_create(storage.path()).unwrap_err();
        fs::remove_file(&id).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(&id).status();
        assert!(pipe.unwrap().success());
        let pipe = load_or_create(storage.path()).unwrap_err();

        for error in [link, pipe] {
            assert!(matches!(error, StorageError::Io { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
    }
}
