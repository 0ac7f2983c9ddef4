//! What `countersign pair` is given.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::admin::pairing::{Address, Member, Options};
use crate::admin::{self, Kind, Refused};
use crate::cli::change::How;
use crate::cli::input::{key, name};
use crate::cli::output::example;
use crate::config::Home;
use crate::diagnostic::redact;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, SigningKey};

#[derive(Args, Debug)]
#[command(
    after_help = include_str!("../help/pair.txt"),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Arguments {
    #[command(subcommand)]
    pub(super) accept: Option<Command>,
    /// The modules: type, and home or properties file, which is made if it does not exist: a file if
    /// its name ends in `.properties`, else a home. The first one is paired with each of the others
    #[arg(num_args = 1.., required = true, value_name = "[NAME:]MODULE=DIR|FILE")]
    pub(super) modules: Vec<Given>,
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
    #[arg(long, conflicts_with = "plaintext")]
    pub(super) tls: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// How modules on other hosts reach one.
#[derive(Args, Debug)]
pub(super) struct Reach {
    /// Where other hosts reach a module; it then listens for them, with TLS
    #[arg(long, value_name = "MODULE=HOST[:PORT]")]
    pub(super) address: Vec<Of<Address>>,
    /// What a module listens on, in place of all interfaces
    #[arg(long, value_name = "MODULE=IP")]
    pub(super) listen: Vec<Of<IpAddr>>,
    /// No TLS beyond this host: everyone on the network can read and use the tokens
    #[arg(long)]
    pub(super) plaintext: bool,
}

/// What both ways of pairing take.
#[derive(Args, Debug)]
pub(super) struct Common {
    /// The environment of both modules [default: what the files or the block say, else dev]
    #[arg(long)]
    pub(super) environment: Option<Environment>,
    /// The role that each module gives the other
    #[arg(long, default_value = "IMPERSONATION", value_parser = Role::new)]
    pub(super) role: Role,
    /// The name of the keys below `jwt-keys` [default: key]
    #[arg(long, value_name = "NAME")]
    pub(super) key_name: Option<DeploymentName>,
    #[command(flatten)]
    pub(super) reach: Reach,
    #[command(flatten)]
    pub(super) how: How,
}

/// `module=value`; the module by its type, or by the name that it is given here.
#[derive(Clone, Debug)]
pub(super) struct Of<T> {
    pub(super) of: String,
    pub(super) value: T,
}

impl<T: FromStr<Err: Display>> FromStr for Of<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (of, value) = text
            .split_once('=')
            .ok_or("it has the form <module>=<value>, such as dpm=dpm.properties")?;
        if value.is_empty() {
            return Err("there is nothing after `=`".to_owned());
        }
        Ok(Self {
            of: of.to_owned(),
            value: value.parse().map_err(|e| format!("`{value}`: {e}"))?,
        })
    }
}

/// `module=file` or `name:module=file`.
#[derive(Clone, Debug)]
pub(super) struct Given(pub(super) Member);

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Of { of, value: path } = Of::<PathBuf>::from_str(text)?;
        let (name, module) = match of.split_once(':') {
            Some((name, module)) => (Some(name), module),
            None => (None, &*of),
        };
        let module =
            ModuleType::new(module).map_err(|e| format!("`{module}` is not a module type: {e}"))?;
        let given = name.map(DeploymentName::new).transpose();
        Ok(Self(Member {
            name: given.map_err(|e| format!("`{of}`: {e}"))?,
            ..Member::new(module, path)
        }))
    }
}

