//! What `rotate` is given, why it does not do it, and what it shows of a step and of the progress, in
//! words and in JSON.

use std::fmt::Write as _;
use std::iter;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

use super::replace;
use crate::admin::home_of;
use crate::admin::rotation::live::Asking;
use crate::admin::rotation::{Phase, Plan, Rotation, Step};
use crate::cli::change::{How, changes, files_in_json};
use crate::cli::input::{ReplicaArguments, TIMEOUT, kind_of, seconds};
use crate::cli::output::{Console, Kind, Refused, add, example, table};
use crate::clock::{Age, Clock as _, SystemClock};
use crate::config::{Home, ModuleKind};
use crate::diagnostic::CommandLine;
use crate::grpc::Target;
use crate::identity::DeploymentName;
use crate::jose::{Fingerprint, SigningKey};
use crate::trust::Deployment;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the next key and let the peers trust it in addition to the current one
    ///
    /// It asks no running module: what it is given about them is for the next command, which it
    /// prints.
    #[command(after_help = example("rotate prepare --home dpe --peer-file dpm --yes"))]
    Prepare(Activation),
    /// Sign with the next key, once every peer is known to accept it
    ///
    /// A running peer is asked by a call that the new key signs, and must prove who it is; one that
    /// has not read its file yet is waited for, up to --timeout. If a peer does not run, its file
    /// must trust the key.
    #[command(after_help = example("rotate activate --home dpe --peer-file dpm --yes"))]
    Activate(Activation),
    /// Revoke the old key at the peers, once all of its tokens have expired
    ///
    /// Without --now it does not wait: if tokens may still be valid, it prints the seconds left and
    /// exits 1.
    #[command(after_help = example("rotate finish --home dpe --peer-file dpm --now --yes"))]
    Finish(StepArguments),
    /// Discard the next key before it signs
    #[command(after_help = example("rotate abort --home dpe --peer-file dpm --yes"))]
    Abort(Plain),
    /// Show the progress, which file trusts which key, and the next command
    #[command(after_help = example("rotate status --home dpe --peer-file dpm"))]
    Status(FileArguments),
    /// Take all steps, and wait between them as long as needed
    ///
    /// It continues from what the files say, also after an interruption.
    #[command(after_help = example("rotate run --home dpe --peer-file dpm --now --yes"))]
    #[command(mut_arg("one_side", |arg| arg.hide(true)))]
    #[command(mut_arg("peer_file", |arg| arg.required_unless_present("one_side")))]
    #[command(mut_group("peers", |_| ArgGroup::new("peers").arg("peer_file")))]
    Run(StepArguments),
    /// Replace a lost, broken or leaked key; the peers revoke it and all before it
    ///
    /// It needs no key to begin with, and ends a rotation that is under way. What the old keys
    /// signed is refused from then on. Each run makes another key.
    Replace(replace::Arguments),
    /// Replace the certificate that the peers pin; for a while they pin both
    ///
    /// It makes a certificate, has the peers pin it too, uses it once they do, and then has them
    /// remove the old pin. It goes on where it was interrupted.
    #[command(after_help = example("rotate tls --home dpe --peer-file dpm --yes"))]
    Tls(Activation),
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("peers").required(true).args(["peer_file", "one_side"])))]
pub(crate) struct FileArguments {
    #[command(flatten)]
    pub(super) module: ReplicaArguments,
    /// The home or the properties file of a module that trusts it; may be repeated
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) peer_file: Vec<PathBuf>,
    /// The peers' files are on other machines: `prepare` prints a block for `pair accept`, `tls` the
    /// line that pins the new certificate
    #[arg(long)]
    pub(super) one_side: bool,
}

/// The step that is for no running module.
#[derive(Args, Debug)]
pub(crate) struct Plain {
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    how: How,
}

/// A step that revokes nothing.
#[derive(Args, Debug)]
pub(crate) struct Activation {
    #[command(flatten)]
    plain: Plain,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Args, Debug)]
pub(crate) struct StepArguments {
    #[command(flatten)]
    pub(super) files: FileArguments,
    /// Revoke the old key at once: calls with its tokens are refused
    #[arg(long)]
    pub(super) now: bool,
    #[command(flatten)]
    pub(super) asked: Asked,
    #[command(flatten)]
    pub(super) how: How,
}

impl From<Plain> for StepArguments {
    fn from(plain: Plain) -> Self {
        let asked = Asked {
            timeout: seconds(TIMEOUT).unwrap_or_default(),
            ..Asked::default()
        };
        Activation { plain, asked }.into()
    }
}

impl From<Activation> for StepArguments {
    fn from(Activation { plain, asked }: Activation) -> Self {
        let Plain { files, how } = plain;
        let now = false;
        Self {
            files,
            now,
            asked,
            how,
        }
    }
}

