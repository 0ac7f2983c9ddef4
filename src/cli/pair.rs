//! `countersign pair`: the guide's procedure for two modules, in one command.

mod arguments;
mod one_side;

use serde_json::{Value, json};

use super::change::{changes, ended};
use super::output::{Answer, Console, add, counted, table};
use crate::admin::pairing::{self, Member, Plan, Side};
use crate::admin::{ChangeKind, EditedFile, home_of};
use crate::diagnostic::{CommandLine, Severity};
pub(super) use arguments::Arguments;
use arguments::Command;

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    if let Some(Command::Accept(accept)) = &arguments.accept {
        return one_side::accept(accept, console);
    }
    if arguments.one_side {
        return one_side::hand_over(arguments, console);
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
    let deployments: Value = plan.sides.iter().zip(&change.files).map(in_json).collect();
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

fn in_json((side, file): (&Side, &EditedFile)) -> Value {
    let changes = file.changes.iter().map(|change| {
        let replaces = change.kind != ChangeKind::Added;
        json!({ "key": change.key, "value": change.shown, "replaces": replaces })
    });
    let mut report = json!({
        "name": side.hand_over.deployment.as_str(),
        "fingerprint": side.hand_over.key.fingerprint().to_string(),
        "new_key": side.is_key_new,
        "file": file.path.display().to_string(),
        "new_file": !file.is_there(),
        "changes": changes.collect::<Value>(),
    });
    if let Some((pin, _)) = side.tls() {
        add(&mut report, "tls_fingerprint", pin.to_string());
    }
    report
}
