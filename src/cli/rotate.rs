//! `countersign rotate`: another key for a module, while it and its peers run.

mod finished;
mod shown;
mod whole;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::home::kind_of;
use super::output::{Console, Exit, Failure, Format, chain};
use super::run::runtime;
use super::{Answer, key, pair};
use crate::admin::rotation::live::{self, Answer as Said, Asking};
use crate::admin::rotation::{OutOfTurn, Plan, Rotation, Step};
use crate::admin::{OfProfile, RotateError};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Home, ModuleKind};
use crate::identity::DeploymentName;
pub(super) use finished::BY_SIGNAL;
use shown::Report;
pub(super) use shown::{File, changes, warn_of_variables};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
pub(super) struct FileArguments {
    /// The file, or the home, of the module whose key changes
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The file, or the home, of a module that trusts it; may be repeated
    #[arg(long, value_name = "FILE")]
    peer_file: Vec<PathBuf>,
    /// No peer's file is here: `prepare` prints a block for `pair accept` over there; `run` is for
    /// files that are here
    #[arg(long)]
    one_side: bool,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "four switches of the command line"
)]
#[derive(Args, Debug)]
pub(super) struct StepArguments {
    #[command(flatten)]
    files: FileArguments,
    /// Revoke the old key at once: calls with its tokens are refused
    #[arg(long)]
    now: bool,
    /// Ask no running module; go by the files
    #[arg(long)]
    offline: bool,
    /// Where a peer listens, if neither file says so; may be repeated
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = address)]
    peer_address: Vec<(DeploymentName, (String, u16))>,
    /// Do without a peer: it refuses the new key, or trusts the old one, until its own file is
    /// changed; may be repeated
    #[arg(long, value_name = "NAME")]
    except: Vec<DeploymentName>,
    /// How long to wait for a running module to follow its file, in seconds; the last question may
    /// take 5 s more for each peer
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Change the files without asking
    #[arg(long)]
    yes: bool,
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

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse();
    let seconds: u64 = seconds.map_err(|_error| "it is a number of seconds, such as `30`")?;
    Ok(Duration::from_secs(seconds.min(86_400)))
}

pub(super) fn run(command: &Command, console: &Console) -> Answer {
    match command {
        Command::Prepare(arguments) => step(Step::Prepare, arguments, console),
        Command::Activate(arguments) => step(Step::Activate, arguments, console),
        Command::Finish(arguments) => step(Step::Finish, arguments, console),
        Command::Abort(arguments) => step(Step::Abort, arguments, console),
        Command::Run(arguments) => whole::run(arguments, console),
        Command::Status(files) => {
            let rotation = files.read(console)?;
            for finding in rotation.damage().into_iter().flatten() {
                console.finding(finding);
            }
            match console.format() {
                Format::Text => console.answer(shown::status(&rotation, files))?,
                Format::Json => console.json(&Report::status(&rotation, files))?,
            }
            Ok(Exit::Done)
        }
    }
}

impl FileArguments {
    fn read(&self, console: &Console) -> Result<Rotation, Failure> {
        let file = Home::new(&self.file).file;
        let peers: Vec<_> = self
            .peer_file
            .iter()
            .map(|peer| Home::new(peer).file)
            .collect();
        Rotation::read(&file, &peers).map_err(|error| not_taken(&error, self, console))
    }

    /// Guesses what the module is: what its peers call it, else by the name of its home.
    fn kind(&self, rotation: &Rotation) -> ModuleKind {
        let module = rotation.module();
        module.map_or_else(|| kind_of(&Home::new(&self.file).dir), live::kind_of)
    }

    fn command(&self, step: &str) -> String {
        let peers = self.peer_file.iter();
        let peers = peers.map(|peer| format!(" --peer-file {}", peer.display()));
        let mut peers: String = peers.collect();
        if self.one_side {
            peers += " --one-side";
        }
        let file = self.file.display();
        format!("countersign rotate {step} --file {file}{peers}")
    }
}

