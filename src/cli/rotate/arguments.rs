//! What `rotate` is given, and why it does not do it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use crate::admin::rotation::live::{self, Asking};
use crate::admin::rotation::{OutOfTurn, Plan, Rotation};
use crate::admin::{Kind, Refused};
use crate::cli::change::{How, changes, warn_of_variables};
use crate::cli::home::kind_of;
use crate::cli::input::seconds;
use crate::cli::output::{Console, Exit, Failure};
use crate::cli::refused::refused;
use crate::config::{Home, ModuleKind};
use crate::identity::DeploymentName;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Make the next key, and let the peers trust it beside the one that signs
    #[command(after_help = "\
Example:
  $ countersign rotate prepare --file dpe --peer-file dpm --yes")]
    Prepare(StepArguments),
    /// Sign with the next key, once every peer is shown to accept it
    #[command(after_help = "\
Example:
  $ countersign rotate activate --file dpe --peer-file dpm --yes

A peer is asked where it runs, by a call that the new key signs, and must prove who it is. Where it
does not run, its file must trust the key.")]
    Activate(StepArguments),
    /// Revoke the old key at the peers, once none of its tokens can be in use
    #[command(after_help = "\
Example:
  $ countersign rotate finish --file dpe --peer-file dpm --now --yes

Without --now it waits for nothing: it says how many seconds are left, and exits 1.")]
    Finish(StepArguments),
    /// Forget the next key, before it signs
    #[command(after_help = "\
Example:
  $ countersign rotate abort --file dpe --peer-file dpm --yes")]
    Abort(StepArguments),
    /// Show how far it is, who trusts which key, and what comes next
    #[command(after_help = "\
Example:
  $ countersign rotate status --file dpe --peer-file dpm")]
    Status(FileArguments),
    /// Take all steps, and wait between them as long as it takes
    #[command(after_help = "\
Example:
  $ countersign rotate run --file dpe --peer-file dpm --now --yes

It goes on from wherever the files are, also after it was interrupted.")]
    Run(StepArguments),
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("peers").required(true).args(["peer_file", "one_side"])))]
pub(in crate::cli) struct FileArguments {
    /// The file, or the home, of the module whose key changes
    #[arg(long, value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The file, or the home, of a module that trusts it; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) peer_file: Vec<PathBuf>,
    /// No peer's file is here: `prepare` prints a block for `pair accept` over there; `run` is for
    /// files that are here
    #[arg(long)]
    pub(super) one_side: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct StepArguments {
    #[command(flatten)]
    pub(super) files: FileArguments,
    /// Revoke the old key at once: calls with its tokens are refused
    #[arg(long)]
    pub(super) now: bool,
    /// Ask no running module; go by the files
    #[arg(long)]
    pub(super) offline: bool,
    /// Where a peer listens, if neither file says so; may be repeated
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = address)]
    pub(super) peer_address: Vec<(DeploymentName, (String, u16))>,
    /// Do without a peer: it refuses the new key, or trusts the old one, until its own file is
    /// changed; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(super) except: Vec<DeploymentName>,
    /// How long to wait for a running module to follow its file, in seconds; the last question may
    /// take 5 s more for each peer
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) how: How,
}

fn address(text: &str) -> Result<(DeploymentName, (String, u16)), String> {
    let form = "it has the form <deployment>=<host>:<port>";
    let (name, place) = text.split_once('=').ok_or(form)?;
    let name = DeploymentName::new(name).map_err(|error| error.to_string())?;
    let (host, port) = place.rsplit_once(':').ok_or(form)?;
    let host = host.trim_matches(['[', ']']);
    let port = port.parse().map_err(|_error| form)?;
    Ok((name, (host.to_owned(), port)))
}

impl FileArguments {
    pub(super) fn read(&self, console: &Console) -> Result<Rotation, Failure> {
        let file = Home::new(&self.file).file;
        let peers = self.peer_file.iter().map(|peer| Home::new(peer).file);
        Rotation::read(&file, &peers.collect::<Vec<_>>())
            .map_err(|error| self.not_taken(&error, console))
    }

