//! Reading what the arguments name: a file, `-` for stdin, both bounded; or the home of a module.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use clap::Args;
use zeroize::Zeroizing;

use super::output::{Console, Kind, Refused, counted};
use crate::config::{self, Home, LoadError, ModuleKind, Settings};
use crate::diagnostic::{CommandLine, Findings, Severity};
use crate::jose::{KeyError, KeyMaterial};
use crate::library::type_by_folder;
use crate::properties::ReadError;

/// Reads at most `limit` bytes and one more, by which the caller sees that it is too long.
pub(super) fn bytes(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = if is_stdin(path) {
        io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| ReadError::new(path.to_owned(), error))?;
    Ok(bytes)
}

/// Reads a key.
pub(super) fn key(path: &Path) -> Result<KeyMaterial, Refused> {
    /// [`KeyMaterial::read`] reports a longer one.
    const LIMIT: usize = 64 * 1024;
    let read = KeyMaterial::read(&bytes(path, LIMIT)?).map(|(key, _)| key);
    let what = format!("cannot read a key from {}", name(path));
    read.map_err(|error| {
        let rewrite = match &error {
            KeyError::Encrypted | KeyError::Beside(_) => Some("openssl pkey"),
            KeyError::ExplicitParameters { public: false } => {
                Some("openssl ec -param_enc named_curve")
            }
            KeyError::ExplicitParameters { public: true } => {
                Some("openssl ec -pubin -pubout -param_enc named_curve")
            }
            _ => None,
        };
        let refused = Refused::caused(Kind::Unreadable, what)(error);
        match rewrite.filter(|_| !is_stdin(path)) {
            Some(words) => refused
                .with_help("write the key alone to `key.pem`:")
                .with_commands([CommandLine::new(format!("{words} -out key.pem -in")).arg(path)]),
            None => refused,
        }
    })
}

/// Drops the line ends after a token. A token with a blank is malformed.
pub(super) fn token(text: &str) -> &str {
    text.trim_end_matches(['\n', '\r'])
}

/// Reads a token; blanks and a `Bearer ` before it, as from a copied header, are dropped.
pub(super) fn bearer(path: &Path, most: usize) -> Result<String, Refused> {
    let content = bytes(path, most.saturating_add(16))?;
    let what = format!("refused: {} holds no text", name(path));
    let read = std::str::from_utf8(&content).map(token);
    let text = read.map_err(|_binary| Refused::new(Kind::Conflict, what))?;
    Ok(text.strip_prefix("Bearer ").unwrap_or(text).to_owned())
}

/// How long a command waits for a running module, in seconds, if nothing else is asked for.
pub(super) const TIMEOUT: &str = "60";

/// Parses a number of seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse();
    let seconds: u64 = seconds.map_err(|_error| "it is a number of seconds, such as `30`")?;
    Ok(Duration::from_secs(seconds.min(86_400)))
}

/// Returns `true` if `path` means stdin.
pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Names `path` in a message.
pub(super) fn name(path: &Path) -> String {
    if is_stdin(path) {
        "stdin".to_owned()
    } else {
        format!("`{}`", path.display())
    }
}

/// Returns the module that is meant where none is named.
pub(super) fn unnamed() -> Option<&'static Path> {
    static UNNAMED: LazyLock<Option<PathBuf>> = LazyLock::new(config::unnamed);
    UNNAMED.as_deref()
}

/// Returns the option `name` if a module must be named: by it, or by a plain argument.
pub(super) fn if_unnamed(name: &'static str) -> Option<&'static str> {
    unnamed().is_none().then_some(name)
}

/// Which module.
#[derive(Args, Debug)]
pub(super) struct ModuleArgument {
    /// The module: its home, with `etc/application.properties`, or its properties file
    /// [default: `$COUNTERSIGN_HOME`, else this folder]
    #[arg(
        long,
        visible_alias = "file",
        value_name = "DIR|FILE",
        required = unnamed().is_none(),
        default_values_os = unnamed().map(Path::as_os_str),
        hide_default_value = true
    )]
    pub(super) home: PathBuf,
}

impl ModuleArgument {
    /// Returns its properties file.
    pub(super) fn file(&self) -> PathBuf {
        Home::new(&self.home).file
    }
}

/// Which module, or which replicas of one.
#[derive(Args, Debug)]
pub(super) struct ReplicaArguments {
    /// The module: its home, with `etc/application.properties`, or its properties file; repeated for
    /// replicas that share its key [default: `$COUNTERSIGN_HOME`, else this folder]
    #[arg(
        long,
        visible_alias = "file",
        value_name = "DIR|FILE",
        required = unnamed().is_none(),
        default_values_os = unnamed().map(Path::as_os_str),
        hide_default_value = true
    )]
    pub(super) home: Vec<PathBuf>,
}

impl ReplicaArguments {
    /// Returns their properties files.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let homes = self.home.iter();
        homes.map(|home| Home::new(home).file).collect()
    }
}

/// Which module, and what overrides its file.
#[derive(Args, Debug)]
pub(super) struct HomeArguments {
    #[command(flatten)]
    pub(super) module: ModuleArgument,
    /// A setting over the file and the environment; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) sets: Vec<(String, String)>,
}

impl HomeArguments {
    /// Loads the settings; shows every finding and ends with exit code 3 if there is an error.
    pub(super) fn load(&self, kind: &ModuleKind, console: &Console) -> Result<Settings, Refused> {
        let home = &self.module.home;
        let settings = Settings::load(home, kind, config::environment(), &self.sets)
            .map_err(|error| unusable(error, home))?;
        console.findings(settings.findings.iter());
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
    let mut refused = Refused::new(Kind::Unreadable, message);
    refused.help = notes(findings, &Home::new(home).file);
    refused.with_findings(findings.clone())
}

/// Counts the notes among `findings`, and names the command that shows them.
pub(super) fn notes(findings: &Findings, file: &Path) -> Option<String> {
    let count = findings.count(Severity::Note);
    let check = CommandLine::new("countersign check").arg(file);
    let counted = counted(count, "note");
    (count > 0).then(|| format!("{counted}; `{}` shows all", check.flag("notes")))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// Guesses a module's kind from the name of its home; it only decides default ports.
pub(super) fn kind_of(home: &Path) -> ModuleKind {
    type_by_folder(home).map_or(ModuleKind::Dpe, |module| ModuleKind::of(&module))
}
