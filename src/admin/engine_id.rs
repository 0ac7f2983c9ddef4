//! An id of its own for an engine whose home was copied.

use std::path::Path;

use crate::admin::error::{Kind, Refused};
use crate::config::Home;
use crate::dpe::{make_engine_id, stored_engine_id};
use crate::engine::EngineId;
use crate::failure::cause;
use crate::storage::{Storage, StorageError};

/// Gives the engine of `home` a new id; returns the old one and the new one.
///
/// # Errors
///
/// When it has no id, it runs, or its storage folder cannot be read or written.
pub fn renew(home: &Home) -> Result<(EngineId, EngineId), Refused> {
    let folder = home.storage();
    // Asked before the lock: that would make the folder of a home that is not there.
    if stored(&folder)?.is_none() {
        let what = format!("no engine has started in `{}`", home.dir.display());
        let failed = Refused::new(Kind::NotThere, what);
        return Err(failed.with_help("its first start makes an id of its own"));
    }
    let lock = Storage::lock(&folder).map_err(|error| refused(&error))?;
    // Another command may have been here meanwhile.
    let old = stored(&lock.folder)?;
    let made = make_engine_id(&lock.folder).map_err(|error| refused(&error))?;
    Ok((old.unwrap_or(made), made))
}

fn stored(folder: &Path) -> Result<Option<EngineId>, Refused> {
    stored_engine_id(folder).map_err(|error| refused(&error))
}

fn refused(error: &StorageError) -> Refused {
    match error {
        StorageError::InUse { .. } => {
            Refused::new(Kind::Taken, cause(error)).with_help("stop the engine first")
        }
        StorageError::Io { .. } => Refused::new(Kind::Unreadable, cause(error)),
    }
}
