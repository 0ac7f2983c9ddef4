//! What `pair` is given: the modules with their files and keys.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::admin::pairing::{Member, Options};
use crate::admin::{self, Kind, Refused};
use crate::cli::change::How;
use crate::cli::input;
use crate::cli::output::example;
use crate::diagnostic::redact;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, SigningKey};

#[derive(Args, Debug)]
#[command(
    after_help = include_str!("../help/pair.txt"),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(super) accept: Option<Command>,
    /// The two modules: type and properties file, which is made if it does not exist
    #[arg(num_args = 1..=2, required = true, value_name = "MODULE=FILE")]
    pub(super) modules: Vec<Of<PathBuf>>,
    /// Only one file is here: print a block for `pair accept` on the other machine
    #[arg(long)]
    pub(super) one_side: bool,
    /// The name of a module [default: what the files say, else <module>-<environment>]
    #[arg(long, value_name = "MODULE=NAME")]
    pub(super) name: Vec<Of<DeploymentName>>,
    /// A private key to use instead of a new one, in any form
    #[arg(long, value_name = "MODULE=FILE")]
    pub(super) key: Vec<Of<PathBuf>>,
    /// Use TLS: give each side a certificate and pin it in the other's file
    #[arg(long)]
    pub(super) tls: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What both ways of pairing take.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// The environment of both modules [default: what the files or the block say, else dev]
    #[arg(long)]
    environment: Option<Environment>,
    /// The role that each module gives the other
    #[arg(long, default_value = "IMPERSONATION", value_parser = Role::new)]
    role: Role,
    /// The name of the keys below `jwt-keys` [default: key]
    #[arg(long, value_name = "NAME")]
    key_name: Option<DeploymentName>,
    #[command(flatten)]
    pub(super) how: How,
}

/// `module=value`.
#[derive(Clone, Debug)]
pub(crate) struct Of<T> {
    pub(super) module: ModuleType,
    pub(super) value: T,
}

impl<T: FromStr<Err: Display>> FromStr for Of<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (module, value) = text
            .split_once('=')
            .ok_or("it has the form <module>=<value>, such as dpm=dpm.properties")?;
        let module =
            ModuleType::new(module).map_err(|e| format!("`{module}` is not a module type: {e}"))?;
        if value.is_empty() {
            return Err("there is nothing after `=`".to_owned());
        }
        Ok(Self {
            module,
            value: value.parse().map_err(|e| format!("`{value}`: {e}"))?,
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Accept the block that `pair --one-side` or `rotate prepare --one-side` printed elsewhere
    ///
    /// Compare the words by voice, or let the command compare them: --words "…". --yes accepts the
    /// block without comparing. The output is this side's own block, for `pair accept` on the other
    /// machine.
    #[command(after_help = example("pair accept dpe=dpe.properties --block dpm.block --yes > dpe.block"))]
    Accept(Accept),
}

#[derive(Args, Debug)]
pub(crate) struct Accept {
    /// The module whose file is here: type and properties file, which is made if it does not exist
    #[arg(value_name = "MODULE=FILE")]
    pub(super) module: Of<PathBuf>,
    /// The block that the other machine printed; `-` is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) block: PathBuf,
    /// The words that the other machine showed; a block with different words is refused
    #[arg(long, value_name = "WORDS")]
    pub(super) words: Option<String>,
    /// The name of this module [default: what its file says, else <module>-<environment>]
    #[arg(long)]
    pub(super) name: Option<DeploymentName>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl Arguments {
    /// Returns both modules.
    pub(super) fn members(&self) -> Result<[Member; 2], Refused> {
        let [one, other] = self.modules.as_slice() else {
            let what = "name two modules; if only one of them is here, use `--one-side`";
            return Err(Refused::new(Kind::Usage, what));
        };
        if one.module == other.module {
            let module = &one.module;
            let what = format!("both are called `{module}`; give them different types");
            return Err(Refused::new(Kind::Usage, what));
        }
        let names = self.name.iter().map(|of| &of.module);
        let mut modules = names.chain(self.key.iter().map(|of| &of.module));
        if let Some(odd) = modules.find(|name| ![&one.module, &other.module].contains(name)) {
            let what = format!("`{odd}` is not one of the two modules");
            return Err(Refused::new(Kind::Usage, what));
        }
        Ok([self.member(one)?, self.member(other)?])
    }

    /// Returns one module, with the name and the key that it is given.
    pub(super) fn member(&self, of: &Of<PathBuf>) -> Result<Member, Refused> {
        let name = self.name.iter().rfind(|name| name.module == of.module);
        let key = self.key.iter().rfind(|key| key.module == of.module);
        Ok(Member {
            key: key.map(|key| private_key(&key.value)).transpose()?,
            ..of.member(name.map(|name| name.value.clone()))?
        })
    }
}

impl Common {
    pub(super) fn options(&self, tls: bool) -> Options {
        Options {
            environment: self.environment.clone(),
            role: self.role.clone(),
            key_name: self.key_name.as_ref().map(ToString::to_string),
            tls,
        }
    }
}

impl Of<PathBuf> {
    /// Returns the module with this file. The file may be made, so its name must not be a key.
    pub(super) fn member(&self, name: Option<DeploymentName>) -> Result<Member, Refused> {
        let module = self.module.clone();
        let file = self.value.file_name().unwrap_or_default().to_string_lossy();
        if redact(&file) != file {
            let what = format!("the text after `{module}=` looks like a key, not like a file");
            let help = "name the module's file, such as `etc/application.properties`";
            return Err(Refused::new(Kind::Usage, what).with_help(help));
        }
        Ok(Member {
            name,
            ..Member::new(module, self.value.clone())
        })
    }
}

fn private_key(path: &Path) -> Result<(SigningKey, KeyId), Refused> {
    let cannot = format!("cannot use the key in {}", input::name(path));
    admin::private_key(input::key(path)?, &cannot)
}
