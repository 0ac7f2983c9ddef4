//! `rotate replace`: another key in place of one that is lost, broken or leaked.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::json;

use crate::admin::home_of;
use crate::admin::rotation::replace::{Replacement, Request};
use crate::cli::change::{How, Next, changes, files_in_json, followed};
use crate::cli::input::ReplicaArguments;
use crate::cli::output::{Answer, Console, Format, add};
use crate::cli::revoke::consequences;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Home;
use crate::diagnostic::CommandLine;
use crate::identity::DeploymentName;

#[derive(Args, Debug)]
#[command(
    after_help = include_str!("../help/rotate_replace.txt"),
    group(ArgGroup::new("peers").required(true).multiple(true).args(["peer_file", "one_side"]))
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    module: ReplicaArguments,
    /// The home or the properties file of a module that trusts it; may be repeated
    #[arg(long, value_name = "DIR|FILE")]
    peer_file: Vec<PathBuf>,
    /// Other modules that trust it are on other machines: print a block for `pair accept`
    #[arg(long)]
    one_side: bool,
    /// What the peers call the module, if neither its file nor its key shows that
    #[arg(long, value_name = "NAME")]
    name: Option<DeploymentName>,
    #[command(flatten)]
    how: How,
}

pub(super) fn run(arguments: &Arguments, console: &Console) -> Answer {
    let how = &arguments.how;
    let peers = arguments.peer_file.iter().map(|peer| Home::new(peer).file);
    let request = Request {
        peers: peers.collect(),
        name: arguments.name.clone(),
        one_side: arguments.one_side,
        owners: arguments.module.files(),
    };
    let plan = Replacement::plan(&request, SystemClock.now())?;
    let mut stops = consequences(&plan.revoked);
    for (name, _) in &plan.elsewhere {
        // Writing to a string cannot fail.
        let _ = writeln!(
            stops,
            "{name}  refuses the new key until it accepts the block"
        );
    }
    console.present(stops.trim_end());
    let shown = changes(&plan.change.files);
    let written = how.apply(&plan.change, &shown, console)?;
    let new = &plan.hand_over;
    let block = (written && arguments.one_side).then(|| (new.block(), new.words()));
    let mut text = format!("{}  new key  {}\n{shown}", new.deployment, new.key_id);
    text += how.ending(&plan.change);
    let mut report = json!({
        "step": "replace",
        "written": written,
        "deployment": new.deployment.as_str(),
        "fingerprint": new.key_id.as_str(),
        "keys": plan.revoked.iter().flat_map(|file| &file.keys).collect::<Vec<_>>(),
        "files": files_in_json(&plan.change.files),
    });
    if let Some((block, words)) = &block {
        let _ = writeln!(text, "\nwords   {words}");
        add(&mut report, "block", block.as_str());
        add(&mut report, "words", words.as_str());
    }
    if written {
        let commands = next(&plan, &request.owners);
        text.extend(["\n", &Next::lines(&commands)]);
        add(&mut report, "next", json!(commands));
    }
    match &block {
        Some((block, _)) if console.format == Format::Text => {
            console.present(text.trim_end());
            console.answer(block)?;
        }
        _ => {
            console.reply(text, &report)?;
        }
    }
    followed(plan.without_reload.as_deref().filter(|_| written))
}

/// Returns what goes on with the new key: on the hosts of modules elsewhere, then here.
fn next(plan: &Replacement, owners: &[PathBuf]) -> Vec<Next> {
    let block = format!("{}.block", plan.hand_over.deployment);
    let elsewhere = plan.elsewhere.iter().map(|(name, module)| {
        let accept = CommandLine::new("countersign pair accept").named(module, Home::FILE);
        let host = format!("on the host of {name}, in its home folder");
        Next::new(host, &accept.option("block", &block))
    });
    let here = owners.iter().map(|owner| {
        let doctor = CommandLine::new("countersign doctor").option("home", home_of(owner));
        Next::new("here", &doctor)
    });
    elsewhere.chain(here).collect()
}
