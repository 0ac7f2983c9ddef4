//! `countersign pair`: the guide's procedure for two modules, in one command.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::change::{How, ask, changes, ended, files_in_json, warn_of};
use super::input;
use super::output::{Answer, Console, add, counted, example, table};
use crate::admin::handover::{HandOver, MAX_BYTES, Purpose};
use crate::admin::pairing::{self, Member, Options, Plan, Side};
use crate::admin::{self, Change, ChangeKind, Kind, Refused, home_of};
use crate::diagnostic::{CommandLine, Severity, redact};
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, SigningKey};

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    if let Some(Command::Accept(block)) = &arguments.accept {
        return accept(block, console);
    }
    if arguments.one_side {
        return hand_over(arguments, console);
    }
    let members = arguments.members()?;
    let how = &arguments.common.how;
    let plan = pairing::plan(&members, None, &arguments.common.options(arguments.tls))?;
    let change = &plan.change;
    let shown = text(&plan);
    let written = how.apply(change, &shown, console)?;
    let findings = &change.findings;
    let ending = if written {
        format!(
            "checked both files, each against the other: {}, {}\n{}",
            counted(findings.errors(), "error"),
            counted(findings.warnings(), "warning"),
            next(&members).unwrap_or_default()
        )
    } else {
        how.ending(change).trim_start().to_owned()
    };
    let sides = plan.sides.iter();
    let deployments: Value = sides.map(|side| in_json(side, change)).collect();
    let report = json!({ "written": written, "deployments": deployments });
    console.reply(format!("{shown}\n{ending}"), &report)?;
    console.findings(findings.iter().filter(|f| f.severity != Severity::Note));
    ended("paired", "a", findings)
}

/// Writes the two names and keys, then the changes of each file.
fn text(plan: &Plan) -> String {
    let mut keys = Vec::new();
    for side in &plan.sides {
        let (of, age) = (&side.hand_over, new_or_its(side.is_key_new));
        let key = of.key.fingerprint();
        keys.push([of.deployment.to_string(), format!("{age} key  {key}")]);
        if let Some((key, is_new)) = side.tls() {
            let age = new_or_its(is_new);
            keys.push([String::new(), format!("{age} TLS key {key}")]);
        }
    }
    table(&keys) + &changes(plan.change.all())
}

fn new_or_its(is_new: bool) -> &'static str {
    if is_new { "new" } else { "its" }
}

/// Writes the commands that start the two modules, if they are a DPM and a DPE.
fn next([dpm, dpe]: &[Member; 2]) -> Option<String> {
    let modules = (dpm.module.as_str(), dpe.module.as_str());
    let [dpm, dpe] = [("countersign dpm run", dpm), ("countersign dpe run", dpe)]
        .map(|(run, member)| CommandLine::new(run).option("home", home_of(&member.path)));
    (modules == ("dpm", "dpe")).then(|| format!("next    {dpm}      then      {dpe}\n"))
}

fn in_json(side: &Side, change: &Change) -> Value {
    let files = change.files.iter().filter(|file| file.main == side.file);
    let is_new = files.clone().all(|file| !file.is_there());
    let changes = files.flat_map(|file| &file.changes).map(|change| {
        let replaces = change.kind != ChangeKind::Added;
        json!({ "key": change.key, "value": change.shown, "replaces": replaces })
    });
    let mut report = json!({
        "name": side.hand_over.deployment.as_str(),
        "fingerprint": side.hand_over.key.fingerprint().to_string(),
        "new_key": side.is_key_new,
        "file": side.file.display().to_string(),
        "new_file": is_new,
        "changes": changes.collect::<Value>(),
    });
    if let Some((pin, _)) = side.tls() {
        add(&mut report, "tls_fingerprint", pin.to_string());
    }
    report
}

#[derive(Args, Debug)]
#[command(
    after_help = include_str!("help/pair.txt"),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    accept: Option<Command>,
    /// The two modules: type and properties file, which is made if it does not exist
    #[arg(num_args = 1..=2, required = true, value_name = "MODULE=FILE")]
    modules: Vec<Of<PathBuf>>,
    /// Only one file is here: print a block for `pair accept` on the other machine
    #[arg(long)]
    one_side: bool,
    /// The name of a module [default: what the files say, else <module>-<environment>]
    #[arg(long, value_name = "MODULE=NAME")]
    name: Vec<Of<DeploymentName>>,
    /// A private key to use instead of a new one, in any form
    #[arg(long, value_name = "MODULE=FILE")]
    key: Vec<Of<PathBuf>>,
    /// Use TLS: give each side a certificate and pin it in the other's file
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    common: Common,
}

/// What both ways of pairing take.
#[derive(Args, Debug)]
struct Common {
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
    how: How,
}

