//! What `pair` is given: the modules with their files and keys.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::admin::pairing::{Member, Options};
use crate::cli::change::How;
use crate::cli::input;
use crate::cli::output::{Exit, Failure};
use crate::clock::{Clock as _, SystemClock};
use crate::diagnostic::redact;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, KeyMaterial, SigningKey, published};

#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(in crate::cli) struct Arguments {
    #[command(subcommand)]
    pub(super) accept: Option<Command>,
    /// The two modules: type and properties file, which need not be there yet
    #[arg(num_args = 1..=2, required = true, value_name = "MODULE=FILE")]
    pub(super) modules: Vec<Of<PathBuf>>,
    /// Only one file is here: print what the other machine needs, for `pair accept` there
    #[arg(long)]
    pub(super) one_side: bool,
    /// The environment both belong to [default: what the files say, else dev]
    #[arg(long)]
    pub(super) environment: Option<Environment>,
    /// What a module is called [default: what the files say, else <module>-<environment>]
    #[arg(long, value_name = "MODULE=NAME")]
    pub(super) name: Vec<Of<DeploymentName>>,
    /// The role each gives the other
    #[arg(long, default_value = "IMPERSONATION", value_parser = Role::new)]
    pub(super) role: Role,
    /// A private key to use in place of a new one, in any form
    #[arg(long, value_name = "MODULE=FILE")]
    pub(super) key: Vec<Of<PathBuf>>,
    /// What the keys are called below `jwt-keys` [default: key]
    #[arg(long, value_name = "NAME")]
    pub(super) key_name: Option<DeploymentName>,
    /// Talk TLS: give each side a certificate and pin it in the other's file
    #[arg(long)]
    pub(super) tls: bool,
    #[command(flatten)]
    pub(super) how: How,
}

const EXAMPLES: &str = "\
Examples:
  $ countersign pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties
  $ countersign pair dpm=dpm/etc/application.properties dpe=dpe/etc/application.properties --tls
  $ countersign pair dpm=dpm.properties dpe=dpe.properties --environment test --dry-run
  $ countersign pair dpm=dpm.properties dpe=dpe.properties --key dpm=dpm.jwk --yes
  $ countersign pair --one-side dpm=dpm.properties --tls > dpm.block";

/// `module=value`.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Of<T> {
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
            ModuleType::new(module).map_err(|e| format!("`{module}` is no module: {e}"))?;
        if value.is_empty() {
            return Err("there is nothing after `=`".to_owned());
        }
        let value = value.parse().map_err(|e| format!("`{value}`: {e}"))?;
        Ok(Self { module, value })
    }
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Take what another machine handed over, of `pair --one-side` or `rotate prepare --one-side`
    #[command(after_help = "\
Example:
  $ countersign pair accept dpe=dpe.properties --block dpm.block --yes > dpe.block

Compare the words by voice, or have them compared: --words \"…\". --yes takes the block unseen.
It prints this side's own block in return, for `pair accept` over there.")]
    Accept(Accept),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Accept {
    /// The module whose file is here: type and properties file, which need not be there yet
    #[arg(value_name = "MODULE=FILE")]
    pub(super) module: Of<PathBuf>,
    /// The block that the other machine printed; `-` is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) block: PathBuf,
    /// The words that the other side was told; others are refused
    #[arg(long, value_name = "WORDS")]
    pub(super) words: Option<String>,
    /// What this module is called [default: what its file says, else <module>-<environment>]
    #[arg(long)]
    pub(super) name: Option<DeploymentName>,
    /// The environment [default: that of the block]
    #[arg(long)]
    pub(super) environment: Option<Environment>,
    /// The role each gives the other
    #[arg(long, default_value = "IMPERSONATION", value_parser = Role::new)]
    pub(super) role: Role,
    /// What the key is called below `jwt-keys` [default: key]
    #[arg(long, value_name = "NAME")]
    pub(super) key_name: Option<DeploymentName>,
    /// Show what would change, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Take the block without comparing words
    #[arg(long)]
    pub(super) yes: bool,
}

impl Arguments {
    /// Returns both modules.
    pub(super) fn members(&self) -> Result<[Member; 2], Failure> {
        match self.modules.as_slice() {
            [one, other] if one.module == other.module => {
                let module = &one.module;
                let what = format!("both are called `{module}`; give them different types");
                Err(Failure::new(Exit::Usage, what))
            }
            [one, other] => {
                let named = self.name.iter().map(|of| &of.module);
                let mut named = named.chain(self.key.iter().map(|of| &of.module));
                if let Some(odd) = named.find(|name| ![&one.module, &other.module].contains(name)) {
                    let what = format!("`{odd}` is neither of the two modules");
                    return Err(Failure::new(Exit::Usage, what));
                }
                Ok([self.member(one)?, self.member(other)?])
            }
            _ => {
                let what = "two modules are paired; for one of them there is `--one-side`";
                Err(Failure::new(Exit::Usage, what))
            }
        }
    }

    /// Returns one module, with the name and the key that it is given.
    pub(super) fn member(&self, of: &Of<PathBuf>) -> Result<Member, Failure> {
        let name = self.name.iter().rfind(|name| name.module == of.module);
        let key = self.key.iter().rfind(|key| key.module == of.module);
        Ok(Member {
            module: of.module.clone(),
            path: of.settings_file()?,
            name: name.map(|name| name.value.clone()),
            key: key.map(|key| private_key(&key.value)).transpose()?,
        })
    }

    pub(super) fn options(&self) -> Options {
        Options {
            environment: self.environment.clone(),
            role: self.role.clone(),
            key_name: self.key_name.as_ref().map(ToString::to_string),
            tls: self.tls,
            now: SystemClock.now(),
        }
    }
}

impl Of<PathBuf> {
    /// Returns the file that is named. If it does not exist it is made, and its name is not to be
    /// a key.
    pub(super) fn settings_file(&self) -> Result<PathBuf, Failure> {
        let name = self.value.file_name().unwrap_or_default().to_string_lossy();
        if redact(&name) == name {
            return Ok(self.value.clone());
        }
        let module = &self.module;
        let what = format!("what stands after `{module}=` looks like a key, not like a file");
        let help = "name the module's file, such as `etc/application.properties`";
        Err(Failure::new(Exit::Usage, what).with_help(help))
    }
}

fn private_key(path: &Path) -> Result<(SigningKey, KeyId), Failure> {
    let why = match input::key(path)? {
        (KeyMaterial::Private(key, _), _) if published(key.fingerprint()) => {
            "it is printed in a public guide and protects nothing"
        }
        (KeyMaterial::Private(key, kid), _) => {
            let kid = kid.unwrap_or_else(|| key.fingerprint().into());
            return Ok((key, kid));
        }
        (KeyMaterial::Public(..), _) => "it is a public key",
    };
    let what = format!("cannot use the key in {}: {why}", input::name(path));
    Err(Failure::new(Exit::Unreadable, what))
}
