//! `countersign pair`: the guide's procedure for two modules, in one command.

mod members;
mod one_side;
mod report;

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::check::counted;
use super::output::{Console, Exit, Failure, Format, chain};
use super::{Answer, key};
use crate::admin::pairing::{self, Member, Options, Plan, PlannedSide};
use crate::admin::{ChangeKind, PairError};
use crate::clock::{Clock as _, SystemClock};
use crate::diagnostic::Severity;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use members::{member, members, settings_file};
use report::Report;

#[expect(
    clippy::struct_excessive_bools,
    reason = "four switches of the command line"
)]
#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    accept: Option<one_side::Command>,
    /// The two modules: type and properties file, which need not be there yet
    #[arg(num_args = 1..=2, required = true, value_name = "MODULE=FILE")]
    modules: Vec<Of<PathBuf>>,
    /// Only one file is here: print what the other machine needs, for `pair accept` there
    #[arg(long)]
    one_side: bool,
    /// The environment both belong to [default: what the files say, else dev]
    #[arg(long)]
    environment: Option<Environment>,
    /// What a module is called [default: what the files say, else <module>-<environment>]
    #[arg(long, value_name = "MODULE=NAME")]
    name: Vec<Of<DeploymentName>>,
    /// The role each gives the other
    #[arg(long, default_value = "IMPERSONATION", value_parser = Role::new)]
    role: Role,
    /// A private key to use in place of a new one, in any form
    #[arg(long, value_name = "MODULE=FILE")]
    key: Vec<Of<PathBuf>>,
    /// What the keys are called below `jwt-keys` [default: key]
    #[arg(long, value_name = "NAME")]
    key_name: Option<DeploymentName>,
    /// Talk TLS: give each side a certificate and pin it in the other's file
    #[arg(long)]
    tls: bool,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Change files that are there without asking
    #[arg(long)]
    yes: bool,
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
struct Of<T> {
    module: ModuleType,
    value: T,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for Of<T> {
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

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    if let Some(one_side::Command::Accept(accept)) = &arguments.accept {
        return one_side::accept(accept, console);
    }
    if arguments.one_side {
        return one_side::hand_over(arguments, console);
    }
    let members = members(arguments)?;
    let options = Options {
        environment: arguments.environment.clone(),
        role: arguments.role.clone(),
        key_name: arguments.key_name.as_ref().map(ToString::to_string),
        tls: arguments.tls,
        now: SystemClock.now(),
    };
    let plan = pairing::plan(&members, &options)
        .map_err(|error| not_paired(&error, &arguments.modules, console))?;
    if !arguments.dry_run {
        if plan.touches_existing() && !arguments.yes {
            console.present(text(&plan).trim_end());
            ask(console)?;
        }
        plan.carry_out()
            .map_err(|error| not_paired(&error, &arguments.modules, console))?;
    }
    for side in plan.sides() {
        remark(side, console);
    }
    match console.format() {
        Format::Text => console.answer(text(&plan) + &ending(&plan, &members, arguments))?,
        Format::Json => console.json(&Report::of(&plan, arguments.dry_run))?,
    }
    for finding in &plan.report().findings {
        if finding.severity() != Severity::Note {
            console.finding(finding);
        }
    }
    match plan.report().findings.errors() {
        0 => Ok(Exit::Done),
        errors => {
            let count = counted(errors, "error");
            Err(Failure::new(
                Exit::No,
                format!("paired, but {count} would keep a module from starting"),
            ))
        }
    }
}

/// Asks whether to go on; without a terminal that is what `--yes` says.
pub(super) fn ask(console: &Console) -> Result<(), Failure> {
    confirm("Write these changes? [y/N]", console)
}

fn confirm(question: &str, console: &Console) -> Result<(), Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stderr().is_terminal() {
        return Err(
            Failure::new(Exit::Usage, "files that are there would change")
                .with_help("`--yes` changes them, `--dry-run` only shows how"),
        );
    }
    console.say(question);
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::No, "nothing was written")),
    }
}

