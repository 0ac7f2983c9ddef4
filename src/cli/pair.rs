//! `countersign pair`: the guide's procedure for two modules, in one command.

mod arguments;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub(super) use arguments::Arguments;
use arguments::{Accept, Command};

use super::change::{How, Next, answer, ask, changes, ended, files_in_json, warn_of};
use super::input;
use super::output::{Answer, Console, add, counted, table};
use super::revoke::consequences;
use crate::admin::handover::{HandOver, MAX_BYTES, Purpose};
use crate::admin::pairing::{self, Address, Member, Options, Plan, Side};
use crate::admin::{Change, ChangeKind, EditedFile, Kind, Refused, home_of};
use crate::diagnostic::{CommandLine, Severity};
use crate::grpc::Target;
use crate::identity::Role;

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
            "checked {}: {}, {}\n{}",
            match members.len() {
                2 => "both files, each against the other".to_owned(),
                count => format!("{count} files, each against the others"),
            },
            counted(findings.errors(), "error"),
            counted(findings.warnings(), "warning"),
            start(&plan, &members)
        )
    } else {
        how.ending(change).trim_start().to_owned()
    };
    let sides = plan.sides.iter();
    let deployments: Value = sides.map(|side| in_json(side, change)).collect();
    let report = json!({ "written": written, "deployments": deployments });
    console.reply(format!("{shown}\n{ending}"), &report)?;
    console.findings(findings.iter());
    ended("paired", "a", findings)
}

/// Writes the names and keys, then the changes of each file; of many modules, only what is replaced.
fn text(plan: &Plan) -> String {
    let mut keys = Vec::new();
    let are_many = plan.sides.len() > 2;
    for side in &plan.sides {
        let (of, age) = (&side.hand_over, new_or_its(side.is_key_new));
        let key = of.key.fingerprint();
        let file = if are_many {
            side.file.display().to_string()
        } else {
            String::new()
        };
        keys.push([of.deployment.to_string(), format!("{age} key  {key}"), file]);
        if let Some((key, is_new)) = side.tls().filter(|_| !are_many) {
            let age = new_or_its(is_new);
            keys.push([String::new(), format!("{age} TLS key {key}"), String::new()]);
        }
    }
    let changed = plan.change.all().filter(|file| !are_many || replaces(file));
    table(&keys) + &changes(changed) + &ports(plan)
}

fn replaces(file: &EditedFile) -> bool {
    let mut changes = file.changes.iter();
    changes.any(|change| change.kind != ChangeKind::Added)
}

fn new_or_its(is_new: bool) -> &'static str {
    if is_new { "new" } else { "its" }
}

/// Writes the commands that start the modules, if they are a DPM and engines.
fn start(plan: &Plan, members: &[Member]) -> String {
    let mut commands = members.iter().zip(&plan.sides).map(|(member, side)| {
        let run = run_of(member);
        match remote(side) {
            Some(target) => format!("on {}: {run}", target.host()),
            None => run.to_string(),
        }
    });
    let kinds: Vec<_> = members
        .iter()
        .map(|member| member.module.as_str())
        .collect();
    match (commands.next(), commands.next(), &*kinds) {
        (Some(dpm), Some(dpe), ["dpm", "dpe"]) => format!("next    {dpm}      then      {dpe}\n"),
        (Some(dpm), Some(dpe), ["dpm", "dpe", more @ ..])
            if more.iter().all(|one| *one == "dpe") =>
        {
            format!("next    {dpm}      then each engine, such as      {dpe}\n")
        }
        _ => String::new(),
    }
}

fn run_of(member: &Member) -> CommandLine {
    let run = CommandLine::new(format!("countersign {} run", member.module));
    run.option("home", home_of(&member.path))
}

/// Returns where other hosts reach a module.
fn remote(side: &Side) -> Option<&Target> {
    match &side.hand_over.purpose {
        Purpose::Pair(of) => of.address.as_ref().filter(|_| of.is_remote()),
        Purpose::Rotate { .. } | Purpose::Replace => None,
    }
}