/// How running modules are asked.
#[derive(Args, Debug, Default)]
pub(super) struct Asked {
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
        let peers = self.peer_file.iter().map(|peer| Home::new(peer).file);
        Rotation::read(&self.module.files(), &peers.collect::<Vec<_>>())
    }

    /// Guesses what the module is: what its peers call it, else by the name of its home.
    pub(super) fn kind(&self, rotation: &Rotation) -> ModuleKind {
        let module = rotation.module();
        let home = self.module.home.first();
        match (module, home) {
            (Some(module), _) => ModuleKind::of(module),
            (None, Some(home)) => kind_of(home),
            (None, None) => ModuleKind::Dpe,
        }
    }

    /// Returns the command of `step` for the same files.
    pub(super) fn command(&self, step: &str) -> CommandLine {
        let rotate = CommandLine::new("countersign rotate").arg(step);
        let homes = self.module.home.iter();
        let owner = homes.fold(rotate, |command, home| command.option("home", home));
        let peers = self.peer_file.iter();
        let command = peers.fold(owner, |command, peer| command.option("peer-file", peer));
        command.flag_if(self.one_side, "one-side")
    }
}

impl StepArguments {
    /// Returns the command of `step`, another one, with the options that were given to this one.
    pub(super) fn command(&self, step: &str) -> CommandLine {
        let mut command = self.files.command(step);
        if step == Step::Abort.as_str() {
            return command;
        }
        let asked = &self.asked;
        command = command.flag_if(asked.offline, "offline");
        for (name, address) in &asked.peer_address {
            command = command.option("peer-address", format!("{name}={address}"));
        }
        for name in &asked.except {
            command = command.option("except", name.as_str());
        }
        let timeout = asked.timeout.as_secs().to_string();
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
            // It is not shown where a peer is whose file lies elsewhere, or that it has the block.
            Kind::Conflict if self.files.one_side => {
                return error.with_help(
                    "have its operator accept the block of `rotate prepare` with `countersign pair accept`, \
                     name where it listens with `--peer-address`, or leave it out with `--except`",
                );
            }
            _ => return error,
        };
        error.with_help(help).with_commands([command])
    }

    /// Returns how running modules are asked. Options must name peers, in whatever spelling.
    pub(super) fn asking(&self, rotation: &Rotation) -> Result<Asking, Refused> {
        let mut asking = Asking {
            addresses: self.asked.peer_address.clone(),
            except: self.asked.except.clone(),
            offline: self.asked.offline,
            ..Asking::default()
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

/// Writes what a step changed, and what comes next.
pub(super) fn step(plan: &Plan, after: &Rotation, arguments: &StepArguments) -> String {
    let mut text = heading(after) + &changes(&plan.change.files);
    if plan.change.is_empty() {
        text += "\nnothing to do\n";
    } else if arguments.how.dry_run {
        return text + arguments.how.ending(&plan.change);
    }
    let open = next_command(after, |step| arguments.command(step));
    if plan.step == Step::Finish && open.is_none() {
        text += &prunings(after);
    }
    text + &next(after, open)
}

/// Writes the commands that remove the old keys, which are revoked, from the peers' files.
fn prunings(after: &Rotation) -> String {
    let peers = after.peers.iter().filter(|peer| {
        let mut keys = after.deployment(peer).into_iter().flat_map(|of| &of.keys);
        keys.any(|key| key.revoked)
    });
    let heads = iter::once("\nnext").chain(iter::repeat("    "));
    let lines = peers.zip(heads).map(|(peer, head)| {
        let prune = CommandLine::new("countersign deployment prune");
        format!("{head}    {}\n", prune.option("home", home_of(&peer.path)))
    });
    lines.collect()
}

/// Writes the module's keys.
fn heading(rotation: &Rotation) -> String {
    let name = match rotation.name() {
        Some(name) => name.to_string(),
        None => rotation.owner.path.display().to_string(),
    };
    let mut keys = vec![[name, "signs with".to_owned(), aged(rotation.key())]];
    let damaged = rotation
        .damage()
        .map(|_| "damaged; only `abort` is possible".to_owned());
    let next = rotation.next().map(|(key, _)| aged(key)).or(damaged);
    keys.extend(next.map(|key| [String::new(), "next key".to_owned(), key]));
    let before = rotation.state().previous.iter();
    keys.extend(before.map(|key| [String::new(), "before".to_owned(), key.to_string()]));
    table(&keys)
}

/// Writes a key's fingerprint, and its age if it is known.
fn aged(key: &SigningKey) -> String {
    let fingerprint = key.fingerprint();
    match age(key) {
        Some(age) => format!("{fingerprint}  (age {age})"),
        None => fingerprint.to_string(),
    }
}

fn age(key: &SigningKey) -> Option<Age> {
    Age::between(key.made_at()?, SystemClock.now())
}

/// Returns the command that continues the rotation; `None` if none is under way.
fn next_command(rotation: &Rotation, command: impl FnOnce(&str) -> CommandLine) -> Option<String> {
    let is_open = rotation.must_abort() || rotation.phase() != Phase::Idle;
    is_open.then(|| command(rotation.next_step().as_str()).to_string())
}

/// Writes that command, and how long to wait before it.
fn next(rotation: &Rotation, command: Option<String>) -> String {
    let Some(command) = command else {
        return String::new();
    };
    match left(rotation).filter(|_| rotation.next_step() == Step::Finish) {
        None => format!("\nnext    {command}\n"),
        Some(wait) => format!("\nnext    {command}      in {} s\n", wait.as_secs()),
    }
}

/// Returns how long tokens of the old key may be in use, rounded up to a second.
pub(super) fn left(rotation: &Rotation) -> Option<Duration> {
    let after = rotation.finish_after()?.duration_since(SystemClock.now());
    let left = after.ok().filter(|left| !left.is_zero())?;
    let more = u64::from(left.subsec_nanos() > 0);
    Some(Duration::from_secs(left.as_secs().saturating_add(more)))
}

pub(super) fn status(rotation: &Rotation, files: &FileArguments) -> String {
    let mut text = heading(rotation);
    let phase = rotation.phase().as_str();
    let ago = activated_ago(rotation).map_or_else(String::new, |ago| format!(", {ago} s ago"));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "phase   {phase}{ago}");
    for peer in &rotation.peers {
        let path = peer.path.display();
        let Some(Deployment { name, keys, .. }) = rotation.deployment(peer) else {
            let _ = writeln!(text, "\n{path}  trusts none of its keys");
            continue;
        };
        let _ = writeln!(text, "\n{path}  calls it {name}");
        for key in keys {
            let fingerprint = key.key.fingerprint();
            let state = if key.revoked { "revoked" } else { "trusted" };
            let what = role(rotation, fingerprint);
            let _ = writeln!(text, "  {state}  {fingerprint}  {}  {what}", key.name);
        }
    }
    for name in rotation.left_out() {
        let _ = writeln!(text, "\n{name}  its file is not given");
    }
    text + &next(rotation, next_command(rotation, |step| files.command(step)))
}

fn activated_ago(rotation: &Rotation) -> Option<u64> {
    Age::between(rotation.state().activated_at?, SystemClock.now()).map(Age::seconds)
}

/// Says what a key is to the module.
fn role(rotation: &Rotation, key: Fingerprint) -> &'static str {
    let next = rotation.next().map(|(next, _)| next.fingerprint());
    if key == rotation.key().fingerprint() {
        "signs"
    } else if Some(key) == next {
        "next"
    } else if rotation.state().previous.contains(&key) {
        "before"
    } else {
        "another"
    }
}

