//! The `countersign` command: arguments in, an exit code out. Thin: the work is done below.
//!
//! stdout carries the answer, stderr everything else.

mod change;
mod check;
mod demo;
mod deployment;
mod doctor;
mod engines;
mod explain;
mod input;
mod key;
mod output;
mod pair;
mod revoke;
mod rotate;
mod run;
mod runtime;
mod token;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, setrlimit};

pub use output::Exit;
use output::{Console, Format};

/// Two services that prove to each other who they are, on every gRPC call.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = include_str!("help/exit_codes.txt")
)]
struct Arguments {
    /// The format of the output
    #[arg(
        short,
        long,
        value_enum,
        default_value_t,
        global = true,
        value_name = "FORMAT"
    )]
    output: Format,
    /// When to use colours; `auto` also honours the variable `NO_COLOR`
    #[arg(long, value_enum, default_value_t, global = true, value_name = "WHEN")]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run two modules that pair, reach READY and refuse bad calls
    Demo(demo::Arguments),
    /// Pair two modules: make their keys and let each trust the other
    Pair(Box<pair::Arguments>),
    /// Check properties files before a start
    ///
    /// One file is checked on its own; two or more are also compared with each other. Exit code 1
    /// if there is an error. `countersign explain CODE` says more about a finding.
    ///
    /// --fix repairs what has one safe repair: missing quotes in a key, a key that is broken over
    /// lines, blanks at the end of a value, a byte order mark. It shows each repair and asks before
    /// it writes. The findings and the exit code are those of the repaired files.
    Check(check::Arguments),
    /// List, add and remove the modules that one file trusts
    #[command(subcommand)]
    Deployment(deployment::Command),
    /// Make, convert and identify keys
    #[command(subcommand)]
    Key(key::Command),
    /// Issue, verify and explain tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Run the registry
    #[command(subcommand)]
    Dpm(run::DpmCommand),
    /// Run an engine
    #[command(subcommand)]
    Dpe(run::DpeCommand),
    /// Replace a module's key while it runs, without refusing a call
    #[command(subcommand)]
    Rotate(rotate::Command),
    /// Revoke a key at once
    ///
    /// Before it writes, and with --dry-run, it shows what would stop working. A running module
    /// follows its file within 2 s; `--watch` waits for that. One that runs with
    /// `countersign.reload=false` follows it at SIGHUP (`kill -HUP PID`).
    ///
    /// A revoked key stays revoked: the module's home remembers it in `storage/revoked-keys`,
    /// whatever the file says later. --undo takes it back, for a key that was never lost.
    Revoke(revoke::Arguments),
    /// Show the engines that the DPM knows
    #[command(subcommand)]
    Engines(engines::Command),
    /// Find the layer that keeps two modules from communicating, and how to fix it
    ///
    /// It checks ten layers in order and stops at the first that fails: config, own key, name, TCP,
    /// TLS, gRPC, clock, token, role, way back. It connects and calls as the module does, and
    /// changes nothing. A DPE's peer is its DPM; a DPM's peers are itself and the engines that it
    /// knows.
    ///
    /// Exit code 0 if nothing fails; 3 for config and own key; 5 for name, TCP, TLS and gRPC; 4 for
    /// token and role, and for an address that the DPM does not allow; 1 for clock and way back.
    /// The way back also fails if the engine does not run; at a DPM that trusts a DPE, if no engine
    /// is registered, and for each registered engine that is not READY. Deployments without an
    /// engine and INACTIVE engines are listed.
    Doctor(doctor::Arguments),
    /// Verify a compact JWS against one key
    #[command(subcommand)]
    Jws(token::JwsCommand),
    /// Explain a finding's code or a refusal's reason
    Explain(explain::Arguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    no_core_dump();
    panic::set_hook(Box::new(output::report_bug));
    panic::catch_unwind(AssertUnwindSafe(run))
        .unwrap_or(Exit::Bug)
        .into()
}

/// Keeps private keys out of core dumps. Where the system refuses, the program works all the same.
fn no_core_dump() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    // The limit does not hold for dumps that a program receives through a pipe.
    #[cfg(target_os = "linux")]
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Breaks the usages that are too long, as clap breaks all other text.
fn narrow(mut command: clap::Command) -> clap::Command {
    let usage = command.render_usage().to_string();
    if usage.lines().any(|line| line.len() > 80) {
        let lines = explain::wrap(usage.trim_start_matches("Usage: "));
        command = command.override_usage(lines.replace('\n', "\n           "));
    }
    command.mut_subcommands(narrow)
}

fn run() -> Exit {
    let mut tree = Arguments::command();
    tree.build();
    let read = narrow(tree).try_get_matches();
    let arguments = match read.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return output::usage(error),
    };
    let console = Console::new(arguments.output, arguments.color);
    let answer = match arguments.command {
        Command::Pair(arguments) => pair::run(&arguments, &console),
        Command::Check(arguments) => check::run(&arguments, &console),
        Command::Deployment(command) => deployment::run(&command, &console),
        Command::Demo(arguments) => demo::run(&arguments, &console),
        Command::Token(command) => token::run(&command, &console),
        Command::Dpm(command) => run::run_dpm(&command, &console),
        Command::Dpe(command) => run::run_dpe(&command, &console),
        Command::Engines(command) => engines::run(&command, &console),
        Command::Doctor(arguments) => doctor::run(&arguments, &console),
        Command::Revoke(arguments) => revoke::run(&arguments, &console),
        Command::Rotate(command) => rotate::run(command, &console),
        Command::Key(command) => key::run(&command, &console),
        Command::Jws(command) => token::run_jws(&command, &console),
        Command::Explain(arguments) => explain::run(&arguments, &console),
    };
    answer.unwrap_or_else(|failure| console.fail(&failure))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.get_after_help().map(ToString::to_string);
                let shows = help.is_some_and(|help| help.contains(&format!("$ {path}")));
                assert!(
                    shows || sub.has_subcommands(),
                    "{path} has no example of itself"
                );
                check(sub, &path);
            }
        }
        check(&Arguments::command(), "countersign");
    }
}
