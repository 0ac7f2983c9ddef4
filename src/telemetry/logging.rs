//! Where the log goes, as the settings say.

use std::path::PathBuf;

/// Which forms of the log go to one place.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Appenders {
    /// Lines for people.
    pub plain: bool,
    /// JSON lines.
    pub json: bool,
}

/// Where the log goes.
#[derive(Clone, Debug)]
pub struct Logging {
    /// Standard error. Default: plain.
    pub console: Appenders,
    /// Files in `dir`: `spring-boot-logger.json.log` and `spring-boot-logger.log`. Default: JSON.
    pub file: Appenders,
    /// The folder of the files. It is made if it does not exist.
    pub dir: PathBuf,
}