    /// Guesses what the module is: what its peers call it, else by the name of its home.
    pub(super) fn kind(&self, rotation: &Rotation) -> ModuleKind {
        let module = rotation.module();
        module.map_or_else(|| kind_of(&Home::new(&self.file).dir), live::kind_of)
    }

    pub(super) fn command(&self, step: &str) -> String {
        let mut command = format!("countersign rotate {step} --file {}", self.file.display());
        for peer in &self.peer_file {
            // Writing to a string cannot fail.
            let _ = write!(command, " --peer-file {}", peer.display());
        }
        if self.one_side {
            command += " --one-side";
        }
        command
    }

    /// Says why a step was not taken, and what to do about it.
    pub(super) fn not_taken(&self, error: &Refused, console: &Console) -> Failure {
        let failure = refused("", error, console);
        match error.kind() {
            Kind::NextRevoked => {
                let abort = self.command("abort");
                failure.with_help(format!("a revoked key stays revoked; begin again: {abort}"))
            }
            Kind::CutOff => {
                failure.with_help(format!("see who trusts what: {}", self.command("status")))
            }
            Kind::OutOfTurn(OutOfTurn::NotPrepared | OutOfTurn::NotTrusted) => {
                failure.with_help(format!("first: {}", self.command("prepare")))
            }
            Kind::OutOfTurn(OutOfTurn::NotActivated) => {
                failure.with_help(format!("first: {}", self.command("activate")))
            }
            Kind::OutOfTurn(_) => failure.with_help(format!(
                "go on with it: {}; to get rid of this key too, rotate once more",
                self.command("finish")
            )),
            _ => failure,
        }
    }
}

/// The running module still signs with the old key, for the reason `why`.
pub(super) fn still_old(why: &str) -> Refused {
    let message = format!("the running module still signs with its old key: {why}");
    Refused::new(Kind::Conflict, message).with_help(
        "wait for its reload, or see its log for `configReloadFailed`; it does not follow the \
         file where a variable stands above `generator.key`: start it without",
    )
}

/// Tokens of the old key may be accepted for as long as `left`.
pub(super) fn too_early(left: Duration) -> Refused {
    let seconds = left.as_secs();
    let message = format!("tokens that the old key signed may be accepted for {seconds} s more");
    Refused::new(Kind::Conflict, message)
        .with_help("wait, or revoke the old key at once with `--now`: its callers are refused")
}

impl StepArguments {
    /// Makes sure that options name peers.
    pub(super) fn names_peers(&self, rotation: &Rotation) -> Result<(), Failure> {
        let peers = rotation.peers();
        let peers: Vec<_> = peers.iter().map(|(peer, _)| &peer.name).collect();
        let addresses = self.peer_address.iter().map(|(name, _)| name);
        let mut named = addresses.chain(&self.except);
        let Some(stranger) = named.find(|name| !peers.contains(name)) else {
            return Ok(());
        };
        let path = rotation.path().display();
        let known: Vec<_> = peers.iter().map(|name| format!("`{name}`")).collect();
        let help = format!("the peers there: {}", known.join(", "));
        let message = format!("`{path}` trusts no `{stranger}`");
        Err(Failure::new(Exit::Usage, message).with_help(help))
    }

    pub(super) fn asking(&self) -> Asking {
        let addresses = self.peer_address.iter();
        let addresses = addresses.map(|(name, place)| (name.to_string(), place.clone()));
        Asking {
            addresses: addresses.collect::<BTreeMap<_, _>>(),
            except: self.except.clone(),
            offline: self.offline,
        }
    }

    /// Makes sure that the old key goes at every peer. Of those without a file here, `--one-side`
    /// and `--except` say that somebody else sees to it.
    pub(super) fn reaches_all(&self, rotation: &Rotation) -> Result<(), Refused> {
        if self.files.one_side {
            return Ok(());
        }
        rotation.reaches_all(&self.except)
    }

    /// Shows the plan and asks, unless the arguments answer already.
    pub(super) fn confirm(&self, plan: &Plan, console: &Console) -> Result<(), Failure> {
        warn_of_variables(plan.change.files(), console);
        self.how.confirm(&changes(plan.change.files()), console)
    }
}
