//! SIGKILL between any two writes: the test's own binary is run again as a child that kills itself.

use std::cell::Cell;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const AT: &str = "COUNTERSIGN_TEST_KILL_AT";
const FOLDER: &str = "COUNTERSIGN_TEST_KILL_IN";

static PASSED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static HOOK: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

/// Runs `hook` at the next point of this thread.
pub(super) fn at_next_point(hook: impl FnOnce() + 'static) {
    HOOK.set(Some(Box::new(hook)));
}

/// Kills this process where it is a child of [`at_every_point`] that has come this far.
pub(super) fn kill_point() {
    if let Some(hook) = HOOK.take() {
        hook();
    }
    let Some(at) = env::var_os(AT) else { return };
    let at: u32 = at.to_str().unwrap().parse().unwrap();
    if PASSED.fetch_add(1, Ordering::SeqCst) == at {
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::KILL).unwrap();
        std::thread::park();
    }
}

/// Returns the folder that a child is to work in; none in a run that is no child.
pub(crate) fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

/// Runs the ignored test `child` of this binary in a folder made by `set_up`, killed at its first
/// point, then again at its second, and so on until it comes through; after each `look` sees the
/// folder. Returns how often it was killed.
pub(crate) fn at_every_point(
    child: &str,
    set_up: impl Fn(&Path),
    look: impl Fn(&Path, u32),
) -> u32 {
    for at in 0.. {
        let folder = tempfile::tempdir().unwrap();
        set_up(folder.path());
        let this: OsString = env::current_exe().unwrap().into();
        let ended = Command::new(this)
            .args([
                child,
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(AT, at.to_string())
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        look(folder.path(), at);
        if ended.success() {
            return at;
        }
        assert_eq!(ended.code(), None, "{child} failed by itself at {at}");
    }
    panic!("it would have to be killed for ever")
}