/// Returns how far the rotation is, in JSON.
pub(super) fn in_json(rotation: &Rotation, files: &FileArguments) -> Value {
    let peers = rotation.peers.iter().map(|peer| {
        let deployment = rotation.deployment(peer);
        let known = deployment.into_iter().flat_map(|known| &known.keys);
        let keys = known.map(|key| {
            json!({
                "name": key.name,
                "fingerprint": key.key.fingerprint().to_string(),
                "revoked": key.revoked,
                "role": role(rotation, key.key.fingerprint()),
            })
        });
        json!({
            "file": peer.path.display().to_string(),
            "deployment": deployment.map(|known| known.name.to_string()),
            "keys": keys.collect::<Value>(),
        })
    });
    let keys = rotation.state().previous.iter();
    let previous: Vec<_> = keys.map(ToString::to_string).collect();
    let mut report = json!({
        "phase": rotation.phase().as_str(),
        "deployment": rotation.name().map(ToString::to_string),
        "fingerprint": rotation.key().fingerprint().to_string(),
        "age_seconds": age(rotation.key()).map(Age::seconds),
        "next_fingerprint": rotation.next().map(|(key, _)| key.fingerprint().to_string()),
        "previous_fingerprint": previous.last(),
        "previous_fingerprints": previous,
        "activated_seconds_ago": activated_ago(rotation),
        "finish_in_seconds": left(rotation).map(|left| left.as_secs()),
        "peers": peers.collect::<Value>(),
        "next_command": next_command(rotation, |step| files.command(step)),
    });
    if let Some(block) = rotation.hand_over().filter(|_| files.one_side) {
        add(&mut report, "block", block.block());
        add(&mut report, "words", block.words());
    }
    report
}

/// Returns what a step changed, in JSON.
pub(super) fn step_in_json(plan: &Plan, after: &Rotation, arguments: &StepArguments) -> Value {
    let mut json = in_json(after, &arguments.files);
    let written = arguments.how.writes(&plan.change);
    let next = next_command(after, |step| arguments.command(step));
    add(&mut json, "next_command", next);
    add(&mut json, "step", plan.step.as_str());
    add(&mut json, "written", written);
    if !plan.change.is_empty() {
        add(&mut json, "files", files_in_json(&plan.change.files));
    }
    json
}