fn not_paired(error: &PairError, modules: &[Of<PathBuf>], console: &Console) -> Failure {
    if let PairError::Syntax(findings) = error {
        for finding in findings {
            console.finding(finding);
        }
    }
    let cannot = |exit| Failure::new(exit, format!("cannot pair: {}", chain(error)));
    match error {
        PairError::Write(error) => key::not_written(error),
        PairError::SameFile | PairError::SameName(_) => cannot(Exit::Usage),
        PairError::OtherKey(_) => cannot(Exit::WouldOverwrite)
            .with_help("a private key is never replaced; leave out `--key`, or remove it by hand"),
        PairError::OtherName { .. } | PairError::OtherModule { .. } => {
            cannot(Exit::WouldOverwrite).with_help("give the name that is there with `--name`")
        }
        PairError::OtherOwner { found, .. } => cannot(Exit::WouldOverwrite).with_help(format!(
            "write `countersign.deployment.name={found}` into its own file, or where that has none \
             use `--name <module>={found}`; or remove that deployment"
        )),
        PairError::NameTaken { .. } => cannot(Exit::WouldOverwrite).with_help(
            "another module? give this one a name of its own with `--name`. The same one with a \
             second key? say so with `--key-name key2`",
        ),
        PairError::OtherSigner { .. } => cannot(Exit::No)
            .with_help("pair the two first; a key is handed over by the module that is trusted"),
        PairError::KeyNameTaken { .. } => {
            cannot(Exit::WouldOverwrite).with_help("choose another `--key-name`")
        }
        PairError::Revoked { path, name } => {
            let mut others = modules.iter().filter(|of| of.value != *path);
            let own = match (others.next(), others.next()) {
                (Some(own), None) => own.value.display().to_string(),
                _ => format!("<the file of {name}>"),
            };
            cannot(Exit::WouldOverwrite).with_help(format!(
                "revoked by mistake? write `is-revoked=false` there; else give it a new key: \
                 countersign rotate run --file {own} --peer-file {} --now",
                path.display()
            ))
        }
        PairError::OtherPin { .. } => cannot(Exit::WouldOverwrite).with_help(
            "the certificate was renewed? pin the new one beside the old with `--key-name key2`",
        ),
        PairError::HalfCertificate(_) => {
            cannot(Exit::WouldOverwrite).with_help("remove it, or put the missing file beside it")
        }
        PairError::NewCertificate(_)
        | PairError::NewKey(_)
        | PairError::Internal(_)
        | PairError::Check(_) => cannot(Exit::Bug),
        _ => cannot(Exit::Unreadable),
    }
}

/// Warns of what the change means for this side's file and process.
fn remark(side: &PlannedSide, console: &Console) {
    let path = side.file().path().display();
    if let Some((before, after)) = side.file().mode_change() {
        console.note(&format!(
            "`{path}` holds a private key: its mode goes from {before:04o} to {after:04o}"
        ));
    }
    if side.file().is_there() && !side.file().changes().is_empty() && listens(side.port()) {
        let port = side.port();
        console.warn(&format!(
            "something listens on port {port}; if it is this module, it follows its file within 2 s, but for TLS, which needs a restart"
        ));
    }
}

fn listens(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

/// Writes what is done: the two names and keys, then the changes of each file.
fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let width = plan
        .sides()
        .iter()
        .map(|side| side.name().as_str().len())
        .max();
    let width = width.unwrap_or_default();
    // Writing to a string cannot fail.
    for side in plan.sides() {
        let age = if side.is_key_new() {
            "new key "
        } else {
            "its key "
        };
        let (name, fingerprint) = (side.name().as_str(), side.fingerprint());
        let _ = writeln!(text, "{name:<width$}  {age} {fingerprint}");
        if let Some(fingerprint) = side.tls_fingerprint() {
            let age = if side.tls_files().is_empty() {
                "its TLS key"
            } else {
                "new TLS key"
            };
            let _ = writeln!(text, "{:<width$}  {age} {fingerprint}", "");
        }
    }
    for side in plan.sides() {
        if side.file().changes().is_empty() {
            continue;
        }
        let state = if side.file().is_there() {
            "changed"
        } else {
            "new, mode 0600"
        };
        let _ = writeln!(text, "\n{}  ({state})", side.file().path().display());
        for change in side.file().changes() {
            let sign = match change.kind {
                ChangeKind::Added => '+',
                _ => '~',
            };
            let _ = writeln!(text, "  {sign} {}={}", change.key, change.shown);
        }
        text.push_str(&new_files(&side.tls_files()));
    }
    text
}

/// Names the TLS files that are made: a certificate and its key.
fn new_files(files: &[&Path]) -> String {
    let mut text = String::new();
    for (file, mode) in files.iter().zip(["0644", "0600"]) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}  (new, mode {mode})", file.display());
    }
    text
}

fn ending(plan: &Plan, members: &[Member; 2], arguments: &Arguments) -> String {
    if plan.is_empty() {
        return "\nnothing to do\n".to_owned();
    }
    if arguments.dry_run {
        return "\nnothing was written (--dry-run)\n".to_owned();
    }
    let findings = &plan.report().findings;
    let mut text = String::from("\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "checked both files, each against the other: {}, {}",
        counted(findings.errors(), "error"),
        counted(findings.warnings(), "warning")
    );
    let homes = members.each_ref().map(|member| home(&member.path));
    if let [Some(one), Some(other)] = homes {
        let [first, second] = members.each_ref().map(|member| member.module.as_str());
        if (first, second) == ("dpm", "dpe") {
            let (run, then) = ("countersign dpm run --home", "countersign dpe run --home");
            let _ = writeln!(text, "next    {run} {one}      then      {then} {other}");
        }
    }
    text
}

/// Returns the home whose file this is, if it has the usual place.
fn home(path: &Path) -> Option<String> {
    let home = path.to_str()?.strip_suffix("etc/application.properties")?;
    match home.strip_suffix('/') {
        Some(home) if !home.is_empty() => Some(home.to_owned()),
        Some(_) => None,
        None => home.is_empty().then(|| ".".to_owned()),
    }
}