/// `module=value`.
#[derive(Clone, Debug)]
struct Of<T> {
    module: ModuleType,
    value: T,
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
enum Command {
    /// Accept the block that `pair --one-side` or `rotate prepare --one-side` printed elsewhere
    ///
    /// Compare the words by voice, or let the command compare them: --words "…". --yes accepts the
    /// block without comparing. The output is this side's own block, for `pair accept` on the other
    /// machine.
    #[command(after_help = example("pair accept dpe=dpe.properties --block dpm.block --yes > dpe.block"))]
    Accept(Accept),
}

#[derive(Args, Debug)]
struct Accept {
    /// The module whose file is here: type and properties file, which is made if it does not exist
    #[arg(value_name = "MODULE=FILE")]
    module: Of<PathBuf>,
    /// The block that the other machine printed; `-` is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    block: PathBuf,
    /// The words that the other machine showed; a block with different words is refused
    #[arg(long, value_name = "WORDS")]
    words: Option<String>,
    /// The name of this module [default: what its file says, else <module>-<environment>]
    #[arg(long)]
    name: Option<DeploymentName>,
    #[command(flatten)]
    common: Common,
}

impl Arguments {
    /// Returns both modules.
    fn members(&self) -> Result<[Member; 2], Refused> {
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
    fn member(&self, of: &Of<PathBuf>) -> Result<Member, Refused> {
        let name = self.name.iter().rfind(|name| name.module == of.module);
        let key = self.key.iter().rfind(|key| key.module == of.module);
        Ok(Member {
            key: key.map(|key| private_key(&key.value)).transpose()?,
            ..of.member(name.map(|name| name.value.clone()))?
        })
    }
}

impl Common {
    fn options(&self, tls: bool) -> Options {
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
    fn member(&self, name: Option<DeploymentName>) -> Result<Member, Refused> {
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

/// Writes this side's part, and prints what the other machine needs.
fn hand_over(arguments: &Arguments, console: &Console) -> Answer {
    let [only] = arguments.modules.as_slice() else {
        let message = "with `--one-side`, name one module: the one whose file is here";
        return Err(Refused::new(Kind::Usage, message));
    };
    let options = Options {
        key_name: None,
        ..arguments.common.options(arguments.tls)
    };
    let plan = pairing::plan(&[arguments.member(only)?], None, &options)?;
    let how = &arguments.common.how;
    present(&plan, console);
    how.confirm(&plan.change, "", console)?;
    finish(&plan, how, console)
}

/// Accepts what the other machine handed over.
fn accept(arguments: &Accept, console: &Console) -> Answer {
    let theirs = read(&arguments.block)?;
    compare(&theirs, arguments, console)?;
    let member = arguments.module.member(arguments.name.clone())?;
    let plan = pairing::plan(&[member], Some(&theirs), &arguments.common.options(false))?;
    present(&plan, console);
    warn_of(&plan.change, console);
    finish(&plan, &arguments.common.how, console)
}

fn present(plan: &Plan, console: &Console) {
    console.present(match changes(plan.change.all()).trim() {
        "" => "nothing to do",
        text => text,
    });
}

fn read(path: &Path) -> Result<HandOver, Refused> {
    let bytes = input::bytes(path, MAX_BYTES)?;
    HandOver::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| {
        let what = format!("{} is not a block to accept: {error}", input::name(path));
        Refused::new(Kind::Conflict, what).with_help("have the other machine print it again")
    })
}

/// Compares the words: as given, else by a person.
fn compare(theirs: &HandOver, arguments: &Accept, console: &Console) -> Result<(), Refused> {
    let what = match &theirs.purpose {
        Purpose::Pair(of) => format!("the {} `{}`", of.module, theirs.deployment),
        Purpose::Rotate { .. } => format!("another key of `{}`", theirs.deployment),
    };
    let words = theirs.words();
    match &arguments.words {
        Some(heard) if theirs.has_words(heard) => Ok(()),
        Some(_) => {
            let message = format!("refused: the words of this block are different: {words}");
            Err(Refused::new(Kind::Conflict, message)
                .with_help("it is not the block that the other side made; have it sent again"))
        }
        None => {
            let key = &theirs.key_id;
            console.present(&format!("block   {what}, {key}\nwords   {words}"));
            let how = &arguments.common.how;
            if how.yes || how.dry_run {
                return Ok(());
            }
            let unasked = Refused::new(Kind::Usage, "there is no terminal to compare the words on")
                .with_help("`--words \"…\"` compares them, `--yes` accepts the block without comparing them");
            let question = "Does the other side read out the same words? [y/N]";
            ask(question, unasked, console)
        }
    }
}

/// Writes the file, and answers with this side's block.
fn finish(plan: &Plan, how: &How, console: &Console) -> Answer {
    let change = &plan.change;
    let written = how.write(change)?;
    let findings = &change.findings;
    console.findings(findings.iter().filter(|f| f.severity == Severity::Error));
    let side = plan.sides.first();
    let block = side.map(|side| side.hand_over.block());
    let words = side.map(|side| side.hand_over.words());
    if let Some(words) = &words {
        console.present(&format!("words   {words}"));
    }
    let report = json!({
        "written": written,
        "block": block,
        "words": words,
        "files": files_in_json(&change.files),
    });
    console.reply(block.unwrap_or_default(), &report)?;
    ended("written", "the", findings)
}