impl Given {
    /// Returns the module with its file, which may be made; fails if that has a name that looks like
    /// a key.
    pub(super) fn member(&self) -> Result<Member, Refused> {
        let Member { module, path, .. } = &self.0;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if redact(&name) != name {
            let what = format!("the text after `{module}=` looks like a key, not like a file");
            let help = "name the module's home, or its file, such as `etc/application.properties`";
            return Err(Refused::new(Kind::Usage, what).with_help(help));
        }
        Ok(Member {
            path: Home::to_make(path).file,
            ..self.0.clone()
        })
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Accept the block that `pair`, `rotate prepare` or `rotate replace` printed elsewhere
    ///
    /// Compare the words by voice, or let the command compare them: --words "…". --yes accepts a
    /// block without comparing, unless it replaces a key. The output is this side's own block, for `pair accept` on the other
    /// machine.
    #[command(after_help = example("pair accept dpe=dpe --block dpm.block --yes > dpe.block"))]
    Accept(Accept),
}

#[derive(Args, Debug)]
pub(super) struct Accept {
    /// The module that is here: type, and home or properties file, which is made if it does not
    /// exist: a file if its name ends in `.properties`, else a home
    #[arg(value_name = "[NAME:]MODULE=DIR|FILE")]
    pub(super) module: Given,
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
    /// Returns all modules.
    pub(super) fn members(&self) -> Result<Vec<Member>, Refused> {
        let Some((hub, others)) = self
            .modules
            .split_first()
            .filter(|(_, more)| !more.is_empty())
        else {
            let what = "name two modules; if only one of them is here, use `--one-side`";
            return Err(Refused::new(Kind::Usage, what));
        };
        let module = &hub.0.module;
        if others.iter().any(|other| other.0.module == *module) {
            let what = format!("both are called `{module}`; give them different types");
            return Err(Refused::new(Kind::Usage, what));
        }
        self.given()
    }

    /// Returns the modules, with the names, keys and addresses that they are given.
    pub(super) fn given(&self) -> Result<Vec<Member>, Refused> {
        let given = self.modules.iter().map(Given::member);
        let mut members = given.collect::<Result<Vec<_>, Refused>>()?;
        let places = members.clone();
        for Of { of, value } in &self.name {
            chosen(&mut members, &places, of)?.name = Some(value.clone());
        }
        for Of { of, value } in &self.key {
            chosen(&mut members, &places, of)?.key = Some(private_key(value)?);
        }
        self.common.reach.give(&mut members)?;
        Ok(members)
    }
}

impl Reach {
    pub(super) fn give(&self, members: &mut [Member]) -> Result<(), Refused> {
        let places = members.to_vec();
        for Of { of, value } in &self.address {
            let member = chosen(members, &places, of)?;
            if member.address.replace(value.clone()).is_some() {
                let what = format!("`{of}` has two addresses");
                return Err(Refused::new(Kind::Usage, what));
            }
        }
        for Of { of, value } in &self.listen {
            let member = chosen(members, &places, of)?;
            let reached = member.address.as_ref().map(Address::is_remote);
            if reached != Some(!value.is_loopback()) {
                let what =
                    format!("`{of}` cannot be reached at its `--address` if it listens on {value}");
                let help = "give an `--address` of the host on which it listens";
                return Err(Refused::new(Kind::Usage, what).with_help(help));
            }
            member.listen = Some(*value);
        }
        Ok(())
    }
}

/// Finds the one of `members` that is meant by `of`: by the name that it has among `places`, or by
/// its type.
fn chosen<'m>(
    members: &'m mut [Member],
    places: &[Member],
    of: &str,
) -> Result<&'m mut Member, Refused> {
    let named = |place: &&Member| place.name.as_ref().is_some_and(|name| name.as_str() == of);
    let by_name = places.iter().position(|place| named(&place));
    let mut by_type = (0..)
        .zip(places)
        .filter(|(_, place)| place.module.as_str() == of);
    let first = by_type.next().map(|(at, _)| at);
    if by_name.is_none() && by_type.next().is_some() {
        let what = format!(
            "there are several `{of}`: give each a name, as in `one:{of}=FILE`, and use that"
        );
        return Err(Refused::new(Kind::Usage, what));
    }
    let found = by_name.or(first).and_then(|at| members.get_mut(at));
    found.ok_or_else(|| Refused::new(Kind::Usage, format!("`{of}` is not one of the modules")))
}

impl Common {
    pub(super) fn options(&self, tls: bool) -> Options {
        Options {
            environment: self.environment.clone(),
            role: self.role.clone(),
            key_name: self.key_name.as_ref().map(ToString::to_string),
            tls,
            plaintext: self.reach.plaintext,
        }
    }
}

fn private_key(path: &Path) -> Result<(SigningKey, KeyId), Refused> {
    let cannot = format!("cannot use the key in {}", name(path));
    admin::private_key(key(path)?, &cannot)
}
