//! A module's home: its settings, or every reason why it cannot be used.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{Console, Kind, Refused, counted};
use crate::config::{self, LoadError, ModuleKind, Settings};
use crate::diagnostic::Severity;
use crate::identity::ModuleType;

/// Which home, and what overrides its file.
#[derive(Args, Debug)]
pub(super) struct HomeArguments {
    /// The module's home, with `etc/application.properties`
    #[arg(long, value_name = "DIR")]
    pub(super) home: PathBuf,
    /// A setting over the file and the environment; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) sets: Vec<(String, String)>,
}

impl HomeArguments {
    /// Loads the settings; shows every finding and ends with exit code 3 if there is an error.
    pub(super) fn load(&self, kind: &ModuleKind, console: &Console) -> Result<Settings, Refused> {
        let settings = Settings::load(&self.home, kind, config::environment(), &self.sets)
            .map_err(|error| unusable(error, &self.home))?;
        let found = settings.findings.iter();
        console.findings(found.filter(|f| f.severity == Severity::Warning));
        Ok(settings)
    }
}

/// Returns the error with every finding.
fn unusable(error: LoadError, home: &Path) -> Refused {
    let Some(findings) = error.findings() else {
        return Refused::caused(Kind::Unreadable, "cannot load the settings")(error);
    };
    let count = counted(findings.errors(), "error");
    let message = format!("{count} in the settings of `{}`", home.display());
    Refused::new(Kind::Unreadable, message).with_findings(findings.clone())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// Guesses a module's kind from the name of its home; it only decides default ports.
pub(super) fn kind_of(home: &Path) -> ModuleKind {
    let folder = home.canonicalize().unwrap_or_default();
    let name = folder.file_name().and_then(OsStr::to_str);
    match name.map(ModuleType::new) {
        Some(Ok(module)) => ModuleKind::of(&module),
        _ => ModuleKind::Dpe,
    }
}
