//! What `rotate` is given, and why it does not do it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use crate::admin::rotation::live::Asking;
use crate::admin::rotation::{Plan, Rotation, Step};
use crate::cli::change::{How, changes};
use crate::cli::input::kind_of;
use crate::cli::input::{TIMEOUT, seconds};
use crate::cli::output::{Console, Kind, Refused, example};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Home, ModuleKind};
use crate::diagnostic::CommandLine;
use crate::grpc::Target;
use crate::identity::DeploymentName;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the next key and let the peers trust it in addition to the current one
    #[command(after_help = example("rotate prepare --file dpe --peer-file dpm --yes"))]
    Prepare(StepArguments),
    /// Sign with the next key, once every peer is known to accept it
    ///
    /// A running peer is asked by a call that the new key signs, and must prove who it is. If a
    /// peer does not run, its file must trust the key.
    #[command(after_help = example("rotate activate --file dpe --peer-file dpm --yes"))]
    Activate(StepArguments),
    /// Revoke the old key at the peers, once all of its tokens have expired
    ///
    /// Without --now it does not wait: if tokens may still be valid, it prints the seconds left and
    /// exits 1.
    #[command(after_help = example("rotate finish --file dpe --peer-file dpm --now --yes"))]
    Finish(StepArguments),
    /// Discard the next key before it signs
    #[command(after_help = example("rotate abort --file dpe --peer-file dpm --yes"))]
    Abort(StepArguments),
    /// Show the progress, which file trusts which key, and the next command
    #[command(after_help = example("rotate status --file dpe --peer-file dpm"))]
    Status(FileArguments),
    /// Take all steps, and wait between them as long as needed
    ///
    /// It continues from what the files say, also after an interruption.
    #[command(after_help = example("rotate run --file dpe --peer-file dpm --now --yes"))]
    Run(StepArguments),
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("peers").required(true).args(["peer_file", "one_side"])))]
pub(crate) struct FileArguments {
    /// The file, or the home, of the module whose key changes
    #[arg(long, value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The file, or the home, of a module that trusts it; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) peer_file: Vec<PathBuf>,
    /// The peers' files are on other machines: `prepare` prints a block for `pair accept`; not for
    /// `run`
    #[arg(long)]
    pub(super) one_side: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StepArguments {
    #[command(flatten)]
    pub(super) files: FileArguments,
    /// Revoke the old key at once: calls with its tokens are refused
    #[arg(long)]
    pub(super) now: bool,
    /// Do not ask running modules; rely on the files
    #[arg(long)]
    pub(super) offline: bool,
    /// Where a peer listens, if no file says so; may be repeated
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = address)]
    pub(super) peer_address: Vec<(DeploymentName, Target)>,
    /// Skip this peer. Until its file is updated it rejects the new key and still trusts the old
    /// one; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(super) except: Vec<DeploymentName>,
    /// How long to wait for a running module to follow its file, in seconds; up to 5 s more for
    /// each peer
    #[arg(long, value_name = "SECONDS", default_value = TIMEOUT, value_parser = seconds)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) how: How,
}

fn address(text: &str) -> Result<(DeploymentName, Target), String> {
    let form = "it has the form <deployment>=<host>:<port>";
    let (name, place) = text.split_once('=').ok_or(form)?;
    let name = DeploymentName::new(name).map_err(|error| error.to_string())?;
    let (host, port) = place.rsplit_once(':').ok_or(form)?;
    let number = port.parse().map_err(|_error| form)?;
    Ok((name, Target::new(host.trim_matches(['[', ']']), number)))
}

impl FileArguments {
    pub(super) fn read(&self) -> Result<Rotation, Refused> {
        let file = Home::new(&self.file).file;
        let peers = self.peer_file.iter().map(|peer| Home::new(peer).file);
        Rotation::read(&file, &peers.collect::<Vec<_>>())
    }

    /// Guesses what the module is: what its peers call it, else by the name of its home.
    pub(super) fn kind(&self, rotation: &Rotation) -> ModuleKind {
        let module = rotation.module();
        module.map_or_else(|| kind_of(&self.file), ModuleKind::of)
    }

    /// Returns the command of `step` for the same files.
    pub(super) fn command(&self, step: &str) -> CommandLine {
        let rotate = CommandLine::new("countersign rotate").arg(step);
        let owner = rotate.option("file", &self.file);
        let peers = self.peer_file.iter();
        let command = peers.fold(owner, |command, peer| command.option("peer-file", peer));
        command.flag_if(self.one_side, "one-side")
    }
}

impl StepArguments {
    /// Returns the command of `step`, another one, with the options that were given to this one.
    pub(super) fn command(&self, step: &str) -> CommandLine {
        let mut command = self.files.command(step).flag_if(self.offline, "offline");
        for (name, address) in &self.peer_address {
            command = command.option("peer-address", format!("{name}={address}"));
        }
        for name in &self.except {
            command = command.option("except", name.as_str());
        }
        let timeout = self.timeout.as_secs().to_string();
        if timeout == TIMEOUT {
            return command;
        }
        command.option("timeout", timeout)
    }

    /// Plans `step`; a refusal says which command to run instead.
    pub(super) fn plan(&self, rotation: &Rotation, step: Step) -> Result<Plan, Refused> {
        let plan = rotation.plan(step, SystemClock.now());
        plan.map_err(|error| self.redirected(error))
    }

    /// Says which command to run instead of a refused one.
    pub(super) fn redirected(&self, error: Refused) -> Refused {
        let (help, command) = match error.kind() {
            Kind::CutOff => ("see who trusts what:", self.files.command("status")),
            Kind::OutOfTurn(first) => {
                let why = match first {
                    Step::Prepare | Step::Activate => "first:",
                    Step::Finish => "to replace this key too, rotate once more after this:",
                    Step::Abort => "a revoked key stays revoked; begin again:",
                };
                (why, self.command(first.as_str()))
            }
            _ => return error,
        };
        error.with_help(help).with_commands([command])
    }

    /// Returns how running modules are asked. Options must name peers, in whatever spelling.
    pub(super) fn asking(&self, rotation: &Rotation) -> Result<Asking, Refused> {
        let mut asking = Asking {
            addresses: self.peer_address.clone(),
            except: self.except.clone(),
            offline: self.offline,
        };
        let addresses = asking.addresses.iter_mut().map(|(name, _)| name);
        for name in addresses.chain(&mut asking.except) {
            if let Some(peer) = rotation.owner.find(name) {
                name.clone_from(&peer.name);
                continue;
            }
            let path = rotation.owner.path.display();
            let peers = rotation.owner.checked.deployments.iter();
            let known: Vec<_> = peers.map(|peer| format!("`{}`", peer.name)).collect();
            let help = format!("the peers there: {}", known.join(", "));
            let message = format!("`{path}` does not trust a deployment `{name}`");
            return Err(Refused::new(Kind::Usage, message).with_help(help));
        }
        Ok(asking)
    }

    /// Shows the plan and asks, unless the arguments answer already.
    pub(super) fn confirm(&self, plan: &Plan, console: &Console) -> Result<(), Refused> {
        self.how
            .confirm(&plan.change, &changes(&plan.change.files), console)
    }
}
