//! From a home to a module that follows its files.

use std::ffi::OsStr;
use std::future::pending;
use std::io;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Home, LoadError, ModuleKind, Reloader, Settings};
use crate::config::{environment, wiring};
use crate::grpc::Module;
use crate::grpc::tls::TlsError;
use crate::identity::ModuleType;
use crate::storage::StorageError;
use crate::telemetry::events;

/// Why a module cannot be opened.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its files cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A PEM file cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// It was not called in a Tokio runtime.
    #[error(
        "a module follows its files in a Tokio runtime; call this in one, or use `Module::load`"
    )]
    NoRuntime,
    /// The runtime has no timer, or takes no signals.
    #[error("the Tokio runtime has no timer or no I/O; build it with `enable_all()`")]
    NoDriver,
    /// Each token is to be taken once, but another process of this home already keeps count, or the
    /// storage folder cannot be written.
    #[error("`countersign.token.replay=strict` cannot be enforced")]
    Storage(#[from] StorageError),
    /// The signal SIGHUP cannot be caught.
    #[error("cannot wait for SIGHUP")]
    Signal(#[source] io::Error),
}

crate::failure::debug_as_text!(OpenError);

/// How to open a module.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    home: PathBuf,
    has_signals: bool,
}

impl OpenOptions {
    pub(super) fn new(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            has_signals: true,
        }
    }

    /// Leaves SIGHUP alone. The files are followed all the same.
    #[must_use]
    pub fn without_signals(self) -> Self {
        Self {
            has_signals: false,
            ..self
        }
    }

    /// Opens the module; see [`Module::open`].
    ///
    /// # Errors
    ///
    /// As [`Module::open`].
    pub fn open(self) -> Result<Module, OpenError> {
        let runtime = Handle::try_current().map_err(|_none| OpenError::NoRuntime)?;
        let settings = read(&self.home)?;
        let module = settings.module().map_err(LoadError::Module)?;
        let (mut replay, storage) = (module.replay.iter(), settings.home.storage());
        replay.try_for_each(|replay| replay.keep_in(&storage))?;
        let reloader = Reloader::new(&settings, &module.for_follower());
        let wired = module.clone().wired(wiring(&settings, &module, true)?);
        // Tokio panics where a driver is missing, and has no other way to ask for one.
        let caught = catch_unwind(|| {
            drop(tokio::time::sleep(Duration::ZERO));
            let hangups = self.has_signals.then(|| signal(SignalKind::hangup()));
            hangups.transpose()
        });
        let hangups = caught.map_err(|_panic| OpenError::NoDriver)?;
        let following = follow(
            reloader,
            hangups.map_err(OpenError::Signal)?,
            Ended(wired.for_follower()),
        );
        wired.trust().keep(runtime.spawn(following).abort_handle());
        if !settings.not_for_libraries.is_empty() {
            let file = settings.home.file.display();
            events::settings_not_applied(file, &settings.not_for_libraries.join(", "));
        }
        Ok(wired)
    }
}

/// Loads a module once.
pub(super) fn load(home: &Path) -> Result<Module, LoadError> {
    let settings = read(home)?;
    let module = settings.module()?;
    match wiring(&settings, &module, false) {
        Ok(wiring) => Ok(module.wired(wiring)),
        Err(error) => Err(LoadError::Internal(error.into())),
    }
}

fn read(home: &Path) -> Result<Settings, LoadError> {
    let folder = Home::new(home).dir;
    let name = folder.file_name().and_then(OsStr::to_str);
    let module = match name.and_then(|name| ModuleType::new(name).ok()) {
        Some(module) => module,
        None => ModuleType::new("module").map_err(|error| LoadError::Internal(error.into()))?,
    };
    Settings::load(home, &ModuleKind::of(&module), environment(), &[])
}

/// Follows the files until the runtime ends, which is then shown, or nothing uses the module.
async fn follow(reloader: Reloader, mut hangups: Option<Signal>, _shown: Ended) {
    let files = reloader.handle();
    let mut running = pin!(reloader.run());
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            never = &mut running => match never {},
            _ = hangup => files.reload(),
        }
    }
}

struct Ended(Module);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.health().shown("configReload").down(
            "the files are no longer followed: the runtime in which the module was opened has ended",
        );
    }
}