impl StepArguments {
    /// Makes sure that options name peers.
    fn names_peers(&self, rotation: &Rotation) -> Result<(), Failure> {
        let peers = rotation.peers().into_iter();
        let peers: Vec<_> = peers.map(|(deployment, _)| &deployment.name).collect();
        let addresses = self.peer_address.iter().map(|(name, _)| name);
        let mut named = addresses.chain(&self.except);
        let Some(stranger) = named.find(|name| !peers.contains(name)) else {
            return Ok(());
        };
        let path = rotation.path().display();
        let known: Vec<_> = peers.iter().map(|name| format!("`{name}`")).collect();
        let known = known.join(", ");
        Err(
            Failure::new(Exit::Usage, format!("`{path}` trusts no `{stranger}`"))
                .with_help(format!("the peers there: {known}")),
        )
    }

    fn asking(&self) -> Asking {
        let addresses = self.peer_address.iter();
        let addresses = addresses.map(|(name, place)| (name.to_string(), place.clone()));
        Asking {
            addresses: addresses.collect::<BTreeMap<_, _>>(),
            except: self.except.clone(),
            offline: self.offline,
        }
    }
}

/// Takes one step.
fn step(step: Step, arguments: &StepArguments, console: &Console) -> Answer {
    let files = &arguments.files;
    let rotation = files.read(console)?;
    arguments.names_peers(&rotation)?;
    let failed = |error: &RotateError| not_taken(error, files, console);
    let plan = rotation.plan(step, SystemClock.now());
    let plan = plan.map_err(|error| failed(&error))?;
    if !plan.is_empty() {
        if step == Step::Finish {
            reaches_all(&rotation, arguments).map_err(|error| failed(&error))?;
        }
        let may = runtime()?.block_on(may_take(step, &rotation, arguments, console));
        may.map_err(|error| failed(&error))?;
        confirm(&plan, arguments, console)?;
    }
    if !arguments.dry_run {
        plan.carry_out().map_err(|error| failed(&error))?;
    }
    let after = files.read(console)?;
    let mut ended = Ok(());
    if step == Step::Finish {
        if !arguments.dry_run {
            ended = finished::in_force(&rotation, arguments);
        }
        finished::still_trusting(&rotation, ("old", rotation.previous()), files, console);
    }
    if step == Step::Abort {
        let next = rotation.next().map(|(key, _)| key.fingerprint());
        finished::still_trusting(&rotation, ("next", next), files, console);
    }
    if let (Step::Prepare, true, Some(block)) = (step, files.one_side, after.hand_over())
        && console.format() == Format::Text
    {
        console.present(&shown::step(&plan, &after, arguments));
        console.present(&format!("words   {}", block.words()));
        console.answer(block.block())?;
        return Ok(Exit::Done);
    }
    match console.format() {
        Format::Text => console.answer(shown::step(&plan, &after, arguments))?,
        Format::Json => console.json(&Report::step(&plan, &after, arguments))?,
    }
    ended.map(|()| Exit::Done)
}

/// Tells whether the old key goes at every peer; of those without a file here, `--one-side` and
/// `--except` say that somebody else sees to it.
fn reaches_all(rotation: &Rotation, arguments: &StepArguments) -> Result<(), RotateError> {
    if arguments.files.one_side {
        return Ok(());
    }
    rotation.reaches_all(&arguments.except)
}

/// Tells whether running modules and the time let the step be taken.
async fn may_take(
    step: Step,
    rotation: &Rotation,
    arguments: &StepArguments,
    console: &Console,
) -> Result<(), RotateError> {
    let kind = arguments.files.kind(rotation);
    match step {
        Step::Prepare | Step::Abort => Ok(()),
        Step::Activate => {
            let evidence = live::evidence(rotation, &kind, &arguments.asking()).await;
            let mut first = Ok(());
            for evidence in &evidence {
                match evidence.verdict() {
                    Ok(how) => console.say(&format!("{}: {how}", evidence.deployment)),
                    Err(error) => first = first.and(Err(error)),
                }
            }
            first
        }
        Step::Finish if arguments.now => Ok(()),
        Step::Finish => {
            if let Some(left) = left(rotation) {
                return Err(RotateError::TooEarly { left });
            }
            if arguments.offline {
                return Ok(());
            }
            match live::own_in_force(rotation, &kind).await {
                Said::Refused(why) => Err(RotateError::StillOld(why)),
                _ => Ok(()),
            }
        }
    }
}