/// Writes what a firewall must let through.
fn ports(plan: &Plan) -> String {
    let targets = plan.sides.iter().filter_map(remote);
    let places: Vec<_> = targets
        .map(|target| format!("TCP {} to {}", target.port(), target.host()))
        .collect();
    let is_plain = plan
        .sides
        .iter()
        .any(|side| remote(side).is_some() && side.tls().is_none());
    let plainly = if is_plain { "; WITHOUT TLS" } else { "" };
    match &*places {
        [] => String::new(),
        places => format!(
            "\nports   a firewall must let through: {}{plainly}\n",
            places.join(", ")
        ),
    }
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

/// Writes this side's part, and prints what the other machine needs.
fn hand_over(arguments: &Arguments, console: &Console) -> Answer {
    let mut members = arguments.given()?;
    let [member] = members.as_mut_slice() else {
        let message = "with `--one-side`, name one module: the one whose file is here";
        return Err(Refused::new(Kind::Usage, message));
    };
    let options = arguments.common.options(arguments.tls);
    if options.key_name.is_some() {
        let message = "`--key-name` names a peer's key, and with `--one-side` there is no peer";
        return Err(Refused::new(Kind::Usage, message)
            .with_help("give it to `pair accept`, which trusts the peer's key"));
    }
    let how = &arguments.common.how;
    if member.address.is_none() && !how.yes && !how.dry_run {
        let question = format!(
            "Where do other hosts reach the {}? HOST or HOST:PORT; nothing if they do not:",
            member.module
        );
        let given = answer(&question, console).filter(|answer| !answer.is_empty());
        let address = given.map(|answer| answer.parse()).transpose();
        member.address = address.map_err(|error: String| Refused::new(Kind::Usage, error))?;
    }
    let plan = pairing::plan(&members, None, &options)?;
    present(&plan, console);
    how.confirm(&plan.change, "", console)?;
    let next = members.first().map(|member| {
        let there = match member.module.as_str() {
            "dpm" => "dpe",
            "dpe" => "dpm",
            _ => "MODULE",
        };
        next(member, there, &options, [true; 2])
    });
    finish(&plan, &next.unwrap_or_default(), how, console)
}

/// Accepts what the other machine handed over.
fn accept(arguments: &Accept, console: &Console) -> Answer {
    let theirs = read(&arguments.block)?;
    compare(&theirs, arguments, console)?;
    let mut member = arguments.module.member()?;
    member.name = arguments.name.clone().or(member.name);
    arguments
        .common
        .reach
        .give(std::slice::from_mut(&mut member))?;
    let members = [member];
    let options = arguments.common.options(false);
    let plan = pairing::plan(&members, Some(&theirs), &options)?;
    let stops = consequences(&plan.revoked);
    if !stops.is_empty() {
        console.present(stops.trim_end());
    }
    present(&plan, console);
    let how = &arguments.common.how;
    if plan.change.all().any(replaces) {
        how.confirm(&plan.change, "", console)?;
    } else {
        warn_of(&plan.change, console);
    }
    let next = match (&theirs.purpose, &members, &*plan.sides) {
        (Purpose::Pair(of), [member], [side]) => next(
            member,
            of.module.as_str(),
            &options,
            [side.is_key_new, false],
        ),
        _ => Vec::new(),
    };
    finish(&plan, &next, how, console)
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
        Purpose::Replace => format!("a key in place of all those of `{}`", theirs.deployment),
    };
    // No trusted key vouches for it, and it ends the trust in those that are there.
    let is_alone = theirs.purpose == Purpose::Replace;
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
            if how.yes && !is_alone || how.dry_run {
                return Ok(());
            }
            let unasked = Refused::new(Kind::Usage, "there is no terminal to compare the words on")
                .with_help(if is_alone {
                    "`--words \"…\"` compares them; `--yes` does not, and a stranger can make this block"
                } else {
                    "`--words \"…\"` compares them, `--yes` accepts the block without comparing them"
                });
            let question = "Does the other side read out the same words? [y/N]";
            ask(question, unasked, console)
        }
    }
}

/// Writes the file, and answers with this side's block, for a module of type `there`.
fn finish(plan: &Plan, next: &[Next], how: &How, console: &Console) -> Answer {
    let change = &plan.change;
    let written = how.write(change)?;
    let findings = &change.findings;
    console.findings(findings.iter().filter(|f| f.severity == Severity::Error));
    let side = plan.sides.first();
    let block = side.map(|side| side.hand_over.block());
    let words = side.map(|side| side.hand_over.words());
    if let (Some(side), Some(words)) = (side, &words) {
        let mut text = format!("words   {words}\n");
        text += &Next::lines(next);
        if side.is_local {
            let of = &side.hand_over.deployment;
            let _ = writeln!(
                text,
                "note    `{of}` is for modules of this host: for others, add `--address`"
            );
        }
        text += ports(plan).trim_start();
        console.present(text.trim_end());
    }
    let report = json!({
        "written": written,
        "block": block,
        "words": words,
        "next": next,
        "files": files_in_json(&change.files),
    });
    console.reply(block.unwrap_or_default(), &report)?;
    ended("written", "the", findings)
}

/// Returns what goes on with the block of `member`, for a module of type `there`: whether it is
/// accepted there, and then another one here.
fn next(
    member: &Member,
    there: &str,
    options: &Options,
    [is_over, is_back]: [bool; 2],
) -> Vec<Next> {
    let module = &member.module;
    let accept = |module: &str, path: &Path, block: &str| {
        CommandLine::new("countersign pair accept")
            .named(module, path)
            .option("block", block)
            .flag_if(options.plaintext, "plaintext")
    };
    let [ours, theirs] = [module.as_str(), there].map(|module| format!("{module}.block"));
    let file = PathBuf::from(format!("{there}/etc/application.properties"));
    let mut over = accept(there, &file, &ours);
    if options.role != Role::impersonation() {
        over = over.option("role", options.role.as_str());
    }
    if is_back && member.address.as_ref().is_some_and(Address::is_remote) {
        over = over.option("address", format!("{there}=<HOST>"));
    }
    let mut next = Vec::new();
    if is_over {
        next.push(Next::new("there", &over.into_file(&theirs)));
    }
    if is_back {
        let back = accept(module.as_str(), &member.path, &theirs);
        next.push(Next::new("here", &back));
    }
    if matches!(module.as_str(), "dpm" | "dpe") {
        next.push(Next::new("here", &run_of(member)));
    }
    next
}