/// Returns how long tokens of the old key may be in use, rounded up to a second.
fn left(rotation: &Rotation) -> Option<Duration> {
    let left = rotation.finish_after()?.duration_since(SystemClock.now());
    let left = left.ok().filter(|left| !left.is_zero())?;
    let more = u64::from(left.subsec_nanos() > 0);
    Some(Duration::from_secs(left.as_secs().saturating_add(more)))
}

/// Shows the plan and asks, where nobody said yes yet.
fn confirm(plan: &Plan, arguments: &StepArguments, console: &Console) -> Result<(), Failure> {
    warn_of_variables(plan.files(), console);
    if arguments.dry_run || arguments.yes {
        return Ok(());
    }
    console.present(changes(plan.files()).trim_start_matches('\n').trim_end());
    pair::ask(console)
}

/// Says which file is to be named in place of an active profile's.
pub(super) fn name_main(failure: Failure, main: &Path) -> Failure {
    failure.with_help(format!("name the main file: `{}`", main.display()))
}

/// Says how settings come where they can be changed.
pub(super) fn moved(main: &Path, profile: &Path) -> String {
    format!(
        "move these settings from `{}` into `{}`",
        profile.display(),
        main.display()
    )
}

/// Says why a step was not taken, and what mends it.
fn not_taken(error: &RotateError, files: &FileArguments, console: &Console) -> Failure {
    if let RotateError::Faults { findings, .. } | RotateError::Unsound { findings, .. } = error {
        for finding in findings {
            console.finding(finding);
        }
    }
    let no = |exit| Failure::new(exit, chain(error));
    match error {
        RotateError::Write(error) => key::not_written(error),
        RotateError::SameFile(_) => no(Exit::Usage),
        RotateError::Read(_) | RotateError::NoKey(_) => no(Exit::Unreadable),
        RotateError::NoName(_) => no(Exit::Unreadable).with_help(
            "write there what the peers call this module: `countersign.deployment.name=NAME`",
        ),
        RotateError::Faults { .. } => {
            no(Exit::Unreadable).with_help("`countersign explain CODE` says more about a finding")
        }
        RotateError::Stranger { .. } => no(Exit::No)
            .with_help("pair the two modules first, or name another file: `countersign pair`"),
        RotateError::NextRevoked { .. } => no(Exit::No).with_help(format!(
            "a revoked key stays revoked; begin anew: {}",
            files.command("abort")
        )),
        RotateError::CutOff { .. } => {
            no(Exit::No).with_help(format!("see who trusts what: {}", files.command("status")))
        }
        RotateError::OutOfTurn(OutOfTurn::NotPrepared | OutOfTurn::NotTrusted) => {
            no(Exit::No).with_help(format!("first: {}", files.command("prepare")))
        }
        RotateError::OutOfTurn(OutOfTurn::NotActivated) => {
            no(Exit::No).with_help(format!("first: {}", files.command("activate")))
        }
        RotateError::OutOfTurn(_) => no(Exit::No).with_help(format!(
            "go on with it: {}; to get rid of this key too, rotate once more",
            files.command("finish")
        )),
        RotateError::TooEarly { .. } => no(Exit::No)
            .with_help("wait, or revoke the old key at once with `--now`: its callers are refused"),
        RotateError::NotShown { help, .. } => no(Exit::No).with_help(help),
        RotateError::OfProfile(OfProfile { main, .. }) => name_main(no(Exit::Usage), main),
        RotateError::InProfile { main, by } => no(Exit::No).with_help(moved(main, &by.path)),
        RotateError::InVariable { variable, .. } => no(Exit::No).with_help(format!(
            "start the module without it, with its key in the file; then go on with `env -u \
             {variable} countersign rotate …`"
        )),
        RotateError::NotNamed(name) => no(Exit::No).with_help(format!(
            "name its file with `--peer-file`, or leave the old key to it: `--except {name}`"
        )),
        RotateError::StillOld(_) => no(Exit::No).with_help(
            "wait for its reload, or see its log for `configReloadFailed`; it does not follow the \
             file where a variable stands above `generator.key`: start it without",
        ),
        _ => no(Exit::Bug),
    }
}
